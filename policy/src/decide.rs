//! The decision: [`Policy::decide`] is the only one there is, for every protocol, for `explain` and for `replay`.
//!
//! Of all rules that match, those that enforce decide first and the strictest wins; where none enforces, a rule
//! that only observes lets the request pass and says what it would do; where none matches at all, the default of
//! the class decides. Limits on uploads are judged after that, before anybody is asked.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalogue::{Classified, ServiceId, encoded_label};
use crate::document::{Approval, Document};
use crate::identity::AgentName;
use crate::record::Finding;
use crate::request::{Kind, Request};
use crate::rule::Rule;
use crate::target::{Host, Target};
use crate::usage::Usage;
use crate::verdict::{
    Action, Class, Denial, Judgement, Mode, Permit, Question, Reason, UploadLimits, Verdict,
};

mod asks;
mod explain;
mod grants;
mod index;
mod look_up;
mod policy;

pub use asks::Asks;
pub use explain::{Explanation, Match, Near};
pub use grants::{Grant, Grants, Holder, Methods, Point};
pub use look_up::LookUp;

use index::{Index, Ports, Reading};

/// A policy ready to decide.
#[derive(Clone, Debug)]
pub struct Policy {
    document: Document,
    index: Index,
    passthrough: Index,
    known: Index,
    /// Standing answers, by host.
    approved: HashMap<Host, Vec<Approval>>,
    /// Names of services as records share them.
    service_names: HashMap<ServiceId, Arc<str>>,
    digest: Arc<str>,
}

/// Whether a destination can be reached at all, before the request is seen.
#[derive(Debug)]
pub enum Reach {
    /// No rule could allow or ask any request there.
    Never(Denial),
    /// Some request there may pass.
    Possible,
}

impl Policy {
    /// Decides about one request.
    ///
    /// `usage` is what its agent uploaded before it, `grants` are the answers that people gave to this agent and
    /// session, `now` is in microseconds since the Unix epoch.
    pub fn decide(&self, request: &Request<'_>, usage: &Usage, grants: &Grants, now: i64) -> Verdict {
        let place = self.place(request.target);
        let matching = self.matching(request, &place);
        self.verdict(request, usage, grants, now, &place, &matching)
    }

    /// Whether any request of an agent to a destination could pass.
    ///
    /// The scheme of the target does not matter: what a tunnel carries is not known before its first bytes.
    pub fn reach(&self, agent: &AgentName, target: &Target) -> Reach {
        let place = self.place(target);
        let ruling = self.widest(agent, target, &place);
        if ruling.action != Action::Deny || self.document.mode == Mode::Observe {
            return Reach::Possible;
        }
        Reach::Never(self.denial(&ruling, target, self.judgement(&ruling, target, &place)))
    }

    /// The most that the rules could say to any request of an agent to a destination.
    fn widest(&self, agent: &AgentName, target: &Target, place: &Classified<'_>) -> Ruling {
        let (mut passes, mut stopped) = (None, None);
        self.index.each(&target.host, place, |entry, reading| {
            let rule = self.rule(entry.id);
            let about = rule.matches_agent(agent) && entry.ports.may_contain(target, place.service);
            if !about || (reading == Reading::Embedded && rule.action == Action::Allow) {
                return;
            }
            if rule.observe || rule.action != Action::Deny {
                passes = min_id(passes, entry.id);
            } else if rule.is_unconditional() {
                stopped = min_id(stopped, entry.id);
            }
        });
        let allow = |reason, rule| Ruling { action: Action::Allow, reason, rule };
        match (stopped, passes) {
            (Some(_), _) => Ruling { action: Action::Deny, reason: Reason::DeniedByRule, rule: stopped },
            (None, Some(id)) if self.rule(id).observe => allow(Reason::AllowedByObserve, passes),
            (None, Some(_)) => allow(Reason::AllowedByRule, passes),
            (None, None) if *self.document.defaults.of(place.class) == Action::Deny => {
                self.denied_by_default(agent, target, place)
            }
            (None, None) => allow(Reason::AllowedByDefault, None),
        }
    }

    fn place(&self, target: &Target) -> Classified<'_> {
        self.document.catalogue.classify(&target.host, target.port)
    }

    fn rule(&self, id: u32) -> &Rule {
        &self.document.rules[id as usize]
    }
}

/// What the rules say to one request. Of several rules the one with the smallest name is kept, so that neither
/// the order of files nor that of lines shows in a record.
#[derive(Clone, Copy, Debug, Default)]
struct Matching {
    enforced: ByAction,
    observed: ByAction,
}

#[derive(Clone, Copy, Debug, Default)]
struct ByAction {
    allow: Option<u32>,
    ask: Option<u32>,
    deny: Option<u32>,
}

/// One answer of the policy: what, why and by which rule.
#[derive(Clone, Copy, Debug)]
struct Ruling {
    action: Action,
    reason: Reason,
    rule: Option<u32>,
}

impl Policy {
    /// Calls `found` with every rule that matches, some of them more than once.
    fn each_match(&self, request: &Request<'_>, place: &Classified<'_>, mut found: impl FnMut(u32, &Rule)) {
        self.each_about(request.target, place, |id, rule| {
            if rule.matches(request) {
                found(id, rule);
            }
        });
    }

    /// Calls `found` with every rule about the destination, whatever else it asks of a request.
    fn each_about(&self, target: &Target, place: &Classified<'_>, mut found: impl FnMut(u32, &Rule)) {
        self.index.each(&target.host, place, |entry, reading| {
            let rule = self.rule(entry.id);
            let stops = rule.action != Action::Allow;
            if (reading == Reading::Plain || stops) && entry.ports.contain(target, place.service) {
                found(entry.id, rule);
            }
        });
    }

    fn matching(&self, request: &Request<'_>, place: &Classified<'_>) -> Matching {
        let mut matching = Matching::default();
        self.each_match(request, place, |id, rule| {
            let by_action = if rule.observe { &mut matching.observed } else { &mut matching.enforced };
            let kept = match rule.action {
                Action::Allow => &mut by_action.allow,
                Action::Ask => &mut by_action.ask,
                Action::Deny => &mut by_action.deny,
            };
            *kept = min_id(*kept, id);
        });
        matching
    }

    fn verdict(
        &self,
        request: &Request<'_>,
        usage: &Usage,
        grants: &Grants,
        now: i64,
        place: &Classified<'_>,
        matching: &Matching,
    ) -> Verdict {
        let target = request.target;
        let answered = |rule: u32| self.is_answered(request, rule, grants, now);
        let observes = matching.enforced.is_empty() && !matching.observed.is_empty();
        let forwarded = matching.is_empty() && request.kind == Kind::Tcp && grants.forward(request.target);
        let mut ruling = if observes {
            self.strictest(request, place, &matching.observed, true, &answered)
        } else if forwarded {
            Ruling { action: Action::Allow, reason: Reason::AllowedByRule, rule: None }
        } else if matching.enforced.is_empty() {
            self.default_ruling(request, place, grants, now)
        } else {
            self.strictest(request, place, &matching.enforced, false, &answered)
        };
        let limits = self.limits(request, place);
        let mut large = None;
        if ruling.action != Action::Deny
            && let Some((reason, finding)) = exceeded(&limits, usage, request.upload)
        {
            ruling = Ruling { action: Action::Deny, reason, rule: ruling.rule };
            large = Some(finding);
        }
        let mut judgement = self.judgement(&ruling, target, place);
        judgement.findings.extend(large);
        if forwarded {
            judgement.rule = Some(format!("forward \"{}:{}\"", target.host, target.port).into());
        }
        if observes || request.observe || self.document.mode == Mode::Observe {
            judgement.mode = Mode::Observe;
            observe(&mut judgement);
        } else if ruling.action == Action::Allow && !matching.observed.is_empty() {
            // A rule on trial: what it would do is recorded, what the others allow stays allowed.
            let trial = self.strictest(request, place, &matching.observed, true, &answered);
            if trial.action != Action::Allow {
                let would = self.judgement(&trial, target, place);
                judgement.rule = would.rule;
                judgement.would = Some((trial.action, trial.reason));
                judgement.reason = Reason::AllowedByObserve;
            }
        }
        match judgement.action {
            Action::Allow => {
                let secrets = self.secrets(place.class);
                Verdict::Allow(Permit::new(judgement, target.clone(), limits, secrets, grants.own().clone()))
            }
            Action::Ask => Verdict::Ask(Question { judgement, target: target.clone() }),
            Action::Deny => Verdict::Deny(self.denial(&ruling, target, judgement)),
        }
    }

    fn strictest(
        &self,
        request: &Request<'_>,
        place: &Classified<'_>,
        rules: &ByAction,
        observed: bool,
        answered: &impl Fn(u32) -> bool,
    ) -> Ruling {
        if rules.deny.is_some() {
            return Ruling { action: Action::Deny, reason: Reason::DeniedByRule, rule: rules.deny };
        }
        if rules.ask.is_some() {
            return self.asked(request, place, observed, answered);
        }
        Ruling { action: Action::Allow, reason: Reason::AllowedByRule, rule: rules.allow }
    }

    /// Several rules may ask: each wants its own answer, and the first without one is the question.
    fn asked(
        &self,
        request: &Request<'_>,
        place: &Classified<'_>,
        observed: bool,
        answered: &impl Fn(u32) -> bool,
    ) -> Ruling {
        let (mut open, mut closed) = (None, None);
        self.each_match(request, place, |id, rule| {
            if rule.action == Action::Ask && rule.observe == observed {
                let kept = if answered(id) { &mut closed } else { &mut open };
                *kept = min_id(*kept, id);
            }
        });
        match open {
            Some(_) => Ruling { action: Action::Ask, reason: Reason::ApprovalUnattended, rule: open },
            None => Ruling { action: Action::Allow, reason: Reason::AllowedByApproval, rule: closed },
        }
    }

    fn default_ruling(
        &self,
        request: &Request<'_>,
        place: &Classified<'_>,
        grants: &Grants,
        now: i64,
    ) -> Ruling {
        let approved = Ruling { action: Action::Allow, reason: Reason::AllowedByApproval, rule: None };
        match self.document.defaults.of(place.class) {
            Action::Allow => Ruling { action: Action::Allow, reason: Reason::AllowedByDefault, rule: None },
            Action::Ask if grants.cover(request, &Point::Default, now) => approved,
            Action::Ask | Action::Deny if grants.cover(request, &Point::Refused, now) => approved,
            Action::Ask => Ruling { action: Action::Ask, reason: Reason::ApprovalUnattended, rule: None },
            Action::Deny => self.denied_by_default(request.agent, request.target, place),
        }
    }

    fn denied_by_default(&self, agent: &AgentName, target: &Target, place: &Classified<'_>) -> Ruling {
        let reason = if self.is_allowed_on_another_port(agent, target, place) {
            Reason::PortRefused
        } else if place.class == Class::Unknown {
            Reason::UnknownDestination
        } else {
            Reason::DeniedByDefault
        };
        Ruling { action: Action::Deny, reason, rule: None }
    }

    fn is_allowed_on_another_port(&self, agent: &AgentName, target: &Target, place: &Classified<'_>) -> bool {
        let (mut here, mut elsewhere) = (false, false);
        self.index.each(&target.host, place, |entry, reading| {
            let rule = self.rule(entry.id);
            if rule.action == Action::Allow && reading == Reading::Plain && rule.matches_agent(agent) {
                let contains = entry.ports.contain(target, place.service);
                here |= contains;
                elsewhere |= !contains;
            }
        });
        // Allowed on this port for other requests: then the port is not what is wrong.
        elsewhere && !here
    }

    /// Whether the question of a rule has been answered with yes.
    fn is_answered(&self, request: &Request<'_>, rule: u32, grants: &Grants, now: i64) -> bool {
        let name = &self.rule(rule).name;
        if grants.cover(request, &Point::Rule(Arc::clone(name)), now) {
            return true;
        }
        self.approved.get(&request.target.host).into_iter().flatten().any(|approval| {
            approval.rule == *name
                && approval.agent == *request.agent
                && Ports::written(approval.port).contain(request.target, None)
        })
    }

    /// The class's limits, changed by the rules that let the request pass: loosened by one that stands alone,
    /// tightened by several.
    fn limits(&self, request: &Request<'_>, place: &Classified<'_>) -> UploadLimits {
        let class = self.document.uploads.of(place.class);
        let (mut tightened, mut replaced) = (*class, *class);
        let (mut first, mut alone) = (None, true);
        self.each_match(request, place, |id, rule| {
            if rule.action == Action::Deny {
                return;
            }
            alone &= first.is_none_or(|first| first == id);
            first = Some(id);
            rule.uploads.tighten(&mut tightened);
            rule.uploads.replace(&mut replaced);
        });
        if alone { replaced } else { tightened }
    }

    fn judgement(&self, ruling: &Ruling, target: &Target, place: &Classified<'_>) -> Judgement {
        Judgement {
            action: ruling.action,
            reason: ruling.reason,
            class: place.class,
            service: place.service.and_then(|service| self.service_names.get(&service.id)).cloned(),
            rule: ruling.rule.map(|id| self.rule(id).name.clone()),
            mode: self.document.mode,
            would: None,
            findings: self.findings(&target.host, place),
        }
    }

    fn findings(&self, host: &Host, place: &Classified<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if place.class == Class::Unknown {
            if let Some(like) = self.document.catalogue.look_alike(host) {
                findings.push(Finding::LookalikeDomain { of: like.of.as_str().into() });
            }
            if encoded_label(host) {
                findings.push(Finding::EncodedDataInName);
            }
        }
        findings
    }

    fn denial(&self, ruling: &Ruling, target: &Target, judgement: Judgement) -> Denial {
        // Where a rule stops the request, another entry of the allowlist would not change that.
        let helps = matches!(
            ruling.reason,
            Reason::UnknownDestination | Reason::DeniedByDefault | Reason::PortRefused
        );
        Denial { judgement, allow_with: helps.then(|| target.authority_to_allow()) }
    }
}

impl Matching {
    fn is_empty(&self) -> bool {
        self.enforced.is_empty() && self.observed.is_empty()
    }
}

impl ByAction {
    fn is_empty(&self) -> bool {
        self.allow.is_none() && self.ask.is_none() && self.deny.is_none()
    }
}

impl Target {
    /// What has to stand in `allow` for this destination.
    pub fn authority_to_allow(&self) -> String {
        if Ports::Standard.contain(self, None) {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn min_id(kept: Option<u32>, id: u32) -> Option<u32> {
    Some(kept.map_or(id, |kept| kept.min(id)))
}

/// Turns what would be stopped into what is let through and recorded.
fn observe(judgement: &mut Judgement) {
    if judgement.action != Action::Allow {
        judgement.would = Some((judgement.action, judgement.reason));
        judgement.action = Action::Allow;
        judgement.reason = Reason::AllowedByObserve;
    }
}

/// The first limit that the bytes known to leave would pass.
fn exceeded(limits: &UploadLimits, usage: &Usage, upload: u64) -> Option<(Reason, Finding)> {
    let checks = [
        (upload, limits.request_block, "request_block", Reason::UploadTooLarge),
        (
            usage.domain.saturating_add(upload),
            limits.window_block,
            "window_block",
            Reason::UploadWindowExceeded,
        ),
        (
            usage.agent.saturating_add(upload),
            limits.window_block_agent,
            "window_block_agent",
            Reason::UploadWindowExceeded,
        ),
    ];
    let (bytes, limit, of, reason) = checks.into_iter().find(|(bytes, limit, ..)| bytes > limit)?;
    Some((reason, Finding::LargeUpload { bytes, limit, of: of.into() }))
}
