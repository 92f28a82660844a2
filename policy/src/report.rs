//! What the records of a period come to, as plain data: the JSON of `outgate report`, and what its pages show.
//!
//! A [`Builder`] is told one decision, event, session and agent after the other and keeps no more than a bounded
//! number of rows, however many there are; what is in no row is counted. All text comes from records, where it
//! arrived redacted; of secrets there are only detectors and counts.

mod builder;
mod sections;
mod tally;
#[cfg(test)]
mod tests;
mod timeline;

use serde::{Serialize, Serializer};

use crate::identity::{AgentName, SessionId};
use crate::view::rfc3339;

pub use builder::Builder;
pub use sections::{
    AgentRow, AgentStatus, Amount, Approval, ChangeRow, ClassRow, CredentialRow, DeniedRow, DestinationRow,
    DomainRow, Fate, FindingRow, LookalikeRow, PlaceRow, PolicyChange, PolicyRow, SecretRow, SessionRow,
    Totals, UploadRow,
};
pub use timeline::{Bucket, Timeline};

/// How many different things of one kind are told apart before the rest is only counted.
pub const TRACKED: usize = 10_000;

/// The whole report. Keys stand in this order; all numbers are raw, all times RFC 3339, UTC.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Number of this shape.
    pub report: u32,
    /// Version of the program that wrote it.
    pub version: String,
    /// When it was written.
    pub generated: Moment,
    /// What was asked for.
    pub scope: Scope,
    /// What was found of it; `None` where nothing was.
    pub period: Option<Period>,
    /// It all, in one sentence.
    pub verdict: String,
    /// All requests together.
    pub totals: Totals,
    /// Sessions that were going on in the period, the latest first.
    pub sessions: Listed<SessionRow>,
    /// Agents that asked for something, the most active first.
    pub agents: Listed<AgentRow>,
    /// Requests and bytes over time.
    pub timeline: Timeline,
    /// What was reached: class, then service, or domain where it has none.
    pub reached: Vec<ClassRow>,
    /// Where bytes went, the most first.
    pub destinations: Listed<DestinationRow>,
    /// What was refused, the most frequent first.
    pub denied: Listed<DeniedRow>,
    /// What was only observed: enforcing would have refused it.
    pub would_be_denied: Listed<DeniedRow>,
    /// What people answered.
    pub approvals: Listed<Approval>,
    /// Secrets where they do not belong.
    pub secrets: Listed<SecretRow>,
    /// Services' own credentials, in their places.
    pub credentials: Listed<CredentialRow>,
    /// Uploads over a limit.
    pub uploads: Listed<UploadRow>,
    /// Findings by kind, all kinds that were found.
    pub findings: Vec<FindingRow>,
    /// Hosts that look like others.
    pub lookalikes: Listed<LookalikeRow>,
    /// Unknown domains of which there is no record before the period.
    pub new_domains: Listed<DomainRow>,
    /// Policies that requests were decided by.
    pub policies: Listed<PolicyRow>,
    /// When a policy came into force.
    pub policy_changes: Listed<PolicyChange>,
    /// What happened to the gateway, its settings and its agents.
    pub changes: Listed<ChangeRow>,
    /// Whether the records read for this are those that were written; `None` where there were none to check.
    pub chain: Option<ChainStatus>,
}

/// Number of the shape of [`Report`] as JSON.
pub(crate) const SHAPE: u32 = 1;

/// What was asked for. Everything that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// Only this session.
    pub session: Option<SessionId>,
    /// Only this agent.
    pub agent: Option<AgentName>,
    /// Decided at or after.
    pub since: Option<Moment>,
    /// Decided at or before.
    pub until: Option<Moment>,
}

/// From where to where the records reach that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Period {
    /// The first decision.
    pub first: Moment,
    /// The last one.
    pub last: Moment,
    /// Number of the first record.
    pub first_seq: u64,
    /// Number of the last one, outcomes included as far as they are known.
    pub last_seq: u64,
}

/// Rows, and how much is counted elsewhere but has no row here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// How many requests (or events, sessions, domains: whatever a row is made of) are in none of the rows, because
    /// there were too many different ones to tell them all apart.
    pub omitted: u64,
}

impl<T> Listed<T> {
    /// Nothing at all.
    pub fn empty() -> Listed<T> {
        Listed { rows: Vec::new(), omitted: 0 }
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.omitted == 0
    }
}

/// A time: microseconds since the Unix epoch, written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

impl Moment {
    /// The time of a decision, which records show as text.
    pub(crate) fn of(text: &str) -> Moment {
        Moment(text.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_microsecond))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// Whether records are those that were written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainStatus {
    /// The first record that was checked.
    pub checked_from: u64,
    /// The last one.
    pub checked_through: u64,
    /// How many were found to be right.
    pub records: u64,
    /// Whether all were.
    pub intact: bool,
    /// What is wrong with the first that is not.
    pub problem: Option<String>,
    /// Checkpoints among them.
    pub checkpoints: u64,
    /// The newest checkpoint of all.
    pub last_checkpoint: Option<CheckpointSeen>,
}

/// A checkpoint, as far as a report names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointSeen {
    /// The last record it speaks of.
    pub through: u64,
    /// When it was made.
    pub time: Moment,
    /// The key it is signed with, in hexadecimal.
    pub key: String,
}

impl Report {
    /// It all in one sentence: what was asked for, what was refused, what was found, whether it can be believed.
    pub(crate) fn told(&self) -> String {
        let totals = &self.totals;
        if totals.requests == 0 {
            return format!("No request was recorded; {}.", self.record_words());
        }
        let at_least = if totals.destinations as usize >= TRACKED { "at least " } else { "" };
        let destinations = count(totals.destinations, "destination");
        let mut parts = vec![format!("{} to {at_least}{destinations}", count(totals.requests, "request"))];
        parts.push(match totals.denied {
            0 => "none denied".to_owned(),
            denied => format!("{denied} denied"),
        });
        for (number, words) in [
            (totals.held, "still held"),
            (totals.would_be_denied, "let through that enforcing would deny"),
            (totals.secrets_stopped, "secret{s} stopped"),
            (totals.secrets - totals.secrets_stopped, "secret{s} masked or only recorded"),
            (totals.uploads_over_limits, "upload{s} over a limit"),
        ] {
            if number > 0 {
                let plural = if number == 1 { "" } else { "s" };
                parts.push(format!("{number} {}", words.replace("{s}", plural)));
            }
        }
        format!("{}; {}.", parts.join("; "), self.record_words())
    }

    fn record_words(&self) -> &'static str {
        match &self.chain {
            None => "no record to check",
            Some(chain) if chain.intact => "record intact",
            Some(_) => "the record is NOT intact",
        }
    }
}

fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}
