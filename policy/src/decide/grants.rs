//! Answers that people gave while the gateway runs. A grant is an input to the decision, never a permit by itself.

use std::collections::HashMap;
use std::sync::Arc;

use crate::identity::AgentName;
use crate::target::Target;

/// One answer: this agent may reach this destination, as far as this rule asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The agent that asked.
    pub agent: AgentName,
    /// The destination that was asked about.
    pub target: Target,
    /// Name of the rule that asks; `None` for the default of the class.
    pub rule: Option<Arc<str>>,
    /// When it ends, in microseconds since the Unix epoch; `None` for as long as the caller keeps it.
    pub until: Option<i64>,
}

/// The answers that reach a request: those given to its agent, and to its session where they are for one.
#[derive(Clone, Debug, Default)]
pub struct Grants(HashMap<AgentName, Vec<Grant>>);

impl Grants {
    /// No answers.
    pub fn none() -> Grants {
        Grants::default()
    }

    /// Adds an answer.
    pub fn insert(&mut self, grant: Grant) {
        self.0.entry(grant.agent.clone()).or_default().push(grant);
    }

    /// Whether an answer covers what a rule (or the default, for `None`) asks at `now`.
    pub fn cover(&self, agent: &AgentName, target: &Target, rule: Option<&str>, now: i64) -> bool {
        self.0.get(agent).into_iter().flatten().any(|grant| {
            grant.target == *target
                && grant.rule.as_deref() == rule
                && grant.until.is_none_or(|until| now < until)
        })
    }
}

impl FromIterator<Grant> for Grants {
    fn from_iter<I: IntoIterator<Item = Grant>>(grants: I) -> Grants {
        let mut all = Grants::none();
        grants.into_iter().for_each(|grant| all.insert(grant));
        all
    }
}
