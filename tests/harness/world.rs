//! Everything a test needs around the gateway, tied together.

use std::sync::Arc;

use super::authority::TestCa;
use super::canary::Canary;
use super::gate::{Gate, GateBuilder};
use super::origin::{Asked, Origin, OriginBuilder, Reply};
use super::resolver::{self, Resolver};
use super::{Agent, Answer, Inlets, Request, Way};

/// A gateway with servers of our own before it.
///
/// Every name below `.test` is at the origin, except `evil.test` and what is below it, which are at the canary. Only
/// the origin's two ports may be dialled.
pub struct World {
    /// The authority of the origin's certificates.
    pub ca: Arc<TestCa>,
    /// The good server, on 127.0.0.2.
    pub origin: Origin,
    /// The name server.
    pub resolver: Resolver,
    /// The server that nobody may reach, on 127.0.0.3 with the origin's ports.
    pub evil: Canary,
    /// The gateway.
    pub gate: Gate,
    /// A client that trusts the gateway.
    pub agent: Agent,
}

/// Says in an environment that agents know no proxy. Needs a network of its own, and one test at a time.
pub const UNAWARE: &str = "TEST_UNAWARE";

/// A world about to be made.
pub struct WorldBuilder {
    policy: String,
    config: String,
    origin: Box<dyn FnOnce(OriginBuilder) -> OriginBuilder>,
    gate: Box<dyn FnOnce(GateBuilder) -> GateBuilder>,
}

impl World {
    /// A world whose gateway has this policy, in which `{http}` and `{tls}` stand for the origin's ports.
    pub fn with_policy(policy: &str) -> WorldBuilder {
        WorldBuilder {
            policy: policy.into(),
            config: String::new(),
            origin: Box::new(|origin| origin),
            gate: Box::new(|gate| gate),
        }
    }

    /// Sends a request.
    pub async fn send(&self, way: Way, request: &Request) -> Answer {
        self.agent.send(way, request).await
    }

    /// Starts the gateway again on the same files, after it ended.
    pub async fn again(self) -> World {
        let gate = self.gate.again().await;
        let agent = Agent::new(gate.proxy, &gate.ca().await, (self.origin.http, self.origin.tls));
        World { gate, agent, ..self }
    }

    /// The policy text with the world's ports in it, and its one address allowed.
    pub fn policy(&self, template: &str) -> String {
        policy(template, &self.origin)
    }

    /// Asserts what holds at the end of every test.
    pub async fn finish(self) {
        self.gate.finish().await;
        self.evil.must_be_untouched();
        self.resolver.must_not_know("evil.test");
        // The next world of the same test may need the ports.
        drop((self.origin, self.evil));
        tokio::task::yield_now().await;
    }
}

impl WorldBuilder {
    /// With further configuration; `{http}` and `{tls}` as in the policy.
    pub fn config(self, text: &str) -> WorldBuilder {
        WorldBuilder { config: text.into(), ..self }
    }

    /// With an origin made differently.
    pub fn origin(self, change: impl FnOnce(OriginBuilder) -> OriginBuilder + 'static) -> WorldBuilder {
        WorldBuilder { origin: Box::new(change), ..self }
    }

    /// With an origin that answers by `handler`.
    pub fn answering<F, R>(self, handler: F) -> WorldBuilder
    where
        F: Fn(Asked) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        self.origin(|origin| origin.answering(handler))
    }

    /// With a gateway started differently.
    pub fn gate(self, change: impl FnOnce(GateBuilder) -> GateBuilder + 'static) -> WorldBuilder {
        WorldBuilder { gate: Box::new(change), ..self }
    }

    /// Starts everything. Where [`UNAWARE`] is set, the agent knows no proxy and comes out of a fence.
    pub async fn start(self) -> World {
        let ca = TestCa::new();
        let unaware = std::env::var_os(UNAWARE).is_some();
        let origin = (self.origin)(Origin::with_authority(&ca));
        let origin = if unaware { origin.on_standard_ports() } else { origin }.start().await;
        // The canary may find a port taken by another test; then it does without, and takes one of its own.
        let evil = match Canary::at("127.0.0.3", &[origin.http, origin.tls]).await {
            Ok(evil) => evil,
            Err(_) => Canary::at("127.0.0.3", &[0, 0]).await.unwrap(),
        };
        let resolver = Resolver::start().await;
        resolver.answers(".test", resolver::Reply::at(&[&origin.ip.to_string()]));
        resolver.answers("evil.test", resolver::Reply::at(&["127.0.0.3"]));
        resolver.answers(".evil.test", resolver::Reply::at(&["127.0.0.3"]));
        let gate = Gate::with_policy(&policy(&self.policy, &origin));
        let roots = gate.file("roots.pem", &ca.pem());
        let config = configuration(&fill(&self.config, &origin), &resolver, &roots);
        let gate = (self.gate)(gate.config(&config)).start().await;
        let mut agent = Agent::new(gate.proxy, &gate.ca().await, (origin.http, origin.tls));
        if unaware {
            agent = agent.unaware(Inlets::open(&gate).await);
        }
        World { ca, origin, resolver, evil, gate, agent }
    }
}

fn fill(template: &str, origin: &Origin) -> String {
    template.replace("{http}", &origin.http.to_string()).replace("{tls}", &origin.tls.to_string())
}

/// The policy with the origin's addresses allowed, unless it says which ones are.
fn policy(template: &str, origin: &Origin) -> String {
    let mut table: toml::Table = fill(template, origin).parse().unwrap();
    table.entry("version").or_insert(toml::Value::Integer(1));
    let addresses = [origin.http, origin.tls].map(|port| format!("{}:{port}", origin.ip));
    let section = table.entry("addresses").or_insert_with(|| toml::Table::new().into());
    section.as_table_mut().unwrap().entry("allow").or_insert_with(|| addresses.to_vec().into());
    toml::to_string(&table).unwrap()
}

/// The test's configuration with our name server and our authority added.
fn configuration(text: &str, resolver: &Resolver, roots: &std::path::Path) -> String {
    let mut table: toml::Table = text.parse().unwrap();
    let mut set = |section: &str, key: &str, value: String| {
        let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
        section.as_table_mut().unwrap().entry(key).or_insert_with(|| vec![value].into());
    };
    set("dns", "servers", resolver.address.to_string());
    set("upstream", "ca_files", roots.to_str().unwrap().to_owned());
    toml::to_string(&table).unwrap()
}
