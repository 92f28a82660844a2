//! What is kept besides requests: who changed what, and when the gateway itself started and stopped.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::anchor::Anchor;
use crate::identity::{AgentName, SessionId};
use crate::redact::Redacted;
use crate::verdict::Mode;

/// One thing that happened, a link of the audit chain like decisions and outcomes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in microseconds since the Unix epoch.
    pub time: i64,
    /// Who did it, where a person did: a user of the machine or of the API.
    pub by: Option<Redacted>,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened. In a record its name is the value of the key `event`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// The gateway started.
    Started {
        /// Its version.
        version: Arc<str>,
        /// Digest of its configuration, `sha256:…`.
        configuration: Option<Arc<str>>,
    },
    /// The gateway stopped in good order.
    Stopped,
    /// The machine's clock moved against the time that passed.
    ClockJumped {
        /// By how many milliseconds, negative where it went back.
        milliseconds: i64,
    },
    /// A policy came into force.
    PolicyInForce {
        /// Its digest, `sha256:…`.
        policy: Arc<str>,
        /// Its mode.
        mode: Mode,
        /// The policy it replaces, where one was in force.
        previous: Option<Arc<str>>,
    },
    /// A certificate authority came into force: whom clients have to trust from then on.
    AuthorityInForce {
        /// Its fingerprint, as `outgate ca show` prints it.
        fingerprint: Arc<str>,
        /// That of the authority it replaces, where one was in force.
        previous: Option<Arc<str>>,
    },
    /// A setting changed while the gateway ran, or since it last ran.
    ConfigurationChanged {
        /// Digest of the configuration, `sha256:…`.
        configuration: Arc<str>,
        /// The keys that changed.
        keys: Vec<Arc<str>>,
    },
    /// An agent was registered.
    AgentCreated {
        /// Its name.
        agent: AgentName,
        /// Who answers for it.
        owner: Redacted,
        /// What it is for.
        purpose: Option<Redacted>,
        /// When its credentials end.
        expires: Option<i64>,
    },
    /// An agent was given a new token.
    AgentRotated {
        /// Its name.
        agent: AgentName,
        /// Until when the tokens before it are taken.
        grace_until: i64,
        /// When its credentials end from now on.
        expires: Option<i64>,
    },
    /// An agent's tokens are taken no longer.
    AgentRevoked {
        /// Its name.
        agent: AgentName,
    },
    /// An agent's time was up.
    AgentExpired {
        /// Its name.
        agent: AgentName,
    },
    /// A session began.
    SessionOpened {
        /// The session.
        session: SessionId,
        /// Whose it is.
        agent: AgentName,
        /// Its label.
        label: Option<Redacted>,
        /// The program that is run.
        tool: Option<Redacted>,
        /// The command as given, redacted.
        command: Option<Redacted>,
        /// The repository it was started in.
        repo: Option<Redacted>,
        /// The branch.
        branch: Option<Redacted>,
        /// The commit.
        commit: Option<Redacted>,
        /// Whether the session only observes.
        observe: bool,
    },
    /// A session ended.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// Exit code of the command, where one was run.
        exit_code: Option<i32>,
        /// Why it ended.
        why: SessionEnd,
    },
    /// A person answered what was held.
    ApprovalAnswered {
        /// What was asked about, `approval` in `approvals list`.
        approval: Arc<str>,
        /// The answer: `approve` or `deny`.
        answer: Arc<str>,
        /// How far it reaches: `once`, `session`, `1h`, `always`.
        scope: Arc<str>,
        /// Whose question it was.
        agent: Option<AgentName>,
        /// The destination that was asked about, `https://host:port`.
        destination: Option<Redacted>,
        /// The rule that asked.
        rule: Option<Redacted>,
    },
    /// Old records were dropped. What is left follows on `through` with `hash`.
    Pruned {
        /// Sequence number of the last record dropped.
        through: u64,
        /// Its hash, in hexadecimal.
        hash: Arc<str>,
        /// How many were dropped.
        records: u64,
    },
    /// The state of the chain, signed, so that it can be compared elsewhere. It is of the record before it.
    Checkpoint {
        /// Sequence number of the record it speaks of.
        through: u64,
        /// Its hash, in hexadecimal.
        hash: Arc<str>,
        /// The public key, in hexadecimal.
        key: Arc<str>,
        /// The signature, in hexadecimal; see [`anchor`](crate::anchor).
        signature: Arc<str>,
    },
}

impl Event {
    /// The signed point that a checkpoint is.
    pub fn checkpoint(&self) -> Option<Anchor> {
        match &self.what {
            Happening::Checkpoint { through, hash, key, signature } => Some(Anchor {
                hash: hash.clone(),
                key: key.clone(),
                signature: signature.clone(),
                through: *through,
                time: self.time,
            }),
            _ => None,
        }
    }
}

impl From<Anchor> for Event {
    /// The record of a checkpoint.
    fn from(anchor: Anchor) -> Event {
        let Anchor { hash, key, signature, through, time } = anchor;
        Event { time, by: None, what: Happening::Checkpoint { through, hash, key, signature } }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionEnd {
    /// Its command ended.
    Exited,
    /// Nothing was asked in its name for long.
    Idle,
    /// Somebody ended it.
    Closed,
    /// The `run` that it belonged to was killed.
    Lost,
}

impl SessionEnd {
    /// The word used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionEnd::Exited => "exited",
            SessionEnd::Idle => "idle",
            SessionEnd::Closed => "closed",
            SessionEnd::Lost => "lost",
        }
    }

    /// What a word of records means.
    pub fn from_word(word: &str) -> Option<SessionEnd> {
        [SessionEnd::Exited, SessionEnd::Idle, SessionEnd::Closed, SessionEnd::Lost]
            .into_iter()
            .find(|end| end.as_str() == word)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn events() -> Vec<Event> {
        let session = SessionId(ulid::Ulid::from_parts(1_795_000_000_000, 1));
        let agent: AgentName = "claude".parse().unwrap();
        [
            Happening::AgentRotated {
                agent: agent.clone(),
                grace_until: 1_795_000_600_000_000,
                expires: None,
            },
            Happening::Started { version: "0.1.0".into(), configuration: None },
            Happening::Stopped,
            Happening::ClockJumped { milliseconds: -3_600_000 },
            Happening::PolicyInForce { policy: "sha256:00".into(), mode: Mode::Observe, previous: None },
            Happening::SessionOpened {
                session,
                agent,
                label: Some(Redacted::literal("fix-42")),
                tool: None,
                command: None,
                repo: None,
                branch: None,
                commit: None,
                observe: false,
            },
            Happening::SessionEnded { session, exit_code: Some(130), why: SessionEnd::Exited },
            Happening::Pruned { through: 12, hash: "00".into(), records: 12 },
        ]
        .map(|what| Event { time: 1_795_000_000_000_000, by: Some(Redacted::literal("ana")), what })
        .into()
    }

    #[test]
    fn canonical_bytes_have_sorted_keys_and_say_what_happened() {
        let texts: Vec<String> = events().iter().map(Event::canonical).collect();
        assert_eq!(
            texts[0],
            r#"{"agent":"claude","by":"ana","event":"agent_rotated","expires":null,"grace_until":1795000600000000,"time":1795000000000000}"#
        );
        assert_eq!(texts[2], r#"{"by":"ana","event":"stopped","time":1795000000000000}"#);
        for (text, event) in texts.iter().zip(events()) {
            assert_eq!(serde_json::from_str::<Event>(text).unwrap(), event, "{text}");
        }
    }
}
