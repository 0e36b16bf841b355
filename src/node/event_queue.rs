//! The event queue's functions: slots of the queue in memory, and the journal.

use super::{
    RUNTIME,
    call::{Call, Entry, Reply, functions},
    mailbox::{Event, Mailbox, Payload},
    shared::SharedCells,
};
use crate::error::{Error, Result};
use crate::event_queue::{
    backoff::Backoff,
    journal::{self, Journal, Opened},
    memory::{Counts, Failure, Listener, MemoryQueue},
};
use std::{path::Path, sync::Arc};

/// Slots that one claim gives at most.
const CLAIM: u32 = 256;

/// What JavaScript can call, by name.
pub fn functions() -> Vec<(&'static str, Entry)> {
    functions![
        "queueNew" => new,
        "queueCells" => cells,
        "queueAddChannel" => add_channel,
        "queueSetConcurrency" => set_concurrency,
        "queuePublish" => publish,
        "queuePublishLater" => publish_later,
        "queueClaim" => claim,
        "queueSucceed" => succeed,
        "queueFail" => fail,
        "queueRemove" => remove,
        "queueDrain" => drain,
        "queueCounts" => counts,
        "journalOpen" => journal_open,
        "journalEntries" => journal_entries,
        "journalAppend" => journal_append,
        "journalChange" => journal_change,
        "journalClose" => journal_close,
    ]
}

/// The value of an event whose subject is a channel; another one's subject is a slot, and its
/// value how many messages have had it.
const READY: f64 = 0.0;

struct Queue {
    queue: Arc<MemoryQueue>,
    claimed: SharedCells,
}

/// Posts to a listener in JavaScript.
struct ToJavaScript {
    mailbox: Arc<Mailbox>,
    listener: u32,
}

impl ToJavaScript {
    fn new(call: &Call, argument: usize) -> Result<Self> {
        Ok(Self { mailbox: Arc::clone(&call.context.mailbox), listener: call.u32(argument)? })
    }

    fn post(&self, subject: f64, value: f64, payload: Payload) {
        self.mailbox.post(Event { listener: self.listener, subject, value, payload });
    }
}

impl Listener for ToJavaScript {
    fn ready(&self, channel: u32) {
        self.post(f64::from(channel), READY, Payload::None);
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn timed_out(&self, slot: u32, uses: u64) {
        self.post(f64::from(slot), uses as f64, Payload::None);
    }
}

fn queue<'a>(call: &'a Call) -> Result<&'a MemoryQueue> {
    Ok(&call.handle::<Queue>(0)?.queue)
}

/// `queueNew(listener): Handle`
fn new(call: &Call) -> Reply {
    let queue = MemoryQueue::new(ToJavaScript::new(call, 0)?, RUNTIME.handle());
    call.new_handle(Queue { queue, claimed: SharedCells::new(CLAIM as usize) })
}

/// `queueCells(queue): ArrayBuffer`: where a claim returns its slots, as doubles.
fn cells(call: &Call) -> Reply {
    call.handle::<Queue>(0)?.claimed.to_js(call.env)
}

/// `queueAddChannel(queue): number`
fn add_channel(call: &Call) -> Reply {
    call.integer(queue(call)?.add_channel())
}

/// `queueSetConcurrency(queue, channel, concurrency)`
fn set_concurrency(call: &Call) -> Reply {
    queue(call)?.set_concurrency(call.u32(1)?, call.u32(2)?);
    call.undefined()
}

/// `queuePublish(queue, channel, retried, maxRetries, timeout): slot`
fn publish(call: &Call) -> Reply {
    let timeout = milliseconds(call.f64(4)?);
    call.integer(queue(call)?.publish(call.u32(1)?, call.u32(2)?, call.u32(3)?, timeout))
}

/// `queuePublishLater(queue, channel, retried, maxRetries, timeout, delay): slot`
fn publish_later(call: &Call) -> Reply {
    let (timeout, delay) = (milliseconds(call.f64(4)?), milliseconds(call.f64(5)?));
    let (channel, retried, max_retries) = (call.u32(1)?, call.u32(2)?, call.u32(3)?);
    call.integer(queue(call)?.publish_later(channel, retried, max_retries, timeout, delay))
}

/// `queueClaim(queue, channel, limit): number`: how many slots there are in the cells.
fn claim(call: &Call) -> Reply {
    let Queue { queue, claimed } = call.handle::<Queue>(0)?;
    let mut count = 0;
    queue.claim(call.u32(1)?, call.u32(2)?.min(CLAIM), |slot| {
        claimed.set_f64(count as usize, f64::from(slot));
        count += 1;
    });
    call.integer(count)
}

/// `queueSucceed(queue, slot): boolean`
fn succeed(call: &Call) -> Reply {
    call.boolean(queue(call)?.succeed(call.u32(1)?))
}

/// `queueFail(queue, slot, backoff): number`: how often it was tried before its next time, which is
/// as many milliseconds away as the first cell says; 0: it is dead; -1: it was not running.
/// `backoff` is JSON, or empty for the default.
#[expect(clippy::cast_precision_loss, reason = "milliseconds")]
fn fail(call: &Call) -> Reply {
    let Queue { queue, claimed } = call.handle::<Queue>(0)?;
    let backoff = match call.text(2)? {
        text if text.is_empty() => Backoff::default(),
        text => serde_json::from_str(&text)
            .map_err(|error| Error::InvalidArgument(format!("not a backoff: {error}")))?,
    };
    call.number(match queue.fail(call.u32(1)?, &backoff) {
        None => -1.0,
        Some(Failure::Dead) => 0.0,
        Some(Failure::Retry { retried, pause }) => {
            claimed.set_f64(0, pause as f64);
            f64::from(retried)
        }
    })
}

/// `queueRemove(queue, slot): boolean`
fn remove(call: &Call) -> Reply {
    call.boolean(queue(call)?.remove(call.u32(1)?))
}

/// `queueDrain(queue, channel): number[]`
fn drain(call: &Call) -> Reply {
    let slots = queue(call)?.drain(call.u32(1)?);
    call.array(slots.into_iter().map(|slot| call.integer(slot)))
}

/// `queueCounts(queue, channel): number[]`: how many wait, are kept back and run, and the slot of the
/// first that waits, or -1.
fn counts(call: &Call) -> Reply {
    let Counts { waiting, delayed, running, first } = queue(call)?.counts(call.u32(1)?);
    let numbers = [waiting, delayed, running].map(f64::from);
    let first = first.map_or(-1.0, f64::from);
    let numbers: Vec<f64> = numbers.into_iter().chain([first]).collect();
    call.array(numbers.into_iter().map(|number| call.number(number)))
}

struct OpenJournal {
    journal: Journal,
    entries: String,
}

/// `journalOpen(path): Handle`
fn journal_open(call: &Call) -> Reply {
    let Opened { journal, entries, set_aside } = Journal::open(Path::new(&call.text(0)?))?;
    let set_aside = set_aside.map(|path| path.display().to_string());
    let entries = serde_json::to_string(&(entries, set_aside));
    let entries = entries.map_err(|error| Error::Internal(error.to_string()))?;
    call.new_handle(OpenJournal { journal, entries })
}

/// `journalEntries(journal): string`: JSON, `[[entry…], where an unreadable file was put | null]`.
fn journal_entries(call: &Call) -> Reply {
    call.string(&call.handle::<OpenJournal>(0)?.entries)
}

/// `journalAppend(journal, listener, commands, text, numbers)`: for each command its sequence
/// number for the listener, its number in the journal, how often it was retried, when it is due (0:
/// now), whether it has a content (0 or 1), and the lengths of id, channel, content and options.
fn journal_append(call: &Call) -> Reply {
    let journal = &call.handle::<OpenJournal>(0)?.journal;
    let mut commands = call.batch(2)?;
    for _ in 0..commands.count() {
        let (told, sequence) = (ToJavaScript::new(call, 1)?, commands.f64()?);
        let (seq, retried) = (integer(commands.f64()?), commands.number()?);
        let (due, has_content) = (integer(commands.f64()?), commands.number()? != 0);
        let (id, channel) = (Some(commands.string()?), commands.string()?);
        let content = commands.string()?;
        let (content, options) = (has_content.then_some(content), commands.string()?);
        let (dead, error) = (false, None);
        let entry =
            journal::Entry { seq, id, channel, content, options, retried, due, dead, error };
        let written = move |result: Result<()>| {
            told.post(sequence, 0.0, result.map_or_else(Payload::Error, |()| Payload::None));
        };
        journal.append(entry, Box::new(written));
    }
    call.undefined()
}

/// `journalChange(journal, commands, text, numbers)`: for each command a number of the journal,
/// and what it is from now on: done (-1); dead (-2), with what it failed with; or retried so many
/// times, and when it is due.
fn journal_change(call: &Call) -> Reply {
    let journal = &call.handle::<OpenJournal>(0)?.journal;
    let mut commands = call.batch(1)?;
    for _ in 0..commands.count() {
        let (seq, change) = (integer(commands.f64()?), commands.f64()?);
        if change >= 0.0 {
            let retried = u32::try_from(integer(change)).unwrap_or(u32::MAX);
            journal.retried(seq, retried, integer(commands.f64()?));
        } else if change > -1.5 {
            journal.done(seq);
        } else {
            journal.dead(seq, commands.string()?);
        }
    }
    call.undefined()
}

/// `journalClose(journal, listener, sequence)`: posts when all is written.
fn journal_close(call: &Call) -> Reply {
    let (told, sequence) = (ToJavaScript::new(call, 1)?, call.f64(2)?);
    let closed = move |result: Result<()>| {
        told.post(sequence, 0.0, result.map_or_else(Payload::Error, |()| Payload::None));
    };
    call.handle::<OpenJournal>(0)?.journal.close(Box::new(closed));
    call.undefined()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates as wanted")]
fn integer(value: f64) -> u64 {
    value as u64
}

/// Milliseconds, rounded up; Infinity is for ever.
fn milliseconds(value: f64) -> u64 {
    integer(value.ceil())
}
