//! The services that agents are known to use: which destinations are models, which are tools, and what is
//! neither but means to look like one.
//!
//! The data is in `policy/catalogue/*.toml` and ships inside the program; a policy file's `[[service]]` tables
//! extend it. [`Catalogue::classify`] is asked for every request, so it costs one hash lookup for each label of
//! the host; [`Catalogue::look_alike`] and [`encoded_label`] are asked for unknown hosts only.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::target::Host;
pub use crate::verdict::Class;

mod builtin;
mod credential;
mod encoded;
mod look_alike;
mod names;
mod pattern;
mod risk;
mod spec;

pub use credential::{Credential, Place, PlaceError, Spot};
pub use encoded::encoded_label;
pub use look_alike::{How, LookAlike};
pub use names::{Selection, ServiceSet, UnknownName};
pub use pattern::{HostPattern, PatternError};
pub use risk::Risk;
pub use spec::{CredentialSpec, ServiceProblem, ServiceSpec};

use look_alike::Neighbourhood;
use pattern::Index;
use risk::Risky;

/// What a service is for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words are their own explanation")]
pub enum Kind {
    Inference,
    Forge,
    Registry,
    Docs,
    Search,
    Issues,
    Chat,
    Ci,
    Cloud,
    Storage,
    Telemetry,
    Mcp,
    Other,
}

impl Kind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Kind; 13] = [
        Kind::Inference,
        Kind::Forge,
        Kind::Registry,
        Kind::Docs,
        Kind::Search,
        Kind::Issues,
        Kind::Chat,
        Kind::Ci,
        Kind::Cloud,
        Kind::Storage,
        Kind::Telemetry,
        Kind::Mcp,
        Kind::Other,
    ];

    /// The word used in policy files and lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Inference => "inference",
            Kind::Forge => "forge",
            Kind::Registry => "registry",
            Kind::Docs => "docs",
            Kind::Search => "search",
            Kind::Issues => "issues",
            Kind::Chat => "chat",
            Kind::Ci => "ci",
            Kind::Cloud => "cloud",
            Kind::Storage => "storage",
            Kind::Telemetry => "telemetry",
            Kind::Mcp => "mcp",
            Kind::Other => "other",
        }
    }

    /// The word that, after an `@`, names all services of the kind.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Forge => "forges",
            Kind::Registry => "registries",
            Kind::Search => "searches",
            Kind::Chat => "chats",
            Kind::Cloud => "clouds",
            Kind::Storage => "storages",
            Kind::Other => "others",
            // These have no plural of their own, or are one.
            Kind::Inference | Kind::Docs | Kind::Issues | Kind::Ci | Kind::Telemetry | Kind::Mcp => {
                self.as_str()
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A service's place in its catalogue. It means nothing to another catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(u16);

/// One entry of the catalogue.
#[derive(Clone, Debug, Serialize)]
pub struct Service {
    /// Its place in the catalogue.
    #[serde(skip)]
    pub id: ServiceId,
    /// Kebab-case name, as written after `@`.
    pub name: String,
    /// `model` or `tool`, never `unknown`.
    pub class: Class,
    /// What it is for.
    pub kind: Kind,
    /// Name for people.
    pub title: String,
    /// The vendor's page on its endpoints; empty for services of a policy file that give none.
    pub docs: String,
    /// Other names usable after `@`.
    pub aliases: Vec<String>,
    /// Names it shares with other services.
    pub groups: Vec<String>,
    /// Its hosts, besides its domains.
    pub hosts: Vec<HostPattern>,
    /// Its registrable domains: each means the apex and every name under it.
    pub domains: Vec<String>,
    /// Ports on loopback where it listens, for runtimes on the agent's own machine.
    pub ports: Vec<u16>,
    /// The credentials it takes, and where.
    pub credentials: Vec<Credential>,
}

impl Service {
    /// Whether a credential found by `detector` at `spot` of a request to `host` is where this service takes it.
    ///
    /// `host` must be one of the service's own: this does not ask again.
    pub fn takes(&self, detector: &str, host: &Host, spot: &Spot<'_>) -> bool {
        self.credentials.iter().any(|credential| credential.belongs(detector, host, spot))
    }
}

/// What the catalogue says of a destination.
#[derive(Clone, Copy, Debug)]
pub struct Classified<'a> {
    /// The service's class, or `unknown`.
    pub class: Class,
    /// The entry that the destination belongs to.
    pub service: Option<&'a Service>,
}

/// All known services, indexed for lookup by host and by name.
#[derive(Clone, Debug)]
pub struct Catalogue {
    services: Vec<Service>,
    index: Index<ServiceId>,
    /// Services on the machine itself, by port on loopback.
    loopback: HashMap<u16, ServiceId>,
    names: HashMap<String, Vec<ServiceId>>,
    neighbours: Neighbourhood,
    risky: Risky,
}

impl Catalogue {
    /// The catalogue inside the program.
    pub fn builtin() -> &'static Catalogue {
        static BUILTIN: LazyLock<Catalogue> = LazyLock::new(builtin::load);
        &BUILTIN
    }

    /// This catalogue and a policy file's services.
    ///
    /// A service that has the name of a known one adds to it (hosts, domains, credentials); where both claim the
    /// same pattern, the policy file's has it.
    ///
    /// # Errors
    /// Every mistake in every service.
    pub fn with_services(&self, services: &[ServiceSpec]) -> Result<Catalogue, Vec<ServiceProblem>> {
        let mut extended = self.clone();
        let mut problems = Vec::new();
        for spec in services {
            extended.add(spec, &mut problems);
        }
        if problems.is_empty() { Ok(extended) } else { Err(problems) }
    }

    /// All services, in the order of the catalogue's files, a policy file's own last.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The class and service of a destination: by host whatever the port, except for runtimes on loopback, which
    /// are told apart by their port. The most specific entry wins.
    pub fn classify(&self, host: &Host, port: u16) -> Classified<'_> {
        let id = self.index.find(host.as_str()).or_else(|| self.find_on_loopback(host, port));
        let service = id.map(|id| self.service(id));
        Classified { class: service.map_or(Class::Unknown, |service| service.class), service }
    }

    /// Whether an unknown host imitates a known one. A host of the catalogue never does.
    pub fn look_alike(&self, host: &Host) -> Option<LookAlike> {
        if self.index.find(host.as_str()).is_some() {
            return None;
        }
        self.neighbours.look_alike(host)
    }

    /// Whether a host is of a kind that data is often smuggled out through, whatever its class.
    pub fn risk(&self, host: &Host) -> Option<Risk> {
        self.risky.risk(host)
    }

    fn service(&self, id: ServiceId) -> &Service {
        &self.services[usize::from(id.0)]
    }

    fn find_on_loopback(&self, host: &Host, port: u16) -> Option<ServiceId> {
        let loopback = match host.ip() {
            Some(address) => address.to_canonical().is_loopback(),
            None => host.as_str() == "localhost",
        };
        if loopback { self.loopback.get(&port).copied() } else { None }
    }
}

/// The part of a host that somebody registered: one label and the public suffix. Hosts without one (addresses,
/// single labels, public suffixes themselves) count as themselves.
pub fn registrable_domain(host: &Host) -> &str {
    if host.ip().is_some() {
        return host.as_str();
    }
    psl::domain_str(host.as_str()).unwrap_or(host.as_str())
}
