use serde_json::{Value, json};

use super::*;
use crate::catalogue::Catalogue;
use crate::document::Source;
use crate::observed::tests::observed;

fn policy(text: &str) -> Policy {
    let source = Source { name: "candidate.toml", text: &format!("version = 1\n{text}") };
    Policy::parse(&[source], Catalogue::builtin()).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"))
}

/// What is said to one record: `same`, `from > to reason`, or what is lacking.
fn said(text: &str, seen: &Observed) -> String {
    let policy = policy(text);
    match Replay::new(&policy, Grants::none(), true).judge(seen) {
        Said::Same => "same".to_owned(),
        Said::Flip(flip) => format!("{} > {} {}", flip.from, flip.to, flip.reason),
        Said::CannotTell(lack) => format!("{lack:?}"),
    }
}

#[test]
fn each_record_is_held_against_the_candidate() {
    let large =
        |of: &str, bytes: u64| json!([{"kind": "large_upload", "bytes": bytes, "limit": 1, "of": of}]);
    let secret = json!([{"kind": "secret", "detector": "aws-access-key", "count": 1, "where": "body", "key": "hmac:0"}]);
    let allow = "allow = [\"docs.test\"]";
    let by_path =
        "[[rule]]\naction = \"allow\"\nto = [\"docs.test\"]\nmethods = [\"GET\"]\npaths = [\"/guide/**\"]";
    let tight = "[[rule]]\naction = \"allow\"\nto = [\"docs.test\"]\nuploads = { request_block = \"1 KiB\" }";
    let denied =
        json!({"action": "deny", "reason": "unknown_destination", "outcome": "denied", "request_bytes": 0});
    let with = |base: &Value, more: Value| -> Value {
        let mut base = base.clone();
        base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        base
    };
    for (candidate, record, expected) in [
        // What was allowed.
        (allow, json!({}), "same"),
        ("", json!({}), "allow > deny unknown_destination"),
        ("deny = [\"docs.test\"]", json!({}), "allow > deny denied_by_rule"),
        ("ask = [\"docs.test\"]", json!({}), "allow > ask approval_unattended"),
        (by_path, json!({"path": "/guide/x?q=[redacted:query]"}), "same"),
        (by_path, json!({"path": "/other"}), "allow > deny unknown_destination"),
        (by_path, json!({"path": "/guide/x", "method": "POST"}), "allow > deny unknown_destination"),
        ("mode = \"observe\"", json!({}), "same"),
        (
            allow,
            json!({"reason": "allowed_by_observe", "would": "deny", "would_reason": "unknown_destination"}),
            "same",
        ),
        // What was refused.
        (allow, denied.clone(), "deny > allow allowed_by_rule"),
        ("", denied.clone(), "same"),
        ("mode = \"observe\"", denied.clone(), "deny > allow allowed_by_observe"),
        // What the record lacks.
        (by_path, json!({"path": "/guide/[redacted:aws-access-key]"}), "Path"),
        (allow, json!({"path": "/guide/[redacted:aws-access-key]"}), "same"),
        (by_path, json!({"kind": "connect", "path": null, "method": null}), "Requests"),
        (allow, json!({"kind": "connect", "path": null, "method": null}), "same"),
        (allow, json!({"host": "[redacted:aws-access-key].test"}), "Destination"),
        (tight, with(&denied, json!({"method": "POST"})), "Size"),
        (tight, denied.clone(), "deny > allow allowed_by_rule"),
        // How much was sent.
        (tight, json!({"method": "POST", "request_bytes": 4096}), "allow > deny upload_too_large"),
        (
            allow,
            with(&denied, json!({"reason": "upload_too_large", "findings": large("request_block", 4096)})),
            "deny > allow allowed_by_rule",
        ),
        (
            tight,
            with(&denied, json!({"reason": "upload_too_large", "findings": large("request_block", 4096)})),
            "same",
        ),
        (
            allow,
            json!({"action": "deny", "reason": "upload_too_large", "decided": "allow", "outcome": "cut",
                   "request_bytes": 2000, "findings": large("request_block", 4096)}),
            "Size",
        ),
        (
            allow,
            with(
                &denied,
                json!({"reason": "upload_window_exceeded", "findings": large("window_block", 4096)}),
            ),
            "Usage",
        ),
        // Secrets.
        (allow, json!({"findings": secret}), "allow > deny secret_found"),
        ("allow = [\"docs.test\"]\nsecrets = { action = \"alert\" }", json!({"findings": secret}), "same"),
        ("allow = [\"docs.test\"]\nsecrets = { action = \"mask\" }", json!({"findings": secret}), "same"),
        (
            "allow = [\"docs.test\"]\nsecrets = { action = \"mask\" }",
            with(&denied, json!({"reason": "secret_found", "decided": "allow", "findings": secret})),
            "Masking",
        ),
        (
            allow,
            with(&denied, json!({"reason": "secret_found", "decided": "allow", "findings": secret})),
            "same",
        ),
        (
            "allow = [\"docs.test\"]\nsecrets = { action = \"alert\" }",
            with(&denied, json!({"reason": "secret_found", "decided": "allow", "findings": secret})),
            "deny > allow allowed_by_rule",
        ),
        // Addresses.
        (allow, json!({"upstream": "10.0.0.1:443"}), "allow > deny address_forbidden"),
        (
            "allow = [\"docs.test\"]\naddresses = { allow = [\"10.0.0.0/8\"] }",
            json!({"upstream": "10.0.0.1:443"}),
            "same",
        ),
        (allow, with(&denied, json!({"reason": "address_forbidden", "decided": "allow"})), "Address"),
        (
            allow,
            with(
                &denied,
                json!({"reason": "address_forbidden", "decided": "allow", "upstream": "10.0.0.1:443"}),
            ),
            "same",
        ),
        (
            "allow = [\"docs.test\"]\naddresses = { allow = [\"10.0.0.0/8\"] }",
            with(
                &denied,
                json!({"reason": "address_forbidden", "decided": "allow", "upstream": "10.0.0.1:443"}),
            ),
            "Address",
        ),
        // Answers.
        (
            "ask = [\"docs.test\"]",
            json!({"reason": "allowed_by_approval", "rule": "ask \"docs.test\""}),
            "same",
        ),
        (
            "ask = [\"docs.test:443\"]",
            json!({"reason": "allowed_by_approval", "rule": "ask \"docs.test\""}),
            "allow > ask approval_unattended",
        ),
        (
            "ask = [\"docs.test\"]",
            with(&denied, json!({"reason": "approval_denied", "rule": "ask \"docs.test\""})),
            "same",
        ),
        // What no policy decides.
        ("", json!({"action": "deny", "reason": "malformed_request", "host": null}), "same"),
        ("", json!({"action": "deny", "reason": "identity_required"}), "same"),
        (allow, json!({"action": "deny", "reason": "upstream_unreachable", "decided": "allow"}), "same"),
        (
            "",
            json!({"action": "deny", "reason": "name_not_found", "decided": "allow"}),
            "allow > deny unknown_destination",
        ),
        (
            allow,
            json!({"kind": "tcp", "scheme": "tcp", "port": 5432, "action": "deny", "reason": "port_refused"}),
            "same",
        ),
        // Names.
        (
            allow,
            json!({"kind": "dns", "action": "deny", "reason": "unknown_destination"}),
            "deny > allow allowed_by_rule",
        ),
        ("", json!({"kind": "dns", "action": "deny", "reason": "unknown_destination"}), "same"),
    ] {
        assert_eq!(said(candidate, &observed(record.clone())), expected, "`{candidate}` on {record}");
    }
}

#[test]
fn what_was_sent_before_counts() {
    let policy = policy("allow = [\"docs.test\"]\n[uploads]\nwindow = \"10m\"\nwindow_block = \"10 KiB\"");
    let mut replay = Replay::new(&policy, Grants::none(), true);
    let at = |minute: i64| observed(json!({"method": "POST", "request_bytes": 4096, "minute": minute}));
    assert_eq!(replay.judge(&at(0)), Said::Same);
    assert_eq!(replay.judge(&at(1)), Said::Same);
    let third = replay.judge(&at(2));
    assert!(
        matches!(&third, Said::Flip(flip) if flip.reason == Reason::UploadWindowExceeded && flip.to == Action::Deny),
        "{third:?}"
    );
    assert_eq!(replay.judge(&at(30)), Said::Same, "the window has moved on");
}

#[test]
fn a_flip_is_written_as_documented() {
    let policy = policy("deny = [\"docs.test\"]");
    let seen = observed(json!({}));
    let Said::Flip(flip) = Replay::new(&policy, Grants::none(), true).judge(&seen) else { panic!() };
    assert_eq!(
        serde_json::to_value(&flip).unwrap(),
        json!({"decision": seen.id.to_string(), "from": "allow", "to": "deny", "reason": "denied_by_rule",
               "rule": "deny \"docs.test\""})
    );
}
