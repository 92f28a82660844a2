//! WebSocket frames (RFC 6455, section 5), as little of them as the tests need.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message before it.
    Continuation,
    /// Text.
    Text,
    /// Bytes.
    Binary,
    /// The end, with a code.
    Close,
    /// A question.
    Ping,
    /// Its answer.
    Pong,
    /// Reserved.
    Other(u8),
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether it is the last of its message.
    pub last: bool,
    /// Whether RSV1 is set, as on compressed messages.
    pub rsv1: bool,
    /// What it is.
    pub opcode: Opcode,
    /// What it carries, unmasked.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A whole text message.
    pub fn text(payload: impl Into<Vec<u8>>) -> Frame {
        Frame { last: true, rsv1: false, opcode: Opcode::Text, payload: payload.into() }
    }

    /// A whole binary message.
    pub fn binary(payload: impl Into<Vec<u8>>) -> Frame {
        Frame { opcode: Opcode::Binary, ..Frame::text(payload) }
    }

    /// The end, with `code`.
    pub fn close(code: u16) -> Frame {
        Frame { opcode: Opcode::Close, ..Frame::text(code.to_be_bytes()) }
    }

    /// The code of a close frame.
    pub fn close_code(&self) -> Option<u16> {
        match (self.opcode, &self.payload[..]) {
            (Opcode::Close, [high, low, ..]) => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    }

    /// The frame as bytes, masked where a client sends it.
    pub fn encode(&self, masked: bool) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.last) << 7 | u8::from(self.rsv1) << 6 | number(self.opcode)];
        let mask_bit = u8::from(masked) << 7;
        match self.payload.len() {
            length @ 0..=125 => bytes.push(mask_bit | length as u8),
            length @ 126..=0xffff => {
                bytes.push(mask_bit | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(mask_bit | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if !masked {
            bytes.extend_from_slice(&self.payload);
            return bytes;
        }
        let key = [0x37, 0xfa, 0x21, 0x3d];
        bytes.extend(key);
        bytes.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// Where the other side is gone.
    pub async fn write(&self, io: &mut (impl AsyncWrite + Unpin), masked: bool) -> std::io::Result<()> {
        io.write_all(&self.encode(masked)).await?;
        io.flush().await
    }

    /// Reads the next frame, masked or not.
    ///
    /// # Errors
    /// Where the stream ends first.
    pub async fn read(io: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Frame> {
        let [first, second] = [io.read_u8().await?, io.read_u8().await?];
        let length = match second & 0x7f {
            126 => u64::from(io.read_u16().await?),
            127 => io.read_u64().await?,
            short => u64::from(short),
        };
        let mut key = [0; 4];
        if second & 0x80 != 0 {
            io.read_exact(&mut key).await?;
        }
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        io.read_exact(&mut payload).await?;
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        Ok(Frame { last: first & 0x80 != 0, rsv1: first & 0x40 != 0, opcode: opcode(first & 0x0f), payload })
    }
}

/// The `sec-websocket-accept` that answers a `sec-websocket-key` (RFC 6455, section 4.2.2).
pub fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

fn number(opcode: Opcode) -> u8 {
    match opcode {
        Opcode::Continuation => 0,
        Opcode::Text => 1,
        Opcode::Binary => 2,
        Opcode::Close => 8,
        Opcode::Ping => 9,
        Opcode::Pong => 10,
        Opcode::Other(number) => number,
    }
}

fn opcode(number: u8) -> Opcode {
    match number {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        other => Opcode::Other(other),
    }
}
