//! Agents, and the tokens by which they and their sessions are known, as rows.

use policy::identity::{AgentName, SessionId, TokenDigest};
use policy::redact::Redacted;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use ulid::Ulid;

use super::query::redacted;
use super::{Store, StoreError};

/// Tokens that ended longer ago than this are unknown rather than expired: a week, in microseconds.
const REMEMBERED: i64 = 7 * 24 * 3600 * 1_000_000;

/// A registered agent. Times are microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its name.
    pub name: AgentName,
    /// Who answers for it.
    pub owner: Redacted,
    /// What it is for.
    pub purpose: Option<Redacted>,
    /// When it was registered.
    pub created: i64,
    /// When its credentials end.
    pub expires: Option<i64>,
    /// When it was revoked.
    pub revoked: Option<i64>,
}

/// Whether an agent's tokens are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentStatus {
    /// They are.
    Active,
    /// Its time is up.
    Expired,
    /// It was revoked.
    Revoked,
}

impl AgentStatus {
    /// The word shown in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            AgentStatus::Active => "active",
            AgentStatus::Expired => "expired",
            AgentStatus::Revoked => "revoked",
        }
    }
}

impl Agent {
    /// Whether its tokens are taken at a time.
    pub fn status(&self, now: i64) -> AgentStatus {
        match (self.revoked, self.expires) {
            (Some(_), _) => AgentStatus::Revoked,
            (None, Some(expires)) if expires <= now => AgentStatus::Expired,
            (None, _) => AgentStatus::Active,
        }
    }
}

/// A token with all that is needed to say whose it is.
#[derive(Debug)]
pub(crate) struct TokenRow {
    pub digest: TokenDigest,
    pub agent: AgentName,
    pub owner: Option<Redacted>,
    /// The token's own end, its agent's or its session's, whichever is first.
    pub ends: Option<i64>,
    pub session: Option<SessionId>,
    pub label: Option<String>,
    pub observe: bool,
}

impl Store {
    /// All agents, also expired and revoked ones, by name.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        agents_in(&mut *self.readers().acquire().await?).await
    }

    /// One agent.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn agent(&self, name: &AgentName) -> Result<Option<Agent>, StoreError> {
        let row =
            sqlx::query("SELECT name, owner, purpose, created, expires, revoked FROM agents WHERE name = $1")
                .bind(name.as_str())
                .fetch_optional(&self.readers())
                .await?;
        row.as_ref().map(agent).transpose()
    }

    /// Agents whose time is up, which nobody has recorded yet.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(crate) async fn agents_to_expire(&self, now: i64) -> Result<Vec<AgentName>, StoreError> {
        let rows = sqlx::query(
            "SELECT name FROM agents WHERE expires <= $1 AND expired IS NULL AND revoked IS NULL",
        )
        .bind(now)
        .fetch_all(&self.readers())
        .await?;
        Ok(rows.iter().filter_map(|row| name(row, "name").transpose()).collect::<Result<_, _>>()?)
    }

    /// What changes whenever agents, tokens or sessions do.
    pub(crate) async fn identities_version(&self) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'identities'")
            .fetch_optional(&self.readers())
            .await?;
        Ok(row.map(|row| row.try_get("value")).transpose()?)
    }

    /// The tokens that are taken, or were until lately.
    pub(crate) async fn tokens(&self, now: i64) -> Result<Vec<TokenRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT t.digest, t.agent, t.session, t.ends, a.owner, a.expires, s.label, \
             coalesce(s.observe, 0) AS observe \
             FROM tokens t LEFT JOIN agents a ON a.name = t.agent LEFT JOIN sessions s ON s.id = t.session \
             WHERE t.ends IS NULL OR t.ends > $1",
        )
        .bind(now - REMEMBERED)
        .fetch_all(&self.readers())
        .await?;
        Ok(rows.iter().filter_map(|row| token(row).transpose()).collect::<Result<_, _>>()?)
    }
}

/// As [`Store::agents`], as a connection sees them.
pub(super) async fn agents_in(connection: &mut SqliteConnection) -> Result<Vec<Agent>, StoreError> {
    let rows =
        sqlx::query("SELECT name, owner, purpose, created, expires, revoked FROM agents ORDER BY name")
            .fetch_all(connection)
            .await?;
    rows.iter().map(agent).collect()
}

fn agent(row: &SqliteRow) -> Result<Agent, StoreError> {
    Ok(Agent {
        name: name(row, "name")?.unwrap_or_else(AgentName::anonymous),
        owner: redacted(row, "owner")?.unwrap_or(Redacted::literal("")),
        purpose: redacted(row, "purpose")?,
        created: row.try_get("created")?,
        expires: row.try_get("expires")?,
        revoked: row.try_get("revoked")?,
    })
}

/// `None` for a row that nobody can present: it is not what this program writes.
fn token(row: &SqliteRow) -> Result<Option<TokenRow>, sqlx::Error> {
    let digest: &[u8] = row.try_get("digest")?;
    let (Ok(digest), Some(agent)) = (digest.try_into(), name(row, "agent")?) else { return Ok(None) };
    let ends: [Option<i64>; 2] = [row.try_get("ends")?, row.try_get("expires")?];
    Ok(Some(TokenRow {
        digest: TokenDigest(digest),
        agent,
        owner: redacted(row, "owner")?,
        ends: ends.into_iter().flatten().min(),
        session: session(row, "session")?,
        label: row.try_get("label")?,
        observe: row.try_get("observe")?,
    }))
}

pub(super) fn name(row: &SqliteRow, column: &str) -> Result<Option<AgentName>, sqlx::Error> {
    Ok(row.try_get::<&str, _>(column)?.parse().ok())
}

pub(super) fn session(row: &SqliteRow, column: &str) -> Result<Option<SessionId>, sqlx::Error> {
    let text: Option<&str> = row.try_get(column)?;
    Ok(text.and_then(|text| Ulid::from_string(text).ok()).map(SessionId))
}
