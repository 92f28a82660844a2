//! Carries what was committed from SQLite's log into the database, beside the writer instead of in its way.
//!
//! By itself SQLite does this within some commit, every thousand pages, and that commit and all who wait for it wait for
//! the disk. A connection of its own does it without holding up the writer. Only the log's beginning anew needs the writer
//! kept out (<https://sqlite.org/wal.html>, section 2.2), so the writer does that itself, between two commits, once little
//! is left to carry. Where the disk does not keep up it finds more left, and so takes no more than the disk does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
/// Pages left to carry that the writer may carry itself.
const LITTLE: i64 = 500;
/// How often is tried to come so far, while the writer writes on.
const PASSES: usize = 4;

/// Looks after the log of one database.
#[derive(Debug)]
pub(super) struct LogKeeper {
    state: Arc<State>,
    /// Ends the task when dropped.
    stop: DropGuard,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Records in the log, ever.
    written: AtomicU64,
    /// The log is long, and little of it is left to carry.
    anew: AtomicBool,
}

impl LogKeeper {
    pub(super) fn start(path: &Path) -> LogKeeper {
        let state = Arc::new(State::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(path.to_owned(), Arc::clone(&state), stop.clone()));
        LogKeeper { state, stop: stop.drop_guard(), task }
    }

    /// So many records more are in the log.
    pub(super) fn wrote(&self, records: usize) {
        self.state.written.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Begins the log anew where it is time to. To be called by the writer, with its connection, between two commits.
    pub(super) async fn begin_anew(&self, connection: &mut SqliteConnection) {
        if !self.state.anew.load(Ordering::Acquire) {
            return;
        }
        // Carries what is left and waits for nobody; where no reader is in the way, the next commit begins the log anew.
        let begun = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(connection).await;
        if let Err(error) = begun {
            // The next commit meets whatever is wrong, and tells.
            tracing::debug!(%error, "the log was not begun anew");
        }
        self.state.anew.store(false, Ordering::Release);
    }

    /// Ends, once what it is carrying is carried.
    pub(super) async fn close(self) {
        drop(self.stop);
        // A task that panicked has told so.
        let _ = self.task.await;
    }
}

async fn keep(path: PathBuf, state: Arc<State>, stop: CancellationToken) {
    let (mut carried, mut last) = (0, Instant::now());
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let now = state.written.load(Ordering::Relaxed);
        let due = now - carried >= WORTH || (now > carried && last.elapsed() >= LATEST);
        // While the writer begins the log anew, or is about to, nobody else may work on it.
        if !due || state.anew.load(Ordering::Acquire) {
            continue;
        }
        match carry(&path).await {
            Ok(long) => {
                (carried, last) = (now, Instant::now());
                state.anew.store(long, Ordering::Release);
            }
            // The writer meets whatever is wrong, and tells.
            Err(error) => tracing::debug!(%error, "the log was not carried into the database"),
        }
    }
}

/// Carries what there is, by a new connection each time: the file may have been replaced. Says whether the log is long.
async fn carry(path: &Path) -> Result<bool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .thread_name(|_| "store-log".to_owned())
        .disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let mut long = false;
    for _ in 0..PASSES {
        let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut connection).await?;
        let (log, carried): (i64, i64) = (row.try_get("log")?, row.try_get("checkpointed")?);
        long = log >= LONG;
        if !long || log - carried <= LITTLE {
            break;
        }
    }
    connection.close().await?;
    Ok(long)
}
