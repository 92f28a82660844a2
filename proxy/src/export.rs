//! The audit chain as JSON Lines: written out of a store, and verified far from it.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use policy::anchor::{Anchor, Purpose};
use policy::chain::{BadRecord, Head, Problem};
use policy::export::{self, Line};

use crate::evidence::{Evidence, Report, Walk};
use crate::signing::Signer;
use crate::store::{Store, StoreError};

/// Records read at a time.
const PAGE: u32 = 1000;
/// The longest line that is read, in bytes; a record with an excerpt of a mebibyte fits.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Records that were to be exported are not there.
    #[error("record {0} is not there, or was dropped meanwhile; export what is left anew")]
    Gap(u64),
    /// The output cannot be written.
    #[error("cannot write the export: {0}")]
    Write(#[from] io::Error),
}

/// Writes an export, record by record, and signs where it begins and ends.
pub struct Exporter<W> {
    store: Store,
    head: Head,
    records: u64,
    out: W,
}

impl<W: Write> Exporter<W> {
    /// Writes the first line: the export goes on from `start`.
    ///
    /// # Errors
    /// An output that cannot be written.
    pub fn start(store: &Store, signer: &Signer, start: Head, mut out: W) -> io::Result<Exporter<W>> {
        let follows = signer.sign(Purpose::ExportStart, start);
        writeln!(out, "{}", export::start(&follows, env!("CARGO_PKG_VERSION")))?;
        Ok(Exporter { store: store.clone(), head: start, records: 0, out })
    }

    /// Writes every record there is by now, and flushes them.
    ///
    /// # Errors
    /// A store that cannot be read, an output that cannot be written.
    pub async fn catch_up(&mut self, mut progress: impl FnMut(u64)) -> Result<(), ExportError> {
        loop {
            let records = self.store.records_after(self.head.seq, PAGE).await?;
            if records.is_empty() {
                return Ok(self.out.flush()?);
            }
            for record in records {
                if record.head.seq != self.head.seq + 1 {
                    return Err(ExportError::Gap(self.head.seq + 1));
                }
                let line = export::record(record.head, self.head.hash, &record.kind, &record.canonical);
                writeln!(self.out, "{line}")?;
                self.head = record.head;
                self.records += 1;
            }
            progress(self.records);
        }
    }

    /// Writes the last line. Gives how many records there are.
    ///
    /// # Errors
    /// An output that cannot be written.
    pub fn end(mut self, signer: &Signer) -> io::Result<u64> {
        writeln!(self.out, "{}", export::end(&signer.sign(Purpose::ExportEnd, self.head)))?;
        self.out.flush()?;
        Ok(self.records)
    }
}

/// Why an export cannot be verified.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`: {error}", path.display())]
pub struct ReadError {
    path: PathBuf,
    error: io::Error,
}

/// Verifies an export. `progress` is told now and then how many records were checked.
///
/// # Errors
/// A file that cannot be read. One that is not intact is not an error, but the report's answer.
pub fn verify(path: &Path, evidence: &Evidence, mut progress: impl FnMut(u64)) -> Result<Report, ReadError> {
    let failed = |error| ReadError { path: path.to_owned(), error };
    let file = std::fs::File::open(path).map_err(failed)?;
    verify_lines(io::BufReader::with_capacity(1 << 20, file), evidence, &mut progress).map_err(failed)
}

/// Verifies the lines of an export, as [`verify`] does.
///
/// # Errors
/// What cannot be read.
pub fn verify_lines(
    lines: impl BufRead,
    evidence: &Evidence,
    mut progress: impl FnMut(u64),
) -> io::Result<Report> {
    let mut lines = Lines { source: lines, line: Vec::new(), number: 0 };
    let mut check = Check::before(evidence);
    while let Some((number, line)) = lines.next()? {
        if let Err(mut bad) = check.line(number, line) {
            if check.walk.is_none() && bad.seq == 0 {
                // What is wrong with the beginning is told of the first record there is.
                bad.seq = first_record(&mut lines)?;
            }
            return Ok(check.report(Some(&bad)));
        }
        if number.is_multiple_of(u64::from(PAGE)) {
            progress(number);
        }
    }
    let end = check.end(lines.number);
    Ok(check.report(end.err().as_ref()))
}

/// The number of the first record from here on; 0 where there is none.
fn first_record(lines: &mut Lines<impl BufRead>) -> io::Result<u64> {
    loop {
        let seq = match lines.next()? {
            None => return Ok(0),
            Some((_, line)) => Line::parse(line).ok().and_then(|line| match line {
                Line::Record(record) => Some(record.seq()),
                Line::Start(_) | Line::End(_) => None,
            }),
        };
        if let Some(seq) = seq {
            return Ok(seq);
        }
    }
}

/// Lines, none longer than is sensible.
struct Lines<R> {
    source: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The number of the next line, and the line without its end.
    fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        use io::Read as _;
        self.line.clear();
        let read = (&mut self.source).take(LONGEST_LINE).read_until(b'\n', &mut self.line)?;
        self.number += 1;
        Ok((read > 0).then(|| (self.number, self.line.strip_suffix(b"\n").unwrap_or(&self.line))))
    }
}

/// An export so far.
struct Check<'a> {
    evidence: &'a Evidence,
    walk: Option<Walk>,
    ended: bool,
}

impl<'a> Check<'a> {
    fn before(evidence: &'a Evidence) -> Check<'a> {
        Check { evidence, walk: None, ended: false }
    }

    fn line(&mut self, number: u64, line: &[u8]) -> Result<(), BadRecord> {
        let expected = self.walk.as_ref().map_or(0, |walk| walk.head().seq + 1);
        let wrong = |why: String| BadRecord { seq: expected, problem: Problem::Line(number, why) };
        if self.ended {
            let problem = Problem::Line(number, "it comes after the last one".to_owned());
            return Err(BadRecord { seq: expected.saturating_sub(1), problem });
        }
        let line = Line::parse(line).map_err(|why| wrong(why.to_string()))?;
        match (line, &mut self.walk) {
            (Line::Start(anchor), None) => {
                let start = self.evidence.believe(&anchor, Purpose::ExportStart);
                let start = start.map_err(|why| wrong(format!("the beginning: {why}")))?;
                self.walk = Some(Walk::after(start, self.evidence)?);
                Ok(())
            }
            (Line::Record(record), Some(walk)) => {
                let before = walk.head().hash;
                walk.feed(record.found())?;
                record.follows(before)
            }
            (Line::End(anchor), Some(walk)) => {
                self.ended = true;
                ends(&anchor, walk).map_err(|problem| BadRecord {
                    seq: walk.head().seq,
                    problem: problem.unwrap_or_else(|why| Problem::Line(number, why)),
                })
            }
            (line, None) => {
                let seq = if let Line::Record(record) = line { record.seq() } else { 0 };
                let why = "an export begins with `{\"export\":`".to_owned();
                Err(BadRecord { seq, problem: Problem::Line(number, why) })
            }
            (Line::Start(_), Some(_)) => Err(wrong("the beginning is here twice".to_owned())),
        }
    }

    fn end(&self, lines: u64) -> Result<(), BadRecord> {
        let Some(walk) = &self.walk else {
            let problem = Problem::Line(lines, "there is nothing in it".to_owned());
            return Err(BadRecord { seq: 0, problem });
        };
        if !self.ended {
            let why = "the last line is missing: the export was cut off, or is still being written";
            return Err(BadRecord { seq: walk.head().seq, problem: Problem::Line(lines, why.to_owned()) });
        }
        walk.finish(None)
    }

    fn report(&self, bad: Option<&BadRecord>) -> Report {
        match &self.walk {
            Some(walk) => walk.report(bad),
            None => {
                let nothing = BadRecord { seq: 0, problem: Problem::Unreadable };
                Report::bad_from_the_start(bad.unwrap_or(&nothing))
            }
        }
    }
}

/// Holds the last line against where the records ended.
fn ends(anchor: &Anchor, walk: &mut Walk) -> Result<(), Result<Problem, String>> {
    let end = walk.believe(anchor, Purpose::ExportEnd).map_err(|why| Err(format!("the end: {why}")))?;
    if end == walk.head() {
        walk.vouched();
        return Ok(());
    }
    match end.seq > walk.head().seq {
        true => Err(Ok(Problem::Truncated { expected: end.seq })),
        false => Err(Err("the end is that of another export".to_owned())),
    }
}
