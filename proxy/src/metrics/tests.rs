//! The series as a scrape shows them.

use super::*;

/// Section 6 of what a user and a script may rely on.
const PROMISED: &str = "\
outgate_decisions_total{class,action,reason} outgate_requests_total{class,service} \
outgate_agent_requests_total{agent,action} outgate_agent_upload_bytes_total{agent,class} \
outgate_requests_in_flight outgate_upload_bytes_total{class} outgate_download_bytes_total{class} \
outgate_upload_alerts_total{class,limit} outgate_findings_total{kind} outgate_redactions_total{detector} \
outgate_overhead_seconds outgate_decide_seconds outgate_upstream_connect_seconds \
outgate_tls_handshakes_total{side,result} outgate_certificates_minted_total outgate_audit_commits_total \
outgate_audit_failures_total outgate_audit_queue_depth outgate_approvals_pending \
outgate_approvals_total{answer} outgate_sessions_active outgate_policy_reloads_total{result} \
outgate_alerts_sent_total{result} outgate_build_info{version}";

fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

fn counters() -> Counters {
    Counters {
        commits: 3.into(),
        records: 9.into(),
        failures: 1.into(),
        queue_depth: 5.into(),
        ..Counters::default()
    }
}

/// The value of one sample line, by everything before the value.
fn value(text: &str, sample: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == sample))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn every_promised_series_is_there_with_its_labels() {
    for promise in PROMISED.split_whitespace() {
        let (name, labels) = promise.split_once('{').unwrap_or((promise, "}"));
        let labels: Vec<&str> =
            labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
        let found = SERIES.iter().find(|(known, _)| *known == name);
        assert_eq!(found.map(|(_, labels)| labels.to_vec()), Some(labels), "{name}");
    }
}

#[test]
fn what_has_no_agent_or_service_is_zero_from_the_first_scrape() {
    let text = Metrics::new().render();
    for (name, labels) in SERIES {
        let waits = labels.iter().any(|label| matches!(*label, "agent" | "service"));
        let there = text.lines().any(|line| line.starts_with(name));
        assert_eq!(there, !waits, "{name}");
    }
    for sample in [
        r#"outgate_decisions_total{action="deny",class="unknown",reason="unknown_destination"}"#,
        r#"outgate_decisions_total{action="allow",class="model",reason="allowed_by_rule"}"#,
        r#"outgate_upload_alerts_total{class="tool",limit="window_block_agent"}"#,
        r#"outgate_findings_total{kind="lookalike_domain"}"#,
        r#"outgate_redactions_total{detector="query"}"#,
        r#"outgate_tls_handshakes_total{result="failed",side="client"}"#,
        r#"outgate_approvals_total{answer="unattended"}"#,
        r#"outgate_policy_reloads_total{result="failed"}"#,
        r#"outgate_overhead_seconds_bucket{le="0.00005"}"#,
        "outgate_audit_queue_depth",
    ] {
        assert_eq!(value(&text, sample), Some(0.0), "{sample}");
    }
    let version = format!(r#"outgate_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&text, &version), Some(1.0));
    assert!(text.contains("process_resident_memory_bytes"));
}

#[test]
fn each_event_moves_its_own_series() {
    type Event = fn(&Metrics);
    let cases: &[(Event, &str, f64)] = &[
        (
            |m| m.decided(Class::Tool, Action::Deny, Reason::SecretFound),
            r#"outgate_decisions_total{action="deny",class="tool",reason="secret_found"}"#,
            1.0,
        ),
        (
            |m| m.decided(Class::Model, Action::Allow, Reason::AllowedByObserve),
            r#"outgate_decisions_total{action="allow",class="model",reason="allowed_by_observe"}"#,
            1.0,
        ),
        (
            |m| m.decided(Class::Unknown, Action::Ask, Reason::DeniedByDefault),
            r#"outgate_decisions_total{action="ask",class="unknown",reason="denied_by_default"}"#,
            1.0,
        ),
        (
            |m| m.requested(Class::Tool, Some("github")),
            r#"outgate_requests_total{class="tool",service="github"}"#,
            1.0,
        ),
        (|m| m.requested(Class::Unknown, None), r#"outgate_requests_total{class="unknown",service=""}"#, 1.0),
        (
            |m| m.agent_requested(&agent("claude"), Action::Allow),
            r#"outgate_agent_requests_total{action="allow",agent="claude"}"#,
            1.0,
        ),
        (
            |m| m.uploaded(Class::Model, &agent("claude"), 7),
            r#"outgate_agent_upload_bytes_total{agent="claude",class="model"}"#,
            7.0,
        ),
        (
            |m| m.uploaded(Class::Model, &agent("claude"), 7),
            r#"outgate_upload_bytes_total{class="model"}"#,
            7.0,
        ),
        (|m| m.downloaded(Class::Tool, 9), r#"outgate_download_bytes_total{class="tool"}"#, 9.0),
        (
            |m| m.upload_alert(Class::Unknown, "window_alert"),
            r#"outgate_upload_alerts_total{class="unknown",limit="window_alert"}"#,
            1.0,
        ),
        (|m| m.found(&Finding::McpShaped), r#"outgate_findings_total{kind="mcp_shaped"}"#, 1.0),
        (|m| m.redacted("known:DB", 3), r#"outgate_redactions_total{detector="known"}"#, 3.0),
        (|m| m.redacted("made-up", 2), r#"outgate_redactions_total{detector="other"}"#, 2.0),
        (|m| m.overhead(Duration::from_micros(40)), r#"outgate_overhead_seconds_bucket{le="0.00005"}"#, 1.0),
        (|m| m.decide_took(Duration::from_micros(2)), "outgate_decide_seconds_count", 1.0),
        (|m| m.connect_took(Duration::from_millis(2)), "outgate_upstream_connect_seconds_count", 1.0),
        (|m| m.client_handshake(true), r#"outgate_tls_handshakes_total{result="ok",side="client"}"#, 1.0),
        (
            |m| m.upstream_handshake(false),
            r#"outgate_tls_handshakes_total{result="failed",side="upstream"}"#,
            1.0,
        ),
        (|m| m.certificates_minted().inc(), "outgate_certificates_minted_total", 1.0),
        (Metrics::connection_refused, "outgate_connections_refused_total", 1.0),
        (|m| m.audited(&counters()), "outgate_audit_commits_total", 3.0),
        (|m| m.audited(&counters()), "outgate_audit_failures_total", 1.0),
        (|m| m.audited(&counters()), "outgate_audit_queue_depth", 5.0),
        (|m| [(); 2].iter().for_each(|()| m.audited(&counters())), "outgate_audit_commits_total", 3.0),
        (|m| m.approvals_pending(2), "outgate_approvals_pending", 2.0),
        (|m| m.answered(Answer::Withdrawn), r#"outgate_approvals_total{answer="withdrawn"}"#, 1.0),
        (|m| m.sessions_active(4), "outgate_sessions_active", 4.0),
        (|m| m.policy_reloaded(true), r#"outgate_policy_reloads_total{result="ok"}"#, 1.0),
        (|m| m.alert_sent(false), r#"outgate_alerts_sent_total{result="failed"}"#, 1.0),
    ];
    for (event, sample, expected) in cases {
        let metrics = Metrics::new();
        event(&metrics);
        assert_eq!(value(&metrics.render(), sample), Some(*expected), "{sample}");
    }
}

#[test]
fn a_request_in_flight_is_counted_until_its_guard_is_dropped() {
    let metrics = Metrics::new();
    let first = metrics.began();
    let second = metrics.began();
    assert_eq!(value(&metrics.render(), "outgate_requests_in_flight"), Some(2.0));
    drop((first, second));
    assert_eq!(value(&metrics.render(), "outgate_requests_in_flight"), Some(0.0));
}

#[test]
fn every_enum_stands_at_its_index() {
    for (index, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index, "{reason}");
    }
    for (index, class) in Class::ALL.iter().enumerate() {
        assert_eq!(*class as usize, index);
    }
}

#[test]
fn no_text_of_a_client_makes_a_series() {
    let metrics = Metrics::new();
    let before = metrics.render().lines().count();
    for number in 0..1000 {
        metrics.upload_alert(Class::Unknown, &format!("limit-{number}"));
        metrics.redacted(&format!("detector-{number}"), 1);
    }
    assert_eq!(metrics.render().lines().count(), before);
}

#[test]
fn dashboards_show_series_that_exist_with_labels_they_have() {
    let mut files = Vec::new();
    collect(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards")), &mut files);
    let mut shown = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("outgate_") {
            let rest = &text[at..];
            let name =
                &rest[..rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len())];
            let series = ["", "_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find_map(|name| SERIES.iter().find(|(known, _)| *known == name));
            let (_, labels) = series.unwrap_or_else(|| panic!("{} shows `{name}`", file.display()));
            let selector = rest[name.len()..].strip_prefix('{').and_then(|rest| rest.split('}').next());
            for matcher in selector.into_iter().flat_map(|selector| selector.split(',')) {
                let label = matcher.split(['=', '!']).next().unwrap_or_default().trim();
                let bound = label == "le" && name.ends_with("_bucket");
                assert!(bound || labels.contains(&label), "{} selects `{label}` of `{name}`", file.display());
            }
            shown += 1;
        }
    }
    assert!(shown >= 20, "only {shown} series are shown");
}

#[test]
fn the_overview_shows_every_series_and_is_whole() {
    let text = include_str!("../../../dashboards/grafana/overview.json");
    let board: serde_json::Value = serde_json::from_str(text).unwrap();
    for (name, _) in SERIES {
        assert!(text.contains(name), "`{name}` is on no panel");
    }
    let panels = board["panels"].as_array().unwrap();
    let ids: std::collections::HashSet<_> =
        panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{}", panel["title"]);
        assert!(panel["description"].is_string(), "{}", panel["title"]);
    }
}

fn collect(folder: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
