//! Changes to agents and sessions, each committed together with the event that tells of it.

use std::sync::Arc;

use policy::event::SessionEnd;
use policy::identity::{AgentName, SessionId, TokenDigest};
use policy::record::Happening;
use policy::redact::Redacted;
use policy::verdict::Mode;
use sqlx::sqlite::SqliteConnection;

use crate::clock;

/// A session that begins.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `Happening::SessionOpened`")]
pub struct NewSession {
    pub id: SessionId,
    pub agent: AgentName,
    pub label: Option<Redacted>,
    pub tool: Option<Redacted>,
    pub command: Option<Redacted>,
    pub repo: Option<Redacted>,
    pub branch: Option<Redacted>,
    pub commit: Option<Redacted>,
    pub observe: bool,
    /// Opened by a label in credentials, to be ended when idle.
    pub implicit: bool,
}

/// One change.
#[derive(Clone, Debug)]
pub enum Change {
    /// An agent is registered.
    AddAgent {
        /// Its name.
        agent: AgentName,
        /// Who answers for it.
        owner: Redacted,
        /// What it is for.
        purpose: Option<Redacted>,
        /// When its credentials end.
        expires: Option<i64>,
        /// Its first token.
        token: TokenDigest,
    },
    /// An agent gets a new token.
    RotateAgent {
        /// Its name.
        agent: AgentName,
        /// The new token.
        token: TokenDigest,
        /// Until when the tokens before it are taken.
        grace_until: i64,
        /// When its credentials end from now on.
        expires: Option<i64>,
    },
    /// An agent's tokens are taken no longer.
    RevokeAgent {
        /// Its name.
        agent: AgentName,
    },
    /// An agent's time is up, which is noted once.
    ExpireAgent {
        /// Its name.
        agent: AgentName,
    },
    /// A session begins.
    OpenSession {
        /// The session.
        session: NewSession,
        /// The token that stands for it, where it has one.
        token: Option<TokenDigest>,
    },
    /// The gateway starts; its settings are remembered, to be compared at the next start.
    Start {
        /// Its version.
        version: Arc<str>,
        /// Digest of its settings.
        configuration: Arc<str>,
        /// The settings, JSON.
        values: String,
    },
    /// A policy comes into force; what it says is kept.
    PutPolicy {
        /// Its digest.
        policy: Arc<str>,
        /// Its mode.
        mode: Mode,
        /// The policy it replaces.
        previous: Option<Arc<str>>,
        /// The policy, as `policy show` prints it.
        text: String,
    },
    /// A session ends.
    EndSession {
        /// The session.
        session: SessionId,
        /// Exit code of its command.
        exit_code: Option<i32>,
        /// Why.
        why: SessionEnd,
    },
}

impl Change {
    /// What the chain says of it.
    pub fn happening(&self) -> Happening {
        match self.clone() {
            Change::AddAgent { agent, owner, purpose, expires, token: _ } => {
                Happening::AgentCreated { agent, owner, purpose, expires }
            }
            Change::RotateAgent { agent, grace_until, expires, token: _ } => {
                Happening::AgentRotated { agent, grace_until, expires }
            }
            Change::RevokeAgent { agent } => Happening::AgentRevoked { agent },
            Change::ExpireAgent { agent } => Happening::AgentExpired { agent },
            Change::OpenSession { session: new, token: _ } => Happening::SessionOpened {
                session: new.id,
                agent: new.agent,
                label: new.label,
                tool: new.tool,
                command: new.command,
                repo: new.repo,
                branch: new.branch,
                commit: new.commit,
                observe: new.observe,
            },
            Change::Start { version, configuration, values: _ } => {
                Happening::Started { version, configuration: Some(configuration) }
            }
            Change::PutPolicy { policy, mode, previous, text: _ } => {
                Happening::PolicyInForce { policy, mode, previous }
            }
            Change::EndSession { session, exit_code, why } => {
                Happening::SessionEnded { session, exit_code, why }
            }
        }
    }

    /// Carries it out. `false` where it no longer applies: the name is taken, the agent or session is over.
    /// `now` is the event's time: what the tables say of it is what the record says.
    pub(super) async fn apply(
        &self,
        connection: &mut SqliteConnection,
        now: i64,
    ) -> Result<bool, sqlx::Error> {
        let applied = match self {
            Change::AddAgent { agent, owner, purpose, expires, token } => {
                add_agent(connection, agent, owner, purpose.as_ref(), *expires, now).await?
                    && add_token(connection, *token, agent, None, now).await?
            }
            Change::RotateAgent { agent, token, grace_until, expires } => {
                rotate(connection, agent, *grace_until, *expires).await?
                    && add_token(connection, *token, agent, None, now).await?
            }
            Change::RevokeAgent { agent } => revoke(connection, agent, now).await?,
            Change::ExpireAgent { agent } => expire(connection, agent, now).await?,
            Change::OpenSession { session, token } => {
                open_session(connection, session, now).await?;
                match token {
                    Some(token) => {
                        add_token(connection, *token, &session.agent, Some(session.id), now).await?
                    }
                    None => true,
                }
            }
            Change::Start { values, .. } => {
                super::set_meta(connection, "configuration", values).await?;
                true
            }
            Change::PutPolicy { policy, text, .. } => {
                put_policy(connection, policy, text).await?;
                true
            }
            Change::EndSession { session, exit_code, why } => {
                end_session(connection, *session, *exit_code, *why, now).await?
            }
        };
        note_change(connection, now).await?;
        Ok(applied)
    }
}

async fn add_agent(
    connection: &mut SqliteConnection,
    agent: &AgentName,
    owner: &Redacted,
    purpose: Option<&Redacted>,
    expires: Option<i64>,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO agents (name, owner, purpose, created, expires) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(agent.as_str())
    .bind(owner.as_str())
    .bind(purpose.map(Redacted::as_str))
    .bind(now)
    .bind(expires)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn add_token(
    connection: &mut SqliteConnection,
    token: TokenDigest,
    agent: &AgentName,
    session: Option<SessionId>,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("INSERT INTO tokens (digest, agent, session, created) VALUES ($1, $2, $3, $4)")
        .bind(token.0.to_vec())
        .bind(agent.as_str())
        .bind(session.map(|session| session.to_string()))
        .bind(now)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

async fn rotate(
    connection: &mut SqliteConnection,
    agent: &AgentName,
    grace_until: i64,
    expires: Option<i64>,
) -> Result<bool, sqlx::Error> {
    let done =
        sqlx::query("UPDATE agents SET expires = $2, expired = NULL WHERE name = $1 AND revoked IS NULL")
            .bind(agent.as_str())
            .bind(expires)
            .execute(&mut *connection)
            .await?;
    sqlx::query(
        "UPDATE tokens SET ends = $2 WHERE agent = $1 AND session IS NULL AND (ends IS NULL OR ends > $2)",
    )
    .bind(agent.as_str())
    .bind(grace_until)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn revoke(connection: &mut SqliteConnection, agent: &AgentName, now: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE agents SET revoked = $2 WHERE name = $1 AND revoked IS NULL")
        .bind(agent.as_str())
        .bind(now)
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE tokens SET ends = $2 WHERE agent = $1 AND (ends IS NULL OR ends > $2)")
        .bind(agent.as_str())
        .bind(now)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

async fn put_policy(connection: &mut SqliteConnection, digest: &str, text: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO policies (digest, text) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING")
        .bind(digest)
        .bind(text)
        .execute(connection)
        .await?;
    Ok(())
}

async fn expire(connection: &mut SqliteConnection, agent: &AgentName, now: i64) -> Result<bool, sqlx::Error> {
    let done =
        sqlx::query("UPDATE agents SET expired = $2 WHERE name = $1 AND expires <= $2 AND expired IS NULL")
            .bind(agent.as_str())
            .bind(now)
            .execute(connection)
            .await?;
    Ok(done.rows_affected() == 1)
}

async fn open_session(
    connection: &mut SqliteConnection,
    new: &NewSession,
    now: i64,
) -> Result<(), sqlx::Error> {
    let text = |text: &Option<Redacted>| text.as_ref().map(|text| text.as_str().to_owned());
    sqlx::query(
        "INSERT INTO sessions (id, agent, label, tool, command, repo, branch, commit_id, observe, implicit, started) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(new.id.to_string())
    .bind(new.agent.as_str())
    .bind(text(&new.label))
    .bind(text(&new.tool))
    .bind(text(&new.command))
    .bind(text(&new.repo))
    .bind(text(&new.branch))
    .bind(text(&new.commit))
    .bind(new.observe)
    .bind(new.implicit)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

async fn end_session(
    connection: &mut SqliteConnection,
    session: SessionId,
    exit_code: Option<i32>,
    why: SessionEnd,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE sessions SET ended = $2, exit_code = $3, why = $4 WHERE id = $1 AND ended IS NULL",
    )
    .bind(session.to_string())
    .bind(now)
    .bind(exit_code)
    .bind(why.as_str())
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE tokens SET ends = $2 WHERE session = $1 AND ends IS NULL")
        .bind(session.to_string())
        .bind(now)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Tells whoever keeps identities in memory, in this process or another, that they changed.
async fn note_change(connection: &mut SqliteConnection, now: i64) -> Result<(), sqlx::Error> {
    super::set_meta(connection, "identities", &clock::ulid(now).to_string()).await
}
