//! The cache's functions: the memory store's slots, bloom filters, patterns.

use super::{
    call::{Call, Entry, Reply, functions},
    clock,
    shared::SharedCells,
};
use crate::cache::{
    bloom::{BloomFilter, BloomShape},
    glob::Glob,
    memory::{Entries, MemoryIndex},
};
use crate::error::Result;
use std::cell::RefCell;

/// Lapsed entries swept by one call at most, so that a sweep never holds the event loop for long.
const SWEEP: usize = 512;

/// What JavaScript can call, by name.
pub fn functions() -> Vec<(&'static str, Entry)> {
    functions![
        "clockFace" => clock::face,
        "clockStart" => clock::start,
        "memoryNew" => memory_new,
        "memoryCells" => memory_cells,
        "memoryInsert" => memory_insert,
        "memorySooner" => memory_sooner,
        "memoryRemove" => memory_remove,
        "memoryClear" => memory_clear,
        "memoryExpire" => memory_expire,
        "memoryNextExpiry" => memory_next_expiry,
        "globNew" => glob_new,
        "globMatches" => glob_matches,
        "bloomNew" => bloom_new,
        "bloomAdd" => bloom_add,
        "bloomContains" => bloom_contains,
    ]
}

/// A memory store's index, and what JavaScript writes of its entries without a call.
struct Memory {
    index: MemoryIndex,
    shared: Shared,
}

/// For each slot a cell with its deadline (0: none), and behind all of these a byte that a `get`
/// sets.
struct Shared {
    cells: SharedCells,
    slots: usize,
}

impl Shared {
    fn new(slots: usize) -> Self {
        Self { cells: SharedCells::new(slots + slots.div_ceil(8)), slots }
    }

    /// The same for more slots.
    fn grown(&self, slots: usize) -> Self {
        let mut larger = Self::new(slots);
        for slot in 0..self.slots.min(slots) {
            larger.cells.set_f64(slot, self.cells.f64(slot));
            larger.set_used(slot, self.used(slot));
        }
        larger
    }

    fn used(&self, slot: usize) -> bool {
        self.cells.byte(self.slots * 8 + slot) != 0
    }

    fn set_used(&mut self, slot: usize, used: bool) {
        self.cells.set_byte(self.slots * 8 + slot, u8::from(used));
    }
}

impl Entries for Shared {
    fn take_use(&mut self, slot: u32) -> bool {
        let used = self.used(slot as usize);
        if used {
            self.set_used(slot as usize, false);
        }
        used
    }

    fn deadline(&self, slot: u32) -> Option<u64> {
        deadline(self.cells.f64(slot as usize))
    }
}

/// Runs `work` on the memory store that the first argument is a handle of.
fn with_memory<R>(call: &Call, work: impl FnOnce(&mut Memory) -> R) -> Result<R> {
    Ok(work(&mut call.handle::<RefCell<Memory>>(0)?.borrow_mut()))
}

/// A time of JavaScript's, or 0 for none. Rounded up: an entry never lapses early.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates as wanted")]
fn tick(time: f64) -> u64 {
    time.ceil() as u64
}

fn deadline(time: f64) -> Option<u64> {
    (time > 0.0).then(|| tick(time))
}

/// `memoryNew(max): Handle`: a store of at most `max` entries.
fn memory_new(call: &Call) -> Reply {
    let index = MemoryIndex::new(call.u32(0)?);
    call.new_handle(RefCell::new(Memory { index, shared: Shared::new(0) }))
}

/// `memoryCells(store, slots): ArrayBuffer`: memory for the deadlines (8 bytes) and then the marks
/// (one byte) of `slots` slots, which is a multiple of 8; what was there is taken over, and the
/// memory given out before is not looked at any more.
fn memory_cells(call: &Call) -> Reply {
    let slots = call.u32(1)? as usize;
    with_memory(call, |memory| {
        memory.shared = memory.shared.grown(slots);
        memory.shared.cells.to_js(call.env)
    })?
}

/// `memoryInsert(store, now, deadline): slot`. There must be memory for one slot more than are in
/// use. Its deadline is JavaScript's to write.
fn memory_insert(call: &Call) -> Reply {
    let (now, deadline) = (tick(call.f64(1)?.floor()), deadline(call.f64(2)?));
    call.integer(with_memory(call, |memory| {
        memory.index.insert(now, deadline, &mut memory.shared)
    })?)
}

/// `memorySooner(store, slot, deadline)`: an entry got its first deadline, or an earlier one.
fn memory_sooner(call: &Call) -> Reply {
    let (slot, deadline) = (call.u32(1)?, tick(call.f64(2)?));
    with_memory(call, |memory| memory.index.lapses_sooner(slot, deadline))?;
    call.undefined()
}

/// `memoryRemove(store, slot)`
fn memory_remove(call: &Call) -> Reply {
    let slot = call.u32(1)?;
    with_memory(call, |memory| memory.index.remove(slot))?;
    call.undefined()
}

/// `memoryClear(store)`: as new, without memory for slots.
fn memory_clear(call: &Call) -> Reply {
    with_memory(call, |memory| {
        memory.index.clear();
        memory.shared = Shared::new(0);
    })?;
    call.undefined()
}

/// `memoryExpire(store, now): number[]`: the slots that have lapsed and are free now; as many as
/// one sweep takes, and none when all are swept.
fn memory_expire(call: &Call) -> Reply {
    // An entry is swept only when JavaScript's own comparison calls it lapsed, hence rounded down.
    let now = tick(call.f64(1)?.floor());
    let mut slots = Vec::new();
    with_memory(call, |memory| {
        memory.index.expire(now, SWEEP, &memory.shared, |slot| slots.push(slot));
    })?;
    call.array(slots.into_iter().map(|slot| call.integer(slot)))
}

/// `memoryNextExpiry(store): number`: when to sweep next, or 0.
fn memory_next_expiry(call: &Call) -> Reply {
    let next = with_memory(call, |memory| memory.index.next_expiry())?;
    #[expect(clippy::cast_precision_loss, reason = "below 2^42")]
    call.number(next.map_or(0.0, |tick| tick as f64))
}

/// `globNew(pattern): Handle`
fn glob_new(call: &Call) -> Reply {
    call.new_handle(call.with_utf16(0, Glob::new)?)
}

/// `globMatches(glob, key): boolean`
fn glob_matches(call: &Call) -> Reply {
    let glob = call.handle::<Glob>(0)?;
    call.boolean(call.with_utf16(1, |key| glob.matches(key))?)
}

/// `bloomNew(errorRate, capacity): Handle`
fn bloom_new(call: &Call) -> Reply {
    let shape = BloomShape::new(call.f64(0)?, call.f64(1)?)?;
    call.new_handle(RefCell::new(BloomFilter::new(shape)))
}

/// `bloomAdd(filter, value)`
fn bloom_add(call: &Call) -> Reply {
    let filter = call.handle::<RefCell<BloomFilter>>(0)?;
    filter.borrow_mut().add(call.text(1)?.as_bytes());
    call.undefined()
}

/// `bloomContains(filter, value): boolean`
fn bloom_contains(call: &Call) -> Reply {
    let filter = call.handle::<RefCell<BloomFilter>>(0)?;
    call.boolean(filter.borrow().contains(call.text(1)?.as_bytes()))
}
