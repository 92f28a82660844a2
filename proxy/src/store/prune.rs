//! Dropping the oldest records: the chain goes on from a signed stub that says where what is left begins.
//!
//! That records are to be dropped is itself a record, committed first. Then they go in steps, each one transaction that
//! moves the stub along, so that however the process ends, what is left follows on the stub.

use std::sync::Arc;

use policy::anchor::{Anchor, Purpose};
use policy::chain::{BadRecord, Found, Hash, Head, Problem, Verifier};
use policy::identity::SessionId;
use policy::record::{Happening, Record};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::query::first_since;
use super::row::number;
use super::{CommitError, Store, StoreError, Writer, set_meta};
use crate::signing::Signer;

/// Records looked at before the first decision of a time, for outcomes and events of that time.
const LOOK_BACK: i64 = 10_000;
/// A store that is too large is cut to this share of what it may hold, so that it is not cut again at once.
const SHARE: f64 = 0.9;
/// Free pages are given back to the disk where they are more than one in so many.
const WORTH_SHRINKING: i64 = 5;
/// Pages given back in a step.
const SHRINK: u32 = 32;

/// What is to be dropped; never what is still open, or came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Records from before this time, in microseconds since the Unix epoch.
    Before(i64),
    /// As many as the store is too large by, in bytes.
    Above(u64),
}

/// What is going to be dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrunePlan {
    /// Number of the last record that goes.
    pub through: u64,
    /// Its hash.
    #[serde(skip)]
    pub hash: Hash,
    /// How many go.
    pub records: u64,
}

impl PrunePlan {
    /// What the chain says of it.
    pub fn happening(&self) -> Happening {
        Happening::Pruned { through: self.through, hash: self.hash.to_string().into(), records: self.records }
    }
}

/// What stands for all that was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stub {
    /// Hash of the last record dropped, in hexadecimal.
    hash: Arc<str>,
    key: Arc<str>,
    /// How many records were dropped in all.
    pub records: u64,
    signature: Arc<str>,
    /// Number of the last record dropped.
    pub through: u64,
    time: i64,
}

impl Stub {
    fn new(anchor: Anchor) -> Stub {
        let Anchor { hash, key, signature, through, time } = anchor;
        Stub { hash, key, records: through, signature, through, time }
    }

    /// The signed point.
    pub fn anchor(&self) -> Anchor {
        Anchor {
            hash: Arc::clone(&self.hash),
            key: Arc::clone(&self.key),
            signature: Arc::clone(&self.signature),
            through: self.through,
            time: self.time,
        }
    }

    async fn write(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let value = serde_json::to_string(self).map_err(|error| sqlx::Error::Encode(error.into()))?;
        set_meta(connection, "pruned", &value).await
    }
}

impl Store {
    /// The stub that the records follow on; `None` where nothing was dropped yet.
    ///
    /// # Errors
    /// A store that cannot be read, or whose stub is none.
    pub async fn stub(&self) -> Result<Option<Stub>, StoreError> {
        let stub = stub(&mut *self.readers().acquire().await?).await?;
        stub.map_err(|problem| StoreError::Row(BadRecord { seq: 0, problem }))
    }

    /// Bytes that records and their indexes take up, free pages left out.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn bytes(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(BYTES).fetch_one(&self.readers()).await?;
        super::query::unsigned(&row, "bytes")
    }
}

const BYTES: &str = "SELECT (page_count - freelist_count) * page_size AS bytes \
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size";

impl Writer {
    /// Where a pruning shall end that was begun and is not over.
    pub fn unfinished_prune(&self) -> Option<u64> {
        self.prune
    }

    /// What a cut would drop now; `None` where that is nothing.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn plan_prune(&mut self, cut: Cut) -> Result<Option<PrunePlan>, CommitError> {
        let Some(first) = self.first().await? else { return Ok(None) };
        let through = match cut {
            Cut::Before(time) => last_before(&mut self.connection, self.head.seq, time).await?,
            Cut::Above(bytes) => self.last_above(first, bytes).await?,
        };
        // What is open needs its decision.
        let open = self.open.values().map(|open| open.seq).min().unwrap_or(u64::MAX);
        let through = through.min(open - 1).min(self.head.seq);
        if through < first {
            return Ok(None);
        }
        let hash = self.hash_of(through).await?;
        Ok(Some(PrunePlan { through, hash, records: through + 1 - first }))
    }

    /// Drops up to `records` of the oldest records, none after `through`, and signs the stub that stands for them.
    /// `true` once there is nothing left to do.
    ///
    /// # Errors
    /// Nothing was dropped.
    pub async fn prune_step(
        &mut self,
        through: u64,
        records: u64,
        signer: &Signer,
    ) -> Result<bool, CommitError> {
        let step = self.drop_oldest(through, records, signer).await;
        if step.is_err() {
            // Where this fails, too, the next commit does, and is settled.
            let _ = self.renew().await;
        }
        step
    }

    async fn drop_oldest(
        &mut self,
        through: u64,
        records: u64,
        signer: &Signer,
    ) -> Result<bool, CommitError> {
        let open = self.open.values().map(|open| open.seq).min().unwrap_or(u64::MAX);
        let through = through.min(open - 1).min(self.head.seq);
        // Read within the transaction: a command may be pruning beside the gateway.
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let start = stub_head(&mut transaction).await?;
        let rows =
            sqlx::query("SELECT seq, kind, record, hash FROM records WHERE seq <= $1 ORDER BY seq LIMIT $2")
                .bind(number(through))
                .bind(number(records))
                .fetch_all(&mut *transaction)
                .await?;
        let Some(last) = rows.last() else {
            drop(transaction);
            return self.shrink().await;
        };
        let last = seq(last)?;
        // A stub vouches for what it stands for: what was tampered with is not signed away.
        let (head, ended) = linked(start, &rows).map_err(CommitError::Foreign)?;
        sqlx::query("DELETE FROM records WHERE seq <= $1")
            .bind(number(last))
            .execute(&mut *transaction)
            .await?;
        for session in &ended {
            forget(&mut transaction, *session).await?;
        }
        Stub::new(signer.sign(Purpose::Pruned, head)).write(&mut transaction).await?;
        transaction.commit().await?;
        self.log_grew(rows.len() as u64);
        Ok(false)
    }

    /// Gives free pages back to the disk, some at a time; then the pruning is over.
    async fn shrink(&mut self) -> Result<bool, CommitError> {
        let row =
            sqlx::query("SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count")
                .fetch_one(&mut self.connection)
                .await?;
        let (pages, free): (i64, i64) = (row.try_get("page_count")?, row.try_get("freelist_count")?);
        if free > i64::from(SHRINK) && free > pages / WORTH_SHRINKING {
            let shrink = format!("PRAGMA incremental_vacuum({SHRINK})");
            sqlx::query(AssertSqlSafe(shrink)).execute(&mut self.connection).await?;
            let left = sqlx::query("SELECT freelist_count FROM pragma_freelist_count")
                .fetch_one(&mut self.connection)
                .await?
                .try_get::<i64, _>("freelist_count")?;
            // A database that was made without the means to shrink goes on using its free pages itself.
            if left < free {
                return Ok(false);
            }
        }
        sqlx::query("DELETE FROM meta WHERE name = 'prune'").execute(&mut self.connection).await?;
        self.prune = None;
        Ok(true)
    }

    async fn first(&mut self) -> Result<Option<u64>, CommitError> {
        let row = sqlx::query("SELECT seq FROM records ORDER BY seq LIMIT 1")
            .fetch_optional(&mut self.connection)
            .await?;
        Ok(row.as_ref().map(seq).transpose()?)
    }

    async fn hash_of(&mut self, seq: u64) -> Result<Hash, CommitError> {
        let row = sqlx::query("SELECT hash FROM records WHERE seq = $1")
            .bind(number(seq))
            .fetch_one(&mut self.connection)
            .await?;
        let altered = CommitError::Foreign(BadRecord { seq, problem: Problem::Altered });
        Hash::from_bytes(row.try_get("hash")?).ok_or(altered)
    }

    /// The record through which as many bytes are as the store has too many, by the size of the average record.
    async fn last_above(&mut self, first: u64, bytes: u64) -> Result<u64, CommitError> {
        let row = sqlx::query(BYTES).fetch_one(&mut self.connection).await?;
        let has = u64::try_from(row.try_get::<i64, _>("bytes")?).unwrap_or(0);
        let records = self.head.seq + 1 - first;
        if has <= bytes || records == 0 {
            return Ok(0);
        }
        let average = has as f64 / records as f64;
        let surplus = (has as f64 - bytes as f64 * SHARE) / average;
        // Rounds down; never negative.
        Ok(first + surplus as u64)
    }
}

/// Holds records that are to go against the chain. Gives the last of them, and the sessions whose end is among them.
fn linked(start: Head, rows: &[SqliteRow]) -> Result<(Head, Vec<SessionId>), BadRecord> {
    let mut verifier = Verifier::after(start);
    let mut ended = Vec::new();
    for row in rows {
        let unreadable = |_| BadRecord { seq: verifier.head().seq + 1, problem: Problem::Unreadable };
        let found = Found {
            seq: seq(row).map_err(unreadable)?,
            kind: row.try_get("kind").map_err(unreadable)?,
            canonical: row.try_get("record").map_err(unreadable)?,
            hash: row.try_get("hash").map_err(unreadable)?,
        };
        if found.kind != "event" {
            verifier.link(&found)?;
        } else if let Record::Event(event) = verifier.feed(found)?
            && let Happening::SessionEnded { session, .. } = event.what
        {
            ended.push(session);
        }
    }
    Ok((verifier.head(), ended))
}

/// A session whose end is no longer on record, and what its tokens were.
async fn forget(connection: &mut SqliteConnection, session: SessionId) -> Result<(), sqlx::Error> {
    for statement in [
        "DELETE FROM sessions WHERE id = $1 AND ended IS NOT NULL",
        "DELETE FROM tokens WHERE session = $1 AND ends IS NOT NULL",
    ] {
        sqlx::query(statement).bind(session.to_string()).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The last record of which it and all before it are older than `time`, in a chain of `records` records.
pub(super) async fn last_before(
    connection: &mut SqliteConnection,
    records: u64,
    time: i64,
) -> Result<u64, sqlx::Error> {
    let decision = first_since(connection, time).await?.unwrap_or(records + 1);
    // Outcomes and events of that time that came before its first decision stay, too.
    let row = sqlx::query(
        "SELECT min(seq) AS seq FROM \
         (SELECT seq, time FROM records WHERE seq < $1 ORDER BY seq DESC LIMIT $2) WHERE time >= $3",
    )
    .bind(number(decision))
    .bind(LOOK_BACK)
    .bind(time)
    .fetch_one(connection)
    .await?;
    let first = row.try_get::<Option<i64>, _>("seq")?.and_then(|seq| u64::try_from(seq).ok());
    Ok(first.unwrap_or(decision).saturating_sub(1))
}

/// Notes where a pruning shall end, so that the next start goes on with it. Of two the farther one counts, as far as the
/// chain knows of it.
pub(super) fn note_target(connection: &Connection, through: u64) -> rusqlite::Result<()> {
    let note = "INSERT INTO meta (name, value) VALUES ('prune', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1 \
         WHERE NOT (CAST(value AS INTEGER) > CAST(?1 AS INTEGER) AND EXISTS (SELECT 1 FROM records \
         WHERE kind = 'event' AND instr(record, '\"event\":\"pruned\"') > 0 \
         AND instr(record, '\"through\":' || value || ',') > 0))";
    connection.execute(note, [through.to_string()]).map(drop)
}

/// What [`note_target`] noted, where the chain says so, too: nothing is dropped by a note alone.
pub(super) async fn target(connection: &mut SqliteConnection) -> Result<Option<u64>, sqlx::Error> {
    let row =
        sqlx::query("SELECT value FROM meta WHERE name = 'prune'").fetch_optional(&mut *connection).await?;
    let Some(through) = row.and_then(|row| row.get::<&str, _>("value").parse::<u64>().ok()) else {
        return Ok(None);
    };
    let told = sqlx::query(
        "SELECT 1 FROM records WHERE kind = 'event' AND instr(record, '\"event\":\"pruned\"') > 0 \
         AND instr(record, $1) > 0 LIMIT 1",
    )
    .bind(format!("\"through\":{through},"))
    .fetch_optional(connection)
    .await?;
    Ok(told.map(|_| through))
}

/// As [`Store::stub`], as a connection sees it; what is wrong with one that is none.
pub(super) async fn stub(
    connection: &mut SqliteConnection,
) -> Result<Result<Option<Stub>, Problem>, sqlx::Error> {
    let row = sqlx::query("SELECT value FROM meta WHERE name = 'pruned'").fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(Ok(None)) };
    let stub = serde_json::from_str(row.try_get("value")?);
    Ok(stub.map(Some).map_err(|_| Problem::Stub("it cannot be read")))
}

/// Where the records begin, as the stub says; the beginning of the chain where there is none.
pub(super) async fn stub_head(connection: &mut SqliteConnection) -> Result<Head, sqlx::Error> {
    let row = sqlx::query("SELECT value FROM meta WHERE name = 'pruned'").fetch_optional(connection).await?;
    let stub = row.and_then(|row| serde_json::from_str::<Stub>(row.get("value")).ok());
    Ok(stub.and_then(|stub| stub.anchor().head()).unwrap_or(Head::GENESIS))
}

fn seq(row: &SqliteRow) -> Result<u64, sqlx::Error> {
    let seq: i64 = row.try_get("seq")?;
    Ok(u64::try_from(seq).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use policy::event::Event;
    use policy::record::Finding;

    use super::*;
    use crate::clock;
    use crate::store::query::Filter;
    use crate::store::tests::{Folder, decision, outcome};
    use crate::store::{Entry, Opened};

    const SECOND: i64 = 1_000_000;

    /// Ten exchanges, the older half from an hour ago.
    async fn aged(folder: &Folder) -> (Store, Writer, Arc<Signer>) {
        let Opened { store, mut writer, .. } = folder.open().await;
        let mut entries = Vec::new();
        for number in 0..10 {
            let mut decision = decision("a.example");
            if number < 5 {
                decision.time -= 3600 * SECOND;
                decision.id = clock::ulid(decision.time);
                decision.findings = vec![Finding::GitPush];
            }
            let mut outcome = outcome(&decision);
            outcome.time = decision.time + 1000;
            entries.extend([Entry::decision(&decision), Entry::outcome(&outcome)]);
        }
        writer.commit(&entries).await.unwrap();
        (store, writer, Signer::open(folder.path()).unwrap())
    }

    async fn prune(writer: &mut Writer, cut: Cut, signer: &Signer, step: u64) -> Option<PrunePlan> {
        let plan = writer.plan_prune(cut).await.unwrap()?;
        let event = Event { time: clock::now(), by: None, what: plan.happening() };
        writer.commit(&[Entry::pruned(&event, plan.through)]).await.unwrap();
        while !writer.prune_step(plan.through, step, signer).await.unwrap() {}
        Some(plan)
    }

    #[tokio::test]
    async fn what_is_older_goes_and_what_is_left_follows_on_the_stub() {
        let folder = Folder::new();
        let (store, mut writer, signer) = aged(&folder).await;
        let before = Cut::Before(clock::now() - 60 * SECOND);
        let plan = prune(&mut writer, before, &signer, 3).await.unwrap();
        assert_eq!((plan.through, plan.records), (10, 10));
        assert_eq!(store.stub().await.unwrap().unwrap().through, 10);
        let report = store.verify().await.unwrap();
        assert_eq!((report.first_bad, report.records, report.after), (None, 11, 10));
        let with_findings = Filter { finding: Some("git_push".into()), ..Filter::default() };
        assert!(store.decisions(&with_findings).await.unwrap().is_empty());
        assert_eq!(prune(&mut writer, before, &signer, 3).await, None, "nothing is older now");
        writer.close().await;
        drop(store);

        let Opened { store, mut writer, .. } = folder.open().await;
        writer.commit(&[Entry::decision(&decision("b.example"))]).await.unwrap();
        assert_eq!(store.verify().await.unwrap().first_bad, None, "and after a restart");
    }

    #[tokio::test]
    async fn an_end_in_the_middle_of_it_leaves_a_whole_chain_and_the_next_start_goes_on() {
        let folder = Folder::new();
        let (store, mut writer, signer) = aged(&folder).await;
        let plan = writer.plan_prune(Cut::Before(clock::now() - 60 * SECOND)).await.unwrap().unwrap();
        let event = Event { time: clock::now(), by: None, what: plan.happening() };
        writer.commit(&[Entry::pruned(&event, plan.through)]).await.unwrap();
        assert!(!writer.prune_step(plan.through, 4, &signer).await.unwrap());
        drop((store, writer));

        let Opened { store, writer, .. } = folder.open().await;
        assert_eq!(store.verify().await.unwrap().first_bad, None);
        assert_eq!(writer.unfinished_prune(), Some(10));
    }

    #[tokio::test]
    async fn what_is_open_and_what_comes_after_it_stays() {
        let folder = Folder::new();
        let Opened { mut writer, .. } = folder.open().await;
        let open = decision("open.example");
        let ended = decision("ended.example");
        let entries = [&ended, &open, &decision("later.example")].map(Entry::decision).to_vec();
        writer.commit(&entries).await.unwrap();
        writer.commit(&[Entry::outcome(&outcome(&ended))]).await.unwrap();
        let plan = writer.plan_prune(Cut::Before(i64::MAX)).await.unwrap().unwrap();
        assert_eq!(plan.through, 1, "the second is open");
    }

    #[tokio::test]
    async fn a_store_that_is_too_large_loses_its_oldest_records() {
        let folder = Folder::new();
        let (store, mut writer, signer) = aged(&folder).await;
        for _ in 0..40 {
            let entries: Vec<Entry> = (0..50)
                .flat_map(|_| {
                    let decision = decision("a.example");
                    [Entry::decision(&decision), Entry::outcome(&outcome(&decision))]
                })
                .collect();
            writer.commit(&entries).await.unwrap();
        }
        let bytes = store.bytes().await.unwrap();
        assert_eq!(prune(&mut writer, Cut::Above(bytes + 4096), &signer, 100).await, None);
        let plan = prune(&mut writer, Cut::Above(bytes / 2), &signer, 100).await.unwrap();
        let left = store.bytes().await.unwrap();
        assert!(left <= bytes / 2 && left > bytes / 4, "{bytes} became {left} by {plan:?}");
        assert_eq!(store.verify().await.unwrap().first_bad, None);
        writer.close().await;
        let file = std::fs::metadata(folder.database()).unwrap().len();
        assert!(file < bytes * 9 / 10 + 65536, "the disk has {file} of {bytes} back");
    }

    #[tokio::test]
    async fn a_stub_that_was_touched_is_named() {
        let cases: [(&'static str, u64, &str); 5] = [
            ("DELETE FROM meta WHERE name = 'pruned'", 11, "records from 1"),
            (
                "UPDATE meta SET value = replace(value, '\"through\":10', '\"through\":9') WHERE name = 'pruned'",
                11,
                "its signature does not fit",
            ),
            ("UPDATE meta SET value = 'x' WHERE name = 'pruned'", 11, "it cannot be read"),
            ("DELETE FROM records WHERE seq = 11", 12, "records from 11"),
            ("UPDATE records SET seq = 10 WHERE seq = 11", 10, "out of order"),
        ];
        for (damage, seq, expected) in cases {
            let folder = Folder::new();
            let (store, mut writer, signer) = aged(&folder).await;
            prune(&mut writer, Cut::Before(clock::now() - 60 * SECOND), &signer, 100).await.unwrap();
            folder.execute(damage).await;
            let bad =
                store.verify().await.unwrap().first_bad.unwrap_or_else(|| panic!("not noticed: {damage}"));
            assert_eq!(bad.seq, seq, "{damage}: {}", bad.problem);
            assert!(bad.problem.contains(expected), "{damage}: {}", bad.problem);
        }
    }

    #[tokio::test]
    async fn a_note_alone_drops_nothing() {
        for target in ["7", "9000000000000000000"] {
            let folder = Folder::new();
            let (store, writer, _) = aged(&folder).await;
            drop((store, writer));
            let mut stranger = folder.stranger().await;
            sqlx::query("INSERT INTO meta VALUES ('prune', $1)")
                .bind(target)
                .execute(&mut stranger)
                .await
                .unwrap();
            let Opened { writer, .. } = folder.open().await;
            assert_eq!(writer.unfinished_prune(), None, "{target}");
        }
    }

    #[tokio::test]
    async fn what_was_tampered_with_is_not_signed_away() {
        for (damage, seq) in [
            ("DELETE FROM records WHERE seq <= 3", 4),
            ("DELETE FROM records WHERE seq = 5", 6),
            ("UPDATE records SET record = replace(record, 'a.example', 'b.example') WHERE seq = 3", 3),
        ] {
            let folder = Folder::new();
            let (store, mut writer, signer) = aged(&folder).await;
            folder.execute(damage).await;
            let error = writer.prune_step(10, 100, &signer).await.unwrap_err();
            assert!(matches!(&error, CommitError::Foreign(bad) if bad.seq == seq), "{damage}: {error}");
            assert_eq!(store.stub().await.unwrap(), None, "{damage}");
            writer.commit(&[Entry::decision(&decision("c.example"))]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn two_who_prune_at_once_leave_one_whole_chain() {
        let folder = Folder::new();
        let (store, mut gateway, signer) = aged(&folder).await;
        let (_, mut command) = Store::open_beside(folder.path()).await.unwrap();
        for through in [4, 8, 6, 10] {
            while !gateway.prune_step(through, 3, &signer).await.unwrap() {
                command.prune_step(through - 1, 2, &signer).await.unwrap();
            }
        }
        assert_eq!(store.stub().await.unwrap().unwrap().through, 10);
        assert_eq!(store.verify().await.unwrap().first_bad, None);
    }
}
