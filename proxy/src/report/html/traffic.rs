//! What was reached and what was not.

use maud::{Markup, html};
use policy::report::{Amount, ClassRow, DeniedRow, Listed, Report};

use super::{ROWS, destination, more, optional, section, table, time};
use crate::shown::{Shown, bytes, count};

pub(super) fn reached(report: &Report) -> Markup {
    let anything = !report.reached.is_empty();
    html! {
        (section("reached", "What was reached", anything, "Nothing: no request was allowed.", html! {
            (table("Allowed requests by class, then by service, or by domain where it belongs to none.", &[
                "Class", "Service or domain", "#Requests", "#Sent", "#Received",
            ], html! {
                @for class in &report.reached { (class_rows(class)) }
            }))
        }))
    }
}

fn class_rows(class: &ClassRow) -> Markup {
    let shown: Vec<_> = class.services.rows.iter().take(ROWS).collect();
    let rest = rest(class.amount, shown.iter().map(|row| row.amount));
    html! {
        tr .sum {
            th scope="row" { (class.class) }
            td { (count(class.services.rows.len() as u64, "place")) }
            (amounts(class.amount))
        }
        @for row in shown {
            tr {
                td {}
                td .name {
                    @match (&row.service, &row.domain) {
                        (Some(service), _) => { "@" (Shown(service)) },
                        (None, Some(domain)) => { (Shown(domain)) },
                        (None, None) => { "(no domain)" },
                    }
                }
                (amounts(row.amount))
            }
        }
        @if rest.requests > 0 { tr .more { td {} td { "all others" } (amounts(rest)) } }
    }
}

/// What is in a sum, but in none of the rows shown.
fn rest(all: Amount, shown: impl Iterator<Item = Amount>) -> Amount {
    shown.fold(all, |rest, row| Amount {
        requests: rest.requests.saturating_sub(row.requests),
        denied: rest.denied.saturating_sub(row.denied),
        bytes_up: rest.bytes_up.saturating_sub(row.bytes_up),
        bytes_down: rest.bytes_down.saturating_sub(row.bytes_down),
    })
}

fn amounts(amount: Amount) -> Markup {
    html! { td .n { (amount.requests) } td .n { (bytes(amount.bytes_up)) } td .n { (bytes(amount.bytes_down)) } }
}

pub(super) fn destinations(report: &Report) -> Markup {
    let totals = &report.totals;
    let all = Amount {
        requests: totals.requests,
        denied: totals.denied,
        bytes_up: totals.bytes_up,
        bytes_down: totals.bytes_down,
    };
    let shown = || report.destinations.rows.iter().take(ROWS);
    let rest = rest(all, shown().map(|row| row.amount));
    html! {
        (section("destinations", "Destinations", true, "", html! {
            (table("All requests by destination, those to which most was sent first.", &[
                "Destination", "Class", "#Requests", "#Denied", "#Sent", "#Received", "Last",
            ], html! {
                @for row in shown() {
                    tr {
                        th .name scope="row" { (destination(&row.destination)) }
                        td { (row.class) }
                        td .n { (row.amount.requests) } td .n { (row.amount.denied) }
                        td .n { (bytes(row.amount.bytes_up)) } td .n { (bytes(row.amount.bytes_down)) }
                        td .t { (time(row.last)) }
                    }
                }
                @if rest.requests > 0 {
                    tr .more {
                        th scope="row" { "all others" } td {}
                        td .n { (rest.requests) } td .n { (rest.denied) }
                        td .n { (bytes(rest.bytes_up)) } td .n { (bytes(rest.bytes_down)) } td {}
                    }
                }
            }))
        }))
    }
}

pub(super) fn denied(report: &Report) -> Markup {
    html! {
        (section("denied", "What was denied, and why", !report.denied.is_empty(), "Nothing was denied.", html! {
            (refusals("Refusals by destination, reason and rule. The last column is what would allow it, where one line would.", &report.denied, true))
        }))
        @if !report.would_be_denied.is_empty() {
            (section("would-be-denied", "What enforcing would have denied", true, "", html! {
                (refusals("Requests that passed because policy, rule or session only observes.", &report.would_be_denied, false))
            }))
        }
    }
}

/// `advise` for what a line of the policy could allow.
fn refusals(caption: &str, rows: &Listed<DeniedRow>, advise: bool) -> Markup {
    let columns = ["Destination", "Class", "Reason", "Rule", "#Times", "Last", "To allow it"];
    let columns = if advise { &columns[..] } else { &columns[..6] };
    table(
        caption,
        columns,
        html! {
            @for row in rows.rows.iter().take(ROWS) {
                tr {
                    th .name scope="row" { (destination(&row.destination)) }
                    td { (row.class) }
                    td .word { (row.reason.as_str().replace('_', " ")) }
                    td .name { (optional(row.rule.as_deref())) }
                    td .n { (row.requests) }
                    td .t { (time(row.last)) br; span .soft { "by " (Shown(row.agent.as_str())) } }
                    @if advise { td .name { @if let Some(allow) = &row.allow { code { (Shown(allow)) } } } }
                }
            }
            (more(rows, columns.len(), "refusals"))
        },
    )
}

pub(super) fn new_domains(report: &Report) -> Markup {
    let rows = &report.new_domains;
    section(
        "new-domains",
        "Unknown domains first seen",
        !rows.is_empty(),
        "No unknown domain was new.",
        html! {
            (table("Domains outside the catalogue of which nothing is recorded before this period.", &[
                "Domain", "First", "By", "Answer", "#Requests", "#Sent",
            ], html! {
                @for row in rows.rows.iter().take(ROWS) {
                    tr {
                        th .name scope="row" { (Shown(&row.domain)) }
                        td .t { (time(row.first)) }
                        td .name { (Shown(row.agent.as_str())) }
                        td { (row.action) }
                        td .n { (row.amount.requests) } td .n { (bytes(row.amount.bytes_up)) }
                    }
                }
                (more(rows, 6, "requests"))
            }))
        },
    )
}
