//! One decision, rule by rule: what `policy explain` and the console show.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::{Grants, Policy};
use crate::address::{AddressClass, AddressRules};
use crate::request::Request;
use crate::target::Target;
use crate::usage::Usage;
use crate::verdict::{Action, Class, Judgement, Reason, UploadLimits, Verdict};

/// Why a request gets its answer.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What is done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Class of the destination.
    pub class: Class,
    /// Service of the destination.
    pub service: Option<Arc<str>>,
    /// The rule that decided.
    pub rule: Option<Arc<str>>,
    /// What enforcing would have done, where it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would: Option<Action>,
    /// Why enforcing would have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_reason: Option<Reason>,
    /// How much may leave.
    pub limits: UploadLimits,
    /// Every rule that matches, strictest first.
    pub matches: Vec<Match>,
    /// Every rule about the destination that is not about this request.
    #[serde(skip)]
    pub near: Vec<Near>,
    /// What would allow it, as arguments of `outgate policy allow`.
    #[serde(skip)]
    pub allow_with: Option<String>,
}

/// A rule that matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Match {
    /// Its name.
    pub rule: Arc<str>,
    /// What it does.
    pub action: Action,
    /// Whether it only records that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub observe: bool,
    /// The file it stands in.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
}

/// A rule about the destination, and why it is not about the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// Its name.
    pub rule: Arc<str>,
    /// What it does.
    pub action: Action,
    /// The file it stands in.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// What it is about, and what the request is instead: `GET, HEAD, not POST`.
    pub but: String,
}

impl Explanation {
    /// Takes in whether the address may be dialled, where the request names one: no name has to be resolved for that.
    pub fn judge_address(&mut self, target: &Target, addresses: &AddressRules) -> Option<AddressClass> {
        let class = addresses.judge(target.host.ip()?, target.port).err()?;
        if self.action != Action::Deny {
            (self.action, self.reason) = (Action::Deny, Reason::AddressForbidden);
            (self.would, self.would_reason) = (None, None);
        }
        Some(class)
    }
}

impl Policy {
    /// As [`Policy::decide`], with all rules that match.
    pub fn explain(&self, request: &Request<'_>, usage: &Usage, grants: &Grants, now: i64) -> Explanation {
        let verdict = self.decide(request, usage, grants, now);
        let allow_with = match &verdict {
            Verdict::Deny(denial) => denial.allow_with.clone(),
            _ => None,
        };
        let Judgement { action, reason, class, service, rule, would, .. } = verdict.judgement().clone();
        let place = self.place(request.target);
        Explanation {
            action,
            reason,
            class,
            service,
            rule,
            would: would.map(|(action, _)| action),
            would_reason: would.map(|(_, reason)| reason),
            limits: self.limits(request, &place),
            matches: self.matches(request),
            near: self.near(request),
            allow_with,
        }
    }

    fn near(&self, request: &Request<'_>) -> Vec<Near> {
        let place = self.place(request.target);
        let mut ids = BTreeSet::new();
        self.each_about(request.target, &place, |id, rule| {
            if !rule.matches(request) {
                ids.insert(id);
            }
        });
        let near = |id| {
            let rule = self.rule(id);
            let (file, line) = (rule.origin.file.clone(), rule.origin.line);
            Near { rule: rule.name.clone(), action: rule.action, file, line, but: rule.but(request) }
        };
        ids.into_iter().map(near).collect()
    }

    fn matches(&self, request: &Request<'_>) -> Vec<Match> {
        let place = self.place(request.target);
        let mut ids = Vec::new();
        self.each_match(request, &place, |id, _| ids.push(id));
        ids.sort_by_key(|id| (std::cmp::Reverse(self.rule(*id).action), *id));
        ids.dedup();
        let matched = |id| {
            let rule = self.rule(id);
            let (file, line) = (rule.origin.file.clone(), rule.origin.line);
            Match { rule: rule.name.clone(), action: rule.action, observe: rule.observe, file, line }
        };
        ids.into_iter().map(matched).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::document::Source;
    use crate::path::RequestPath;
    use crate::request::Kind;
    use crate::target::Scheme;

    fn explained(rules: &str, method: &str, host: &str, path: &str) -> Explanation {
        let source = Source { name: "policy.toml", text: &format!("version = 1\n{rules}") };
        let policy = Policy::parse(&[source], Catalogue::builtin()).unwrap();
        let target = Target::from_authority(Scheme::Http, host.as_bytes()).unwrap();
        let path = RequestPath::parse(path.as_bytes()).unwrap();
        let agent = "claude".parse().unwrap();
        let (kind, upload, observe) = (Kind::Http, 0, false);
        let request =
            Request { agent: &agent, kind, target: &target, method, path: Some(&path), upload, observe };
        let mut explanation = policy.explain(&request, &Usage::default(), &Grants::none(), 0);
        explanation.judge_address(&target, policy.addresses());
        explanation
    }

    #[test]
    fn rules_about_the_host_and_not_the_request_are_named_with_what_they_lack() {
        let rule =
            |more: &str| format!("[[rule]]\nname = \"r\"\naction = \"allow\"\nto = [\"a.test\"]\n{more}");
        for (more, but) in [
            ("methods = [\"GET\", \"HEAD\"]", "GET, HEAD, not POST"),
            ("paths = [\"/docs/**\"]", "/docs/**, not /upload"),
            ("agents = [\"ci-*\"]", "agents ci-*, not claude"),
            ("methods = [\"GET\"]\nagents = [\"ci-*\"]", "GET, not POST; agents ci-*, not claude"),
        ] {
            let explanation = explained(&rule(more), "POST", "a.test", "/upload");
            let near: Vec<_> =
                explanation.near.iter().map(|near| (&*near.rule, near.line, &*near.but)).collect();
            assert_eq!(near, [("r", 2, but)], "{more}");
            assert_eq!((explanation.action, explanation.reason), (Action::Deny, Reason::UnknownDestination));
        }
        assert_eq!(explained(&rule(""), "POST", "a.test", "/upload").near, []);
        assert_eq!(explained(&rule("methods = [\"GET\"]"), "POST", "b.test", "/upload").near, []);
    }

    #[test]
    fn an_address_that_may_not_be_dialled_is_not_said_to_be_allowed() {
        for (rules, host, action, reason) in [
            ("allow = [\"169.254.169.254\"]", "169.254.169.254", Action::Deny, Reason::AddressForbidden),
            ("mode = \"observe\"", "10.0.0.1", Action::Deny, Reason::AddressForbidden),
            ("", "10.0.0.1", Action::Deny, Reason::UnknownDestination),
            (
                "allow = [\"10.0.0.1\"]\n[addresses]\nallow = [\"10.0.0.1\"]",
                "10.0.0.1",
                Action::Allow,
                Reason::AllowedByRule,
            ),
            ("allow = [\"a.test\"]", "a.test", Action::Allow, Reason::AllowedByRule),
        ] {
            let explanation = explained(rules, "GET", host, "/");
            assert_eq!((explanation.action, explanation.reason), (action, reason), "{rules} {host}");
        }
    }
}
