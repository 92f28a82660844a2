//! The hash chain over all records: how a link is made, and how a chain is checked.
//!
//! Records are numbered from 1 without gaps, whatever their kind. The hash of record `n` is
//! `SHA-256(hash of record n-1 ‖ canonical bytes of record n)`; before record 1 stand 32 zero bytes. What
//! canonical bytes are is said in [`record`](crate::record). After pruning, the first record left follows on the
//! number and hash that the record `pruned` names.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::record::Record;

/// What each byte is worth as a hexadecimal digit, 255 where it is none. Looked up, since a branch for digits and one for
/// letters cannot be foreseen in a hash, and millions are read.
const DIGITS: [u8; 256] = {
    let (mut digits, mut value) = ([u8::MAX; 256], 0);
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        digits[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// The hash of one link.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first record of all follows on.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The hash of a record that follows on `self`.
    pub fn link(self, canonical: &[u8]) -> Hash {
        Hash(Sha256::new().chain_update(self.0).chain_update(canonical).finalize().into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A hash as the store keeps it; `None` where it has not 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Hash> {
        bytes.try_into().ok().map(Hash)
    }

    /// A hash from 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Hash> {
        let text = text.as_bytes();
        let (mut bytes, mut seen) = ([0; 32], 0);
        if text.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
            seen |= high | low;
            *byte = high << 4 | low & 0xf;
        }
        (seen < 16).then_some(Hash(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The last link of a chain: what the next record follows on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the last record, 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Head {
    /// Before the first record.
    pub const GENESIS: Head = Head { seq: 0, hash: Hash::ZERO };

    /// The head once a record has followed.
    pub fn follow(self, canonical: &[u8]) -> Head {
        Head { seq: self.seq + 1, hash: self.hash.link(canonical) }
    }
}

/// A record as it was found, nothing in it believed yet.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its number.
    pub seq: u64,
    /// What kind it is said to be: `decision`, `outcome` or `event`.
    pub kind: &'a str,
    /// Its canonical bytes.
    pub canonical: &'a [u8],
    /// Its hash.
    pub hash: &'a [u8],
}

/// What is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Records between the last one seen and this one are missing.
    Missing {
        /// The first one that is.
        expected: u64,
    },
    /// A record with this number has been seen, or the order is wrong.
    OutOfOrder {
        /// The number that should have followed.
        expected: u64,
    },
    /// The hash is not that of these bytes after the record before.
    Altered,
    /// The bytes are not a record.
    Unreadable,
    /// The record is of another kind than it is filed under.
    Misfiled,
    /// A column kept beside the record says something else than the record.
    Column(&'static str),
    /// The stub that stands for dropped records is not to be believed.
    Stub(&'static str),
    /// A checkpoint that is not to be believed, or says something else than the chain.
    Checkpoint(&'static str),
    /// A line that is none of an export; its number.
    Line(u64, String),
    /// A table beside the records says something else than they do.
    Table(&'static str, String),
    /// The chain ends before the last record that was noted.
    Truncated {
        /// Where it should have ended, or gone on from.
        expected: u64,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Missing { expected } => write!(f, "records from {expected} up to here are missing"),
            Problem::OutOfOrder { expected } => {
                write!(f, "this record is out of order or here twice; {expected} should follow")
            }
            Problem::Altered => f.write_str(
                "the hash does not fit: this record was changed, or the one before it was replaced",
            ),
            Problem::Unreadable => f.write_str("this is not a record"),
            Problem::Misfiled => f.write_str("the record is filed under another kind than its own"),
            Problem::Column(name) => {
                write!(f, "the column `{name}` says something else than the record")
            }
            Problem::Stub(why) => write!(f, "the stub of what was dropped before it: {why}"),
            Problem::Checkpoint(why) => write!(f, "a checkpoint of it: {why}"),
            Problem::Line(line, why) => write!(f, "line {line} of the export: {why}"),
            Problem::Table(table, why) => write!(f, "the table `{table}` does not say what it does: {why}"),
            Problem::Truncated { expected } => {
                write!(f, "the chain ends here, but record {expected} had been written")
            }
        }
    }
}

/// The first record that is wrong, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Its number.
    pub seq: u64,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}: {}", self.seq, self.problem)
    }
}

impl std::error::Error for BadRecord {}

/// Checks a chain record by record.
#[derive(Clone, Debug)]
pub struct Verifier {
    head: Head,
}

impl Verifier {
    /// Begins after `head`: [`Head::GENESIS`] for a whole chain, what `pruned` names for a pruned one.
    pub fn after(head: Head) -> Verifier {
        Verifier { head }
    }

    /// The last record found to be right.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Takes the next record, and gives it back read.
    ///
    /// # Errors
    /// What is wrong with it. Nothing after a wrong record can be trusted to have an order.
    pub fn feed(&mut self, found: Found<'_>) -> Result<Record, BadRecord> {
        let bad = |problem| BadRecord { seq: found.seq, problem };
        let head = self.follows(&found)?;
        let record = Record::parse(found.canonical).map_err(|_| bad(Problem::Unreadable))?;
        if record.kind() != found.kind {
            return Err(bad(Problem::Misfiled));
        }
        self.head = head;
        Ok(record)
    }

    /// Takes the next record without reading it. For who has seen for themselves that it is one, and of its kind.
    ///
    /// # Errors
    /// A number or hash that does not follow.
    pub fn link(&mut self, found: &Found<'_>) -> Result<(), BadRecord> {
        self.head = self.follows(found)?;
        Ok(())
    }

    fn follows(&self, found: &Found<'_>) -> Result<Head, BadRecord> {
        let bad = |problem| BadRecord { seq: found.seq, problem };
        let expected = self.head.seq + 1;
        if found.seq > expected {
            return Err(bad(Problem::Missing { expected }));
        }
        if found.seq < expected {
            return Err(bad(Problem::OutOfOrder { expected }));
        }
        let head = self.head.follow(found.canonical);
        if Hash::from_bytes(found.hash) != Some(head.hash) {
            return Err(bad(Problem::Altered));
        }
        Ok(head)
    }

    /// Ends the check against the last record that was noted elsewhere: a chain alone does not show that its end
    /// was cut off.
    ///
    /// # Errors
    /// A chain that ends before it.
    pub fn finish(self, noted: Option<u64>) -> Result<Head, BadRecord> {
        match noted {
            Some(expected) if expected > self.head.seq => {
                Err(BadRecord { seq: self.head.seq, problem: Problem::Truncated { expected } })
            }
            _ => Ok(self.head),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event, record};

    #[derive(Clone)]
    struct Row {
        seq: u64,
        kind: &'static str,
        canonical: String,
        hash: Vec<u8>,
    }

    fn chain() -> Vec<Row> {
        let decision = record::tests::decision();
        let outcome = record::tests::outcome(&decision);
        let mut texts = vec![("decision", decision.canonical()), ("outcome", outcome.canonical())];
        texts.extend(event::tests::events().iter().map(|event| ("event", event.canonical())));
        let mut head = Head::GENESIS;
        let link = |(kind, canonical): (&'static str, String)| {
            head = head.follow(canonical.as_bytes());
            Row { seq: head.seq, kind, canonical, hash: head.hash.as_bytes().to_vec() }
        };
        texts.into_iter().map(link).collect()
    }

    fn check(rows: &[Row], noted: Option<u64>) -> Result<u64, (u64, Problem)> {
        let mut verifier = Verifier::after(Head::GENESIS);
        for row in rows {
            let found =
                Found { seq: row.seq, kind: row.kind, canonical: row.canonical.as_bytes(), hash: &row.hash };
            verifier.feed(found).map_err(|bad| (bad.seq, bad.problem))?;
        }
        verifier.finish(noted).map(|head| head.seq).map_err(|bad| (bad.seq, bad.problem))
    }

    #[test]
    fn an_untouched_chain_is_intact() {
        assert_eq!(check(&chain(), Some(10)), Ok(10));
    }

    #[test]
    fn every_way_of_touching_a_chain_is_named() {
        type Touch = fn(&mut Vec<Row>);
        let cases: [(&str, Touch, u64, Problem); 14] = [
            (
                "a byte of the first record",
                |c| c[0].canonical = c[0].canonical.replace("claude", "clyde"),
                1,
                Problem::Altered,
            ),
            ("a byte in the middle", |c| c[4].canonical.push(' '), 5, Problem::Altered),
            ("a hash", |c| c[4].hash[31] ^= 1, 5, Problem::Altered),
            ("a hash cut short", |c| c[4].hash.truncate(31), 5, Problem::Altered),
            ("the kind", |c| c[4].kind = "decision", 5, Problem::Misfiled),
            ("a record deleted", |c| drop(c.remove(4)), 6, Problem::Missing { expected: 5 }),
            ("the first record deleted", |c| drop(c.remove(0)), 2, Problem::Missing { expected: 1 }),
            (
                "deleted, and the rest renumbered",
                |c| {
                    c.remove(4);
                    c[4..].iter_mut().for_each(|r| r.seq -= 1);
                },
                5,
                Problem::Altered,
            ),
            ("a record twice", |c| c.insert(4, c[3].clone()), 4, Problem::OutOfOrder { expected: 5 }),
            (
                "a record replayed later, renumbered",
                |c| {
                    let mut r = c[0].clone();
                    r.seq = 11;
                    c.push(r);
                },
                11,
                Problem::Altered,
            ),
            ("two records in each other's place", |c| c.swap(3, 4), 5, Problem::Missing { expected: 4 }),
            (
                "two records swapped with their numbers",
                |c| {
                    c.swap(3, 4);
                    c[3].seq = 4;
                    c[4].seq = 5;
                },
                4,
                Problem::Altered,
            ),
            (
                "an insertion with a hash of its own",
                |c| {
                    let mut r = c[3].clone();
                    r.seq = 11;
                    r.hash = Hash::ZERO.link(r.canonical.as_bytes()).as_bytes().to_vec();
                    c.push(r);
                },
                11,
                Problem::Altered,
            ),
            ("the end cut off", |c| c.truncate(9), 9, Problem::Truncated { expected: 10 }),
        ];
        for (sentence, touch, seq, problem) in cases {
            let mut rows = chain();
            touch(&mut rows);
            assert_eq!(check(&rows, Some(10)), Err((seq, problem)), "{sentence}");
        }
    }

    #[test]
    fn what_is_chained_but_no_record_is_named() {
        let mut rows = chain();
        let head = Head { seq: 10, hash: Hash::from_bytes(&rows[9].hash).unwrap() }.follow(b"{}");
        rows.push(Row {
            seq: 11,
            kind: "event",
            canonical: "{}".into(),
            hash: head.hash.as_bytes().to_vec(),
        });
        assert_eq!(check(&rows, None), Err((11, Problem::Unreadable)));
    }

    #[test]
    fn a_pruned_chain_goes_on_from_its_stub() {
        let rows = chain();
        let stub = Head { seq: 4, hash: Hash::from_bytes(&rows[3].hash).unwrap() };
        let mut verifier = Verifier::after(stub);
        for row in &rows[4..] {
            verifier
                .feed(Found {
                    seq: row.seq,
                    kind: row.kind,
                    canonical: row.canonical.as_bytes(),
                    hash: &row.hash,
                })
                .unwrap();
        }
        assert_eq!(verifier.head().seq, 10);
    }

    #[test]
    fn hexadecimal_is_read_as_it_is_written() {
        let hash = Hash::ZERO.link(b"x");
        assert_eq!(Hash::from_hex(&hash.to_string()), Some(hash));
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(65)] {
            assert_eq!(Hash::from_hex(wrong), None, "`{wrong}`");
        }
    }
}
