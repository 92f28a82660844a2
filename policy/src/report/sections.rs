//! The rows of a report's sections.

use std::sync::Arc;

use serde::Serialize;

use super::{Listed, Moment};
use crate::event::SessionEnd;
use crate::identity::{AgentName, SessionId};
use crate::verdict::{Action, Class, Mode, Reason};

/// Requests and what they moved. Bytes are those of exchanges that ended, heads included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Requests.
    pub requests: u64,
    /// Of them refused.
    pub denied: u64,
    /// Bytes that left.
    pub bytes_up: u64,
    /// Bytes that came back.
    pub bytes_down: u64,
}

impl Amount {
    /// Adds another.
    pub(crate) fn add(&mut self, other: Amount) {
        self.requests += other.requests;
        self.denied += other.denied;
        self.bytes_up = self.bytes_up.saturating_add(other.bytes_up);
        self.bytes_down = self.bytes_down.saturating_add(other.bytes_down);
    }
}

/// All requests together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Requests: those allowed, those denied and those held.
    pub requests: u64,
    /// Allowed in the end, also where the upstream failed.
    pub allowed: u64,
    /// Denied in the end.
    pub denied: u64,
    /// Held for an answer that has not come.
    pub held: u64,
    /// Of all, those about which a person was to be asked.
    pub asked: u64,
    /// Of those allowed, how many enforcing would have denied or held.
    pub would_be_denied: u64,
    /// Bytes that left, heads included.
    pub bytes_up: u64,
    /// Bytes that came back, heads included.
    pub bytes_down: u64,
    /// Secrets found where they do not belong, however often each.
    pub secrets: u64,
    /// Of them stopped: their bytes have not left.
    pub secrets_stopped: u64,
    /// Requests over a limit on uploads.
    pub uploads_over_limits: u64,
    /// Different destinations, as far as they were told apart.
    pub destinations: u64,
    /// Requests that go on, so that their bytes are not known yet.
    pub in_flight: u64,
    /// Requests whose gateway died, so that their bytes are not known.
    pub interrupted: u64,
    /// Requests stopped while their upload was under way.
    pub cut: u64,
    /// Requests whose upstream failed.
    pub failed: u64,
    /// Requests whose client went.
    pub abandoned: u64,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the fields are those of the store's session")]
pub struct SessionRow {
    pub session: SessionId,
    pub agent: AgentName,
    pub label: Option<String>,
    pub tool: Option<String>,
    pub repo: Option<String>,
    pub branch: Option<String>,
    pub commit: Option<String>,
    pub model: Option<String>,
    pub observe: bool,
    pub started: Moment,
    pub ended: Option<Moment>,
    pub exit_code: Option<i32>,
    pub why: Option<SessionEnd>,
    /// What it asked for within the period.
    #[serde(flatten)]
    pub amount: Amount,
}

/// An agent with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentRow {
    /// Its name.
    pub agent: AgentName,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// Whether its tokens are taken; `None` for `anonymous` and for agents that are not registered.
    pub status: Option<AgentStatus>,
    /// When its credentials end.
    pub expires: Option<Moment>,
    /// What it asked for.
    #[serde(flatten)]
    pub amount: Amount,
    /// Secrets found in its requests.
    pub secrets: u64,
}

/// Whether an agent's tokens are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    /// They are.
    Active,
    /// Its time is up.
    Expired,
    /// It was revoked.
    Revoked,
}

impl AgentStatus {
    /// The word used in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            AgentStatus::Active => "active",
            AgentStatus::Expired => "expired",
            AgentStatus::Revoked => "revoked",
        }
    }
}

/// A class of destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassRow {
    /// The class.
    pub class: Class,
    /// What was allowed to it.
    #[serde(flatten)]
    pub amount: Amount,
    /// The services of it, or the domains where there is no service, by bytes up.
    pub services: Listed<PlaceRow>,
}

/// A service, or a domain that belongs to none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlaceRow {
    /// The service.
    pub service: Option<Arc<str>>,
    /// The domain, where there is no service.
    pub domain: Option<String>,
    /// What was allowed to it.
    #[serde(flatten)]
    pub amount: Amount,
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DestinationRow {
    /// Host, with the port where the scheme does not say it.
    pub destination: String,
    /// Its class.
    pub class: Class,
    /// Its service.
    pub service: Option<Arc<str>>,
    /// What was asked of it.
    #[serde(flatten)]
    pub amount: Amount,
    /// The first request.
    pub first: Moment,
    /// The last one.
    pub last: Moment,
}

/// Equal refusals, or what enforcing would have refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeniedRow {
    /// Host, with the port where the scheme does not say it.
    pub destination: String,
    /// Its class.
    pub class: Class,
    /// Why.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<String>,
    /// How often.
    pub requests: u64,
    /// The first time.
    pub first: Moment,
    /// The last time.
    pub last: Moment,
    /// Who asked last.
    pub agent: AgentName,
    /// The command that would allow it, where one would.
    pub allow: Option<String>,
}

/// A person's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// When.
    pub time: Moment,
    /// Who answered.
    pub by: Option<String>,
    /// What was asked about.
    pub approval: Arc<str>,
    /// The answer: `approve` or `deny`.
    pub answer: Arc<str>,
    /// How far it reaches.
    pub scope: Arc<str>,
    /// Whose question it was.
    pub agent: Option<AgentName>,
    /// The destination that was asked about.
    pub destination: Option<String>,
    /// Number of the record.
    pub seq: u64,
}

/// What became of something that should not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It did not leave.
    Stopped,
    /// The request went on: with the secret masked, or with it only recorded.
    Passed,
    /// Nobody can say yet, or any more.
    Open,
}

impl Fate {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Fate::Stopped => "stopped",
            Fate::Passed => "passed",
            Fate::Open => "open",
        }
    }
}

/// Equal secrets: what kind, where, how many. Never what they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretRow {
    /// The detector, or `known:NAME`.
    pub detector: Arc<str>,
    /// Where in the request.
    #[serde(rename = "where")]
    pub place: Arc<str>,
    /// On the way to.
    pub destination: String,
    /// What became of it.
    pub fate: Fate,
    /// How many.
    pub count: u64,
    /// In how many requests.
    pub requests: u64,
}

/// A service's own credential, used where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CredentialRow {
    /// The service.
    pub service: Option<Arc<str>>,
    /// The destination, where it is no service.
    pub destination: Option<String>,
    /// The detector, or `known:NAME`.
    pub detector: Arc<str>,
    /// Where in the request.
    #[serde(rename = "where")]
    pub place: Arc<str>,
    /// In how many requests.
    pub requests: u64,
}

/// Uploads over one limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UploadRow {
    /// Where to.
    pub destination: String,
    /// Which limit: `request_alert`, `request_block`, `window_alert` …
    pub of: Arc<str>,
    /// The limit, in bytes.
    pub limit: u64,
    /// The most that was counted when it was passed, in bytes.
    pub bytes: u64,
    /// What became of it.
    pub fate: Fate,
    /// How many requests.
    pub requests: u64,
}

/// A kind of finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FindingRow {
    /// The kind, one of [`Finding::KINDS`](crate::record::Finding::KINDS).
    pub kind: &'static str,
    /// Requests with such a finding.
    pub requests: u64,
}

/// A host that looks like another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LookalikeRow {
    /// The host.
    pub destination: String,
    /// What it looks like.
    pub looks_like: Arc<str>,
    /// How often it was asked for, and what moved.
    #[serde(flatten)]
    pub amount: Amount,
}

/// An unknown domain that was first met in the period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DomainRow {
    /// The registrable domain, or the host where it has none.
    pub domain: String,
    /// The first request to it.
    pub first: Moment,
    /// Who asked for it first.
    pub agent: AgentName,
    /// What was done with the first request.
    pub action: Action,
    /// What moved.
    #[serde(flatten)]
    pub amount: Amount,
}

/// A policy that requests were decided by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyRow {
    /// Its digest.
    pub policy: Arc<str>,
    /// Requests decided by it.
    pub requests: u64,
    /// Of them only observed.
    pub observed: u64,
    /// The first.
    pub first: Moment,
    /// The last.
    pub last: Moment,
}

/// A policy that came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyChange {
    /// When.
    pub time: Moment,
    /// Who did it, where a person did.
    pub by: Option<String>,
    /// Its digest.
    pub policy: Arc<str>,
    /// Its mode.
    pub mode: Mode,
    /// What it replaced.
    pub previous: Option<Arc<str>>,
    /// Number of the record.
    pub seq: u64,
}

/// One thing that happened to the gateway, its settings or its agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangeRow {
    /// When.
    pub time: Moment,
    /// Who did it, where a person did.
    pub by: Option<String>,
    /// What, by the word of the record: `started`, `agent_created` …
    pub event: &'static str,
    /// The agent, where it is about one.
    pub agent: Option<AgentName>,
    /// The rest, in words.
    pub detail: Option<String>,
    /// Number of the record.
    pub seq: u64,
}
