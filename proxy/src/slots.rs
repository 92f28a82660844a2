//! How many connections each agent has open, so that one cannot take every place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::identity::AgentName;

/// Open connections by agent.
#[derive(Clone)]
pub struct Slots {
    limit: usize,
    open: Arc<Mutex<HashMap<AgentName, usize>>>,
}

/// One open connection of an agent; given back when its last clone is dropped.
#[derive(Clone)]
pub struct Slot(#[expect(dead_code, reason = "held for its drop")] Arc<Held>);

struct Held {
    agent: AgentName,
    open: Arc<Mutex<HashMap<AgentName, usize>>>,
}

impl Slots {
    /// At most `limit` connections for each agent.
    pub fn new(limit: usize) -> Slots {
        Slots { limit, open: Arc::default() }
    }

    /// A slot for one more connection of `agent`, unless it has as many as it may.
    pub fn claim(&self, agent: &AgentName) -> Option<Slot> {
        let mut open = lock(&self.open);
        let count = open.entry(agent.clone()).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Slot(Arc::new(Held { agent: agent.clone(), open: Arc::clone(&self.open) })))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(count) = open.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.agent);
            }
        }
    }
}

fn lock(open: &Mutex<HashMap<AgentName, usize>>) -> MutexGuard<'_, HashMap<AgentName, usize>> {
    // Counts are whole after any panic.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_gets_its_share_and_no_more() {
        let slots = Slots::new(2);
        let (a, b): (AgentName, AgentName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = slots.claim(&a).unwrap();
        let _second = slots.claim(&a).unwrap();
        assert!(slots.claim(&a).is_none(), "its third");
        assert!(slots.claim(&b).is_some(), "another agent's first");
        let clone = first.clone();
        drop(first);
        assert!(slots.claim(&a).is_none(), "a clone still holds it");
        drop(clone);
        assert!(slots.claim(&a).is_some());
    }
}
