//! The cache's functions: the memory store's slots, bloom filters, patterns.

use super::{
    call::{Call, Entry, Reply, functions},
    clock,
    shared::SharedCells,
};
use crate::cache::{
    bloom::{BloomFilter, BloomShape},
    glob::Glob,
    memory::{MemoryIndex, Uses},
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
        "memoryMarks" => memory_marks,
        "memoryInsert" => memory_insert,
        "memoryDeadline" => memory_deadline,
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

/// A memory store's index, and the bytes that a `get` marks its slot in.
struct Memory {
    index: MemoryIndex,
    marks: Marks,
}

struct Marks(SharedCells);

impl Uses for Marks {
    fn take(&mut self, slot: u32) -> bool {
        let used = self.0.byte(slot as usize) != 0;
        if used {
            self.0.set_byte(slot as usize, 0);
        }
        used
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

/// `memoryNew(max, slots): Handle`: a store of at most `max` entries, with marks for `slots`.
fn memory_new(call: &Call) -> Reply {
    let marks = Marks(SharedCells::new((call.u32(1)? as usize).div_ceil(8)));
    call.new_handle(RefCell::new(Memory { index: MemoryIndex::new(call.u32(0)?), marks }))
}

/// `memoryMarks(store, slots): ArrayBuffer`: marks for `slots` slots at least, the present ones
/// taken over; the memory given out before is not looked at any more.
fn memory_marks(call: &Call) -> Reply {
    let slots = (call.u32(1)? as usize).div_ceil(8);
    with_memory(call, |memory| {
        memory.marks.0 = memory.marks.0.resized(slots);
        memory.marks.0.to_js(call.env)
    })?
}

/// `memoryInsert(store, now, deadline): slot`. There must be marks for one slot more than are in
/// use.
fn memory_insert(call: &Call) -> Reply {
    let (now, deadline) = (tick(call.f64(1)?), deadline(call.f64(2)?));
    call.integer(with_memory(call, |memory| memory.index.insert(now, deadline, &mut memory.marks))?)
}

/// `memoryDeadline(store, slot, deadline)`
fn memory_deadline(call: &Call) -> Reply {
    let (slot, deadline) = (call.u32(1)?, deadline(call.f64(2)?));
    with_memory(call, |memory| memory.index.set_deadline(slot, deadline))?;
    call.undefined()
}

/// `memoryRemove(store, slot)`
fn memory_remove(call: &Call) -> Reply {
    let slot = call.u32(1)?;
    with_memory(call, |memory| memory.index.remove(slot))?;
    call.undefined()
}

/// `memoryClear(store)`
fn memory_clear(call: &Call) -> Reply {
    with_memory(call, |memory| memory.index.clear())?;
    call.undefined()
}

/// `memoryExpire(store, now): number[]`: the slots that have lapsed and are free now; as many as
/// one sweep takes, and none when all are swept.
fn memory_expire(call: &Call) -> Reply {
    // An entry is swept only when JavaScript's own comparison calls it lapsed, hence rounded down.
    let now = tick(call.f64(1)?.floor());
    let mut slots = Vec::new();
    with_memory(call, |memory| memory.index.expire(now, SWEEP, |slot| slots.push(slot)))?;
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
