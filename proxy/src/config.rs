//! The settings the gateway runs with: flags, environment and file become one checked [`Config`], once.
//!
//! Nothing else in the program reads the environment. In order of weight: flag, variable, file, default. A
//! setting `limits.connections` is the key `connections` of `[limits]` and the variable
//! `OUTGATE_LIMITS_CONNECTIONS`. Every mistake is reported, not only the first.

mod mistake;
mod settings;
mod shown;
pub(crate) mod spelling;
mod upstream_proxy;
mod value;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use policy::address::AddressEntry;
use policy::target::Host;

pub use mistake::{Mistake, Mistakes, Place};
pub use settings::keys;
pub use upstream_proxy::ParentProxy;
pub use value::{Endpoint, ListenAddress};
pub use words::{
    AlertFormat, AlertKind, CaKey, DesktopAlerts, Durability, IdentityMode, LogFormat, MetricsAccess,
    RefuseMode, Word,
};

use crate::folder;
use crate::reading;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

/// Name of the configuration file in the data folder.
const FILE_NAME: &str = "outgate.toml";
/// Where signed points of the audit chain go in the data folder, unless `audit.checkpoint_file` says otherwise.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoints.jsonl";

/// Equal alerts within this time become one, unless a webhook says otherwise.
const DEFAULT_DIGEST: Duration = Duration::from_secs(5 * MINUTE);

/// Looks a variable up; `std::env::var(name).ok()` in the program, a table in tests.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Everything that can be set, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect.
    pub listen: Vec<ListenAddress>,
    /// Where the console, the API and the metrics are served.
    pub admin: ListenAddress,
    /// Whether requests without credentials are answered.
    pub identity: IdentityMode,
    /// Where a refused destination is told so.
    pub refuse: RefuseMode,
    /// Who may read `/metrics`.
    pub metrics: MetricsAccess,
    /// The certificate authority.
    pub ca: Ca,
    /// Name resolution.
    pub dns: Dns,
    /// The way out.
    pub upstream: Upstream,
    /// What protects the gateway from its clients.
    pub limits: Limits,
    /// What is kept of a request, and for how long.
    pub audit: Audit,
    /// Where records are kept.
    pub store: StoreSettings,
    /// Questions to people.
    pub approvals: Approvals,
    /// The fence round a session's command.
    pub fence: Fence,
    /// Who is told.
    pub alerts: Alerts,
    /// OpenTelemetry.
    pub otlp: Otlp,
    /// The folder of store, keys, policy and configuration.
    pub data_dir: PathBuf,
    /// The configuration file, whether or not it exists.
    pub config: PathBuf,
    /// Policy files as given; empty: those of the data folder, see [`Config::policy_files`].
    pub policy: Vec<PathBuf>,
    /// How the program's own log is written.
    pub log_format: LogFormat,
    /// How much of it: 0 warnings and notices, 1 every request, 2 and more the inside.
    pub verbosity: u8,
    /// Answer every question with a denial at once.
    pub unattended: bool,
}

/// `[ca]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ca {
    /// Where its key is.
    pub key: CaKey,
}

/// `[dns]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// Servers; empty: the system's.
    pub servers: Vec<SocketAddr>,
    /// Names answered before any server is asked.
    pub hosts: BTreeMap<Host, Vec<IpAddr>>,
    /// How long one lookup may take.
    pub timeout: Duration,
}

/// `[upstream]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Root certificates besides the system's, PEM.
    pub ca_files: Vec<PathBuf>,
    /// A proxy that everything goes out by.
    pub proxy: Option<ParentProxy>,
    /// TCP connection and TLS handshake together.
    pub connect_timeout: Duration,
    /// To the first byte of the response head.
    pub response_timeout: Duration,
    /// Tunnels, streams and WebSockets with nothing moving.
    pub idle_timeout: Duration,
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Client connections at once.
    pub connections: usize,
    /// Client connections of one agent at once.
    pub connections_per_agent: usize,
    /// Header fields of one request.
    pub headers: usize,
    /// Bytes of one request head.
    pub header_bytes: usize,
    /// Bytes of one request target.
    pub url_bytes: usize,
    /// To the end of a request head.
    pub header_timeout: Duration,
    /// An idle connection between requests.
    pub keepalive_timeout: Duration,
    /// How much larger than on the wire a compressed body may become, for the scanner.
    pub decoded_ratio: u64,
    /// How many bytes a compressed body may become, for the scanner.
    pub decoded_bytes: u64,
    /// Leaf certificates kept.
    pub certificates: usize,
}

/// `[audit]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// What a committed record survives.
    pub durability: Durability,
    /// Bytes of the redacted request body that are kept.
    pub excerpt: usize,
    /// How long records are kept.
    pub retention: Duration,
    /// How many bytes of records are kept.
    pub max_bytes: u64,
    /// The chain is signed after so many records.
    pub checkpoint_records: u64,
    /// And after so long, where anything was recorded since.
    pub checkpoint_interval: Duration,
    /// What signed points are appended to; `None`: a file in the data folder, see [`Config::checkpoint_file`].
    pub checkpoint_file: Option<PathBuf>,
    /// Who is told of them.
    pub checkpoint_webhook: Option<Endpoint>,
}

/// `[store]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreSettings {
    /// `None`: SQLite in the data folder.
    pub url: Option<String>,
}

/// `[approvals]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Approvals {
    /// How long a request waits for an answer.
    pub timeout: Duration,
    /// How long a question can be answered after its request gave up.
    pub answerable: Duration,
}

/// `[fence]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fence {
    /// Unix sockets of the host left reachable inside.
    pub sockets: Vec<PathBuf>,
    /// Loopback services of the host reachable inside.
    pub forward: Vec<SocketAddr>,
}

/// `[alerts]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Alerts {
    /// Whether questions are shown on the desktop.
    pub desktop: DesktopAlerts,
    /// Whom to tell, `[[alerts.webhook]]`.
    pub webhook: Vec<Webhook>,
}

/// One `[[alerts.webhook]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Where to; may hold a secret.
    pub url: Endpoint,
    /// In which shape.
    pub format: AlertFormat,
    /// About what.
    pub on: Vec<AlertKind>,
    /// Equal alerts within this time become one.
    pub digest: Duration,
    /// What its messages are signed with; `None` for the key in the data folder.
    pub key: Option<Hidden>,
    /// What besides public addresses its name may lead to.
    pub addresses: Vec<AddressEntry>,
}

/// A secret of the configuration. Debug prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// `[otlp]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Otlp {
    /// Where decisions are sent as log records.
    pub endpoint: Option<Endpoint>,
}

/// What was given on the command line; `None` and empty where nothing was.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--policy`, any number.
    pub policy: Vec<PathBuf>,
    /// `--log-format`.
    pub log_format: Option<LogFormat>,
    /// How many `-v`.
    pub verbosity: u8,
    /// `--listen`, any number, as written.
    pub listen: Vec<String>,
    /// `--admin`, as written.
    pub admin: Option<String>,
    /// `--unattended`.
    pub unattended: bool,
}

impl Default for Config {
    fn default() -> Config {
        let loopback = |port| ListenAddress::Tcp((Ipv4Addr::LOCALHOST, port).into());
        Config {
            listen: vec![loopback(4480)],
            admin: loopback(4481),
            identity: IdentityMode::Optional,
            refuse: RefuseMode::Inside,
            metrics: MetricsAccess::Open,
            ca: Ca { key: CaKey::File },
            dns: Dns::default(),
            upstream: Upstream::default(),
            limits: Limits::default(),
            audit: Audit::default(),
            store: StoreSettings::default(),
            approvals: Approvals::default(),
            fence: Fence::default(),
            alerts: Alerts { desktop: DesktopAlerts::Off, webhook: Vec::new() },
            otlp: Otlp::default(),
            data_dir: PathBuf::new(),
            config: PathBuf::new(),
            policy: Vec::new(),
            log_format: LogFormat::Text,
            verbosity: 0,
            unattended: false,
        }
    }
}

impl Default for Dns {
    fn default() -> Dns {
        Dns { servers: Vec::new(), hosts: BTreeMap::new(), timeout: Duration::from_secs(5) }
    }
}

impl Default for Upstream {
    fn default() -> Upstream {
        Upstream {
            ca_files: Vec::new(),
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            // Models think long before their first byte.
            response_timeout: Duration::from_secs(15 * MINUTE),
            idle_timeout: Duration::from_secs(10 * MINUTE),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            connections_per_agent: 2_000,
            headers: 100,
            header_bytes: 64 * KIB as usize,
            url_bytes: 8 * KIB as usize,
            header_timeout: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5 * MINUTE),
            decoded_ratio: 100,
            decoded_bytes: 256 * MIB,
            certificates: 4096,
        }
    }
}

impl Default for Audit {
    fn default() -> Audit {
        Audit {
            durability: Durability::Commit,
            excerpt: 4 * KIB as usize,
            retention: Duration::from_secs(90 * DAY),
            max_bytes: 10 * GIB,
            checkpoint_records: 1000,
            checkpoint_interval: Duration::from_secs(MINUTE),
            checkpoint_file: None,
            checkpoint_webhook: None,
        }
    }
}

impl Default for Approvals {
    fn default() -> Approvals {
        Approvals { timeout: Duration::from_secs(120), answerable: Duration::from_secs(10 * MINUTE) }
    }
}

impl Config {
    /// Reads everything there is to read.
    ///
    /// The configuration file may be missing unless it was named.
    ///
    /// # Errors
    /// All mistakes, each with its place.
    pub fn load(flags: &Flags, environment: Environment<'_>) -> Result<Config, Mistakes> {
        Config::load_naming(flags, environment, std::iter::empty())
    }

    /// As [`Config::load`], where it is a mistake as well to have a variable among `names`, those of the whole
    /// environment, that looks like a setting and is none.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_naming(
        flags: &Flags,
        environment: Environment<'_>,
        names: impl Iterator<Item = String>,
    ) -> Result<Config, Mistakes> {
        let mut mistakes = Mistakes::default();
        settings::unknown_variables(names, &mut mistakes);
        let mut config = Config::default();
        config.place(flags, environment, &mut mistakes);
        let named = flags.config.is_some() || variable(environment, "OUTGATE_CONFIG").is_some();
        config.read_file(named, &mut mistakes);
        settings::from_environment(&mut config, environment, &mut mistakes);
        settings::from_flags(&mut config, flags, &mut mistakes);
        settings::check_together(&config, &config.config, &mut mistakes);
        mistakes.or(config)
    }

    /// Reads the text of a configuration file over the defaults, as [`Config::load`] does.
    ///
    /// # Errors
    /// All mistakes, each with `name` and line.
    pub fn from_text(name: &Path, text: &str) -> Result<Config, Mistakes> {
        let mut mistakes = Mistakes::default();
        let mut config = Config::default();
        settings::from_text(&mut config, name, text, &mut mistakes);
        settings::check_together(&config, name, &mut mistakes);
        mistakes.or(config)
    }

    /// The file that signed points of the audit chain are appended to.
    pub fn checkpoint_file(&self) -> PathBuf {
        let usual = || self.data_dir.join(CHECKPOINT_FILE);
        self.audit.checkpoint_file.clone().unwrap_or_else(usual)
    }

    /// The policy files: those named, else `policy.toml` and `policy.d/*.toml` of the data folder, in order of
    /// name, as far as they exist.
    ///
    /// # Errors
    /// Where `policy.d` cannot be listed.
    pub fn policy_files(&self) -> std::io::Result<Vec<PathBuf>> {
        if !self.policy.is_empty() {
            return Ok(self.policy.clone());
        }
        let main = self.data_dir.join("policy.toml");
        let mut files: Vec<PathBuf> = main.exists().then_some(main).into_iter().collect();
        match std::fs::read_dir(self.data_dir.join("policy.d")) {
            Ok(entries) => {
                let mut more = Vec::new();
                for entry in entries {
                    let path = entry?.path();
                    if path.extension().is_some_and(|extension| extension == "toml") {
                        more.push(path);
                    }
                }
                more.sort();
                files.extend(more);
                Ok(files)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(files),
            Err(error) => Err(error),
        }
    }

    /// Settles where things lie, which has to be known before the file can be read.
    fn place(&mut self, flags: &Flags, environment: Environment<'_>, mistakes: &mut Mistakes) {
        let path = |name| variable(environment, name).map(PathBuf::from);
        match flags
            .data_dir
            .clone()
            .or_else(|| path("OUTGATE_DATA_DIR"))
            .or_else(|| default_data_dir(environment))
        {
            Some(folder) => self.data_dir = folder,
            None => mistakes.add(
                Place::Flag("--data-dir"),
                "there is no default without `HOME`; name the folder to keep data in",
            ),
        }
        self.config = flags
            .config
            .clone()
            .or_else(|| path("OUTGATE_CONFIG"))
            .unwrap_or_else(|| self.data_dir.join(FILE_NAME));
    }

    fn read_file(&mut self, named: bool, mistakes: &mut Mistakes) {
        let path = self.config.clone();
        match reading::text(&path) {
            Ok(text) => {
                if let Err(problem) = folder::check_trusted(&path) {
                    mistakes.add(Place::File(path.clone()), problem.to_string());
                }
                settings::from_text(self, &path, &text, mistakes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => {}
            Err(error) => mistakes.add(Place::File(path), format!("cannot be read: {error}")),
        }
    }
}

/// A variable that is set to nothing counts as not set.
fn variable(environment: Environment<'_>, name: &str) -> Option<String> {
    environment(name).filter(|value| !value.is_empty())
}

/// `$XDG_STATE_HOME/outgate`, else `~/.local/state/outgate`. A relative `XDG_STATE_HOME` is ignored, as its
/// specification says.
pub(crate) fn default_data_dir(environment: Environment<'_>) -> Option<PathBuf> {
    let state = variable(environment, "XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        state.or_else(|| variable(environment, "HOME").map(|home| Path::new(&home).join(".local/state")));
    state.map(|state| state.join("outgate"))
}

#[cfg(test)]
mod tests;
