//! What the rules about a destination ask of a request: a record may not have it.

use super::Policy;
use crate::identity::AgentName;
use crate::target::Target;

/// What some rule about a destination asks, besides who and where to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// The method.
    pub methods: bool,
    /// The path.
    pub paths: bool,
    /// How much is sent, against a limit of its own.
    pub sizes: bool,
}

impl Policy {
    /// What the rules about a destination ask of an agent's request.
    pub fn asks(&self, agent: &AgentName, target: &Target) -> Asks {
        let place = self.place(target);
        let mut asks = Asks::default();
        self.index.each(&target.host, &place, |entry, _| {
            let rule = self.rule(entry.id);
            if rule.matches_agent(agent) && entry.ports.contain(target, place.service) {
                asks.methods |= !rule.methods.is_empty();
                asks.paths |= !rule.paths.is_empty();
                asks.sizes |= !rule.uploads.is_empty();
            }
        });
        asks
    }
}
