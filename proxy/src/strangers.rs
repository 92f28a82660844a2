//! Connections that have not said whose they are; where there is no room, the oldest of them makes it.
//!
//! Only a request says which agent a connection belongs to. Until then it counts as nobody's, so that one agent could
//! take every place by saying nothing. A connection that means something speaks at once, long before it is the oldest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// All of them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Strangers(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    next: u64,
    /// By the order in which they came.
    tokens: BTreeMap<u64, CancellationToken>,
}

/// One connection, a stranger until it is known or dropped.
pub struct Stranger {
    strangers: Strangers,
    number: u64,
    token: CancellationToken,
}

impl Strangers {
    /// One more.
    pub fn welcome(&self) -> Stranger {
        let token = CancellationToken::new();
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.tokens.insert(number, token.clone());
        drop(waiting);
        Stranger { strangers: self.clone(), number, token }
    }

    /// Sends the oldest away; whether there was one.
    pub fn send_away_oldest(&self) -> bool {
        let oldest = self.lock().tokens.pop_first();
        oldest.is_some_and(|(_, token)| {
            token.cancel();
            true
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds it can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// It has said whose it is, and stays.
    pub fn is_known(&self) {
        self.strangers.lock().tokens.remove(&self.number);
    }

    /// Cancelled when it has to make room.
    pub fn sent_away(&self) -> CancellationToken {
        self.token.clone()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.is_known();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_those_who_are_known_stay() {
        let strangers = Strangers::default();
        assert!(!strangers.send_away_oldest(), "there is none");
        let [first, second, third] = [(); 3].map(|()| strangers.welcome());
        first.is_known();
        assert!(strangers.send_away_oldest());
        let gone = [&first, &second, &third].map(|stranger| stranger.sent_away().is_cancelled());
        assert_eq!(gone, [false, true, false]);
        drop(third);
        assert!(!strangers.send_away_oldest(), "the last one left by itself");
    }
}
