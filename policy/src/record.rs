//! What is kept of a request: the [`Decision`] taken before anything left, and the [`Outcome`] added at its end.
//!
//! Text enters only as [`Redacted`]. Times are microseconds since the Unix epoch, UTC.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::identity::{AgentName, SessionId};
use crate::redact::Redacted;
use crate::request::Kind;
use crate::target::Scheme;
use crate::verdict::{Action, Class, Mode, Reason};

/// Something seen in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// More left, or would have left, than a limit says.
    LargeUpload {
        /// Bytes counted when the limit was passed.
        bytes: u64,
        /// The limit.
        limit: u64,
        /// Which limit: `request_alert`, `request_block`, `window_alert`, `window_block`, `window_block_agent`.
        of: Arc<str>,
    },
    /// A secret where it does not belong.
    Secret {
        /// Name of the detector, or `known:NAME`.
        detector: Arc<str>,
        /// How often.
        count: u32,
        /// Where: `body`, `query`, `header:NAME` …
        #[serde(rename = "where")]
        place: Arc<str>,
        /// Keyed digest of the secret, `hmac:…`, equal for equal secrets of one data folder.
        key: Arc<str>,
    },
    /// A service's own credential, in its place.
    CredentialUsed {
        /// Name of the detector, or `known:NAME`.
        detector: Arc<str>,
        /// Where.
        #[serde(rename = "where")]
        place: Arc<str>,
        /// Keyed digest.
        key: Arc<str>,
    },
    /// The host looks like another, known one.
    LookalikeDomain {
        /// The domain it looks like.
        of: Arc<str>,
    },
    /// A label of the host looks like encoded data.
    EncodedDataInName,
    /// An unknown host is spoken to as a model API.
    ModelShaped {
        /// Which API.
        api: Arc<str>,
    },
    /// An unknown host is spoken to as an MCP server.
    McpShaped,
    /// A push to a git repository.
    GitPush,
    /// A body whose encoding could not be undone, so that it was not looked into.
    Undecodable {
        /// The encoding as named by the request, redacted.
        encoding: Redacted,
    },
    /// A DNS query carried in HTTP (RFC 8484).
    DnsOverHttps,
    /// A header that asks for another method than the request's own.
    MethodOverride,
}

impl Finding {
    /// The word used in records and labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Finding::LargeUpload { .. } => "large_upload",
            Finding::Secret { .. } => "secret",
            Finding::CredentialUsed { .. } => "credential_used",
            Finding::LookalikeDomain { .. } => "lookalike_domain",
            Finding::EncodedDataInName => "encoded_data_in_name",
            Finding::ModelShaped { .. } => "model_shaped",
            Finding::McpShaped => "mcp_shaped",
            Finding::GitPush => "git_push",
            Finding::Undecodable { .. } => "undecodable",
            Finding::DnsOverHttps => "dns_over_https",
            Finding::MethodOverride => "method_override",
        }
    }

    /// All words, for closed label sets.
    pub const KINDS: &'static [&'static str] = &[
        "large_upload",
        "secret",
        "credential_used",
        "lookalike_domain",
        "encoded_data_in_name",
        "model_shaped",
        "mcp_shaped",
        "git_push",
        "undecodable",
        "dns_over_https",
        "method_override",
    ];
}

/// One decision, as committed before the name is resolved and before the first byte leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Identifier, a ULID: sorts by time.
    pub id: Ulid,
    /// When it was taken.
    pub time: i64,
    /// The session it belongs to.
    pub session: Option<SessionId>,
    /// The agent that asked.
    pub agent: AgentName,
    /// The agent's owner.
    pub owner: Option<Redacted>,
    /// What kind of exchange.
    #[serde(rename = "kind")]
    pub kind: Kind,
    /// Class of the destination.
    pub class: Class,
    /// Service of the destination.
    pub service: Option<Arc<str>>,
    /// Method.
    pub method: Option<Redacted>,
    /// Scheme; `None` where nothing could be parsed.
    pub scheme: Option<Scheme>,
    /// Canonical host; `None` where nothing could be parsed.
    pub host: Option<Redacted>,
    /// Port.
    pub port: Option<u16>,
    /// Registrable domain, or the host itself where it has none.
    pub domain: Option<Redacted>,
    /// Path with redacted query.
    pub path: Option<Redacted>,
    /// `1.0`, `1.1` or `2`.
    pub http_version: Option<Arc<str>>,
    /// What was decided.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// What enforcing would have done, where it differs.
    pub would: Option<Action>,
    /// Why enforcing would have.
    pub would_reason: Option<Reason>,
    /// The rule that decided.
    pub rule: Option<Redacted>,
    /// Mode in force.
    pub mode: Mode,
    /// Digest of the policy in force, `sha256:…`.
    pub policy: Arc<str>,
    /// What was seen before anything was sent.
    pub findings: Vec<Finding>,
}

/// What became of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeKind {
    /// The response was relayed to its end.
    Completed,
    /// It was refused before its first byte left.
    Denied,
    /// It was stopped mid-upload.
    Cut,
    /// The upstream failed.
    Failed,
    /// The client went.
    Abandoned,
    /// The gateway died.
    Interrupted,
}

impl OutcomeKind {
    /// The word used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            OutcomeKind::Completed => "completed",
            OutcomeKind::Denied => "denied",
            OutcomeKind::Cut => "cut",
            OutcomeKind::Failed => "failed",
            OutcomeKind::Abandoned => "abandoned",
            OutcomeKind::Interrupted => "interrupted",
        }
    }
}

/// How long the parts of an exchange took, in milliseconds; `None` where a part did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Deciding.
    pub decide: f64,
    /// Waiting for a person.
    pub held: f64,
    /// Resolving, connecting and handshaking; `None` on a pooled connection.
    pub connect: Option<f64>,
    /// Until the response head.
    pub first_byte: Option<f64>,
    /// Everything.
    pub total: f64,
}

/// The beginning of a request body, redacted before it was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyExcerpt {
    /// The text.
    pub excerpt: Redacted,
    /// Whether the body went on.
    pub truncated: bool,
    /// The request's `content-type`.
    pub content_type: Option<Redacted>,
}

/// The second record of an exchange, added when it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The decision it belongs to.
    pub decision: Ulid,
    /// When the exchange ended.
    pub time: i64,
    /// What became of it.
    pub outcome: OutcomeKind,
    /// The last word: what was done in the end.
    pub action: Action,
    /// The last word: why.
    pub reason: Reason,
    /// What was decided first, where the last word differs.
    pub decided: Option<Action>,
    /// What enforcing would have done, where it differs.
    pub would: Option<Action>,
    /// Why enforcing would have.
    pub would_reason: Option<Reason>,
    /// Status the client was given.
    pub status: Option<u16>,
    /// Bytes that left, head included.
    pub request_bytes: u64,
    /// Bytes that came back, head included.
    pub response_bytes: u64,
    /// The address that was dialled.
    pub upstream: Option<SocketAddr>,
    /// How long it took.
    pub ms: Timing,
    /// What was seen after the decision.
    pub findings: Vec<Finding>,
    /// Excerpt of the body.
    pub body: Option<BodyExcerpt>,
    /// Model named by the request, where it is a call to one.
    pub model: Option<Redacted>,
}
