//! What a session came to, in a few lines: reached, denied, sent, secrets.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use owo_colors::OwoColorize as _;
use policy::catalogue::Catalogue;
use policy::record::{Finding, OutcomeKind};
use policy::request::Kind;
use policy::suggest;
use policy::verdict::{Action, Class, Reason};
use policy::view::DecisionView;

use super::output::{Shown, bold, bytes, count};

/// How many destinations are named before the rest is only counted.
const NAMED: usize = 6;

/// What a session's decisions add up to.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    reached: BTreeMap<String, u64>,
    denied: BTreeMap<(String, Reason), Denied>,
    failed: BTreeMap<(String, Reason), u64>,
    would: BTreeMap<(String, Reason), Denied>,
    sent: BTreeMap<String, u64>,
    secrets: BTreeMap<(String, String, bool), u64>,
}

/// Equal refusals.
#[derive(Debug, Default)]
struct Denied {
    times: u64,
    allow: Option<String>,
    rule: Option<String>,
    /// What whoever allows it should know.
    mind: Option<String>,
}

impl Summary {
    /// Adds one decision.
    pub(crate) fn add(&mut self, view: &DecisionView) {
        let host = view.destination();
        if let Some(sent) = view.request_bytes.filter(|sent| *sent > 0) {
            *self.sent.entry(host.clone()).or_default() += sent;
        }
        let would = view.would.filter(|would| *would != Action::Allow).and(view.would_reason);
        if let Some(reason) = would {
            let would = self.would.entry((host.clone(), reason)).or_default();
            would.add(view, view.would_allow_line());
        }
        for finding in &view.findings {
            if let Finding::Secret { detector, .. } = finding {
                let stopped = view.action == Action::Deny;
                *self.secrets.entry((detector.to_string(), host.clone(), stopped)).or_default() += 1;
            }
        }
        match view.action {
            // A name that nothing connected to.
            Action::Allow if view.kind == Kind::Dns => {}
            Action::Allow if view.outcome == Some(OutcomeKind::Failed) => {
                *self.failed.entry((host, view.reason)).or_default() += 1;
            }
            Action::Allow => *self.reached.entry(host).or_default() += 1,
            Action::Ask | Action::Deny => {
                let denied = self.denied.entry((host, view.reason)).or_default();
                denied.add(view, view.allow_line().or_else(|| view.address_line()));
            }
        }
    }

    /// The lines, or nothing where nothing was asked for.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, rest: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {} {rest}", bold(&format!("{name:<8}")));
        };
        if self.reached.is_empty() && self.failed.is_empty() && self.denied.is_empty() {
            line("reached", "nothing: no request came to the gateway");
        }
        if !self.reached.is_empty() {
            let requests = count(self.reached.values().sum(), "request");
            line("reached", &format!("{requests}: {}", most(&self.reached, |times| format!("{times}×"))));
        }
        for ((host, reason), times) in &self.failed {
            line("failed", &format!("{} {times}×, {reason}", Shown(host)));
        }
        refusals(&mut line, "denied", &self.denied);
        if !self.would.is_empty() {
            let requests = count(self.would.values().map(|would| would.times).sum(), "request");
            line("observed", &format!("{requests} that enforcing would have stopped:"));
            refusals(&mut line, "", &self.would);
        }
        if !self.sent.is_empty() {
            let all = bytes(self.sent.values().sum());
            line("sent", &format!("{all}: {}", most(&self.sent, |sent| bytes(*sent))));
        }
        for ((detector, host, stopped), times) in &self.secrets {
            let fate =
                if *stopped { "stopped" } else { "not stopped: masked or only recorded, as the policy says" };
            line("secret", &format!("{} on the way to {} {times}×, {fate}", Shown(detector), Shown(host)));
        }
        text
    }
}

/// A line for each kind of refusal, and what to mind before it is allowed.
fn refusals(line: &mut impl FnMut(&str, &str), name: &str, refusals: &BTreeMap<(String, Reason), Denied>) {
    for ((host, reason), denied) in refusals {
        line(name, &format!("{} {}×, {reason}{}", Shown(host), denied.times, denied.hint()));
        if let Some(mind) = &denied.mind {
            line("", &format!("mind: {}", mind.yellow()));
        }
    }
}

/// What whoever allows the host should know of it.
fn warning(view: &DecisionView) -> Option<String> {
    let host = view.host.as_ref().and_then(|host| host.as_str().parse().ok())?;
    // What the policy names as a service of its own is no imitation.
    let why = suggest::warning(Catalogue::builtin(), &host).filter(|_| view.class == Class::Unknown)?;
    Some(why.words())
}

impl Denied {
    /// One more, with the line that would allow it.
    fn add(&mut self, view: &DecisionView, allow: Option<String>) {
        self.times += 1;
        self.mind = allow.as_ref().and_then(|_| warning(view));
        self.allow = allow;
        // The rule that allowed a name has nothing to do with where the name leads.
        let rule = view.rule.as_ref().filter(|_| view.reason != Reason::AddressForbidden);
        self.rule = rule.map(|rule| rule.as_str().to_owned());
    }

    fn hint(&self) -> String {
        match (&self.allow, &self.rule) {
            (Some(allow), _) => format!("; to allow it: {}", Shown(allow)),
            (None, Some(rule)) => format!(" by `{}`", Shown(rule)),
            (None, None) => String::new(),
        }
    }
}

/// The entries with the greatest values, and how many there are besides.
fn most(entries: &BTreeMap<String, u64>, value: impl Fn(&u64) -> String) -> String {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut named: Vec<String> = sorted
        .iter()
        .take(NAMED)
        .map(|(host, number)| format!("{} {}", Shown(host), value(number)))
        .collect();
    if sorted.len() > NAMED {
        named.push(count((sorted.len() - NAMED) as u64, "other"));
    }
    named.join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A decision as `log --json` prints it, with some fields changed.
    pub(crate) fn view(changes: Value) -> DecisionView {
        let mut fields = json!({
            "id": "01M7R3PQ7V0000000000000007", "time": "2026-11-21T06:00:00.123456Z", "session": null,
            "agent": "claude", "owner": null, "kind": "http", "class": "unknown", "service": null,
            "method": "POST", "scheme": "https", "host": "evil.example", "port": 443, "domain": "evil.example",
            "path": "/upload", "http_version": "2", "action": "deny", "reason": "unknown_destination",
            "decided": null, "would": null, "would_reason": null, "rule": null, "mode": "enforce",
            "policy": "sha256:00", "findings": [], "outcome": "denied", "status": 403, "request_bytes": 0,
            "response_bytes": 0, "upstream": null, "ms": null, "body": null, "seq": 1, "hash": "00",
            "previous": null, "outcome_seq": 2, "outcome_hash": "00"
        });
        let (Some(fields_map), Value::Object(changes)) = (fields.as_object_mut(), changes) else {
            unreachable!()
        };
        fields_map.extend(changes);
        serde_json::from_value(fields).unwrap()
    }

    fn lines(views: &[Value]) -> String {
        let mut summary = Summary::default();
        for changes in views {
            summary.add(&view(changes.clone()));
        }
        anstream::adapter::strip_str(&summary.text()).to_string()
    }

    #[test]
    fn a_session_is_told_in_lines_that_say_what_to_do() {
        let allowed = json!({"host": "api.anthropic.com", "action": "allow", "reason": "allowed_by_rule",
            "outcome": "completed", "request_bytes": 2048});
        let secret = json!({"host": "paste.example", "reason": "secret_found", "rule": "allow \"paste.example\"",
            "findings": [{"kind": "secret", "detector": "aws-access-key", "count": 1, "where": "body", "key": "hmac:0"}]});
        let observed = json!({"host": "new.example", "action": "allow", "reason": "allowed_by_observe",
            "would": "deny", "would_reason": "unknown_destination", "outcome": "completed", "request_bytes": 100});
        let text =
            lines(&[allowed.clone(), allowed, json!({}), json!({}), json!({"port": 8443}), secret, observed]);
        let expected = "  \
  reached  3 requests: api.anthropic.com 2×, new.example 1×
  denied   evil.example 2×, unknown_destination; to allow it: outgate policy allow evil.example
  denied   evil.example:8443 1×, unknown_destination; to allow it: outgate policy allow evil.example:8443
  denied   paste.example 1×, secret_found by `allow \"paste.example\"`
  observed 1 request that enforcing would have stopped:
           new.example 1×, unknown_destination; to allow it: outgate policy allow new.example
  sent     4.1 KiB: api.anthropic.com 4.0 KiB, new.example 100 B
  secret   aws-access-key on the way to paste.example 1×, stopped
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_a_fence_refused_is_told_with_the_line_that_helps_and_with_none_where_none_does() {
        let name = json!({"kind": "dns", "scheme": null, "port": null, "path": null, "method": null});
        let mut looked_up = name.clone();
        looked_up["action"] = json!("allow");
        looked_up["reason"] = json!("allowed_by_rule");
        looked_up["outcome"] = json!("completed");
        let port = json!({"kind": "tcp", "scheme": "tcp", "port": 5432, "reason": "port_refused"});
        let expected = "  \
  denied   evil.example 1×, unknown_destination; to allow it: outgate policy allow evil.example
  denied   evil.example:5432 1×, port_refused
";
        assert_eq!(lines(&[name, looked_up, port]), expected);
    }

    #[test]
    fn a_line_that_would_allow_says_what_to_mind() {
        for (host, mind) in [
            ("gihtub.com", "mind: it looks like github.com and is not\n"),
            ("pastebin.com", "mind: a paste service: shows what anyone posts to anyone\n"),
        ] {
            let expected = format!(
                "  denied   {host} 1×, unknown_destination; to allow it: outgate policy allow {host}\n           {mind}"
            );
            assert_eq!(lines(&[json!({"host": host})]), expected);
        }
        // Nothing is to be minded of what a service of the policy is.
        assert!(
            !lines(&[json!({"host": "gihtub.com", "class": "tool", "reason": "denied_by_default"})])
                .contains("mind")
        );
    }

    #[test]
    fn an_address_that_may_not_be_dialled_is_told_with_the_line_that_would_allow_it() {
        let refused = json!({"host": "mirror.example", "reason": "address_forbidden", "rule": "allow \"@registries\"",
            "upstream": "203.0.113.80:443"});
        let expected = "  denied   mirror.example 1×, address_forbidden; to allow it: [addresses] allow = [\"203.0.113.80\"]\n";
        assert_eq!(lines(&[refused]), expected);
    }

    #[test]
    fn what_failed_was_not_reached() {
        let failed = json!({"action": "allow", "reason": "name_not_found", "outcome": "failed", "host": "gone.example"});
        assert_eq!(lines(&[failed.clone(), failed]), "  failed   gone.example 2×, name_not_found\n");
    }

    #[test]
    fn a_session_without_requests_says_so() {
        assert_eq!(lines(&[]), "  reached  nothing: no request came to the gateway\n");
    }

    #[test]
    fn a_rules_denial_offers_no_line_that_would_not_help() {
        for (reason, rule, words) in [
            ("denied_by_rule", Some("deny \"evil.example\""), "denied_by_rule by `deny \"evil.example\"`"),
            ("upload_too_large", None, "upload_too_large"),
            ("address_forbidden", None, "address_forbidden"),
        ] {
            let text = lines(&[json!({"reason": reason, "rule": rule})]);
            assert!(text.contains(words) && !text.contains("outgate policy allow"), "{text}");
        }
    }
}
