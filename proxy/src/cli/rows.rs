//! Decisions as people read them: one line each, the same in `log`, `session show` and the demo.

use jiff::Timestamp;
use owo_colors::Style;
use policy::record::{Finding, OutcomeKind};
use policy::request::Kind;
use policy::target::Scheme;
use policy::verdict::{Action, Class, Reason};
use policy::view::DecisionView;

use unicode_width::UnicodeWidthStr as _;

use super::moment;
use super::output::{self, bytes, over_limit, style_of};
use super::table::{Cell, Column, Table, shortened};

/// Terminals narrower than this leave out columns, the least needed first.
const CLASS_FROM: usize = 140;
const FOUND_FROM: usize = 120;
const SENT_FROM: usize = 95;
/// Method and host of most requests.
const REQUEST_AT_LEAST: usize = 22;

/// A table of decisions that fits its terminal.
pub(crate) struct Decisions {
    terminal: Option<usize>,
    /// Rows are yet to come, so columns are as wide as they may need.
    follow: bool,
    table: Table,
}

impl Decisions {
    /// An empty table, for a terminal of so many columns.
    pub(crate) fn new(terminal: Option<usize>, follow: bool) -> Decisions {
        let least = |text: &str| if follow { text.len() } else { 0 };
        let mut columns = vec![
            Column::new("TIME").at_least("00:00:00".len()),
            Column::gives_way("AGENT").floor("anonymous".len()).at_least(least("anonymous")),
        ];
        if at_least(terminal, CLASS_FROM) {
            columns.push(Column::new("CLASS").at_least(least("unknown")));
        }
        columns.push(Column::new("ACTION").at_least(least("would deny")));
        columns.push(Column::new("REASON").at_least(least("upload_window_exceeded")));
        if at_least(terminal, SENT_FROM) {
            columns.push(Column::right("SENT").at_least(least("1023.9 KiB")));
        }
        // All that is left over on a terminal.
        let wide = if follow { terminal.unwrap_or("POST api.anthropic.com/v1/messages".len()) } else { 0 };
        columns.push(Column::gives_way("REQUEST").floor(REQUEST_AT_LEAST).cut_by(cut_request).at_least(wide));
        if at_least(terminal, FOUND_FROM) {
            columns.push(Column::gives_way("FOUND").floor(20).at_least(least("looks like github.com")));
        }
        Decisions { terminal, follow, table: Table::new(columns) }
    }

    /// Begins anew, with a header of its own, where the terminal has another width by now.
    pub(crate) fn refit(&mut self) {
        let terminal = output::terminal_width();
        if terminal != self.terminal {
            *self = Decisions::new(terminal, self.follow);
        }
    }

    /// Adds a decision.
    pub(crate) fn add(&mut self, view: &DecisionView, now: Timestamp) {
        let time = view
            .time
            .parse::<Timestamp>()
            .map_or_else(|_| view.time.clone(), |time| moment::shown(time.as_microsecond(), now));
        // Of another day: month, day, hour and minute.
        let time = match time.get("2026-".len()..time.len().saturating_sub(":00".len())) {
            Some(short) if time.len() > "00:00:00".len() && !at_least(self.terminal, SENT_FROM) => {
                short.to_owned()
            }
            _ => time,
        };
        let mut cells = vec![Cell::styled(time, Style::new().dimmed()), view.agent.as_str().into()];
        if at_least(self.terminal, CLASS_FROM) {
            cells.push(class(view.class));
        }
        cells.extend([action(view), reason(view).as_str().into()]);
        if at_least(self.terminal, SENT_FROM) {
            cells.push(sent(view).into());
        }
        cells.push(request(view).into());
        if at_least(self.terminal, FOUND_FROM) {
            cells.push(Cell::styled(found(view), Style::new().yellow()));
        }
        self.table.row(cells);
    }

    /// What was added since it was last asked.
    pub(crate) fn text(&mut self) -> String {
        self.table.take(self.terminal)
    }
}

/// Whether a terminal has so many columns; what is no terminal has as many as are needed.
pub(crate) fn at_least(terminal: Option<usize>, columns: usize) -> bool {
    terminal.is_none_or(|terminal| terminal >= columns)
}

/// What was done, or what enforcing would have done: that is what one looks for while observing.
pub(crate) fn action(view: &DecisionView) -> Cell {
    match would(view) {
        Some((would, _)) => Cell::styled(format!("would {}", would.as_str()), Style::new().yellow()),
        None => Cell::styled(view.action.as_str(), style_of(view.action)),
    }
}

/// What stopped it, or would have.
fn reason(view: &DecisionView) -> Reason {
    would(view).map_or(view.reason, |(_, why)| why)
}

fn would(view: &DecisionView) -> Option<(Action, Reason)> {
    view.would.zip(view.would_reason).filter(|(would, _)| *would != Action::Allow)
}

/// A request cut to a width: the path gives way before the host does, and of a host its end is what says whose it is.
pub(crate) fn cut_request(text: &str, width: usize) -> String {
    let Some((method, rest)) = text.split_once(' ') else { return shortened(text, width) };
    let begins = rest.find("://").map_or(0, |at| at + "://".len());
    let ends = rest.get(begins..).and_then(|rest| rest.find('/')).map_or(rest.len(), |at| begins + at);
    let host = rest.get(begins..ends).unwrap_or(rest);
    if method.width() + 1 + ends < width || ends == rest.len() && method.width() + 1 + ends <= width {
        return shortened(text, width);
    }
    let room = width.saturating_sub(method.width() + " …".width());
    let skipped = host.chars().count().saturating_sub(room);
    format!("{method} …{}", host.chars().skip(skipped).collect::<String>())
}

/// The class of a destination; what nobody knows stands out.
pub(crate) fn class(class: Class) -> Cell {
    let style = if class == Class::Unknown { Style::new().magenta() } else { Style::new() };
    Cell::styled(class.as_str(), style)
}

/// How much left, as far as that is known.
pub(crate) fn sent(view: &DecisionView) -> String {
    match (view.request_bytes, view.outcome) {
        (Some(sent), _) => bytes(sent),
        (None, Some(OutcomeKind::Interrupted)) => "?".to_owned(),
        (None, _) => "…".to_owned(),
    }
}

/// Method and URL, with scheme and port only where they are not the usual ones.
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
    let scheme = if scheme == Scheme::Https { String::new() } else { format!("{scheme}://") };
    format!("{method} {scheme}{}{port}{path}", host.as_str())
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
        Finding::LargeUpload { bytes: count, limit, .. } => over_limit(*count, *limit),
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
            (json!({}), ["POST evil.example/upload", "unknown_destination", "0 B", ""]),
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
                ["POST evil.example/upload", "denied_by_rule", "4.0 KiB", ""],
            ),
            (
                json!({"outcome": null, "request_bytes": null, "findings": [
                    {"kind": "large_upload", "bytes": 3145728, "limit": 1048576, "of": "request_block"},
                    {"kind": "secret", "detector": "aws-access-key", "count": 1, "where": "body", "key": "hmac:0"},
                    {"kind": "lookalike_domain", "of": "github.com"},
                    {"kind": "git_push"}]}),
                [
                    "POST evil.example/upload",
                    "unknown_destination",
                    "…",
                    "3.0 MiB over the limit of 1.0 MiB, secret aws-access-key in body, looks like github.com, git push",
                ],
            ),
            (
                json!({"outcome": "interrupted", "request_bytes": null}),
                ["POST evil.example/upload", "unknown_destination", "?", "interrupted"],
            ),
        ] {
            let view = view(changes);
            assert_eq!([request(&view), reason(&view).to_string(), sent(&view), found(&view)], shown);
        }
    }

    const NOW: &str = "2026-11-21T06:00:01Z";

    fn shown(terminal: usize, follow: bool, views: &[serde_json::Value]) -> Vec<String> {
        let mut table = Decisions::new(Some(terminal), follow);
        let now = NOW.parse().unwrap();
        views.iter().for_each(|changes| table.add(&view(changes.clone()), now));
        anstream::adapter::strip_str(&table.text()).to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn while_observing_each_terminal_shows_agent_action_host_and_reason() {
        let observed = json!({"host": "api.anthropic.com", "path": "/v1/messages/and/much/more/than/fits/anywhere/here",
            "action": "allow", "reason": "allowed_by_observe", "would": "deny", "would_reason": "unknown_destination",
            "request_bytes": 4096, "agent": "anonymous",
            "findings": [{"kind": "lookalike_domain", "of": "github.com"}]});
        for (terminal, follow, words) in [
            (80, false, &[][..]),
            (80, true, &[]),
            (100, false, &["4.0 KiB", "/v1/"]),
            (100, true, &["4.0 KiB", "/v1"]),
            (120, false, &["4.0 KiB", "/v1/", "looks like github.c"]),
            (120, true, &["4.0 KiB", "looks like github.c"]),
            (160, true, &["4.0 KiB", "/v1/", "looks like github.c", "unknown  would"]),
        ] {
            let lines = shown(terminal, follow, std::slice::from_ref(&observed));
            for line in &lines {
                assert!(line.width() <= terminal, "{terminal}: {line}");
            }
            let row = &lines[1];
            for word in ["anonymous", "would deny", "unknown_destination", "POST api.anthropic.com"]
                .iter()
                .chain(words)
            {
                assert!(row.contains(word), "{terminal}, {follow}: `{word}` in `{row}`");
            }
        }
    }

    #[test]
    fn rows_that_follow_stand_under_the_same_header_however_long_they_are() {
        for terminal in [80, 100, 120] {
            let mut table = Decisions::new(Some(terminal), true);
            let now = NOW.parse().unwrap();
            let mut take = |changes| {
                table.add(&view(changes), now);
                anstream::adapter::strip_str(&table.text()).to_string()
            };
            let first = take(json!({"host": "a.test", "path": "/"}));
            let host = format!("{}.example.com", "x".repeat(90));
            let later = take(
                json!({"agent": "an-agent-with-a-long-name", "reason": "upload_window_exceeded", "host": host}),
            );
            let at = |line: &str| line.find("POST ").unwrap();
            assert_eq!(at(first.lines().nth(1).unwrap()), at(&later.replace('…', ".")), "{first}{later}");
            assert!(later.contains("upload_window_exceeded") && later.contains(".example.com"), "{later}");
            assert!(later.trim_end().width() <= terminal, "{terminal}: {later}");
        }
    }

    #[test]
    fn a_request_loses_its_path_before_its_host_and_a_host_its_beginning() {
        for (text, width, expected) in [
            ("GET docs.rs/serde", 17, "GET docs.rs/serde"),
            ("GET docs.rs/serde", 14, "GET docs.rs/s…"),
            ("GET docs.rs/serde", 11, "GET …ocs.rs"),
            ("GET docs.rs", 11, "GET docs.rs"),
            ("GET http://docs.rs:8080/serde", 25, "GET http://docs.rs:8080/…"),
            ("GET http://docs.rs:8080/serde", 14, "GET …s.rs:8080"),
            ("POST api.anthropic.com/v1/messages", 18, "POST …nthropic.com"),
            ("connect (unreadable)", 12, "connect …le)"),
        ] {
            assert_eq!(cut_request(text, width), expected);
        }
    }
}
