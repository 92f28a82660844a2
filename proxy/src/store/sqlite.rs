//! How SQLite is opened: write-ahead log, one connection that writes, a few that only read.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};

use super::committer::Committer;
use super::{FILE_NAME, Sqlite, Store, StoreError, Writer};
use crate::config::Durability;

/// Without sqlx's macro, which would have sqlx, SQLite's part included, built a second time for the compiler.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let files = [
        (1, "records", include_str!("../../../migrations/sqlite/0001_records.sql")),
        (2, "evidence", include_str!("../../../migrations/sqlite/0002_evidence.sql")),
        (3, "filed", include_str!("../../../migrations/sqlite/0003_filed.sql")),
    ];
    Migrator::with_migrations(
        files
            .into_iter()
            .map(|(version, name, sql)| {
                Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
            })
            .collect(),
    )
});

/// How long a statement waits for another process that holds the database. A request waits as long for its
/// decision before it is refused.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Each reader is a thread; the console and the log need no more.
const READERS: u32 = 3;
const READER_IDLE: Duration = Duration::from_secs(60);
/// A log that grew in a burst shrinks to this size again.
pub(super) const LOG_BYTES: &str = "67108864";

/// Opens or makes the database, brings its tables up to date.
pub(super) async fn open(data_dir: &Path, durability: Durability) -> Result<(Store, Writer), StoreError> {
    let path = data_dir.join(FILE_NAME);
    let mut connection = connect_writer(&path, durability)
        .await
        .map_err(|error| StoreError::Open { path: path.clone(), error })?;
    migrate(&path, &mut connection).await?;
    let readers = ArcSwap::from_pointee(readers(&path));
    let sqlite = Arc::new(Sqlite { data_dir: data_dir.to_owned(), readers });
    let opening = |error| StoreError::Connect { path: path.clone(), error };
    let committer = Committer::open(&path, durability).map_err(opening)?;
    let writer = Writer::new(connection, committer, &path, durability, Arc::clone(&sqlite));
    Ok((Store::Sqlite(sqlite), writer))
}

async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    MIGRATIONS.run(connection).await.map_err(|error| StoreError::Migrate { path: path.to_owned(), error })
}

/// The connection of who writes, for everything but commits.
pub(super) async fn connect_writer(
    path: &Path,
    durability: Durability,
) -> Result<SqliteConnection, sqlx::Error> {
    let synchronous = match durability {
        Durability::Commit => SqliteSynchronous::Normal,
        Durability::Power => SqliteSynchronous::Full,
    };
    let options = SqliteConnectOptions::new()
        .filename(path)
        // So that what was pruned can be given back to the disk. Has to be said before the first table is made.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("journal_size_limit", LOG_BYTES)
        .thread_name(|_| "store-writer".to_owned())
        .disable_statement_logging();
    SqliteConnection::connect_with(&options).await
}

/// Connections that read; made when first needed.
pub(super) fn readers(path: &Path) -> SqlitePool {
    reading(path, SqliteConnectOptions::new())
}

/// As [`readers`], of a copy that nobody writes. Without a log beside it all is in the one file, and SQLite need not
/// make one to read it.
pub(super) fn readers_of_copy(path: &Path) -> SqlitePool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let logged = std::fs::metadata(log).is_ok_and(|log| log.len() > 0);
    reading(path, SqliteConnectOptions::new().immutable(!logged))
}

fn reading(path: &Path, options: SqliteConnectOptions) -> SqlitePool {
    let options = options
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        .thread_name(|_| "store-reader".to_owned())
        .disable_statement_logging();
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .idle_timeout(READER_IDLE)
        .test_before_acquire(false)
        .connect_lazy_with(options)
}

/// Makes a database as the first migrations left it.
#[cfg(test)]
pub(super) async fn make_as_of(path: &Path, version: i64) -> SqliteConnection {
    let mut connection = connect_writer(path, Durability::Commit).await.unwrap();
    let then = MIGRATIONS.iter().filter(|migration| migration.version <= version).cloned().collect();
    Migrator::with_migrations(then).run(&mut connection).await.unwrap();
    connection
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_migration_is_left_out() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/sqlite");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let listed = MIGRATIONS.iter().map(|one| format!("{:04}_{}.sql", one.version, one.description));
        assert_eq!(files, listed.collect::<Vec<_>>());
    }
}
