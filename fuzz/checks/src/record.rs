//! Audit records: whatever reads as one is written the same way each time, and a glance says what the record says.

use policy::glance::{DecisionGlance, FindingGlance, OutcomeGlance};
use policy::record::{Decision, Finding, Outcome, Record};

/// Takes the canonical bytes of a record, or what is passed off as such.
pub fn check(input: &[u8]) {
    let record = Record::parse(input).ok();
    if let Some(record) = &record {
        reads_back(record);
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return assert!(record.is_none(), "a record is text");
    };
    let (decision, outcome) = (DecisionGlance::read(text).ok(), OutcomeGlance::read(text).ok());
    match &record {
        Some(Record::Decision(record)) => {
            same_decision(&decision.expect("what is a decision is one at a glance"), record);
            assert!(outcome.is_none(), "a decision passes for an outcome");
        }
        Some(Record::Outcome(record)) => {
            same_outcome(&outcome.expect("what is an outcome is one at a glance"), record);
        }
        Some(Record::Event(_)) | None => {}
    }
}

fn canonical(record: &Record) -> String {
    match record {
        Record::Decision(decision) => decision.canonical(),
        Record::Outcome(outcome) => outcome.canonical(),
        Record::Event(event) => event.canonical(),
    }
}

fn reads_back(record: &Record) {
    let text = canonical(record);
    let again = Record::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(again.kind(), record.kind(), "{text}");
    assert_eq!(canonical(&again), text, "it is not written the same way each time");
    let value: serde_json::Value = serde_json::from_str(&text).expect("it was just read");
    assert_eq!(value.to_string(), text, "keys are out of order, or there twice");
}

fn same_decision(glance: &DecisionGlance<'_>, record: &Decision) {
    assert_eq!((glance.action, glance.reason, glance.time), (record.action, record.reason, record.time));
    assert_eq!(glance.agent, record.agent.as_str());
    assert_eq!(glance.class, record.class.to_string());
    assert_eq!(glance.domain.as_deref(), record.domain.as_ref().map(|text| text.as_str()));
    assert_eq!(glance.host.as_deref(), record.host.as_ref().map(|text| text.as_str()));
    assert_eq!(glance.session.is_some(), record.session.is_some());
    assert!(glance.event.is_none() && glance.decision.is_none());
    same_findings(&glance.findings, &record.findings);
}

fn same_outcome(glance: &OutcomeGlance<'_>, record: &Outcome) {
    assert_eq!((glance.action, glance.reason, glance.time), (record.action, record.reason, record.time));
    assert_eq!(glance.request_bytes, record.request_bytes);
    assert!(glance.event.is_none());
    same_findings(&glance.findings, &record.findings);
}

fn same_findings(glance: &[FindingGlance<'_>], findings: &[Finding]) {
    let seen: Vec<&str> = glance.iter().map(|finding| &*finding.kind).collect();
    let kept: Vec<&str> = findings.iter().map(Finding::kind).collect();
    assert_eq!(seen, kept);
}
