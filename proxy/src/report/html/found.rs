//! What was found in requests.

use maud::{Markup, html};
use policy::report::Report;

use super::{ROWS, destination, more, optional, section, table};
use crate::report::words;
use crate::shown::{Shown, bytes};

pub(super) fn secrets(report: &Report) -> Markup {
    html! {
        (section("secrets", "Secrets", !report.secrets.is_empty(), "No secret was found where it does not belong.", html! {
            (table("Secrets where they do not belong: what kind, where, how many. What they were is recorded nowhere.", &[
                "Kind", "Where", "On the way to", "#Count", "#Requests", "What became of it",
            ], html! {
                @for row in report.secrets.rows.iter().take(ROWS) {
                    tr {
                        th .name scope="row" { (Shown(&row.detector)) }
                        td .name { (Shown(&row.place)) }
                        td .name { (destination(&row.destination)) }
                        td .n { (row.count) } td .n { (row.requests) }
                        td { (words::fate_of_secret(row.fate)) }
                    }
                }
                (more(&report.secrets, 6, "findings"))
            }))
        }))
        @if !report.credentials.is_empty() {
            section aria-labelledby="credentials" {
                h3 #credentials { "Credentials in their places" }
                (table("Services' own credentials, sent where they belong. These are not leaks.", &[
                    "Service or destination", "Kind", "Where", "#Requests",
                ], html! {
                    @for row in report.credentials.rows.iter().take(ROWS) {
                        tr {
                            th .name scope="row" {
                                @if let Some(service) = &row.service { "@" (Shown(service)) }
                                (optional(row.destination.as_deref()))
                            }
                            td .name { (Shown(&row.detector)) }
                            td .name { (Shown(&row.place)) }
                            td .n { (row.requests) }
                        }
                    }
                    (more(&report.credentials, 4, "uses"))
                }))
            }
        }
    }
}

pub(super) fn uploads(report: &Report) -> Markup {
    let rows = &report.uploads;
    section(
        "uploads",
        "Uploads over a limit",
        !rows.is_empty(),
        "No upload passed a limit.",
        html! {
            (table("By destination and limit. Largest is what was counted when the limit was passed.", &[
                "Destination", "Limit of", "#Limit", "#Largest", "#Requests", "What became of it",
            ], html! {
                @for row in rows.rows.iter().take(ROWS) {
                    tr {
                        th .name scope="row" { (destination(&row.destination)) }
                        td { (Shown(words::limit(&row.of).unwrap_or(&row.of))) }
                        td .n { (bytes(row.limit)) } td .n { (bytes(row.bytes)) } td .n { (row.requests) }
                        td { (words::fate_of_upload(row.fate)) }
                    }
                }
                (more(rows, 6, "uploads"))
            }))
        },
    )
}

pub(super) fn findings(report: &Report) -> Markup {
    html! {
        (section("findings", "All findings", !report.findings.is_empty(), "Nothing was found in any request.", html! {
            (table("Requests by kind of finding; a request can have several.", &["Finding", "#Requests"], html! {
                @for row in &report.findings {
                    tr { th scope="row" { (row.kind.replace('_', " ")) } td .n { (row.requests) } }
                }
            }))
        }))
        @if !report.lookalikes.is_empty() {
            section aria-labelledby="lookalikes" {
                h3 #lookalikes { "Look-alikes" }
                (table("Hosts whose names look like those of known services.", &[
                    "Destination", "Looks like", "#Requests", "#Denied", "#Sent",
                ], html! {
                    @for row in report.lookalikes.rows.iter().take(ROWS) {
                        tr {
                            th .name scope="row" { (destination(&row.destination)) }
                            td .name { (Shown(&row.looks_like)) }
                            td .n { (row.amount.requests) } td .n { (row.amount.denied) }
                            td .n { (bytes(row.amount.bytes_up)) }
                        }
                    }
                    (more(&report.lookalikes, 5, "requests"))
                }))
            }
        }
    }
}
