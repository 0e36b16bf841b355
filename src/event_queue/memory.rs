//! The rules of the queue in memory. Every operation is O(1), whatever the backlog.
//!
//! - Messages begin in the order in which they were published; one that is tried again stands
//!   behind those that wait when its time comes.
//! - No more messages of a channel run than its concurrency allows, and none while it is not
//!   subscribed.
//! - A message that fails is tried again up to its `max_retries` times, [`RETRY_DELAY`] after the
//!   failure; then it is dead.
//! - A message that runs for longer than its timeout is told of once; it keeps its place among the
//!   running, and what it finally says counts.

use super::RETRY_DELAY;
use crate::{
    alarm::{Alarm, Alarmed},
    timer_wheel::TimerWheel,
};
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};

/// Deadlines that one ring deals with.
const RING: usize = 1024;

/// What the owner of the queue is told of later.
pub trait Listener: Send + Sync + 'static {
    /// A message waits again: there is something to claim in the channel.
    fn ready(&self, channel: u32);
    /// A running message has passed its timeout. `uses` tells it from those that have the slot
    /// before and after: it counts how many were published to the slot, itself among them.
    fn timed_out(&self, slot: u32, uses: u64);
}

/// What becomes of a message that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It will be tried again; so many times it was before.
    Retry(u32),
    /// It was its last time, and the slot is free.
    Dead,
}

/// The queue of one app.
pub struct MemoryQueue {
    state: Mutex<State>,
    listener: Box<dyn Listener>,
    alarm: Alarm,
}

#[derive(Default)]
struct State {
    channels: Vec<Channel>,
    messages: Vec<Message>,
    free: Vec<u32>,
    deadlines: Wheel,
}

struct Wheel(TimerWheel);

impl Default for Wheel {
    fn default() -> Self {
        Self(TimerWheel::new(0))
    }
}

#[derive(Default)]
struct Channel {
    waiting: VecDeque<u32>,
    running: u32,
    /// Messages that may run at once; 0 while it is not subscribed.
    concurrency: u32,
}

#[derive(Clone, Copy)]
struct Message {
    channel: u32,
    retried: u32,
    max_retries: u32,
    /// Milliseconds; `u64::MAX` for none.
    timeout: u64,
    stage: Stage,
    /// How many messages have had this slot.
    uses: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Free,
    Waiting,
    Running,
    Retrying,
}

impl MemoryQueue {
    /// An empty queue whose deadlines are watched on `runtime`.
    pub fn new(listener: impl Listener, runtime: &tokio::runtime::Handle) -> Arc<Self> {
        let (state, listener) = (Mutex::default(), Box::new(listener));
        let queue = Arc::new(Self { state, listener, alarm: Alarm::new() });
        queue.alarm.start(runtime, Arc::downgrade(&queue));
        queue
    }

    /// Makes a channel; the number stands for it.
    pub fn add_channel(&self) -> u32 {
        let mut state = self.state.lock();
        state.channels.push(Channel::default());
        u32::try_from(state.channels.len() - 1).unwrap_or(u32::MAX)
    }

    /// Sets how many messages of a channel may run at once; 0: none, the channel is not
    /// subscribed.
    pub fn set_concurrency(&self, channel: u32, concurrency: u32) {
        if let Some(channel) = self.state.lock().channels.get_mut(channel as usize) {
            channel.concurrency = concurrency;
        }
    }

    /// Puts a message at the end of a channel, and returns its slot.
    pub fn publish(&self, channel: u32, retried: u32, max_retries: u32, timeout: u64) -> u32 {
        let mut state = self.state.lock();
        let message =
            Message { channel, retried, max_retries, timeout, stage: Stage::Waiting, uses: 1 };
        let slot = if let Some(slot) = state.free.pop() {
            let uses = state.messages[slot as usize].uses + 1;
            state.messages[slot as usize] = Message { uses, ..message };
            slot
        } else {
            state.messages.push(message);
            u32::try_from(state.messages.len() - 1).unwrap_or(u32::MAX)
        };
        if let Some(channel) = state.channels.get_mut(channel as usize) {
            channel.waiting.push_back(slot);
        }
        slot
    }

    /// The next messages of a channel to run, as many as may begin and at most `limit`. They run
    /// from now on.
    pub fn claim(&self, channel: u32, limit: u32, mut claimed: impl FnMut(u32)) {
        let now = self.alarm.now();
        let mut state = self.state.lock();
        let State { channels, messages, deadlines, .. } = &mut *state;
        let Some(channel) = channels.get_mut(channel as usize) else { return };
        let mut soonest = u64::MAX;
        let mut left = channel.concurrency.saturating_sub(channel.running).min(limit);
        while left > 0
            && let Some(slot) = channel.waiting.pop_front()
        {
            let message = &mut messages[slot as usize];
            // What was taken out of the middle of the line has left its place behind.
            if message.stage != Stage::Waiting {
                continue;
            }
            message.stage = Stage::Running;
            channel.running += 1;
            left -= 1;
            if message.timeout != u64::MAX {
                let deadline = now.saturating_add(message.timeout);
                deadlines.0.schedule(slot, deadline);
                soonest = soonest.min(deadline);
            }
            claimed(slot);
        }
        drop(state);
        if soonest != u64::MAX {
            self.alarm.wake_at(soonest);
        }
    }

    /// A running message has been processed; its slot is free. False when it was not running.
    pub fn succeed(&self, slot: u32) -> bool {
        self.state.lock().stop_running(slot, Stage::Free)
    }

    /// A running message has failed.
    pub fn fail(&self, slot: u32) -> Option<Failure> {
        let mut state = self.state.lock();
        let message = *state.messages.get(slot as usize)?;
        if message.retried >= message.max_retries {
            return state.stop_running(slot, Stage::Free).then_some(Failure::Dead);
        }
        if !state.stop_running(slot, Stage::Retrying) {
            return None;
        }
        let retried = message.retried + 1;
        state.messages[slot as usize].retried = retried;
        let deadline = self.alarm.now() + RETRY_DELAY;
        state.deadlines.0.schedule(slot, deadline);
        drop(state);
        self.alarm.wake_at(deadline);
        Some(Failure::Retry(retried))
    }

    /// Takes a message that does not run out of the queue. False when there is none.
    pub fn remove(&self, slot: u32) -> bool {
        let mut state = self.state.lock();
        let State { channels, messages, free, deadlines } = &mut *state;
        let Some(message) = messages.get_mut(slot as usize) else { return false };
        match message.stage {
            Stage::Free | Stage::Running => return false,
            Stage::Retrying => deadlines.0.cancel(slot),
            Stage::Waiting => {
                // Rare, and so it may take as long as the line is.
                let waiting = channels.get_mut(message.channel as usize).map(|it| &mut it.waiting);
                if let Some(waiting) = waiting {
                    waiting.retain(|other| *other != slot);
                }
            }
        }
        message.stage = Stage::Free;
        free.push(slot);
        true
    }

    /// Empties a channel: all its messages, the running ones first, then those that are to be
    /// tried again, then those that wait, in their order. Their slots are free, and what handlers
    /// still say of them counts for nothing.
    pub fn drain(&self, channel: u32) -> Vec<u32> {
        let mut state = self.state.lock();
        let State { channels, messages, free, deadlines } = &mut *state;
        let Some(line) = channels.get_mut(channel as usize) else { return Vec::new() };
        let in_stage = |stage: Stage, messages: &[Message]| -> Vec<u32> {
            (0..)
                .zip(messages)
                .filter(|(_, message)| message.channel == channel && message.stage == stage)
                .map(|(slot, _)| slot)
                .collect()
        };
        let mut slots = in_stage(Stage::Running, messages);
        slots.extend(in_stage(Stage::Retrying, messages));
        slots.extend(line.waiting.drain(..));
        line.running = 0;
        for slot in &slots {
            messages[*slot as usize].stage = Stage::Free;
            deadlines.0.cancel(*slot);
            free.push(*slot);
        }
        slots
    }

    /// How often a message was tried before.
    pub fn retried(&self, slot: u32) -> u32 {
        self.state.lock().messages.get(slot as usize).map_or(0, |message| message.retried)
    }

    /// How many messages of a channel wait, and how many run.
    pub fn counts(&self, channel: u32) -> (usize, u32) {
        let state = self.state.lock();
        state.channels.get(channel as usize).map_or((0, 0), |it| (it.waiting.len(), it.running))
    }
}

impl State {
    fn stop_running(&mut self, slot: u32, stage: Stage) -> bool {
        let Some(message) = self.messages.get_mut(slot as usize) else { return false };
        if message.stage != Stage::Running {
            return false;
        }
        message.stage = stage;
        if message.timeout != u64::MAX {
            self.deadlines.0.cancel(slot);
        }
        if let Some(channel) = self.channels.get_mut(message.channel as usize) {
            channel.running -= 1;
        }
        if stage == Stage::Free {
            self.free.push(slot);
        }
        true
    }
}

impl Alarmed for MemoryQueue {
    fn ring(&self, now: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let State { channels, messages, deadlines, .. } = &mut *state;
        let mut due = Vec::new();
        deadlines.0.advance(now, RING, |slot| due.push(slot));
        for slot in due {
            let message = &mut messages[slot as usize];
            if message.stage == Stage::Running {
                self.listener.timed_out(slot, message.uses);
            } else if message.stage == Stage::Retrying {
                message.stage = Stage::Waiting;
                if let Some(channel) = channels.get_mut(message.channel as usize) {
                    channel.waiting.push_back(slot);
                }
                self.listener.ready(message.channel);
            }
        }
        deadlines.0.next_tick()
    }
}
