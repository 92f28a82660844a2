//! Decisions as people read them: one line each, the same in `log`, `session show` and the demo.

use jiff::Timestamp;
use owo_colors::Style;
use policy::record::{Finding, OutcomeKind};
use policy::request::Kind;
use policy::target::Scheme;
use policy::verdict::Class;
use policy::view::DecisionView;

use super::moment;
use super::output::{bytes, style_of};
use super::table::{Cell, Column, Table};

/// An empty table of decisions.
pub(crate) fn table() -> Table {
    Table::new([
        Column::new("TIME").at_least("00:00:00".len()),
        Column::new("AGENT").at_least("anonymous".len()),
        Column::new("CLASS").at_least("unknown".len()),
        Column::new("ACTION").at_least("allow".len()),
        Column::new("REASON").at_least("unknown_destination".len()),
        Column::right("SENT").at_least("1023 KiB".len()),
        Column::gives_way("REQUEST").at_least("POST https://api.anthropic.com/v1/messages".len()),
        Column::new("FOUND"),
    ])
}

/// Adds a decision to such a table.
pub(crate) fn add(table: &mut Table, view: &DecisionView, now: Timestamp) {
    let time = view
        .time
        .parse::<Timestamp>()
        .map_or_else(|_| view.time.clone(), |time| moment::shown(time.as_microsecond(), now));
    table.row([
        Cell::styled(time, Style::new().dimmed()),
        view.agent.as_str().into(),
        class(view.class),
        Cell::styled(view.action.as_str(), style_of(view.action)),
        reason(view).into(),
        sent(view).into(),
        request(view).into(),
        Cell::styled(found(view), Style::new().yellow()),
    ]);
}

/// The class of a destination; what nobody knows stands out.
pub(crate) fn class(class: Class) -> Cell {
    let style = if class == Class::Unknown { Style::new().magenta() } else { Style::new() };
    Cell::styled(class.as_str(), style)
}

/// Why it was decided so, and what enforcing would have done.
pub(crate) fn reason(view: &DecisionView) -> String {
    match (view.would, view.would_reason) {
        (Some(would), Some(why)) => format!("{} (would {}: {why})", view.reason, would.as_str()),
        _ => view.reason.to_string(),
    }
}

/// How much left, as far as that is known.
pub(crate) fn sent(view: &DecisionView) -> String {
    match (view.request_bytes, view.outcome) {
        (Some(sent), _) => bytes(sent),
        (None, Some(OutcomeKind::Interrupted)) => "?".to_owned(),
        (None, _) => "…".to_owned(),
    }
}

/// Method and URL, with the port only where the scheme does not say it.
pub(crate) fn request(view: &DecisionView) -> String {
    let method = view.method.as_ref().map_or_else(|| view.kind.as_str(), |method| method.as_str());
    let Some(host) = &view.host else { return format!("{method} (unreadable)") };
    if matches!(view.kind, Kind::Dns | Kind::Tcp) {
        return format!("{} {}", method.to_ascii_lowercase(), view.destination());
    }
    let scheme = view.scheme.unwrap_or(Scheme::Tcp);
    let port = view.port.filter(|port| *port != scheme.default_port());
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let path = view.path.as_ref().map_or("", |path| path.as_str());
    format!("{method} {scheme}://{}{port}{path}", host.as_str())
}

/// What was seen in it, and an end that is not the usual one.
pub(crate) fn found(view: &DecisionView) -> String {
    let mut words: Vec<String> = view.findings.iter().map(finding).collect();
    if let Some(
        outcome
        @ (OutcomeKind::Cut | OutcomeKind::Failed | OutcomeKind::Abandoned | OutcomeKind::Interrupted),
    ) = view.outcome
    {
        words.push(outcome.as_str().to_owned());
    }
    words.join(", ")
}

fn finding(finding: &Finding) -> String {
    match finding {
        Finding::LargeUpload { bytes: count, limit, .. } => {
            format!("{} over the limit of {}", bytes(*count), bytes(*limit))
        }
        Finding::Secret { detector, place, .. } => format!("secret {detector} in {place}"),
        Finding::CredentialUsed { detector, .. } => format!("credential {detector}"),
        Finding::LookalikeDomain { of } => format!("looks like {of}"),
        Finding::ModelShaped { api } => format!("speaks like {api}"),
        other => other.kind().replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::summary::tests::view;

    #[test]
    fn a_decision_is_one_line_that_says_what_and_why() {
        for (changes, shown) in [
            (json!({}), ["POST https://evil.example/upload", "unknown_destination", "0 B", ""]),
            (
                json!({"scheme": "http", "port": 8080, "path": "/x", "method": "GET"}),
                ["GET http://evil.example:8080/x", "unknown_destination", "0 B", ""],
            ),
            (
                json!({"host": null, "scheme": null, "port": null, "path": null, "method": null, "kind": "connect",
                       "reason": "malformed_request"}),
                ["connect (unreadable)", "malformed_request", "0 B", ""],
            ),
            (
                json!({"kind": "dns", "scheme": null, "port": null, "path": null, "method": null}),
                ["dns evil.example", "unknown_destination", "0 B", ""],
            ),
            (
                json!({"kind": "tcp", "scheme": "tcp", "port": 5432, "path": null, "method": null,
                       "reason": "port_refused"}),
                ["tcp evil.example:5432", "port_refused", "0 B", ""],
            ),
            (
                json!({"kind": "tcp", "scheme": "tcp", "path": null, "method": "UDP", "reason": "port_refused"}),
                ["udp evil.example:443", "port_refused", "0 B", ""],
            ),
            (
                json!({"action": "allow", "reason": "allowed_by_observe", "would": "deny",
                       "would_reason": "denied_by_rule", "outcome": "completed", "request_bytes": 4096}),
                [
                    "POST https://evil.example/upload",
                    "allowed_by_observe (would deny: denied_by_rule)",
                    "4.0 KiB",
                    "",
                ],
            ),
            (
                json!({"outcome": null, "request_bytes": null, "findings": [
                    {"kind": "large_upload", "bytes": 3145728, "limit": 1048576, "of": "request_block"},
                    {"kind": "secret", "detector": "aws-access-key", "count": 1, "where": "body", "key": "hmac:0"},
                    {"kind": "lookalike_domain", "of": "github.com"},
                    {"kind": "git_push"}]}),
                [
                    "POST https://evil.example/upload",
                    "unknown_destination",
                    "…",
                    "3.0 MiB over the limit of 1.0 MiB, secret aws-access-key in body, looks like github.com, git push",
                ],
            ),
            (
                json!({"outcome": "interrupted", "request_bytes": null}),
                ["POST https://evil.example/upload", "unknown_destination", "?", "interrupted"],
            ),
        ] {
            let view = view(changes);
            assert_eq!([request(&view), reason(&view), sent(&view), found(&view)], shown);
        }
    }
}
