//! Carries what was committed from SQLite's log into the database, beside the writer instead of in its way.
//!
//! By itself SQLite does this within some commit, every thousand pages, and that commit and all who wait for it wait for
//! the disk. A connection of its own does it without holding up the writer; only where the log has become long is the
//! writer kept out for the moment that it takes to begin the log anew (<https://sqlite.org/wal.html>, section 2.1).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often is looked whether there is anything to carry.
const LOOK: Duration = Duration::from_millis(250);
/// Records that are worth carrying: about as many as SQLite's own thousand pages.
const WORTH: u64 = 1500;
/// And after so long, however few they are.
const LATEST: Duration = Duration::from_secs(10);
/// Pages of the log after which it begins anew: 32 MiB.
const LONG: i64 = 8192;
/// How long beginning anew may wait for readers and the writer.
const PATIENCE: Duration = Duration::from_millis(100);

/// Looks after the log of one database.
#[derive(Debug)]
pub(super) struct LogKeeper {
    written: Arc<AtomicU64>,
    /// Ends the task when dropped.
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl LogKeeper {
    pub(super) fn start(path: &Path) -> LogKeeper {
        let written = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(path.to_owned(), Arc::clone(&written), stop.clone()));
        LogKeeper { written, stop: stop.drop_guard(), task }
    }

    /// So many records more are in the log.
    pub(super) fn wrote(&self, records: usize) {
        self.written.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Ends, once what it is carrying is carried.
    pub(super) async fn close(self) {
        drop(self.stop);
        // A task that panicked has told so.
        let _ = self.task.await;
    }
}

async fn keep(path: PathBuf, written: Arc<AtomicU64>, stop: CancellationToken) {
    let (mut carried, mut last) = (0, Instant::now());
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let now = written.load(Ordering::Relaxed);
        let due = now - carried >= WORTH || (now > carried && last.elapsed() >= LATEST);
        if !due {
            continue;
        }
        match carry(&path).await {
            Ok(()) => (carried, last) = (now, Instant::now()),
            // The writer meets whatever is wrong, and tells.
            Err(error) => tracing::debug!(%error, "the log was not carried into the database"),
        }
    }
}

/// By a new connection each time: the file may have been replaced.
async fn carry(path: &Path) -> Result<(), sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(PATIENCE)
        .thread_name(|_| "store-log".to_owned())
        .disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut connection).await?;
    if row.try_get::<i64, _>("log")? >= LONG {
        sqlx::query("PRAGMA wal_checkpoint(RESTART)").fetch_one(&mut connection).await?;
    }
    connection.close().await
}
