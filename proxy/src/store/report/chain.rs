//! Whether the records that a report is made from are those that were written.
//!
//! This is the one place that answers it; `outgate audit verify` checks everything.

use policy::chain::{BadRecord, Found, Hash, Head, Problem, Verifier};
use policy::record::{Happening, Record};
use policy::report::{ChainStatus, CheckpointSeen, Moment};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::event;
use crate::store::query::unsigned;
use crate::store::writer::number;
use crate::store::{Store, StoreError};

/// Records read at a time.
const PAGE: i64 = 1000;
/// Records checked at most: as many as can be in a second, because a report is waited for.
const MOST: u64 = 100_000;

impl Store {
    /// Checks the records from one number to another, the last 100,000 where there are more of them.
    ///
    /// # Errors
    /// A store that cannot be read. Records that are not intact are not an error, but the answer.
    pub async fn chain_status(&self, first: u64, last: u64) -> Result<ChainStatus, StoreError> {
        let first = first.max(last.saturating_sub(MOST - 1)).max(1);
        let begin = self.head_before(first).await?;
        let mut verifier = Verifier::after(begin);
        let mut status = ChainStatus {
            checked_from: begin.seq + 1,
            checked_through: begin.seq,
            records: 0,
            intact: true,
            problem: None,
            checkpoints: 0,
            last_checkpoint: self.last_checkpoint().await?,
        };
        while status.intact && verifier.head().seq < last {
            let rows = self.raw(verifier.head().seq, last).await?;
            if rows.is_empty() {
                let head = verifier.head().seq;
                let problem = Problem::Truncated { expected: last };
                status.wrong(BadRecord { seq: head, problem }.to_string());
            }
            for row in &rows {
                match verifier.feed(found(row)?) {
                    Ok(record) => status.right(&record),
                    Err(bad) => {
                        status.wrong(bad.to_string());
                        break;
                    }
                }
            }
        }
        status.checked_through = verifier.head().seq;
        Ok(status)
    }

    /// What the record `first` follows on, or the first one left where those before it were pruned.
    async fn head_before(&self, first: u64) -> Result<Head, StoreError> {
        let before = sqlx::query("SELECT hash FROM records WHERE seq = $1")
            .bind(number(first - 1))
            .fetch_optional(&self.readers())
            .await?;
        let hash = before.as_ref().map(|row| row.try_get("hash")).transpose()?.and_then(Hash::from_bytes);
        match hash {
            Some(hash) => Ok(Head { seq: first - 1, hash }),
            // Where nothing says that they were pruned, the first record left does not fit, and that is the answer.
            None => Ok(self.pruned_before(first).await?.unwrap_or(Head { seq: first - 1, hash: Hash::ZERO })),
        }
    }

    async fn pruned_before(&self, first: u64) -> Result<Option<Head>, StoreError> {
        let left = sqlx::query("SELECT coalesce(min(seq), 0) AS seq FROM records WHERE seq >= $1")
            .bind(number(first))
            .fetch_one(&self.readers())
            .await?;
        let left = unsigned(&left, "seq")?;
        let stubs = sqlx::query(
            "SELECT seq, record FROM records WHERE kind = 'event' AND record LIKE '%\"event\":\"pruned\"%' \
             ORDER BY time DESC",
        );
        for row in stubs.fetch_all(&self.readers()).await? {
            match event(row.try_get("record")?, unsigned(&row, "seq")?)?.what {
                Happening::Pruned { through, hash, .. } if through + 1 == left => {
                    return Ok(Hash::from_hex(&hash).map(|hash| Head { seq: through, hash }));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    async fn raw(&self, after: u64, through: u64) -> Result<Vec<SqliteRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, kind, record, hash FROM records WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3",
        );
        let rows = rows.bind(number(after)).bind(number(through)).bind(PAGE);
        Ok(rows.fetch_all(&self.readers()).await?)
    }

    /// The newest checkpoint speaks of the most records, so it is the one to compare elsewhere.
    async fn last_checkpoint(&self) -> Result<Option<CheckpointSeen>, StoreError> {
        let row = sqlx::query(
            "SELECT seq, record FROM records WHERE kind = 'event' AND record LIKE '%\"event\":\"checkpoint\"%' \
             ORDER BY time DESC LIMIT 1",
        );
        let Some(row) = row.fetch_optional(&self.readers()).await? else { return Ok(None) };
        let event = event(row.try_get("record")?, unsigned(&row, "seq")?)?;
        Ok(match event.what {
            Happening::Checkpoint { through, key, .. } => {
                Some(CheckpointSeen { through, time: Moment(event.time), key: key.as_ref().to_owned() })
            }
            _ => None,
        })
    }
}

/// What a chain status is told while it is found out.
trait Told {
    fn right(&mut self, record: &Record);
    fn wrong(&mut self, problem: String);
}

impl Told for ChainStatus {
    fn right(&mut self, record: &Record) {
        self.records += 1;
        let checkpoint =
            matches!(record, Record::Event(event) if matches!(event.what, Happening::Checkpoint { .. }));
        self.checkpoints += u64::from(checkpoint);
    }

    fn wrong(&mut self, problem: String) {
        self.intact = false;
        self.problem = Some(problem);
    }
}

fn found(row: &SqliteRow) -> Result<Found<'_>, StoreError> {
    Ok(Found {
        seq: unsigned(row, "seq")?,
        kind: row.try_get("kind")?,
        canonical: row.try_get("record")?,
        hash: row.try_get("hash")?,
    })
}
