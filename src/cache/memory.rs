//! The rules of the memory store, in terms of slots: who goes when it is full, and when an entry
//! has lapsed. The caller keeps keys and values at the slots' numbers.
//!
//! Eviction is SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024): entries stand in the
//! order they came; a hand walks from the oldest to the newest, spares each entry used since it
//! last passed, and takes the first that was not. A `get` only sets a byte. Expiry is a
//! [`TimerWheel`]; both together cost 24 bytes an entry and O(1) a change.

use crate::timer_wheel::TimerWheel;

/// How many used entries one eviction may spare before it takes one all the same. Without a bound
/// one insertion into a store of a million entries, all of them used, would hold the event loop
/// while it passes them all.
const MOST_SPARED: u32 = 1024;
const NONE: u32 = u32::MAX;

/// The marks that a `get` leaves on its slot, wherever they are kept.
pub trait Uses {
    /// Whether `slot` was used since it was last asked for or since it was filled; forgets it.
    fn take(&mut self, slot: u32) -> bool;
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
    pub fn insert(&mut self, now: u64, deadline: Option<u64>, uses: &mut impl Uses) -> u32 {
        let slot = self.vacant(now, uses);
        self.push_newest(slot);
        uses.take(slot);
        self.set_deadline(slot, deadline);
        slot
    }

    /// Sets, moves or (`None`) takes away when the entry lapses.
    pub fn set_deadline(&mut self, slot: u32, deadline: Option<u64>) {
        match deadline {
            Some(tick) => self.deadlines.schedule(slot, tick),
            None => self.deadlines.cancel(slot),
        }
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
    pub fn expire(&mut self, now: u64, limit: usize, mut expired: impl FnMut(u32)) -> bool {
        let mut slots = Vec::new();
        let complete = self.deadlines.advance(now, limit, |slot| slots.push(slot));
        for slot in slots {
            self.unlink(slot);
            self.free.push(slot);
            expired(slot);
        }
        complete
    }

    /// When to call [`expire`](Self::expire) next; `None` while nothing lapses.
    pub fn next_expiry(&self) -> Option<u64> {
        self.deadlines.next_tick()
    }

    fn vacant(&mut self, now: u64, uses: &mut impl Uses) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        if self.len() < self.max as usize {
            self.links.push(Links { newer: NONE, older: NONE });
            return u32::try_from(self.links.len() - 1).unwrap_or(NONE);
        }
        let mut lapsed = None;
        self.deadlines.advance(now, 1, |slot| lapsed = Some(slot));
        let slot = lapsed.unwrap_or_else(|| self.victim(uses));
        self.deadlines.cancel(slot);
        self.unlink(slot);
        slot
    }

    fn victim(&mut self, uses: &mut impl Uses) -> u32 {
        let mut slot = if self.hand == NONE { self.oldest } else { self.hand };
        for _ in 0..MOST_SPARED {
            if !uses.take(slot) {
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
    struct Marks(HashSet<u32>);

    impl Uses for Marks {
        fn take(&mut self, slot: u32) -> bool {
            self.0.remove(&slot)
        }
    }

    #[test]
    fn a_full_index_gives_up_the_oldest_that_was_not_used() {
        let (mut index, mut marks) = (MemoryIndex::new(3), Marks::default());
        let slots: Vec<u32> = (0..3).map(|_| index.insert(0, None, &mut marks)).collect();
        marks.0.insert(slots[0]);
        assert_eq!(index.insert(0, None, &mut marks), slots[1]);
        assert_eq!(index.insert(0, None, &mut marks), slots[2], "the hand goes on where it was");
        assert_eq!(index.len(), 3);
    }

    #[test]
    fn a_lapsed_entry_goes_before_a_live_one() {
        let (mut index, mut marks) = (MemoryIndex::new(3), Marks::default());
        index.insert(0, None, &mut marks);
        let lapsing = index.insert(0, Some(10), &mut marks);
        index.insert(0, None, &mut marks);
        assert_eq!(index.insert(11, None, &mut marks), lapsing);
    }

    #[test]
    fn an_entry_lapses_at_its_deadline_and_not_before() {
        let (mut index, mut marks) = (MemoryIndex::new(9), Marks::default());
        let first = index.insert(0, Some(10), &mut marks);
        let second = index.insert(0, Some(10), &mut marks);
        index.set_deadline(second, Some(20));
        let mut gone = Vec::new();
        index.expire(9, usize::MAX, |slot| gone.push(slot));
        assert!(gone.is_empty());
        index.expire(10, usize::MAX, |slot| gone.push(slot));
        assert_eq!(gone, [first]);
        index.set_deadline(second, None);
        assert_eq!(index.next_expiry(), None);
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn an_eviction_spares_only_so_many() {
        let max = MOST_SPARED * 2;
        let (mut index, mut marks) = (MemoryIndex::new(max), Marks::default());
        for _ in 0..max {
            let slot = index.insert(0, None, &mut marks);
            marks.0.insert(slot);
        }
        index.insert(0, None, &mut marks);
        assert!(marks.0.len() >= (max - MOST_SPARED - 1) as usize);
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
        let (mut index, mut marks) = (MemoryIndex::new(50), Marks::default());
        let mut model: HashMap<u32, Option<u64>> = HashMap::new();
        let mut now = 0;
        for _ in 0..20_000 {
            match random(5) {
                0 | 1 => {
                    let deadline = (random(2) == 0).then(|| now + 1 + random(30));
                    let full = model.len() == 50;
                    let slot = index.insert(now, deadline, &mut marks);
                    let taken = model.insert(slot, deadline);
                    assert_eq!(taken.is_some(), full, "slots are reused only when full");
                }
                2 => {
                    if let Some(slot) = model.keys().next().copied() {
                        model.remove(&slot);
                        index.remove(slot);
                    }
                }
                3 => {
                    if let Some(slot) = model.keys().next() {
                        marks.0.insert(*slot);
                    }
                }
                _ => {
                    now += random(10);
                    index.expire(now, usize::MAX, |slot| {
                        assert!(model.remove(&slot).flatten().is_some_and(|at| at <= now));
                    });
                    assert!(model.values().flatten().all(|at| *at > now));
                }
            }
            assert_eq!(index.len(), model.len());
        }
    }
}
