//! Counting and hashing a body of any length, with its beginning kept; and a body of any length to count.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// As much of a body as is kept to be looked into.
const KEPT: usize = 1 << 20;
/// Size of the pieces of a [`stream`].
pub const PIECE: usize = 64 << 10;

/// What is known of a body after it has passed.
#[derive(Clone, Default)]
pub struct Tally {
    /// Its length so far.
    pub bytes: u64,
    /// Its first mebibyte.
    pub kept: Vec<u8>,
    hash: Sha256,
}

impl Tally {
    /// The tally of a body held in one piece.
    pub fn of(bytes: &[u8]) -> Tally {
        let mut tally = Tally::default();
        tally.add(bytes);
        tally
    }

    /// Takes the next piece in.
    pub fn add(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.hash.update(piece);
        let room = KEPT.saturating_sub(self.kept.len()).min(piece.len());
        self.kept.extend_from_slice(&piece[..room]);
    }

    /// SHA-256 of everything, in hex.
    pub fn sha256(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The kept beginning as text, whatever it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        let shown: String = text.chars().take(200).collect();
        write!(f, "{} bytes, {shown:?}", self.bytes)
    }
}

/// A body of `length` bytes in pieces of 64 KiB: incompressible, free of structure, and the same every time.
pub fn stream(length: u64) -> impl Iterator<Item = Bytes> + Send {
    let noise = noise();
    let mut left = length;
    let mut number = 0u64;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let mut piece = noise.clone();
        // The number in front makes every piece differ, so that a lost or doubled one changes the hash.
        piece[..8].copy_from_slice(&number.to_be_bytes());
        number += 1;
        piece.truncate(usize::try_from(left).map_or(PIECE, |left| left.min(PIECE)));
        left -= piece.len() as u64;
        Some(Bytes::from(piece))
    })
}

/// One piece of pseudo-random bytes (xorshift), all of them outside ASCII so that no detector finds text there.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3] | 0x80
    };
    (0..PIECE).map(|_| next()).collect()
}
