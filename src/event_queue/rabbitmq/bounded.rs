//! A map that forgets its oldest entries.

use std::{
    borrow::Borrow,
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// At most as many entries as it was made for; the oldest go first.
pub struct Bounded<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    /// An empty one for `most` entries.
    pub fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), most }
    }

    /// The entry of `key`; `value` when there is none.
    pub fn entry(&mut self, key: K, value: V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.order.push_back(key.clone());
            while self.order.len() > self.most {
                if let Some(oldest) = self.order.pop_front() {
                    self.entries.remove(&oldest);
                }
            }
        }
        self.entries.entry(key).or_insert(value)
    }

    /// Makes `value` the entry of `key`, which keeps its age if there is one.
    pub fn set<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, value: V)
    where
        K: Borrow<Q> + for<'a> From<&'a Q>,
    {
        match self.entries.get_mut(key) {
            Some(entry) => *entry = value,
            None => _ = self.entry(key.into(), value),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of `key`.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        // Mostly there is nothing in it.
        if self.entries.is_empty() { None } else { self.entries.get(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_for_the_newest() {
        let mut map = Bounded::new(2);
        map.entry("a", 0);
        *map.entry("b", 0) += 1;
        *map.entry("b", 0) += 1;
        assert_eq!(map.get("b"), Some(&2));
        map.entry("c", 3);
        assert_eq!((map.get("a"), map.get("b"), map.get("c")), (None, Some(&2), Some(&3)));
    }
}
