//! The rules of the memory store, in terms of slots: who goes when it is full, and when an entry
//! has lapsed. The caller keeps keys and values at the slots' numbers.
//!
//! Eviction is SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024): entries stand in the
//! order they came; a hand walks from the oldest to the newest, spares each entry used since it
//! last passed, and takes the first that was not. A `get` only sets a byte. Expiry is a
//! [`TimerWheel`] that knows each entry's deadline or an earlier one: putting a deadline off costs
//! nothing but writing it down, since the wheel looks again when the earlier one comes. Both
//! together cost 24 bytes an entry and O(1) a change.

use crate::timer_wheel::TimerWheel;

/// How many used entries one eviction may spare before it takes one all the same. Without a bound
/// one insertion into a store of a million entries, all of them used, would hold the event loop
/// while it passes them all.
const MOST_SPARED: u32 = 1024;
const NONE: u32 = u32::MAX;

/// What the caller keeps of its entries, by slot.
pub trait Entries {
    /// Whether the entry was used since this was last asked or since it was filled; forgets it.
    fn take_use(&mut self, slot: u32) -> bool;
    /// When the entry lapses; `None`: never.
    fn deadline(&self, slot: u32) -> Option<u64>;
}

#[derive(Clone, Copy)]
struct Links {
    newer: u32,
    older: u32,
}

/// A bounded set of slots. All times are milliseconds on a clock of the caller's that starts near
/// zero and never goes back.
pub struct MemoryIndex {
    max: u32,
    links: Vec<Links>,
    /// Slots given out before and free again.
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    hand: u32,
    deadlines: TimerWheel,
}

impl MemoryIndex {
    /// An empty index that holds `max` entries at most, which is 1 to 2^31 - 1.
    pub fn new(max: u32) -> Self {
        Self {
            max: max.clamp(1, (1 << 31) - 1),
            links: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            hand: NONE,
            deadlines: TimerWheel::new(0),
        }
    }

    /// The number of entries, lapsed ones that were not swept yet among them.
    pub fn len(&self) -> usize {
        self.links.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A slot for a new entry. When the index is full it is the slot of a lapsed entry, else of
    /// the one that SIEVE gives up: what the caller had there is gone.
    pub fn insert(&mut self, now: u64, deadline: Option<u64>, entries: &mut impl Entries) -> u32 {
        let slot = self.vacant(now, entries);
        self.push_newest(slot);
        entries.take_use(slot);
        if let Some(deadline) = deadline {
            self.deadlines.schedule(slot, deadline);
        }
        slot
    }

    /// Must be called when an entry is given its first deadline, or an earlier one than before.
    /// Later ones, and none, need not be told.
    pub fn lapses_sooner(&mut self, slot: u32, deadline: u64) {
        self.deadlines.schedule(slot, deadline);
    }

    /// Frees a slot that holds an entry.
    pub fn remove(&mut self, slot: u32) {
        self.deadlines.cancel(slot);
        self.unlink(slot);
        self.free.push(slot);
    }

    /// Frees every slot, and the memory.
    pub fn clear(&mut self) {
        *self = Self::new(self.max);
    }

    /// Frees the slots that have lapsed at `now`, at most `limit`, and tells which. False when the
    /// limit came first.
    pub fn expire(
        &mut self,
        now: u64,
        limit: usize,
        entries: &impl Entries,
        mut expired: impl FnMut(u32),
    ) -> bool {
        let mut slots = Vec::new();
        let complete = self.deadlines.advance(now, limit, |slot| slots.push(slot));
        for slot in slots {
            if self.has_lapsed(slot, now, entries) {
                self.unlink(slot);
                self.free.push(slot);
                expired(slot);
            }
        }
        complete
    }

    /// When to call [`expire`](Self::expire) next; `None` while nothing lapses.
    pub fn next_expiry(&self) -> Option<u64> {
        self.deadlines.next_tick()
    }

    /// Whether an entry that the wheel gave out has lapsed; if not, it goes back to the wheel.
    fn has_lapsed(&mut self, slot: u32, now: u64, entries: &impl Entries) -> bool {
        match entries.deadline(slot) {
            Some(deadline) if deadline <= now => return true,
            Some(deadline) => self.deadlines.schedule(slot, deadline),
            None => {}
        }
        false
    }

    fn vacant(&mut self, now: u64, entries: &mut impl Entries) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        if self.len() < self.max as usize {
            self.links.push(Links { newer: NONE, older: NONE });
            return u32::try_from(self.links.len() - 1).unwrap_or(NONE);
        }
        let mut due = None;
        self.deadlines.advance(now, 1, |slot| due = Some(slot));
        let lapsed = due.filter(|slot| self.has_lapsed(*slot, now, entries));
        let slot = lapsed.unwrap_or_else(|| self.victim(entries));
        self.deadlines.cancel(slot);
        self.unlink(slot);
        slot
    }

    fn victim(&mut self, entries: &mut impl Entries) -> u32 {
        let mut slot = if self.hand == NONE { self.oldest } else { self.hand };
        for _ in 0..MOST_SPARED {
            if !entries.take_use(slot) {
                break;
            }
            slot = match self.links[slot as usize].newer {
                NONE => self.oldest,
                newer => newer,
            };
        }
        // Unlinking the slot under the hand moves the hand on.
        self.hand = slot;
        slot
    }

    fn push_newest(&mut self, slot: u32) {
        let older = std::mem::replace(&mut self.newest, slot);
        self.links[slot as usize] = Links { newer: NONE, older };
        match older {
            NONE => self.oldest = slot,
            older => self.links[older as usize].newer = slot,
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Links { newer, older } = self.links[slot as usize];
        if self.hand == slot {
            self.hand = newer;
        }
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    #[derive(Default)]
    struct Model {
        used: HashSet<u32>,
        deadlines: HashMap<u32, Option<u64>>,
    }

    impl Entries for Model {
        fn take_use(&mut self, slot: u32) -> bool {
            self.used.remove(&slot)
        }

        fn deadline(&self, slot: u32) -> Option<u64> {
            self.deadlines.get(&slot).copied().flatten()
        }
    }

    impl Model {
        fn insert(&mut self, index: &mut MemoryIndex, now: u64, deadline: Option<u64>) -> u32 {
            let slot = index.insert(now, deadline, self);
            self.deadlines.insert(slot, deadline);
            slot
        }

        fn set_deadline(&mut self, index: &mut MemoryIndex, slot: u32, deadline: Option<u64>) {
            let before = self.deadlines.insert(slot, deadline).flatten();
            if let Some(tick) = deadline.filter(|tick| before.is_none_or(|old| *tick < old)) {
                index.lapses_sooner(slot, tick);
            }
        }

        fn expire(&mut self, index: &mut MemoryIndex, now: u64) -> Vec<u32> {
            let mut gone = Vec::new();
            index.expire(now, usize::MAX, self, |slot| gone.push(slot));
            gone
        }
    }

    fn new(max: u32) -> (MemoryIndex, Model) {
        (MemoryIndex::new(max), Model::default())
    }

    #[test]
    fn a_full_index_gives_up_the_oldest_that_was_not_used() {
        let (mut index, mut model) = new(3);
        let slots: Vec<u32> = (0..3).map(|_| model.insert(&mut index, 0, None)).collect();
        model.used.insert(slots[0]);
        assert_eq!(model.insert(&mut index, 0, None), slots[1]);
        assert_eq!(model.insert(&mut index, 0, None), slots[2], "the hand goes on where it was");
        assert_eq!(index.len(), 3);
    }

    #[test]
    fn a_lapsed_entry_goes_before_a_live_one() {
        let (mut index, mut model) = new(3);
        model.insert(&mut index, 0, None);
        let lapsing = model.insert(&mut index, 0, Some(10));
        model.insert(&mut index, 0, None);
        assert_eq!(model.insert(&mut index, 11, None), lapsing);
    }

    #[test]
    fn an_entry_whose_deadline_was_put_off_is_not_taken_for_a_lapsed_one() {
        let (mut index, mut model) = new(2);
        let oldest = model.insert(&mut index, 0, None);
        let kept = model.insert(&mut index, 0, Some(10));
        model.set_deadline(&mut index, kept, Some(100));
        assert_eq!(model.insert(&mut index, 50, None), oldest);
        assert_eq!(model.expire(&mut index, 99), [0; 0]);
        assert_eq!(model.expire(&mut index, 100), [kept]);
    }

    #[test]
    fn an_entry_lapses_at_its_deadline_and_not_before() {
        let (mut index, mut model) = new(9);
        let first = model.insert(&mut index, 0, Some(10));
        let second = model.insert(&mut index, 0, Some(30));
        model.set_deadline(&mut index, second, Some(20));
        assert_eq!(model.expire(&mut index, 9), [0; 0]);
        assert_eq!(model.expire(&mut index, 10), [first]);
        model.set_deadline(&mut index, second, None);
        assert_eq!(model.expire(&mut index, 1000), [0; 0]);
        assert_eq!(index.next_expiry(), None);
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn an_eviction_spares_only_so_many() {
        let max = MOST_SPARED * 2;
        let (mut index, mut model) = new(max);
        for _ in 0..max {
            let slot = model.insert(&mut index, 0, None);
            model.used.insert(slot);
        }
        model.insert(&mut index, 0, None);
        assert!(model.used.len() >= (max - MOST_SPARED - 1) as usize);
    }

    #[test]
    fn the_slots_in_use_are_those_of_a_plain_model() {
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let (mut index, mut model) = new(50);
        let mut now = 0;
        for _ in 0..20_000 {
            let any = model.deadlines.keys().next().copied();
            let deadline = (random(2) == 0).then(|| now + 1 + random(30));
            match (random(6), any) {
                (0 | 1, _) => {
                    let before = model.deadlines.len();
                    model.insert(&mut index, now, deadline);
                    let reused = model.deadlines.len() == before;
                    assert_eq!(reused, before == 50, "slots are reused only when full");
                }
                (2, Some(slot)) => {
                    model.deadlines.remove(&slot);
                    index.remove(slot);
                }
                (3, Some(slot)) => {
                    model.used.insert(slot);
                }
                (4, Some(slot)) => model.set_deadline(&mut index, slot, deadline),
                _ => {
                    now += random(10);
                    for slot in model.expire(&mut index, now) {
                        let lapsed = model.deadlines.remove(&slot).flatten();
                        assert!(lapsed.is_some_and(|at| at <= now));
                    }
                    assert!(model.deadlines.values().flatten().all(|at| *at > now));
                }
            }
            assert_eq!(index.len(), model.deadlines.len());
        }
    }
}
