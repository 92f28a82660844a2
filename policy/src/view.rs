//! A decision joined with its outcome, as `outgate log --json`, the API and the report show it.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::address::{AddressClass, AddressEntry, AddressRules};
use crate::chain::Hash;
use crate::identity::{AgentName, SessionId};
use crate::record::{BodyExcerpt, Decision, Finding, Outcome, OutcomeKind, Timing};
use crate::redact::Redacted;
use crate::request::Kind;
use crate::target::{Host, Scheme};
use crate::verdict::{Action, Class, Mode, Reason};

/// One exchange as people and scripts see it. Serialises to exactly the keys of the documented shape, in its order.
///
/// `action` and `reason` are the last word; everything about the outcome is `null` while there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `Decision` and `Outcome`")]
pub struct DecisionView {
    pub id: Ulid,
    /// RFC 3339, UTC, microseconds.
    pub time: String,
    pub session: Option<SessionId>,
    pub agent: AgentName,
    pub owner: Option<Redacted>,
    pub kind: Kind,
    pub class: Class,
    pub service: Option<Arc<str>>,
    pub method: Option<Redacted>,
    pub scheme: Option<Scheme>,
    pub host: Option<Redacted>,
    pub port: Option<u16>,
    pub domain: Option<Redacted>,
    pub path: Option<Redacted>,
    pub http_version: Option<Arc<str>>,
    pub action: Action,
    pub reason: Reason,
    pub decided: Option<Action>,
    pub would: Option<Action>,
    pub would_reason: Option<Reason>,
    pub rule: Option<Redacted>,
    pub mode: Mode,
    pub policy: Arc<str>,
    /// Those seen before and those seen after the decision.
    pub findings: Vec<Finding>,
    pub outcome: Option<OutcomeKind>,
    pub status: Option<u16>,
    pub request_bytes: Option<u64>,
    pub response_bytes: Option<u64>,
    pub upstream: Option<SocketAddr>,
    pub ms: Option<Timing>,
    pub body: Option<BodyExcerpt>,
    pub seq: u64,
    /// Hash of the decision, in hexadecimal.
    pub hash: String,
    /// Hash of the record before it; `None` where that was pruned.
    pub previous: Option<String>,
    pub outcome_seq: Option<u64>,
    pub outcome_hash: Option<String>,
}

/// What `outgate doctor` asks for, to be refused: a host that no policy allows and no server resolves (RFC 2606).
pub const PROBED_HOST: &str = "doctor.outgate.invalid";

/// A record with its place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Linked<R> {
    /// The record.
    pub record: R,
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What is known of the end of an exchange.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It is still going on.
    InFlight,
    /// The gateway that handled it died, and no other has noted so yet.
    Interrupted,
    /// It ended.
    Ended(Box<Linked<Outcome>>),
}

impl DecisionView {
    /// Joins a decision with what became of it. `previous` is the hash of the record before the decision.
    pub fn new(decision: Linked<Decision>, previous: Option<Hash>, fate: Fate) -> DecisionView {
        let Linked { record: decision, seq, hash } = decision;
        let mut view = DecisionView {
            id: decision.id,
            time: rfc3339(decision.time),
            session: decision.session,
            agent: decision.agent,
            owner: decision.owner,
            kind: decision.kind,
            class: decision.class,
            service: decision.service,
            method: decision.method,
            scheme: decision.scheme,
            host: decision.host,
            port: decision.port,
            domain: decision.domain,
            path: decision.path,
            http_version: decision.http_version,
            action: decision.action,
            reason: decision.reason,
            decided: None,
            would: decision.would,
            would_reason: decision.would_reason,
            rule: decision.rule,
            mode: decision.mode,
            policy: decision.policy,
            findings: decision.findings,
            outcome: None,
            status: None,
            request_bytes: None,
            response_bytes: None,
            upstream: None,
            ms: None,
            body: None,
            seq,
            hash: hash.to_string(),
            previous: previous.map(|hash| hash.to_string()),
            outcome_seq: None,
            outcome_hash: None,
        };
        match fate {
            Fate::InFlight => {}
            Fate::Interrupted => view.outcome = Some(OutcomeKind::Interrupted),
            Fate::Ended(outcome) => view.end(*outcome),
        }
        view
    }

    /// Where it went, as people write it: the host, with the port where the scheme does not say it.
    pub fn destination(&self) -> String {
        let Some(host) = &self.host else { return "(unreadable)".to_owned() };
        let usual = self.scheme.unwrap_or(Scheme::Tcp).default_port();
        match self.port {
            Some(port) if port != usual => format!("{}:{port}", host.as_str()),
            _ => host.as_str().to_owned(),
        }
    }

    /// The command that would allow it, where one would.
    pub fn allow_line(&self) -> Option<String> {
        self.allow_line_for(self.reason)
    }

    /// As [`DecisionView::allow_line`], for what enforcing would have stopped.
    pub fn would_allow_line(&self) -> Option<String> {
        self.allow_line_for(self.would_reason?)
    }

    fn allow_line_for(&self, reason: Reason) -> Option<String> {
        let helps = match reason {
            // Inside a fence nobody serves other ports, whatever the policy says.
            Reason::PortRefused => self.kind != Kind::Tcp,
            Reason::UnknownDestination | Reason::DeniedByDefault => true,
            _ => false,
        };
        // People paste this into a shell: a host that is none, for one that was redacted, must not get there.
        let host = self.host.as_ref().is_some_and(|host| Host::parse(host.as_str().as_bytes()).is_ok());
        (helps && host).then(|| format!("outgate policy allow {}", self.destination()))
    }

    /// Whether it is a probe of `outgate doctor`, of which nothing left: on record, and of no interest to people.
    pub fn is_probe(&self) -> bool {
        self.host.as_ref().is_some_and(|host| host.as_str() == PROBED_HOST)
            && self.request_bytes.is_none_or(|bytes| bytes == 0)
    }

    /// What would let its address be dialled, as it stands in a policy, where that is what it lacks.
    pub fn address_line(&self) -> Option<String> {
        let address = self.upstream.filter(|_| self.reason == Reason::AddressForbidden)?;
        let entry = address.ip().to_string();
        let named = AddressRules::new(vec![AddressEntry::parse(&entry).ok()?]);
        // Nobody is to be talked into handing out the credentials of a cloud machine.
        let helps = AddressClass::of(address.ip()) != AddressClass::Metadata
            && named.judge(address.ip(), address.port()).is_ok();
        helps.then(|| format!("[addresses] allow = [\"{entry}\"]"))
    }

    fn end(&mut self, outcome: Linked<Outcome>) {
        let Linked { record: outcome, seq, hash } = outcome;
        self.action = outcome.action;
        self.reason = outcome.reason;
        self.decided = outcome.decided;
        self.would = outcome.would.or(self.would);
        self.would_reason = outcome.would_reason.or(self.would_reason);
        self.findings.extend(outcome.findings);
        self.outcome = Some(outcome.outcome);
        self.status = outcome.status;
        self.request_bytes = Some(outcome.request_bytes);
        self.response_bytes = Some(outcome.response_bytes);
        self.upstream = outcome.upstream;
        self.ms = Some(outcome.ms);
        self.body = outcome.body;
        self.outcome_seq = Some(seq);
        self.outcome_hash = Some(hash.to_string());
    }
}

/// A time as records show it: RFC 3339, UTC, microseconds.
pub fn rfc3339(microseconds: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(microseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{decision, outcome};

    fn view(fate: Fate) -> serde_json::Value {
        let linked = Linked { record: decision(), seq: 1842, hash: Hash::ZERO.link(b"d") };
        serde_json::to_value(DecisionView::new(linked, Some(Hash::ZERO), fate)).unwrap()
    }

    #[test]
    fn a_finished_exchange_reads_as_documented() {
        let linked = Linked { record: outcome(&decision()), seq: 1843, hash: Hash::ZERO.link(b"o") };
        let expected = serde_json::json!({
            "id": "01M7Q5CQKV0000000000000007", "time": "2026-11-18T11:06:40.123456Z",
            "session": "01M7Q5CQG00000000000000001", "agent": "claude", "owner": "ana@example.com",
            "kind": "http", "class": "unknown", "service": null, "method": "POST", "scheme": "https",
            "host": "evil.example", "port": 443, "domain": "evil.example",
            "path": "/a\"b\\c\n\u{1}\u{7f}\u{2028}é?token=[redacted:query]", "http_version": "2",
            "action": "deny", "reason": "secret_found", "decided": "allow", "would": null, "would_reason": null,
            "rule": null, "mode": "enforce", "policy": "sha256:00",
            "findings": [
                {"kind": "large_upload", "bytes": 5242880, "limit": 1048576, "of": "request_block"},
                {"kind": "secret", "detector": "aws-access-key", "count": 1, "where": "body", "key": "hmac:00"}
            ],
            "outcome": "cut", "status": 403, "request_bytes": 17, "response_bytes": 0,
            "upstream": "[2001:db8::1]:443",
            "ms": {"decide": 0.02, "held": 0.0, "connect": null, "first_byte": 1.5, "total": 0.4},
            "body": {"excerpt": "{\"a\":\"[redacted:aws-access-key]\"}", "truncated": false, "content_type": "application/json"},
            "seq": 1842, "hash": Hash::ZERO.link(b"d").to_string(), "previous": "0".repeat(64),
            "outcome_seq": 1843, "outcome_hash": Hash::ZERO.link(b"o").to_string(),
        });
        assert_eq!(view(Fate::Ended(Box::new(linked))), expected);
    }

    #[test]
    fn an_exchange_without_outcome_says_so_under_the_same_keys() {
        let ended = Linked { record: outcome(&decision()), seq: 1843, hash: Hash::ZERO };
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let (in_flight, interrupted) = (view(Fate::InFlight), view(Fate::Interrupted));
        assert_eq!(keys(&in_flight), keys(&view(Fate::Ended(Box::new(ended)))));
        for key in
            ["outcome", "status", "request_bytes", "response_bytes", "ms", "outcome_seq", "outcome_hash"]
        {
            assert_eq!(in_flight[key], serde_json::Value::Null, "{key}");
        }
        assert_eq!(in_flight["action"], "allow");
        assert_eq!(interrupted["outcome"], "interrupted");
        assert_eq!(interrupted["outcome_seq"], serde_json::Value::Null);
    }
}
