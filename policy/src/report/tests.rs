use serde_json::{Value, json};

use super::*;
use crate::event::{Event, Happening};
use crate::redact::Redacted;
use crate::verdict::{Class, Mode};
use crate::view::DecisionView;

const BEGIN: i64 = 1_795_672_800_000_000;
const MINUTE: i64 = 60_000_000;

/// A decision as `log --json` prints it, so many minutes after the beginning, with some fields changed.
fn view(minute: i64, changes: Value) -> DecisionView {
    let mut fields = json!({
        "id": "01M7R3PQ7V0000000000000007", "time": rfc3339(BEGIN + minute * MINUTE), "session": null,
        "agent": "claude", "owner": null, "kind": "http", "class": "unknown", "service": null,
        "method": "POST", "scheme": "https", "host": "evil.example", "port": 443, "domain": "evil.example",
        "path": "/upload", "http_version": "2", "action": "deny", "reason": "unknown_destination",
        "decided": null, "would": null, "would_reason": null, "rule": null, "mode": "enforce",
        "policy": "sha256:00", "findings": [], "outcome": "denied", "status": 403, "request_bytes": 0,
        "response_bytes": 0, "upstream": null, "ms": null, "body": null, "seq": 2 * minute + 1, "hash": "00",
        "previous": null, "outcome_seq": 2 * minute + 2, "outcome_hash": "00"
    });
    let (Some(map), Value::Object(changes)) = (fields.as_object_mut(), changes) else { unreachable!() };
    map.extend(changes);
    serde_json::from_value(fields).unwrap()
}

fn allowed(changes: Value) -> Value {
    let mut fields = json!({"action": "allow", "reason": "allowed_by_rule", "outcome": "completed",
        "status": 200, "request_bytes": 100, "response_bytes": 2000});
    let (Some(map), Value::Object(changes)) = (fields.as_object_mut(), changes) else { unreachable!() };
    map.extend(changes);
    fields
}

fn secret(detector: &str, count: u32) -> Value {
    json!({"kind": "secret", "detector": detector, "count": count, "where": "body", "key": "hmac:00"})
}

fn span(minutes: i64) -> Option<(Moment, Moment)> {
    Some((Moment(BEGIN), Moment(BEGIN + minutes * MINUTE)))
}

fn built(changes: &[Value]) -> Report {
    report_of(TRACKED, changes)
}

fn report_of(tracked: usize, changes: &[Value]) -> Report {
    let mut builder = Builder::tracking(tracked, Scope::default(), span(changes.len() as i64));
    for (minute, changes) in changes.iter().enumerate() {
        builder.add(&view(minute as i64, changes.clone()));
    }
    builder.finish("0.1.0", Moment(BEGIN), None)
}

#[test]
fn a_request_counts_once_under_what_became_of_it() {
    for (changes, counted) in [
        (allowed(json!({})), json!({"allowed": 1, "bytes_up": 100, "bytes_down": 2000})),
        (json!({}), json!({"denied": 1})),
        (json!({"reason": "approval_unattended"}), json!({"denied": 1, "asked": 1})),
        (json!({"reason": "secret_found", "decided": "ask"}), json!({"denied": 1, "asked": 1})),
        (
            json!({"action": "ask", "reason": "denied_by_rule", "outcome": null, "request_bytes": null}),
            json!({"held": 1, "asked": 1, "in_flight": 1}),
        ),
        (
            allowed(
                json!({"reason": "allowed_by_observe", "would": "deny", "would_reason": "denied_by_rule"}),
            ),
            json!({"allowed": 1, "would_be_denied": 1, "bytes_up": 100, "bytes_down": 2000}),
        ),
        (
            allowed(json!({"outcome": "interrupted", "request_bytes": null, "response_bytes": null})),
            json!({"allowed": 1, "interrupted": 1}),
        ),
        (
            json!({"reason": "upload_too_large", "outcome": "cut", "request_bytes": 7}),
            json!({"denied": 1, "cut": 1, "bytes_up": 7}),
        ),
        (
            allowed(json!({"outcome": "failed", "reason": "upstream_timeout"})),
            json!({"allowed": 1, "failed": 1, "bytes_up": 100, "bytes_down": 2000}),
        ),
        (
            allowed(json!({"outcome": "abandoned"})),
            json!({"allowed": 1, "abandoned": 1, "bytes_up": 100, "bytes_down": 2000}),
        ),
    ] {
        let totals = serde_json::to_value(built(std::slice::from_ref(&changes)).totals).unwrap();
        for (name, value) in totals.as_object().unwrap() {
            let usual = u64::from(name == "requests" || name == "destinations");
            let expected = counted.get(name).map_or(usual, |value| value.as_u64().unwrap());
            assert_eq!(value.as_u64(), Some(expected), "{name} of {changes}");
        }
    }
}

#[test]
fn what_was_reached_is_told_by_class_then_by_service_or_domain() {
    let model = allowed(json!({"class": "model", "service": "anthropic", "host": "api.anthropic.com",
        "domain": "anthropic.com", "request_bytes": 5000}));
    let tool = allowed(
        json!({"class": "tool", "service": "github", "host": "api.github.com", "domain": "github.com"}),
    );
    let other = allowed(json!({"host": "a.new.example", "domain": "new.example"}));
    let report = built(&[tool.clone(), model, tool, other.clone(), other, json!({})]);
    let told: Vec<_> = report
        .reached
        .iter()
        .flat_map(|class| class.services.rows.iter().map(move |row| (class, row)))
        .map(|(class, row)| {
            (
                class.class,
                row.service.as_deref().or(row.domain.as_deref()).unwrap(),
                row.amount.requests,
                row.amount.bytes_up,
            )
        })
        .collect();
    let expected = [
        (Class::Model, "anthropic", 1, 5000),
        (Class::Tool, "github", 2, 200),
        (Class::Unknown, "new.example", 2, 200),
    ];
    assert_eq!(told, expected, "what was denied is not reached");
    let destinations: Vec<_> = report.destinations.rows.iter().map(|row| row.destination.as_str()).collect();
    assert_eq!(destinations, ["api.anthropic.com", "a.new.example", "api.github.com", "evil.example"]);
}

#[test]
fn refusals_are_told_by_destination_reason_and_rule_with_the_line_that_helps() {
    let rule = json!({"reason": "denied_by_rule", "rule": "deny \"evil.example\""});
    let observed = allowed(json!({"would": "deny", "would_reason": "denied_by_default", "rule": "on trial"}));
    let report = built(&[json!({}), json!({"agent": "codex"}), rule, json!({"port": 8443}), observed]);
    let told: Vec<_> = report
        .denied
        .rows
        .iter()
        .map(|row| (row.destination.as_str(), row.reason.as_str(), row.requests, row.allow.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            ("evil.example", "unknown_destination", 2, Some("outgate policy allow evil.example")),
            ("evil.example", "denied_by_rule", 1, None),
            ("evil.example:8443", "unknown_destination", 1, Some("outgate policy allow evil.example:8443")),
        ]
    );
    let first = &report.denied.rows[0];
    assert_eq!((first.first, first.last), (Moment(BEGIN), Moment(BEGIN + MINUTE)));
    assert_eq!(first.agent.as_str(), "codex");
    let would = &report.would_be_denied.rows;
    assert_eq!((would.len(), would[0].reason.as_str(), &would[0].allow), (1, "denied_by_default", &None));
}

#[test]
fn a_host_that_is_none_is_offered_to_no_shell() {
    for (host, offered) in [
        ("evil.example", true),
        ("[2001:db8::1]", true),
        ("[redacted:aws-access-key].evil.example", false),
        ("$(reboot)", false),
        ("a b", false),
        ("<script>", false),
    ] {
        assert_eq!(view(0, json!({"host": host})).allow_line().is_some(), offered, "`{host}`");
    }
}

#[test]
fn secrets_are_told_by_kind_place_and_fate_and_never_by_key() {
    for (changes, fate, stopped) in [
        (json!({"reason": "secret_found", "outcome": "cut", "request_bytes": 900}), Fate::Stopped, 3),
        (json!({"reason": "unknown_destination"}), Fate::Stopped, 3),
        // Broken off for its size, after some of it had left.
        (json!({"reason": "upload_too_large", "outcome": "cut", "request_bytes": 900}), Fate::Passed, 0),
        (allowed(json!({})), Fate::Passed, 0),
        (allowed(json!({"outcome": null, "request_bytes": null})), Fate::Open, 0),
        (allowed(json!({"outcome": "interrupted", "request_bytes": null})), Fate::Open, 0),
    ] {
        let mut changes = changes;
        changes["findings"] = json!([secret("aws-access-key", 2), secret("aws-access-key", 1)]);
        let report = built(std::slice::from_ref(&changes));
        let row = &report.secrets.rows[0];
        assert_eq!(
            (report.secrets.rows.len(), row.fate, row.count, row.requests),
            (1, fate, 3, 1),
            "{changes}"
        );
        assert_eq!((report.totals.secrets, report.totals.secrets_stopped), (3, stopped), "{changes}");
        assert!(!serde_json::to_string(&report).unwrap().contains("hmac:"), "{changes}");
    }
}

#[test]
fn findings_have_their_tables() {
    let upload =
        |bytes: u64| json!({"kind": "large_upload", "bytes": bytes, "limit": 10, "of": "request_block"});
    let credential = json!({"kind": "credential_used", "detector": "github-token", "where": "header:authorization", "key": "hmac:00"});
    let report = built(&[
        json!({"reason": "upload_too_large", "findings": [upload(20)]}),
        json!({"reason": "upload_too_large", "findings": [upload(30)]}),
        allowed(json!({"findings": [upload(40)]})),
        allowed(json!({"class": "tool", "service": "github", "findings": [credential]})),
        allowed(json!({"findings": [credential]})),
        json!({"host": "gihtub.com", "findings": [{"kind": "lookalike_domain", "of": "github.com"}, {"kind": "git_push"}]}),
    ]);
    let uploads: Vec<_> = report.uploads.rows.iter().map(|row| (row.fate, row.bytes, row.requests)).collect();
    assert_eq!(uploads, [(Fate::Passed, 40, 1), (Fate::Stopped, 30, 2)]);
    assert_eq!(report.totals.uploads_over_limits, 3);
    let credentials: Vec<_> = report
        .credentials
        .rows
        .iter()
        .map(|row| (row.service.as_deref(), row.destination.as_deref(), row.requests))
        .collect();
    assert_eq!(credentials, [(None, Some("evil.example"), 1), (Some("github"), None, 1)]);
    let lookalike = &report.lookalikes.rows[0];
    assert_eq!((lookalike.destination.as_str(), &*lookalike.looks_like), ("gihtub.com", "github.com"));
    let kinds: Vec<_> = report.findings.iter().map(|row| (row.kind, row.requests)).collect();
    assert_eq!(
        kinds,
        [("large_upload", 3), ("credential_used", 2), ("git_push", 1), ("lookalike_domain", 1)]
    );
}

#[test]
fn unknown_domains_are_new_unless_they_were_met_before() {
    let mut builder = Builder::new(Scope::default(), span(9));
    builder.add(&view(5, json!({"host": "b.new.example", "domain": "new.example", "agent": "late"})));
    builder.add(&view(2, allowed(json!({"host": "a.new.example", "domain": "new.example"}))));
    builder.add(&view(3, json!({"host": "old.example", "domain": "old.example"})));
    builder.add(&view(4, json!({"class": "tool", "host": "api.github.com", "domain": "github.com"})));
    builder.add(&view(6, json!({"host": null, "domain": null, "reason": "malformed_request"})));
    let asked: Vec<_> = builder.unknown_hosts().into_iter().map(|(_, host)| host).collect();
    assert_eq!(asked, ["a.new.example", "b.new.example", "old.example"]);
    builder.met_before("old.example");
    let report = builder.finish("0.1.0", Moment(BEGIN), None);
    let [row] = &report.new_domains.rows[..] else { panic!("{:?}", report.new_domains) };
    assert_eq!((row.domain.as_str(), row.first), ("new.example", Moment(BEGIN + 2 * MINUTE)));
    assert_eq!((row.agent.as_str(), row.action.as_str(), row.amount.requests), ("claude", "allow", 2));
}

#[test]
fn events_go_to_their_sections_and_other_agents_stay_out() {
    let (claude, codex) = ("claude".parse().unwrap(), "codex".parse().unwrap());
    let happened = [
        Happening::Started { version: "0.1.0".into(), configuration: None },
        Happening::PolicyInForce {
            policy: "sha256:11".into(),
            mode: Mode::Observe,
            previous: Some("sha256:00".into()),
        },
        Happening::AgentRevoked { agent: claude },
        Happening::AgentCreated {
            agent: codex,
            owner: Redacted::literal("ben"),
            purpose: Some(Redacted::literal("reviews")),
            expires: None,
        },
        Happening::ApprovalAnswered {
            approval: "7".into(),
            answer: "approve".into(),
            scope: "1h".into(),
            agent: None,
            destination: None,
            rule: None,
        },
        Happening::Pruned { through: 9, hash: "00".into(), records: 9 },
    ];
    for (agent, told) in [
        (None, &["started", "agent_revoked", "agent_created", "pruned"][..]),
        (Some("claude"), &["started", "agent_revoked", "pruned"]),
    ] {
        let scope = Scope { agent: agent.map(|name| name.parse().unwrap()), ..Scope::default() };
        let mut builder = Builder::new(scope, None);
        for (seq, what) in (1..).zip(happened.clone()) {
            builder.event(seq, &Event { time: BEGIN, by: Some(Redacted::literal("ana")), what });
        }
        let report = builder.finish("0.1.0", Moment(BEGIN), None);
        let changes: Vec<_> = report.changes.rows.iter().map(|row| row.event).collect();
        assert_eq!(changes, told, "{agent:?}");
        let approval = &report.approvals.rows[0];
        assert_eq!(
            (&*approval.answer, &*approval.scope, approval.by.as_deref()),
            ("approve", "1h", Some("ana"))
        );
        let change = &report.policy_changes.rows[0];
        assert_eq!(
            (change.mode, change.previous.as_deref(), change.seq),
            (Mode::Observe, Some("sha256:00"), 2)
        );
    }
}

#[test]
fn sessions_and_agents_carry_what_they_asked_for() {
    let session = "01M7Q5CQG00000000000000001";
    let mut builder = Builder::new(Scope::default(), span(9));
    builder.session(SessionRow {
        session: serde_json::from_value(json!(session)).unwrap(),
        agent: "claude".parse().unwrap(),
        label: Some("fix-42".to_owned()),
        tool: None,
        repo: None,
        branch: None,
        commit: None,
        model: None,
        observe: false,
        started: Moment(BEGIN),
        ended: None,
        exit_code: None,
        why: None,
        amount: Amount::default(),
    });
    for name in ["claude", "idle"] {
        builder.agent(AgentRow {
            agent: name.parse().unwrap(),
            owner: Some("ana".to_owned()),
            purpose: None,
            status: Some(AgentStatus::Active),
            expires: None,
            amount: Amount::default(),
            secrets: 0,
        });
    }
    builder.add(&view(1, json!({"session": session})));
    builder.add(&view(2, allowed(json!({"session": session, "findings": [secret("x", 4)]}))));
    builder.add(&view(3, allowed(json!({"agent": "gone", "owner": "ben"}))));
    let report = builder.finish("0.1.0", Moment(BEGIN), None);
    let amount = report.sessions.rows[0].amount;
    assert_eq!((amount.requests, amount.denied, amount.bytes_up), (2, 1, 100));
    let agents: Vec<_> = report
        .agents
        .rows
        .iter()
        .map(|row| (row.agent.as_str(), row.owner.as_deref().unwrap(), row.amount.requests, row.secrets))
        .collect();
    assert_eq!(agents, [("claude", "ana", 2, 4), ("gone", "ben", 1, 0)], "who asked for nothing is left out");
}

#[test]
fn the_steps_of_the_timeline_are_few_and_hold_every_request() {
    for (minutes, seconds) in
        [(0, 1), (1, 2), (55, 60), (60 * 8, 600), (60 * 24 * 29, 43_200), (60 * 24 * 4000, 6_048_000)]
    {
        let mut builder = Builder::new(Scope::default(), span(minutes));
        // One before the beginning and one after the end, as when a clock went back.
        for minute in [-90, 0, minutes / 2, minutes, minutes + 90] {
            builder.add(&view(minute, allowed(json!({"seq": 1, "outcome_seq": 2}))));
        }
        let report = builder.finish("0.1.0", Moment(BEGIN), None);
        let buckets = &report.timeline.buckets;
        assert_eq!(report.timeline.bucket_seconds, seconds, "{minutes} minutes");
        assert!((1..=60).contains(&buckets.len()), "{minutes} minutes: {}", buckets.len());
        let told: (u64, u64) = buckets
            .iter()
            .fold((0, 0), |(requests, up), bucket| (requests + bucket.requests, up + bucket.bytes_up));
        assert_eq!(told, (5, 500), "{minutes} minutes");
    }
}

#[test]
fn beyond_what_is_told_apart_everything_is_counted() {
    let hosts = ["a.example", "b.example", "c.example", "a.example", "d.example"];
    let views =
        hosts.map(|host| allowed(json!({"host": host, "domain": host, "class": "tool", "service": null})));
    let report = report_of(2, &views);
    assert_eq!((report.destinations.rows.len(), report.destinations.omitted), (2, 2));
    assert_eq!((report.reached[0].services.rows.len(), report.reached[0].services.omitted), (2, 2));
    assert_eq!((report.totals.requests, report.reached[0].amount.requests), (5, 5));
    assert_eq!(report.totals.bytes_up, 500);
}

#[test]
fn a_report_of_nothing_is_a_report() {
    let report = Builder::new(Scope::default(), None).finish("0.1.0", Moment(BEGIN), None);
    assert_eq!(report.verdict, "No request was recorded; no record to check.");
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(
        (&value["period"], &value["chain"], &value["report"]),
        (&Value::Null, &Value::Null, &json!(1))
    );
    assert_eq!(value["denied"], json!({"rows": [], "omitted": 0}));
}

#[test]
fn the_verdict_says_it_all_in_one_sentence() {
    let chain = |intact| ChainStatus {
        checked_from: 1,
        checked_through: 2,
        records: 2,
        intact,
        problem: None,
        checkpoints: 0,
        last_checkpoint: None,
    };
    let leak = json!({"reason": "secret_found", "findings": [secret("aws-access-key", 1)]});
    for (changes, chain, verdict) in [
        (
            vec![allowed(json!({}))],
            Some(chain(true)),
            "1 request to 1 destination; none denied; record intact.",
        ),
        (
            vec![json!({}), json!({}), leak, allowed(json!({"host": "b.example"}))],
            Some(chain(false)),
            "4 requests to 2 destinations; 3 denied; 1 secret stopped; the record is NOT intact.",
        ),
        (
            vec![allowed(json!({"would": "deny", "would_reason": "denied_by_rule",
                "findings": [secret("x", 2), {"kind": "large_upload", "bytes": 2, "limit": 1, "of": "request_alert"}]}))],
            None,
            "1 request to 1 destination; none denied; 1 let through that enforcing would deny; 2 secrets masked or only recorded; 1 upload over a limit; no record to check.",
        ),
    ] {
        let mut builder = Builder::new(Scope::default(), span(9));
        changes.into_iter().for_each(|changes| builder.add(&view(0, changes)));
        assert_eq!(builder.finish("0.1.0", Moment(BEGIN), chain).verdict, verdict);
    }
}

#[test]
fn a_name_that_was_looked_up_is_not_reached() {
    let name = |changes: Value| {
        let mut fields = allowed(json!({"kind": "dns", "scheme": null, "port": null, "path": null}));
        fields.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        fields
    };
    let refused = json!({"action": "deny", "reason": "unknown_destination", "outcome": "denied"});
    let report = built(&[name(json!({})), name(refused)]);
    assert!(report.reached.is_empty(), "{:?}", report.reached);
    let denied = &report.denied.rows[0];
    assert_eq!(denied.destination, "evil.example");
    assert_eq!(denied.allow.as_deref(), Some("outgate policy allow evil.example"));
}
