//! What a record says a request was about, and the decision that is committed about it.

use std::time::{Duration, Instant};

use http::Version;
use http::request::Parts;
use policy::record::Decision;
use policy::redact::{Redacted, Redactor};
use policy::request::Kind;
use policy::target::Target;
use policy::verdict::Judgement;
use ulid::Ulid;

use crate::clock;
use crate::entry::Progress;
use crate::gateway::CurrentPolicy;
use crate::head::asks_for_websocket;
use crate::identify::Client;

/// Methods that most requests are made with (RFC 9110, section 9.3; RFC 5789).
const WORDS: [&str; 9] = ["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

/// What a record says a request was about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What kind of exchange.
    pub kind: Kind,
    /// Where to, where that could be read.
    pub target: Option<Target>,
    /// Who, where that is known.
    pub client: Option<Client>,
    /// Method.
    pub method: Option<String>,
    /// Path and query as sent on.
    pub path: Option<String>,
    /// Version on the client's side.
    pub version: Option<&'static str>,
    /// How long a person was waited for.
    pub held: Duration,
}

impl Subject {
    /// A tunnel, before anything in it was read.
    pub fn connect(target: Option<Target>, client: Option<Client>) -> Subject {
        Subject {
            kind: Kind::Connect,
            target,
            client,
            method: None,
            path: None,
            version: None,
            held: Duration::ZERO,
        }
    }

    pub(super) fn of(parts: &Parts, target: Option<Target>, client: Option<Client>) -> Subject {
        Subject {
            kind: if asks_for_websocket(parts) { Kind::WebSocket } else { Kind::Http },
            target,
            client,
            method: Some(parts.method.as_str().to_owned()),
            path: parts.uri.path_and_query().map(|path| path.as_str().to_owned()),
            version: Some(version(parts.version)),
            held: Duration::ZERO,
        }
    }

    /// Notes how long deciding took, and how long a person was waited for meanwhile.
    pub(super) fn time(&self, progress: &Progress, started: Instant) {
        let milliseconds = |time: Duration| time.as_micros() as f64 / 1000.0;
        progress.timing(|timing| {
            timing.held = milliseconds(self.held);
            timing.decide = milliseconds(started.elapsed().saturating_sub(self.held));
        });
    }
}

pub(super) fn decision(policy: &CurrentPolicy, subject: &Subject, judgement: &Judgement) -> Decision {
    let redactor = &policy.redactor;
    let target = subject.target.as_ref();
    let named = target.map(|target| policy.named(&target.host));
    let (host, domain) = named.map(|named| (named.host, named.domain)).unzip();
    // A name by itself is spoken to in no way, and on no port.
    let spoken_to = target.filter(|_| subject.kind != Kind::Dns);
    Decision {
        id: Ulid::new(),
        time: clock::now(),
        session: subject.client.as_ref().and_then(|client| client.session),
        agent: subject
            .client
            .as_ref()
            .map_or_else(policy::identity::AgentName::anonymous, |c| c.agent.clone()),
        owner: subject.client.as_ref().and_then(|client| client.owner.clone()),
        kind: subject.kind,
        class: judgement.class,
        service: judgement.service.clone(),
        method: subject.method.as_deref().map(|method| recorded(redactor, method)),
        scheme: spoken_to.map(|target| target.scheme),
        host,
        port: spoken_to.map(|target| target.port),
        domain,
        path: subject.path.as_deref().map(|path| redactor.path(path)),
        http_version: subject.version.map(Into::into),
        action: judgement.action,
        reason: judgement.reason,
        would: judgement.would.map(|(action, _)| action),
        would_reason: judgement.would.map(|(_, reason)| reason),
        rule: judgement.rule.as_ref().map(|rule| policy.rule_name(rule)),
        mode: judgement.mode,
        policy: policy.rules.digest().clone(),
        findings: judgement.findings.clone(),
    }
}

/// A method as records give it. One that is shorter than any known value ([`policy::secret::SHORTEST`]), and a word of
/// HTTP itself, holds no secret.
fn recorded(redactor: &Redactor, method: &str) -> Redacted {
    match WORDS.iter().find(|word| **word == method) {
        Some(word) => Redacted::literal(word),
        None => redactor.text(method),
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
