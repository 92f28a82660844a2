//! An export of the audit chain: JSON Lines that verify by themselves, far from the store they were read from.
//!
//! ```text
//! {"export":1,"follows":{"hash":"…","key":"…","signature":"…","through":0,"time":…},"version":"0.1.0"}
//! {"hash":"…","kind":"event","previous":"…","seq":1,"record":{…}}
//! {"hash":"…","kind":"decision","previous":"…","seq":2,"record":{…}}
//! {"end":{"hash":"…","key":"…","signature":"…","through":2,"time":…}}
//! ```
//!
//! The first line says what the first record follows on, the last one where the export ends; both are signed
//! ([`anchor`](crate::anchor)), so that neither end can be cut off unseen. Between `"record":` and the last `}` of a
//! line stand the record's canonical bytes, those that the hash is taken over.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::anchor::Anchor;
use crate::chain::{BadRecord, Found, Hash, Head, Problem};

/// The format's number, in the first line.
const FORMAT: u32 = 1;

/// The first line of an export.
pub fn start(follows: &Anchor, version: &str) -> String {
    #[derive(Serialize)]
    struct Start<'a> {
        export: u32,
        follows: &'a Anchor,
        version: &'a str,
    }
    json(&Start { export: FORMAT, follows, version })
}

/// The line of one record: its place in the chain, its kind and its canonical text.
pub fn record(head: Head, previous: Hash, kind: &str, canonical: &str) -> String {
    format!(
        r#"{{"hash":"{}","kind":"{kind}","previous":"{previous}","seq":{},"record":{canonical}}}"#,
        head.hash, head.seq
    )
}

/// The last line of an export.
pub fn end(end: &Anchor) -> String {
    #[derive(Serialize)]
    struct End<'a> {
        end: &'a Anchor,
    }
    json(&End { end })
}

#[expect(clippy::expect_used, reason = "strings and integers are always JSON")]
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and integers")
}

/// A line of an export, as read.
#[derive(Debug)]
pub enum Line<'a> {
    /// What the first record follows on.
    Start(Anchor),
    /// A record, nothing in it believed yet.
    Record(ExportedRecord<'a>),
    /// Where the export ends.
    End(Anchor),
}

/// A record of an export.
#[derive(Debug)]
pub struct ExportedRecord<'a> {
    seq: u64,
    kind: &'a str,
    hash: Hash,
    previous: Hash,
    canonical: &'a str,
}

/// A line that is none of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoLine(String);

impl fmt::Display for NoLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    export: Option<u32>,
    follows: Option<Anchor>,
    version: Option<Arc<str>>,
    hash: Option<&'a str>,
    kind: Option<&'a str>,
    previous: Option<&'a str>,
    seq: Option<u64>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    end: Option<Anchor>,
}

impl<'a> Line<'a> {
    /// Reads a line, without its line feed.
    ///
    /// # Errors
    /// What is not a line of an export, or is written in another way than exports are: nothing in it can be changed
    /// without being seen, not even what changes no meaning.
    pub fn parse(line: &'a [u8]) -> Result<Line<'a>, NoLine> {
        let raw: Raw<'a> = serde_json::from_slice(line).map_err(|error| NoLine(error.to_string()))?;
        let version = raw.version.clone();
        let read = Self::of(raw)?;
        let written = match &read {
            Line::Start(follows) => start(follows, version.as_deref().unwrap_or_default()),
            Line::Record(ExportedRecord { seq, kind, hash, previous, canonical }) => {
                record(Head { seq: *seq, hash: *hash }, *previous, kind, canonical)
            }
            Line::End(anchor) => end(anchor),
        };
        if written.as_bytes() == line {
            Ok(read)
        } else {
            Err(NoLine("it is not written as an export writes it".to_owned()))
        }
    }

    fn of(raw: Raw<'a>) -> Result<Line<'a>, NoLine> {
        match raw {
            Raw { export: Some(FORMAT), follows: Some(follows), version: Some(_), .. } => {
                Ok(Line::Start(follows))
            }
            Raw { export: Some(number), .. } if number != FORMAT => {
                Err(NoLine(format!("the export is of format {number}, this program reads {FORMAT}")))
            }
            Raw { end: Some(end), .. } => Ok(Line::End(end)),
            Raw {
                hash: Some(hash),
                kind: Some(kind),
                previous: Some(previous),
                seq: Some(seq),
                record,
                ..
            } => {
                let no_hash = || NoLine("a hash is 64 hexadecimal digits".to_owned());
                let record = record.ok_or_else(|| NoLine("the record is missing".to_owned()))?;
                Ok(Line::Record(ExportedRecord {
                    seq,
                    kind,
                    hash: Hash::from_hex(hash).ok_or_else(no_hash)?,
                    previous: Hash::from_hex(previous).ok_or_else(no_hash)?,
                    canonical: record.get(),
                }))
            }
            _ => Err(NoLine("this is no line of an export".to_owned())),
        }
    }
}

impl ExportedRecord<'_> {
    /// The record as a [`Verifier`](crate::chain::Verifier) takes it.
    pub fn found(&self) -> Found<'_> {
        Found {
            seq: self.seq,
            kind: self.kind,
            canonical: self.canonical.as_bytes(),
            hash: self.hash.as_bytes(),
        }
    }

    /// The number it claims.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether `previous` names the hash that the record was found to follow on.
    ///
    /// # Errors
    /// Where it names another.
    pub fn follows(&self, previous: Hash) -> Result<(), BadRecord> {
        if self.previous == previous {
            return Ok(());
        }
        Err(BadRecord { seq: self.seq, problem: Problem::Column("previous") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anchor::Purpose;
    use crate::anchor::tests::anchor;
    use crate::chain::Verifier;
    use crate::record::tests::decision;

    #[test]
    fn what_is_written_is_read() {
        let canonical = decision().canonical();
        let head = Head::GENESIS.follow(canonical.as_bytes());
        let point = anchor(Purpose::ExportStart, Head::GENESIS, Hash::ZERO);
        let first = start(&point, "0.1.0");
        assert!(first.starts_with(r#"{"export":1,"follows":{"hash":"0000"#), "{first}");
        assert!(matches!(Line::parse(first.as_bytes()).unwrap(), Line::Start(read) if read == point));
        let last = end(&point);
        assert!(matches!(Line::parse(last.as_bytes()).unwrap(), Line::End(read) if read == point));
        let text = record(head, Hash::ZERO, "decision", &canonical);
        let Line::Record(read) = Line::parse(text.as_bytes()).unwrap() else { panic!("{text}") };
        Verifier::after(Head::GENESIS).feed(read.found()).unwrap();
        assert_eq!(read.follows(Hash::ZERO), Ok(()));
        assert!(read.follows(head.hash).is_err());
        // A script reads it like any other JSON.
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["record"]["host"], "evil.example");
    }

    #[test]
    fn a_line_has_one_spelling() {
        let canonical = decision().canonical();
        let head = Head::GENESIS.follow(canonical.as_bytes());
        let point = anchor(Purpose::ExportStart, Head::GENESIS, Hash::ZERO);
        let lines = [start(&point, "0.1.0"), record(head, Hash::ZERO, "decision", &canonical), end(&point)];
        for line in lines {
            let shouted = line.replacen(&head.hash.to_string(), &head.hash.to_string().to_uppercase(), 1);
            for other in [
                line.replacen('{', "{ ", 1),
                line.replacen(':', ": ", 1),
                format!(" {line}"),
                format!("{line}\r"),
                shouted,
            ] {
                let read = Line::parse(other.as_bytes());
                assert!(other == line || read.is_err(), "{other}");
            }
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let hash = Hash::ZERO;
        for (line, expected) in [
            ("", "EOF"),
            ("{}", "no line of an export"),
            (r#"{"export":2,"follows":null,"version":"9"}"#, "format 2"),
            (r#"{"seq":1,"kind":"event","hash":"00","previous":"00","record":{}}"#, "64 hexadecimal digits"),
            (
                &format!(r#"{{"seq":1,"kind":"event","hash":"{hash}","previous":"{hash}"}}"#),
                "record is missing",
            ),
            (r#"{"seq":1,"more":2}"#, "unknown field"),
        ] {
            let error = Line::parse(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
