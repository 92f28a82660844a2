//! WebSocket frames as they pass (RFC 6455, section 5): headers checked, payloads unmasked for the scanner and
//! masked again, nothing re-framed.
//!
//! Push bytes in; what may be sent on comes out. A header waits until every payload byte before it was released.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The longest frame header: two bytes, eight of length, four of key.
const HEADER_LIMIT: usize = 14;

/// What is wrong with a frame; the connection is closed with code 1002.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A reserved bit is set although no extension was negotiated.
    ReservedBits,
    /// An opcode that RFC 6455 does not define.
    Opcode(u8),
    /// A client's frame without mask (section 5.1).
    Unmasked,
    /// A control frame that is fragmented or longer than 125 bytes (section 5.5).
    Control,
    /// A length that is not written in the shortest form, or is over 2^63 (section 5.2).
    Length,
}

/// One event of a stream of client frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameEvent {
    /// A piece of payload, unmasked.
    Payload(Bytes),
    /// The frame just seen was the last of its message, or a control frame.
    MessageEnd,
}

/// Splits a client's stream into payloads to look into, and puts together again what may be sent on.
#[derive(Debug, Default)]
pub struct ClientFrames {
    header: BytesMut,
    /// Payload bytes of the current frame still to come.
    remaining: u64,
    current: Option<Frame>,
    /// What has been read and not yet sent on, in order.
    queue: VecDeque<Segment>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    key: [u8; 4],
    offset: usize,
    last: bool,
}

#[derive(Debug)]
enum Segment {
    Header(Bytes),
    Payload { length: usize, key: [u8; 4], offset: usize },
}

impl ClientFrames {
    /// Takes bytes of the stream and tells what is in them.
    ///
    /// # Errors
    /// Where they are no frames of a client; nothing after that may be sent on.
    pub fn push(&mut self, mut input: Bytes, events: &mut Vec<FrameEvent>) -> Result<(), FrameError> {
        while !input.is_empty() {
            match self.current {
                None => self.read_header(&mut input, events)?,
                Some(frame) => self.read_payload(frame, &mut input, events),
            }
        }
        Ok(())
    }

    /// Gives payload bytes back that may be sent on, in the order in which they were told, and collects what can
    /// go out now: those bytes masked again, and headers whose turn has come.
    pub fn release(&mut self, released: &[Bytes], out: &mut BytesMut) {
        self.emit_headers(out);
        for piece in released {
            let mut piece = &piece[..];
            while !piece.is_empty() {
                let Some(Segment::Payload { length, key, offset }) = self.queue.front_mut() else {
                    debug_assert!(false, "more was released than was read");
                    return;
                };
                let taken = piece.len().min(*length);
                out.extend(piece[..taken].iter().enumerate().map(|(i, b)| b ^ key[(*offset + i) % 4]));
                *length -= taken;
                *offset += taken;
                piece = &piece[taken..];
                if *length == 0 {
                    self.queue.pop_front();
                }
                self.emit_headers(out);
            }
        }
    }

    fn emit_headers(&mut self, out: &mut BytesMut) {
        while let Some(Segment::Header(header)) = self.queue.front() {
            out.extend_from_slice(header);
            self.queue.pop_front();
        }
    }

    fn read_header(&mut self, input: &mut Bytes, events: &mut Vec<FrameEvent>) -> Result<(), FrameError> {
        debug_assert!(self.header.len() < HEADER_LIMIT);
        self.header.extend_from_slice(&input.split_to(1));
        let Some((length, frame)) = parse_header(&self.header)? else { return Ok(()) };
        self.queue.push_back(Segment::Header(self.header.split().freeze()));
        self.remaining = length;
        self.current = Some(frame);
        if length == 0 {
            self.end_frame(frame, events);
        }
        Ok(())
    }

    fn read_payload(&mut self, mut frame: Frame, input: &mut Bytes, events: &mut Vec<FrameEvent>) {
        let taken = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(input.len());
        let masked = input.split_to(taken);
        let clear: Bytes =
            masked.iter().enumerate().map(|(i, b)| b ^ frame.key[(frame.offset + i) % 4]).collect();
        self.queue.push_back(Segment::Payload { length: taken, key: frame.key, offset: frame.offset });
        events.push(FrameEvent::Payload(clear));
        frame.offset = (frame.offset + taken) % 4;
        self.remaining -= taken as u64;
        self.current = Some(frame);
        if self.remaining == 0 {
            self.end_frame(frame, events);
        }
    }

    fn end_frame(&mut self, frame: Frame, events: &mut Vec<FrameEvent>) {
        self.current = None;
        if frame.last {
            events.push(FrameEvent::MessageEnd);
        }
    }
}

/// `None` until the header is complete.
fn parse_header(bytes: &[u8]) -> Result<Option<(u64, Frame)>, FrameError> {
    let [first, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBits);
    }
    let opcode = first & 0x0f;
    if !matches!(opcode, 0x0..=0x2 | 0x8..=0xa) {
        return Err(FrameError::Opcode(opcode));
    }
    let [second, rest @ ..] = rest else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(FrameError::Unmasked);
    }
    let last = first & 0x80 != 0;
    let short = second & 0x7f;
    let control = opcode >= 0x8;
    if control && (!last || short > 125) {
        return Err(FrameError::Control);
    }
    let (length, rest) = match short {
        126 => match rest {
            [a, b, rest @ ..] => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            _ => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        short => (u64::from(short), rest),
    };
    let shortest = match short {
        126 => length > 125,
        127 => length > 0xffff && length < 1 << 63,
        _ => true,
    };
    if !shortest {
        return Err(FrameError::Length);
    }
    let Some((key, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    Ok(Some((length, Frame { key: *key, offset: 0, last })))
}

/// A close frame of a server with a code and a short reason (RFC 6455, section 5.5.1).
pub fn server_close(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.len().min(123)];
    let mut frame = vec![0x88, (reason.len() + 2) as u8];
    frame.extend(code.to_be_bytes());
    frame.extend(reason);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let key = [0x11, 0x22, 0x33, 0x44];
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..=125 => bytes.push(0x80 | short as u8),
            medium => {
                bytes.push(0x80 | 126);
                bytes.extend((medium as u16).to_be_bytes());
            }
        }
        bytes.extend(key);
        bytes.extend(payload.iter().enumerate().map(|(i, b)| b ^ key[i % 4]));
        bytes
    }

    fn pass(stream: &[u8], cut: usize) -> (Vec<u8>, Vec<u8>, usize) {
        let (mut frames, mut out, mut clear, mut ends) =
            (ClientFrames::default(), BytesMut::new(), Vec::new(), 0);
        for piece in stream.chunks(cut) {
            let mut events = Vec::new();
            frames.push(Bytes::copy_from_slice(piece), &mut events).unwrap();
            for event in events {
                match event {
                    FrameEvent::Payload(bytes) => {
                        clear.extend_from_slice(&bytes);
                        frames.release(&[bytes], &mut out);
                    }
                    FrameEvent::MessageEnd => {
                        ends += 1;
                        frames.release(&[], &mut out);
                    }
                }
            }
        }
        (out.to_vec(), clear, ends)
    }

    #[test]
    fn frames_pass_unchanged_however_they_are_cut() {
        let mut stream = frame(0x01, b"hello ");
        stream.extend(frame(0x89, b"ping"));
        stream.extend(frame(0x80, b"world"));
        stream.extend(frame(0x82, &[7; 300]));
        stream.extend(frame(0x81, b""));
        for cut in 1..stream.len() {
            let (out, clear, ends) = pass(&stream, cut);
            assert_eq!(out, stream, "cut {cut}");
            assert_eq!(&clear[..15], b"hello pingworld");
            assert_eq!(ends, 4);
        }
    }

    #[test]
    fn a_header_waits_for_the_payload_before_it() {
        let mut stream = frame(0x01, b"held");
        stream.extend(frame(0x80, b"more"));
        let (mut frames, mut out, mut events) = (ClientFrames::default(), BytesMut::new(), Vec::new());
        frames.push(Bytes::from(stream.clone()), &mut events).unwrap();
        frames.release(&[Bytes::from_static(b"hel")], &mut out);
        assert_eq!(out, stream[..9], "first header and three bytes");
        frames.release(&[Bytes::from_static(b"dmore")], &mut out);
        assert_eq!(out, stream[..]);
    }

    #[test]
    fn what_is_no_client_frame_is_named() {
        for (bytes, error) in [
            (&[0xc1u8, 0x80][..], FrameError::ReservedBits),
            (&[0x83, 0x80], FrameError::Opcode(3)),
            (&[0x81, 0x05], FrameError::Unmasked),
            (&[0x09, 0x80], FrameError::Control),
            (&[0x89, 0xfe], FrameError::Control),
            (&[0x81, 0xfe, 0, 5], FrameError::Length),
            (&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::Length),
        ] {
            let mut events = Vec::new();
            let result = ClientFrames::default().push(Bytes::copy_from_slice(bytes), &mut events);
            assert_eq!(result, Err(error), "{bytes:02x?}");
        }
    }
}
