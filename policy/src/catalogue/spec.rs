//! A service as a file writes it, checked into a [`Service`]: every mistake, each with the right spelling.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::names::{is_reserved, nearest};
use super::{Catalogue, Class, Credential, HostPattern, Kind, Place, Service, ServiceId};

/// A `[[service]]` table, of the catalogue's own files and of a policy file alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceSpec {
    /// Kebab-case name; the name of a known service adds to that one.
    pub name: String,
    /// `model` or `tool`.
    pub class: String,
    /// `inference`, `forge`, `registry`, `docs`, `search`, `issues`, `chat`, `ci`, `cloud`, `storage`,
    /// `telemetry`, `mcp` or `other`.
    pub kind: String,
    /// Name for people; the name itself where it is left out.
    pub title: String,
    /// Link to the page that documents the endpoints.
    pub docs: String,
    /// Other names usable after `@`.
    pub aliases: Vec<String>,
    /// Names shared with other services.
    pub groups: Vec<String>,
    /// Hosts and wildcards.
    pub hosts: Vec<String>,
    /// Registrable labels grouped by public suffix: `{ com = ["example"] }` is `example.com` and all under it.
    pub domains: BTreeMap<String, Vec<String>>,
    /// Ports on loopback, for services on the agent's own machine.
    pub ports: Vec<u16>,
    /// Whether `hosts` may hold a wildcard on a public suffix.
    pub wide: bool,
    /// The credentials that the service takes, and where.
    pub credentials: Vec<CredentialSpec>,
}

/// A credential as a file writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CredentialSpec {
    /// Name of the secret detector.
    pub detector: String,
    /// Places: `header:NAME`, `basic`, `query:NAME`, `form:NAME`, `body:/PATH`, `path`.
    #[serde(rename = "in")]
    pub places: Vec<String>,
    /// The service's hosts that take it; all of them where left out.
    pub hosts: Vec<String>,
}

/// A mistake in a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceProblem {
    /// Name of the service, as written.
    pub service: String,
    /// The key that holds the mistake.
    pub field: &'static str,
    /// The offending text, for finding its line; empty where something is missing.
    pub text: String,
    /// What is wrong and how to write it, for the user.
    pub message: String,
}

impl fmt::Display for ServiceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service `{}`: `{}`: {}", self.service, self.field, self.message)
    }
}

impl std::error::Error for ServiceProblem {}

/// Names of services stay short enough for a metric's label and a table's column.
const NAME_LIMIT: usize = 40;

impl Catalogue {
    /// Adds a service or adds to one. With problems the catalogue is left half extended: the caller drops it.
    pub(super) fn add(&mut self, spec: &ServiceSpec, problems: &mut Vec<ServiceProblem>) {
        let before = problems.len();
        let mut reader = Reader { spec, problems, known: before };
        let known = self.services.iter().position(|service| service.name == spec.name);
        let parts = reader.read(known.map(|at| &self.services[at]), self);
        if reader.failed() {
            return;
        }
        let id = match known {
            Some(at) => ServiceId(at as u16),
            None => self.push_empty(spec, parts.class, parts.kind),
        };
        self.extend(id, spec, parts);
    }

    fn push_empty(&mut self, spec: &ServiceSpec, class: Class, kind: Kind) -> ServiceId {
        // `read` has refused what does not fit.
        let id = ServiceId(self.services.len() as u16);
        let title = if spec.title.is_empty() { &spec.name } else { &spec.title };
        self.services.push(Service {
            id,
            name: spec.name.clone(),
            class,
            kind,
            title: title.clone(),
            docs: spec.docs.clone(),
            aliases: Vec::new(),
            groups: Vec::new(),
            hosts: Vec::new(),
            domains: Vec::new(),
            ports: Vec::new(),
            credentials: Vec::new(),
        });
        self.names.insert(spec.name.clone(), vec![id]);
        id
    }

    fn extend(&mut self, id: ServiceId, spec: &ServiceSpec, parts: Parts) {
        for name in spec.aliases.iter().chain(&spec.groups) {
            let named = self.names.entry(name.clone()).or_default();
            if !named.contains(&id) {
                named.push(id);
            }
        }
        for pattern in &parts.hosts {
            self.index.insert(pattern, id);
        }
        for domain in &parts.domains {
            self.index.insert_domain(domain, id);
            self.neighbours.protect(domain);
        }
        self.loopback.extend(spec.ports.iter().map(|port| (*port, id)));
        let service = &mut self.services[usize::from(id.0)];
        service.aliases.extend_from_slice(&spec.aliases);
        service.groups.extend_from_slice(&spec.groups);
        service.ports.extend_from_slice(&spec.ports);
        service.hosts.extend(parts.hosts);
        service.domains.extend(parts.domains);
        service.credentials.extend(parts.credentials);
    }
}

/// What a checked spec holds.
struct Parts {
    class: Class,
    kind: Kind,
    hosts: Vec<HostPattern>,
    domains: Vec<String>,
    credentials: Vec<Credential>,
}

/// Reads one spec, gathering its problems.
struct Reader<'a> {
    spec: &'a ServiceSpec,
    problems: &'a mut Vec<ServiceProblem>,
    /// Problems of the services before this one.
    known: usize,
}

impl Reader<'_> {
    fn failed(&self) -> bool {
        self.problems.len() > self.known
    }

    fn problem(&mut self, field: &'static str, text: &str, message: impl Into<String>) {
        let (service, text, message) = (self.spec.name.clone(), text.to_owned(), message.into());
        self.problems.push(ServiceProblem { service, field, text, message });
    }

    fn read(&mut self, extends: Option<&Service>, catalogue: &Catalogue) -> Parts {
        if extends.is_none() {
            self.check_name("name", &self.spec.name, catalogue);
        }
        for (field, names) in [("aliases", &self.spec.aliases), ("groups", &self.spec.groups)] {
            for name in names {
                self.check_name(field, name, catalogue);
            }
        }
        if self.spec.hosts.is_empty() && self.spec.domains.is_empty() && self.spec.ports.is_empty() {
            self.problem("hosts", "", "a service needs `hosts` or `domains`");
        }
        if catalogue.services.len() >= usize::from(u16::MAX) {
            self.problem("name", &self.spec.name, "the catalogue holds 65,535 services at most");
        }
        Parts {
            class: self.class(extends),
            kind: self.kind(extends),
            hosts: self.hosts("hosts", &self.spec.hosts),
            domains: self.domains(),
            credentials: self.credentials(),
        }
    }

    fn check_name(&mut self, field: &'static str, name: &str, catalogue: &Catalogue) {
        let kebab = !name.is_empty()
            && name.len() <= NAME_LIMIT
            && !name.starts_with('-')
            && !name.ends_with('-')
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        // A group may be shared with services of the catalogue, a name or an alias is one service's own.
        let taken = field != "groups" && catalogue.names.contains_key(name);
        let message = if name.is_empty() {
            "a service needs a name".to_owned()
        } else if !kebab {
            format!("`{name}` must be lower-case letters, digits and `-`, at most {NAME_LIMIT} characters")
        } else if is_reserved(name) {
            format!("`{name}` already means a class or kind; choose another name")
        } else if taken {
            format!("`{name}` already means another service; choose another name")
        } else {
            return;
        };
        self.problem(field, name, message);
    }

    fn class(&mut self, extends: Option<&Service>) -> Class {
        let given = match self.spec.class.as_str() {
            "model" => Some(Class::Model),
            "tool" => Some(Class::Tool),
            _ => None,
        };
        match (given, extends) {
            (Some(class), Some(known)) if class != known.class => {
                let message =
                    format!("`{}` is a {} already; leave `class` out", known.name, known.class.as_str());
                self.problem("class", &self.spec.class, message);
                class
            }
            (Some(class), _) => class,
            (None, Some(known)) if self.spec.class.is_empty() => known.class,
            (None, _) => {
                let text = &self.spec.class;
                self.problem(
                    "class",
                    text,
                    format!("`{text}` is no class of a service: write `model` or `tool`"),
                );
                Class::Tool
            }
        }
    }

    fn kind(&mut self, extends: Option<&Service>) -> Kind {
        let text = self.spec.kind.as_str();
        let given = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
        match (given, extends) {
            (Some(kind), Some(known)) if kind != known.kind => {
                let message =
                    format!("`{}` is of kind `{}` already; leave `kind` out", known.name, known.kind);
                self.problem("kind", text, message);
                kind
            }
            (Some(kind), _) => kind,
            (None, Some(known)) if text.is_empty() => known.kind,
            (None, _) => {
                self.problem("kind", text, unknown_kind(text));
                Kind::Other
            }
        }
    }

    fn hosts(&mut self, field: &'static str, texts: &[String]) -> Vec<HostPattern> {
        let read = if self.spec.wide { HostPattern::parse_wide } else { HostPattern::parse };
        let mut patterns = Vec::with_capacity(texts.len());
        for text in texts {
            match read(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.problem(field, text, format!("`{text}`: {error}")),
            }
        }
        patterns
    }

    fn domains(&mut self) -> Vec<String> {
        let mut domains = Vec::new();
        for (suffix, labels) in &self.spec.domains {
            for label in labels {
                let domain = format!("{label}.{suffix}");
                if label.contains(['.', '*']) || psl::domain_str(&domain) != Some(&domain) {
                    let message = format!(
                        "`{domain}` is not one label and a public suffix; write hosts and wildcards under `hosts`"
                    );
                    self.problem("domains", label, message);
                } else {
                    domains.push(domain);
                }
            }
        }
        domains
    }

    fn credentials(&mut self) -> Vec<Credential> {
        let mut credentials = Vec::with_capacity(self.spec.credentials.len());
        for credential in &self.spec.credentials {
            if credential.detector.is_empty() {
                self.problem("credentials", "", "a credential needs a `detector`");
            }
            if credential.places.is_empty() {
                let message =
                    format!("say where `{}` belongs: `in = [\"header:NAME\"]`", credential.detector);
                self.problem("credentials", &credential.detector, message);
            }
            let mut places = Vec::with_capacity(credential.places.len());
            for text in &credential.places {
                match Place::parse(text) {
                    Ok(place) => places.push(place),
                    Err(error) => self.problem("credentials", text, error.to_string()),
                }
            }
            let hosts = self.hosts("credentials", &credential.hosts);
            credentials.push(Credential { detector: credential.detector.clone(), places, hosts });
        }
        credentials
    }
}

fn unknown_kind(text: &str) -> String {
    let words = Kind::ALL.map(Kind::as_str);
    match nearest(text, words.into_iter()) {
        Some(near) => format!("`{text}` is no kind; did you mean `{near}`?"),
        None => {
            format!("`{text}` is no kind; kinds are {}", words.map(|word| format!("`{word}`")).join(", "))
        }
    }
}
