//! A recorded decision as far as suggestions and replays ask about it.
//!
//! Read straight from the canonical text of its records, without checking or keeping the rest: a million of them
//! are read in seconds.

use std::net::SocketAddr;

use serde::Deserialize;
use ulid::Ulid;

use crate::identity::{AgentName, SessionId};
use crate::path::RequestPath;
use crate::record::{Finding, OutcomeKind};
use crate::request::Kind;
use crate::target::{Host, Scheme, Target};
use crate::verdict::{Action, Class, Reason};

/// A decision joined with its outcome, where there is one.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of `Decision` and `Outcome`")]
pub struct Observed {
    pub id: Ulid,
    pub time: i64,
    pub session: Option<SessionId>,
    pub agent: AgentName,
    pub kind: Kind,
    pub class: Class,
    pub method: Option<String>,
    pub scheme: Option<Scheme>,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// Path with redacted query.
    pub path: Option<String>,
    /// The last word.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// What was decided first.
    pub decided: Action,
    pub would: Option<Action>,
    pub would_reason: Option<Reason>,
    pub rule: Option<String>,
    /// Those seen before and those seen after the decision.
    pub findings: Vec<Finding>,
    pub outcome: Option<OutcomeKind>,
    /// Bytes that left; `None` while nobody knows.
    pub request_bytes: Option<u64>,
    pub upstream: Option<SocketAddr>,
}

/// The path of a recorded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenPath {
    /// There was none to be seen.
    None,
    /// As it was sent on, without its query.
    Plain(RequestPath),
    /// Some of it was redacted or cut.
    Hidden,
}

#[derive(Deserialize)]
struct DecisionText {
    action: Action,
    agent: AgentName,
    class: Class,
    findings: Vec<Finding>,
    host: Option<String>,
    id: Ulid,
    kind: Kind,
    method: Option<String>,
    path: Option<String>,
    port: Option<u16>,
    reason: Reason,
    rule: Option<String>,
    scheme: Option<Scheme>,
    session: Option<SessionId>,
    time: i64,
    would: Option<Action>,
    would_reason: Option<Reason>,
}

#[derive(Deserialize)]
struct OutcomeText {
    action: Action,
    findings: Vec<Finding>,
    outcome: OutcomeKind,
    reason: Reason,
    request_bytes: u64,
    upstream: Option<SocketAddr>,
    would: Option<Action>,
    would_reason: Option<Reason>,
}

impl Observed {
    /// Reads the canonical texts of a decision and of its outcome.
    ///
    /// # Errors
    /// What is not a record, in serde's words.
    pub fn parse(decision: &str, outcome: Option<&str>) -> Result<Observed, serde_json::Error> {
        let decision: DecisionText = serde_json::from_str(decision)?;
        let mut seen = Observed {
            id: decision.id,
            time: decision.time,
            session: decision.session,
            agent: decision.agent,
            kind: decision.kind,
            class: decision.class,
            method: decision.method,
            scheme: decision.scheme,
            host: decision.host,
            port: decision.port,
            path: decision.path,
            action: decision.action,
            reason: decision.reason,
            decided: decision.action,
            would: decision.would,
            would_reason: decision.would_reason,
            rule: decision.rule,
            findings: decision.findings,
            outcome: None,
            request_bytes: None,
            upstream: None,
        };
        if let Some(outcome) = outcome {
            seen.end(serde_json::from_str(outcome)?);
        }
        Ok(seen)
    }

    fn end(&mut self, outcome: OutcomeText) {
        self.action = outcome.action;
        self.reason = outcome.reason;
        self.would = outcome.would.or(self.would);
        self.would_reason = outcome.would_reason.or(self.would_reason);
        self.findings.extend(outcome.findings);
        self.outcome = Some(outcome.outcome);
        self.request_bytes = Some(outcome.request_bytes);
        self.upstream = outcome.upstream;
    }

    /// Where it went; `None` where that could not be parsed, or was redacted.
    pub fn target(&self) -> Option<Target> {
        let host = Host::parse(self.host.as_ref()?.as_bytes()).ok()?;
        Some(Target { scheme: self.scheme?, host, port: self.port? })
    }

    /// Its path, as rules are matched with it.
    pub fn seen_path(&self) -> SeenPath {
        let Some(path) = &self.path else { return SeenPath::None };
        let path = path.split('?').next().unwrap_or_default();
        // A redaction and a cut are written with characters that no path holds.
        match RequestPath::parse(path.as_bytes()) {
            Ok(plain) if plain.as_str() == path && !path.contains("[redacted:") => SeenPath::Plain(plain),
            _ => SeenPath::Hidden,
        }
    }

    /// Whether there is a finding that `wanted` means.
    pub fn found(&self, wanted: impl Fn(&Finding) -> bool) -> bool {
        self.findings.iter().any(wanted)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::tests::{decision, outcome};
    use crate::redact::Redacted;

    /// An allowed `GET https://docs.test/`, finished, with some fields changed; `minute` moves it in time, `findings`
    /// are those of its outcome. `decided` is what was decided first, if that is not the last word.
    pub(crate) fn observed(changes: serde_json::Value) -> Observed {
        use serde_json::{Value, json};
        let Value::Object(mut changes) = changes else { panic!("no object: {changes}") };
        let time =
            1_795_000_000_000_000 + changes.remove("minute").map_or(0, |m| m.as_i64().unwrap()) * 60_000_000;
        let decided = changes.remove("decided");
        let mut view = json!({
            "action": "allow", "agent": "claude", "class": "unknown", "findings": [], "host": "docs.test",
            "id": Ulid::from_parts(u64::try_from(time / 1000).unwrap(), 7), "kind": "http", "method": "GET",
            "path": "/", "port": 443, "reason": "allowed_by_rule", "rule": null, "scheme": "https",
            "session": "01M7Q5CQG00000000000000001", "time": time, "would": null, "would_reason": null,
            "outcome": "completed", "request_bytes": 300, "upstream": null,
        });
        view.as_object_mut().unwrap().extend(changes);
        let mut first = view.clone();
        first["findings"] = json!([]);
        if let Some(decided) = decided {
            first["action"] = decided;
        }
        let outcome = (view["outcome"] != Value::Null).then(|| view.to_string());
        Observed::parse(&first.to_string(), outcome.as_deref()).unwrap()
    }

    #[test]
    fn records_read_as_they_were_written() {
        let decision = decision();
        let outcome = outcome(&decision);
        let seen = Observed::parse(&decision.canonical(), Some(&outcome.canonical())).unwrap();
        assert_eq!(seen.target().unwrap().to_string(), "https://evil.example:443");
        assert_eq!(
            (seen.action, seen.reason, seen.decided),
            (Action::Deny, Reason::SecretFound, Action::Allow)
        );
        assert_eq!(seen.request_bytes, Some(17));
        assert_eq!(seen.findings.len(), 2);
        let open = Observed::parse(&decision.canonical(), None).unwrap();
        assert_eq!((open.action, open.outcome, open.request_bytes), (Action::Allow, None, None));
        assert!(Observed::parse(&outcome.canonical(), None).is_err());
    }

    #[test]
    fn a_path_is_plain_or_known_to_be_hidden() {
        for (path, plain) in [
            ("/a/b?q=[redacted:query]", Some("/a/b")),
            ("/@scope%2Fname", Some("/@scope%2Fname")),
            ("/[redacted:aws-access-key]/x", None),
            ("/long…[truncated]", None),
            ("/with\\u{202e}", None),
        ] {
            let decision = crate::record::Decision { path: Some(Redacted::literal(path)), ..decision() };
            let seen = Observed::parse(&decision.canonical(), None).unwrap().seen_path();
            let found = match &seen {
                SeenPath::Plain(path) => Some(path.as_str()),
                _ => None,
            };
            assert_eq!(found, plain, "{path}");
        }
    }
}
