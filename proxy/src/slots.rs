//! How many connections each agent has open, so that one cannot take every place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::identity::AgentName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    /// Of which part of the agent's slots it is one, where it is of a part.
    _share: Option<OwnedSemaphorePermit>,
}

/// A part of an agent's slots: who has it cannot take the others.
#[derive(Clone)]
pub struct Share {
    slots: Slots,
    agent: AgentName,
    left: Arc<Semaphore>,
}

impl Slots {
    /// At most `limit` connections for each agent.
    pub fn new(limit: usize) -> Slots {
        Slots { limit, open: Arc::default() }
    }

    /// A slot for one more connection of `agent`, unless it has as many as it may.
    pub fn claim(&self, agent: &AgentName) -> Option<Slot> {
        self.claim_as(agent, None)
    }

    /// Half of the slots of `agent`, one at least, for a session that must leave some to others of the same agent.
    pub fn half(&self, agent: &AgentName) -> Share {
        let left = Arc::new(Semaphore::new(self.limit.div_ceil(2)));
        Share { slots: self.clone(), agent: agent.clone(), left }
    }

    /// Whether anybody but `agent` has a connection open.
    pub fn others_than(&self, agent: &AgentName) -> bool {
        lock(&self.open).keys().any(|other| other != agent)
    }

    fn claim_as(&self, agent: &AgentName, share: Option<OwnedSemaphorePermit>) -> Option<Slot> {
        let mut open = lock(&self.open);
        let count = open.entry(agent.clone()).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Slot(Arc::new(Held { agent: agent.clone(), open: Arc::clone(&self.open), _share: share })))
    }
}

impl Share {
    /// A slot for one more connection, unless this part, or its agent, has as many as it may.
    pub fn claim(&self) -> Option<Slot> {
        let left = Arc::clone(&self.left).try_acquire_owned().ok()?;
        self.slots.claim_as(&self.agent, Some(left))
    }

    /// Whose slots these are.
    pub fn agent(&self) -> &AgentName {
        &self.agent
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

    #[test]
    fn a_part_leaves_the_rest_and_counts_among_the_whole() {
        let slots = Slots::new(3);
        let a: AgentName = "a".parse().unwrap();
        let (one, other) = (slots.half(&a), slots.half(&a));
        let held = [one.claim().unwrap(), one.claim().unwrap()];
        assert!(one.claim().is_none(), "its half");
        let _third = other.claim().unwrap();
        assert!(other.claim().is_none() && slots.claim(&a).is_none(), "the agent's last is taken");
        drop(held);
        assert!(other.claim().is_some() && one.claim().is_some());
    }
}
