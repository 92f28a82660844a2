//! WebSocket frames: read as RFC 6455 has them, however they are cut, and sent on as they came.

use bytes::{Bytes, BytesMut};
use policy::frame::{ClientFrames, FrameError, FrameEvent};

use crate::cuts::Cuts;

/// What a stream of frames came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    clear: Vec<u8>,
    ends: usize,
    sent: Vec<u8>,
    error: Option<FrameError>,
}

/// Takes a seed and a client's stream.
pub fn check(input: &[u8]) {
    let Some((mut cuts, stream)) = Cuts::of(input) else { return };
    let whole = read(&[stream], &mut Cuts::of(&[0, 0]).expect("two bytes").0);
    assert!(stream.starts_with(&whole.sent), "other bytes are sent than came");
    let expected = reference(stream);
    assert_eq!(
        (&whole.clear, whole.ends, whole.error.is_some()),
        (&expected.clear, expected.ends, expected.error.is_some())
    );
    assert_eq!(whole.sent, expected.sent);
    let pieces = cuts.pieces(stream);
    assert_eq!(read(&pieces, &mut cuts), whole, "it depends on the cuts");
}

/// Reads pieces; what is told is released late, in other pieces than it was told in.
fn read(pieces: &[&[u8]], cuts: &mut Cuts) -> Read {
    let (mut frames, mut read, mut sent) = (ClientFrames::default(), Read::default(), BytesMut::new());
    let mut held = BytesMut::new();
    for piece in pieces {
        let mut events = Vec::new();
        read.error = frames.push(Bytes::copy_from_slice(piece), &mut events).err();
        for event in events {
            match event {
                FrameEvent::Payload(bytes) => {
                    read.clear.extend_from_slice(&bytes);
                    held.extend_from_slice(&bytes);
                }
                FrameEvent::MessageEnd => read.ends += 1,
            }
        }
        let released = held.split_to(cuts.below(held.len() + 1)).freeze();
        frames.release(&[released], &mut sent);
        if read.error.is_some() {
            break;
        }
    }
    frames.release(&[held.freeze()], &mut sent);
    read.sent = sent.to_vec();
    read
}

/// The same, read the short way from a stream that is there as a whole.
fn reference(stream: &[u8]) -> Read {
    let mut read = Read::default();
    let mut rest = stream;
    while let Some((header, length, error)) = header(rest) {
        read.error = error;
        if error.is_some() {
            break;
        }
        let (head, after) = rest.split_at(header);
        let key = &head[header - 4..];
        let taken = usize::try_from(length).unwrap_or(usize::MAX).min(after.len());
        read.sent.extend_from_slice(&rest[..header + taken]);
        read.clear.extend(after[..taken].iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
        read.ends += usize::from(taken as u64 == length && head[0] & 0x80 != 0);
        rest = &after[taken..];
    }
    read
}

/// Length of the header, length of the payload, and whether it is none. `None` where it is not there as a whole and
/// nothing is wrong so far.
fn header(bytes: &[u8]) -> Option<(usize, u64, Option<FrameError>)> {
    let bad = |error| Some((0, 0, Some(error)));
    let first = *bytes.first()?;
    let (reserved, opcode, last) = (first & 0x70, first & 0x0f, first & 0x80 != 0);
    if reserved != 0 {
        return bad(FrameError::ReservedBits);
    }
    if !(opcode <= 2 || (8..=10).contains(&opcode)) {
        return bad(FrameError::Opcode(opcode));
    }
    let second = *bytes.get(1)?;
    if second & 0x80 == 0 {
        return bad(FrameError::Unmasked);
    }
    let (short, control) = (second & 0x7f, opcode >= 8);
    if control && (!last || short > 125) {
        return bad(FrameError::Control);
    }
    let wide = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let extended = bytes.get(2..2 + wide)?.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let length = if wide == 0 { u64::from(short) } else { extended };
    let shortest = [0, 126, 1 << 16][[0, 2, 8].iter().position(|known| *known == wide)?];
    if length < shortest || length >= 1 << 63 {
        return bad(FrameError::Length);
    }
    bytes.get(..2 + wide + 4)?;
    Some((2 + wide + 4, length, None))
}
