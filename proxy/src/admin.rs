//! The second listener: health, metrics, the API and the console's page. Never reachable through the proxy.
//!
//! In the order in which a request meets them: `connection` (limits and timeouts), `guard` (host, origin, token, cookie),
//! then one handler out of `ROUTES`. What it shows of the gateway it asks of a [`Control`].

mod agents;
mod alerts;
mod answer;
mod approvals;
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

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::policy::approval::Answer;
use ::policy::identity::{AgentName, SessionId};
use ::policy::redact::{Redacted, Redactor};
use ::policy::view::DecisionView;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, get, post};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::alert::Alerts;
use crate::answering::{AnswerError, Given, Preview};
use crate::audit::{ChangeError, Recorder};
use crate::config::MetricsAccess;
use crate::hold::BadReply;
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
    /// What people are told.
    pub alerts: Alerts,
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

    /// Every question, the oldest first.
    fn approvals(&self) -> Vec<Approval>;

    /// Answers a question, by somebody who was shown so much of what is wanted; `None`: what it lists now.
    fn answer(
        &self,
        id: Ulid,
        answer: Answer,
        shown: Option<usize>,
        by: Redacted,
    ) -> BoxFuture<'_, Result<Given, AnswerError>>;

    /// Answers a refusal of what the policy names nowhere.
    fn answer_refusal<'a>(
        &'a self,
        refusal: &'a DecisionView,
        answer: Answer,
        by: Redacted,
    ) -> BoxFuture<'a, Result<Given, AnswerError>>;

    /// What an answer of scope `always` to a question would write.
    ///
    /// # Errors
    /// Nothing to be answered, or nothing that can be written.
    fn preview(&self, id: Ulid, by: &Redacted) -> Result<Preview, AnswerError>;

    /// What an answer of scope `always` to a refusal would write.
    ///
    /// # Errors
    /// As [`Control::preview`].
    fn preview_refusal(&self, refusal: &DecisionView, by: &Redacted) -> Result<Preview, AnswerError>;

    /// Whether a reply was signed here for this answer to this question; `expires` in seconds since the Unix epoch.
    ///
    /// # Errors
    /// Why not.
    fn check_reply(&self, id: Ulid, answer: Answer, expires: i64, token: &str) -> Result<(), BadReply>;
}

/// A question as `approvals list` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `policy::approval::Question`")]
pub struct Approval {
    pub id: Ulid,
    pub agent: AgentName,
    pub session: Option<SessionId>,
    pub destination: Redacted,
    pub method: Option<Redacted>,
    pub path: Option<Redacted>,
    /// What else is wanted, each once, in the order in which it was asked.
    pub others: Vec<Other>,
    /// How many that wait want what is listed neither here nor before.
    pub unlisted: u64,
    pub rule: Option<Redacted>,
    /// RFC 3339, UTC.
    pub asked: String,
    /// RFC 3339, UTC.
    pub expires: String,
    pub requests: u64,
    /// `pending`, or what it was answered with where that still holds: `denied`, or `approved` for one retry.
    pub state: Cow<'static, str>,
}

/// What a request wants that joined a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `policy::approval::Wanted`")]
pub struct Other {
    pub method: Option<Redacted>,
    pub path: Option<Redacted>,
}

impl Approval {
    /// `and 2 other paths, e.g. /b`, where there are others.
    pub fn and_others(&self) -> Option<String> {
        let count = self.others.len() as u64 + self.unlisted;
        let noun = if count == 1 { "path" } else { "paths" };
        let example = self.others.first().and_then(|other| other.path.as_ref());
        let example = example.map(|path| format!(", e.g. {}", path.as_str())).unwrap_or_default();
        (count > 0).then(|| format!("and {count} other {noun}{example}"))
    }
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
    Route { method: "get", path: "/api/decisions/{id}/preview", handler: || get(approvals::preview_refusal) },
    Route { method: "post", path: "/api/decisions/{id}/answer", handler: || post(approvals::answer_refusal) },
    Route { method: "get", path: "/api/approvals", handler: || get(approvals::list) },
    Route { method: "post", path: "/api/approvals/{id}", handler: || post(approvals::answer) },
    Route { method: "get", path: "/api/approvals/{id}/preview", handler: || get(approvals::preview) },
    Route { method: "post", path: "/api/approvals/{id}/reply", handler: || post(approvals::reply) },
    Route { method: "get", path: "/api/alerts", handler: || get(alerts::list) },
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
