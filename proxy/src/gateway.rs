//! What every connection shares: the policy in force, the record, identities, certificates, windows and counts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use http::header::PROXY_AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use policy::catalogue::registrable_domain;
use policy::decide::{Grants, Policy};
use policy::identity::AgentName;
use policy::record::{Decision, Outcome};
use policy::redact::{Redacted, Redactor};
use policy::scan::DigestKey;
use policy::secret::Secrets;
use policy::target::Host;
use policy::usage::{Ledger, Usage};
use policy::verdict::Reason;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alert::Alerts;
use crate::audit::Recorder;
use crate::clock;
use crate::config::Config;
use crate::dial::Dialer;
use crate::forward::Forwarder;
use crate::hold::Hold;
use crate::identify::{Client, Identities, IdentityError};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::policies::Loaded;
use crate::policies::known::Known;
use crate::remembered::Remembered;
use crate::reply::Refusal;
use crate::slots::Slots;
use crate::store::{Change, Store};
use crate::strangers::Strangers;
use crate::tls::{Mint, UpstreamTls};

/// Fences that may stand at once; each has listeners of its own.
const FENCES: usize = 256;

/// Everything that a connection needs.
pub struct Gateway {
    /// Settings.
    pub config: Config,
    /// Every series.
    pub metrics: Arc<Metrics>,
    /// Commits decisions and outcomes.
    pub recorder: Recorder,
    /// Tells people.
    pub alerts: Alerts,
    /// What was recorded.
    pub store: Store,
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
    /// What each agent asks for in vain.
    pub pace: Pace,
    /// Places for fences.
    pub fences: Arc<Semaphore>,
    /// Requests over HTTP/2 by agent.
    pub streams: Slots,
    /// Connections of which nobody knows yet whose they are.
    pub strangers: Strangers,
    /// What waits for a person.
    pub hold: Arc<Hold>,
    /// Every task that belongs to a connection.
    pub tasks: TaskTracker,
    /// The gateway is about to stop: connections end after the request they are in.
    pub draining: CancellationToken,
    /// No new connections.
    pub stopping: CancellationToken,
    /// Asks for the policy to be read again.
    pub reloads: mpsc::Sender<ReloadAsked>,
    capacity: usize,
    forwards: Arc<[SocketAddr]>,
    upstream: UpstreamTls,
    ledger: Mutex<Ledger>,
    digest_key: DigestKey,
    current: ArcSwap<CurrentPolicy>,
}

/// Somebody wants the policy files read again, and to hear every mistake in them.
pub type ReloadAsked = oneshot::Sender<Result<(), Vec<String>>>;

/// What a gateway is made of.
#[expect(missing_docs, reason = "the fields are those of `Gateway`")]
pub struct Parts {
    pub config: Config,
    pub metrics: Arc<Metrics>,
    pub recorder: Recorder,
    pub alerts: Alerts,
    pub store: Store,
    pub identities: Arc<Identities>,
    pub mint: Mint,
    pub dialer: Arc<Dialer>,
    pub upstream: UpstreamTls,
    pub ledger: Ledger,
    pub digest_key: DigestKey,
    pub loaded: Loaded,
    pub reloads: mpsc::Sender<ReloadAsked>,
    pub hold: Arc<Hold>,
    /// How many connections may be open at once.
    pub places: usize,
}

/// The policy in force with what is made from it.
pub struct CurrentPolicy {
    /// The rules.
    pub rules: Arc<Policy>,
    /// Detectors and known values.
    pub secrets: Arc<Secrets>,
    /// For each known value the number of its source in the policy.
    pub known_sources: Vec<usize>,
    /// The known values themselves, for the next policy.
    pub known: Known,
    /// The key under which secrets are digested.
    pub digest_key: DigestKey,
    /// The door of the records.
    pub redactor: Redactor,
    hosts: Remembered<Host, Named>,
    rule_names: Remembered<Arc<str>, Redacted>,
    /// Connections made under this policy.
    pub forwarder: Forwarder,
    /// Cancelled when another policy takes this one's place: what lives on is judged again.
    pub superseded: CancellationToken,
}

/// A destination as records name it.
#[derive(Clone, Debug)]
pub struct Named {
    /// The host.
    pub host: Redacted,
    /// Its registrable domain.
    pub domain: Redacted,
}

impl Gateway {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Gateway> {
        let current =
            CurrentPolicy::new(parts.loaded, &parts.dialer, &parts.upstream, &parts.digest_key, parts.places);
        let limits = &parts.config.limits;
        let slots = Slots::new(limits.connections_per_agent);
        let draining = CancellationToken::new();
        Arc::new(Gateway {
            places: Arc::new(Semaphore::new(parts.places)),
            capacity: parts.places,
            fences: Arc::new(Semaphore::new(FENCES)),
            forwards: parts.config.fence.forward.as_slice().into(),
            pace: Pace::new(slots.clone(), draining.clone()),
            slots,
            streams: Slots::new(limits.connections_per_agent),
            strangers: Strangers::default(),
            hold: parts.hold,
            tasks: TaskTracker::new(),
            draining,
            stopping: CancellationToken::new(),
            config: parts.config,
            metrics: parts.metrics,
            recorder: parts.recorder,
            alerts: parts.alerts,
            store: parts.store,
            identities: parts.identities,
            mint: parts.mint,
            dialer: parts.dialer,
            reloads: parts.reloads,
            upstream: parts.upstream,
            ledger: Mutex::new(parts.ledger),
            digest_key: parts.digest_key,
            current: ArcSwap::from_pointee(current),
        })
    }

    /// The policy in force. A request keeps the one it began with; the next request has the next one.
    pub fn policy(&self) -> Arc<CurrentPolicy> {
        self.current.load_full()
    }

    /// Puts a new policy in force once that is recorded. Connections made under the old one are not used again.
    ///
    /// # Errors
    /// Where it cannot be recorded; the old policy stays.
    pub async fn enforce(&self, loaded: Loaded, by: Redacted) -> Result<(), Vec<String>> {
        let previous = self.policy().rules.digest().clone();
        if previous == *loaded.rules.digest() {
            tracing::debug!("the policy is unchanged");
        } else {
            self.record_policy(&loaded.rules, Some(previous), Some(by)).await?;
            tracing::info!(policy = %loaded.rules.digest(), "a new policy is in force");
        }
        self.ledger().set_window(loaded.rules.window_seconds());
        let current =
            CurrentPolicy::new(loaded, &self.dialer, &self.upstream, &self.digest_key, self.capacity);
        self.current.swap(Arc::new(current)).superseded.cancel();
        Ok(())
    }

    /// Records which policy is in force from here on.
    ///
    /// # Errors
    /// Where it cannot be recorded.
    pub async fn record_policy(
        &self,
        rules: &Policy,
        previous: Option<Arc<str>>,
        by: Option<Redacted>,
    ) -> Result<(), Vec<String>> {
        let put = Change::PutPolicy {
            policy: rules.digest().clone(),
            mode: rules.mode(),
            previous,
            text: rules.to_string(),
        };
        self.recorder.change(put, by).await.map_err(|error| vec![error.to_string()])
    }

    /// Who asks, by `Proxy-Authorization`.
    ///
    /// # Errors
    /// 407 in one of its three reasons, or two contradicting headers.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Client, Refusal> {
        let mut values = headers.get_all(PROXY_AUTHORIZATION).iter();
        let value = values.next();
        if values.next().is_some() {
            let what = "it has more than one `proxy-authorization` header";
            return Err(Refusal::plain(Reason::MalformedRequest, what));
        }
        self.identify_by(value).await
    }

    /// Who asks, by the value of that header.
    ///
    /// # Errors
    /// As [`Gateway::identify`].
    pub async fn identify_by(&self, value: Option<&HeaderValue>) -> Result<Client, Refusal> {
        self.identities.identify(value.map(HeaderValue::as_bytes)).await.map_err(|error| {
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
        self.usage_of(agent, registrable_domain(host))
    }

    /// As [`Gateway::usage`], by domain.
    pub fn usage_of(&self, agent: &AgentName, domain: &str) -> Usage {
        self.ledger().usage(agent, domain, clock::now())
    }

    /// Charges bytes that are about to leave, unless `refuses` says so to what was sent before them. Looking and
    /// charging are one step: many requests at once cannot share one allowance.
    pub fn charge_unless(
        &self,
        agent: &AgentName,
        domain: &str,
        bytes: u64,
        refuses: impl FnOnce(&Usage) -> bool,
    ) -> Option<Usage> {
        let now = clock::now();
        let mut ledger = self.ledger();
        if refuses(&ledger.usage(agent, domain, now)) {
            return None;
        }
        Some(ledger.charge(agent, domain, bytes, now))
    }

    /// Forgets windows that nothing was charged to lately.
    pub fn expire_windows(&self) {
        self.ledger().expire(clock::now());
    }

    /// Whether any connection is open, or any fence stands.
    pub fn in_use(&self) -> bool {
        self.places.available_permits() < self.capacity || self.fences.available_permits() < FENCES
    }

    /// Answers that people have given, as they reach a client, and services of the host that the operator opened to
    /// fences.
    pub fn grants(&self, client: &Client) -> Grants {
        self.hold.grants().forwarding(Arc::clone(&self.forwards)).in_session(client.session)
    }

    /// Counts an exchange that has ended. The last word counts, once.
    pub fn account(&self, decision: &Decision, outcome: &Outcome) {
        self.alerts.exchange(decision, outcome);
        self.metrics.decided(decision.class, outcome.action, outcome.reason);
        self.metrics.requested(decision.class, decision.service.as_deref());
        self.metrics.agent_requested(&decision.agent, outcome.action);
        for finding in decision.findings.iter().chain(&outcome.findings) {
            self.metrics.found(finding);
        }
        let excerpt = outcome.body.as_ref().map(|body| &body.excerpt);
        for text in [decision.path.as_ref(), decision.host.as_ref(), excerpt].into_iter().flatten() {
            redactions(text.as_str()).for_each(|name| self.metrics.redacted(name, 1));
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Counts are whole after any panic.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of what was taken out of a text.
fn redactions(text: &str) -> impl Iterator<Item = &str> {
    // By one character: to get ready to look for several takes longer than it takes to look through a path.
    let marks = text.split('[').skip(1).filter_map(|rest| rest.strip_prefix("redacted:"));
    marks.filter_map(|rest| rest.split_once(']')).map(|(name, _)| name)
}

impl CurrentPolicy {
    fn new(
        loaded: Loaded,
        dialer: &Arc<Dialer>,
        upstream: &UpstreamTls,
        key: &DigestKey,
        places: usize,
    ) -> CurrentPolicy {
        let rules = Arc::new(loaded.rules);
        let secrets = Arc::new(loaded.secrets);
        CurrentPolicy {
            redactor: Redactor::new(Arc::clone(&secrets)),
            hosts: Remembered::default(),
            rule_names: Remembered::default(),
            forwarder: Forwarder::new(dialer, &rules, upstream, places),
            known_sources: loaded.sources,
            known: loaded.known,
            digest_key: key.clone(),
            superseded: CancellationToken::new(),
            rules,
            secrets,
        }
    }

    /// A host as records name it. Looking it through takes longer than deciding does, and most requests go where others
    /// went before.
    pub fn named(&self, host: &Host) -> Named {
        self.hosts.answer(host, || Named {
            host: self.redactor.host(host.as_str()),
            domain: self.redactor.host(registrable_domain(host)),
        })
    }

    /// A rule's name as records give it.
    pub fn rule_name(&self, name: &Arc<str>) -> Redacted {
        self.rule_names.answer(name, || self.redactor.text(&**name))
    }
}
