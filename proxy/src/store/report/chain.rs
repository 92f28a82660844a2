//! Whether the records that a report is made from are those that were written.
//!
//! This is the one place that answers it; `outgate audit verify` checks everything.

use policy::chain::{BadRecord, Found, Head, Problem};
use policy::record::Happening;
use policy::report::{ChainStatus, CheckpointSeen, Moment};
use sqlx::Row;

use super::event;
use crate::config::CHECKPOINT_FILE;
use crate::evidence::{Evidence, Walk, read_checkpoints};
use crate::signing::public_keys;
use crate::store::query::unsigned;
use crate::store::{Store, StoreError};

/// Records read at a time.
const PAGE: u32 = 1000;
/// Records checked at most: as many as can be in a second, because a report is waited for.
const MOST: u64 = 100_000;

impl Store {
    /// Checks what a report of the records from one number to another stands on: the whole store where that is quick,
    /// else those records.
    ///
    /// # Errors
    /// A store that cannot be read. Records that are not intact are not an error, but the answer.
    pub async fn chain_status(&self, first: u64, last: u64) -> Result<ChainStatus, StoreError> {
        match self.last_seq().await? <= MOST {
            true => self.whole_chain_status().await,
            false => self.span_status(first, last).await,
        }
    }

    /// Checks the last records, so many of them.
    ///
    /// # Errors
    /// As for [`Store::chain_status`].
    pub async fn tail_status(&self, records: u64) -> Result<ChainStatus, StoreError> {
        let last = self.last_seq().await?;
        self.span_status(last.saturating_sub(records) + 1, last).await
    }

    /// Checks the records from one number to another, the last 100,000 where there are more of them: each against the
    /// one before it, and against the checkpoints in the chain and beside it.
    pub(super) async fn span_status(&self, first: u64, last: u64) -> Result<ChainStatus, StoreError> {
        let first = first.max(last.saturating_sub(MOST - 1)).max(1);
        let begin = self.before(first).await?;
        let mut status = ChainStatus {
            checked_from: begin.seq + 1,
            checked_through: begin.seq,
            records: 0,
            intact: true,
            problem: None,
            checkpoints: 0,
            last_checkpoint: self.last_checkpoint().await?,
        };
        let bad = match Walk::after(begin, &self.evidence(begin, last)) {
            Ok(mut walk) => {
                let bad = self.walk_to(&mut walk, last).await?;
                let report = walk.report(None);
                (status.records, status.checkpoints) = (report.records, report.checkpoints);
                status.checked_through = walk.head().seq;
                bad
            }
            Err(bad) => Some(bad),
        };
        (status.intact, status.problem) = (bad.is_none(), bad.map(|bad| bad.to_string()));
        Ok(status)
    }

    /// A store of no more than that is checked as `audit verify` checks it, tables and end included.
    async fn whole_chain_status(&self) -> Result<ChainStatus, StoreError> {
        let beginning = self.beginning().await?;
        let report = self.verify_against(&self.evidence(beginning, u64::MAX), |_| {}).await?;
        Ok(ChainStatus {
            checked_from: beginning.seq + 1,
            checked_through: report.through,
            records: report.records,
            intact: report.intact,
            problem: report.first_bad.map(|bad| format!("record {}: {}", bad.seq, bad.problem)),
            checkpoints: report.checkpoints,
            last_checkpoint: self.last_checkpoint().await?,
        })
    }

    async fn walk_to(&self, walk: &mut Walk, last: u64) -> Result<Option<BadRecord>, StoreError> {
        while walk.head().seq < last {
            let records = self.records_after(walk.head().seq, PAGE).await?;
            if records.is_empty() {
                let problem = Problem::Truncated { expected: last };
                return Ok(Some(BadRecord { seq: walk.head().seq, problem }));
            }
            for record in records.iter().filter(|record| record.head.seq <= last) {
                let found = Found {
                    seq: record.head.seq,
                    kind: &record.kind,
                    canonical: record.canonical.as_bytes(),
                    hash: record.head.hash.as_bytes(),
                };
                if let Err(bad) = walk.feed(found) {
                    return Ok(Some(bad));
                }
            }
        }
        Ok(None)
    }

    /// What the record `first` follows on; the beginning of what is left where that was pruned.
    async fn before(&self, first: u64) -> Result<Head, StoreError> {
        match self.point(first - 1).await? {
            Some(head) => Ok(head),
            None => self.beginning().await,
        }
    }

    /// The keys and checkpoints of the data folder, as far as they speak of these records. Where they cannot be read,
    /// it is for `outgate audit verify` to say so.
    fn evidence(&self, begin: Head, last: u64) -> Evidence {
        let keys = public_keys(self.data_dir()).unwrap_or_default();
        let mut checkpoints = read_checkpoints(&self.data_dir().join(CHECKPOINT_FILE)).unwrap_or_default();
        checkpoints.retain(|anchor| (begin.seq..=last).contains(&anchor.through));
        Evidence { keys, checkpoints }
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
