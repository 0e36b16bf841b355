//! The messages that run in this process for one adapter: their slots, timeouts and the longest time
//! that they may run.
//!
//! A run is known by its ticket: the slot, and how often the slot was used. A ticket of a run that has
//! ended is nobody's.

use super::adapter::Options;
use crate::timer_wheel::TimerWheel;

/// Slots that an adapter has at most; tickets say the slot by their rest.
pub const SLOTS: u64 = 1 << 20;
/// After so many uses a slot counts anew: the ticket of a run that ended so long ago is nobody's to tell any more.
const USES: u64 = 1 << 32;
/// Deadlines that one ring deals with.
const RING: usize = 1024;

/// A run, with what the adapter knows of it.
pub struct Run<T> {
    /// The number of its channel.
    pub channel: u32,
    /// The options of the message.
    pub options: Options,
    /// How often it was tried before.
    pub retried: u32,
    /// What the adapter knows of it.
    pub inner: T,
    ends: u64,
    timed_out: bool,
}

struct Slot<T> {
    uses: u64,
    run: Option<Run<T>>,
}

/// The runs.
pub struct Running<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    deadlines: TimerWheel,
    max_run: u64,
    count: usize,
}

/// What is due for a run.
pub enum Due<T> {
    /// Its timeout has passed.
    TimedOut {
        /// The channel.
        channel: u32,
        /// The run, which goes on.
        ticket: u64,
    },
    /// It has run for as long as it may, and has ended with this.
    Overrun {
        /// The run that was.
        ticket: u64,
        /// What it was.
        run: Run<T>,
    },
}

impl<T> Running<T> {
    /// None, each of which may run for `max_run` milliseconds at most.
    pub fn new(max_run: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            deadlines: TimerWheel::new(0),
            max_run,
            count: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A run begins; the ticket stands for it.
    pub fn begin(
        &mut self,
        channel: u32,
        options: Options,
        retried: u32,
        inner: T,
        now: u64,
    ) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { uses: 0, run: None });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let ends = now.saturating_add(self.max_run);
        let timeout = now.saturating_add(options.timeout());
        let due = timeout.min(ends);
        if due != u64::MAX {
            self.deadlines.schedule(slot, due);
        }
        let place = &mut self.slots[slot as usize];
        // Tickets stay below 2^53, which JavaScript holds exactly, however often a slot is used.
        place.uses = (place.uses + 1) % USES;
        place.run = Some(Run { channel, options, retried, inner, ends, timed_out: false });
        self.count += 1;
        place.uses * SLOTS + u64::from(slot)
    }

    /// The run of that ticket, unless it has ended.
    pub fn get_mut(&mut self, ticket: u64) -> Option<&mut Run<T>> {
        let slot = self.slots.get_mut(slot_of(ticket))?;
        if slot.uses == ticket / SLOTS { slot.run.as_mut() } else { None }
    }

    /// Ends the run of that ticket.
    pub fn end(&mut self, ticket: u64) -> Option<Run<T>> {
        self.get_mut(ticket)?;
        let index = slot_of(ticket);
        let run = self.slots[index].run.take();
        let slot = u32::try_from(index).unwrap_or(u32::MAX);
        self.deadlines.cancel(slot);
        self.free.push(slot);
        self.count -= 1;
        run
    }

    /// All that run, by ticket.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Run<T>)> {
        (0_u64..).zip(&self.slots).filter_map(|(index, slot)| {
            slot.run.as_ref().map(|run| (slot.uses * SLOTS + index, run))
        })
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<u64> {
        self.deadlines.next_tick()
    }

    /// What is due.
    pub fn ring(&mut self, now: u64) -> Vec<Due<T>> {
        let mut due = Vec::new();
        self.deadlines.advance(now, RING, |slot| due.push(slot));
        let mut all = Vec::with_capacity(due.len());
        for slot in due {
            let place = &mut self.slots[slot as usize];
            let ticket = place.uses * SLOTS + u64::from(slot);
            let Some(run) = place.run.as_mut() else { continue };
            if !run.timed_out && run.ends > now {
                run.timed_out = true;
                let (channel, ends) = (run.channel, run.ends);
                if ends != u64::MAX {
                    self.deadlines.schedule(slot, ends);
                }
                all.push(Due::TimedOut { channel, ticket });
            } else if let Some(run) = self.end(ticket) {
                all.push(Due::Overrun { ticket, run });
            }
        }
        all
    }
}

fn slot_of(ticket: u64) -> usize {
    usize::try_from(ticket % SLOTS).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_stay_below_what_javascript_holds_exactly() {
        let mut running = Running::new(u64::MAX);
        let begin = |running: &mut Running<()>| running.begin(0, Options::default(), 0, (), 0);
        let first = begin(&mut running);
        assert!(running.end(first).is_some());
        running.slots[0].uses = USES - 2;
        for _ in 0..3 {
            let ticket = begin(&mut running);
            assert!(ticket < 1 << 53);
            assert!(running.end(ticket).is_some(), "its own ticket ends it");
            assert!(running.end(ticket).is_none(), "but only once");
        }
    }
}
