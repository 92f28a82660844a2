//! From what was observed to a policy: the smallest allowlist that covers what was wanted, with its evidence.
//!
//! A [`Suggester`] is told every recorded decision and keeps a bounded summary. What looks wrong is sieved out first
//! (`sieve`). What is left is covered by services before hosts, by hosts before wildcards, and narrowed to methods and
//! paths where the traffic was narrow (`shape`). Whatever else the policy in force says (its questions, denials,
//! limits, addresses) stays, and the result is asked about each thing left out, so that no service brings one back in.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde::Serialize;

use crate::decide::Policy;
use crate::identity::SessionId;
use crate::observed::Observed;
use crate::report::Moment;
use crate::request::Kind as Exchange;
use crate::rule::Destination;
use crate::target::Host;
use crate::verdict::{Action, Class, Reason};
use crate::view::PROBED_HOST;

mod print;
mod shape;
mod sieve;
mod traffic;

pub use sieve::{Why, warning};

use traffic::Traffic;

/// Destinations that are told apart; what comes after is counted as left out.
const DESTINATIONS: usize = 10_000;
/// Things left out that are told apart.
const LEFT_OUT: usize = 1_000;
/// Sessions of one line that are counted; more are as good as many.
const SESSIONS: usize = 10_000;

/// Is told what was observed, and suggests.
#[derive(Debug)]
pub struct Suggester<'p> {
    policy: &'p Policy,
    wanted: BTreeMap<Place, Traffic>,
    left_out: BTreeMap<(String, Why), Omission>,
    refused: BTreeMap<Place, Tally>,
    overlooked: u64,
    all: Tally,
}

/// A destination as an entry of a policy could name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    host: Host,
    /// `None` for https on 443 and http on 80.
    port: Option<u16>,
}

#[derive(Clone, Debug, Default)]
struct Omission {
    tally: Tally,
    /// A destination that it is about, for the last check.
    place: Option<Place>,
}

/// Counts, as they come in.
#[derive(Clone, Debug, Default)]
struct Tally {
    requests: u64,
    request_bytes: u64,
    sessions: HashSet<SessionId>,
    agents: BTreeSet<Arc<str>>,
    span: Option<(i64, i64)>,
}

/// What an entry rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Requests.
    pub requests: u64,
    /// Bytes that left with them.
    pub request_bytes: u64,
    /// Sessions they belonged to.
    pub sessions: u64,
    /// Agents that sent them.
    pub agents: Vec<Arc<str>>,
    /// The first.
    pub first: Option<Moment>,
    /// The last.
    pub last: Option<Moment>,
}

/// One entry of the suggested policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The entry: `@service`, a host, a wildcard; with a port where it is not the usual one.
    pub to: Destination,
    /// Methods it is narrowed to; empty for all.
    pub methods: Vec<String>,
    /// Paths it is narrowed to; empty for all.
    pub paths: Vec<String>,
    /// The hosts that were seen, ten at most.
    pub hosts: Vec<Host>,
    /// Class of the destination.
    pub class: Class,
    /// What it rests on.
    pub evidence: Evidence,
    /// What whoever allows it should know.
    pub risks: Vec<String>,
}

/// Something that was seen and is not suggested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// What: a host, or a domain where several names of it are meant.
    pub what: String,
    /// The word for why.
    pub why: &'static str,
    /// Why, in words.
    pub words: String,
    /// What was seen of it.
    pub evidence: Evidence,
}

/// A policy that covers what was wanted, and what it does not cover.
#[derive(Clone, Debug, Serialize)]
pub struct Suggestion {
    /// Its entries that allow.
    pub lines: Vec<Line>,
    /// Hosts of suggested services that are denied, because they were left out.
    pub denied: Vec<Destination>,
    /// What looked wrong.
    pub left_out: Vec<LeftOut>,
    /// What the policy in force refused for no rule of its own: nobody knows whether it was wanted.
    pub refused: Vec<LeftOut>,
    /// Requests to more destinations than are told apart.
    pub overlooked: u64,
    /// Everything that was looked at.
    pub evidence: Evidence,
    /// The policy file.
    #[serde(skip)]
    pub text: String,
}

impl<'p> Suggester<'p> {
    /// Nothing observed yet. Of `policy`, the one in force, everything stays but what it allows.
    pub fn new(policy: &'p Policy) -> Suggester<'p> {
        Suggester {
            policy,
            wanted: BTreeMap::new(),
            left_out: BTreeMap::new(),
            refused: BTreeMap::new(),
            overlooked: 0,
            all: Tally::default(),
        }
    }

    /// Takes one decision in.
    pub fn add(&mut self, seen: &Observed) {
        // A name by itself asks for nothing; what connects to it is on record by itself.
        if seen.kind == Exchange::Dns && seen.action != Action::Deny {
            return;
        }
        if seen.host.as_deref() == Some(PROBED_HOST) {
            return;
        }
        self.all.add(seen);
        let place = seen.target().map(|target| Place::of(target.host, target.port, target.scheme));
        if let Some((what, why)) = sieve::left_out(self.policy.catalogue(), seen) {
            return self.leave_out(what, why, place, seen);
        }
        let Some(place) = place else { return };
        if is_refused(seen) {
            if self.refused.len() < LEFT_OUT || self.refused.contains_key(&place) {
                self.refused.entry(place).or_default().add(seen);
            } else {
                self.overlooked += 1;
            }
        } else if self.wanted.len() < DESTINATIONS || self.wanted.contains_key(&place) {
            self.wanted.entry(place).or_default().add(seen);
        } else {
            self.overlooked += 1;
        }
    }

    fn leave_out(&mut self, what: String, why: Why, place: Option<Place>, seen: &Observed) {
        let key = (what, why);
        if self.left_out.len() >= LEFT_OUT && !self.left_out.contains_key(&key) {
            self.overlooked += 1;
            return;
        }
        let omission = self.left_out.entry(key).or_default();
        omission.tally.add(seen);
        omission.place = omission.place.take().or(place);
    }

    /// The suggestion.
    pub fn finish(self) -> Suggestion {
        let lines = shape::lines(&self);
        let told = |((what, why), omission): (&(String, Why), &Omission)| LeftOut {
            what: what.clone(),
            why: why.as_str(),
            words: why.words(),
            evidence: omission.tally.evidence(),
        };
        // A name that was found at other times is one.
        let exists = |(what, why): &(String, Why)| {
            *why != Why::NoSuchName || !self.wanted.keys().any(|place| place.host.as_str() == *what)
        };
        let left_out = self.left_out.iter().filter(|(key, _)| exists(key));
        let mut left_out: Vec<LeftOut> = left_out.map(told).collect();
        left_out.sort_by_key(|left| std::cmp::Reverse(left.evidence.requests));
        let refused = self.refused.iter().map(|(place, tally)| LeftOut {
            what: place.entry().to_string(),
            why: "refused",
            words: "refused for no rule".to_owned(),
            evidence: tally.evidence(),
        });
        let mut suggestion = Suggestion {
            lines,
            denied: Vec::new(),
            left_out,
            refused: refused.collect(),
            overlooked: self.overlooked,
            evidence: self.all.evidence(),
            text: String::new(),
        };
        suggestion.denied = shape::denied(&self, &suggestion);
        suggestion.text = print::text(self.policy.document(), &suggestion);
        suggestion
    }
}

/// What was refused because nothing allows it, or nobody answered.
fn is_refused(seen: &Observed) -> bool {
    seen.action != Action::Allow
        && matches!(
            seen.reason,
            Reason::UnknownDestination
                | Reason::DeniedByDefault
                | Reason::PortRefused
                | Reason::ApprovalTimeout
                | Reason::ApprovalUnattended
        )
}

impl Place {
    fn of(host: Host, port: u16, scheme: crate::target::Scheme) -> Place {
        Place { host, port: (port != scheme.default_port()).then_some(port) }
    }

    fn entry(&self) -> Destination {
        Destination { hosts: crate::rule::Hosts::One(self.host.clone()), port: self.port }
    }
}

impl Tally {
    fn add(&mut self, seen: &Observed) {
        self.requests += 1;
        self.request_bytes += seen.request_bytes.unwrap_or(0);
        if let Some(session) = seen.session
            && self.sessions.len() < SESSIONS
        {
            self.sessions.insert(session);
        }
        if !self.agents.contains(seen.agent.as_str()) {
            self.agents.insert(seen.agent.as_str().into());
        }
        let (first, last) = self.span.unwrap_or((seen.time, seen.time));
        self.span = Some((first.min(seen.time), last.max(seen.time)));
    }

    fn join(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.request_bytes += other.request_bytes;
        self.sessions.extend(&other.sessions);
        self.agents.extend(other.agents.iter().cloned());
        self.span = match (self.span, other.span) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            requests: self.requests,
            request_bytes: self.request_bytes,
            sessions: self.sessions.len() as u64,
            agents: self.agents.iter().cloned().collect(),
            first: self.span.map(|(first, _)| Moment(first)),
            last: self.span.map(|(_, last)| Moment(last)),
        }
    }
}

#[cfg(test)]
mod tests;
