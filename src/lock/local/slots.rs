//! The memory of the local locks: a slot for each lease and each place in a line, whose numbers
//! serve as the ids of timers. Slots that are not needed are given back to the system.

use std::{cmp::Reverse, collections::BinaryHeap, ops};

/// No slot.
pub const NONE: u32 = u32::MAX;
/// Capacities up to this many slots are kept.
const SMALL: usize = 128;

/// A lease when it is the first of its line, else a place in the line.
#[derive(Clone, Copy)]
pub struct Slot {
    /// Its fencing token; 0 when the slot is vacant.
    pub token: u64,
    /// The hash of its key.
    pub hash: u64,
    /// When the lease lapses, or the wait is given up: a tick, or `u64::MAX`.
    pub deadline: u64,
    /// How long the lease is to last, in ticks.
    pub ttl: u64,
    /// When the lease was granted, or asked for.
    pub since: u64,
    /// Whose it is.
    pub owner: u32,
    /// The one before it in the line; [`NONE`] for the lease.
    pub prev: u32,
    /// The one behind it in the line.
    pub next: u32,
    /// Whether its owner wants to hear that the lease has lapsed.
    pub watched: bool,
}

/// All slots, and the vacant ones among them, the lowest of which is taken first, so that the end
/// comes free and can be cut off.
#[derive(Default)]
pub struct Slots {
    slots: Vec<Slot>,
    /// May name slots that are no more, or are taken again: looked at when they are to be used.
    vacant: BinaryHeap<Reverse<u32>>,
}

impl Slots {
    pub fn insert(&mut self, slot: Slot) -> u32 {
        while let Some(Reverse(id)) = self.vacant.pop() {
            if self.slots.get(id as usize).is_some_and(|old| old.token == 0) {
                self.slots[id as usize] = slot;
                return id;
            }
        }
        self.slots.push(slot);
        u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
    }

    /// Makes a slot vacant. Returns true when much memory was given back, so that what is kept
    /// by the slots' ids may follow.
    pub fn remove(&mut self, id: u32) -> bool {
        self.slots[id as usize].token = 0;
        if id as usize + 1 < self.slots.len() {
            self.vacant.push(Reverse(id));
            return false;
        }
        while self.slots.last().is_some_and(|slot| slot.token == 0) {
            self.slots.pop();
        }
        if self.slots.is_empty() {
            self.vacant.clear();
        }
        let roomy = self.slots.capacity() > SMALL && self.slots.len() < self.slots.capacity() / 8;
        if roomy {
            let len = self.slots.len();
            self.slots.shrink_to(len * 2);
            self.vacant.retain(|Reverse(id)| (*id as usize) < len);
            self.vacant.shrink_to(len);
        }
        roomy
    }

    /// The slot with this id, when it is still that of `token`.
    pub fn find(&mut self, id: u32, token: u64) -> Option<&mut Slot> {
        self.slots.get_mut(id as usize).filter(|slot| slot.token == token && token != 0)
    }

    /// The slots in use, with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..).zip(&self.slots).filter(|(_, slot)| slot.token != 0)
    }

    pub fn capacity_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.vacant.capacity() * size_of::<u32>()
    }
}

impl ops::Index<u32> for Slots {
    type Output = Slot;
    fn index(&self, id: u32) -> &Slot {
        &self.slots[id as usize]
    }
}

impl ops::IndexMut<u32> for Slots {
    fn index_mut(&mut self, id: u32) -> &mut Slot {
        &mut self.slots[id as usize]
    }
}
