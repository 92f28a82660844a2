//! Alerts: what a person should hear of now. Gathered, signed, posted to webhooks, and never in the way of a request.
//!
//! Whoever has something to tell calls [`Alerts`], which does not wait: each webhook has a bounded queue and a task of
//! its own, and what finds no room is counted. Text of a request reaches an alert as [`Redacted`] only.

mod carrier;
mod desktop;
mod digest;
mod shape;
mod sign;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use policy::identity::{AgentName, SessionId};
use policy::record::{Decision, Outcome};
use policy::redact::Redacted;
use policy::verdict::Class;
use serde::{Serialize, Serializer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use crate::clock;
use crate::config::AlertKind;
use crate::metrics::Metrics;

pub use carrier::Receiver;
pub use sign::AlertKey;

/// Alerts that wait for one webhook.
const QUEUE: usize = 1024;
/// Alerts that are kept to be shown.
const RECENT: usize = 200;
/// Domains that are remembered as seen; from then on none is called new.
const DOMAINS: usize = 100_000;
/// How long an end waits for what is still to be sent.
const DRAIN: Duration = Duration::from_secs(5);

/// Something that a person should hear of.
#[derive(Clone, Debug)]
pub struct Alert {
    /// When, in microseconds since the Unix epoch.
    pub time: i64,
    /// What it is about; the first kind that a webhook wants is the one it is told.
    pub kinds: Vec<AlertKind>,
    /// In a sentence. Made of our own words and of redacted text.
    text: String,
    /// Alerts of one key are equal.
    key: String,
    /// The agent.
    pub agent: Option<AgentName>,
    /// Its session.
    pub session: Option<SessionId>,
    /// The host.
    pub host: Option<Redacted>,
    /// The rule.
    pub rule: Option<Redacted>,
    /// The reason code.
    pub reason: Option<&'static str>,
    /// The decision, or the question where one waits.
    pub decision: Option<Ulid>,
    /// Where a question can be answered.
    pub reply_url: Option<String>,
    /// What to POST to so that it is denied.
    pub deny_url: Option<String>,
    /// Whether every webhook that wants it has it.
    sent: Arc<Delivery>,
}

/// How many webhooks an alert is still on its way to.
#[derive(Debug, Default)]
struct Delivery {
    wanted: AtomicU64,
    told: AtomicU64,
}

/// A question that waits for a person.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    /// The question.
    pub id: Ulid,
    /// Who asks.
    pub agent: &'a AgentName,
    /// In which session.
    pub session: Option<SessionId>,
    /// Where to, as people write it.
    pub destination: &'a Redacted,
    /// The rule that asks; `None` for a class's default.
    pub rule: Option<&'a Redacted>,
    /// What to POST to so that it is approved once.
    pub reply_url: Option<&'a str>,
    /// What to POST to so that it is denied.
    pub deny_url: Option<&'a str>,
}

/// Takes alerts. Cheap to clone.
#[derive(Clone)]
pub struct Alerts {
    shared: Arc<Shared>,
}

struct Shared {
    routes: Vec<Route>,
    desktop: bool,
    desktop_fails: AtomicBool,
    recent: Mutex<VecDeque<Recent>>,
    /// Domains seen before; `None` until the store has told which.
    known: Mutex<Option<HashSet<Box<str>>>>,
    dropped: AtomicU64,
    failed: Arc<AtomicU64>,
    closing: CancellationToken,
    carriers: Mutex<Vec<JoinHandle<()>>>,
}

/// The way to one webhook.
struct Route {
    wants: Vec<AlertKind>,
    queue: mpsc::Sender<Alert>,
}

struct Recent {
    alert: Alert,
    count: u64,
}

/// What is shown of alerts.
#[derive(Debug, Serialize)]
pub struct Overview {
    /// The latest first.
    pub alerts: Vec<Shown>,
    /// Alerts that found no room in a queue.
    pub dropped: u64,
    /// Alerts that no webhook took, however often it was tried.
    pub failed: u64,
}

/// One alert as it is shown.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are those of `Alert`")]
pub struct Shown {
    /// RFC 3339.
    pub time: String,
    #[serde(serialize_with = "word")]
    pub kind: AlertKind,
    pub text: String,
    pub agent: Option<AgentName>,
    pub host: Option<Redacted>,
    pub decision: Option<Ulid>,
    /// How often the same happened.
    pub count: u64,
    pub sent: bool,
}

fn word<S: Serializer>(kind: &AlertKind, serializer: S) -> Result<S::Ok, S::Error> {
    use crate::config::Word as _;
    serializer.serialize_str(kind.word())
}

impl Alerts {
    /// Starts a task for each receiver.
    pub fn start(receivers: Vec<Receiver>, desktop: bool, metrics: &Arc<Metrics>) -> Alerts {
        let closing = CancellationToken::new();
        let failed = Arc::new(AtomicU64::new(0));
        let (mut routes, mut carriers) = (Vec::new(), Vec::new());
        for receiver in receivers {
            let (queue, waiting) = mpsc::channel(QUEUE);
            routes.push(Route { wants: receiver.wants.clone(), queue });
            let carry = receiver.carry(waiting, Arc::clone(metrics), Arc::clone(&failed), closing.clone());
            carriers.push(tokio::spawn(carry));
        }
        Alerts {
            shared: Arc::new(Shared {
                routes,
                desktop,
                desktop_fails: AtomicBool::new(false),
                recent: Mutex::default(),
                known: Mutex::default(),
                dropped: AtomicU64::new(0),
                failed,
                closing,
                carriers: Mutex::new(carriers),
            }),
        }
    }

    /// Nobody is told; what happens can still be looked at.
    pub fn silent() -> Alerts {
        Alerts::start(Vec::new(), false, &Metrics::new())
    }

    /// The domains that were seen before this gateway started. Until this is called none is called new.
    pub fn knows(&self, domains: impl IntoIterator<Item = String>) {
        let mut known = lock(&self.shared.known);
        let known = known.get_or_insert_default();
        known.extend(domains.into_iter().map(String::into_boxed_str));
    }

    /// An exchange has ended.
    pub fn exchange(&self, decision: &Decision, outcome: &Outcome) {
        let new = decision.class == Class::Unknown && self.is_new(decision.domain.as_ref());
        if let Some(alert) = told::exchange(decision, outcome, new) {
            self.tell(alert);
        }
    }

    /// A question waits for a person. To be called once for each question, when it begins to wait.
    pub fn approval_waiting(&self, waiting: &Waiting<'_>) {
        let alert = told::waiting(waiting);
        if self.shared.desktop {
            self.notify(&alert);
        }
        self.tell(alert);
    }

    /// Records cannot be written, for a reason in the program's own words.
    pub fn audit_failure(&self, problem: &str) {
        self.tell(told::audit_failure(problem));
    }

    /// An agent's time is nearly up.
    pub fn expiring(&self, agent: &AgentName) {
        self.tell(told::expiring(agent));
    }

    /// What was told lately, and what was not.
    pub fn overview(&self) -> Overview {
        let recent = lock(&self.shared.recent);
        let shown = |recent: &Recent| Shown {
            time: policy::view::rfc3339(recent.alert.time),
            kind: recent.alert.kinds[0],
            text: recent.alert.text.clone(),
            agent: recent.alert.agent.clone(),
            host: recent.alert.host.clone(),
            decision: recent.alert.decision,
            count: recent.count,
            sent: recent.alert.sent.is_complete(),
        };
        Overview {
            alerts: recent.iter().rev().map(shown).collect(),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        }
    }

    /// Sends what was gathered and ends, within a few seconds.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        let carriers = std::mem::take(&mut *lock(&self.shared.carriers));
        let all = async {
            for carrier in carriers {
                // A task that panicked has told so.
                let _ = carrier.await;
            }
        };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            tracing::warn!("the last alerts did not reach their webhooks");
        }
    }

    fn tell(&self, alert: Alert) {
        let wanting = self.shared.routes.iter();
        let wanting = wanting.filter(|route| alert.kinds.iter().any(|kind| route.wants.contains(kind)));
        for route in wanting {
            alert.sent.wanted.fetch_add(1, Ordering::Relaxed);
            if route.queue.try_send(alert.clone()).is_err() {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.remember(alert);
    }

    fn remember(&self, alert: Alert) {
        let mut recent = lock(&self.shared.recent);
        if let Some(last) = recent.iter_mut().rev().find(|recent| recent.alert.key == alert.key) {
            last.count += 1;
            last.alert.time = alert.time;
            return;
        }
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back(Recent { alert, count: 1 });
    }

    /// Whether nothing of a domain was seen before. From here on it was.
    fn is_new(&self, domain: Option<&Redacted>) -> bool {
        let (Some(domain), mut known) = (domain, lock(&self.shared.known)) else { return false };
        let Some(known) = known.as_mut() else { return false };
        if known.contains(domain.as_str()) || known.len() >= DOMAINS {
            return false;
        }
        known.insert(domain.as_str().into())
    }

    fn notify(&self, alert: &Alert) {
        let (shared, text) = (Arc::clone(&self.shared), alert.text.clone());
        tokio::spawn(async move {
            if let Err(error) = desktop::notify(&text).await
                && !shared.desktop_fails.swap(true, Ordering::Relaxed)
            {
                tracing::warn!(%error, "no notification could be shown; this is told once");
            }
        });
    }
}

impl Alert {
    fn new(kind: AlertKind, key: String, text: String) -> Alert {
        Alert {
            time: clock::now(),
            kinds: vec![kind],
            text,
            key,
            agent: None,
            session: None,
            host: None,
            rule: None,
            reason: None,
            decision: None,
            reply_url: None,
            deny_url: None,
            sent: Arc::default(),
        }
    }

    /// In a sentence.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Delivery {
    fn is_complete(&self) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        wanted > 0 && self.told.load(Ordering::Relaxed) >= wanted
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Lists are whole after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
