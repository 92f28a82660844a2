//! Changes to agents and sessions, each committed together with the event that tells of it.

use std::sync::Arc;

use policy::event::SessionEnd;
use policy::identity::{AgentName, SessionId, TokenDigest};
use policy::record::Happening;
use policy::redact::Redacted;
use policy::verdict::Mode;
use rusqlite::{Connection, params};

use super::committer::note;
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
    pub(super) fn apply(&self, connection: &Connection, now: i64) -> rusqlite::Result<bool> {
        let applied = match self {
            Change::AddAgent { agent, owner, purpose, expires, token } => {
                add_agent(connection, agent, owner, purpose.as_ref(), *expires, now)?
                    && add_token(connection, *token, agent, None, now)?
            }
            Change::RotateAgent { agent, token, grace_until, expires } => {
                rotate(connection, agent, *grace_until, *expires)?
                    && add_token(connection, *token, agent, None, now)?
            }
            Change::RevokeAgent { agent } => revoke(connection, agent, now)?,
            Change::ExpireAgent { agent } => expire(connection, agent, now)?,
            Change::OpenSession { session, token } => {
                open_session(connection, session, now)?;
                match token {
                    Some(token) => add_token(connection, *token, &session.agent, Some(session.id), now)?,
                    None => true,
                }
            }
            Change::Start { values, .. } => {
                note(connection, "configuration", values)?;
                true
            }
            Change::PutPolicy { policy, text, .. } => {
                put_policy(connection, policy, text)?;
                true
            }
            Change::EndSession { session, exit_code, why } => {
                end_session(connection, *session, *exit_code, *why, now)?
            }
        };
        note_change(connection, now)?;
        Ok(applied)
    }
}

fn add_agent(
    connection: &Connection,
    agent: &AgentName,
    owner: &Redacted,
    purpose: Option<&Redacted>,
    expires: Option<i64>,
    now: i64,
) -> rusqlite::Result<bool> {
    let added = connection.execute(
        "INSERT INTO agents (name, owner, purpose, created, expires) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (name) DO NOTHING",
        params![agent.as_str(), owner.as_str(), purpose.map(Redacted::as_str), now, expires],
    )?;
    Ok(added == 1)
}

fn add_token(
    connection: &Connection,
    token: TokenDigest,
    agent: &AgentName,
    session: Option<SessionId>,
    now: i64,
) -> rusqlite::Result<bool> {
    let added = connection.execute(
        "INSERT INTO tokens (digest, agent, session, created) VALUES (?1, ?2, ?3, ?4)",
        params![token.0.as_slice(), agent.as_str(), session.map(|session| session.to_string()), now],
    )?;
    Ok(added == 1)
}

fn rotate(
    connection: &Connection,
    agent: &AgentName,
    grace_until: i64,
    expires: Option<i64>,
) -> rusqlite::Result<bool> {
    let rotated = connection.execute(
        "UPDATE agents SET expires = ?2, expired = NULL WHERE name = ?1 AND revoked IS NULL",
        params![agent.as_str(), expires],
    )?;
    connection.execute(
        "UPDATE tokens SET ends = ?2 WHERE agent = ?1 AND session IS NULL AND (ends IS NULL OR ends > ?2)",
        params![agent.as_str(), grace_until],
    )?;
    Ok(rotated == 1)
}

fn revoke(connection: &Connection, agent: &AgentName, now: i64) -> rusqlite::Result<bool> {
    let revoked = connection.execute(
        "UPDATE agents SET revoked = ?2 WHERE name = ?1 AND revoked IS NULL",
        params![agent.as_str(), now],
    )?;
    connection.execute(
        "UPDATE tokens SET ends = ?2 WHERE agent = ?1 AND (ends IS NULL OR ends > ?2)",
        params![agent.as_str(), now],
    )?;
    Ok(revoked == 1)
}

fn put_policy(connection: &Connection, digest: &str, text: &str) -> rusqlite::Result<()> {
    let put = "INSERT INTO policies (digest, text) VALUES (?1, ?2) ON CONFLICT (digest) DO NOTHING";
    connection.execute(put, params![digest, text]).map(drop)
}

fn expire(connection: &Connection, agent: &AgentName, now: i64) -> rusqlite::Result<bool> {
    let expired = connection.execute(
        "UPDATE agents SET expired = ?2 WHERE name = ?1 AND expires <= ?2 AND expired IS NULL",
        params![agent.as_str(), now],
    )?;
    Ok(expired == 1)
}

fn open_session(connection: &Connection, new: &NewSession, now: i64) -> rusqlite::Result<()> {
    fn text(text: &Option<Redacted>) -> Option<&str> {
        text.as_ref().map(Redacted::as_str)
    }
    let opened = connection.execute(
        "INSERT INTO sessions (id, agent, label, tool, command, repo, branch, commit_id, observe, implicit, started) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            new.id.to_string(),
            new.agent.as_str(),
            text(&new.label),
            text(&new.tool),
            text(&new.command),
            text(&new.repo),
            text(&new.branch),
            text(&new.commit),
            new.observe,
            new.implicit,
            now,
        ],
    );
    opened.map(drop)
}

fn end_session(
    connection: &Connection,
    session: SessionId,
    exit_code: Option<i32>,
    why: SessionEnd,
    now: i64,
) -> rusqlite::Result<bool> {
    let session = session.to_string();
    let ended = connection.execute(
        "UPDATE sessions SET ended = ?2, exit_code = ?3, why = ?4 WHERE id = ?1 AND ended IS NULL",
        params![session, now, exit_code, why.as_str()],
    )?;
    connection
        .execute("UPDATE tokens SET ends = ?2 WHERE session = ?1 AND ends IS NULL", params![session, now])?;
    Ok(ended == 1)
}

/// Tells whoever keeps identities in memory, in this process or another, that they changed.
fn note_change(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    note(connection, "identities", &clock::ulid(now).to_string())
}
