//! What is handed to the writer: a record made canonical by whoever asked, with the columns it is searched by.

use std::sync::Arc;

use policy::identity::{AgentName, SessionId};
use policy::record::{Decision, Event, Outcome, OutcomeKind, Timing};
use policy::verdict::{Action, Class, Reason};
use ulid::Ulid;

use super::change::Change;
use super::findings;
use crate::clock;
use crate::signing::Signer;

/// One record that waits to be written.
#[derive(Clone, Debug)]
pub struct Entry(pub(super) Body);

#[derive(Clone, Debug)]
pub(super) enum Body {
    Decision(Text, Arc<DecisionColumns>),
    Outcome(Text, OutcomeColumns),
    Event(Text, Option<PlannedChange>),
    Close(Ulid, Closing),
    Checkpoint(Arc<Signer>),
    Pruned(Text, u64),
}

/// A change, and whether the transaction fails where it no longer applies.
#[derive(Clone, Debug)]
pub(super) struct PlannedChange {
    pub change: Arc<Change>,
    /// The time of its event.
    pub time: i64,
    pub must_apply: bool,
}

/// The canonical text of a record and its time.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub canonical: Arc<str>,
    pub time: i64,
}

#[derive(Debug)]
pub(super) struct DecisionColumns {
    pub id: Ulid,
    pub session: Option<SessionId>,
    pub agent: AgentName,
    pub class: Class,
    pub host: Option<Arc<str>>,
    pub domain: Option<Arc<str>>,
    pub action: Action,
    pub reason: Reason,
    pub findings: i64,
    /// The service, where it is a model's.
    pub provider: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
pub(super) struct OutcomeColumns {
    pub decision: Ulid,
    pub action: Action,
    pub reason: Reason,
    pub findings: i64,
    pub bytes: u64,
    pub model: Option<Arc<str>>,
}

/// How the writer itself ends an exchange of which nobody else can say how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Whoever asked went before the decision was told.
    Abandoned,
    /// The decision was refused as unavailable, but turned out to be committed.
    Unavailable,
    /// The gateway died.
    Interrupted,
}

impl Entry {
    /// A decision.
    pub fn decision(decision: &Decision) -> Entry {
        let shared = |text: &policy::redact::Redacted| Arc::from(text.as_str());
        let columns = DecisionColumns {
            id: decision.id,
            session: decision.session,
            agent: decision.agent.clone(),
            class: decision.class,
            host: decision.host.as_ref().map(shared),
            domain: decision.domain.as_ref().map(shared),
            action: decision.action,
            reason: decision.reason,
            findings: findings::bits(&decision.findings),
            provider: decision.service.clone().filter(|_| decision.class == Class::Model),
        };
        Entry(Body::Decision(Text::new(decision.canonical(), decision.time), Arc::new(columns)))
    }

    /// An outcome. Dropped by the writer where its decision is not open.
    pub fn outcome(outcome: &Outcome) -> Entry {
        let columns = OutcomeColumns::of(outcome);
        Entry(Body::Outcome(Text::new(outcome.canonical(), outcome.time), columns))
    }

    /// An event that is told, nothing else changes.
    pub fn event(event: &Event) -> Entry {
        Entry(Body::Event(Text::new(event.canonical(), event.time), None))
    }

    /// A change to agents or sessions, with the event that tells of it. Where it `must_apply` and does not, because
    /// the name is taken or the session over, the whole transaction fails.
    pub fn change(event: &Event, change: Change, must_apply: bool) -> Entry {
        let change = PlannedChange { change: Arc::new(change), time: event.time, must_apply };
        Entry(Body::Event(Text::new(event.canonical(), event.time), Some(change)))
    }

    /// The end of an exchange that nobody else can tell. Dropped by the writer where the decision is not open.
    pub fn close(decision: Ulid, closing: Closing) -> Entry {
        Entry(Body::Close(decision, closing))
    }

    /// A signed checkpoint of the record before it, signed when its place is known.
    pub fn checkpoint(signer: Arc<Signer>) -> Entry {
        Entry(Body::Checkpoint(signer))
    }

    /// The event that tells of a pruning, with the last record that is to go.
    pub fn pruned(event: &Event, through: u64) -> Entry {
        Entry(Body::Pruned(Text::new(event.canonical(), event.time), through))
    }

    /// The decision's identifier, where it is one.
    pub fn decides(&self) -> Option<Ulid> {
        match &self.0 {
            Body::Decision(_, columns) => Some(columns.id),
            _ => None,
        }
    }

    /// Whether more changes than the chain.
    pub fn is_change(&self) -> bool {
        matches!(&self.0, Body::Event(_, Some(_)))
    }
}

impl Text {
    pub(super) fn new(canonical: String, time: i64) -> Text {
        Text { canonical: canonical.into(), time }
    }
}

impl OutcomeColumns {
    pub(super) fn of(outcome: &Outcome) -> OutcomeColumns {
        OutcomeColumns {
            decision: outcome.decision,
            action: outcome.action,
            reason: outcome.reason,
            findings: findings::bits(&outcome.findings),
            bytes: outcome.request_bytes,
            model: outcome.model.as_ref().map(|model| Arc::from(model.as_str())),
        }
    }
}

impl Closing {
    /// The outcome that says so, of a decision with this action and reason.
    pub(super) fn outcome(self, decision: Ulid, action: Action, reason: Reason) -> Outcome {
        let (outcome, last) = match self {
            Closing::Abandoned => (OutcomeKind::Abandoned, (action, reason)),
            Closing::Unavailable => (OutcomeKind::Denied, (Action::Deny, Reason::AuditUnavailable)),
            Closing::Interrupted => (OutcomeKind::Interrupted, (action, reason)),
        };
        Outcome {
            action: last.0,
            body: None,
            decided: (last.0 != action).then_some(action),
            decision,
            findings: Vec::new(),
            model: None,
            ms: Timing::default(),
            outcome,
            reason: last.1,
            request_bytes: 0,
            response_bytes: 0,
            status: None,
            time: clock::now(),
            upstream: None,
            would: None,
            would_reason: None,
        }
    }
}
