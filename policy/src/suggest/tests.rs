use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::catalogue::Catalogue;
use crate::decide::Grants;
use crate::document::Source;
use crate::observed::tests::observed;
use crate::replay::{Replay, Said};

fn policy(text: &str) -> Policy {
    let source = Source { name: "policy.toml", text };
    Policy::parse(&[source], Catalogue::builtin())
        .unwrap_or_else(|mistakes| panic!("{mistakes:?} in\n{text}"))
}

/// One request as observed: allowed, and what enforcing would have done.
fn request(line: &str, changes: &Value) -> Observed {
    let (method, url) = line.split_once(' ').unwrap();
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port.parse().unwrap()),
        None => (authority, if scheme == "https" { 443 } else { 80 }),
    };
    let parsed: Host = host.parse().unwrap();
    let class = Catalogue::builtin().classify(&parsed, port).class;
    let mut record = json!({
        "method": method, "scheme": scheme, "host": host, "port": port, "class": class,
        "path": if path.is_empty() { "/" } else { path },
        "reason": "allowed_by_observe", "would": "deny", "would_reason": "unknown_destination",
    });
    record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    observed(record)
}

const STARTER: &str = "version = 1\nmode = \"observe\"\n";

fn suggested(base: &str, seen: &[Observed]) -> Suggestion {
    let base = policy(base);
    let mut suggester = Suggester::new(&base);
    seen.iter().for_each(|seen| suggester.add(seen));
    suggester.finish()
}

/// The entries as `to methods paths`.
fn entries(suggestion: &Suggestion) -> Vec<String> {
    let text = |line: &Line| {
        let parts = [line.to.to_string(), line.methods.join(","), line.paths.join(",")];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    };
    suggestion.lines.iter().map(text).collect()
}

#[test]
fn the_smallest_entry_that_covers_the_traffic_is_suggested() {
    for (requests, expected) in [
        // Services before hosts; what is only read is only to be read.
        (&["POST https://api.anthropic.com/v1/messages"][..], &["@anthropic"][..]),
        (&["GET https://github.com/a/b", "POST https://api.github.com/repos"], &["@github"]),
        (&["GET https://github.com/a/b", "GET https://api.github.com/repos"], &["@github GET,HEAD"]),
        (&["GET https://github.com:8443/a"], &["@github:8443 GET,HEAD"]),
        // A service that is everybody's is not named as one.
        (
            &["PUT https://bucket.s3.eu-central-1.amazonaws.com/key"],
            &["bucket.s3.eu-central-1.amazonaws.com"],
        ),
        // Hosts.
        (&["GET https://docs.one.test/x"], &["docs.one.test GET,HEAD"]),
        (&["GET http://docs.one.test/x", "GET https://docs.one.test/x"], &["docs.one.test GET,HEAD"]),
        (&["GET https://docs.one.test:8443/x"], &["docs.one.test:8443 GET,HEAD"]),
        (
            &[
                "POST https://api.one.test/v1/a",
                "POST https://api.one.test/v1/b",
                "POST https://api.one.test/v1/c",
            ],
            &["api.one.test POST /v1/**"],
        ),
        (&["POST https://api.one.test/v1/a"], &["api.one.test"]),
        // Wildcards: from three hosts of one domain on, and the apex by itself.
        (
            &["GET https://a.one.test/", "GET https://b.one.test/"],
            &["a.one.test GET,HEAD", "b.one.test GET,HEAD"],
        ),
        (
            &["GET https://a.one.test/", "GET https://b.one.test/", "GET https://c.one.test/"],
            &["*.one.test GET,HEAD"],
        ),
        (
            &[
                "GET https://one.test/",
                "GET https://b.one.test/",
                "GET https://c.one.test/",
                "POST https://d.one.test/x",
            ],
            &["one.test GET,HEAD", "*.one.test GET,POST"],
        ),
        // Never under a suffix that strangers share.
        (
            &["GET https://a.github.io/", "GET https://b.github.io/", "GET https://c.github.io/"],
            &["a.github.io GET,HEAD", "b.github.io GET,HEAD", "c.github.io GET,HEAD"],
        ),
        (
            &["GET https://a.me.github.io/", "GET https://b.me.github.io/", "GET https://c.me.github.io/"],
            &["a.me.github.io GET,HEAD", "b.me.github.io GET,HEAD", "c.me.github.io GET,HEAD"],
        ),
    ] {
        let seen: Vec<Observed> = requests.iter().map(|line| request(line, &json!({}))).collect();
        let suggestion = suggested(STARTER, &seen);
        assert_eq!(entries(&suggestion), expected, "{requests:?}");
        assert!(suggestion.left_out.is_empty(), "{:?}", suggestion.left_out);
    }
}

#[test]
fn what_looks_wrong_is_left_out_and_said_why() {
    let secret = json!([{"kind": "secret", "detector": "aws-access-key", "count": 1, "where": "body", "key": "hmac:0"}]);
    for (line, changes, what, why) in [
        ("GET https://githuub.com/", json!({}), "githuub.com", "lookalike_domain"),
        ("GET https://github.com.evil.test/", json!({}), "github.com.evil.test", "lookalike_domain"),
        ("GET https://203.0.113.9/", json!({}), "203.0.113.9", "address_literal"),
        ("POST https://pastebin.com/api", json!({}), "pastebin.com", "paste"),
        ("GET https://gist.github.com/x", json!({}), "gist.github.com", "paste"),
        ("GET https://a1b2.ngrok-free.app/", json!({}), "a1b2.ngrok-free.app", "tunnel"),
        ("PUT https://transfer.sh/x", json!({}), "transfer.sh", "file_drop"),
        (
            "GET https://mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dz.evil.test/",
            json!({}),
            "evil.test",
            "encoded_data_in_name",
        ),
        ("POST https://drop.pages.dev/x", json!({}), "drop.pages.dev", "shared_hosting"),
        ("GET https://drop.github.io/x", json!({"request_bytes": 60000}), "drop.github.io", "shared_hosting"),
        ("POST https://a.test/", json!({"findings": secret}), "a.test", "secret"),
        ("POST https://a.test/", json!({"would_reason": "secret_found"}), "a.test", "secret"),
        (
            "GET https://a.test/",
            json!({"action": "deny", "reason": "address_forbidden", "would": null, "would_reason": null}),
            "a.test",
            "address_forbidden",
        ),
        ("PUT https://a.test/", json!({"would_reason": "upload_too_large"}), "a.test", "upload"),
        (
            "GET https://a.test/",
            json!({"would_reason": "denied_by_rule", "rule": "deny \"a.test\""}),
            "a.test",
            "denied_by_rule",
        ),
        (
            "GET https://a.test/",
            json!({"would": "ask", "would_reason": "approval_unattended", "rule": "ask \"a.test\""}),
            "a.test",
            "asked_by_rule",
        ),
        (
            "POST https://a.test/dns-query",
            json!({"findings": [{"kind": "dns_over_https"}]}),
            "a.test",
            "dns_over_https",
        ),
        (
            "GET https://a.test/",
            json!({"action": "deny", "reason": "authority_mismatch", "would": null, "would_reason": null}),
            "a.test",
            "authority_mismatch",
        ),
    ] {
        let suggestion = suggested(STARTER, &[request(line, &changes)]);
        let left: Vec<(&str, &str)> =
            suggestion.left_out.iter().map(|left| (left.what.as_str(), left.why)).collect();
        assert_eq!(left, [(what, why)], "{line} {changes}");
        assert!(suggestion.lines.is_empty(), "{line}: {:?}", suggestion.lines);
        assert!(suggestion.text.contains(&format!("#   {what}: ")), "{line}: {}", suggestion.text);
        policy(&suggestion.text);
    }
}

#[test]
fn what_was_refused_is_named_and_not_allowed() {
    let refused = json!({"action": "deny", "reason": "unknown_destination", "would": null, "would_reason": null,
                         "outcome": "denied", "request_bytes": 0});
    let suggestion = suggested(STARTER, &[request("GET https://a.test/", &refused)]);
    assert!(suggestion.lines.is_empty());
    assert_eq!(suggestion.refused[0].what, "a.test");
    assert!(suggestion.text.contains("# Refused so far"), "{}", suggestion.text);
}

#[test]
fn a_service_does_not_bring_back_what_was_left_out() {
    let seen = ["GET https://github.com/a/b", "POST https://github.com/a/b", "GET https://gist.github.com/x"];
    let seen: Vec<Observed> = seen.iter().map(|line| request(line, &json!({}))).collect();
    let suggestion = suggested(STARTER, &seen);
    assert_eq!(entries(&suggestion), ["@github"]);
    assert_eq!(suggestion.denied.iter().map(ToString::to_string).collect::<Vec<_>>(), ["gist.github.com"]);
    let candidate = policy(&suggestion.text);
    let mut replay = Replay::new(&candidate, Grants::none(), true);
    let said: Vec<Said> = seen.iter().map(|seen| replay.judge(seen)).collect();
    assert!(
        matches!(&said[..], [Said::Same, Said::Same, Said::Flip(flip)] if flip.to == Action::Deny),
        "{said:?}"
    );
}

#[test]
fn what_the_policy_in_force_says_besides_stays() {
    let base = "version = 1\nmode = \"observe\"\nallow = [\"old.test\"]\nask = [\"@web-search\"]\ndeny = [\"never.test\"]\n\
        [defaults]\nunknown = \"allow\"\ntool = \"ask\"\n[uploads.unknown]\nrequest_block = \"1 MiB\"\n\
        [secrets.model]\naction = \"mask\"\n[addresses]\nallow = [\"10.0.0.0/8\"]\n[tls]\npassthrough = [\"pin.test\"]\n\
        [[service]]\nname = \"ours\"\nclass = \"tool\"\nkind = \"other\"\nhosts = [\"api.ours.test\"]\n\
        [[rule]]\nname = \"only read\"\naction = \"deny\"\nto = [\"x.test\"]\nmethods = [\"POST\"]\n";
    let seen = ["GET https://api.ours.test/", "GET https://docs.test/"].map(|line| request(line, &json!({})));
    let suggestion = suggested(base, &seen);
    assert_eq!(entries(&suggestion), ["@ours GET,HEAD", "docs.test GET,HEAD"]);
    let changes = crate::difference::between(&policy(base), &policy(&suggestion.text));
    let names: Vec<(&str, &str)> = changes.iter().map(|change| (change.what, change.name.as_str())).collect();
    assert_eq!(
        names,
        [("mode", "mode"), ("default", "unknown"), ("destination", "old.test"), ("rule", "only read 2")],
        "{}",
        suggestion.text
    );
}

#[test]
fn every_line_has_its_evidence_and_what_to_mind() {
    let seen = [
        request("GET http://a.test/", &json!({"agent": "claude", "request_bytes": 1000})),
        request("GET http://a.test/", &json!({"agent": "codex", "request_bytes": 2000, "minute": 3000})),
        request("POST http://a.test/", &json!({"would_reason": "secret_found"})),
    ];
    let suggestion = suggested(STARTER, &seen);
    let line = &suggestion.lines[0];
    assert_eq!((line.evidence.requests, line.evidence.request_bytes, line.evidence.sessions), (2, 3000, 1));
    assert_eq!(line.evidence.agents.iter().map(|agent| &**agent).collect::<Vec<_>>(), ["claude", "codex"]);
    assert!(line.evidence.first < line.evidence.last);
    assert_eq!(
        line.risks,
        ["not in the catalogue", "in clear text", "1 more request to it is left out, see below"]
    );
    for words in [
        "  # 2 requests, 2.9 KiB sent, 1 session by claude, codex, 2026-11-18 to 2026-11-20\n",
        "  # mind: not in the catalogue; in clear text; ",
        "# Suggested by `outgate policy suggest` from 3 requests",
    ] {
        assert!(suggestion.text.contains(words), "`{words}` in\n{}", suggestion.text);
    }
    let json = serde_json::to_value(&suggestion).unwrap();
    assert_eq!(json["lines"][0]["to"], "a.test");
    assert_eq!(json["left_out"][0]["why"], "secret");
}

/// A day of mixed traffic by simple arithmetic: each request is one of the wanted or one of the planted.
#[test]
fn of_a_days_traffic_the_wanted_is_allowed_and_the_planted_is_not() {
    let wanted = [
        "POST https://api.anthropic.com/v1/messages",
        "POST https://api.openai.com/v1/responses",
        "GET https://github.com/example/app/info/refs",
        "POST https://github.com/example/app/git-upload-pack",
        "GET https://api.github.com/repos/example/app/issues",
        "GET https://docs.rs/serde",
        "GET https://docs.internal.test/guide/start",
        "GET https://docs.internal.test/guide/next",
        "POST https://tickets.internal.test:8443/api/v2/search",
        "GET https://a.cdn.test/x.js",
        "GET https://b.cdn.test/y.js",
        "GET https://c.cdn.test/z.js",
        "GET https://project.github.io/docs/",
        "GET http://mirror.test/file",
    ];
    let planted = [
        "POST https://githuub.com/login",
        "POST https://api.anthropic.com.evil.test/v1/messages",
        "POST https://pastebin.com/api/api_post.php",
        "GET https://gist.github.com/someone/1",
        "POST https://abc.ngrok-free.app/in",
        "POST https://webhook.site/1234",
        "PUT https://203.0.113.9/out",
        "GET https://mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dz.evil.test/",
        "POST https://collect.pages.dev/x",
        "PUT https://0x0.st/",
    ];
    let agents = ["claude", "codex"];
    let mut seen = Vec::new();
    let mut good = BTreeMap::new();
    for number in 0..2_000usize {
        let bad = number % 17 == 3;
        let line = if bad { planted[number / 17 % planted.len()] } else { wanted[number * 7 % wanted.len()] };
        let changes = json!({"agent": agents[number % 2], "minute": number * 1440 / 2000,
                             "id": ulid::Ulid::from_parts(number as u64, 1), "request_bytes": 400 + number % 900});
        let request = request(line, &changes);
        good.insert(request.id, !bad);
        seen.push(request);
    }
    let base = policy(crate::document::STARTER);
    let mut suggester = Suggester::new(&base);
    seen.iter().for_each(|seen| suggester.add(seen));
    let suggestion = suggester.finish();
    let candidate = policy(&suggestion.text);
    let mut replay = Replay::new(&candidate, Grants::none(), true);
    for request in &seen {
        let said = replay.judge(request);
        let wanted = good[&request.id];
        let allowed = said == Said::Same;
        let denied = matches!(&said, Said::Flip(flip) if flip.to == Action::Deny);
        assert!(
            (wanted && allowed) || (!wanted && denied),
            "{:?} {:?}{:?}: {said:?}\n{}",
            request.method,
            request.host,
            request.path,
            suggestion.text
        );
    }
}

#[test]
fn whoever_allows_a_host_is_told_what_would_have_kept_it_out() {
    for (host, expected) in [
        ("gihtub.com", Some("it looks like github.com and is not")),
        ("pastebin.com", Some("a paste service: shows what anyone posts to anyone")),
        (
            "abc.ngrok-free.app",
            Some("a tunnel or request inspector: leads to a machine of the caller's choice"),
        ),
        ("collect.pages.dev", Some("shared hosting: carries pages and functions of strangers")),
        ("mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dz.drip.test", Some("its name looks like encoded data")),
        ("github.com", None),
        ("docs.rs", None),
        ("evil.example", None),
        ("10.1.2.3", None),
    ] {
        let why = warning(Catalogue::builtin(), &host.parse().unwrap());
        assert_eq!(why.map(|why| why.words()).as_deref(), expected, "{host}");
    }
}

#[test]
fn a_name_that_was_found_at_other_times_is_not_said_to_be_none() {
    let failed = json!({"action": "allow", "reason": "name_not_found", "outcome": "failed"});
    let seen = [
        request("GET https://docs.one.test/x", &json!({})),
        request("GET https://docs.one.test/x", &failed),
        request("GET https://gone.test/x", &failed),
    ];
    let suggestion = suggested(STARTER, &seen);
    let left: Vec<&str> = suggestion.left_out.iter().map(|left| &*left.what).collect();
    assert_eq!((entries(&suggestion), left), (vec!["docs.one.test GET,HEAD".to_owned()], vec!["gone.test"]));
}

#[test]
fn probes_of_doctor_are_not_told_of() {
    let refused =
        json!({"action": "deny", "reason": "unknown_destination", "would": null, "would_reason": null});
    let suggestion = suggested(STARTER, &[request("GET https://doctor.outgate.invalid/", &refused)]);
    assert_eq!((suggestion.refused, suggestion.left_out, suggestion.evidence.requests), (vec![], vec![], 0));
}
