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
pub(crate) use pattern::NameMap;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        Host::parse(name.as_bytes()).unwrap_or_else(|e| panic!("`{name}`: {e}"))
    }

    fn classify<'a>(catalogue: &'a Catalogue, name: &str, port: u16) -> (Class, Option<&'a str>) {
        let found = catalogue.classify(&host(name), port);
        (found.class, found.service.map(|service| service.name.as_str()))
    }

    #[test]
    fn a_destination_is_classified_by_its_most_specific_entry() {
        use Class::{Model, Tool, Unknown};
        for (name, class, service) in [
            ("api.anthropic.com", Model, Some("anthropic")),
            ("claude.ai", Model, Some("anthropic")),
            ("docs.anthropic.com", Tool, Some("anthropic-docs")),
            ("api.openai.com", Model, Some("openai")),
            ("chatgpt.com", Model, Some("openai")),
            ("generativelanguage.googleapis.com", Model, Some("gemini")),
            ("us-central1-aiplatform.googleapis.com", Model, Some("vertex-ai")),
            ("pubsub.googleapis.com", Tool, Some("google-cloud")),
            ("bucket.storage.googleapis.com", Tool, Some("google-cloud-storage")),
            ("bedrock-runtime.eu-central-1.amazonaws.com", Model, Some("aws-bedrock")),
            ("bucket.with.dots.s3.eu-central-1.amazonaws.com", Tool, Some("aws-s3")),
            ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", Tool, Some("aws-ecr")),
            ("ec2.eu-central-1.amazonaws.com", Tool, Some("aws")),
            ("my-resource.openai.azure.com", Model, Some("azure-openai")),
            ("management.azure.com", Tool, Some("azure")),
            ("github.com", Tool, Some("github")),
            ("api.github.com", Tool, Some("github")),
            ("npm.pkg.github.com", Tool, Some("github-packages")),
            ("docs.github.com", Tool, Some("github-docs")),
            ("api.individual.githubcopilot.com", Model, Some("github-copilot")),
            ("mcp.linear.app", Tool, Some("linear-mcp")),
            ("linear.app", Tool, Some("linear")),
            ("docs.rs", Tool, Some("docs-rs")),
            ("tokio.readthedocs.io", Tool, Some("readthedocs")),
            ("router.huggingface.co", Model, Some("huggingface-inference")),
            ("huggingface.co", Tool, Some("huggingface")),
            ("anthropic.com.evil.example", Unknown, None),
            ("notgithub.com", Unknown, None),
            ("someone.github.io", Unknown, None),
            ("example.com", Unknown, None),
            ("com", Unknown, None),
        ] {
            assert_eq!(classify(Catalogue::builtin(), name, 443), (class, service), "`{name}`");
            assert_eq!(
                classify(Catalogue::builtin(), name, 8443),
                (class, service),
                "`{name}`, another port"
            );
        }
    }

    #[test]
    fn runtimes_on_loopback_are_told_apart_by_their_port() {
        for (name, port, service) in [
            ("127.0.0.1", 11434, Some("ollama")),
            ("127.8.8.8", 1234, Some("lm-studio")),
            ("[::1]", 8080, Some("llama-cpp")),
            ("[::ffff:127.0.0.1]", 8000, Some("vllm")),
            ("localhost", 11434, Some("ollama")),
            ("127.0.0.1", 443, None),
            ("192.0.2.1", 11434, None),
            ("localhost.example.com", 11434, None),
        ] {
            let class = if service.is_some() { Class::Model } else { Class::Unknown };
            assert_eq!(classify(Catalogue::builtin(), name, port), (class, service), "{name}:{port}");
        }
    }

    #[test]
    fn credentials_belong_to_their_service_and_place() {
        let path = "/";
        for (name, detector, spot, belongs) in [
            ("api.anthropic.com", "anthropic-api-key", Spot::Header("x-api-key"), true),
            ("api.anthropic.com", "anthropic-api-key", Spot::Body { path, field: None }, false),
            ("api.anthropic.com", "openai-api-key", Spot::Header("authorization"), false),
            ("api.openai.com", "openai-api-key", Spot::Header("authorization"), true),
            ("generativelanguage.googleapis.com", "gemini-api-key", Spot::Query("key"), true),
            ("github.com", "github-token", Spot::Basic, true),
            ("github.com", "github-token", Spot::Body { path, field: Some("body") }, false),
            ("slack.com", "slack-token", Spot::Body { path, field: Some("token") }, true),
            ("hooks.slack.com", "slack-webhook", Spot::Path, true),
            ("api.slack.com", "slack-webhook", Spot::Path, false),
            ("api.telegram.org", "telegram-bot-token", Spot::Path, true),
        ] {
            let host = host(name);
            let service = Catalogue::builtin().classify(&host, 443).service.unwrap();
            assert_eq!(service.takes(detector, &host, &spot), belongs, "{detector} in {spot:?} to {name}");
        }
    }

    fn spec(name: &str, hosts: &[&str]) -> ServiceSpec {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        ServiceSpec {
            name: name.into(),
            class: "model".into(),
            kind: "inference".into(),
            hosts,
            ..Default::default()
        }
    }

    #[test]
    fn a_policy_file_adds_services_and_adds_to_known_ones() {
        let own =
            ServiceSpec { groups: vec!["web-search".into()], ..spec("house-model", &["llm.example.com"]) };
        let enterprise = ServiceSpec {
            name: "github".into(),
            hosts: vec!["github.example.com".into(), "gist.github.com".into()],
            ..ServiceSpec::default()
        };
        let taken = spec("house-gateway", &["api.openai.com"]);
        let catalogue = Catalogue::builtin().with_services(&[own, enterprise, taken]).unwrap();
        for (name, expected) in [
            ("llm.example.com", (Class::Model, Some("house-model"))),
            ("github.example.com", (Class::Tool, Some("github"))),
            ("github.com", (Class::Tool, Some("github"))),
            ("api.openai.com", (Class::Model, Some("house-gateway"))),
            ("eu.api.openai.com", (Class::Model, Some("openai"))),
        ] {
            assert_eq!(classify(&catalogue, name, 443), expected, "`{name}`");
        }
        let searches = catalogue.named("@web-search").unwrap();
        assert!(searches.iter().any(|service| service.name == "house-model"));
        let github = host("github.example.com");
        let service = catalogue.classify(&github, 443).service.unwrap();
        assert!(
            service.takes("github-token", &github, &Spot::Basic),
            "what it adds to takes the same credentials"
        );
        assert_eq!(classify(Catalogue::builtin(), "llm.example.com", 443), (Class::Unknown, None));
    }

    #[test]
    fn every_mistake_of_a_service_is_reported_with_its_field() {
        let ok = || spec("house-model", &["llm.example.com"]);
        let domains = |suffix: &str, label: &str| [(suffix.to_owned(), vec![label.to_owned()])].into();
        let credential = |detector: &str, places: &[&str]| CredentialSpec {
            detector: detector.into(),
            places: places.iter().map(|place| (*place).to_owned()).collect(),
            hosts: Vec::new(),
        };
        for (spec, field, message) in [
            (spec("", &["a.example.com"]), "name", "a service needs a name"),
            (spec("House", &["a.example.com"]), "name", "`House` must be lower-case letters"),
            (spec("forges", &["a.example.com"]), "name", "`forges` already means a class or kind"),
            (spec("pypi", &["a.example.com"]), "name", "`pypi` already means another service"),
            (
                ServiceSpec { aliases: vec!["openai".into()], ..ok() },
                "aliases",
                "`openai` already means another",
            ),
            (ServiceSpec { class: "modell".into(), ..ok() }, "class", "`modell` is no class of a service"),
            (ServiceSpec { class: "unknown".into(), ..ok() }, "class", "`unknown` is no class of a service"),
            (
                ServiceSpec { kind: "forges".into(), ..ok() },
                "kind",
                "`forges` is no kind; did you mean `forge`?",
            ),
            (
                ServiceSpec { kind: "zzzzz".into(), ..ok() },
                "kind",
                "`zzzzz` is no kind; kinds are `inference`",
            ),
            (ServiceSpec { name: "github".into(), ..ok() }, "class", "`github` is a tool already"),
            (spec("house-model", &[]), "hosts", "a service needs `hosts` or `domains`"),
            (spec("house-model", &["*.co.uk"]), "hosts", "`*.co.uk`: everyone can register names there"),
            (
                spec("house-model", &["https://x.example"]),
                "hosts",
                "`https://x.example`: the host has the character",
            ),
            (
                ServiceSpec { domains: domains("com", "a.b"), ..ok() },
                "domains",
                "`a.b.com` is not one label and a",
            ),
            (
                ServiceSpec { domains: domains("b.example", "a"), ..ok() },
                "domains",
                "`a.b.example` is not one label",
            ),
            (
                ServiceSpec { credentials: vec![credential("", &["basic"])], ..ok() },
                "credentials",
                "a credential needs",
            ),
            (
                ServiceSpec { credentials: vec![credential("x-key", &[])], ..ok() },
                "credentials",
                "say where `x-key`",
            ),
            (
                ServiceSpec { credentials: vec![credential("x-key", &["cookie:a"])], ..ok() },
                "credentials",
                "`cookie:a` is no place in a request",
            ),
        ] {
            let problems = Catalogue::builtin().with_services(std::slice::from_ref(&spec)).unwrap_err();
            let found = problems.iter().find(|problem| problem.field == field);
            let found = found.unwrap_or_else(|| panic!("no problem with `{field}` in {problems:?}"));
            assert!(found.message.starts_with(message), "{found}");
        }
        let several = [spec("One", &["*.com"]), ServiceSpec { kind: "x".into(), ..ok() }];
        assert_eq!(Catalogue::builtin().with_services(&several).unwrap_err().len(), 3, "all at once");
    }

    #[test]
    fn hosts_without_a_registrable_domain_count_as_themselves() {
        for (name, domain) in [
            ("a.b.example.com", "example.com"),
            ("www.example.co.uk", "example.co.uk"),
            ("someone.github.io", "someone.github.io"),
            ("github.io", "github.io"),
            ("localhost", "localhost"),
            ("db.internal", "db.internal"),
            ("127.0.0.1", "127.0.0.1"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(registrable_domain(&host(name)), domain, "`{name}`");
        }
    }
}
