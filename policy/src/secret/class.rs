//! Sets of bytes.

/// A set of bytes, such as the alphabet of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class([u64; 4]);

impl Class {
    pub(crate) const EMPTY: Self = Self([0; 4]);

    /// Whether the byte is in the set.
    #[inline]
    pub(crate) fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    pub(crate) fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    /// The set and some bytes more.
    pub(crate) fn with(mut self, bytes: &[u8]) -> Self {
        bytes.iter().for_each(|byte| self.add(*byte));
        self
    }

    pub(crate) fn add_range(&mut self, first: u8, last: u8) {
        (first..=last).for_each(|byte| self.add(byte));
    }

    /// The bytes in the set, ascending.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=255).filter(|byte| self.has(*byte))
    }

    /// The set that one letter of the pattern and template languages stands for.
    pub(crate) fn named(letter: u8) -> Option<Self> {
        let bytes: &[u8] = match letter {
            b'a' => b"0-9A-Za-z",
            b'c' => b"A-Za-z",
            b'd' => b"0-9",
            b'e' => b"0-9A-Za-z+/",
            b'h' => b"0-9a-f",
            b'k' => b"0-9A-Za-z_\\-",
            b'l' => b"0-9a-z",
            // What stands between the lines of a PEM or PGP armour: base64, its headers, line ends raw or escaped.
            b'p' => b"0-9A-Za-z+/= \t\r\n\\:,.()",
            b'q' => b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
            b'u' => b"0-9A-Z",
            b'v' => b"A-Z2-7",
            _ => return None,
        };
        Some(Self::parse(bytes))
    }

    /// Reads `0-9A-Z_\-`: single bytes, ranges, and backslash for the next byte itself.
    fn parse(text: &[u8]) -> Self {
        let mut class = Self::EMPTY;
        let mut rest = text;
        loop {
            rest = match rest {
                [] => return class,
                [b'\\', literal @ (b'-' | b'\\'), tail @ ..] => {
                    class.add(*literal);
                    tail
                }
                [first, b'-', last, tail @ ..] => {
                    class.add_range(*first, *last);
                    tail
                }
                [byte, tail @ ..] => {
                    class.add(*byte);
                    tail
                }
            };
        }
    }
}
