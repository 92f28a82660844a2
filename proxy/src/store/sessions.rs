//! Sessions as rows.

use policy::event::SessionEnd;
use policy::identity::{AgentName, SessionId};
use policy::redact::Redacted;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use ulid::Ulid;

use super::agents::{name, session};
use super::query::redacted;
use super::row::number;
use super::{Store, StoreError};

/// One run of an agent. Times are microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its identifier.
    pub id: SessionId,
    /// Whose it is.
    pub agent: AgentName,
    /// Its label.
    pub label: Option<Redacted>,
    /// The program that is run.
    pub tool: Option<Redacted>,
    /// The command as given, redacted.
    pub command: Option<Redacted>,
    /// The repository it was started in.
    pub repo: Option<Redacted>,
    /// The branch.
    pub branch: Option<Redacted>,
    /// The commit.
    pub commit: Option<Redacted>,
    /// The service of the model that was asked last.
    pub provider: Option<Redacted>,
    /// The model that its requests named last.
    pub model: Option<Redacted>,
    /// Whether it only observes.
    pub observe: bool,
    /// Whether a label in credentials opened it.
    pub implicit: bool,
    /// When it began.
    pub started: i64,
    /// When it ended.
    pub ended: Option<i64>,
    /// Exit code of its command.
    pub exit_code: Option<i32>,
    /// Why it ended.
    pub why: Option<SessionEnd>,
}

impl Store {
    /// Sessions, the latest first.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn sessions(&self, limit: Option<u32>) -> Result<Vec<Session>, StoreError> {
        let rows = sqlx::query("SELECT * FROM sessions ORDER BY id DESC LIMIT $1")
            .bind(limit.map_or(i64::MAX, i64::from))
            .fetch_all(&self.readers())
            .await?;
        rows.iter().map(read).collect()
    }

    /// One session.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn session(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let row = sqlx::query("SELECT * FROM sessions WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// How many sessions are going on.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn sessions_active(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT count(*) AS active FROM sessions WHERE ended IS NULL")
            .fetch_one(&self.readers())
            .await?;
        super::query::unsigned(&row, "active")
    }

    /// Sessions that a label opened and nobody ended.
    pub(crate) async fn labelled_sessions(&self, limit: usize) -> Result<Vec<Session>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM sessions WHERE implicit AND ended IS NULL ORDER BY id DESC LIMIT $1")
                .bind(number(limit as u64))
                .fetch_all(&self.readers())
                .await?;
        rows.iter().map(read).collect()
    }
}

/// All sessions, as a connection sees them.
pub(super) async fn sessions_in(connection: &mut SqliteConnection) -> Result<Vec<Session>, StoreError> {
    sqlx::query("SELECT * FROM sessions").fetch_all(connection).await?.iter().map(read).collect()
}

pub(super) fn read(row: &SqliteRow) -> Result<Session, StoreError> {
    Ok(Session {
        id: session(row, "id")?.unwrap_or(SessionId(Ulid::nil())),
        agent: name(row, "agent")?.unwrap_or_else(AgentName::anonymous),
        label: redacted(row, "label")?,
        tool: redacted(row, "tool")?,
        command: redacted(row, "command")?,
        repo: redacted(row, "repo")?,
        branch: redacted(row, "branch")?,
        commit: redacted(row, "commit_id")?,
        provider: redacted(row, "provider")?,
        model: redacted(row, "model")?,
        observe: row.try_get("observe")?,
        implicit: row.try_get("implicit")?,
        started: row.try_get("started")?,
        ended: row.try_get("ended")?,
        exit_code: row.try_get("exit_code")?,
        why: row.try_get::<Option<&str>, _>("why")?.and_then(SessionEnd::from_word),
    })
}
