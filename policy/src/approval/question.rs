//! A question: what is asked, by whom, and who waits for it.

use std::collections::BTreeSet;

use ulid::Ulid;

use crate::decide::{Grant, Holder, Methods, Point};
use crate::identity::{AgentName, SessionId};
use crate::redact::Redacted;
use crate::target::Target;

/// Number of a request that waits, unique for as long as it does.
pub type RequestId = u64;

/// What is asked: requests that agree in all of it are one question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct About {
    /// Who asks.
    pub agent: AgentName,
    /// Where to.
    pub target: Target,
    /// What the request may do there.
    pub methods: Methods,
    /// What of the policy asks.
    pub point: Point,
}

impl About {
    pub(super) fn grant(&self, holder: Holder, until: Option<i64>) -> Grant {
        Grant {
            agent: self.agent.clone(),
            holder,
            target: self.target.clone(),
            methods: self.methods,
            point: self.point.clone(),
            until,
        }
    }
}

/// A request about which a person has to be asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request.
    pub request: RequestId,
    /// What is asked.
    pub about: About,
    /// The session it belongs to.
    pub session: Option<SessionId>,
    /// Its method, for people.
    pub method: Option<Redacted>,
    /// Its path and query, for people.
    pub path: Option<Redacted>,
    /// Name of the question, where it is a new one.
    pub id: Ulid,
    /// When it gives up, in microseconds since the Unix epoch.
    pub until: i64,
}

/// Where a question stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for a person.
    Pending,
    /// It was answered with no, which holds until it expires.
    Denied,
    /// It was answered with yes, for the next request that asks the same.
    Once,
}

/// A question.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its name.
    pub id: Ulid,
    /// What is asked.
    pub about: About,
    /// Session of the request that asked first.
    pub session: Option<SessionId>,
    /// Its method.
    pub method: Option<Redacted>,
    /// Its path and query.
    pub path: Option<Redacted>,
    /// When it was asked first, in microseconds since the Unix epoch.
    pub asked: i64,
    /// Until when it can be answered, or until when its answer holds.
    pub expires: i64,
    /// How many requests asked it.
    pub requests: u64,
    /// Where it stands.
    pub state: State,
    pub(super) waiting: BTreeSet<RequestId>,
    pub(super) sessions: BTreeSet<Option<SessionId>>,
}

impl Question {
    /// How many requests wait for it now.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_over(&self, now: i64) -> bool {
        self.waiting.is_empty() && now >= self.expires
    }
}
