//! A question: what is asked, by whom, and who waits for it.

use std::collections::{BTreeMap, BTreeSet};

use ulid::Ulid;

use super::Answer;
use crate::decide::{Grant, Holder, Methods, Point};
use crate::identity::{AgentName, SessionId};
use crate::redact::Redacted;
use crate::target::Target;

/// What one question lists of what is wanted. More than a person will read before an answer.
pub const WANTED: usize = 20;

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

/// What a request wants, as people are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its method.
    pub method: Option<Redacted>,
    /// Its path and query.
    pub path: Option<Redacted>,
}

impl Asked {
    pub(super) fn wanted(&self) -> Wanted {
        Wanted { method: self.method.clone(), path: self.path.clone() }
    }
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
    /// What was wanted, each once and in the order in which it was asked: never empty, and no more than [`WANTED`].
    /// What is wanted beyond these is not shown, and so passes by no answer for once.
    pub wanted: Vec<Wanted>,
    /// When it was asked first, in microseconds since the Unix epoch.
    pub asked: i64,
    /// Until when it can be answered, or until when its answer holds.
    pub expires: i64,
    /// How many requests asked it.
    pub requests: u64,
    /// Where it stands.
    pub state: State,
    pub(super) waiting: BTreeMap<RequestId, Asked>,
    pub(super) sessions: BTreeSet<Option<SessionId>>,
}

impl Question {
    /// How many requests wait for it now.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many of those that wait want what is not among `wanted`.
    pub fn unlisted(&self) -> usize {
        self.waiting.values().filter(|asked| !self.shows(asked, WANTED)).count()
    }

    /// How many requests an answer lets go on or refuses, given by somebody who was shown so many of `wanted`.
    pub fn reached(&self, answer: Answer, shown: usize) -> usize {
        match answer {
            Answer::Once => self.waiting.values().filter(|asked| self.shows(asked, shown)).count(),
            _ => self.waiting.len(),
        }
    }

    /// Whether what a request wants is among the first so many of `wanted`; the first always was shown.
    pub(super) fn shows(&self, asked: &Asked, shown: usize) -> bool {
        let wanted = asked.wanted();
        self.wanted.iter().take(shown.max(1)).any(|listed| *listed == wanted)
    }

    pub(super) fn is_over(&self, now: i64) -> bool {
        self.waiting.is_empty() && now >= self.expires
    }
}
