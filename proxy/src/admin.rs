//! The second listener: health, metrics, the API and the console's page. Never reachable through the proxy.
//!
//! In the order in which a request meets them: `connection` (limits and timeouts), `guard` (host, origin, token, cookie),
//! then one handler out of `ROUTES`. What it shows of the gateway it asks of a [`Control`].

mod agents;
mod answer;
mod audit;
mod connection;
mod console;
mod decisions;
mod feed;
mod guard;
mod health;
mod overview;
mod policy;
mod sessions;
mod signin;
mod token;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::policy::identity::AgentName;
use ::policy::redact::{Redacted, Redactor};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, get, post};
use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::audit::{ChangeError, Recorder};
use crate::config::MetricsAccess;
use crate::identify::Identities;
use crate::metrics::Metrics;
use crate::store::{Change, Store};

pub use connection::{Arrivals, run};
pub use feed::Feed;
pub use overview::Answers;
pub use signin::SignIns;
pub use token::AdminToken;

/// Longest request body that is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// What the handlers work with.
pub struct Admin {
    /// The gateway.
    pub control: Arc<dyn Control>,
    /// Its series.
    pub metrics: Arc<Metrics>,
    /// Who may read them.
    pub metrics_access: MetricsAccess,
    /// What was recorded.
    pub store: Store,
    /// Records changes, each with its event.
    pub recorder: Recorder,
    /// Who may ask; told of every change made here.
    pub identities: Arc<Identities>,
    /// Where clients connect, for the URLs that are handed out; `None` where that is a Unix socket alone.
    pub proxy: Option<SocketAddr>,
    /// What opens the rest.
    pub token: AdminToken,
    /// Who is signed in at the console.
    pub sign_ins: SignIns,
    /// What the console is told as it happens.
    pub feed: Feed,
    /// What was asked lately.
    pub answers: Answers,
    /// To the end of a request head, from the connection's start or the end of the last answer.
    pub header_timeout: Duration,
}

/// What the admin listener asks of the gateway.
pub trait Control: Send + Sync + 'static {
    /// How the gateway is.
    fn status(&self) -> Status;

    /// Why requests would be refused now, in words for an operator; empty when the gateway is ready.
    fn unready(&self) -> BoxFuture<'_, Vec<String>>;

    /// The policy in force, as `outgate policy show --json` prints it.
    fn policy(&self) -> serde_json::Value;

    /// What would be decided about a request, as `outgate policy explain --json` prints it; with the digest of the policy,
    /// and as `allow` the command that would allow it, where one would.
    ///
    /// # Errors
    /// What is wrong with the URL, in words.
    fn explain(
        &self,
        url: &str,
        method: &str,
        agent: &AgentName,
        bytes: u64,
    ) -> Result<serde_json::Value, String>;

    /// What is kept of requests, for how long, and what it survives.
    fn record_keeping(&self) -> serde_json::Value;

    /// What takes secrets out of text, by the policy in force.
    fn redactor(&self) -> Redactor;

    /// Reads the policy files again and puts them in force.
    ///
    /// # Errors
    /// Every mistake in them; the policy in force stays.
    fn reload(&self) -> BoxFuture<'_, Result<(), Vec<String>>>;
}

impl Admin {
    /// Makes a change and lets it hold before the answer goes out.
    async fn change(&self, change: Change) -> Result<(), ChangeError> {
        self.change_by(None, change).await
    }

    /// As [`Admin::change`], by somebody who says who they are.
    async fn change_by(&self, by: Option<String>, change: Change) -> Result<(), ChangeError> {
        self.recorder.change(change, Some(self.named(by))).await?;
        self.identities.refresh().await;
        Ok(())
    }

    /// Who does something, as far as they say so: whoever holds the admin token is the operator.
    fn named(&self, by: Option<String>) -> Redacted {
        let by = by.filter(|by| !by.trim().is_empty());
        by.map_or_else(|| Redacted::literal("admin API"), |by| self.control.redactor().text(by.trim()))
    }

    /// What a client puts into `HTTPS_PROXY`. Whoever listens everywhere is reached by loopback.
    fn proxy_url(&self, agent: &AgentName, token: &str) -> Option<String> {
        let mut proxy = self.proxy?;
        if proxy.ip().is_unspecified() {
            proxy.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        Some(format!("http://{agent}:{token}@{proxy}"))
    }
}

/// `/api/status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// Its process.
    pub pid: u32,
    /// When it was ready, RFC 3339.
    pub started: String,
    /// Seconds since.
    pub uptime_seconds: u64,
    /// Digest of the policy in force, `sha256:…`.
    pub policy: String,
    /// Mode of the policy in force.
    pub mode: &'static str,
    /// Where clients connect.
    pub listen: Vec<String>,
    /// Where this is served.
    pub admin: String,
    /// The data folder.
    pub data_dir: String,
}

struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "what a test holds `openapi.json` against"))]
    method: &'static str,
    path: &'static str,
    handler: fn() -> MethodRouter<Arc<Admin>>,
}

/// Every route there is. `openapi.json` describes exactly these; a test holds the two together.
const ROUTES: &[Route] = &[
    Route { method: "get", path: "/healthz", handler: || get(health::alive) },
    Route { method: "get", path: "/readyz", handler: || get(health::ready) },
    Route { method: "get", path: "/metrics", handler: || get(health::metrics) },
    Route { method: "get", path: "/", handler: || get(console::page) },
    Route { method: "get", path: "/console/{file}", handler: || get(console::file) },
    Route { method: "get", path: "/login", handler: || get(console::sign_in_page) },
    Route { method: "post", path: "/login", handler: || post(console::login) },
    Route { method: "post", path: "/logout", handler: || post(console::logout) },
    Route { method: "get", path: "/api/openapi.json", handler: || get(health::openapi) },
    Route { method: "get", path: "/api/status", handler: || get(health::status) },
    Route { method: "get", path: "/api/agents", handler: || get(agents::list) },
    Route { method: "post", path: "/api/agents", handler: || post(agents::add) },
    Route { method: "post", path: "/api/agents/{name}/rotate", handler: || post(agents::rotate) },
    Route { method: "post", path: "/api/agents/{name}/revoke", handler: || post(agents::revoke) },
    Route { method: "get", path: "/api/sessions", handler: || get(sessions::list) },
    Route { method: "post", path: "/api/sessions", handler: || post(sessions::open) },
    Route { method: "get", path: "/api/sessions/{id}", handler: || get(sessions::show) },
    Route { method: "post", path: "/api/sessions/{id}/end", handler: || post(sessions::end) },
    Route { method: "get", path: "/api/events", handler: || get(feed::events) },
    Route { method: "get", path: "/api/overview", handler: || get(overview::sums) },
    Route { method: "get", path: "/api/destinations", handler: || get(overview::destinations) },
    Route { method: "get", path: "/api/decisions", handler: || get(decisions::list) },
    Route { method: "get", path: "/api/decisions/{id}", handler: || get(decisions::show) },
    Route { method: "get", path: "/api/explain", handler: || get(decisions::explain) },
    Route { method: "get", path: "/api/audit", handler: || get(overview::audit) },
    Route { method: "post", path: "/api/audit/prune", handler: || post(audit::prune) },
    Route { method: "get", path: "/api/policy", handler: || get(policy::show) },
    Route { method: "post", path: "/api/policy/reload", handler: || post(policy::reload) },
];

fn router(admin: &Arc<Admin>) -> Router {
    let routes =
        ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()));
    routes
        .fallback(answer::no_such_route)
        .method_not_allowed_fallback(answer::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(admin), guard::check))
        .with_state(Arc::clone(admin))
}

#[cfg(test)]
mod tests;
