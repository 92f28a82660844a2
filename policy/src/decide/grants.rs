//! What people said besides the policy: answers given while the gateway runs, and services of the host that the
//! operator opened to fences. Both are inputs to the decision, never permits by themselves.

use std::collections::HashMap;
use std::net::SocketAddr;
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
pub struct Grants {
    answers: HashMap<AgentName, Vec<Grant>>,
    forwards: Arc<[SocketAddr]>,
}

impl Grants {
    /// No answers.
    pub fn none() -> Grants {
        Grants::default()
    }

    /// With the services of the host that `[fence] forward` names.
    #[must_use]
    pub fn forwarding(self, forwards: Arc<[SocketAddr]>) -> Grants {
        Grants { forwards, ..self }
    }

    /// Whether the operator opened this address of the host to fences. That allows what no rule is about.
    pub fn forward(&self, target: &Target) -> bool {
        let address = target.host.ip().map(|ip| SocketAddr::new(ip, target.port));
        address.is_some_and(|address| self.forwards.contains(&address))
    }

    /// Adds an answer.
    pub fn insert(&mut self, grant: Grant) {
        self.answers.entry(grant.agent.clone()).or_default().push(grant);
    }

    /// Whether an answer covers what a rule (or the default, for `None`) asks at `now`.
    pub fn cover(&self, agent: &AgentName, target: &Target, rule: Option<&str>, now: i64) -> bool {
        self.answers.get(agent).into_iter().flatten().any(|grant| {
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
