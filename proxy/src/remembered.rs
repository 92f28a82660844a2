//! Remembers what takes long to find out and is asked for again and again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many answers are remembered; whoever thinks of more names makes it begin anew, and nothing grow.
const MOST: usize = 1024;

/// Answers by what was asked.
#[derive(Debug)]
pub struct Remembered<Q, A>(Mutex<HashMap<Q, A>>);

impl<Q, A> Default for Remembered<Q, A> {
    fn default() -> Remembered<Q, A> {
        Remembered(Mutex::default())
    }
}

impl<Q: Clone + Eq + Hash, A: Clone> Remembered<Q, A> {
    /// The answer as it was found before, or as `find_out` finds it now. Nobody waits while it does.
    pub fn answer(&self, question: &Q, find_out: impl FnOnce() -> A) -> A {
        if let Some(known) = self.lock().get(question) {
            return known.clone();
        }
        let answer = find_out();
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(question.clone(), answer.clone());
        answer
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Q, A>> {
        // Answers are whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_is_not_asked_for_again_and_is_not_kept_without_end() {
        let remembered = Remembered::default();
        assert_eq!(remembered.answer(&1, || "one"), "one");
        assert_eq!(remembered.answer(&1, || unreachable!("it is known")), "one");
        (0..3 * MOST).for_each(|number| {
            assert_eq!(remembered.answer(&number, || "any"), if number == 1 { "one" } else { "any" })
        });
        assert!(remembered.lock().len() <= MOST);
    }
}
