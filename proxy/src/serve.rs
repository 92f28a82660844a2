//! Running the gateway: built in order, each step failing before anything listens; watched; drained.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use policy::event::Happening;
use policy::redact::Redacted;
use policy::usage::{Charge, Ledger};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::accept::{self, Listener};
use crate::admin::{self, Admin, AdminToken, Answers, Feed, SignIns};
use crate::alert::{AlertKey, Alerts, Receiver};
use crate::audit::{CheckpointOptions, Recorder, open_file};
use crate::clock;
use crate::config::{Config, DesktopAlerts, Durability, Hidden, ListenAddress};
use crate::control::{self, Control};
use crate::dial::Dialer;
use crate::fence::gate::{self, Gate};
use crate::folder;
use crate::gateway::{Gateway, Parts, ReloadAsked};
use crate::hold::Hold;
use crate::identify::Identities;
use crate::metrics::Metrics;
use crate::policies::known::Known;
use crate::policies::{self, Fingerprint, LoadError, SharedEnvironment};
use crate::resolve::Resolver;
use crate::rotation::Rotation;
use crate::running::{Claim, Running};
use crate::signing::Signer;
use crate::store::{FILE_NAME, Opened, Store, StoreOptions};
use crate::tls::{self, Authority, Mint, UpstreamTls};
use crate::upkeep::{self, Upkeep};
use crate::webhook::Webhook;

/// How long requests under way may take to end once the gateway was told to stop.
const DRAIN: Duration = Duration::from_secs(20);
/// How often policy files are looked at for a change; a change is in force within two seconds.
const WATCH: Duration = Duration::from_millis(500);
/// With `--until-idle`: how long nobody may use the gateway before it ends.
const IDLE_EXIT: Duration = Duration::from_secs(10);
/// Descriptors that connections leave to everything else.
const DESCRIPTORS_KEPT: u64 = 64;
/// How many pairs of agent and domain have an upload window of their own.
const WINDOWS: usize = 100_000;

/// How a gateway is run.
pub struct Options {
    /// Ends some time after its last session.
    pub until_idle: bool,
    /// Where values named by the policy as `env:` come from.
    pub environment: SharedEnvironment,
}

/// Runs a gateway until it is told to stop. `ready` is called once, when requests are taken, with where it runs and a
/// link that signs in at the console, once and not for long.
///
/// # Errors
/// Whatever keeps it from listening, in words; and records that could not be written at the end.
pub async fn serve(
    config: Config,
    options: Options,
    ready: impl FnOnce(&Running, &str, &Arc<Gateway>),
) -> anyhow::Result<()> {
    tls::install_provider();
    stay_unread();
    let stop = Stop::listen()?;
    folder::prepare(&config.data_dir)?;
    let claim = Claim::take(&config.data_dir)?;
    let (reloads, asked) = mpsc::channel(1);
    let Built { gateway, listeners, admin, gate } = build(config, &options, &claim, reloads).await?;
    let running = running(&gateway.config, &listeners, &admin)?;
    let sign_ins = SignIns::default();
    // Behind the `#`: browsers send that to nobody.
    let link = format!("{}/login#code={}", running.admin_url(), sign_ins.link()?);
    let control = Control { gateway: Arc::clone(&gateway), running: running.clone() };
    let state = Arc::new(Admin {
        control: Arc::new(control),
        metrics: Arc::clone(&gateway.metrics),
        metrics_access: gateway.config.metrics,
        store: gateway.store.clone(),
        recorder: gateway.recorder.clone(),
        alerts: gateway.alerts.clone(),
        identities: Arc::clone(&gateway.identities),
        proxy: listeners.iter().find_map(Listener::address),
        token: AdminToken::open(&gateway.config.data_dir)?,
        sign_ins,
        feed: Feed::default(),
        answers: Answers::default(),
        header_timeout: gateway.config.limits.header_timeout,
    });
    let store_file = gateway.config.data_dir.join(FILE_NAME);
    upkeep::record_start(&gateway)
        .await
        .map_err(|error| anyhow::anyhow!("`{}`: {error}", store_file.display()))?;
    for listener in listeners {
        tokio::spawn(accept::run(Arc::clone(&gateway), listener));
    }
    tokio::spawn(gate::run(Arc::clone(&gateway), gate));
    tokio::spawn(control::tell_of_questions(Arc::clone(&gateway), format!("http://{}", running.admin)));
    let admin = tokio::spawn(admin::run(state, admin, gateway.stopping.clone()));
    claim.announce(&running)?;
    ready(&running, &link, &gateway);
    let mut stop = stop;
    watch(&gateway, &options, &mut stop, asked).await;
    drain(&gateway, &mut stop, admin).await
}

/// Keeps other processes of the same user from reading this one's memory, where keys and tokens are, and from taking
/// its descriptors; and the memory from being written out when it dies.
fn stay_unread() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of this user may read the memory of this one");
    }
}

struct Built {
    gateway: Arc<Gateway>,
    listeners: Vec<Listener>,
    admin: Listener,
    gate: Gate,
}

/// Everything that can fail does so here, before the first client can connect.
async fn build(
    config: Config,
    options: &Options,
    claim: &Claim,
    reloads: mpsc::Sender<ReloadAsked>,
) -> anyhow::Result<Built> {
    let metrics = Metrics::new();
    let authority = Authority::start(config.ca.key, &config.data_dir, SystemTime::now())?;
    authority
        .certificate()
        .write_bundle(&config.data_dir, &tls::trusted_roots(&config.upstream.ca_files)?)?;
    let mint = Mint::new(authority, config.limits.certificates, metrics.certificates_minted())?;
    policies::make_starter(&config)?;
    let loaded = policies::load_in_time(&config, &Known::default(), options.environment).await?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let digest_key = policies::digest_key(&config.data_dir)?;
    let store = StoreOptions { data_dir: config.data_dir.clone(), durability: config.audit.durability };
    let Opened { store, writer, interrupted } = Store::open(&store, claim).await?;
    if interrupted > 0 {
        tracing::warn!(interrupted, "exchanges that the last run left without an end");
    }
    let upstream = UpstreamTls::new(&config.upstream.ca_files)?;
    let recorder = Recorder::signing(writer, checkpoints(&config, &metrics, &upstream)?);
    let file = config.data_dir.join(FILE_NAME);
    let unreadable = |error: &dyn std::fmt::Display| anyhow::anyhow!("`{}`: {error}", file.display());
    let identities = Identities::load(&store, &recorder, config.identity).await;
    let identities = identities.map_err(|error| unreadable(&error))?;
    let ledger = rebuild_windows(&store, loaded.rules.window_seconds()).await;
    let ledger = ledger.map_err(|error| unreadable(&error))?;
    let (listeners, admin) = bind(&config, options.until_idle).await?;
    let gate = Gate::open(&config.data_dir)?;
    let dialer = dialer(&config, &metrics, listeners.iter().chain([&admin]))?;
    let alerts = alerts(&config, &metrics, &dialer, &upstream)?;
    tokio::spawn(tell_known_domains(store.clone(), alerts.clone()));
    let places = places(config.limits.connections);
    let hold = Hold::new(&config.approvals, config.unattended, Arc::clone(&metrics))?;
    let gateway = Gateway::new(Parts {
        config,
        metrics,
        recorder,
        alerts,
        store,
        identities,
        mint,
        dialer,
        upstream,
        ledger,
        digest_key,
        loaded,
        reloads,
        hold,
        places,
    });
    Ok(Built { gateway, listeners, admin, gate })
}

/// As many connections as are wanted, or as the system has descriptors for: each takes one for the client and one
/// upstream, and store, log and admin listener must never go without.
fn places(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it cannot be raised, what there is has to do.
    let descriptors = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let Some(descriptors) = descriptors else { return wanted };
    let places =
        usize::try_from(descriptors.saturating_sub(DESCRIPTORS_KEPT) / 2).unwrap_or(usize::MAX).max(1);
    if places < wanted {
        tracing::warn!(
            places,
            wanted,
            "fewer connections than `limits.connections` fit the limit on open files"
        );
    }
    places.min(wanted)
}

async fn rebuild_windows(store: &Store, window_seconds: u32) -> anyhow::Result<Ledger> {
    let now = clock::now();
    let window = i64::from(window_seconds) * 1_000_000;
    let sent = store.uploads_since(now - window).await?;
    let charges = sent.iter().map(|upload| Charge {
        agent: &upload.agent,
        domain: &upload.domain,
        bytes: upload.bytes,
        time: upload.time,
    });
    Ok(Ledger::rebuild(window_seconds, WINDOWS, charges, now))
}

/// A gateway that a session starts for itself takes any free port where its own is taken, such as by the gateway of
/// another data folder: nobody has been told the port yet.
async fn bind(config: &Config, any_port: bool) -> anyhow::Result<(Vec<Listener>, Listener)> {
    let mut listeners = Vec::new();
    for address in &config.listen {
        listeners.push(bind_one(address, any_port).await?);
    }
    Ok((listeners, bind_one(&config.admin, any_port).await?))
}

async fn bind_one(address: &ListenAddress, any_port: bool) -> anyhow::Result<Listener> {
    match (Listener::bind(address).await, address) {
        (Err(_), ListenAddress::Tcp(wanted)) if any_port => {
            Listener::bind(&ListenAddress::Tcp(SocketAddr::new(wanted.ip(), 0))).await
        }
        (bound, _) => bound,
    }
}

/// How the chain is signed, and who is told.
fn checkpoints(
    config: &Config,
    metrics: &Arc<Metrics>,
    upstream: &UpstreamTls,
) -> anyhow::Result<CheckpointOptions> {
    let webhook = match &config.audit.checkpoint_webhook {
        None => None,
        Some(url) => {
            let dialer = dialer(config, metrics, std::iter::empty())?;
            let webhook = Webhook::new(url, dialer, Arc::clone(&upstream.http1));
            Some(webhook.ok_or_else(|| {
                anyhow::anyhow!("`audit.checkpoint_webhook` has no host that can be dialled")
            })?)
        }
    };
    let file = config.checkpoint_file();
    match open_file(&file) {
        Ok(_) => {}
        // A disk that is not there may come; meanwhile the chain holds them.
        Err(error) if error.raw_os_error().is_some() => {
            tracing::warn!(%error, "`{}`, where checkpoints go, cannot be opened yet", file.display());
        }
        Err(error) => anyhow::bail!("`{}`, where checkpoints go: {error}", file.display()),
    }
    Ok(CheckpointOptions {
        signer: Signer::open(&config.data_dir)?,
        records: config.audit.checkpoint_records,
        interval: config.audit.checkpoint_interval,
        file,
        flush: config.audit.durability == Durability::Power,
        webhook,
    })
}

/// Who is told of what, and with which key it is signed.
fn alerts(
    config: &Config,
    metrics: &Arc<Metrics>,
    dialer: &Arc<Dialer>,
    upstream: &UpstreamTls,
) -> anyhow::Result<Alerts> {
    let mut receivers = Vec::new();
    for of in &config.alerts.webhook {
        let webhook = Webhook::new(&of.url, Arc::clone(dialer), Arc::clone(&upstream.http1));
        let webhook = webhook.ok_or_else(|| {
            anyhow::anyhow!("`alerts.webhook` has a `url` without a host that can be dialled")
        })?;
        receivers.push(Receiver {
            webhook: webhook.judged(of.addresses.clone()),
            format: of.format,
            wants: of.on.clone(),
            digest: of.digest,
            key: match &of.key {
                Some(Hidden(secret)) => AlertKey::of(secret),
                None => AlertKey::open(&config.data_dir)?,
            },
        });
    }
    Ok(Alerts::start(receivers, config.alerts.desktop == DesktopAlerts::On, metrics))
}

/// What was asked for before is not new. Where the store cannot tell, nothing is called so.
async fn tell_known_domains(store: Store, alerts: Alerts) {
    match store.domains().await {
        Ok(domains) => alerts.knows(domains),
        Err(error) => {
            tracing::warn!(%error, "which domains were seen before is not known; none is called new")
        }
    }
}

fn dialer<'a>(
    config: &Config,
    metrics: &Arc<Metrics>,
    listeners: impl Iterator<Item = &'a Listener>,
) -> anyhow::Result<Arc<Dialer>> {
    let hosts =
        config.dns.hosts.iter().map(|(host, addresses)| (host.to_string(), addresses.clone())).collect();
    Ok(Arc::new(Dialer {
        resolver: Resolver::new(&config.dns.servers, hosts, config.dns.timeout)?,
        own: listeners.filter_map(Listener::address).collect(),
        timeout: config.upstream.connect_timeout,
        parent: config.upstream.proxy.clone(),
        metrics: Arc::clone(metrics),
    }))
}

fn running(config: &Config, listeners: &[Listener], admin: &Listener) -> anyhow::Result<Running> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let policies: Vec<PathBuf> = config.policy.iter().map(|path| absolute(path)).collect();
    let unspecified = || SocketAddr::from(([0, 0, 0, 0], 0));
    Ok(Running {
        pid: std::process::id(),
        proxy: listeners.iter().find_map(Listener::address).unwrap_or_else(unspecified),
        admin: admin.address().unwrap_or_else(unspecified),
        config: config.config.exists().then(|| absolute(&config.config)),
        policies,
        started: clock::now(),
    })
}

/// What ends the gateway, and what makes it read its policy anew.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Stop> {
        Ok(Stop {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Returns when the gateway shall end.
async fn watch(
    gateway: &Arc<Gateway>,
    options: &Options,
    stop: &mut Stop,
    mut asked: mpsc::Receiver<ReloadAsked>,
) {
    let mut files = Files::of(gateway);
    let mut used = Instant::now();
    let mut upkeep = Upkeep::new();
    let mut rotation = Rotation::default();
    let mut tick = tokio::time::interval(WATCH);
    loop {
        tokio::select! {
            _ = stop.terminate.recv() => return,
            _ = stop.interrupt.recv() => return,
            _ = stop.hangup.recv() => {
                let _ = reload(gateway, options, "signal").await;
                rotation.look(gateway, "signal").await;
            }
            Some(answer) = asked.recv() => {
                let _ = answer.send(reload(gateway, options, "admin API").await);
            }
            _ = tick.tick() => {
                if files.have_changed(gateway) {
                    let _ = reload(gateway, options, "changed file").await;
                }
                rotation.notice(gateway, "changed file").await;
                gateway.expire_windows();
                gateway.hold.tick();
                upkeep.tick(gateway).await;
                let in_use = sample(gateway).await;
                if in_use {
                    used = Instant::now();
                }
                if options.until_idle && used.elapsed() > IDLE_EXIT {
                    return;
                }
            }
        }
    }
}

/// The policy's files as they were when they were last read, and last looked at.
struct Files {
    read: Fingerprint,
    seen: Fingerprint,
}

impl Files {
    fn of(gateway: &Gateway) -> Files {
        let read = Fingerprint::take(&gateway.config);
        Files { seen: read.clone(), read }
    }

    /// Whether there is something new to read. A file that still changes is being written: the half of a policy
    /// must not come into force, an empty one least of all.
    fn have_changed(&mut self, gateway: &Gateway) -> bool {
        let now = Fingerprint::take(&gateway.config);
        let settled = now == self.seen;
        self.seen = now;
        let changed = settled && self.seen != self.read;
        if changed {
            self.read = self.seen.clone();
        }
        changed
    }
}

/// Brings the gauges up to date; whether anybody uses the gateway.
async fn sample(gateway: &Gateway) -> bool {
    let sessions = gateway.store.sessions_active().await.unwrap_or(0);
    gateway.metrics.sessions_active(usize::try_from(sessions).unwrap_or(usize::MAX));
    sessions > 0 || gateway.in_use()
}

/// Puts the files' policy in force, or keeps the old one and says why.
async fn reload(gateway: &Arc<Gateway>, options: &Options, by: &'static str) -> Result<(), Vec<String>> {
    let before = gateway.policy();
    let loaded = policies::load_in_time(&gateway.config, &before.known, options.environment).await;
    let reloaded = match loaded {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            gateway.enforce(loaded, Redacted::literal(by)).await
        }
        Err(LoadError::Mistakes(mistakes)) => Err(mistakes.iter().map(ToString::to_string).collect()),
        Err(error) => Err(vec![error.to_string()]),
    };
    for problem in reloaded.as_ref().err().into_iter().flatten() {
        tracing::error!("the policy was not reloaded, the old one stays in force: {problem}");
    }
    gateway.metrics.policy_reloaded(reloaded.is_ok());
    reloaded
}

/// Takes no more connections, lets what is under way end, and writes the last records.
async fn drain(gateway: &Arc<Gateway>, stop: &mut Stop, admin: JoinHandle<()>) -> anyhow::Result<()> {
    gateway.stopping.cancel();
    gateway.draining.cancel();
    gateway.tasks.close();
    let left = tokio::select! {
        waited = tokio::time::timeout(DRAIN, gateway.tasks.wait()) => waited.is_err(),
        // Whoever asks twice does not want to wait.
        _ = stop.terminate.recv() => true,
        _ = stop.interrupt.recv() => true,
    };
    if left {
        tracing::warn!("connections were cut before they had ended");
    }
    let _ = tokio::time::timeout(DRAIN, admin).await;
    let stopped = gateway.recorder.event(Happening::Stopped, None).await;
    let flushed = gateway.recorder.close().await;
    gateway.alerts.close().await;
    if stopped.is_err() || flushed.is_err() {
        anyhow::bail!("records could not be written before the end; the next start marks them `interrupted`");
    }
    Ok(())
}
