//! Deadlines for many things at once: scheduling, moving and cancelling one is O(1), with 16 bytes
//! a deadline and no timer of the operating system.
//!
//! Hierarchical timing wheel after Varghese and Lauck, "Hashed and Hierarchical Timing Wheels"
//! (SOSP 1987): seven levels of 64 slots, each slot a doubly linked list of nodes; a level's slot
//! is redistributed to the levels below when its time comes.

#![expect(clippy::cast_possible_truncation, reason = "levels and slots are below 64")]

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 7;
/// The end of the wheel's time, in ticks: 2^42 milliseconds are 139 years. Later deadlines are due
/// then.
const HORIZON: u64 = 1 << (BITS as u64 * LEVELS as u64);
const NONE: u32 = u32::MAX;
/// Set in `prev` of a list's first node; the rest of the number is the list.
const HEAD: u32 = 1 << 31;

#[derive(Clone, Copy)]
struct Node {
    deadline: u64,
    /// The node before, or `HEAD | list` for the first, or `NONE` when not scheduled.
    prev: u32,
    next: u32,
}

const IDLE: Node = Node { deadline: 0, prev: NONE, next: NONE };

/// Deadlines in ticks (milliseconds, for every user in this crate), one for an id. Ids are small
/// numbers of the caller's, such as indices of a slab: memory is proportional to the largest.
pub struct TimerWheel {
    /// All deadlines up to and including this tick have been given out.
    now: u64,
    heads: Vec<u32>,
    occupied: [u64; LEVELS],
    nodes: Vec<Node>,
}

impl TimerWheel {
    /// An empty wheel whose time is `now`.
    pub fn new(now: u64) -> Self {
        Self { now, heads: vec![NONE; SLOTS * LEVELS], occupied: [0; LEVELS], nodes: Vec::new() }
    }

    /// The wheel's time: what was due by then has been given out.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Sets or moves the deadline of `id`. One that has passed is due at the next [`advance`].
    ///
    /// [`advance`]: Self::advance
    ///
    /// # Panics
    /// When `id` is 2^31 or more.
    pub fn schedule(&mut self, id: u32, deadline: u64) {
        assert!(id < HEAD, "timer ids are below 2^31");
        self.cancel(id);
        let index = id as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, IDLE);
        }
        self.nodes[index].deadline = deadline.clamp(self.now + 1, HORIZON - 1);
        self.link(id);
    }

    /// Takes the deadline of `id` away; nothing when it has none.
    pub fn cancel(&mut self, id: u32) {
        let Some(node) = self.nodes.get_mut(id as usize) else { return };
        let Node { prev, next, .. } = *node;
        if prev == NONE {
            return;
        }
        node.prev = NONE;
        if prev & HEAD == 0 {
            self.nodes[prev as usize].next = next;
        } else {
            let list = (prev & !HEAD) as usize;
            self.heads[list] = next;
            if next == NONE {
                self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            }
        }
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
    }

    /// Whether `id` has a deadline.
    pub fn is_scheduled(&self, id: u32) -> bool {
        self.nodes.get(id as usize).is_some_and(|node| node.prev != NONE)
    }

    /// Gives each id whose deadline is `now` or earlier to `due`, in the order of their deadlines
    /// and, within one tick, in that in which they were scheduled; at most `limit` of them. Returns
    /// false when the limit came first, and the rest is still due.
    pub fn advance(&mut self, now: u64, mut limit: usize, mut due: impl FnMut(u32)) -> bool {
        while let Some((tick, level, slot)) = self.first_slot() {
            if tick > now {
                break;
            }
            if level == 0 {
                self.now = self.now.max(tick.saturating_sub(1));
                for id in self.oldest_first(slot) {
                    if limit == 0 {
                        return false;
                    }
                    limit -= 1;
                    self.cancel(id);
                    due(id);
                }
                self.now = self.now.max(tick);
            } else {
                self.cascade(tick, level * SLOTS + slot);
            }
        }
        self.now = self.now.max(now);
        true
    }

    /// When to call [`advance`](Self::advance) next: no later than the earliest deadline, and not
    /// long before it. `None` without deadlines.
    pub fn next_tick(&self) -> Option<u64> {
        self.first_slot().map(|(tick, ..)| tick)
    }

    /// The ids' capacity, for accounting.
    pub fn capacity_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }

    /// The occupied slot whose time comes first: its first tick, level and index in the level.
    fn first_slot(&self) -> Option<(u64, usize, usize)> {
        // All of a level's deadlines lie within the span of one slot of the level above that is
        // under way, so the lowest occupied level has the earliest.
        (0..LEVELS).find(|&level| self.occupied[level] != 0).map(|level| {
            let slot = self.occupied[level].trailing_zeros() as usize;
            let shift = BITS * level as u32;
            let base = self.now >> (shift + BITS) << (shift + BITS);
            (base + ((slot as u64) << shift), level, slot)
        })
    }

    fn cascade(&mut self, tick: u64, list: usize) {
        let ids = self.oldest_first(list);
        self.heads[list] = NONE;
        self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        self.now = self.now.max(tick);
        for id in ids {
            self.link(id);
        }
    }

    /// The ids of a list, whose head is the one that was scheduled last.
    fn oldest_first(&self, list: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut id = self.heads[list];
        while id != NONE {
            ids.push(id);
            id = self.nodes[id as usize].next;
        }
        ids.reverse();
        ids
    }

    fn link(&mut self, id: u32) {
        let deadline = self.nodes[id as usize].deadline;
        let differing = (deadline ^ self.now) | 1;
        let level = (differing.ilog2() / BITS) as usize;
        let slot = (deadline >> (BITS * level as u32)) as usize % SLOTS;
        let list = level * SLOTS + slot;
        let next = std::mem::replace(&mut self.heads[list], id);
        self.occupied[level] |= 1 << slot;
        if next != NONE {
            self.nodes[next as usize].prev = id;
        }
        self.nodes[id as usize].prev = HEAD | list as u32;
        self.nodes[id as usize].next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A small generator of pseudo-random numbers, so that a failure can be repeated
    /// (xorshift64*, Vigna 2016).
    fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
        }
    }

    #[test]
    fn every_deadline_is_given_out_once_and_never_early() {
        for seed in 1..50 {
            let mut random = numbers(seed);
            let mut wheel = TimerWheel::new(0);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0;
            for _ in 0..2000 {
                let id = random(200) as u32;
                match random(4) {
                    0 => {
                        wheel.cancel(id);
                        model.remove(&id);
                    }
                    1 | 2 => {
                        let span = [3, 70, 5_000, 1_000_000][random(4) as usize];
                        let deadline = now + random(span);
                        wheel.schedule(id, deadline);
                        model.insert(id, deadline.max(now + 1));
                    }
                    _ => {
                        let span = [2, 64, 4_096, 300_000][random(4) as usize];
                        now += random(span);
                        let mut given = Vec::new();
                        assert!(wheel.advance(now, usize::MAX, |id| given.push(id)));
                        let times: Vec<u64> = given.iter().map(|id| model[id]).collect();
                        assert!(times.is_sorted(), "out of order: {times:?}");
                        given.sort_unstable();
                        let due: Vec<u32> =
                            model.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
                        assert_eq!(given, due);
                        model.retain(|_, at| *at > now);
                    }
                }
                if let Some(next) = model.values().min() {
                    assert!(wheel.next_tick().is_some_and(|tick| tick <= *next));
                } else {
                    assert_eq!(wheel.next_tick(), None);
                }
            }
        }
    }

    #[test]
    fn within_a_tick_the_order_is_that_of_scheduling() {
        for deadline in [5, 100, 5_000, 300_000] {
            let mut wheel = TimerWheel::new(3);
            (0..10).rev().for_each(|id| wheel.schedule(id, deadline));
            wheel.advance(deadline / 2, usize::MAX, |_| panic!("too early"));
            (10..20).for_each(|id| wheel.schedule(id, deadline));
            let mut given = Vec::new();
            assert!(!wheel.advance(deadline, 3, |id| given.push(id)));
            assert!(wheel.advance(deadline, usize::MAX, |id| given.push(id)));
            assert_eq!(given, (0..10).rev().chain(10..20).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn a_limit_leaves_the_rest_due() {
        let mut wheel = TimerWheel::new(0);
        (0..10).for_each(|id| wheel.schedule(id, 5));
        let mut given = 0;
        assert!(!wheel.advance(100, 4, |_| given += 1));
        assert!(wheel.advance(100, 6, |_| given += 1));
        assert_eq!(given, 10);
        assert_eq!(wheel.next_tick(), None);
    }

    #[test]
    fn an_enormous_deadline_is_kept() {
        let mut wheel = TimerWheel::new(0);
        wheel.schedule(7, u64::MAX);
        assert!(wheel.advance(1 << 41, usize::MAX, |_| panic!("not due for 69 years")));
        assert!(wheel.is_scheduled(7));
    }
}
