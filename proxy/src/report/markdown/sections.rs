//! The sections of the text, in their order.

use policy::report::{Amount, DeniedRow, Listed, Report, SessionRow};

use super::{Page, cell, code, optional};
use crate::report::words;
use crate::shown::bytes;

impl Page {
    pub(super) fn head(&mut self, report: &Report) {
        self.line("## Outgate report\n");
        self.line(&format!("**{}**\n", report.verdict));
        for (name, value) in words::scope(&report.scope) {
            self.line(&format!("- {name}: {value}"));
        }
        if let Some(period) = &report.period {
            self.line(&format!("- Requests: from {}", words::span(period)));
        }
        if report.scope.session.is_some() {
            report.sessions.rows.iter().for_each(|session| self.session_head(session));
        }
        self.line("");
    }

    fn session_head(&mut self, session: &SessionRow) {
        for (name, value) in [
            ("Agent", Some(session.agent.as_str())),
            ("Label", session.label.as_deref()),
            ("Tool", session.tool.as_deref()),
            ("Repository", session.repo.as_deref()),
            ("Branch", session.branch.as_deref()),
            ("Commit", session.commit.as_deref()),
            ("Model", session.model.as_deref()),
        ] {
            if let Some(value) = value {
                self.line(&format!("- {name}: {}", code(value)));
            }
        }
    }

    pub(super) fn totals(&mut self, report: &Report) {
        let totals = &report.totals;
        self.line("| Requests | Allowed | Denied | Sent | Received | Secrets found | Secrets stopped | Uploads over a limit |");
        self.line("|--:|--:|--:|--:|--:|--:|--:|--:|");
        self.line(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            totals.requests,
            totals.allowed,
            totals.denied,
            bytes(totals.bytes_up),
            bytes(totals.bytes_down),
            totals.secrets,
            totals.secrets_stopped,
            totals.uploads_over_limits
        ));
        for (number, words) in [
            (totals.would_be_denied, "Let through that enforcing would deny"),
            (totals.asked, "Asked a person about"),
            (totals.held, "Still held"),
            (totals.in_flight, "In flight, bytes not known yet"),
            (totals.interrupted, "Interrupted, bytes not known"),
        ] {
            if number > 0 {
                self.line(&format!("- {words}: {number}"));
            }
        }
        self.line("");
    }

    pub(super) fn reached(&mut self, report: &Report) {
        let rows = report.reached.iter().flat_map(|class| {
            let sum = [class.class.to_string(), "*all*".to_owned()].into_iter().chain(moved(class.amount));
            let places = class.services.rows.iter().map(move |row| {
                let place = match (&row.service, &row.domain) {
                    (Some(service), _) => cell(&format!("@{service}")),
                    (None, domain) => cell(domain.as_deref().unwrap_or("(no domain)")),
                };
                [class.class.to_string(), place].into_iter().chain(moved(row.amount)).collect()
            });
            std::iter::once(sum.collect()).chain(places)
        });
        let listed = Listed { rows: rows.collect(), omitted: 0 };
        self.section(
            "What was reached",
            "Nothing: no request was allowed.",
            &listed,
            false,
            |page, listed| {
                let columns = ["Class", "Service or domain", "#Requests", "#Sent", "#Received"];
                page.table(&columns, listed, Vec::clone);
            },
        );
    }

    pub(super) fn denied(&mut self, report: &Report) {
        let columns = ["Destination", "Reason", "Rule", "#Times", "Last (UTC)", "To allow it"];
        let row = |row: &DeniedRow| {
            vec![
                cell(&row.destination),
                cell(row.reason.as_str()),
                optional(row.rule.as_deref()),
                row.requests.to_string(),
                words::time(row.last),
                optional(row.allow.as_deref()),
            ]
        };
        let nothing = "Nothing was denied.";
        self.section("What was denied, and why", nothing, &report.denied, false, |page, listed| {
            page.table(&columns, listed, row);
        });
        self.section(
            "What enforcing would have denied",
            "",
            &report.would_be_denied,
            false,
            |page, listed| {
                // No line of a policy is needed for what passes.
                page.table(&columns[..5], listed, |denied| row(denied)[..5].to_vec());
            },
        );
    }

    pub(super) fn secrets(&mut self, report: &Report) {
        let nothing = "No secret was found where it does not belong.";
        self.section("Secrets", nothing, &report.secrets, false, |page, listed| {
            page.line("Kind, place and count. What they were is recorded nowhere.\n");
            let columns = ["Kind", "Where", "On the way to", "#Count", "#Requests", "What became of it"];
            page.table(&columns, listed, |row| {
                vec![
                    cell(&row.detector),
                    cell(&row.place),
                    cell(&row.destination),
                    row.count.to_string(),
                    row.requests.to_string(),
                    words::fate_of_secret(row.fate).to_owned(),
                ]
            });
        });
    }

    pub(super) fn uploads(&mut self, report: &Report) {
        let nothing = "No upload passed a limit.";
        self.section("Uploads over a limit", nothing, &report.uploads, false, |page, listed| {
            let columns = ["Destination", "Limit of", "#Limit", "#Largest", "#Requests", "What became of it"];
            page.table(&columns, listed, |row| {
                vec![
                    cell(&row.destination),
                    words::limit(&row.of).map_or_else(|| cell(&row.of), str::to_owned),
                    bytes(row.limit),
                    bytes(row.bytes),
                    row.requests.to_string(),
                    words::fate_of_upload(row.fate).to_owned(),
                ]
            });
        });
    }

    pub(super) fn new_domains(&mut self, report: &Report) {
        let nothing = "No unknown domain was new.";
        self.section("Unknown domains first seen", nothing, &report.new_domains, false, |page, listed| {
            let columns = ["Domain", "First (UTC)", "By", "Answer", "#Requests", "#Sent"];
            page.table(&columns, listed, |row| {
                vec![
                    cell(&row.domain),
                    words::time(row.first),
                    cell(row.agent.as_str()),
                    row.action.to_string(),
                    row.amount.requests.to_string(),
                    bytes(row.amount.bytes_up),
                ]
            });
        });
    }

    pub(super) fn approvals(&mut self, report: &Report) {
        let nothing = "No question was answered.";
        self.section("Approvals", nothing, &report.approvals, false, |page, listed| {
            let columns = ["Time (UTC)", "By", "Agent", "Destination", "Question", "Answer", "Reaches"];
            page.table(&columns, listed, |row| {
                vec![
                    words::time(row.time),
                    optional(row.by.as_deref()),
                    optional(row.agent.as_ref().map(|agent| agent.as_str())),
                    optional(row.destination.as_deref()),
                    cell(&row.approval),
                    cell(&row.answer),
                    cell(&row.scope),
                ]
            });
        });
    }

    /// What is there for whoever wants to know more.
    pub(super) fn more(&mut self, report: &Report) {
        self.section("Destinations", "", &report.destinations, true, |page, listed| {
            let columns = ["Destination", "Class", "#Requests", "#Denied", "#Sent", "#Received"];
            page.table(&columns, listed, |row| {
                let Amount { requests, denied, bytes_up, bytes_down } = row.amount;
                let numbers = [requests.to_string(), denied.to_string(), bytes(bytes_up), bytes(bytes_down)];
                [cell(&row.destination), row.class.to_string()].into_iter().chain(numbers).collect()
            });
        });
        self.section("Credentials in their places", "", &report.credentials, true, |page, listed| {
            page.table(&["Service or destination", "Kind", "Where", "#Requests"], listed, |row| {
                let service = row.service.as_ref().map(|service| format!("@{service}"));
                vec![
                    optional(service.as_deref().or(row.destination.as_deref())),
                    cell(&row.detector),
                    cell(&row.place),
                    row.requests.to_string(),
                ]
            });
        });
        let findings = Listed { rows: report.findings.clone(), omitted: 0 };
        self.section("All findings", "", &findings, true, |page, listed| {
            page.table(&["Finding", "#Requests"], listed, |row| {
                vec![row.kind.replace('_', " "), row.requests.to_string()]
            });
        });
        self.section("Look-alikes", "", &report.lookalikes, true, |page, listed| {
            page.table(&["Destination", "Looks like", "#Requests", "#Denied"], listed, |row| {
                let Amount { requests, denied, .. } = row.amount;
                vec![cell(&row.destination), cell(&row.looks_like), requests.to_string(), denied.to_string()]
            });
        });
        self.who(report);
        self.rules(report);
    }

    fn who(&mut self, report: &Report) {
        self.section("Sessions", "", &report.sessions, true, |page, listed| {
            let columns = [
                "Session",
                "Agent",
                "Label",
                "Tool",
                "Repository",
                "Branch",
                "Began (UTC)",
                "#Requests",
                "#Denied",
            ];
            page.table(&columns, listed, |row| {
                vec![
                    cell(&row.session.to_string()),
                    cell(row.agent.as_str()),
                    optional(row.label.as_deref()),
                    optional(row.tool.as_deref()),
                    optional(row.repo.as_deref()),
                    optional(row.branch.as_deref()),
                    words::time(row.started),
                    row.amount.requests.to_string(),
                    row.amount.denied.to_string(),
                ]
            });
        });
        self.section("Agents", "", &report.agents, true, |page, listed| {
            let columns = ["Agent", "Owner", "Purpose", "#Requests", "#Denied", "#Sent", "#Secrets"];
            page.table(&columns, listed, |row| {
                vec![
                    cell(row.agent.as_str()),
                    optional(row.owner.as_deref()),
                    optional(row.purpose.as_deref()),
                    row.amount.requests.to_string(),
                    row.amount.denied.to_string(),
                    bytes(row.amount.bytes_up),
                    row.secrets.to_string(),
                ]
            });
        });
    }

    fn rules(&mut self, report: &Report) {
        self.section("Policies", "", &report.policies, true, |page, listed| {
            page.table(&["Digest", "#Requests", "First (UTC)", "Last (UTC)"], listed, |row| {
                let (first, last) = (words::time(row.first), words::time(row.last));
                vec![cell(&row.policy), row.requests.to_string(), first, last]
            });
        });
        self.section("Policies that came into force", "", &report.policy_changes, true, |page, listed| {
            page.table(&["Time (UTC)", "By", "Mode", "Digest", "Instead of"], listed, |row| {
                vec![
                    words::time(row.time),
                    optional(row.by.as_deref()),
                    row.mode.to_string(),
                    cell(&row.policy),
                    optional(row.previous.as_deref()),
                ]
            });
        });
        self.section("Gateway, settings and agents", "", &report.changes, true, |page, listed| {
            page.table(&["Time (UTC)", "What", "Agent", "By", "More"], listed, |row| {
                vec![
                    words::time(row.time),
                    words::event(row.event),
                    optional(row.agent.as_ref().map(|agent| agent.as_str())),
                    optional(row.by.as_deref()),
                    optional(row.detail.as_deref()),
                ]
            });
        });
    }

    pub(super) fn chain(&mut self, report: &Report) {
        self.line("### Can this be believed?\n");
        match &report.chain {
            None => self.line("There is no record of the period to check."),
            Some(status) => {
                self.line(&words::chain(report, status, code));
                let key = status.last_checkpoint.as_ref().map(|seen| format!(" {}.", code(&seen.key)));
                self.line(&format!("{}{}", words::checkpoint(status), key.unwrap_or_default()));
            }
        }
        self.line("`outgate audit verify` checks all records.\n");
        let written = words::time(report.generated);
        self.line(&format!("<sub>Written by Outgate {} at {written} UTC.</sub>", report.version));
    }
}

fn moved(amount: Amount) -> [String; 3] {
    [amount.requests.to_string(), bytes(amount.bytes_up), bytes(amount.bytes_down)]
}
