//! What the columns of a store repeat of a record, read without the rest of it: to check very many quickly.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::verdict::{Action, Reason};

/// What the columns of a store repeat of a decision, read without the rest: to check many quickly.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `record::Decision`")]
pub struct DecisionGlance<'a> {
    pub action: Action,
    #[serde(borrow)]
    pub agent: Cow<'a, str>,
    #[serde(borrow)]
    pub class: Cow<'a, str>,
    /// Not a decision's, but an outcome's.
    pub decision: Option<IgnoredAny>,
    #[serde(borrow)]
    pub domain: Option<Cow<'a, str>>,
    /// Not a decision's, but an event's.
    pub event: Option<IgnoredAny>,
    #[serde(borrow)]
    pub findings: Vec<FindingGlance<'a>>,
    #[serde(borrow)]
    pub host: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    pub reason: Reason,
    #[serde(borrow)]
    pub session: Option<Cow<'a, str>>,
    pub time: i64,
}

impl<'a> DecisionGlance<'a> {
    /// Reads it from canonical text.
    ///
    /// # Errors
    /// What is not a decision, in serde's words.
    pub fn read(canonical: &'a str) -> Result<DecisionGlance<'a>, serde_json::Error> {
        serde_json::from_str(canonical)
    }
}

impl<'a> OutcomeGlance<'a> {
    /// Reads it from canonical text.
    ///
    /// # Errors
    /// What is not an outcome, in serde's words.
    pub fn read(canonical: &'a str) -> Result<OutcomeGlance<'a>, serde_json::Error> {
        serde_json::from_str(canonical)
    }
}

/// As [`DecisionGlance`], of an outcome.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `record::Outcome`")]
pub struct OutcomeGlance<'a> {
    pub action: Action,
    #[serde(borrow)]
    pub decision: Cow<'a, str>,
    /// Not an outcome's, but an event's.
    pub event: Option<IgnoredAny>,
    #[serde(borrow)]
    pub findings: Vec<FindingGlance<'a>>,
    pub reason: Reason,
    pub request_bytes: u64,
    pub time: i64,
}

/// The kind of a finding.
#[derive(Debug, Deserialize)]
pub struct FindingGlance<'a> {
    /// Its word.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
}
