//! Signed points of the audit chain: what a signature speaks of, and the one shape in which it is kept and passed on.
//!
//! A hash chain alone does not show that its end was cut off, nor that all of it was computed anew. A signed point
//! does, wherever a copy of it is kept: it says that at some time the record `through` had the hash `hash`, and a hash
//! stands for every record before it.
//!
//! # What is signed
//!
//! Ed25519 (RFC 8032) over five lines of ASCII, each ended by a line feed:
//!
//! ```text
//! outgate-audit-1
//! checkpoint
//! 1842
//! 5b1c…                 the hash, 64 lower-case hexadecimal digits
//! 1795000000123456      the time, microseconds since the Unix epoch
//! ```
//!
//! The second line keeps one use from passing for another: who holds a checkpoint must not be able to present it as
//! leave to have dropped everything before it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chain::{Hash, Head, Problem};

/// The first line of every statement; another format has another number.
const FORMAT: &str = "outgate-audit-1";

/// What a signed point is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The chain had come so far.
    Checkpoint,
    /// Everything up to there was dropped.
    Pruned,
    /// An export goes on from there.
    ExportStart,
    /// An export ends there.
    ExportEnd,
}

impl Purpose {
    /// The word in the statement.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Checkpoint => "checkpoint",
            Purpose::Pruned => "pruned",
            Purpose::ExportStart => "export-start",
            Purpose::ExportEnd => "export-end",
        }
    }
}

/// A signed point. Serialises to the canonical form of records: sorted keys, integers, no white space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// Hash of the record `through`, in hexadecimal.
    pub hash: Arc<str>,
    /// The public key, in hexadecimal.
    pub key: Arc<str>,
    /// The signature, in hexadecimal.
    pub signature: Arc<str>,
    /// Number of the record it speaks of; 0 before the first.
    pub through: u64,
    /// When it was signed, in microseconds since the Unix epoch.
    pub time: i64,
}

/// Why a signed point is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// Its hash is none.
    NoHash,
    /// The key is not one of those that are trusted.
    ForeignKey,
    /// The signature is not that key's over this statement.
    BadSignature,
}

impl Disbelief {
    /// In words that go on from the point's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Disbelief::NoHash => "its hash is not 64 hexadecimal digits",
            Disbelief::ForeignKey => "it is signed by a key that is not trusted here",
            Disbelief::BadSignature => "its signature does not fit",
        }
    }
}

impl From<Disbelief> for Problem {
    fn from(why: Disbelief) -> Problem {
        Problem::Checkpoint(why.as_str())
    }
}

impl fmt::Display for Disbelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Checks Ed25519: whether `signature` is that of `key` over `message`, all as bytes. The crate has no cryptography of
/// its own; whoever verifies brings it.
pub type CheckSignature<'a> = &'a dyn Fn(&[u8], &[u8], &[u8]) -> bool;

/// The bytes that are signed.
pub fn statement(purpose: Purpose, head: Head, time: i64) -> String {
    format!("{FORMAT}\n{}\n{}\n{}\n{time}\n", purpose.as_str(), head.seq, head.hash)
}

impl Anchor {
    /// The point of the chain it speaks of; `None` where its hash is none.
    pub fn head(&self) -> Option<Head> {
        Hash::from_hex(&self.hash).map(|hash| Head { seq: self.through, hash })
    }

    /// Believes the point where one of `keys` (in hexadecimal) signed it for this purpose. Where no keys are given,
    /// its own is taken: that shows that all was signed by one key, not whose.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn check(
        &self,
        purpose: Purpose,
        keys: &[Arc<str>],
        check: CheckSignature<'_>,
    ) -> Result<Head, Disbelief> {
        // Each has one spelling: in another, the point would be changed and still believed.
        let head = self.head().filter(|head| head.hash.to_string() == *self.hash).ok_or(Disbelief::NoHash)?;
        if !keys.is_empty() && !keys.contains(&self.key) {
            return Err(Disbelief::ForeignKey);
        }
        let bytes = |text: &str| from_hex(text).filter(|bytes| to_hex(bytes) == text);
        let (Some(key), Some(signature)) = (bytes(&self.key), bytes(&self.signature)) else {
            return Err(Disbelief::BadSignature);
        };
        let statement = statement(purpose, head, self.time);
        if check(&key, statement.as_bytes(), &signature) { Ok(head) } else { Err(Disbelief::BadSignature) }
    }

    /// As a line of a file or the body of a message.
    #[expect(clippy::expect_used, reason = "strings and integers are always JSON")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and integers")
    }
}

/// Bytes as lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// Bytes from hexadecimal; `None` where the text is none.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A stand-in for Ed25519: the "signature" is the SHA-256 of key and message.
    pub(crate) fn pretend(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let key = Hash::from_bytes(key).unwrap_or(Hash::ZERO);
        key.link(message).as_bytes()[..] == *signature
    }

    pub(crate) fn anchor(purpose: Purpose, head: Head, key: Hash) -> Anchor {
        let time = 1_795_000_000_000_000;
        let signature = key.link(statement(purpose, head, time).as_bytes());
        Anchor {
            hash: head.hash.to_string().into(),
            key: key.to_string().into(),
            signature: signature.to_string().into(),
            through: head.seq,
            time,
        }
    }

    fn head() -> Head {
        Head { seq: 7, hash: Hash::ZERO.link(b"seven") }
    }

    #[test]
    fn a_statement_is_five_lines() {
        let expected = format!("outgate-audit-1\npruned\n7\n{}\n12\n", head().hash);
        assert_eq!(statement(Purpose::Pruned, head(), 12), expected);
    }

    #[test]
    fn a_point_is_believed_for_its_purpose_from_a_trusted_key_alone() {
        let (key, other) = (Hash::ZERO.link(b"key"), Hash::ZERO.link(b"other"));
        let anchor = anchor(Purpose::Checkpoint, head(), key);
        let (trusted, untrusted) = ([key.to_string().into()], [other.to_string().into()]);
        assert_eq!(anchor.check(Purpose::Checkpoint, &trusted, &pretend), Ok(head()));
        assert_eq!(anchor.check(Purpose::Checkpoint, &[], &pretend), Ok(head()));
        assert_eq!(anchor.check(Purpose::Checkpoint, &untrusted, &pretend), Err(Disbelief::ForeignKey));
        for purpose in [Purpose::Pruned, Purpose::ExportStart, Purpose::ExportEnd] {
            assert_eq!(
                anchor.check(purpose, &trusted, &pretend),
                Err(Disbelief::BadSignature),
                "{purpose:?}"
            );
        }
        let touched = [
            Anchor { through: 8, ..anchor.clone() },
            Anchor { time: 0, ..anchor.clone() },
            Anchor { hash: Hash::ZERO.to_string().into(), ..anchor.clone() },
            Anchor { signature: "00".into(), ..anchor.clone() },
            Anchor { signature: anchor.signature.to_uppercase().into(), ..anchor.clone() },
        ];
        for touched in touched {
            assert_eq!(
                touched.check(Purpose::Checkpoint, &trusted, &pretend),
                Err(Disbelief::BadSignature),
                "{touched:?}"
            );
        }
        let loud = Anchor { key: anchor.key.to_uppercase().into(), ..anchor.clone() };
        assert_eq!(loud.check(Purpose::Checkpoint, &[], &pretend), Err(Disbelief::BadSignature));
        for hash in ["x", &anchor.hash.to_uppercase()] {
            let none = Anchor { hash: hash.into(), ..anchor.clone() };
            assert_eq!(none.check(Purpose::Checkpoint, &trusted, &pretend), Err(Disbelief::NoHash), "{hash}");
        }
    }

    #[test]
    fn it_is_kept_in_the_canonical_form() {
        let anchor =
            Anchor { hash: "aa".into(), key: "bb".into(), signature: "cc".into(), through: 3, time: 4 };
        let text = r#"{"hash":"aa","key":"bb","signature":"cc","through":3,"time":4}"#;
        assert_eq!(anchor.to_json(), text);
        assert_eq!(serde_json::from_str::<Anchor>(text).unwrap(), anchor);
    }

    #[test]
    fn hexadecimal_is_read_as_written() {
        assert_eq!(from_hex(&to_hex(&[0, 15, 255])), Some(vec![0, 15, 255]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("0g"), None);
    }
}
