//! The one that appends to the chain: numbers and hashes advance on commit, never before.
//!
//! A command may append beside a running gateway. Numbers are taken without asking; where another process took
//! them first the insert fails on the primary key, and the writer reads what was added, checks that it continues
//! the chain, and tries again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::anchor::{Anchor, Purpose};
use policy::chain::{BadRecord, Found, Hash, Head, Verifier};
use policy::event::Event;
use policy::identity::SessionId;
use policy::record::Record;
use rusqlite::ErrorCode;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row as _};
use ulid::Ulid;

use super::committer::Committer;
use super::entry::{Body, Entry, OutcomeColumns, Text};
use super::file::OpenFiles;
use super::filing::filed_through;
use super::log::LogKeeper;
use super::plan::{Asked, OpenDecision, Plan};
use super::recover::Mark;
use super::row::{Columns, Row};
use super::{Sqlite, commit_words, database_words, sqlite};
use crate::config::Durability;

/// How often another process may get in between before the writer gives up for this batch.
const TRIES: usize = 5;
/// The head of the chain and the open decisions are noted this often, so that a start has little to look through.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// Sessions whose model is remembered, so that it is written only when it changes.
const MODELS: usize = 10_000;

/// Appends to the chain.
#[derive(Debug)]
pub struct Writer {
    /// For what takes its time: looking back, dropping, carrying the log.
    pub(super) connection: SqliteConnection,
    pub(super) committer: Committer,
    pub(super) head: Head,
    pub(super) open: HashMap<Ulid, OpenDecision>,
    pub(super) marked: Option<Instant>,
    durability: Durability,
    pub(super) files: OpenFiles,
    shared: Arc<Sqlite>,
    /// Carries the log into the database; without it the writer does so itself.
    log: Option<LogKeeper>,
    /// What a commit that failed would have appended; whether it was is found out before the next.
    unsure: Option<Plan>,
    /// Checkpoints that were committed and not yet asked for.
    anchors: Vec<Anchor>,
    /// What each session asked last.
    models: HashMap<SessionId, Asked>,
    /// Where a pruning that was begun shall end.
    pub(super) prune: Option<u64>,
    /// The record up to which everything is filed.
    pub(super) filed: u64,
    #[cfg(feature = "measure")]
    unchained: bool,
    #[cfg(test)]
    lie: bool,
}

/// Why nothing was committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another process holds the database.
    #[error("the store is locked by another process")]
    Locked,
    /// There is no room.
    #[error("the store or its disk is full")]
    Full,
    /// It may not be written.
    #[error("the store is read-only")]
    ReadOnly,
    /// The file was moved or removed.
    #[error("`{}` was moved, removed or replaced", .0.display())]
    Gone(PathBuf),
    /// Something else wrote to the chain, and wrongly.
    #[error("the audit chain was changed by something else: {0}")]
    Foreign(BadRecord),
    /// A change that no longer applies.
    #[error("this has changed in the meantime")]
    Stale,
    /// Anything else the database says to a commit.
    #[error("the store failed: {}", commit_words(.0))]
    Commit(rusqlite::Error),
    /// Anything else it says to what is not a commit.
    #[error("the store failed: {}", database_words(.0))]
    Database(sqlx::Error),
    /// The thread that committed ended without an answer.
    #[error("a commit was broken off")]
    Lost,
}

/// What became of a batch whose commit failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was not written.
    Nothing,
    /// It was written, although the commit said otherwise.
    Written,
}

impl Writer {
    pub(super) fn new(
        connection: SqliteConnection,
        committer: Committer,
        path: &Path,
        durability: Durability,
        shared: Arc<Sqlite>,
    ) -> Writer {
        Writer {
            connection,
            committer,
            head: Head::GENESIS,
            open: HashMap::new(),
            marked: None,
            durability,
            files: OpenFiles::look(path),
            shared,
            log: None,
            unsure: None,
            anchors: Vec::new(),
            models: HashMap::new(),
            prune: None,
            filed: 0,
            #[cfg(feature = "measure")]
            unchained: false,
            #[cfg(test)]
            lie: false,
        }
    }

    /// Dropping and filing records makes the log grow as well.
    pub(super) fn log_grew(&self, records: u64) {
        if let Some(log) = &self.log {
            log.wrote(usize::try_from(records).unwrap_or(usize::MAX));
        }
    }

    /// Leaves it to a task of its own to carry the log into the database.
    pub(super) async fn keep_log(&mut self) -> Result<(), CommitError> {
        self.leave_log_alone().await?;
        self.log = Some(LogKeeper::start(self.files.path()));
        Ok(())
    }

    /// The last record.
    pub fn head(&self) -> Head {
        self.head
    }

    /// How many exchanges have a decision and no outcome yet.
    pub fn open_decisions(&self) -> usize {
        self.open.len()
    }

    /// The checkpoints that were committed since this was last asked.
    pub fn take_anchors(&mut self) -> Vec<Anchor> {
        std::mem::take(&mut self.anchors)
    }

    /// Writes a batch in one transaction. Outcomes and endings of decisions that are not open are left out.
    ///
    /// # Errors
    /// Nothing was written, as far as the database says; [`Writer::settle`] makes sure.
    pub async fn commit(&mut self, batch: &[Entry]) -> Result<(), CommitError> {
        debug_assert!(self.unsure.is_none(), "a failed commit is settled before the next");
        if !self.files.are_there() {
            self.reopen().await?;
        }
        if let Some(log) = &self.log {
            log.begin_anew(&mut self.connection).await;
        }
        for _ in 0..TRIES {
            let mut plan = self.plan(batch);
            let Some(_) = plan.head else { return Ok(()) };
            if self.marked.is_some_and(|marked| marked.elapsed() >= MARK_EVERY) {
                plan.mark = Some(self.mark_after(&plan));
            }
            let (plan, written) = self.committer.write(plan).await;
            match written {
                #[cfg(test)]
                Ok(()) if std::mem::take(&mut self.lie) => {
                    self.unsure = Some(plan);
                    return Err(CommitError::Full);
                }
                Ok(()) => {
                    self.adopt(plan);
                    return Ok(());
                }
                Err(error) if error.is_taken() => {
                    if self.catch_up().await? == 0 {
                        return Err(error);
                    }
                }
                Err(error) => {
                    self.unsure = Some(plan);
                    return Err(error);
                }
            }
        }
        Err(CommitError::Locked)
    }

    /// Finds out whether the batch of a failed commit was written after all. After an error at the very end of a
    /// commit the database itself may not know.
    ///
    /// # Errors
    /// A store that cannot be read now either.
    pub async fn settle(&mut self) -> Result<Settled, CommitError> {
        let Some(plan) = self.unsure.take() else { return Ok(Settled::Nothing) };
        if let Err(error) = self.renew().await {
            self.unsure = Some(plan);
            return Err(error);
        }
        let last = plan.head.map(|head| head.hash);
        match self.rows_after_head().await {
            Ok(rows)
                if rows.iter().any(|row| {
                    row.try_get("hash").ok().and_then(|hash: &[u8]| Hash::from_bytes(hash)) == last
                }) =>
            {
                self.adopt(plan);
                self.catch_up().await?;
                Ok(Settled::Written)
            }
            Ok(_) => Ok(Settled::Nothing),
            Err(error) => {
                self.unsure = Some(plan);
                Err(error.into())
            }
        }
    }

    /// Notes the end of the chain, so that the next start finds that nothing is missing.
    ///
    /// # Errors
    /// As for any commit.
    pub async fn mark(&mut self) -> Result<(), CommitError> {
        // Who has not looked for what is open, as a command beside the gateway, must not note that nothing is.
        if self.marked.is_none() {
            return Ok(());
        }
        let mut plan = Plan::default();
        plan.mark = Some(self.mark_after(&plan));
        let (plan, written) = self.committer.write(plan).await;
        written.map(|()| self.adopt(plan))
    }

    /// Closes the connection, which lets SQLite tidy its files.
    pub async fn close(self) {
        if let Some(log) = self.log {
            log.close().await;
        }
        self.shared.readers.load().close().await;
        drop(self.committer);
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the store did not close cleanly");
        }
    }

    fn plan(&self, batch: &[Entry]) -> Plan {
        let mut plan = Plan { rows: Vec::with_capacity(batch.len()), ..Plan::default() };
        for Entry(body) in batch {
            match body {
                Body::Decision(text, columns) => {
                    let head = self.append(&mut plan, text.clone(), Columns::Decision(Arc::clone(columns)));
                    let open = OpenDecision {
                        seq: head.seq,
                        action: columns.action,
                        reason: columns.reason,
                        session: columns.session,
                        provider: columns.provider.clone(),
                    };
                    plan.opened.insert(columns.id, open);
                }
                Body::Outcome(text, columns) => self.end(&mut plan, text.clone(), columns.clone()),
                Body::Close(decision, closing) => {
                    let Some(open) = self.opened(&plan, *decision) else { continue };
                    let outcome = closing.outcome(*decision, open.action, open.reason);
                    let text = Text::new(outcome.canonical(), outcome.time);
                    self.end(&mut plan, text, OutcomeColumns::of(&outcome));
                }
                Body::Event(text, change) => {
                    self.append(&mut plan, text.clone(), Columns::Event);
                    plan.changes.extend(change.clone());
                }
                Body::Pruned(text, through) => {
                    self.append(&mut plan, text.clone(), Columns::Event);
                    plan.prune = Some(*through);
                }
                Body::Checkpoint(signer) => {
                    let anchor = signer.sign(Purpose::Checkpoint, plan.head.unwrap_or(self.head));
                    let text = Text::new(Event::from(anchor.clone()).canonical(), anchor.time);
                    self.append(&mut plan, text, Columns::Event);
                    plan.anchors.push(anchor);
                }
            }
        }
        plan
    }

    fn append(&self, plan: &mut Plan, text: Text, columns: Columns) -> Head {
        let head = self.follow(plan.head.unwrap_or(self.head), &text);
        plan.rows.push(Row { head, text, columns });
        plan.head = Some(head);
        head
    }

    #[cfg(not(feature = "measure"))]
    fn follow(&self, head: Head, text: &Text) -> Head {
        head.follow(text.canonical.as_bytes())
    }

    #[cfg(feature = "measure")]
    fn follow(&self, head: Head, text: &Text) -> Head {
        let chained = || head.follow(text.canonical.as_bytes());
        if self.unchained { Head { seq: head.seq + 1, hash: head.hash } } else { chained() }
    }

    fn end(&self, plan: &mut Plan, text: Text, columns: OutcomeColumns) {
        let Some(open) = self.opened(plan, columns.decision) else {
            tracing::debug!(decision = %columns.decision, "an outcome without an open decision is left out");
            return;
        };
        plan.closed.insert(columns.decision);
        if (open.action, open.reason) != (columns.action, columns.reason) {
            plan.last_words.push((open.seq, columns.action, columns.reason));
        }
        self.note_model(plan, &open, &columns);
        self.append(plan, text, Columns::Outcome(open.seq, columns));
    }

    fn note_model(&self, plan: &mut Plan, open: &OpenDecision, columns: &OutcomeColumns) {
        let Some(session) = open.session else { return };
        if open.provider.is_none() && columns.model.is_none() {
            return;
        }
        let before = plan.models.get(&session).or_else(|| self.models.get(&session));
        let asked = Asked {
            provider: open.provider.clone().or_else(|| before.and_then(|before| before.provider.clone())),
            model: columns.model.clone().or_else(|| before.and_then(|before| before.model.clone())),
        };
        if before != Some(&asked) {
            plan.models.insert(session, asked);
        }
    }

    fn opened(&self, plan: &Plan, decision: Ulid) -> Option<OpenDecision> {
        if plan.closed.contains(&decision) {
            return None;
        }
        self.open.get(&decision).or_else(|| plan.opened.get(&decision)).cloned()
    }

    fn adopt(&mut self, plan: Plan) {
        if let Some(log) = &self.log {
            log.wrote(plan.rows.len());
        }
        self.head = plan.head.unwrap_or(self.head);
        if plan.mark.is_some() {
            self.marked = Some(Instant::now());
        }
        self.open.extend(plan.opened);
        for decision in &plan.closed {
            self.open.remove(decision);
        }
        self.prune = self.prune.max(plan.prune);
        self.anchors.extend(plan.anchors);
        if self.models.len() >= MODELS {
            self.models.clear();
        }
        self.models.extend(plan.models);
    }

    fn mark_after(&self, plan: &Plan) -> Mark {
        let open = self.open.iter().chain(&plan.opened);
        let open = open.filter(|(id, _)| !plan.closed.contains(id)).map(|(_, open)| open.seq);
        Mark::of(plan.head.unwrap_or(self.head), open)
    }

    /// Takes over what another process appended. Gives the number of records.
    async fn catch_up(&mut self) -> Result<usize, CommitError> {
        let rows = self.rows_after_head().await?;
        let mut verifier = Verifier::after(self.head);
        for row in &rows {
            let seq: i64 = row.try_get("seq")?;
            let found = Found {
                seq: u64::try_from(seq).unwrap_or(0),
                kind: row.try_get("kind")?,
                canonical: row.try_get::<&str, _>("record")?.as_bytes(),
                hash: row.try_get("hash")?,
            };
            if let Record::Outcome(outcome) = verifier.feed(found).map_err(CommitError::Foreign)? {
                self.open.remove(&outcome.decision);
            }
        }
        self.head = verifier.head();
        Ok(rows.len())
    }

    async fn rows_after_head(&mut self) -> Result<Vec<SqliteRow>, sqlx::Error> {
        sqlx::query("SELECT seq, kind, record, hash FROM records WHERE seq > $1 ORDER BY seq")
            .bind(i64::try_from(self.head.seq).unwrap_or(i64::MAX))
            .fetch_all(&mut self.connection)
            .await
    }

    /// A new connection after a failure. After some errors SQLite rolls back by itself
    /// (<https://sqlite.org/lang_transaction.html>), which sqlx does not notice: it would take every later transaction
    /// for one within another and refuse it. A page that was read broken would stay in memory as well.
    pub(super) async fn renew(&mut self) -> Result<(), CommitError> {
        // Of files that were moved or replaced the next commit takes care, which looks at what is in them.
        if self.files.are_there() {
            let connection = sqlite::connect_writer(self.files.path(), self.durability).await?;
            self.take(connection).await?;
        }
        Ok(())
    }

    /// Opens the file that is at the path now, and goes on with it if it holds the whole chain.
    async fn reopen(&mut self) -> Result<(), CommitError> {
        let path = self.files.path().to_owned();
        if !path.exists() {
            return Err(CommitError::Gone(path));
        }
        // Where only the log was removed, this carries what it held into the database.
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.connection).await;
        let mut connection = sqlite::connect_writer(&path, self.durability).await?;
        let head = super::recover::read_head(&mut connection).await?;
        if head != self.head {
            return Err(CommitError::Gone(path));
        }
        self.shared.readers.store(Arc::new(sqlite::readers(&path)));
        self.take(connection).await?;
        self.files = OpenFiles::look(&path);
        Ok(())
    }

    async fn take(&mut self, mut connection: SqliteConnection) -> Result<(), CommitError> {
        // The file may be a copy from before what was filed last.
        self.filed = filed_through(&mut connection).await?.min(self.head.seq);
        self.connection = connection;
        self.committer.renew()?;
        if self.log.is_some() {
            self.leave_log_alone().await?;
        }
        Ok(())
    }

    async fn leave_log_alone(&mut self) -> Result<(), CommitError> {
        sqlx::query("PRAGMA wal_autocheckpoint = 0").execute(&mut self.connection).await?;
        self.committer.leave_log_alone()
    }

    /// Looks again which files are open, after the first statement has made them.
    pub(super) fn look_at_files(&mut self) {
        self.files = OpenFiles::look(self.files.path());
    }
}

impl CommitError {
    /// Another process took the number.
    fn is_taken(&self) -> bool {
        use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
        let CommitError::Commit(rusqlite::Error::SqliteFailure(error, _)) = self else { return false };
        matches!(error.extended_code, SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_UNIQUE)
    }
}

impl From<rusqlite::Error> for CommitError {
    fn from(error: rusqlite::Error) -> CommitError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => CommitError::Locked,
            Some(ErrorCode::ReadOnly) => CommitError::ReadOnly,
            Some(ErrorCode::DiskFull) => CommitError::Full,
            _ => CommitError::Commit(error),
        }
    }
}

impl From<sqlx::Error> for CommitError {
    fn from(error: sqlx::Error) -> CommitError {
        // Extended result codes carry the primary one in their lowest byte (https://sqlite.org/rescode.html).
        let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
        match code.map(|code| code & 0xff) {
            Some(5 | 6) => CommitError::Locked,
            Some(8) => CommitError::ReadOnly,
            Some(13) => CommitError::Full,
            _ => CommitError::Database(error),
        }
    }
}

/// What only the benchmark switches off.
#[cfg(feature = "measure")]
impl Writer {
    /// Numbers records without hashing them.
    pub fn without_chain(&mut self) {
        self.unchained = true;
    }

    /// Leaves it to the system when anything reaches the disk.
    ///
    /// # Errors
    /// A store that does not answer.
    pub fn without_durability(&mut self) -> Result<(), CommitError> {
        self.committer.pragma("synchronous", "OFF")
    }
}

#[cfg(test)]
impl Writer {
    /// Lets the database grow to so many pages only.
    pub(crate) fn limit_pages(&mut self, pages: Option<u32>) {
        self.committer.pragma("max_page_count", pages.unwrap_or(u32::MAX / 2)).unwrap();
    }

    /// The next commit succeeds and says that it failed.
    pub(crate) fn fail_after_commit(&mut self) {
        self.lie = true;
    }
}
