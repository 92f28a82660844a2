//! Cuts of a stream into pieces, drawn from the first bytes of the input so that a finding can be run again.

/// Draws pieces and numbers.
pub(crate) struct Cuts(u64);

impl Cuts {
    /// Takes its seed, two bytes, from the beginning of the input; the rest is the stream.
    pub(crate) fn of(input: &[u8]) -> Option<(Cuts, &[u8])> {
        let ([a, b], stream) = input.split_first_chunk::<2>()?;
        Some((Cuts(u64::from(*a) << 8 | u64::from(*b)), stream))
    }

    /// The stream in pieces: of one byte, of a few, or of many, now and then none.
    pub(crate) fn pieces<'s>(&mut self, mut stream: &'s [u8]) -> Vec<&'s [u8]> {
        let longest = [1, 3, 9, 40, 300, 3000][self.below(6)];
        let mut pieces = Vec::new();
        while !stream.is_empty() {
            let length = if longest == 1 { 1 } else { self.below(longest + 1).min(stream.len()) };
            let (piece, rest) = stream.split_at(length);
            pieces.push(piece);
            stream = rest;
        }
        pieces
    }

    /// A number below `limit`. SplitMix64.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % limit.max(1) as u64) as usize
    }
}
