//! The whole chain, checked: every record against the one before it, every column against its record.

use std::collections::HashSet;

use policy::chain::{BadRecord, Found, Hash, Head, Problem, Verifier};
use policy::record::{Decision, Happening, Outcome, Record};
use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::query::unsigned;
use super::recover::marked_seq;
use super::writer::number;
use super::{Store, StoreError, findings};

/// Records read at a time.
const PAGE: i64 = 1000;

/// What came of it, as `audit verify --json` shows it.
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
}

/// A [`BadRecord`] in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FirstBad {
    /// Its number.
    pub seq: u64,
    /// What is wrong with it.
    pub problem: String,
}

impl Store {
    /// Verifies the whole chain. `progress` is told now and then how many records were read.
    ///
    /// # Errors
    /// A store that cannot be read. A chain that is not intact is not an error, but the report's answer.
    pub async fn verify(&self, mut progress: impl FnMut(u64)) -> Result<Report, StoreError> {
        let mut check = Check::after(self.pruned_head().await?);
        let mut after = 0;
        let first_bad = loop {
            let rows = self.page(after).await?;
            let Some(last) = rows.last() else {
                break self.ends_where_noted(&check).await?;
            };
            after = unsigned(last, "seq")?;
            match check.rows(&rows)? {
                Ok(()) => progress(check.records),
                Err(bad) => break Some(bad),
            }
        };
        let first_bad = first_bad.or_else(|| check.left_over());
        Ok(Report {
            intact: first_bad.is_none(),
            records: check.records,
            checkpoints: check.checkpoints,
            first_bad: first_bad.map(|bad| FirstBad { seq: bad.seq, problem: bad.problem.to_string() }),
        })
    }

    async fn page(&self, after: u64) -> Result<Vec<SqliteRow>, StoreError> {
        // With each outcome what the row of its decision says.
        let rows = sqlx::query(
            "SELECT r.*, d.kind AS named_kind, d.id AS named_id, d.action AS last_action, d.reason AS last_reason FROM records r LEFT JOIN records d ON d.seq = r.decision \
             WHERE r.seq > $1 ORDER BY r.seq LIMIT $2",
        )
        .bind(number(after))
        .bind(PAGE)
        .fetch_all(&self.readers())
        .await?;
        Ok(rows)
    }

    /// Where the chain begins: at its beginning, or where the last pruning says.
    async fn pruned_head(&self) -> Result<Head, StoreError> {
        let first = sqlx::query("SELECT coalesce(min(seq), 1) AS seq FROM records")
            .fetch_one(&self.readers())
            .await?;
        let first = unsigned(&first, "seq")?;
        if first <= 1 {
            return Ok(Head::GENESIS);
        }
        let stubs = sqlx::query("SELECT record FROM records WHERE kind = 'event' AND record LIKE '%\"event\":\"pruned\"%' ORDER BY seq DESC")
            .fetch_all(&self.readers())
            .await?;
        let named = stubs.iter().find_map(|row| match Record::parse(row.get("record")) {
            Ok(Record::Event(event)) => match event.what {
                Happening::Pruned { through, hash, .. } if through + 1 == first => {
                    Hash::from_hex(&hash).map(|hash| Head { seq: through, hash })
                }
                _ => None,
            },
            _ => None,
        });
        // Without a stub the first record left is reported as following on nothing.
        Ok(named.unwrap_or(Head::GENESIS))
    }

    async fn ends_where_noted(&self, check: &Check) -> Result<Option<BadRecord>, StoreError> {
        let row =
            sqlx::query("SELECT value FROM meta WHERE name = 'mark'").fetch_optional(&self.readers()).await?;
        let noted = row.and_then(|row| marked_seq(row.get("value")));
        Ok(check.verifier.clone().finish(noted).err())
    }
}

/// The chain so far, and the last words that outcomes still have to confirm.
struct Check {
    verifier: Verifier,
    records: u64,
    checkpoints: u64,
    /// Decisions whose columns say another last word than the decision: an outcome must follow that says so, too.
    replaced: HashSet<u64>,
}

impl Check {
    fn after(head: Head) -> Check {
        Check { verifier: Verifier::after(head), records: 0, checkpoints: 0, replaced: HashSet::new() }
    }

    fn rows(&mut self, rows: &[SqliteRow]) -> Result<Result<(), BadRecord>, StoreError> {
        for row in rows {
            if let Err(bad) = self.row(row)? {
                return Ok(Err(bad));
            }
        }
        Ok(Ok(()))
    }

    fn row(&mut self, row: &SqliteRow) -> Result<Result<(), BadRecord>, StoreError> {
        let seq = unsigned(row, "seq")?;
        let found = Found {
            seq,
            kind: row.try_get("kind")?,
            canonical: row.try_get("record")?,
            hash: row.try_get("hash")?,
        };
        let record = match self.verifier.feed(found) {
            Ok(record) => record,
            Err(bad) => return Ok(Err(bad)),
        };
        let odd = match &record {
            Record::Decision(decision) => self.decision(row, seq, decision)?,
            Record::Outcome(outcome) => self.outcome(row, outcome)?,
            Record::Event(event) => {
                self.checkpoints += u64::from(matches!(event.what, Happening::Checkpoint { .. }));
                number_differs(row, "time", Some(event.time))?
            }
        };
        if let Some(column) = odd {
            return Ok(Err(BadRecord { seq, problem: Problem::Column(column) }));
        }
        self.records += 1;
        Ok(Ok(()))
    }

    fn decision(
        &mut self,
        row: &SqliteRow,
        seq: u64,
        decision: &Decision,
    ) -> Result<Option<&'static str>, StoreError> {
        let last_word: (&str, &str) = (row.try_get("action")?, row.try_get("reason")?);
        if last_word != (decision.action.as_str(), decision.reason.as_str()) {
            self.replaced.insert(seq);
        }
        let host = decision.host.as_ref().map(|host| host.as_str());
        let domain = decision.domain.as_ref().map(|domain| domain.as_str());
        let session = decision.session.map(|session| session.to_string());
        let odd = [
            text_differs(row, "id", Some(&decision.id.to_string()))?,
            text_differs(row, "session", session.as_deref())?,
            text_differs(row, "agent", Some(decision.agent.as_str()))?,
            text_differs(row, "class", Some(decision.class.as_str()))?,
            text_differs(row, "host", host)?,
            text_differs(row, "domain", domain)?,
            number_differs(row, "time", Some(decision.time))?,
            number_differs(row, "decision", None)?,
            number_differs(row, "findings", Some(findings::bits(&decision.findings)))?,
        ];
        Ok(odd.into_iter().flatten().next())
    }

    fn outcome(&mut self, row: &SqliteRow, outcome: &Outcome) -> Result<Option<&'static str>, StoreError> {
        let decision = row.try_get::<Option<i64>, _>("decision")?.and_then(|seq| u64::try_from(seq).ok());
        // Of a decision that was pruned nothing is left to compare with.
        let (mut says_else, mut names_another) = (false, decision.is_none());
        if row.try_get::<Option<&str>, _>("named_kind")?.is_some() {
            let last_word: (Option<&str>, Option<&str>) =
                (row.try_get("last_action")?, row.try_get("last_reason")?);
            says_else = last_word != (Some(outcome.action.as_str()), Some(outcome.reason.as_str()));
            names_another =
                row.try_get::<Option<&str>, _>("named_id")? != Some(&outcome.decision.to_string());
        }
        if let Some(seq) = decision {
            self.replaced.remove(&seq);
        }
        let odd = [
            names_another.then_some("decision"),
            says_else.then_some("action"),
            number_differs(row, "time", Some(outcome.time))?,
            number_differs(row, "findings", Some(findings::bits(&outcome.findings)))?,
            number_differs(row, "bytes", Some(number(outcome.request_bytes)))?,
        ];
        Ok(odd.into_iter().flatten().next())
    }

    /// A decision whose columns say what neither it nor its outcome does.
    fn left_over(&self) -> Option<BadRecord> {
        let seq = *self.replaced.iter().min()?;
        Some(BadRecord { seq, problem: Problem::Column("action") })
    }
}

fn text_differs(
    row: &SqliteRow,
    column: &'static str,
    expected: Option<&str>,
) -> Result<Option<&'static str>, StoreError> {
    let found: Option<&str> = row.try_get(column)?;
    Ok((found != expected).then_some(column))
}

fn number_differs(
    row: &SqliteRow,
    column: &'static str,
    expected: Option<i64>,
) -> Result<Option<&'static str>, StoreError> {
    let found: Option<i64> = row.try_get(column)?;
    Ok((found != expected).then_some(column))
}

#[cfg(test)]
mod tests {
    use policy::verdict::{Action, Reason};

    use super::*;
    use crate::store::tests::{Folder, decision, outcome};
    use crate::store::{Entry, Opened};

    /// Decision 1 cut by its outcome 2, decision 3 with outcome 4, an event.
    async fn chain() -> (Folder, Store) {
        let folder = Folder::new();
        let Opened { store, mut writer, .. } = folder.open().await;
        let [first, second] = ["a.example", "b.example"].map(decision);
        let mut cut = outcome(&first);
        (cut.action, cut.reason) = (Action::Deny, Reason::SecretFound);
        let stopped = policy::event::Event { time: 1, by: None, what: Happening::Stopped };
        let entries = [
            Entry::decision(&first),
            Entry::outcome(&cut),
            Entry::decision(&second),
            Entry::outcome(&outcome(&second)),
            Entry::event(&stopped),
        ];
        writer.commit(&entries).await.unwrap();
        writer.mark().await.unwrap();
        writer.close().await;
        drop(store);
        let store = Store::open_read_only(folder.path()).await.unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn an_untouched_store_is_intact() {
        let (_folder, store) = chain().await;
        let mut seen = 0;
        let report = store.verify(|records| seen = records).await.unwrap();
        assert_eq!(report, Report { intact: true, records: 5, checkpoints: 0, first_bad: None });
        assert_eq!(seen, 5);
    }

    #[tokio::test]
    async fn every_way_of_touching_a_store_is_named() {
        let cases: [(&'static str, u64, &str); 23] = [
            (
                "UPDATE records SET record = replace(record, 'a.example', 'c.example') WHERE seq = 1",
                1,
                "the hash does not fit",
            ),
            (
                "UPDATE records SET record = replace(record, '\"status\":200', '\"status\":201') WHERE seq = 4",
                4,
                "the hash does not fit",
            ),
            ("UPDATE records SET hash = zeroblob(32) WHERE seq = 5", 5, "the hash does not fit"),
            ("UPDATE records SET kind = 'event' WHERE seq = 3", 3, "filed under another kind"),
            ("UPDATE records SET time = time + 1 WHERE seq = 3", 3, "`time`"),
            ("UPDATE records SET time = time + 1 WHERE seq = 5", 5, "`time`"),
            ("UPDATE records SET id = '01M7Q5CQKV0000000000000007' WHERE seq = 3", 3, "`id`"),
            ("UPDATE records SET session = '01M7Q5CQKV0000000000000007' WHERE seq = 3", 3, "`session`"),
            ("UPDATE records SET agent = 'other' WHERE seq = 3", 3, "`agent`"),
            ("UPDATE records SET class = 'model' WHERE seq = 3", 3, "`class`"),
            ("UPDATE records SET host = 'c.example' WHERE seq = 3", 3, "`host`"),
            ("UPDATE records SET domain = NULL WHERE seq = 3", 3, "`domain`"),
            ("UPDATE records SET findings = 1 WHERE seq = 3", 3, "`findings`"),
            ("UPDATE records SET bytes = 0 WHERE seq = 4", 4, "`bytes`"),
            ("UPDATE records SET action = 'allow', reason = 'allowed_by_rule' WHERE seq = 1", 2, "`action`"),
            ("UPDATE records SET reason = 'secret_found', action = 'deny' WHERE seq = 3", 4, "`action`"),
            ("UPDATE records SET decision = NULL WHERE seq = 4", 4, "`decision`"),
            ("UPDATE records SET decision = 5 WHERE seq = 4", 4, "`decision`"),
            ("DELETE FROM records WHERE seq = 2", 3, "records from 2"),
            ("DELETE FROM records WHERE seq = 1", 2, "records from 1"),
            ("DELETE FROM records WHERE seq = 5", 4, "record 5 had been written"),
            ("UPDATE records SET seq = 6 WHERE seq = 5", 6, "records from 5"),
            (
                "INSERT INTO records (seq, kind, time, record, hash) SELECT 6, kind, time, record, hash FROM records WHERE seq = 5",
                6,
                "the hash does not fit",
            ),
        ];
        for (damage, seq, expected) in cases {
            let (folder, store) = chain().await;
            folder.execute(damage).await;
            let report = store.verify(|_| {}).await.unwrap();
            let bad = report.first_bad.unwrap_or_else(|| panic!("not noticed: {damage}"));
            assert_eq!(bad.seq, seq, "{damage}: {}", bad.problem);
            assert!(bad.problem.contains(expected), "{damage}: {}", bad.problem);
            assert!(!report.intact);
        }
    }
}
