//! What an alert says: which kinds an exchange is, in which words, and which alerts are equal.

use policy::identity::AgentName;
use policy::record::{Decision, Finding, Outcome};
use policy::verdict::{Action, Reason};

use super::{Alert, Waiting};
use crate::config::{AlertKind, Word as _};
use crate::shown::over_limit;

/// The alert of an exchange that has ended, where it is worth one. `new` says that its domain was not seen before.
pub(super) fn exchange(decision: &Decision, outcome: &Outcome, new: bool) -> Option<Alert> {
    let found = || decision.findings.iter().chain(&outcome.findings);
    let reasons = [Some(outcome.reason), outcome.would_reason];
    let mut kinds = Vec::new();
    let mut add = |kind, when: bool| kinds.extend(when.then_some(kind));
    add(
        AlertKind::Secret,
        found().any(|finding| matches!(finding, Finding::Secret { .. }))
            || reasons.contains(&Some(Reason::SecretFound)),
    );
    add(
        AlertKind::Upload,
        found().any(|finding| matches!(finding, Finding::LargeUpload { .. }))
            || reasons.contains(&Some(Reason::UploadTooLarge))
            || reasons.contains(&Some(Reason::UploadWindowExceeded)),
    );
    add(AlertKind::Lookalike, found().any(|finding| matches!(finding, Finding::LookalikeDomain { .. })));
    add(AlertKind::Denied, is_refusal(outcome));
    add(AlertKind::FirstSeen, new);
    let kind = *kinds.first()?;
    let host = decision.host.as_ref().map_or("an unreadable destination", |host| host.as_str());
    let agent = decision.agent.as_str();
    let end = ending(outcome);
    let what: Vec<String> = found().filter_map(words).collect();
    let what = if what.is_empty() { String::new() } else { format!(" ({})", what.join(", ")) };
    let first = if kind == AlertKind::FirstSeen { ", which was never asked for before" } else { "" };
    let text = format!("{agent} to {host}{what}{first}: {end}");
    // Of a name that changes with each request the domain says what is equal.
    let domain = decision.domain.as_ref().map_or(host, |domain| domain.as_str());
    let key = format!("{} {agent} {domain} {}", kind.word(), outcome.reason);
    Some(Alert {
        kinds,
        agent: Some(decision.agent.clone()),
        session: decision.session,
        host: decision.host.clone(),
        rule: decision.rule.clone(),
        reason: Some(outcome.reason.as_str()),
        decision: Some(decision.id),
        ..Alert::new(kind, key, text)
    })
}

/// What was refused, other than because the gateway itself was not able to.
fn is_refusal(outcome: &Outcome) -> bool {
    outcome.action == Action::Deny && !matches!(outcome.reason, Reason::AuditUnavailable | Reason::Overloaded)
}

fn ending(outcome: &Outcome) -> String {
    match (outcome.action, outcome.would, outcome.would_reason) {
        (Action::Deny, ..) => format!("refused, {}", outcome.reason),
        (_, Some(would), Some(why)) => format!("let pass, would be {would}: {why}"),
        _ => format!("let pass, {}", outcome.reason),
    }
}

fn words(finding: &Finding) -> Option<String> {
    match finding {
        Finding::Secret { detector, place, .. } => Some(format!("a secret, {detector} in {place}")),
        Finding::LargeUpload { bytes: sent, limit, .. } => Some(over_limit(*sent, *limit)),
        Finding::LookalikeDomain { of } => Some(format!("it looks like {of}")),
        _ => None,
    }
}

/// A question that waits.
pub(super) fn waiting(question: &Waiting<'_>) -> Alert {
    let Waiting { id, agent, session, destination, rule, reply_url, deny_url } = question;
    let by = rule.map(|rule| format!(" ({rule})")).unwrap_or_default();
    let text = format!("{agent} asks to reach {destination}{by}: outgate approvals approve {id}");
    Alert {
        agent: Some((*agent).clone()),
        session: *session,
        host: Some((*destination).clone()),
        rule: rule.cloned(),
        decision: Some(*id),
        reply_url: reply_url.map(str::to_owned),
        deny_url: deny_url.map(str::to_owned),
        ..Alert::new(AlertKind::Approval, format!("approval {id}"), text)
    }
}

/// Records that cannot be written.
pub(super) fn audit_failure(problem: &str) -> Alert {
    let text = format!("records cannot be written, so everything is refused: {problem}");
    Alert::new(AlertKind::AuditFailure, "audit_failure".to_owned(), text)
}

/// An agent whose time is nearly up.
pub(super) fn expiring(agent: &AgentName) -> Alert {
    let text = format!("the token of {agent} expires within a day: outgate agent rotate {agent}");
    Alert { agent: Some(agent.clone()), ..Alert::new(AlertKind::Expiring, format!("expiring {agent}"), text) }
}
