//! What another policy would have said to recorded requests: the same, something else, or nobody can tell.
//!
//! The question is put to [`Policy::decide`], with the request as far as the record has it and with what the agent
//! had sent before, counted from the record. What was found after the decision (a secret, an upload cut short, an
//! address) is then held against what the candidate says about those. What no policy decides (identity, framing,
//! limits of the gateway, upstreams that fail) is the same under every policy.

use std::sync::Arc;

use serde::Serialize;
use ulid::Ulid;

use crate::catalogue::registrable_domain;
use crate::decide::{Grants, LookUp, Policy};
use crate::observed::{Observed, SeenPath};
use crate::record::Finding;
use crate::request::{Kind, Request};
use crate::target::{Scheme, Target};
use crate::usage::Ledger;
use crate::verdict::{Action, Judgement, Permit, Reason, SecretAction, UploadLimits, Verdict};

/// Pairs of agent and domain whose windows are counted apart.
const WINDOWS: usize = 100_000;

/// Puts recorded requests to a candidate, in the order in which they were decided.
#[derive(Debug)]
pub struct Replay<'p> {
    policy: &'p Policy,
    grants: Grants,
    /// Whether the addresses on record are those of the destinations, and not of a proxy before them.
    addresses: bool,
    ledger: Ledger,
}

/// What a candidate says to a recorded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// What was done.
    Same,
    /// Something else.
    Flip(Flip),
    /// The record lacks what it would ask.
    CannotTell(Lack),
}

/// A recorded decision that the candidate would take otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flip {
    /// The decision.
    pub decision: Ulid,
    /// What was done.
    pub from: Action,
    /// What would be done.
    pub to: Action,
    /// Why it would be.
    pub reason: Reason,
    /// By which rule.
    pub rule: Option<Arc<str>>,
}

/// What a record lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// The destination, which could not be parsed or was redacted.
    Destination,
    /// The path, some of which was redacted or cut.
    Path,
    /// The requests inside a tunnel that was not read.
    Requests,
    /// How much the request would have sent.
    Size,
    /// What the agent would have sent lately.
    Usage,
    /// The address that the name resolved to.
    Address,
    /// Whether the secret could be masked.
    Masking,
}

impl Lack {
    /// What is lacking, in words that end "the record does not have …".
    pub fn words(self) -> &'static str {
        match self {
            Lack::Destination => "the destination as it was written",
            Lack::Path => "the whole path, which was redacted or cut",
            Lack::Requests => "the requests inside a tunnel that was not read",
            Lack::Size => "how much would have been sent",
            Lack::Usage => "what the agent would have sent lately",
            Lack::Address => "the address that the name resolved to",
            Lack::Masking => "whether the secret could be masked",
        }
    }
}

/// An answer of the candidate, before it is compared.
struct Answer {
    action: Action,
    reason: Reason,
    rule: Option<Arc<str>>,
}

impl<'p> Replay<'p> {
    /// Asks `policy`. `grants` holds the services of the host that are open to fences; `addresses` says that requests
    /// were not sent through another proxy.
    pub fn new(policy: &'p Policy, grants: Grants, addresses: bool) -> Replay<'p> {
        let ledger = Ledger::new(policy.window_seconds(), WINDOWS);
        Replay { policy, grants, addresses, ledger }
    }

    /// What the candidate says to the next recorded request.
    pub fn judge(&mut self, seen: &Observed) -> Said {
        if !is_up_to_policy(seen) {
            return Said::Same;
        }
        let Some(target) = seen.target() else { return Said::CannotTell(Lack::Destination) };
        let answer = match seen.kind {
            Kind::Dns => Ok(self.look_up(seen, &target)),
            _ => self.decide(seen, &target),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(lack) => return Said::CannotTell(lack),
        };
        if answer.action != Action::Deny {
            let domain = registrable_domain(&target.host);
            self.ledger.charge(&seen.agent, domain, seen.request_bytes.unwrap_or(0), seen.time);
        }
        let from = done(seen);
        if from == answer.action {
            return Said::Same;
        }
        Said::Flip(Flip {
            decision: seen.id,
            from,
            to: answer.action,
            reason: answer.reason,
            rule: answer.rule,
        })
    }

    fn look_up(&self, seen: &Observed, target: &Target) -> Answer {
        match self.policy.look_up(&seen.agent, &target.host, false) {
            LookUp::Answered(judgement) => Answer { action: Action::Allow, ..Answer::of(&judgement) },
            LookUp::Refused(denial) => Answer::of(&denial.judgement),
        }
    }

    fn decide(&mut self, seen: &Observed, target: &Target) -> Result<Answer, Lack> {
        let asks = self.policy.asks(&seen.agent, target);
        let passes = target.scheme == Scheme::Https && self.policy.passthrough(target);
        let unread = seen.kind == Kind::Connect;
        if unread && !passes && (asks.methods || asks.paths) {
            return Err(Lack::Requests);
        }
        let path = match seen.seen_path() {
            SeenPath::Plain(path) => Some(path),
            SeenPath::Hidden if asks.paths && !passes => return Err(Lack::Path),
            SeenPath::Hidden | SeenPath::None => None,
        };
        let tunnel = unread || passes;
        let request = Request {
            agent: &seen.agent,
            kind: if tunnel { Kind::Connect } else { seen.kind },
            target,
            method: if tunnel { "" } else { seen.method.as_deref().unwrap_or_default() },
            path: if tunnel { None } else { path.as_ref() },
            upload: size(seen).unwrap_or(0),
            observe: false,
        };
        let usage = self.ledger.usage(&seen.agent, registrable_domain(&target.host), seen.time);
        let verdict = self.policy.decide(&request, &usage, &self.grants, seen.time);
        match &verdict {
            Verdict::Deny(_) => Ok(Answer::of(verdict.judgement())),
            Verdict::Ask(question) => Ok(answered(seen, &question.judgement)),
            Verdict::Allow(permit) => self.content(seen, permit, asks.sizes),
        }
    }

    /// What would be found after the request was allowed.
    fn content(&self, seen: &Observed, permit: &Permit, limited: bool) -> Result<Answer, Lack> {
        let allowed = Answer::of(permit.judgement());
        let denied = |reason| Answer { action: Action::Deny, reason, rule: allowed.rule.clone() };
        if self.address(seen, permit.target())? == Judged::Forbidden {
            return Ok(denied(Reason::AddressForbidden));
        }
        if !permit.enforces() {
            return Ok(allowed);
        }
        if has_secret(seen) {
            match permit.secrets() {
                SecretAction::Block => return Ok(denied(Reason::SecretFound)),
                SecretAction::Mask if stopped_by(seen, &[Reason::SecretFound]) => return Err(Lack::Masking),
                SecretAction::Mask | SecretAction::Alert => {}
            }
        }
        match too_much(seen, permit.limits())? {
            Some(reason) => Ok(denied(reason)),
            None if limited && size(seen).is_none() => Err(Lack::Size),
            None => Ok(allowed),
        }
    }

    fn address(&self, seen: &Observed, target: &Target) -> Result<Judged, Lack> {
        let literal = target.host.ip().map(|ip| (ip, target.port));
        let dialled = seen.upstream.filter(|_| self.addresses).map(|at| (at.ip(), at.port()));
        match literal.or(dialled) {
            Some((ip, port)) if self.policy.addresses().judge(ip, port).is_err() => Ok(Judged::Forbidden),
            // On record is the one that was refused; the name may have had others.
            _ if literal.is_none() && seen.reason == Reason::AddressForbidden => Err(Lack::Address),
            _ => Ok(Judged::Fine),
        }
    }
}

#[derive(PartialEq)]
enum Judged {
    Fine,
    Forbidden,
}

impl Answer {
    fn of(judgement: &Judgement) -> Answer {
        let Judgement { action, reason, rule, .. } = judgement;
        Answer { action: *action, reason: *reason, rule: rule.clone() }
    }
}

/// Whether another policy could have said something else. What no policy decides comes before it, or is not about it.
fn is_up_to_policy(seen: &Observed) -> bool {
    match seen.reason {
        Reason::AuthorityMismatch
        | Reason::ProtocolRefused
        | Reason::ClientTlsFailed
        | Reason::IdentityRequired
        | Reason::IdentityUnknown
        | Reason::IdentityExpired
        | Reason::MalformedRequest
        | Reason::AuditUnavailable
        | Reason::Overloaded => false,
        // Inside a fence nobody serves other ports, whatever the policy says.
        Reason::PortRefused => seen.kind != Kind::Tcp,
        _ => true,
    }
}

/// What was done, upstreams that failed apart.
fn done(seen: &Observed) -> Action {
    match seen.reason {
        Reason::UpstreamUnreachable
        | Reason::UpstreamTlsFailed
        | Reason::UpstreamTimeout
        | Reason::NameNotFound => seen.decided,
        _ => seen.action,
    }
}

/// A question that a person answered is answered the same; another one is open.
fn answered(seen: &Observed, question: &Judgement) -> Answer {
    let same = seen.rule.as_deref() == question.rule.as_deref();
    match seen.reason {
        Reason::AllowedByApproval if same => {
            Answer { action: Action::Allow, reason: seen.reason, rule: question.rule.clone() }
        }
        Reason::ApprovalDenied | Reason::ApprovalTimeout | Reason::ApprovalUnattended if same => {
            Answer { action: Action::Deny, reason: seen.reason, rule: question.rule.clone() }
        }
        _ => Answer::of(question),
    }
}

fn has_secret(seen: &Observed) -> bool {
    seen.found(|finding| matches!(finding, Finding::Secret { .. }))
        || stopped_by(seen, &[Reason::SecretFound])
}

/// Whether one of these reasons stopped the request, or would have.
fn stopped_by(seen: &Observed, reasons: &[Reason]) -> bool {
    reasons.contains(&seen.reason) || seen.would_reason.is_some_and(|reason| reasons.contains(&reason))
}

/// Bytes that the request sent, or would have; `None` where that is not on record.
fn size(seen: &Observed) -> Option<u64> {
    let declared = seen.findings.iter().find_map(|finding| match finding {
        Finding::LargeUpload { bytes, of, .. } if of.starts_with("request_") => Some(*bytes),
        _ => None,
    });
    let sent = seen.request_bytes.filter(|bytes| *bytes > 0);
    let bodyless = matches!(seen.method.as_deref(), Some("GET" | "HEAD" | "OPTIONS"));
    sent.max(declared).or(bodyless.then_some(0))
}

/// Whether an upload that was stopped would be stopped again.
fn too_much(seen: &Observed, limits: &UploadLimits) -> Result<Option<Reason>, Lack> {
    if seen.action == Action::Allow {
        // All of it left, and all of it was put to the decision.
        return Ok(None);
    }
    let reason = seen.reason;
    if !matches!(reason, Reason::UploadTooLarge | Reason::UploadWindowExceeded) {
        return Ok(None);
    }
    let counted = seen.findings.iter().find_map(|finding| match finding {
        Finding::LargeUpload { bytes, of, .. } if of.ends_with("_block") || of.ends_with("_agent") => {
            Some((*bytes, &**of))
        }
        _ => None,
    });
    let (bytes, limit) = match counted {
        Some((bytes, "request_block")) => (bytes, limits.request_block),
        Some((bytes, "window_block")) => (bytes, limits.window_block),
        Some((bytes, "window_block_agent")) => (bytes, limits.window_block_agent),
        _ => return Err(Lack::Size),
    };
    if bytes > limit {
        return Ok(Some(reason));
    }
    match reason {
        Reason::UploadWindowExceeded => Err(Lack::Usage),
        // Stopped on its way: nobody knows how far it would have gone.
        _ if seen.request_bytes.unwrap_or(0) > 0 => Err(Lack::Size),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
