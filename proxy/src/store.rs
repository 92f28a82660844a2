//! Everything that is kept: the audit chain, agents and sessions, in SQLite in the data folder.
//!
//! Writing goes through one [`Writer`], which alone knows the end of the chain; reading through a few
//! connections that cannot write. Commands read beside a running gateway, and may append beside it, too.

pub mod agents;
mod change;
pub mod changed;
mod committer;
mod entry;
mod file;
mod filing;
mod findings;
mod hosts;
mod identities;
mod log;
mod observed;
pub mod overview;
mod plan;
pub mod prune;
pub mod query;
pub mod raw;
mod recover;
pub mod report;
mod row;
pub mod sessions;
mod sqlite;
pub mod verify;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use policy::chain::BadRecord;
use rusqlite::ErrorCode;
use sqlx::{SqliteConnection, SqlitePool};

pub use change::{Change, NewSession};
pub use entry::{Closing, Entry};
pub use prune::{Cut, PrunePlan, Stub};
pub use writer::{CommitError, Settled, Writer};

use crate::config::Durability;
use crate::running::Claim;

/// Name of the database in the data folder.
pub const FILE_NAME: &str = "outgate.db";

/// How the gateway's store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The data folder; it exists.
    pub data_dir: PathBuf,
    /// What a committed record survives.
    pub durability: Durability,
}

/// The store, for reading. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Store {
    /// A file in the data folder.
    Sqlite(Arc<Sqlite>),
}

/// A database file and the connections that read it.
#[derive(Debug)]
pub struct Sqlite {
    data_dir: PathBuf,
    readers: ArcSwap<SqlitePool>,
}

/// What opening gives the gateway.
#[derive(Debug)]
pub struct Opened {
    /// For reading.
    pub store: Store,
    /// For the recorder.
    pub writer: Writer,
    /// Exchanges the gateway before this one left without an end, now marked `interrupted`.
    pub interrupted: usize,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is none yet.
    #[error("nothing has been recorded yet: there is no `{}`", .0.display())]
    Missing(PathBuf),
    /// The file cannot be made or made private.
    #[error("cannot make `{}` private to its owner: {error}", path.display())]
    File {
        /// The database.
        path: PathBuf,
        /// What went wrong.
        error: std::io::Error,
    },
    /// The database cannot be opened.
    #[error("cannot open the store `{}`: {}", path.display(), database_words(error))]
    Open {
        /// The database.
        path: PathBuf,
        /// What went wrong.
        error: sqlx::Error,
    },
    /// The database cannot be opened for commits.
    #[error("cannot open the store `{}`: {}", path.display(), commit_words(error))]
    Connect {
        /// The database.
        path: PathBuf,
        /// What went wrong.
        error: rusqlite::Error,
    },
    /// Its tables cannot be brought up to date.
    #[error("cannot bring the store `{}` up to date: {error}", path.display())]
    Migrate {
        /// The database.
        path: PathBuf,
        /// What went wrong.
        error: sqlx::migrate::MigrateError,
    },
    /// The end of the audit chain is not what was written.
    #[error("the audit record in `{}` is not intact: {bad}; `outgate audit verify` tells more", path.display())]
    Tampered {
        /// The database.
        path: PathBuf,
        /// The first record that is wrong.
        bad: BadRecord,
    },
    /// What a gateway that died left open cannot be closed.
    #[error("cannot write to the store `{}`: {error}", path.display())]
    Write {
        /// The database.
        path: PathBuf,
        /// What went wrong.
        error: CommitError,
    },
    /// A query failed.
    #[error("cannot read the store: {}", database_words(.0))]
    Read(sqlx::Error),
    /// A row is not what the program writes.
    #[error("cannot read the store: {0}")]
    Row(BadRecord),
}

// Not by an attribute: the database's words are in the message, and would be told again as its source.
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        StoreError::Read(error)
    }
}

impl Store {
    /// Opens the gateway's store: makes it where there is none, brings it up to date, verifies the end of the chain
    /// and marks what a gateway that died left open. The claim shows that no other gateway does so at once.
    ///
    /// # Errors
    /// Any reason not to listen.
    pub async fn open(options: &StoreOptions, _claim: &Claim) -> Result<Opened, StoreError> {
        let path = options.data_dir.join(FILE_NAME);
        file::make_private(&path).map_err(|error| StoreError::File { path: path.clone(), error })?;
        let (store, mut writer) = sqlite::open(&options.data_dir, options.durability).await?;
        let interrupted = writer.recover(&path).await?;
        let unkept = |error| StoreError::Write { path: path.clone(), error };
        writer.keep_log().await.map_err(unkept)?;
        Ok(Opened { store, writer, interrupted })
    }

    /// Opens the store to change something from a command, whether or not a gateway runs.
    ///
    /// # Errors
    /// A store that cannot be opened or brought up to date.
    pub async fn open_beside(data_dir: &Path) -> Result<(Store, Writer), StoreError> {
        let path = data_dir.join(FILE_NAME);
        file::make_private(&path).map_err(|error| StoreError::File { path: path.clone(), error })?;
        let (store, mut writer) = sqlite::open(data_dir, Durability::Power).await?;
        writer.load_head().await.map_err(|error| StoreError::Write { path, error })?;
        Ok((store, writer))
    }

    /// Opens the store for reading only, whether or not a gateway runs.
    ///
    /// # Errors
    /// [`StoreError::Missing`] before anything was recorded.
    pub async fn open_read_only(data_dir: &Path) -> Result<Store, StoreError> {
        let path = data_dir.join(FILE_NAME);
        if !path.exists() {
            return Err(StoreError::Missing(path));
        }
        let readers = sqlite::readers(&path);
        let opened = readers.acquire().await;
        drop(opened.map_err(|error| StoreError::Open { path, error })?);
        Ok(Store::Sqlite(Arc::new(Sqlite {
            data_dir: data_dir.to_owned(),
            readers: ArcSwap::from_pointee(readers),
        })))
    }

    /// Opens a copy of a store, wherever it lies, for reading only. Nothing is made beside it.
    ///
    /// # Errors
    /// A file that is not there or no store.
    pub async fn open_copy(path: &Path) -> Result<Store, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing(path.to_owned()));
        }
        let readers = sqlite::readers_of_copy(path);
        let looked = sqlx::query("SELECT 1 FROM records LIMIT 1").fetch_optional(&readers).await;
        looked.map_err(|error| StoreError::Open { path: path.to_owned(), error })?;
        let data_dir = path.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Store::Sqlite(Arc::new(Sqlite { data_dir, readers: ArcSwap::from_pointee(readers) })))
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        let Store::Sqlite(sqlite) = self;
        &sqlite.data_dir
    }

    fn readers(&self) -> SqlitePool {
        let Store::Sqlite(sqlite) = self;
        SqlitePool::clone(&sqlite.readers.load())
    }
}

/// Notes something that is not part of the chain.
async fn set_meta(connection: &mut SqliteConnection, name: &str, value: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2")
        .bind(name)
        .bind(value)
        .execute(connection)
        .await?;
    Ok(())
}

/// What is said of a file that is damaged or no database.
const PUT_BACK: &str = "put back a copy of it, or move it away to begin a new one";

/// What the database says, without the library's words around it, and what can be done about it.
fn database_words(error: &sqlx::Error) -> String {
    /// What SQLite says of such a file (<https://sqlite.org/rescode.html>).
    const DAMAGED: [&str; 2] = ["11", "26"];
    match error {
        sqlx::Error::Database(error) if error.code().is_some_and(|code| DAMAGED.contains(&&*code)) => {
            format!("{}; {PUT_BACK}", error.message())
        }
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    }
}

/// As [`database_words`], of a commit.
fn commit_words(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => format!("{error}; {PUT_BACK}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
