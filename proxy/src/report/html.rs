//! A report as one page that needs nothing else: no script, no request, light and dark, on screens and on paper.

mod found;
mod people;
mod traffic;

use std::fmt::Display;

use maud::{DOCTYPE, Markup, PreEscaped, Render, html};
use policy::report::{Listed, Moment, Report, SessionRow};
use policy::view::rfc3339;

use super::{chart, words};
use crate::shown::{Shown, bytes, count};

const STYLE: &str = include_str!("../../../dashboards/report/report.css");
/// Nothing may be loaded and nothing may run, whatever got into the page.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
/// Rows of one table; more are counted, and stand in the JSON.
const ROWS: usize = 200;

impl Render for Shown<'_> {
    fn render_to(&self, buffer: &mut String) {
        self.to_string().render_to(buffer);
    }
}

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let title = title(report);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(CONTENT_POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (chart::patterns())
                main {
                    header { (head(report)) }
                    @if report.totals.requests > 0 {
                        (tiles(report))
                        (charts(report))
                        (traffic::reached(report))
                        (traffic::destinations(report))
                    }
                    (traffic::denied(report))
                    (people::approvals(report))
                    (found::secrets(report))
                    (found::uploads(report))
                    (traffic::new_domains(report))
                    (found::findings(report))
                    (people::sessions(report))
                    (people::agents(report))
                    (people::policies(report))
                    (people::changes(report))
                    (people::chain(report))
                }
                footer {
                    p {
                        "Written by Outgate " (report.version) " at " (time(report.generated)) ". Times are UTC; bytes are "
                        "those of exchanges that ended, heads included. The record keeps no secrets, so none are here."
                    }
                }
            }
        }
    }
    .into_string()
}

fn title(report: &Report) -> String {
    let of = match (&report.scope.session, &report.scope.agent, &report.period) {
        (Some(session), _, _) => format!(" on session {session}"),
        (_, Some(agent), _) => format!(" on agent {agent}"),
        (_, _, Some(period)) => format!(", {}", words::span(period)),
        _ => String::new(),
    };
    format!("Outgate report{of}")
}

fn head(report: &Report) -> Markup {
    let bad = report.chain.as_ref().is_some_and(|chain| !chain.intact);
    html! {
        h1 { "Outgate report" }
        p .verdict.bad[bad] { (report.verdict) }
        dl .scope {
            @for (name, value) in words::scope(&report.scope) { div { dt { (name) } dd { (Shown(&value)) } } }
            @if let Some(period) = &report.period { div { dt { "Requests" } dd { "from " (words::span(period)) } } }
            @if report.scope.session.is_some() {
                @for session in &report.sessions.rows { (session_head(session)) }
            }
        }
    }
}

/// Who, what and where of the one session that was asked about.
fn session_head(session: &SessionRow) -> Markup {
    let fields = [
        ("Agent", Some(session.agent.as_str())),
        ("Label", session.label.as_deref()),
        ("Tool", session.tool.as_deref()),
        ("Repository", session.repo.as_deref()),
        ("Branch", session.branch.as_deref()),
        ("Commit", session.commit.as_deref()),
        ("Model", session.model.as_deref()),
    ];
    html! {
        @for (name, value) in fields {
            @if let Some(value) = value { div { dt { (name) } dd { (Shown(value)) } } }
        }
    }
}

fn tiles(report: &Report) -> Markup {
    let totals = &report.totals;
    let unended = totals.in_flight + totals.interrupted;
    html! {
        ul .tiles aria-label="Totals" {
            (tile(totals.requests, "requests", &format!("to {}", count(totals.destinations, "destination")), ""))
            (tile(totals.allowed, "allowed", "", ""))
            (tile(totals.denied, "denied", "", if totals.denied > 0 { "alarm" } else { "" }))
            @if totals.asked > 0 { (tile(totals.asked, "asked a person about", &held(totals.held), "")) }
            @if totals.would_be_denied > 0 {
                (tile(totals.would_be_denied, "would have been denied", "only observed", "alarm"))
            }
            (tile(bytes(totals.bytes_up), "sent", "", ""))
            (tile(bytes(totals.bytes_down), "received", "", ""))
            (tile(totals.secrets, "secrets found", &format!("{} stopped", totals.secrets_stopped), if totals.secrets > 0 { "alarm" } else { "" }))
            (tile(totals.uploads_over_limits, "uploads over a limit", "", if totals.uploads_over_limits > 0 { "alarm" } else { "" }))
            @if unended > 0 {
                (tile(unended, "without an end", &format!("{} in flight, {} interrupted", totals.in_flight, totals.interrupted), ""))
            }
        }
    }
}

fn held(held: u64) -> String {
    if held == 0 { String::new() } else { format!("{held} still held") }
}

fn tile(value: impl Display, name: &str, note: &str, class: &str) -> Markup {
    html! {
        li class=(class) {
            strong { (value.to_string()) } " " span { (name) }
            @if !note.is_empty() { " " small { (note) } }
        }
    }
}

fn charts(report: &Report) -> Markup {
    html! {
        section aria-labelledby="charts" {
            h2 #charts { "At a glance" }
            div .charts {
                figure {
                    (chart::timeline(&report.timeline))
                    figcaption {
                        span .key.allowed {} "allowed " span .key.denied-hatch {} "denied "
                        @if report.totals.held > 0 { span .key.held {} "held " }
                        span .key.sent {} "bytes sent. Steps of " (words::step(report.timeline.bucket_seconds)) "."
                    }
                }
                @if report.totals.bytes_up > 0 {
                    figure {
                        h3 { "Bytes sent by destination" }
                        (chart::destinations(report))
                        figcaption {
                            span .key.model {} "model " span .key.tool {} "tool " span .key.unknown-bars {} "unknown"
                        }
                    }
                }
            }
        }
    }
}

/// A section with a heading; one line where there is nothing to show.
#[expect(clippy::needless_pass_by_value, reason = "it is written on the spot")]
fn section(id: &str, title: &str, anything: bool, nothing: &str, content: Markup) -> Markup {
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (title) }
            @if anything { (content) } @else { p .soft { (nothing) } }
        }
    }
}

/// A table that scrolls by itself where the screen is narrow. Columns whose name begins with `#` hold numbers.
#[expect(clippy::needless_pass_by_value, reason = "it is written on the spot")]
fn table(caption: &str, columns: &[&str], rows: Markup) -> Markup {
    html! {
        div .scroll tabindex="0" role="region" aria-label=(caption) {
            table .narrow[columns.len() <= 2] {
                caption { span { (caption) } }
                thead {
                    tr {
                        @for column in columns {
                            @match column.strip_prefix('#') {
                                Some(name) => th .n scope="col" { (name) },
                                None => th scope="col" { (column) },
                            }
                        }
                    }
                }
                tbody { (rows) }
            }
        }
    }
}

/// The row that says what is not shown.
fn more<T>(list: &Listed<T>, columns: usize, things: &str) -> Markup {
    let hidden = list.rows.len().saturating_sub(ROWS);
    html! {
        @if hidden > 0 {
            tr .more { td colspan=(columns) { (hidden) " more rows stand in the JSON form of this report." } }
        }
        @if list.omitted > 0 {
            tr .more { td colspan=(columns) { (list.omitted) " " (things) " are counted, but have no row: too many were different." } }
        }
    }
}

/// A host and its port, which goes to the next line before anything else does.
fn destination(text: &str) -> Markup {
    let port = text.rfind(':').filter(|at| !text[*at..].contains(']')).unwrap_or(text.len());
    html! { (Shown(&text[..port])) wbr; (Shown(&text[port..])) }
}

fn optional(text: Option<&str>) -> Markup {
    html! { @if let Some(text) = text { (Shown(text)) } }
}

fn time(moment: Moment) -> Markup {
    html! { time datetime=(rfc3339(moment.0)) { (words::time(moment)) } }
}
