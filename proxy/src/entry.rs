//! One exchange in the record: a decision committed first, exactly one outcome at its end, whatever ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use policy::record::{BodyExcerpt, Decision, Finding, Outcome, OutcomeKind, Timing};
use policy::redact::Redacted;
use policy::verdict::{Action, Mode, Reason};
use ulid::Ulid;

use crate::audit::AuditUnavailable;
use crate::clock;
use crate::gateway::Gateway;
use crate::metrics::InFlight;

/// A committed decision whose outcome is still to come. Dropping it records that the client went.
pub struct Entry {
    gateway: Arc<Gateway>,
    decision: Decision,
    progress: Arc<Progress>,
    started: Instant,
    done: bool,
    _in_flight: InFlight,
}

/// What happens while bytes move, written by the two bodies and read when the exchange ends.
#[derive(Default)]
pub struct Progress {
    /// Bytes that left.
    pub sent: AtomicU64,
    /// Bytes that came back.
    pub received: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stop: Option<Stop>,
    would: Option<Reason>,
    findings: Vec<Finding>,
    excerpt: Option<BodyExcerpt>,
    model: Option<Redacted>,
    status: Option<u16>,
    upstream: Option<SocketAddr>,
    /// The address that was judged and not dialled.
    refused: Option<SocketAddr>,
    timing: Timing,
    /// The request's body is still on its way.
    uploading: bool,
    /// An exchange whose response is over, while its upload is not.
    waiting: Option<(Box<Entry>, OutcomeKind)>,
}

/// Why an exchange was broken off, or did not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The reason that prevails over the decision's.
    pub reason: Reason,
    /// For the client: goes on from "outgate refused this request: ".
    pub what: String,
}

impl Progress {
    /// Notes why the exchange stops. The first reason stays.
    pub fn stop(&self, reason: Reason, what: impl Into<String>) {
        let mut state = self.lock();
        if state.stop.is_none() {
            state.stop = Some(Stop { reason, what: what.into() });
        }
    }

    /// Notes what would have stopped the exchange if the policy were enforced. The first reason stays.
    pub fn would_stop(&self, reason: Reason) {
        self.lock().would.get_or_insert(reason);
    }

    /// Why the exchange stops, where it does.
    pub fn stopped(&self) -> Option<Stop> {
        self.lock().stop.clone()
    }

    /// Adds something seen.
    pub fn find(&self, finding: Finding) {
        self.lock().findings.push(finding);
    }

    /// Sets the excerpt of the body.
    pub fn excerpt(&self, excerpt: BodyExcerpt) {
        self.lock().excerpt = Some(excerpt);
    }

    /// Sets the model that the request names.
    pub fn model(&self, model: Redacted) {
        self.lock().model = Some(model);
    }

    /// Sets the status that the client is given.
    pub fn status(&self, status: u16) {
        self.lock().status = Some(status);
    }

    /// Sets the address that the request went to, and how long connecting took on a fresh connection.
    pub fn upstream(&self, address: SocketAddr, connect_ms: Option<f64>) {
        let mut state = self.lock();
        state.upstream = Some(address);
        state.timing.connect = connect_ms;
    }

    /// Sets the address that was judged and may not be dialled: whoever wants it allowed has to know it.
    pub fn refused_address(&self, address: SocketAddr) {
        self.lock().refused = Some(address);
    }

    /// Whether a connection upstream was had.
    pub fn connected(&self) -> bool {
        self.lock().upstream.is_some()
    }

    /// Changes the timing.
    pub fn timing(&self, change: impl FnOnce(&mut Timing)) {
        change(&mut self.lock().timing);
    }

    /// How long a person was waited for.
    pub fn held(&self) -> std::time::Duration {
        std::time::Duration::from_secs_f64(self.lock().timing.held.max(0.0) / 1000.0)
    }

    /// A body begins: from here on the exchange is over only with [`Progress::upload_ended`].
    pub fn upload_began(&self) {
        self.lock().uploading = true;
    }

    /// The body is complete or given up. Writes the outcome, where the response was over before.
    pub fn upload_ended(&self) {
        let waiting = {
            let mut state = self.lock();
            state.uploading = false;
            state.waiting.take()
        };
        if let Some((mut entry, kind)) = waiting {
            entry.close(kind);
        }
    }

    /// Whether the response is over and only the upload is still waited for.
    pub fn outlived(&self) -> bool {
        self.lock().waiting.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is plain data, whole after any panic.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Entry {
    /// Commits `decision`; only then may the name be resolved or a byte leave.
    ///
    /// # Errors
    /// Where the decision could not be committed: nothing may be sent, and there is no row.
    pub async fn commit(
        gateway: &Arc<Gateway>,
        decision: Decision,
        progress: Arc<Progress>,
        started: Instant,
    ) -> Result<Entry, AuditUnavailable> {
        if let Err(error) = gateway.recorder.decision(&decision).await {
            gateway.metrics.decided(decision.class, Action::Deny, Reason::AuditUnavailable);
            return Err(error);
        }
        let _in_flight = gateway.metrics.began();
        Ok(Entry { gateway: Arc::clone(gateway), decision, progress, started, done: false, _in_flight })
    }

    /// Identifier of the decision.
    pub fn id(&self) -> Ulid {
        self.decision.id
    }

    /// Counters and notes of this exchange.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The agent the exchange belongs to.
    pub fn agent(&self) -> &policy::identity::AgentName {
        &self.decision.agent
    }

    /// Class of the destination.
    pub fn class(&self) -> policy::verdict::Class {
        self.decision.class
    }

    /// Time since the exchange began.
    pub fn elapsed(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// Milliseconds since the exchange began.
    pub fn milliseconds(&self) -> f64 {
        milliseconds(self.started)
    }

    /// Closes the exchange. A destination may answer before it has read everything: what leaves after that belongs to
    /// the record all the same, so the outcome waits for the end of the upload.
    pub fn finish(mut self, kind: OutcomeKind) {
        let progress = Arc::clone(&self.progress);
        let mut state = progress.lock();
        if state.uploading {
            state.waiting = Some((Box::new(self), kind));
            return;
        }
        drop(state);
        self.close(kind);
    }

    fn close(&mut self, kind: OutcomeKind) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let outcome = self.outcome(kind);
        self.gateway.account(&self.decision, &outcome);
        self.gateway.recorder.outcome(&outcome);
    }

    fn outcome(&self, kind: OutcomeKind) -> Outcome {
        let sent = self.progress.sent.load(Ordering::Relaxed);
        let mut state = self.progress.lock();
        let first = self.decision.action;
        let (action, reason) = match &state.stop {
            Some(stop) => (last_action(stop.reason, first), stop.reason),
            None => (first, self.decision.reason),
        };
        let kind =
            match kind {
                OutcomeKind::Completed | OutcomeKind::Abandoned if refuses(state.stop.as_ref()) => {
                    if sent == 0 { OutcomeKind::Denied } else { OutcomeKind::Cut }
                }
                other => other,
            };
        let would_stop = state.would.filter(|_| state.stop.is_none());
        let mut timing = state.timing;
        timing.total = milliseconds(self.started);
        Outcome {
            decision: self.decision.id,
            time: clock::now(),
            outcome: kind,
            action,
            reason: if would_stop.is_some() && self.decision.mode == Mode::Observe {
                Reason::AllowedByObserve
            } else {
                reason
            },
            decided: (action != first).then_some(first),
            would: self.decision.would.or(would_stop.map(|_| Action::Deny)),
            would_reason: self.decision.would_reason.or(would_stop),
            status: state.status,
            request_bytes: sent,
            response_bytes: self.progress.received.load(Ordering::Relaxed),
            upstream: state.upstream.or(state.refused),
            ms: timing,
            findings: std::mem::take(&mut state.findings),
            body: state.excerpt.take(),
            model: state.model.take(),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.close(if std::thread::panicking() { OutcomeKind::Failed } else { OutcomeKind::Abandoned });
    }
}

/// A failure of the upstream does not make an allowed request a denied one.
fn last_action(reason: Reason, first: Action) -> Action {
    if is_failure(reason) { first } else { Action::Deny }
}

fn refuses(stop: Option<&Stop>) -> bool {
    stop.is_some_and(|stop| !is_failure(stop.reason))
}

/// Whether a reason tells of the upstream, not of a refusal.
pub fn is_failure(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::UpstreamUnreachable
            | Reason::UpstreamTlsFailed
            | Reason::UpstreamTimeout
            | Reason::NameNotFound
    )
}

/// Milliseconds since `start`, to the microsecond.
pub fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_micros() as f64 / 1000.0
}
