//! The connection that commits: here, without another thread, where that takes microseconds, and aside where it may wait.
//!
//! A commit of `durability = "commit"` is a few pages for the page cache, less than waking a thread and being woken by
//! it. What waits for the disk or for another process must not keep the requests of a thread from going on: such commits
//! are made on a thread of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(any(test, feature = "measure"))]
use rusqlite::ToSql;
use rusqlite::{Connection, OpenFlags, params};

use super::CommitError;
use super::plan::Plan;
use super::sqlite::{BUSY_TIMEOUT, LOG_BYTES};
use crate::config::Durability;

/// A commit that took longer waited for something: the disk, or its turn on the processor.
const LONG: Duration = Duration::from_millis(20);
/// And it is likely that the next ones will.
const ASIDE: Duration = Duration::from_secs(1);

/// Writes plans, one at a time.
#[derive(Debug)]
pub(super) struct Committer {
    /// Missing while a commit is made aside; for good if that ended without giving it back.
    connection: Option<Connection>,
    path: PathBuf,
    durability: Durability,
    /// Others carry the log into the database.
    leaves_log: bool,
    /// Commits are made aside until then.
    slow_until: Option<Instant>,
}

impl Committer {
    /// Connects to a database that exists.
    pub(super) fn open(path: &Path, durability: Durability) -> rusqlite::Result<Committer> {
        Ok(Committer {
            connection: Some(connect(path, durability)?),
            path: path.to_owned(),
            durability,
            leaves_log: false,
            slow_until: None,
        })
    }

    /// A new connection to what is at the path now.
    pub(super) fn renew(&mut self) -> rusqlite::Result<()> {
        // First the old one: it may hold a lock.
        self.connection = None;
        let connection = connect(&self.path, self.durability)?;
        if self.leaves_log {
            leave_log(&connection)?;
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Writes a plan in one transaction, and gives it back.
    pub(super) async fn write(&mut self, plan: Plan) -> (Plan, Result<(), CommitError>) {
        let began = Instant::now();
        let now = |connection: &Connection| write(connection, &plan, Duration::ZERO);
        let here = (!self.may_wait()).then(|| self.connection().and_then(now));
        let (plan, written) = match here {
            None | Some(Err(CommitError::Locked)) => self.write_aside(plan).await,
            Some(written) => (plan, written),
        };
        self.slow_until = (began.elapsed() > LONG).then(|| Instant::now() + ASIDE);
        (plan, written)
    }

    /// Whether it is likely that a commit has to wait.
    fn may_wait(&self) -> bool {
        self.durability == Durability::Power || self.slow_until.is_some_and(|until| Instant::now() < until)
    }

    async fn write_aside(&mut self, plan: Plan) -> (Plan, Result<(), CommitError>) {
        let connection = match self.connection() {
            Ok(_) => self.connection.take(),
            Err(error) => return (plan, Err(error)),
        };
        let plan = Arc::new(plan);
        let theirs = Arc::clone(&plan);
        let written = tokio::task::spawn_blocking(move || {
            let written = connection.as_ref().map(|connection| write(connection, &theirs, BUSY_TIMEOUT));
            (connection, written.unwrap_or(Err(CommitError::Lost)))
        });
        let written = match written.await {
            Ok((connection, written)) => {
                self.connection = connection;
                written
            }
            // It panicked, or the runtime ends.
            Err(_) => Err(CommitError::Lost),
        };
        (Arc::into_inner(plan).unwrap_or_default(), written)
    }

    /// Leaves it to others to carry the log into the database.
    pub(super) fn leave_log_alone(&mut self) -> Result<(), CommitError> {
        self.leaves_log = true;
        Ok(leave_log(self.connection()?)?)
    }

    #[cfg(any(test, feature = "measure"))]
    pub(super) fn pragma(&mut self, name: &str, value: impl ToSql) -> Result<(), CommitError> {
        Ok(self.connection()?.pragma_update(None, name, value)?)
    }

    fn connection(&mut self) -> Result<&Connection, CommitError> {
        if self.connection.is_none() {
            self.renew()?;
        }
        self.connection.as_ref().ok_or(CommitError::Lost)
    }
}

fn connect(path: &Path, durability: Durability) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let synchronous = match durability {
        Durability::Commit => "NORMAL",
        Durability::Power => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    Ok(connection)
}

fn leave_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

/// Writes a plan, and waits so long for another process that writes.
fn write(connection: &Connection, plan: &Plan, patience: Duration) -> Result<(), CommitError> {
    connection.busy_timeout(patience)?;
    let [row] = plan.rows.as_slice() else { return in_transaction(connection, plan) };
    if plan.is_rows_alone() {
        // A statement alone is a transaction.
        return Ok(row.insert(connection)?);
    }
    in_transaction(connection, plan)
}

fn in_transaction(connection: &Connection, plan: &Plan) -> Result<(), CommitError> {
    let run = |statement| connection.prepare_cached(statement)?.execute([]);
    run("BEGIN IMMEDIATE")?;
    let written = plan.write(connection).and_then(|()| Ok(run("COMMIT").map(drop)?));
    // After some errors SQLite has rolled back by itself (<https://sqlite.org/lang_transaction.html>).
    if written.is_err() && !connection.is_autocommit() {
        // What fails here, too, keeps nothing: the connection is renewed before the next commit.
        let _ = run("ROLLBACK");
    }
    written
}

/// Notes something that is not part of the chain.
pub(super) fn note(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    let note = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
    connection.prepare_cached(note)?.execute(params![name, value]).map(drop)
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;
    use sqlx::Connection as _;

    use super::*;
    use crate::store::tests::{Folder, decision};
    use crate::store::{Entry, Opened, Store, StoreOptions};

    async fn opened(folder: &Folder, durability: Durability) -> Opened {
        let options = StoreOptions { data_dir: folder.path().to_owned(), durability };
        Store::open(&options, folder.claim.as_ref().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_commit_needs_no_other_thread_unless_it_may_wait() {
        let entry = [Entry::decision(&decision("a.example"))];
        for (durability, was_slow, here) in [
            (Durability::Commit, false, true),
            (Durability::Commit, true, false),
            (Durability::Power, false, false),
        ] {
            let folder = Folder::new();
            let Opened { mut writer, store, .. } = opened(&folder, durability).await;
            writer.committer.slow_until = was_slow.then(|| Instant::now() + ASIDE);
            let mut commit = std::pin::pin!(writer.commit(&entry));
            let first = poll!(&mut commit);
            assert_eq!(matches!(first, Poll::Ready(Ok(()))), here, "{durability:?}, slow before: {was_slow}");
            if first.is_pending() {
                commit.await.unwrap();
            }
            assert_eq!(store.last_seq().await.unwrap(), 1, "{durability:?}, slow before: {was_slow}");
        }
    }

    /// On one thread: a commit that waited here would keep the clock from being asked.
    #[tokio::test]
    async fn who_waits_for_another_process_does_not_hold_others_up() {
        let folder = Folder::new();
        let Opened { mut writer, store, .. } = opened(&folder, Durability::Commit).await;
        let mut stranger = folder.stranger().await;
        let lock = stranger.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let entry = [Entry::decision(&decision("a.example"))];
        let mut commit = std::pin::pin!(writer.commit(&entry));
        let began = Instant::now();
        let waited = tokio::time::timeout(Duration::from_millis(50), &mut commit).await;
        assert!(waited.is_err(), "it waits for the other: {waited:?}");
        assert!(began.elapsed() < BUSY_TIMEOUT / 2, "and lets others go on: {:?}", began.elapsed());
        lock.rollback().await.unwrap();
        commit.await.unwrap();
        assert_eq!(store.last_seq().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn who_is_broken_off_while_waiting_goes_on_with_the_next() {
        let folder = Folder::new();
        let Opened { mut writer, store, .. } = opened(&folder, Durability::Power).await;
        let first = [Entry::decision(&decision("a.example"))];
        assert!(poll!(std::pin::pin!(writer.commit(&first))).is_pending());
        writer.commit(&[Entry::decision(&decision("b.example"))]).await.unwrap();
        let last = store.last_seq().await.unwrap();
        assert!((1..=2).contains(&last), "numbers go on: {last}");
        let connection = writer.committer.connection().unwrap();
        let carried: i64 =
            connection.pragma_query_value(None, "wal_autocheckpoint", |row| row.get(0)).unwrap();
        assert_eq!(carried, 0, "the new connection leaves the log alone, too");
    }
}
