//! The state of the local locks and its rules, without a clock: every call is told the time.

use super::{
    News, Outcome, Owner, Released, Request,
    slots::{NONE, Slot, Slots},
};
use crate::{lock::Lease, timer_wheel::TimerWheel};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::{hash::BuildHasher, sync::Arc, time::Duration};

/// Tables up to this many keys are kept when they empty.
const SMALL: usize = 128;
/// Deadlines that one call of [`Table::ring`] deals with, so that nobody waits long for the table.
const RING: usize = 256;

/// The distance of a table's tokens; there are at most so many tables.
pub const STRIDE: u64 = 16;

/// A key that is held, with its line: the first in it holds the key.
struct Line {
    key: Box<[u16]>,
    first: u32,
    last: u32,
}

pub struct Table {
    lines: HashTable<Line>,
    hasher: DefaultHashBuilder,
    slots: Slots,
    wheel: TimerWheel,
    owners: HashMap<u32, Arc<dyn Owner>>,
    /// Tokens are numbered as they are asked for. A key's line is served in that order, so they
    /// grow with each grant of it, and need no memory by key.
    /// Those of one table leave the same rest when divided by [`STRIDE`], which finds the table.
    last_token: u64,
    /// The earliest deadline set since the last [`take_soonest`](Table::take_soonest).
    soonest: u64,
}

impl Table {
    /// An empty table that gives out tokens which leave the rest `number`.
    pub fn new(number: u64, hasher: DefaultHashBuilder) -> Self {
        Self {
            lines: HashTable::new(),
            hasher,
            slots: Slots::default(),
            wheel: TimerWheel::new(0),
            owners: HashMap::new(),
            last_token: number,
            soonest: u64::MAX,
        }
    }

    /// Keys that are held.
    pub fn keys(&self) -> usize {
        self.lines.len()
    }

    /// The keys that are held, each with its lease and the number of those who wait.
    pub fn holders(&self, now: u64) -> impl Iterator<Item = (String, Slot, u64)> {
        self.lines.iter().filter(move |line| self.slots[line.first].deadline > now).map(|line| {
            let (mut waiters, mut next) = (0, self.slots[line.first].next);
            while next != NONE {
                waiters += 1;
                next = self.slots[next].next;
            }
            (String::from_utf16_lossy(&line.key), self.slots[line.first], waiters)
        })
    }

    pub fn capacity_bytes(&self) -> usize {
        self.lines.allocation_size() + self.slots.capacity_bytes() + self.wheel.capacity_bytes()
    }

    pub fn next_tick(&self) -> Option<u64> {
        self.wheel.next_tick()
    }

    /// The earliest deadline set since it was asked last; `u64::MAX` when there is none.
    pub fn take_soonest(&mut self) -> u64 {
        std::mem::replace(&mut self.soonest, u64::MAX)
    }

    pub fn join(&mut self, owner: u32, told: Arc<dyn Owner>) {
        self.owners.insert(owner, told);
    }

    /// Takes an owner away, with all it holds and waits for.
    pub fn leave(&mut self, owner: u32, now: u64) {
        self.owners.remove(&owner);
        let (held, waiting): (Vec<_>, Vec<_>) = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.owner == owner)
            .map(|(id, slot)| (id, slot.prev == NONE))
            .partition(|(_, first)| *first);
        // Those who wait first, or they would be let in by what is released here.
        for (id, _) in waiting.into_iter().chain(held) {
            self.end(id, now);
        }
    }

    /// `hash` is the key's.
    pub fn request(&mut self, key: &[u16], hash: u64, request: &Request, now: u64) -> Outcome {
        let line = self.lines.find(hash, |line| *line.key == *key).map(|line| line.first);
        if let Some(holder) = line
            && self.slots[holder].deadline <= now
        {
            self.lapse(holder, now);
        }
        self.last_token += STRIDE;
        let mut slot = Slot {
            token: self.last_token,
            hash,
            deadline: u64::MAX,
            ttl: ticks(request.ttl),
            since: now,
            owner: request.owner,
            prev: NONE,
            next: NONE,
            watched: request.watched,
        };
        let found = match line {
            None => None,
            Some(_) => self.lines.find_mut(hash, |line| *line.key == *key),
        };
        let Some(line) = found else {
            slot.deadline = now.saturating_add(slot.ttl);
            let lease = self.insert(slot);
            let line = Line { key: key.into(), first: lease.slot, last: lease.slot };
            self.lines.insert_unique(hash, line, |line| self.hasher.hash_one(&*line.key));
            return Outcome::Granted(lease);
        };
        if request.wait.is_zero() {
            return Outcome::Refused;
        }
        slot.deadline = now.saturating_add(ticks(request.wait));
        slot.prev = line.last;
        let id = self.slots.insert(slot);
        line.last = id;
        self.slots[slot.prev].next = id;
        self.schedule(id, slot.deadline);
        Outcome::Waiting(Lease { slot: id, token: slot.token })
    }

    /// Ends a lease, or leaves the line.
    pub fn release(&mut self, lease: Lease, now: u64) -> Released {
        let Some(slot) = self.slots.find(lease.slot, lease.token) else {
            return Released::Nothing;
        };
        let (owner, holds) = (slot.owner, slot.prev == NONE);
        if holds && slot.deadline <= now {
            self.lapse(lease.slot, now);
            return Released::Nothing;
        }
        let Some(next) = self.unlink(lease.slot) else { return Released::Done };
        let next = self.grant(next, now);
        if self.slots[next.slot].owner == owner {
            return Released::HandedOver(next);
        }
        self.tell(next, News::Granted);
        Released::Done
    }

    /// Gives the lease a new end; false when it has ended already.
    pub fn extend(&mut self, lease: Lease, ttl: Duration, now: u64) -> bool {
        let held = self.is_held(lease, now);
        if held {
            let since = self.slots[lease.slot].since;
            self.slots[lease.slot].ttl = ticks(ttl);
            self.grant(lease.slot, now);
            self.slots[lease.slot].since = since;
        }
        held
    }

    /// Asks for [`News::Lapsed`]; false when the lease has ended.
    pub fn watch(&mut self, lease: Lease, now: u64) -> bool {
        let held = self.is_held(lease, now);
        if held {
            self.slots[lease.slot].watched = true;
        }
        held
    }

    /// Does what is due. What is left over is due at once.
    pub fn ring(&mut self, now: u64) {
        let mut due = Vec::new();
        self.wheel.advance(now, RING, |id| due.push(id));
        for id in due {
            let slot = self.slots[id];
            if slot.deadline > now {
                // Let in just now, by a lease that lapsed before it in this loop.
            } else if slot.prev == NONE {
                self.lapse(id, now);
            } else {
                self.tell(Lease { slot: id, token: slot.token }, News::TimedOut);
                self.unlink(id);
            }
        }
    }

    fn is_held(&mut self, lease: Lease, now: u64) -> bool {
        self.slots
            .find(lease.slot, lease.token)
            .is_some_and(|slot| slot.prev == NONE && slot.deadline > now)
    }

    fn lapse(&mut self, id: u32, now: u64) {
        let slot = self.slots[id];
        if slot.watched {
            self.tell(Lease { slot: id, token: slot.token }, News::Lapsed);
        }
        self.end(id, now);
    }

    /// Takes a slot out of its line, and lets the next in when it was the first.
    fn end(&mut self, id: u32, now: u64) {
        if let Some(next) = self.unlink(id) {
            let next = self.grant(next, now);
            self.tell(next, News::Granted);
        }
    }

    /// Takes a slot out of its line and frees it. Returns the one that is first now, when that
    /// has changed.
    fn unlink(&mut self, id: u32) -> Option<u32> {
        let Slot { hash, prev, next, .. } = self.slots[id];
        if next != NONE {
            self.slots[next].prev = prev;
        }
        if prev != NONE {
            self.slots[prev].next = next;
        }
        if prev == NONE || next == NONE {
            self.move_end(hash, id, prev, next);
        }
        self.wheel.cancel(id);
        if self.slots.remove(id) {
            self.shrink();
        }
        (prev == NONE && next != NONE).then_some(next)
    }

    /// The slot `id` was an end of its line, or both: now others are, or the key is nobody's.
    fn move_end(&mut self, hash: u64, id: u32, prev: u32, next: u32) {
        let is_end = |line: &Line| line.first == id || line.last == id;
        if prev == NONE && next == NONE {
            if let Ok(line) = self.lines.find_entry(hash, is_end) {
                line.remove();
            }
            if self.lines.capacity() > SMALL && self.lines.len() < self.lines.capacity() / 8 {
                let room = self.lines.len() * 2;
                self.lines.shrink_to(room, |line| self.hasher.hash_one(&*line.key));
            }
        } else if let Some(line) = self.lines.find_mut(hash, is_end) {
            if prev == NONE {
                line.first = next;
            } else {
                line.last = prev;
            }
        }
    }

    /// The lease's time begins.
    fn grant(&mut self, id: u32, now: u64) -> Lease {
        let slot = &mut self.slots[id];
        let (token, deadline) = (slot.token, now.saturating_add(slot.ttl));
        slot.deadline = deadline;
        slot.since = now;
        self.schedule(id, deadline);
        Lease { slot: id, token }
    }

    fn insert(&mut self, slot: Slot) -> Lease {
        let id = self.slots.insert(slot);
        self.schedule(id, slot.deadline);
        Lease { slot: id, token: slot.token }
    }

    fn schedule(&mut self, id: u32, deadline: u64) {
        if deadline == u64::MAX {
            self.wheel.cancel(id);
        } else {
            self.wheel.schedule(id, deadline);
            self.soonest = self.soonest.min(deadline);
        }
    }

    /// The timers' memory goes with the slots'.
    fn shrink(&mut self) {
        self.wheel = TimerWheel::new(self.wheel.now());
        for (id, slot) in self.slots.iter().filter(|(_, slot)| slot.deadline != u64::MAX) {
            self.wheel.schedule(id, slot.deadline);
        }
    }

    fn tell(&self, lease: Lease, news: News) {
        if let Some(owner) = self.owners.get(&self.slots[lease.slot].owner) {
            owner.tell(lease, news);
        }
    }
}

/// Milliseconds, rounded up.
fn ticks(duration: Duration) -> u64 {
    let rest = u64::from(duration.subsec_nanos().div_ceil(1_000_000));
    duration.as_secs().saturating_mul(1000).saturating_add(rest)
}

#[cfg(test)]
mod tests;
