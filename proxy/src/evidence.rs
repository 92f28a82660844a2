//! What a chain is held against: the keys that are trusted, the checkpoints kept outside it, and its own.
//!
//! The same walk over a store, a copy of one and an export: [`Walk`] is fed record by record.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use policy::anchor::{Anchor, Disbelief, Purpose};
use policy::chain::{BadRecord, Found, Hash, Head, Problem, Verifier};
use policy::record::Record;
use serde::Serialize;

use crate::signing;

/// What came of a check, as `audit verify --json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub intact: bool,
    /// Records found to be right.
    pub records: u64,
    /// Checkpoints among them.
    pub checkpoints: u64,
    /// The first record that is wrong.
    pub first_bad: Option<FirstBad>,
    /// Number of the last record that a signature vouches for; 0 where none does.
    #[serde(skip)]
    pub signed: u64,
    /// Number of the last record checked.
    #[serde(skip)]
    pub through: u64,
    /// Number of the record before the first one checked; 0 where nothing was dropped.
    #[serde(skip)]
    pub after: u64,
    /// Checkpoints kept outside that the chain was held against.
    #[serde(skip)]
    pub kept: u64,
    /// The keys that signed, in hexadecimal.
    #[serde(skip)]
    pub keys: Vec<Arc<str>>,
}

/// A [`BadRecord`] in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FirstBad {
    /// Its number.
    pub seq: u64,
    /// What is wrong with it.
    pub problem: String,
}

/// What is known from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Public keys, in hexadecimal. Where there are none, any key is taken that fits its own signatures.
    pub keys: Vec<Arc<str>>,
    /// Checkpoints kept outside the chain.
    pub checkpoints: Vec<Anchor>,
}

impl Report {
    /// Of a chain whose very beginning is wrong.
    pub fn bad_from_the_start(bad: &BadRecord) -> Report {
        Report {
            intact: false,
            records: 0,
            checkpoints: 0,
            first_bad: Some(FirstBad::from(bad)),
            signed: 0,
            through: 0,
            after: 0,
            kept: 0,
            keys: Vec::new(),
        }
    }
}

impl From<&BadRecord> for FirstBad {
    fn from(bad: &BadRecord) -> FirstBad {
        FirstBad { seq: bad.seq, problem: bad.problem.to_string() }
    }
}

impl Evidence {
    /// Believes a signed point.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn believe(&self, anchor: &Anchor, purpose: Purpose) -> Result<Head, Disbelief> {
        anchor.check(purpose, &self.keys, &signing::check)
    }
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The file cannot be read.
    #[error("cannot read the checkpoints in `{}`: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A line is no checkpoint.
    #[error("line {line} of `{}` is no checkpoint: {why}", path.display())]
    NoCheckpoint {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads a file of checkpoints, one a line. A line that does not come to its `}` is what a crash left, and is no line.
///
/// # Errors
/// A file that cannot be read, and a line that is no checkpoint.
pub fn read_checkpoints(path: &Path) -> Result<Vec<Anchor>, EvidenceError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| EvidenceError::Read { path: path.to_owned(), error })?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let read = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| EvidenceError::NoCheckpoint {
            path: path.to_owned(),
            line: number + 1,
            why: error.to_string(),
        })
    };
    whole.lines().enumerate().filter(|(_, line)| line.ends_with('}')).map(read).collect()
}

/// Checks a chain and every signed point of it, record by record.
pub struct Walk {
    verifier: Verifier,
    evidence: Evidence,
    /// What the checkpoints kept outside say of the records to come.
    kept: BTreeMap<u64, Result<Hash, Disbelief>>,
    held: u64,
    records: u64,
    checkpoints: u64,
    after: u64,
    signed: u64,
    signers: Vec<Arc<str>>,
}

impl Walk {
    /// Begins after `start`: the beginning of the chain, or what a signed point says.
    ///
    /// # Errors
    /// A checkpoint kept outside that says something else of the start.
    pub fn after(start: Head, evidence: &Evidence) -> Result<Walk, BadRecord> {
        let mut walk = Walk {
            verifier: Verifier::after(start),
            evidence: Evidence { keys: evidence.keys.clone(), checkpoints: Vec::new() },
            kept: BTreeMap::new(),
            held: 0,
            records: 0,
            checkpoints: 0,
            after: start.seq,
            signed: start.seq,
            signers: Vec::new(),
        };
        for anchor in evidence.checkpoints.iter().filter(|anchor| anchor.through >= start.seq) {
            let said = walk.believe(anchor, Purpose::Checkpoint).map(|head| head.hash);
            let known = walk.kept.entry(anchor.through).or_insert(said);
            if *known != said {
                // Two points that contradict each other: the chain can agree with one at most.
                *known = said.and(Err(Disbelief::BadSignature));
            }
        }
        walk.hold(start)?;
        Ok(walk)
    }

    /// Believes a signed point, and remembers who signed it.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn believe(&mut self, anchor: &Anchor, purpose: Purpose) -> Result<Head, Disbelief> {
        let head = self.evidence.believe(anchor, purpose)?;
        if !self.signers.contains(&anchor.key) {
            self.signers.push(Arc::clone(&anchor.key));
        }
        Ok(head)
    }

    /// Somebody signed that the chain had come to its present end.
    pub fn vouched(&mut self) {
        self.signed = self.verifier.head().seq;
    }

    /// The last record found to be right.
    pub fn head(&self) -> Head {
        self.verifier.head()
    }

    /// How many records were found to be right.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Takes the next record, and gives it back read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn feed(&mut self, found: Found<'_>) -> Result<Record, BadRecord> {
        let before = self.verifier.head();
        let record = self.verifier.feed(found)?;
        let bad = |problem| BadRecord { seq: found.seq, problem };
        if let Record::Event(event) = &record
            && let Some(anchor) = event.checkpoint()
        {
            let head = self.believe(&anchor, Purpose::Checkpoint).map_err(|why| bad(why.into()))?;
            if head != before {
                return Err(bad(Problem::Checkpoint("it is not of the record before it")));
            }
            self.checkpoints += 1;
            self.signed = before.seq;
        }
        self.hold(self.verifier.head())?;
        self.records += 1;
        Ok(record)
    }

    /// Takes the next record without reading it; no event may be taken so, for it may be a checkpoint.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn pass(&mut self, found: &Found<'_>) -> Result<(), BadRecord> {
        self.verifier.link(found)?;
        self.hold(self.verifier.head())?;
        self.records += 1;
        Ok(())
    }

    /// Holds the chain against what was kept of this point of it.
    fn hold(&mut self, head: Head) -> Result<(), BadRecord> {
        let Some(first) = self.kept.first_entry().filter(|entry| *entry.key() == head.seq) else {
            return Ok(());
        };
        let problem = match first.remove() {
            Ok(hash) if hash == head.hash => {
                self.held += 1;
                self.signed = head.seq;
                return Ok(());
            }
            Ok(_) => Problem::Checkpoint("one that was kept outside tells of another history"),
            Err(why) => why.into(),
        };
        Err(BadRecord { seq: head.seq, problem })
    }

    /// Ends the walk against the last record that was noted, here or in a checkpoint.
    ///
    /// # Errors
    /// A chain that ends before it.
    pub fn finish(&self, noted: Option<u64>) -> Result<(), BadRecord> {
        let head = self.verifier.head();
        if let Some((_, Err(why))) = self.kept.iter().find(|(_, said)| said.is_err()) {
            return Err(BadRecord { seq: head.seq, problem: (*why).into() });
        }
        let kept = self.kept.keys().next_back().copied();
        self.verifier.clone().finish(noted.max(kept)).map(|_| ())
    }

    /// What came of it.
    pub fn report(&self, bad: Option<&BadRecord>) -> Report {
        Report {
            intact: bad.is_none(),
            records: self.records,
            checkpoints: self.checkpoints,
            first_bad: bad.map(FirstBad::from),
            signed: self.signed,
            through: self.verifier.head().seq,
            after: self.after,
            kept: self.held,
            keys: self.signers.clone(),
        }
    }
}
