//! What is counted, told by what happened: `decided`, `uploaded`, `audit_committed`.
//!
//! Label values come from closed sets only, so that no client can make series. Handles of series without agent or
//! service are made at start: they are there at zero from the first scrape, and counting costs an index, not a
//! look-up.

mod series;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use policy::identity::AgentName;
use policy::record::Finding;
use policy::secret::Detector;
use policy::verdict::{Action, Class, Reason};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

use crate::audit::Counters;

pub use series::SERIES;
use series::Series;

/// What else than a detector redacts: query values, an operator's known values, and whatever has no name here.
const OTHER_REDACTIONS: [&str; 3] = ["query", "known", "other"];
const LIMITS: [&str; 5] =
    ["request_alert", "request_block", "window_alert", "window_block", "window_block_agent"];

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A person said yes, for whatever scope.
    Approved,
    /// A person said no.
    Denied,
    /// Nobody answered in time.
    Timeout,
    /// There was nobody to ask.
    Unattended,
    /// The client went before an answer came.
    Withdrawn,
}

const ANSWERS: [&str; 5] = ["approved", "denied", "timeout", "unattended", "withdrawn"];

/// Whether something worked.
const RESULTS: [&str; 2] = ["ok", "failed"];
const SIDES: [&str; 2] = ["client", "upstream"];

/// All series and the handles to them.
pub struct Metrics {
    registry: Registry,
    series: Series,
    /// By class, then by reason; each reason with the one action that it is a reason for.
    decisions: [Vec<IntCounter>; Class::ALL.len()],
    uploads: [IntCounter; Class::ALL.len()],
    downloads: [IntCounter; Class::ALL.len()],
    upload_alerts: [[IntCounter; LIMITS.len()]; Class::ALL.len()],
    findings: Vec<IntCounter>,
    redactions: HashMap<&'static str, IntCounter>,
    /// By side, then by result.
    handshakes: [[IntCounter; RESULTS.len()]; SIDES.len()],
    approvals: [IntCounter; ANSWERS.len()],
    reloads: [IntCounter; RESULTS.len()],
    alerts: [IntCounter; RESULTS.len()],
    sampling: Mutex<()>,
}

/// A request that is under way, until it is dropped.
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers everything, with `process_*` beside it.
    pub fn new() -> Arc<Metrics> {
        let registry = Registry::new();
        let series =
            Series::registered(&registry).expect("names and labels are literals that a test registers");
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("no series of ours begins with `process_`");
        series.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Arc::new(Metrics {
            decisions: by_class(|class| {
                let handle = |reason| decision(&series.decisions, class, usual_action(reason), reason);
                Reason::ALL.iter().map(|reason| handle(*reason)).collect()
            }),
            uploads: by_class(|class| series.uploads.with_label_values(&[class.as_str()])),
            downloads: by_class(|class| series.downloads.with_label_values(&[class.as_str()])),
            upload_alerts: by_class(|class| {
                LIMITS.map(|limit| series.upload_alerts.with_label_values(&[class.as_str(), limit]))
            }),
            findings: Finding::KINDS.iter().map(|kind| series.findings.with_label_values(&[*kind])).collect(),
            redactions: Detector::all()
                .map(Detector::name)
                .chain(OTHER_REDACTIONS)
                .map(|name| (name, series.redactions.with_label_values(&[name])))
                .collect(),
            handshakes: SIDES
                .map(|side| RESULTS.map(|result| series.handshakes.with_label_values(&[side, result]))),
            approvals: ANSWERS.map(|answer| series.approvals.with_label_values(&[answer])),
            reloads: RESULTS.map(|result| series.reloads.with_label_values(&[result])),
            alerts: RESULTS.map(|result| series.alerts.with_label_values(&[result])),
            sampling: Mutex::new(()),
            series,
            registry,
        })
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        let families = self.registry.gather();
        TextEncoder::new().encode_to_string(&families).expect("every family has a name and a sample")
    }

    /// The last word on a request was said.
    pub fn decided(&self, class: Class, action: Action, reason: Reason) {
        if action == usual_action(reason) {
            self.decisions[class as usize][reason as usize].inc();
        } else {
            decision(&self.series.decisions, class, action, reason).inc();
        }
    }

    /// A request to a destination of this class, and of this service of the catalogue or the policy.
    pub fn requested(&self, class: Class, service: Option<&str>) {
        self.series.requests.with_label_values(&[class.as_str(), service.unwrap_or("")]).inc();
    }

    /// The last word on a request of an agent was said. The agent must be a registered one, or `anonymous`.
    pub fn agent_requested(&self, agent: &AgentName, action: Action) {
        self.series.agent_requests.with_label_values(&[agent.as_str(), action.as_str()]).inc();
    }

    /// A request began; it lasts until the guard is dropped.
    pub fn began(&self) -> InFlight {
        self.series.in_flight.inc();
        InFlight(self.series.in_flight.clone())
    }

    /// How many requests are under way.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.series.in_flight.get()).unwrap_or(0)
    }

    /// Bytes left. The agent must be a registered one, or `anonymous`.
    pub fn uploaded(&self, class: Class, agent: &AgentName, bytes: u64) {
        self.uploads[class as usize].inc_by(bytes);
        self.series.agent_uploads.with_label_values(&[agent.as_str(), class.as_str()]).inc_by(bytes);
    }

    /// Bytes came back.
    pub fn downloaded(&self, class: Class, bytes: u64) {
        self.downloads[class as usize].inc_by(bytes);
    }

    /// An upload passed the limit of that name; other names count nowhere.
    pub fn upload_alert(&self, class: Class, limit: &str) {
        if let Some(index) = LIMITS.iter().position(|known| *known == limit) {
            self.upload_alerts[class as usize][index].inc();
        }
    }

    /// Something was seen in a request.
    pub fn found(&self, finding: &Finding) {
        if let Some(index) = Finding::KINDS.iter().position(|kind| *kind == finding.kind()) {
            self.findings[index].inc();
        }
    }

    /// Text was redacted or masked: by a detector's name, `query`, or `known:NAME`.
    pub fn redacted(&self, detector: &str, times: u64) {
        let name = if detector.starts_with("known:") { "known" } else { detector };
        if let Some(counter) = self.redactions.get(name).or_else(|| self.redactions.get("other")) {
            counter.inc_by(times);
        }
    }

    /// A request spent this long in the gateway, rather than upstream or with a person.
    pub fn overhead(&self, time: Duration) {
        self.series.overhead.observe(time.as_secs_f64());
    }

    /// Deciding took this long.
    pub fn decide_took(&self, time: Duration) {
        self.series.decide.observe(time.as_secs_f64());
    }

    /// Resolving, connecting and shaking hands took this long.
    pub fn connect_took(&self, time: Duration) {
        self.series.connect.observe(time.as_secs_f64());
    }

    /// A TLS handshake with a client ended.
    pub fn client_handshake(&self, worked: bool) {
        self.handshakes[0][result(worked)].inc();
    }

    /// A TLS handshake with a destination ended.
    pub fn upstream_handshake(&self, worked: bool) {
        self.handshakes[1][result(worked)].inc();
    }

    /// The counter of leaf certificates made.
    pub fn certificates_minted(&self) -> IntCounter {
        self.series.certificates.clone()
    }

    /// A client connection was turned away because too many were open.
    pub fn connection_refused(&self) {
        self.series.connections_refused.inc();
    }

    /// Takes over what the recorder has counted so far.
    pub fn audited(&self, counters: &Counters) {
        // Two scrapes at once must not both add the same difference.
        let _turn = self.sampling.lock().unwrap_or_else(PoisonError::into_inner);
        raise(&self.series.audit_commits, counters.commits.load(Ordering::Relaxed));
        raise(&self.series.audit_failures, counters.failures.load(Ordering::Relaxed));
        self.series.audit_queue.set(counters.queue_depth.load(Ordering::Relaxed) as i64);
    }

    /// So many questions wait for a person.
    pub fn approvals_pending(&self, questions: usize) {
        self.series.approvals_pending.set(questions as i64);
    }

    /// A question came to its end.
    pub fn answered(&self, answer: Answer) {
        self.approvals[answer as usize].inc();
    }

    /// So many sessions have begun and not ended.
    pub fn sessions_active(&self, sessions: usize) {
        self.series.sessions.set(sessions as i64);
    }

    /// The policy was read again.
    pub fn policy_reloaded(&self, worked: bool) {
        self.reloads[result(worked)].inc();
    }

    /// An alert was sent.
    pub fn alert_sent(&self, worked: bool) {
        self.alerts[result(worked)].inc();
    }
}

fn by_class<T>(make: impl Fn(Class) -> T) -> [T; Class::ALL.len()] {
    Class::ALL.map(make)
}

fn decision(series: &IntCounterVec, class: Class, action: Action, reason: Reason) -> IntCounter {
    series.with_label_values(&[class.as_str(), action.as_str(), reason.as_str()])
}

/// The action that a reason is a reason for. `ask` is never the last word.
fn usual_action(reason: Reason) -> Action {
    match reason {
        Reason::AllowedByRule
        | Reason::AllowedByDefault
        | Reason::AllowedByApproval
        | Reason::AllowedByObserve => Action::Allow,
        _ => Action::Deny,
    }
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn result(worked: bool) -> usize {
    usize::from(!worked)
}

#[cfg(test)]
mod tests;
