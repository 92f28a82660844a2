//! One decision, rule by rule: what `policy explain` and the console show.

use std::sync::Arc;

use serde::Serialize;

use super::{Grants, Policy};
use crate::request::Request;
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
            allow_with,
        }
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
