//! Who asked, who answered, what changed, and whether it can be believed.

use maud::{Markup, html};
use policy::report::{AgentRow, Report, SessionRow};

use super::{ROWS, more, optional, section, table, time};
use crate::report::words;
use crate::shown::{Shown, bytes};

pub(super) fn approvals(report: &Report) -> Markup {
    let rows = &report.approvals;
    section(
        "approvals",
        "Approvals",
        !rows.is_empty(),
        "No question was answered.",
        html! {
            (table("What people answered.", &["Time", "By", "Agent", "Destination", "Question", "Answer", "Reaches"], html! {
                @for row in rows.rows.iter().take(ROWS) {
                    tr {
                        td .t { (time(row.time)) }
                        td .name { (optional(row.by.as_deref())) }
                        td .name { (optional(row.agent.as_ref().map(|agent| agent.as_str()))) }
                        td .name { (optional(row.destination.as_deref())) }
                        th .name scope="row" { (Shown(&row.approval)) }
                        td { (Shown(&row.answer)) }
                        td { (Shown(&row.scope)) }
                    }
                }
                (more(rows, 7, "answers"))
            }))
        },
    )
}

pub(super) fn sessions(report: &Report) -> Markup {
    let rows = &report.sessions;
    section(
        "sessions",
        "Sessions",
        !rows.is_empty(),
        "No session was going on; requests came without one.",
        html! {
            (table("Runs of agents that were going on in the period, the latest first.", &[
                "Session", "Agent", "What", "Began", "Ended", "#Requests", "#Denied", "#Sent",
            ], html! { @for row in rows.rows.iter().take(ROWS) { (session(row)) } (more(rows, 8, "sessions")) }))
        },
    )
}

fn session(row: &SessionRow) -> Markup {
    let what = [&row.label, &row.tool, &row.repo, &row.branch, &row.commit, &row.model];
    html! {
        tr {
            th .id scope="row" { (row.session) @if row.observe { br; span .soft { "observes only" } } }
            td .name { (Shown(row.agent.as_str())) }
            td .name {
                @for part in what.into_iter().flatten() { span .part { (Shown(part)) } " " }
            }
            td .t { (time(row.started)) }
            td .t {
                @match row.ended { Some(ended) => (time(ended)), None => "goes on" }
                @if let Some(why) = row.why { br; span .soft { (why.as_str()) @if let Some(code) = row.exit_code { ", code " (code) } } }
            }
            td .n { (row.amount.requests) } td .n { (row.amount.denied) } td .n { (bytes(row.amount.bytes_up)) }
        }
    }
}

pub(super) fn agents(report: &Report) -> Markup {
    let rows = &report.agents;
    section(
        "agents",
        "Agents",
        !rows.is_empty(),
        "No agent asked for anything.",
        html! {
            (table("Who asked, and who answers for them.", &[
                "Agent", "Owner", "Status", "#Requests", "#Denied", "#Sent", "#Received", "#Secrets",
            ], html! { @for row in rows.rows.iter().take(ROWS) { (agent(row)) } (more(rows, 8, "requests")) }))
        },
    )
}

fn agent(row: &AgentRow) -> Markup {
    html! {
        tr {
            th .name scope="row" {
                (Shown(row.agent.as_str()))
                @if let Some(purpose) = &row.purpose { br; span .soft { (Shown(purpose)) } }
            }
            td .name { (optional(row.owner.as_deref())) }
            td {
                @match row.status { Some(status) => (status.as_str()), None => "not registered" }
                @if let Some(expires) = row.expires { br; span .soft { "until " (time(expires)) } }
            }
            td .n { (row.amount.requests) } td .n { (row.amount.denied) }
            td .n { (bytes(row.amount.bytes_up)) } td .n { (bytes(row.amount.bytes_down)) }
            td .n { (row.secrets) }
        }
    }
}

pub(super) fn policies(report: &Report) -> Markup {
    let anything = !report.policies.is_empty() || !report.policy_changes.is_empty();
    section(
        "policies",
        "Policy",
        anything,
        "No policy decided anything.",
        html! {
            @if !report.policies.is_empty() {
                (table("Policies that requests were decided by.", &["Digest", "#Requests", "#Only observed", "First", "Last"], html! {
                    @for row in report.policies.rows.iter().take(ROWS) {
                        tr {
                            th .id scope="row" { (Shown(&row.policy)) }
                            td .n { (row.requests) } td .n { (row.observed) }
                            td .t { (time(row.first)) } td .t { (time(row.last)) }
                        }
                    }
                    (more(&report.policies, 5, "requests"))
                }))
            }
            @if report.policy_changes.is_empty() {
                p .soft { "No other policy came into force in the period." }
            } @else {
                (table("When a policy came into force.", &["Time", "By", "Mode", "Digest", "Instead of"], html! {
                    @for row in report.policy_changes.rows.iter().take(ROWS) {
                        tr {
                            td .t { (time(row.time)) }
                            td .name { (optional(row.by.as_deref())) }
                            td { (row.mode) }
                            th .id scope="row" { (Shown(&row.policy)) }
                            td .id { (optional(row.previous.as_deref())) }
                        }
                    }
                    (more(&report.policy_changes, 5, "changes"))
                }))
            }
        },
    )
}

pub(super) fn changes(report: &Report) -> Markup {
    let rows = &report.changes;
    section(
        "changes",
        "Gateway, settings and agents",
        !rows.is_empty(),
        "Nothing changed in the period.",
        html! {
            (table("What was done to the gateway, and by whom.", &["Time", "What", "Agent", "By", "More"], html! {
                @for row in rows.rows.iter().take(ROWS) {
                    tr {
                        td .t { (time(row.time)) }
                        th scope="row" { (words::event(row.event)) }
                        td .name { (optional(row.agent.as_ref().map(|agent| agent.as_str()))) }
                        td .name { (optional(row.by.as_deref())) }
                        td .name { (optional(row.detail.as_deref())) }
                    }
                }
                (more(rows, 5, "events"))
            }))
        },
    )
}

pub(super) fn chain(report: &Report) -> Markup {
    html! {
        section aria-labelledby="chain" {
            h2 #chain { "Can this be believed?" }
            @match &report.chain {
                None => p .soft { "There is no record of the period to check." },
                Some(status) => {
                    p .bad[!status.intact] { (words::chain(report, status, |problem| Shown(problem).to_string())) }
                    p {
                        (words::checkpoint(status))
                        @if let Some(seen) = &status.last_checkpoint { " " code { (Shown(&seen.key)) } "." }
                    }
                },
            }
            p { "Each record holds the digest of the one before it. " code { "outgate audit verify" } " checks all of them." }
        }
    }
}
