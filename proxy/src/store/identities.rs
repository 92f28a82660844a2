//! What the records say of agents and sessions, held against the tables that say it for quick reading.

use std::collections::HashMap;

use policy::chain::{BadRecord, Problem};
use policy::event::{Event, Happening, SessionEnd};
use policy::identity::{AgentName, SessionId};
use policy::redact::Redacted;

use super::agents::Agent;
use super::sessions::Session;
use super::{Store, StoreError};

/// Agents and sessions as the events seen so far have them.
#[derive(Debug, Default)]
pub(super) struct IdentityLog {
    agents: HashMap<AgentName, (u64, AgentSaid)>,
    sessions: HashMap<SessionId, (u64, SessionSaid)>,
}

#[derive(Debug, PartialEq, Eq)]
struct AgentSaid {
    owner: Redacted,
    purpose: Option<Redacted>,
    expires: Option<i64>,
    revoked: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct SessionSaid {
    agent: AgentName,
    /// Label, tool, command, repo, branch and commit.
    texts: [Option<Redacted>; 6],
    observe: bool,
    ended: Option<(Option<i32>, SessionEnd)>,
}

impl IdentityLog {
    pub(super) fn event(&mut self, seq: u64, event: &Event) {
        match event.what.clone() {
            Happening::AgentCreated { agent, owner, purpose, expires } => {
                self.agents.insert(agent, (seq, AgentSaid { owner, purpose, expires, revoked: false }));
            }
            Happening::AgentRotated { agent, expires, .. } => {
                self.agent(seq, &agent, |said| said.expires = expires);
            }
            Happening::AgentRevoked { agent } => self.agent(seq, &agent, |said| said.revoked = true),
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
                self.sessions.insert(session, (seq, SessionSaid { agent, texts, observe, ended: None }));
            }
            Happening::SessionEnded { session, exit_code, why } => {
                if let Some((last, said)) = self.sessions.get_mut(&session)
                    && said.ended.is_none()
                {
                    *last = seq;
                    said.ended = Some((exit_code, why));
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

    /// The first record that a table contradicts.
    pub(super) async fn differs(&self, store: &Store) -> Result<Option<BadRecord>, StoreError> {
        let mut bad = Vec::new();
        if !self.agents.is_empty() {
            let rows: HashMap<_, _> =
                store.agents().await?.into_iter().map(|row| (row.name.clone(), row)).collect();
            let differs = |(name, (seq, said)): (&AgentName, &(u64, AgentSaid))| {
                let same = rows.get(name).is_some_and(|row| said.is(row));
                (!same).then(|| named(*seq, "agents", format!("the agent `{name}`")))
            };
            bad.extend(self.agents.iter().filter_map(differs));
        }
        if !self.sessions.is_empty() {
            let rows: HashMap<_, _> =
                store.sessions(None).await?.into_iter().map(|row| (row.id, row)).collect();
            let differs = |(id, (seq, said)): (&SessionId, &(u64, SessionSaid))| {
                let same = rows.get(id).is_some_and(|row| said.is(row));
                (!same).then(|| named(*seq, "sessions", format!("the session `{id}`")))
            };
            bad.extend(self.sessions.iter().filter_map(differs));
        }
        Ok(bad.into_iter().min_by_key(|bad| bad.seq))
    }
}

fn named(seq: u64, table: &'static str, who: String) -> BadRecord {
    BadRecord { seq, problem: Problem::Table(table, who) }
}

impl AgentSaid {
    fn is(&self, row: &Agent) -> bool {
        (&self.owner, &self.purpose, self.expires) == (&row.owner, &row.purpose, row.expires)
            && self.revoked == row.revoked.is_some()
    }
}

impl SessionSaid {
    fn is(&self, row: &Session) -> bool {
        let texts = [&row.label, &row.tool, &row.command, &row.repo, &row.branch, &row.commit];
        let ended = row.ended.map(|_| (row.exit_code, row.why.unwrap_or(SessionEnd::Closed)));
        self.agent == row.agent
            && self.texts.iter().eq(texts)
            && self.observe == row.observe
            && self.ended == ended
    }
}
