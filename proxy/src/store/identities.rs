//! What the records say of agents and sessions, held against the tables that say it for quick reading.

use std::collections::HashMap;

use policy::chain::{BadRecord, Problem};
use policy::event::{Event, Happening, SessionEnd};
use policy::identity::{AgentName, SessionId};
use policy::redact::Redacted;
use sqlx::sqlite::SqliteConnection;

use super::StoreError;
use super::agents::{Agent, agents_in};
use super::sessions::{Session, sessions_in};

/// Agents and sessions as the events seen so far have them.
#[derive(Debug, Default)]
pub(super) struct IdentityLog {
    agents: HashMap<AgentName, (u64, AgentSaid)>,
    sessions: HashMap<SessionId, (u64, SessionSaid)>,
    /// Agents that were revoked, also those whose creation was pruned.
    revoked: HashMap<AgentName, u64>,
}

#[derive(Debug, PartialEq, Eq)]
struct AgentSaid {
    created: i64,
    owner: Redacted,
    purpose: Option<Redacted>,
    expires: Option<i64>,
    revoked: Option<i64>,
}

#[derive(Debug, PartialEq, Eq)]
struct SessionSaid {
    agent: AgentName,
    /// Label, tool, command, repo, branch and commit.
    texts: [Option<Redacted>; 6],
    observe: bool,
    started: i64,
    ended: Option<(i64, Option<i32>, SessionEnd)>,
}

impl IdentityLog {
    pub(super) fn event(&mut self, seq: u64, event: &Event) {
        match event.what.clone() {
            Happening::AgentCreated { agent, owner, purpose, expires } => {
                self.agents.insert(
                    agent,
                    (seq, AgentSaid { created: event.time, owner, purpose, expires, revoked: None }),
                );
            }
            Happening::AgentRotated { agent, expires, .. } => {
                self.agent(seq, &agent, |said| said.expires = expires);
            }
            Happening::AgentRevoked { agent } => {
                self.agent(seq, &agent, |said| said.revoked = Some(event.time));
                self.revoked.insert(agent, seq);
            }
            Happening::SessionOpened {
                session,
                agent,
                label,
                tool,
                command,
                repo,
                branch,
                commit,
                observe,
            } => {
                let texts = [label, tool, command, repo, branch, commit];
                self.sessions.insert(
                    session,
                    (seq, SessionSaid { agent, texts, observe, started: event.time, ended: None }),
                );
            }
            Happening::SessionEnded { session, exit_code, why } => {
                if let Some((last, said)) = self.sessions.get_mut(&session)
                    && said.ended.is_none()
                {
                    *last = seq;
                    said.ended = Some((event.time, exit_code, why));
                }
            }
            _ => {}
        }
    }

    fn agent(&mut self, seq: u64, agent: &AgentName, change: impl FnOnce(&mut AgentSaid)) {
        // Of an agent whose creation was pruned nothing is known.
        if let Some((last, said)) = self.agents.get_mut(agent) {
            *last = seq;
            change(said);
        }
    }

    /// The first record that a table contradicts. Where nothing was pruned, every row has its record as well.
    pub(super) async fn differs(
        &self,
        snapshot: &mut SqliteConnection,
        start: u64,
        last: u64,
    ) -> Result<Option<BadRecord>, StoreError> {
        let mut bad = Vec::new();
        let rows: HashMap<_, _> =
            agents_in(snapshot).await?.into_iter().map(|row| (row.name.clone(), row)).collect();
        for (name, (seq, said)) in &self.agents {
            if !rows.get(name).is_some_and(|row| said.is(row)) {
                bad.push(named(*seq, "agents", format!("the agent `{name}`")));
            }
        }
        for (name, seq) in &self.revoked {
            if rows.get(name).is_some_and(|row| row.revoked.is_none()) {
                bad.push(named(*seq, "agents", format!("the agent `{name}`")));
            }
        }
        let extra = rows.keys().find(|name| start == 0 && !self.agents.contains_key(*name));
        bad.extend(extra.map(|name| named(last, "agents", format!("no record made the agent `{name}`"))));
        let rows: HashMap<_, _> = sessions_in(snapshot).await?.into_iter().map(|row| (row.id, row)).collect();
        for (id, (seq, said)) in &self.sessions {
            if !rows.get(id).is_some_and(|row| said.is(row)) {
                bad.push(named(*seq, "sessions", format!("the session `{id}`")));
            }
        }
        let extra = rows.keys().find(|id| start == 0 && !self.sessions.contains_key(*id));
        bad.extend(extra.map(|id| named(last, "sessions", format!("no record opened the session `{id}`"))));
        Ok(bad.into_iter().min_by_key(|bad| bad.seq))
    }
}

fn named(seq: u64, table: &'static str, who: String) -> BadRecord {
    BadRecord { seq, problem: Problem::Table(table, who) }
}

impl AgentSaid {
    fn is(&self, row: &Agent) -> bool {
        (&self.owner, &self.purpose) == (&row.owner, &row.purpose)
            && (self.created, self.expires, self.revoked) == (row.created, row.expires, row.revoked)
    }
}

impl SessionSaid {
    fn is(&self, row: &Session) -> bool {
        let texts = [&row.label, &row.tool, &row.command, &row.repo, &row.branch, &row.commit];
        let ended = row.ended.map(|time| (time, row.exit_code, row.why.unwrap_or(SessionEnd::Closed)));
        self.agent == row.agent
            && self.texts.iter().eq(texts)
            && (self.observe, self.started) == (row.observe, row.started)
            && self.ended == ended
    }
}
