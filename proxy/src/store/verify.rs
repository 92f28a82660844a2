//! The whole store, checked: every record against the one before it, every column and table against the records.

mod glance;

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use policy::anchor::Purpose;
use policy::chain::{BadRecord, Found, Head, Problem};
use policy::record::{Decision, Outcome, Record};
use policy::verdict::{Action, Reason};
use sha2::{Digest as _, Sha256};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use tokio::sync::mpsc;
use ulid::Ulid;

use self::glance::{Odd, Page};
use super::filing::{FRESH, filed_through};
use super::identities::IdentityLog;
use super::prune::stub;
use super::query::unsigned;
use super::recover::marked_seq;
use super::row::number;
use super::{Store, StoreError, findings};
use crate::evidence::{Evidence, Report, Walk};

/// Rows that are looked at before a glance is thought to be enough again.
const PAGE: i64 = 2000;
/// Pages that are read ahead of the check.
const AHEAD: usize = 2;
/// Kinds of findings that a bit of the column can stand for.
const FINDING_KINDS: i64 = 32;
/// Numbers of decisions with a finding that are compared in one go.
const FOUND_PAGE: usize = 20_000;

impl Store {
    /// Verifies the whole chain by what lies in the data folder: `audit.pub` and `checkpoints.jsonl`.
    ///
    /// # Errors
    /// As for [`Store::verify_against`].
    #[cfg(test)]
    pub(crate) async fn verify(&self) -> Result<Report, StoreError> {
        let keys = crate::signing::public_keys(self.data_dir()).unwrap_or_default();
        let kept = self.data_dir().join(crate::config::CHECKPOINT_FILE);
        let checkpoints = crate::evidence::read_checkpoints(&kept).unwrap_or_default();
        self.verify_against(&Evidence { keys, checkpoints }, |_| {}).await
    }

    /// Verifies the whole chain. `progress` is told now and then how many records were checked.
    ///
    /// # Errors
    /// A store that cannot be read. A chain that is not intact is not an error, but the report's answer.
    pub async fn verify_against(
        &self,
        evidence: &Evidence,
        mut progress: impl FnMut(u64),
    ) -> Result<Report, StoreError> {
        // All is read as it stands at one moment, whatever a gateway writes or drops meanwhile.
        let mut snapshot = self.readers().begin().await?;
        let mut check = match begin(&mut snapshot, evidence).await? {
            Ok(check) => check,
            Err(bad) => return Ok(Report::bad_from_the_start(&bad)),
        };
        check.filed = filed_through(&mut snapshot).await?;
        let bad = loop {
            let (walked, odd) = walk(&mut snapshot, check, &mut progress).await?;
            check = walked;
            match odd {
                None => break beside(&mut snapshot, &mut check).await?,
                Some(Odd::Bad(bad)) => break Some(bad),
                Some(Odd::Look) => {
                    if let Some(bad) = look(&mut snapshot, &mut check).await? {
                        break Some(bad);
                    }
                }
            }
        };
        Ok(check.walk.report(bad.as_ref()))
    }
}

/// Reads on to the end of the records, and checks them on the way, as far as nothing is odd.
async fn walk(
    snapshot: &mut SqliteConnection,
    mut check: Check,
    progress: &mut impl FnMut(u64),
) -> Result<(Check, Option<Odd>), StoreError> {
    let mut after = check.walk.head().seq;
    let (pages, mut read) = mpsc::channel::<Page>(AHEAD);
    let (checked, mut counts) = mpsc::unbounded_channel();
    // Reading and checking take about as long, so each has a thread.
    let checking = tokio::task::spawn_blocking(move || {
        let mut odd = None;
        while let Some(page) = read.blocking_recv() {
            odd = check.page(&page).err();
            if odd.is_some() {
                break;
            }
            // Nobody listens once the reading has failed.
            let _ = checked.send(check.walk.records());
        }
        (check, odd)
    });
    while let Some(page) = glance::read(snapshot, after).await? {
        after = page.last.max(after + 1);
        // The check ends early where something is odd.
        if pages.send(page).await.is_err() {
            break;
        }
        while let Ok(count) = counts.try_recv() {
            progress(count);
        }
    }
    drop(pages);
    checking.await.map_err(|error| StoreError::Read(sqlx::Error::Io(std::io::Error::other(error))))
}

/// Where the records begin: at the beginning of the chain, or after what the signed stub stands for.
async fn begin(
    snapshot: &mut SqliteConnection,
    evidence: &Evidence,
) -> Result<Result<Check, BadRecord>, StoreError> {
    let first = first_seq(snapshot).await?;
    let start = match stub(snapshot).await? {
        Ok(None) => Head::GENESIS,
        Ok(Some(stub)) => match evidence.believe(&stub.anchor(), Purpose::Pruned) {
            Ok(head) => head,
            Err(why) => return Ok(Err(BadRecord { seq: first, problem: Problem::Stub(why.as_str()) })),
        },
        Err(problem) => return Ok(Err(BadRecord { seq: first, problem })),
    };
    if first != 0 && first <= start.seq {
        return Ok(Err(BadRecord { seq: first, problem: Problem::OutOfOrder { expected: start.seq + 1 } }));
    }
    Ok(Walk::after(start, evidence).map(Check::new))
}

/// The first record there is; 0 where there is none.
async fn first_seq(snapshot: &mut SqliteConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT coalesce(min(seq), 0) AS seq FROM records").fetch_one(snapshot).await?;
    unsigned(&row, "seq")
}

/// Looks at the next rows themselves. One by one, since nobody knows how large they are.
async fn look(snapshot: &mut SqliteConnection, check: &mut Check) -> Result<Option<BadRecord>, StoreError> {
    let mut rows = sqlx::query("SELECT * FROM records WHERE seq > $1 ORDER BY seq LIMIT $2")
        .bind(number(check.walk.head().seq))
        .bind(PAGE)
        .fetch(snapshot);
    while let Some(row) = rows.try_next().await? {
        if let Err(bad) = check.row(&row)? {
            return Ok(Some(bad));
        }
    }
    Ok(None)
}

/// What the records alone do not show: that the end is there, and that nothing beside them says something else.
async fn beside(snapshot: &mut SqliteConnection, check: &mut Check) -> Result<Option<BadRecord>, StoreError> {
    let row =
        sqlx::query("SELECT value FROM meta WHERE name = 'mark'").fetch_optional(&mut *snapshot).await?;
    let noted = row.and_then(|row| marked_seq(row.get("value")));
    if let Err(bad) = check.walk.finish(noted) {
        return Ok(Some(bad));
    }
    // What was filed had been written; and what comes after a note of more than there is would not be found.
    if let Err(bad) = check.walk.finish(Some(check.filed)) {
        return Ok(Some(bad));
    }
    if let Some(bad) = check.left_over() {
        return Ok(Some(bad));
    }
    if let Some(bad) = found_differs(snapshot, check).await? {
        return Ok(Some(bad));
    }
    if let Some(bad) = policies_differ(snapshot, check).await? {
        return Ok(Some(bad));
    }
    check.identities.differs(snapshot, check.start, check.walk.head().seq).await
}

/// The table that findings are looked up in, against those that the records have.
async fn found_differs(
    snapshot: &mut SqliteConnection,
    check: &mut Check,
) -> Result<Option<BadRecord>, StoreError> {
    let last = check.walk.head().seq;
    let problem = Problem::Table("found", "it has other decisions than those with findings".to_owned());
    for kind in 0..FINDING_KINDS {
        let mut expected = check.found.remove(&kind).unwrap_or_default();
        expected.sort_unstable();
        let mut expected = expected.chunks(FOUND_PAGE);
        let mut after = check.start;
        loop {
            let row = sqlx::query(
                "SELECT coalesce(group_concat(seq), '') AS seqs, coalesce(max(seq), 0) AS last FROM \
                 (SELECT seq FROM found WHERE kind = $1 AND seq > $2 ORDER BY seq LIMIT $3)",
            )
            .bind(kind)
            .bind(number(after))
            .bind(number(FOUND_PAGE as u64))
            .fetch_one(&mut *snapshot)
            .await?;
            let seqs: &str = row.try_get("seqs")?;
            let seqs: Vec<u64> = seqs.split(',').filter_map(|seq| seq.parse().ok()).collect();
            if expected.next().unwrap_or_default() != seqs {
                return Ok(Some(BadRecord { seq: last, problem }));
            }
            if seqs.is_empty() {
                break;
            }
            after = unsigned(&row, "last")?;
        }
    }
    Ok(None)
}

/// The texts of policies, against the digests that decisions and events name.
async fn policies_differ(
    snapshot: &mut SqliteConnection,
    check: &Check,
) -> Result<Option<BadRecord>, StoreError> {
    for row in sqlx::query("SELECT digest, text FROM policies").fetch_all(snapshot).await? {
        let (digest, text): (&str, &str) = (row.try_get("digest")?, row.try_get("text")?);
        if policy_digest(text) != digest {
            let problem = Problem::Table("policies", format!("the policy `{digest}`"));
            return Ok(Some(BadRecord { seq: check.walk.head().seq, problem }));
        }
    }
    Ok(None)
}

fn policy_digest(text: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    format!("sha256:{}", policy::anchor::to_hex(&digest))
}

/// A decision whose outcome has not been seen.
struct Open {
    id: Ulid,
    action: Action,
    reason: Reason,
    findings: i64,
    /// What the columns say was done in the end, where that is not what was decided.
    last: Option<(String, String)>,
}

impl Open {
    /// Whether the columns say what an outcome says was done in the end.
    fn has_last_word(&self, action: Action, reason: Reason) -> bool {
        let own = || (self.action.as_str(), self.reason.as_str());
        let said = self.last.as_ref().map_or_else(own, |(action, reason)| (action, reason));
        said == (action.as_str(), reason.as_str())
    }
}

/// The chain so far, and what later records and the tables beside it have to confirm.
struct Check {
    walk: Walk,
    start: u64,
    /// The record up to which the indexes know everything.
    filed: u64,
    open: HashMap<u64, Open>,
    /// Of each kind of finding the numbers of the decisions that have it.
    found: HashMap<i64, Vec<u64>>,
    identities: IdentityLog,
}

impl Check {
    fn new(walk: Walk) -> Check {
        Check {
            start: walk.head().seq,
            walk,
            filed: 0,
            open: HashMap::new(),
            found: HashMap::new(),
            identities: IdentityLog::default(),
        }
    }

    fn row(&mut self, row: &SqliteRow) -> Result<Result<(), BadRecord>, StoreError> {
        let seq = unsigned(row, "seq")?;
        let found = Found {
            seq,
            kind: row.try_get("kind")?,
            canonical: row.try_get("record")?,
            hash: row.try_get("hash")?,
        };
        let record = match self.walk.feed(found) {
            Ok(record) => record,
            Err(bad) => return Ok(Err(bad)),
        };
        let odd = match &record {
            Record::Decision(decision) => self.decision(row, seq, decision)?,
            Record::Outcome(outcome) => match self.outcome(row, outcome)? {
                Ok(odd) => odd,
                Err(bad) => return Ok(Err(bad)),
            },
            Record::Event(event) => {
                self.identities.event(seq, event);
                event_columns(row, event.time)
            }
        };
        Ok(match odd {
            Some(column) => Err(BadRecord { seq, problem: Problem::Column(column) }),
            None => Ok(()),
        })
    }

    fn decision(
        &mut self,
        row: &SqliteRow,
        seq: u64,
        decision: &Decision,
    ) -> Result<Option<&'static str>, StoreError> {
        let findings = findings::bits(&decision.findings);
        self.count(findings, seq);
        let last: (&str, &str) = (row.try_get("action")?, row.try_get("reason")?);
        self.open.insert(
            seq,
            Open {
                id: decision.id,
                action: decision.action,
                reason: decision.reason,
                findings,
                last: (last != (decision.action.as_str(), decision.reason.as_str()))
                    .then(|| (last.0.to_owned(), last.1.to_owned())),
            },
        );
        let host = decision.host.as_ref().map(|host| host.as_str());
        let domain = decision.domain.as_ref().map(|domain| domain.as_str());
        let session = decision.session.map(|session| session.to_string());
        let odd = [
            text_differs(row, "id", Some(&decision.id.to_string())),
            text_differs(row, "session", session.as_deref()),
            text_differs(row, "agent", Some(decision.agent.as_str())),
            text_differs(row, "class", Some(decision.class.as_str())),
            text_differs(row, "host", host),
            text_differs(row, "domain", domain),
            number_differs(row, "time", Some(decision.time)),
            number_differs(row, "decision", None),
            number_differs(row, "findings", Some(findings)),
            number_differs(row, "bytes", None),
            (!self.is_found(seq, row.try_get("fresh").ok())).then_some("fresh"),
        ];
        Ok(odd.into_iter().flatten().next())
    }

    /// The column of an outcome that says something else; or its decision, where that has another last word.
    fn outcome(
        &mut self,
        row: &SqliteRow,
        outcome: &Outcome,
    ) -> Result<Result<Option<&'static str>, BadRecord>, StoreError> {
        let decision = row.try_get::<Option<i64>, _>("decision")?.and_then(|seq| u64::try_from(seq).ok());
        let findings = findings::bits(&outcome.findings);
        let names_another = match (decision, decision.and_then(|seq| self.open.remove(&seq))) {
            (Some(seq), Some(open)) => {
                self.count(findings & !open.findings, seq);
                if !open.has_last_word(outcome.action, outcome.reason) {
                    return Ok(Err(BadRecord { seq, problem: Problem::Column("action") }));
                }
                open.id != outcome.decision
            }
            // Of a decision that was pruned nothing is left to compare with; one that was not is still open.
            (Some(seq), None) => {
                seq > self.start || seq == 0 || self.open.values().any(|open| open.id == outcome.decision)
            }
            (None, _) => true,
        };
        let odd = [
            names_another.then_some("decision"),
            number_differs(row, "time", Some(outcome.time)),
            number_differs(row, "findings", Some(findings)),
            number_differs(row, "bytes", Some(number(outcome.request_bytes))),
            number_differs(row, "fresh", None),
            first_filled(row, &["id", "session", "agent", "class", "host", "domain", "action", "reason"]),
        ];
        Ok(Ok(odd.into_iter().flatten().next()))
    }

    /// Whether searches find a decision: by the indexes, or by looking through what comes after all that is filed.
    fn is_found(&self, seq: u64, fresh: Option<Option<i64>>) -> bool {
        match fresh {
            Some(None) => true,
            Some(Some(FRESH)) => seq > self.filed,
            _ => false,
        }
    }

    /// A decision without outcome, whose columns say something else than it does.
    fn left_over(&self) -> Option<BadRecord> {
        let seq = self.open.iter().filter(|(_, open)| open.last.is_some()).map(|(seq, _)| *seq).min()?;
        Some(BadRecord { seq, problem: Problem::Column("action") })
    }

    fn count(&mut self, findings: i64, seq: u64) {
        let mut left = findings;
        while left != 0 {
            let kind = i64::from(left.trailing_zeros());
            left &= left - 1;
            self.found.entry(kind).or_default().push(seq);
        }
    }
}

fn event_columns(row: &SqliteRow, time: i64) -> Option<&'static str> {
    let odd = [
        number_differs(row, "time", Some(time)),
        number_differs(row, "decision", None),
        number_differs(row, "findings", None),
        number_differs(row, "bytes", None),
        number_differs(row, "fresh", None),
        first_filled(row, &["id", "session", "agent", "class", "host", "domain", "action", "reason"]),
    ];
    odd.into_iter().flatten().next()
}

fn first_filled(row: &SqliteRow, columns: &[&'static str]) -> Option<&'static str> {
    columns.iter().find_map(|column| text_differs(row, column, None))
}

/// The column, where it says something else. What is no text, or none in UTF-8, does so, too.
fn text_differs(row: &SqliteRow, column: &'static str, expected: Option<&str>) -> Option<&'static str> {
    let found: Result<Option<&str>, _> = row.try_get(column);
    (!found.is_ok_and(|found| found == expected)).then_some(column)
}

fn number_differs(row: &SqliteRow, column: &'static str, expected: Option<i64>) -> Option<&'static str> {
    let found: Result<Option<i64>, _> = row.try_get(column);
    (!found.is_ok_and(|found| found == expected)).then_some(column)
}

#[cfg(test)]
mod tests {
    use policy::event::Happening;

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
        let report = store.verify_against(&Evidence::default(), |records| seen = records).await.unwrap();
        assert_eq!((report.intact, report.records, report.checkpoints), (true, 5, 0), "{report:?}");
        assert!(seen <= 5);
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
            ("UPDATE records SET action = 'allow', reason = 'allowed_by_rule' WHERE seq = 1", 1, "`action`"),
            ("UPDATE records SET reason = 'secret_found', action = 'deny' WHERE seq = 3", 3, "`action`"),
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
            let report = store.verify().await.unwrap();
            let bad = report.first_bad.unwrap_or_else(|| panic!("not noticed: {damage}"));
            assert_eq!(bad.seq, seq, "{damage}: {}", bad.problem);
            assert!(bad.problem.contains(expected), "{damage}: {}", bad.problem);
            assert!(!report.intact);
        }
    }

    #[tokio::test]
    async fn what_is_wrong_early_in_a_large_store_is_named_and_at_once() {
        let cases: [(&'static str, u64); 4] = [
            ("UPDATE records SET host = 'c.example' WHERE seq IN (7, 9)", 7),
            ("DELETE FROM records WHERE seq = 7", 8),
            ("UPDATE records SET action = 'deny' WHERE seq = 7", 7),
            ("UPDATE records SET host = host || char(0) || 'x' WHERE seq = 7", 7),
        ];
        let folder = Folder::new();
        let Opened { mut writer, .. } = folder.open().await;
        for _ in 0..PAGE * 5 / 1000 {
            let exchange = |_| {
                let decision = decision("a.example");
                [Entry::decision(&decision), Entry::outcome(&outcome(&decision))]
            };
            writer.commit(&(0..500).flat_map(exchange).collect::<Vec<_>>()).await.unwrap();
        }
        writer.close().await;
        let whole = std::fs::read(folder.database()).unwrap();
        for (damage, seq) in cases {
            std::fs::write(folder.database(), &whole).unwrap();
            folder.execute(damage).await;
            let store = Store::open_read_only(folder.path()).await.unwrap();
            let report = tokio::time::timeout(std::time::Duration::from_secs(20), store.verify()).await;
            let bad = report
                .expect("it ends")
                .unwrap()
                .first_bad
                .unwrap_or_else(|| panic!("not noticed: {damage}"));
            assert_eq!(bad.seq, seq, "{damage}: {}", bad.problem);
        }
    }
}
