//! The rules of the memory store as its callers see them: entries by key over the index of slots.

use mortise::cache::{
    bloom::{BloomFilter, BloomShape},
    glob::Glob,
    memory::{Entries, MemoryIndex},
};
use std::collections::HashMap;

/// A store as `lib/cache/memory-store.ts` builds it, in Rust.
struct Store {
    index: MemoryIndex,
    slots: HashMap<String, u32>,
    kept: Kept,
    now: u64,
}

#[derive(Default)]
struct Kept {
    keys: Vec<Option<String>>,
    used: Vec<bool>,
    deadlines: Vec<Option<u64>>,
}

impl Entries for Kept {
    fn take_use(&mut self, slot: u32) -> bool {
        self.used.get_mut(slot as usize).is_some_and(std::mem::take)
    }

    fn deadline(&self, slot: u32) -> Option<u64> {
        self.deadlines[slot as usize]
    }
}

impl Store {
    fn new(max: u32) -> Self {
        let index = MemoryIndex::new(max);
        Self { index, slots: HashMap::new(), kept: Kept::default(), now: 0 }
    }

    fn set(&mut self, key: &str, ttl: Option<u64>) {
        let deadline = ttl.map(|ttl| self.now + ttl);
        let slot = self.slots.get(key).copied().unwrap_or_else(|| self.insert(key, deadline));
        let before = std::mem::replace(&mut self.kept.deadlines[slot as usize], deadline);
        if let Some(tick) = deadline.filter(|tick| before.is_none_or(|old| *tick < old)) {
            self.index.lapses_sooner(slot, tick);
        }
    }

    fn insert(&mut self, key: &str, deadline: Option<u64>) -> u32 {
        let slot = self.index.insert(self.now, deadline, &mut self.kept);
        let at = slot as usize;
        if at == self.kept.keys.len() {
            self.kept.keys.push(None);
            self.kept.used.push(false);
            self.kept.deadlines.push(None);
        }
        if let Some(old) = self.kept.keys[at].replace(key.to_owned()) {
            self.slots.remove(&old);
        }
        self.kept.deadlines[at] = None;
        self.slots.insert(key.to_owned(), slot);
        slot
    }

    fn get(&mut self, key: &str) -> bool {
        let Some(slot) = self.slots.get(key).copied() else { return false };
        if self.kept.deadlines[slot as usize].is_some_and(|deadline| deadline <= self.now) {
            return false;
        }
        self.kept.used[slot as usize] = true;
        true
    }
}

#[test]
fn a_store_holds_at_most_max_entries() {
    let mut store = Store::new(10);
    (0..1000).for_each(|n| store.set(&n.to_string(), None));
    assert_eq!(store.index.len(), 10);
    assert_eq!(store.slots.len(), 10);
}

#[test]
fn what_is_used_stays_while_what_is_not_goes() {
    let mut store = Store::new(100);
    (0..50).for_each(|n| store.set(&format!("hot {n}"), None));
    for n in 0..10_000 {
        store.set(&format!("cold {n}"), None);
        assert!(store.get(&format!("hot {}", n % 50)));
    }
}

#[test]
fn an_entry_is_gone_when_its_time_to_live_has_passed() {
    let mut store = Store::new(10);
    store.set("short", Some(5));
    store.set("long", Some(50));
    store.now = 4;
    assert!(store.get("short"));
    store.now = 5;
    assert!(!store.get("short"));
    assert!(store.get("long"));
}

#[test]
fn setting_again_starts_the_time_to_live_anew() {
    let mut store = Store::new(10);
    store.set("a", Some(5));
    store.now = 4;
    store.set("a", Some(5));
    store.now = 8;
    assert!(store.get("a"));
    store.set("a", None);
    store.now = 1_000;
    assert!(store.get("a"));
}

#[test]
fn the_hit_ratio_on_skewed_keys_is_that_of_sieve() {
    // Zipf 0.9 over 40 000 keys, room for 10 000: LRU .733, S3-FIFO .770, SIEVE .775.
    let weights: Vec<f64> = (1..=40_000).map(|rank| f64::from(rank).powf(-0.9)).collect();
    let mut sums = Vec::with_capacity(weights.len());
    weights.iter().fold(0.0, |sum, weight| {
        sums.push(sum + weight);
        sum + weight
    });
    let total = *sums.last().expect("not empty");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut store = Store::new(10_000);
    let (mut hits, mut asked) = (0_u32, 0_u32);
    for round in 0..300_000 {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        #[expect(clippy::cast_precision_loss, reason = "a number between 0 and 1")]
        let at = (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64;
        let key = sums.partition_point(|sum| *sum < at * total).to_string();
        let hit = store.get(&key);
        if !hit {
            store.set(&key, None);
        }
        if round >= 100_000 {
            asked += 1;
            hits += u32::from(hit);
        }
    }
    let ratio = f64::from(hits) / f64::from(asked);
    assert!(ratio > 0.76, "{ratio}");
}

#[test]
fn a_bloom_filter_never_forgets_a_member() {
    let mut filter = BloomFilter::new(BloomShape::new(0.01, 1000.0).expect("a valid shape"));
    (0..2000).for_each(|n: u32| filter.add(&n.to_le_bytes()));
    assert!((0..2000).all(|n: u32| filter.contains(&n.to_le_bytes())));
}

#[test]
fn a_pattern_tells_lone_surrogates_apart() {
    assert!(Glob::new(&[0xD800]).matches(&[0xD800]));
    assert!(!Glob::new(&[0xD800]).matches(&[0xD801]));
}
