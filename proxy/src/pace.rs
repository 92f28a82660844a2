//! How soon an agent is answered that asks for much in vain: later, where others work too.
//!
//! What is refused, or taken back before its answer, is read, decided and recorded like everything else. Who does that
//! without end keeps processors busy that others wait for, and cannot mean anything by it: so it waits, for as long as
//! it would take at a pace that disturbs nobody.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use policy::identity::AgentName;
use tokio_util::sync::CancellationToken;

use crate::slots::Slots;

/// Requests in vain at once that nobody has to wait for: a program that tries again, a test of a policy.
const AT_ONCE: f64 = 500.0;
/// And how many more each second.
const EACH_SECOND: f64 = 100.0;
/// How long a request waits at most.
const LONGEST: Duration = Duration::from_secs(5);

/// What each agent asked for in vain lately.
pub struct Pace {
    vain: Mutex<HashMap<AgentName, Vain>>,
    slots: Slots,
    draining: CancellationToken,
}

/// Requests in vain that are not forgotten yet.
#[derive(Clone, Copy)]
struct Vain {
    requests: f64,
    at: Instant,
}

/// A request: in vain unless it is said to be answered before this is dropped.
pub struct Attempt<'p> {
    pace: &'p Pace,
    agent: Option<AgentName>,
}

impl Pace {
    /// Nobody has asked for anything. `slots` tell who else is there; nobody waits once `draining` is cancelled.
    pub fn new(slots: Slots, draining: CancellationToken) -> Pace {
        Pace { vain: Mutex::default(), slots, draining }
    }

    /// A request of an agent, and whether it had to wait for its turn.
    pub async fn attempt(&self, agent: &AgentName) -> (Attempt<'_>, bool) {
        // Whoever takes it back while it waits has asked in vain as well.
        let attempt = Attempt { pace: self, agent: Some(agent.clone()) };
        let waited = self.wait(agent).await;
        (attempt, waited)
    }

    /// Waits as a request would, and says whether it had to.
    pub async fn wait(&self, agent: &AgentName) -> bool {
        let owed = self.owed(agent, Instant::now());
        if owed == Duration::ZERO || !self.slots.others_than(agent) {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(owed) => {}
            () = self.draining.cancelled() => {}
        }
        true
    }

    /// How long it takes until the next request in vain is one too many no more.
    fn owed(&self, agent: &AgentName, now: Instant) -> Duration {
        let mut vain = self.lock();
        let Some(lately) = vain.get(agent).map(|vain| vain.left(now)) else { return Duration::ZERO };
        if lately <= 0.0 {
            vain.remove(agent);
        }
        let seconds = (lately - AT_ONCE) / EACH_SECOND;
        Duration::from_secs_f64(seconds.clamp(0.0, LONGEST.as_secs_f64()))
    }

    fn note(&self, agent: AgentName, now: Instant) {
        let mut vain = self.lock();
        let before = vain.get(&agent).map_or(0.0, |vain| vain.left(now));
        vain.insert(agent, Vain { requests: before + 1.0, at: now });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentName, Vain>> {
        // Counts are whole after any panic.
        self.vain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vain {
    fn left(self, now: Instant) -> f64 {
        (self.requests - now.duration_since(self.at).as_secs_f64() * EACH_SECOND).max(0.0)
    }
}

impl Attempt<'_> {
    /// It was let through.
    pub fn answered(mut self) {
        self.agent = None;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            self.pace.note(agent, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents() -> (AgentName, AgentName) {
        ("a".parse().unwrap(), "b".parse().unwrap())
    }

    #[test]
    fn what_is_asked_in_vain_is_owed_and_forgotten() {
        let pace = Pace::new(Slots::new(9), CancellationToken::new());
        let (a, b) = agents();
        let now = Instant::now();
        for _ in 0..500 {
            assert_eq!(pace.owed(&a, now), Duration::ZERO);
            pace.note(a.clone(), now);
        }
        for _ in 0..200 {
            pace.note(a.clone(), now);
        }
        assert_eq!((pace.owed(&a, now), pace.owed(&b, now)), (Duration::from_secs(2), Duration::ZERO));
        assert_eq!(pace.owed(&a, now + Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(pace.owed(&a, now + Duration::from_secs(7)), Duration::ZERO);
        assert!(pace.lock().is_empty(), "nothing is kept of what is forgotten");
        (0..5000).for_each(|_| pace.note(a.clone(), now));
        assert_eq!(pace.owed(&a, now), LONGEST);
    }

    #[tokio::test]
    async fn an_agent_waits_only_beside_others_and_only_for_what_was_in_vain() {
        let slots = Slots::new(9);
        let (a, b) = agents();
        let pace = Pace::new(slots.clone(), CancellationToken::new());
        let _own = slots.claim(&a);
        for _ in 0..1000 {
            pace.attempt(&a).await.0.answered();
        }
        assert!(pace.lock().is_empty(), "what is answered is not in vain");
        for _ in 0..550 {
            drop(pace.attempt(&a).await.0);
        }
        assert!(!pace.wait(&a).await, "nobody else is there");
        let _other = slots.claim(&b);
        let begun = Instant::now();
        assert!(pace.wait(&a).await, "somebody is");
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(100), "it waited only {took:?}");
        assert!(!pace.wait(&b).await, "who asked for nothing in vain");
        (0..1000).for_each(|_| pace.note(a.clone(), Instant::now()));
        pace.draining.cancel();
        assert!(pace.wait(&a).await, "it would have to");
        assert!(begun.elapsed() < LONGEST, "nobody waits for a gateway that is about to stop");
    }
}
