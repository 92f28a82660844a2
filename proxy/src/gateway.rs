//! The gateway as a whole: built in order, each step failing before anything listens; run; drained.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::PROXY_AUTHORIZATION;
use policy::decide::{Grants, Policy};
use policy::identity::AgentName;
use policy::record::{Decision, Outcome};
use policy::redact::Redactor;
use policy::secret::Secrets;
use policy::target::Host;
use policy::usage::{Ledger, Usage};
use policy::verdict::Reason;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::{self, Listener};
use crate::admin;
use crate::audit::Recorder;
use crate::clock;
use crate::config::{Config, RefuseMode};
use crate::dial::Dialer;
use crate::folder;
use crate::forward::Forwarder;
use crate::identify::{Client, Identities, IdentityError};
use crate::metrics::Metrics;
use crate::policies;
use crate::reply::Refusal;
use crate::resolve::Resolver;
use crate::running::{Claim, Running};
use crate::slots::Slots;
use crate::store::Store;
use crate::tls::{Authority, Mint, UpstreamTls};

/// How long requests under way may take to end once the gateway was told to stop.
const DRAIN: Duration = Duration::from_secs(20);
/// How often policy files are looked at for a change; a change is in force within two seconds.
const WATCH: Duration = Duration::from_millis(700);
/// With `--until-idle`: how long nobody may use the gateway before it ends.
const IDLE_EXIT: Duration = Duration::from_secs(10);

/// Everything that a connection needs.
pub struct Gateway {
    /// Settings.
    pub config: Config,
    /// Every series.
    pub metrics: Arc<Metrics>,
    /// Commits decisions and outcomes.
    pub recorder: Recorder,
    /// Who may ask.
    pub identities: Arc<Identities>,
    /// Certificates for clients.
    pub mint: Mint,
    /// Connections upstream.
    pub dialer: Arc<Dialer>,
    /// Places for connections.
    pub places: Arc<Semaphore>,
    /// Connections by agent.
    pub slots: Slots,
    /// Every task that belongs to a connection.
    pub tasks: TaskTracker,
    /// No new requests: the gateway is about to stop.
    pub draining: CancellationToken,
    /// No new connections.
    pub stopping: CancellationToken,
    protocols: UpstreamTls,
    ledger: Mutex<Ledger>,
    current: ArcSwap<CurrentPolicy>,
}

/// The policy in force with what is made from it.
pub struct CurrentPolicy {
    /// The rules.
    pub rules: Arc<Policy>,
    /// Detectors and known values.
    pub secrets: Arc<Secrets>,
    /// The door of the records.
    pub redactor: Redactor,
    /// Connections made under this policy.
    pub forwarder: Forwarder,
}

impl Gateway {
    /// The policy in force. A request keeps the one it began with; the next request has the next one.
    pub fn policy(&self) -> Arc<CurrentPolicy> {
        self.current.load_full()
    }

    /// Who asks, by `Proxy-Authorization`.
    ///
    /// # Errors
    /// 407 in one of its three reasons, or two contradicting headers.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Client, Refusal> {
        let mut values = headers.get_all(PROXY_AUTHORIZATION).iter();
        let value = values.next();
        if values.next().is_some() {
            return Err(Refusal::plain(Reason::MalformedRequest, "it has more than one `proxy-authorization` header"));
        }
        self.identities.identify(value.map(http::HeaderValue::as_bytes)).map_err(|error| {
            let reason = match error {
                IdentityError::Required => Reason::IdentityRequired,
                IdentityError::Unknown => Reason::IdentityUnknown,
                IdentityError::Expired => Reason::IdentityExpired,
                IdentityError::Malformed => Reason::MalformedRequest,
            };
            Refusal::plain(reason, error.to_string())
        })
    }

    /// What an agent has sent lately to a host's domain, and altogether.
    pub fn usage(&self, agent: &AgentName, host: &Host) -> Usage {
        self.usage_of(agent, self.policy().rules.domain(host))
    }

    /// As [`Gateway::usage`], by domain.
    pub fn usage_of(&self, agent: &AgentName, domain: &str) -> Usage {
        self.ledger().usage(agent, domain, clock::now())
    }

    /// Charges bytes that leave.
    pub fn charge(&self, agent: &AgentName, domain: &str, bytes: u64, now: i64) -> Usage {
        self.ledger().charge(agent, domain, bytes, now)
    }

    /// Answers that people have given.
    pub fn grants(&self) -> Grants {
        Grants::default()
    }

    /// Counts an exchange that has ended. The last word counts, once.
    pub fn account(&self, decision: &Decision, outcome: &Outcome) {
        self.metrics.decided(decision.class, outcome.action, outcome.reason);
        self.metrics.requested(decision.class, decision.service.as_deref());
        self.metrics.agent_requested(&decision.agent, outcome.action);
        for finding in decision.findings.iter().chain(&outcome.findings) {
            self.metrics.found(finding);
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Counts are whole after any panic.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new policy in force. Connections made under the old one are not used again.
    fn enforce(&self, rules: Arc<Policy>) {
        let current = CurrentPolicy::new(rules, &self.dialer, &self.protocols, self.recorder.digest_key());
        self.current.store(Arc::new(current));
    }
}

impl CurrentPolicy {
    fn new(rules: Arc<Policy>, dialer: &Arc<Dialer>, protocols: &UpstreamTls) -> CurrentPolicy {
        let secrets = rules.secrets();
        let redactor = Redactor::new(Arc::clone(&secrets));
        let forwarder = Forwarder::new(dialer, &rules, protocols);
        CurrentPolicy { rules, secrets, redactor, forwarder }
    }
}

impl Config {
    /// Whether a CONNECT that no request could use is refused itself.
    pub fn refuses_connect(&self) -> bool {
        self.refuse == RefuseMode::Connect
    }
}
