//! Running the gateway: built in order, each step failing before anything listens; watched; drained.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use policy::event::Happening;
use policy::usage::{Charge, Ledger};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::accept::{self, Listener};
use crate::admin;
use crate::audit::Recorder;
use crate::clock;
use crate::config::{Config, Environment};
use crate::dial::Dialer;
use crate::folder;
use crate::gateway::{Gateway, Parts};
use crate::identify::Identities;
use crate::metrics::Metrics;
use crate::policies::{self, Fingerprint};
use crate::resolve::Resolver;
use crate::running::{Claim, Running};
use crate::store::{Opened, Store, StoreOptions};
use crate::tls::{self, Authority, Mint, UpstreamTls};

/// How long requests under way may take to end once the gateway was told to stop.
const DRAIN: Duration = Duration::from_secs(20);
/// How often policy files are looked at for a change; a change is in force within two seconds.
const WATCH: Duration = Duration::from_millis(500);
/// With `--until-idle`: how long nobody may use the gateway before it ends.
const IDLE_EXIT: Duration = Duration::from_secs(10);
/// How many pairs of agent and domain have an upload window of their own.
const WINDOWS: usize = 100_000;

/// How a gateway is run.
pub struct Options<'a> {
    /// Ends some time after its last session.
    pub until_idle: bool,
    /// Where values named by the policy as `env:` come from.
    pub environment: Environment<'a>,
}

/// Runs a gateway until it is told to stop. `ready` is called once, when requests are taken.
///
/// # Errors
/// Whatever keeps it from listening, in words; and records that could not be written at the end.
pub async fn serve(config: Config, options: Options<'_>, ready: impl FnOnce(&Running)) -> anyhow::Result<()> {
    tls::install_provider();
    let stop = Stop::listen()?;
    folder::prepare(&config.data_dir)?;
    let claim = Claim::take(&config.data_dir)?;
    let built = build(config, &options).await?;
    let Built { gateway, store, listeners, admin } = built;
    let running = running(&gateway.config, &listeners, &admin)?;
    claim.announce(&running)?;
    for listener in listeners {
        tokio::spawn(accept::run(Arc::clone(&gateway), listener));
    }
    let admin = tokio::spawn(admin::serve(admin::State::new(&gateway, &store, &running), admin));
    ready(&running);
    watch(&gateway, &options, stop).await;
    drain(&gateway, admin).await
}

struct Built {
    gateway: Arc<Gateway>,
    store: Store,
    listeners: Vec<Listener>,
    admin: Listener,
}

/// Everything that can fail does so here, before the first client can connect.
async fn build(config: Config, options: &Options<'_>) -> anyhow::Result<Built> {
    let metrics = Metrics::new();
    let authority = Authority::open(&config.data_dir, SystemTime::now())?;
    authority.write_bundle(&config.data_dir, &tls::trusted_roots(&config.upstream.ca_files)?)?;
    let mint = Mint::new(authority, config.limits.certificates, metrics.certificates_minted())?;
    policies::make_starter(&config)?;
    let loaded = policies::load(&config, options.environment)?;
    let digest_key = policies::digest_key(&config.data_dir)?;
    let durability = config.audit.durability;
    let Opened { store, writer, interrupted } =
        Store::open(&StoreOptions { data_dir: config.data_dir.clone(), durability }, &options_claim()).await?;
    if interrupted > 0 {
        tracing::warn!(interrupted, "exchanges that the last run left without an end");
    }
    let recorder = Recorder::start(writer);
    let identities = Identities::load(&store, &recorder, config.identity).await?;
    let ledger = rebuild_windows(&store, loaded.rules.window_seconds()).await?;
    let upstream = UpstreamTls::new(&config.upstream.ca_files)?;
    let (listeners, admin) = bind(&config).await?;
    let dialer = dialer(&config, listeners.iter().chain([&admin]))?;
    let parts = Parts { config, metrics, recorder, identities, mint, dialer, upstream, ledger, digest_key, loaded };
    Ok(Built { gateway: Gateway::new(parts), store, listeners, admin })
}

async fn rebuild_windows(store: &Store, window_seconds: u32) -> anyhow::Result<Ledger> {
    let now = clock::now();
    let since = now - i64::from(window_seconds) * 1_000_000;
    let sent = store.uploads_since(since).await?;
    let charges = sent.iter().map(|upload| Charge {
        agent: &upload.agent,
        domain: &upload.domain,
        bytes: upload.bytes,
        time: upload.time,
    });
    Ok(Ledger::rebuild(window_seconds, WINDOWS, charges, now))
}

async fn bind(config: &Config) -> anyhow::Result<(Vec<Listener>, Listener)> {
    let mut listeners = Vec::new();
    for address in &config.listen {
        listeners.push(Listener::bind(address).await?);
    }
    Ok((listeners, Listener::bind(&config.admin).await?))
}

fn dialer<'a>(config: &Config, listeners: impl Iterator<Item = &'a Listener>) -> anyhow::Result<Arc<Dialer>> {
    let hosts = config.dns.hosts.iter().map(|(host, addresses)| (host.to_string(), addresses.clone())).collect();
    Ok(Arc::new(Dialer {
        resolver: Resolver::new(&config.dns.servers, hosts, config.dns.timeout)?,
        own: listeners.filter_map(Listener::address).collect(),
        timeout: config.upstream.connect_timeout,
        parent: config.upstream.proxy.clone(),
    }))
}

fn running(config: &Config, listeners: &[Listener], admin: &Listener) -> anyhow::Result<Running> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let policies: Vec<PathBuf> = config.policy.iter().map(|path| absolute(path)).collect();
    let unspecified = || std::net::SocketAddr::from(([0, 0, 0, 0], 0));
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
async fn watch(gateway: &Arc<Gateway>, options: &Options<'_>, mut stop: Stop) {
    let mut seen = Fingerprint::take(&gateway.config);
    let mut idle_since = std::time::Instant::now();
    let mut tick = tokio::time::interval(WATCH);
    loop {
        tokio::select! {
            _ = stop.terminate.recv() => return,
            _ = stop.interrupt.recv() => return,
            _ = stop.hangup.recv() => reload(gateway, options).await,
            () = gateway.reload_asked() => reload(gateway, options).await,
            _ = tick.tick() => {
                let now = Fingerprint::take(&gateway.config);
                if now != seen {
                    seen = now;
                    reload(gateway, options).await;
                }
                gateway.sample();
                if gateway.in_use() {
                    idle_since = std::time::Instant::now();
                }
                if options.until_idle && idle_since.elapsed() > IDLE_EXIT {
                    return;
                }
            }
        }
    }
}

/// Puts the files' policy in force, or keeps the old one and says why.
async fn reload(gateway: &Arc<Gateway>, options: &Options<'_>) {
    let result = policies::load(&gateway.config, options.environment).map_err(|error| error.to_string());
    let reloaded = match result {
        Ok(loaded) => gateway.enforce(loaded).await,
        Err(problem) => {
            tracing::error!(%problem, "the policy was not reloaded; the old one stays in force");
            Err(problem)
        }
    };
    gateway.metrics.policy_reloaded(reloaded.is_ok());
    gateway.reload_done(reloaded);
}

/// Takes no more connections, lets what is under way end, and writes the last records.
async fn drain(gateway: &Arc<Gateway>, admin: JoinHandle<()>) -> anyhow::Result<()> {
    gateway.stopping.cancel();
    gateway.draining.cancel();
    gateway.tasks.close();
    let left = tokio::time::timeout(DRAIN, gateway.tasks.wait()).await.is_err();
    if left {
        tracing::warn!("connections were cut that did not end in time");
    }
    admin.abort();
    let stopped = gateway.recorder.event(Happening::Stopped, None).await;
    let flushed = gateway.recorder.close().await;
    if stopped.is_err() || flushed.is_err() {
        anyhow::bail!("records could not be written before the end; the next start marks them `interrupted`");
    }
    let depth = gateway.recorder.counters().queue_depth.load(Ordering::Relaxed);
    tracing::info!(depth, "stopped");
    Ok(())
}
