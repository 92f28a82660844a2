//! Equal things counted together, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;

use super::Listed;

/// A bounded map: keys beyond the limit are not told apart, only counted.
#[derive(Clone, Debug)]
pub(super) struct Tally<K, V> {
    limit: usize,
    kept: HashMap<K, V>,
    omitted: u64,
}

impl<K: Hash + Eq + Ord, V> Tally<K, V> {
    pub(super) fn new(limit: usize) -> Tally<K, V> {
        Tally { limit, kept: HashMap::new(), omitted: 0 }
    }

    /// The entry of a key, made where it is missing and there is room; else it counts as omitted.
    pub(super) fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> Option<&mut V> {
        if self.kept.len() >= self.limit && !self.kept.contains_key(&key) {
            self.omitted += 1;
            return None;
        }
        Some(self.kept.entry(key).or_insert_with(new))
    }

    /// How many keys are told apart.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The rows, those with the greatest weight first; equal ones by key, so that a report comes out the same twice.
    pub(super) fn rows<T, W: Ord>(self, weight: impl Fn(&V) -> W, row: impl Fn(K, V) -> T) -> Listed<T> {
        let mut kept: Vec<(K, V)> = self.kept.into_iter().collect();
        kept.sort_by(|a, b| weight(&b.1).cmp(&weight(&a.1)).then_with(|| a.0.cmp(&b.0)));
        Listed { rows: kept.into_iter().map(|(key, value)| row(key, value)).collect(), omitted: self.omitted }
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&K, &mut V) -> bool) {
        self.kept.retain(keep);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.kept.iter()
    }
}
