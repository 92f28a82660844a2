//! Reading bytes through one level of encoding: percent and JSON escapes, base64, hex.
//!
//! Every rule here looks only at the bytes around one place, never at what came long before, so that what is found
//! does not depend on where a stream was cut or where reading began.

/// How the bytes at a place are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum View {
    /// As they are, with `%XX`, `\uXXXX` and JSON's short escapes undone where they occur.
    Text,
    /// As base64 or base64url. The first byte begins so many bits into the first character: 0, 2 or 4.
    Base64(u8),
    /// As pairs of hexadecimal digits.
    Hex,
}

/// What reading one byte gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    Byte(u8),
    /// The text or the encoding ends here.
    End,
    /// It depends on bytes that have not arrived.
    Wait,
}

/// A place in raw bytes, and how to read on from there.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'t> {
    text: &'t [u8],
    /// Next raw byte to be read.
    pos: usize,
    /// Whether the text is complete: no more bytes will come.
    last: bool,
    view: View,
    /// Bits read and not yet given out (base64), or bytes of a character beyond ASCII (text), next one lowest.
    pending: u32,
    /// How many bits or bytes those are.
    held: u8,
}

impl<'t> Cursor<'t> {
    pub(crate) fn new(text: &'t [u8], pos: usize, view: View, last: bool) -> Self {
        let mut cursor = Self { text, pos, last, view, pending: 0, held: 0 };
        if let View::Base64(skip @ 1..) = view
            && let Some(bits) = text.get(pos).and_then(|byte| sextet(*byte))
        {
            cursor.held = 6 - skip;
            cursor.pending = u32::from(bits) & ((1 << cursor.held) - 1);
            cursor.pos += 1;
        }
        cursor
    }

    /// Whether no more bytes will come.
    pub(crate) fn is_last(&self) -> bool {
        self.last
    }

    /// The raw position after what has been read.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    /// Where the next byte begins: raw position, and in base64 the bits of that character that belong to the byte before.
    pub(crate) fn place(&self) -> (usize, u8) {
        match self.view {
            View::Base64(_) if self.held > 0 => (self.pos - 1, 6 - self.held),
            _ => (self.pos, 0),
        }
    }

    pub(crate) fn peek(&self) -> Next {
        let mut ahead = *self;
        ahead.next()
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Next {
        match self.view {
            View::Text => self.next_text(),
            View::Base64(_) => self.next_base64(),
            View::Hex => self.next_hex(),
        }
    }

    #[inline]
    fn next_text(&mut self) -> Next {
        match self.text.get(self.pos) {
            Some(&byte) if self.held == 0 && byte != b'%' && byte != b'\\' => {
                self.pos += 1;
                Next::Byte(byte)
            }
            Some(_) | None if self.held > 0 => {
                let byte = (self.pending & 0xff) as u8;
                self.pending >>= 8;
                self.held -= 1;
                Next::Byte(byte)
            }
            Some(_) => self.next_escape(),
            None => self.ended(),
        }
    }

    fn next_escape(&mut self) -> Next {
        // By far the most frequent of them where there are many.
        if let [b'%', high, low, ..] = &self.text[self.pos..]
            && let (Some(high), Some(low)) = (nibble(*high), nibble(*low))
        {
            self.pos += 3;
            return Next::Byte(high << 4 | low);
        }
        match escape(&self.text[self.pos..], self.last) {
            Escape::Byte(byte, length) => {
                self.pos += length;
                Next::Byte(byte)
            }
            Escape::Char(char, length) => {
                self.pos += length;
                let mut buffer = [0; 4];
                char.encode_utf8(&mut buffer);
                self.held = char.len_utf8() as u8 - 1;
                self.pending = u32::from_le_bytes(buffer) >> 8;
                Next::Byte(buffer[0])
            }
            Escape::None => {
                self.pos += 1;
                Next::Byte(self.text[self.pos - 1])
            }
            Escape::Wait => Next::Wait,
        }
    }

    fn next_base64(&mut self) -> Next {
        while self.held < 8 {
            let rest = &self.text[self.pos..];
            let Some(&byte) = rest.first() else { return self.ended() };
            if let Some(bits) = sextet(byte) {
                self.pending = self.pending << 6 | u32::from(bits);
                self.held += 6;
                self.pos += 1;
                continue;
            }
            match self.wrap(rest) {
                Wrap::Skip(length) => self.pos += length,
                Wrap::Wait => return Next::Wait,
                Wrap::None => return Next::End,
            }
        }
        self.held -= 8;
        let byte = (self.pending >> self.held) as u8;
        self.pending &= (1 << self.held) - 1;
        Next::Byte(byte)
    }

    /// Base64 in mail and from the `base64` tool has a line end after 64 or 76 characters; PHP writes `\/` for `/`.
    fn wrap(&self, rest: &[u8]) -> Wrap {
        let length = match rest {
            [b'\\', b'/', ..] => return Wrap::Skip(1),
            [b'\r', b'\n', ..] | [b'\\', b'n', ..] => 2,
            [b'\\', b'r', b'\\', b'n', ..] => 4,
            [b'\n', ..] => 1,
            [b'\r'] | [b'\\'] | [b'\\', b'r'] | [b'\\', b'r', b'\\'] if !self.last => return Wrap::Wait,
            _ => return Wrap::None,
        };
        let line = self.text[..self.pos].iter().rev().take(WRAPPED);
        match (line.filter(|byte| sextet(**byte).is_some()).count() == WRAPPED, rest.get(length)) {
            (true, Some(_)) => Wrap::Skip(length),
            (true, None) if !self.last => Wrap::Wait,
            _ => Wrap::None,
        }
    }

    fn next_hex(&mut self) -> Next {
        match &self.text[self.pos..] {
            [high, low, ..] => match (nibble(*high), nibble(*low)) {
                (Some(high), Some(low)) => {
                    self.pos += 2;
                    Next::Byte(high << 4 | low)
                }
                _ => Next::End,
            },
            [] => self.ended(),
            [high] if nibble(*high).is_some() => self.ended(),
            [_] => Next::End,
        }
    }

    fn ended(&self) -> Next {
        if self.last { Next::End } else { Next::Wait }
    }
}

/// A line shorter than this was not wrapped; nor can a cursor see further back.
const WRAPPED: usize = 48;

enum Wrap {
    Skip(usize),
    Wait,
    None,
}

/// How many raw bytes before a place can matter to what is read from it on.
pub(crate) const LOOK_BEHIND: usize = 64;

/// What stands at the beginning of some text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Escape {
    /// An escape of so many raw bytes for one byte.
    Byte(u8, usize),
    /// An escape of so many raw bytes for a character beyond ASCII.
    Char(char, usize),
    None,
    /// It may become an escape.
    Wait,
}

/// The escape that `rest` begins with.
pub(crate) fn escape(rest: &[u8], last: bool) -> Escape {
    match rest {
        [b'%', digits @ ..] => percent(digits, last),
        [b'\\', b'u', digits @ ..] => unicode(digits, last),
        [b'\\', short, ..] => match short {
            b'n' => Escape::Byte(b'\n', 2),
            b'r' => Escape::Byte(b'\r', 2),
            b't' => Escape::Byte(b'\t', 2),
            b'b' => Escape::Byte(8, 2),
            b'f' => Escape::Byte(12, 2),
            b'"' | b'\\' | b'/' => Escape::Byte(*short, 2),
            _ => Escape::None,
        },
        [b'\\'] if !last => Escape::Wait,
        _ => Escape::None,
    }
}

fn percent(digits: &[u8], last: bool) -> Escape {
    if let [high, low, ..] = digits {
        return match (nibble(*high), nibble(*low)) {
            (Some(high), Some(low)) => Escape::Byte(high << 4 | low, 3),
            _ => Escape::None,
        };
    }
    match hex(digits, 2) {
        Ok(value) => Escape::Byte(value as u8, 3),
        Err(open) if open && !last => Escape::Wait,
        Err(_) => Escape::None,
    }
}

fn unicode(digits: &[u8], last: bool) -> Escape {
    let unit = match hex(digits, 4) {
        Ok(unit) => unit,
        Err(open) if open && !last => return Escape::Wait,
        Err(_) => return Escape::None,
    };
    match unit {
        0..0x80 => Escape::Byte(unit as u8, 6),
        0xd800..0xdc00 => match &digits[4..] {
            [b'\\', b'u', low @ ..] => match hex(low, 4) {
                Ok(low @ 0xdc00..0xe000) => {
                    let scalar = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                    char::from_u32(scalar).map_or(Escape::None, |char| Escape::Char(char, 12))
                }
                Err(true) if !last => Escape::Wait,
                _ => Escape::Byte(0xff, 6),
            },
            [] | [b'\\'] if !last => Escape::Wait,
            _ => Escape::Byte(0xff, 6),
        },
        _ => char::from_u32(unit).map_or(Escape::Byte(0xff, 6), |char| Escape::Char(char, 6)),
    }
}

/// The value of the first `count` hexadecimal digits, or whether more bytes could still make them so.
fn hex(digits: &[u8], count: usize) -> Result<u32, bool> {
    let mut value = 0;
    for index in 0..count {
        let Some(digit) = digits.get(index) else { return Err(true) };
        value = value << 4 | u32::from(nibble(*digit).ok_or(false)?);
    }
    Ok(value)
}

/// The byte that ends right before `start`, read through the view; `None` at the beginning of the text and, in base64,
/// of the run.
pub(crate) fn byte_before(text: &[u8], start: (usize, u8), view: View) -> Option<u8> {
    let (pos, bit) = start;
    match view {
        View::Text => text_before(&text[..pos]).map(|(byte, _)| byte),
        View::Base64(_) => {
            let bits = |back: usize| text.get(pos.checked_sub(back)?).and_then(|byte| sextet(*byte));
            match bit {
                0 => Some(bits(2)? << 6 | bits(1)?),
                2 => Some(bits(1)? << 2 | bits(0)? >> 4),
                _ => Some(bits(1)? << 4 | bits(0)? >> 2),
            }
        }
        View::Hex => None,
    }
}

/// The last byte of `text` with escapes undone, and how many raw bytes it takes.
pub(crate) fn text_before(text: &[u8]) -> Option<(u8, usize)> {
    let near = &text[text.len().saturating_sub(6)..];
    let escapes = if near.iter().any(|byte| matches!(byte, b'%' | b'\\')) { &[6, 3, 2][..] } else { &[] };
    for length in escapes.iter().copied() {
        let Some(start) = text.len().checked_sub(length) else { continue };
        match escape(&text[start..], true) {
            Escape::Byte(byte, taken) if taken == length => return Some((byte, length)),
            Escape::Char(_, taken) if taken == length => return Some((0xff, length)),
            _ => {}
        }
    }
    text.last().map(|byte| (*byte, 1))
}

/// The six bits a character of base64 or base64url stands for.
#[inline]
pub(crate) fn sextet(byte: u8) -> Option<u8> {
    match SEXTETS[usize::from(byte)] {
        64.. => None,
        bits => Some(bits),
    }
}

const SEXTETS: [u8; 256] = {
    let mut table = [64; 256];
    let mut bits = 0;
    while bits < 64 {
        table[BASE64[bits] as usize] = bits as u8;
        bits += 1;
    }
    table[b'-' as usize] = 62;
    table[b'_' as usize] = 63;
    table
};

/// The alphabet of RFC 4648 section 4.
pub(crate) const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of a hexadecimal digit.
#[inline]
pub(crate) fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, pos: usize, view: View) -> String {
        let mut cursor = Cursor::new(text.as_bytes(), pos, view, true);
        let mut bytes = Vec::new();
        while let Next::Byte(byte) = cursor.next() {
            bytes.push(byte);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn escapes_are_undone_and_what_is_none_stays() {
        for (raw, plain) in [
            ("%73%6B-ant", "sk-ant"),
            ("\\u0073\\u006b-\\/x", "sk-/x"),
            ("50% off %zz \\x", "50% off %zz \\x"),
            ("\\u00e9\\ud83d\\ude00!", "é😀!"),
            ("a\\nb\\\"c\\\\", "a\nb\"c\\"),
        ] {
            assert_eq!(read(raw, 0, View::Text), plain, "{raw}");
        }
    }

    #[test]
    fn base64_is_read_at_every_alignment_and_in_both_alphabets() {
        assert_eq!(read("c2VjcmV0Pz8-", 0, View::Base64(0)), "secret??>");
        assert_eq!(read("c2VjcmV0Pz8+=", 0, View::Base64(0)), "secret??>");
        assert_eq!(read("IHNlY3JldA==", 1, View::Base64(2)), "secret");
        assert_eq!(read("ICBzZWNyZXQ=", 2, View::Base64(4)), "secret");
    }

    #[test]
    fn an_unfinished_escape_waits_unless_nothing_follows() {
        for raw in ["%", "%7", "\\", "\\u", "\\u00", "\\ud83d", "\\ud83d\\u"] {
            assert_eq!(Cursor::new(raw.as_bytes(), 0, View::Text, false).next(), Next::Wait, "{raw}");
            assert!(
                matches!(Cursor::new(raw.as_bytes(), 0, View::Text, true).next(), Next::Byte(_)),
                "{raw}"
            );
        }
    }

    #[test]
    fn the_byte_before_is_seen_through_its_encoding() {
        for (text, byte) in [("a%20", b' '), ("a\\n", b'\n'), ("a\\u002d", b'-'), ("ab", b'b'), ("a%2", b'2')]
        {
            assert_eq!(byte_before(text.as_bytes(), (text.len(), 0), View::Text), Some(byte), "{text}");
        }
        assert_eq!(byte_before(b"IHNlY3JldA==", (1, 2), View::Base64(2)), Some(b' '));
        assert_eq!(byte_before(b"", (0, 0), View::Text), None);
    }
}
