//! What a start finds: whether the end of the chain is what was written, and what a gateway that died left open.

use std::path::Path;

use policy::chain::{BadRecord, Found, Hash, Head, Problem, Verifier};
use policy::record::Record;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::entry::{Closing, Entry};
use super::filing::filed_through;
use super::plan::OpenDecision;
use super::row::number;
use super::{CommitError, StoreError, Writer, prune};

/// Records at the end of the chain that every start verifies.
const TAIL: u64 = 256;
/// Interrupted exchanges that are marked in one transaction.
const BATCH: usize = 512;

/// The end of the chain and the open decisions, as noted in the table `meta` now and then.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    seq: u64,
    hash: String,
    open: Vec<u64>,
}

impl Mark {
    pub(super) fn of(head: Head, open: impl Iterator<Item = u64>) -> Mark {
        Mark { seq: head.seq, hash: head.hash.to_string(), open: open.collect() }
    }

    /// As it is noted.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    async fn read(connection: &mut SqliteConnection) -> Result<Option<Mark>, sqlx::Error> {
        let row =
            sqlx::query("SELECT value FROM meta WHERE name = 'mark'").fetch_optional(connection).await?;
        // A mark that cannot be read is none: it only saves looking.
        Ok(row.and_then(|row| serde_json::from_str(row.get("value")).ok()))
    }
}

/// Number noted last, for who verifies the whole chain.
pub(super) fn marked_seq(value: &str) -> Option<u64> {
    serde_json::from_str::<Mark>(value).ok().map(|mark| mark.seq)
}

/// The last record of the chain.
pub(super) async fn read_head(connection: &mut SqliteConnection) -> Result<Head, CommitError> {
    let last = sqlx::query("SELECT seq, hash FROM records ORDER BY seq DESC LIMIT 1")
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = last else { return Ok(prune::stub_head(connection).await?) };
    let seq = seq(&row)?;
    let hash = Hash::from_bytes(row.try_get("hash")?);
    let hash = hash.ok_or(CommitError::Foreign(BadRecord { seq, problem: Problem::Altered }))?;
    Ok(Head { seq, hash })
}

fn seq(row: &SqliteRow) -> Result<u64, sqlx::Error> {
    let seq: i64 = row.try_get("seq")?;
    Ok(u64::try_from(seq).unwrap_or(0))
}

impl Writer {
    /// Finds the end of the chain.
    pub(super) async fn load_head(&mut self) -> Result<(), CommitError> {
        self.head = read_head(&mut self.connection).await?;
        self.look_at_files();
        Ok(())
    }

    /// Finds and verifies the end of the chain, and ends what was left open. Gives how much that was.
    pub(super) async fn recover(&mut self, path: &Path) -> Result<usize, StoreError> {
        let opening = |error| StoreError::Open { path: path.to_owned(), error };
        let writing = |error| StoreError::Write { path: path.to_owned(), error };
        let mark = Mark::read(&mut self.connection).await.map_err(opening)?;
        let tail = self.verify_tail(mark.as_ref()).await.map_err(opening)?;
        self.head = tail.map_err(|bad| StoreError::Tampered { path: path.to_owned(), bad })?;
        self.prune = prune::target(&mut self.connection).await.map_err(opening)?;
        let left = self.left_open(mark.as_ref()).await.map_err(opening)?;
        let ends = left.map_err(|bad| StoreError::Tampered { path: path.to_owned(), bad })?;
        for batch in ends.chunks(BATCH) {
            self.commit(batch).await.map_err(writing)?;
        }
        self.marked = Some(std::time::Instant::now());
        self.mark().await.map_err(writing)?;
        // A note that says more than there is would keep what comes from being found.
        self.filed = filed_through(&mut self.connection).await.map_err(opening)?.min(self.head.seq);
        self.look_at_files();
        Ok(ends.len())
    }

    async fn verify_tail(&mut self, mark: Option<&Mark>) -> Result<Result<Head, BadRecord>, sqlx::Error> {
        let rows = sqlx::query("SELECT seq, kind, record, hash FROM records ORDER BY seq DESC LIMIT $1")
            .bind(number(TAIL + 1))
            .fetch_all(&mut self.connection)
            .await?;
        let mut rows = rows.iter().rev();
        let mut verifier = Verifier::after(Head::GENESIS);
        if rows.len() as u64 > TAIL {
            // The oldest of them only gives the hash that the next follows on.
            if let Some(row) = rows.next() {
                let hash = Hash::from_bytes(row.try_get("hash")?).unwrap_or(Hash::ZERO);
                verifier = Verifier::after(Head { seq: seq(row)?, hash });
            }
        } else {
            verifier = Verifier::after(prune::stub_head(&mut self.connection).await?);
        }
        for row in rows {
            let found = Found {
                seq: seq(row)?,
                kind: row.try_get("kind")?,
                canonical: row.try_get::<&str, _>("record")?.as_bytes(),
                hash: row.try_get("hash")?,
            };
            if let Err(bad) = verifier.feed(found) {
                return Ok(Err(bad));
            }
        }
        Ok(verifier.finish(mark.map(|mark| mark.seq)))
    }

    /// Remembers every decision without outcome as open, and gives the entries that end them.
    async fn left_open(&mut self, mark: Option<&Mark>) -> Result<Result<Vec<Entry>, BadRecord>, sqlx::Error> {
        let since = mark.map_or(0, |mark| mark.seq);
        let noted = mark.map_or_else(|| Ok("[]".to_owned()), |mark| serde_json::to_string(&mark.open));
        let noted = noted.map_err(|error| sqlx::Error::Encode(error.into()))?;
        let rows = sqlx::query(
            "SELECT d.seq, d.record FROM \
             (SELECT seq FROM records WHERE seq > $1 UNION SELECT value FROM json_each($2)) c \
             JOIN records d ON d.seq = c.seq WHERE d.id IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM records o WHERE o.decision = d.seq) ORDER BY d.seq",
        )
        .bind(number(since))
        .bind(noted)
        .fetch_all(&mut self.connection)
        .await?;
        let mut ends = Vec::with_capacity(rows.len());
        for row in &rows {
            let seq = seq(row)?;
            let Ok(Record::Decision(decision)) = Record::parse(row.try_get::<&str, _>("record")?.as_bytes())
            else {
                return Ok(Err(BadRecord { seq, problem: Problem::Unreadable }));
            };
            let open = OpenDecision {
                seq,
                action: decision.action,
                reason: decision.reason,
                session: decision.session,
                provider: None,
            };
            self.open.insert(decision.id, open);
            ends.push(Entry::close(decision.id, Closing::Interrupted));
        }
        Ok(Ok(ends))
    }
}
