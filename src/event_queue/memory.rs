//! The rules of the queue in memory. Every operation is O(1), whatever the backlog.
//!
//! - Messages begin in the order in which they were published; one that is kept back or tried again
//!   stands behind those that wait when its time comes, which is never before it.
//! - No more messages of a channel run than its concurrency allows, and none while it is not
//!   subscribed.
//! - A message that fails is tried again up to its `max_retries` times, with the pauses of its
//!   [`Backoff`]; then it is dead.
//! - A message that runs for longer than its timeout is told of once; it keeps its place among the
//!   running, and what it finally says counts.

use super::backoff::Backoff;
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
    /// It will be tried again.
    Retry {
        /// How often it was tried before that.
        retried: u32,
        /// In how many milliseconds.
        pause: u64,
    },
    /// It was its last time, and the slot is free.
    Dead,
}

/// What is in a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that wait for their turn.
    pub waiting: u32,
    /// Messages that are kept back, or wait for their next attempt.
    pub delayed: u32,
    /// Messages that run.
    pub running: u32,
    /// The slot of the first of those that wait.
    pub first: Option<u32>,
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
    /// The line; places of messages that were removed from it are among them.
    line: VecDeque<u32>,
    removed: usize,
    delayed: u32,
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
    /// Kept back until its deadline.
    Delayed,
    /// Removed, while its place in the line is not; then its slot is free.
    Removed,
}

/// Places of removed messages that a line may hold, if they are fewer than the others.
const REMOVED: usize = 64;

impl Message {
    fn new(channel: u32, retried: u32, max_retries: u32, timeout: u64) -> Self {
        Self { channel, retried, max_retries, timeout, stage: Stage::Waiting, uses: 1 }
    }
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
        let slot = state.add(Message::new(channel, retried, max_retries, timeout));
        if let Some(channel) = state.channels.get_mut(channel as usize) {
            channel.line.push_back(slot);
        }
        slot
    }

    /// As [`publish`](Self::publish), after `delay` milliseconds.
    pub fn publish_later(
        &self,
        channel: u32,
        retried: u32,
        max_retries: u32,
        timeout: u64,
        delay: u64,
    ) -> u32 {
        let mut state = self.state.lock();
        let slot = state.add(Message::new(channel, retried, max_retries, timeout));
        let deadline = self.later(delay);
        state.delay(slot, deadline);
        drop(state);
        self.alarm.wake_at(deadline);
        slot
    }

    /// The first tick that is not before `delay` milliseconds have passed: of the one that is under
    /// way a part has gone.
    fn later(&self, delay: u64) -> u64 {
        self.alarm.now().saturating_add(delay).saturating_add(1)
    }

    /// The next messages of a channel to run, as many as may begin and at most `limit`. They run
    /// from now on.
    pub fn claim(&self, channel: u32, limit: u32, mut claimed: impl FnMut(u32)) {
        let now = self.alarm.now();
        let mut state = self.state.lock();
        let State { channels, messages, deadlines, free } = &mut *state;
        let Some(channel) = channels.get_mut(channel as usize) else { return };
        let mut soonest = u64::MAX;
        let mut left = channel.concurrency.saturating_sub(channel.running).min(limit);
        while left > 0
            && let Some(slot) = channel.line.pop_front()
        {
            let message = &mut messages[slot as usize];
            if message.stage == Stage::Removed {
                message.stage = Stage::Free;
                channel.removed -= 1;
                free.push(slot);
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

    /// A running message has failed. `backoff` has the pause until its next attempt.
    pub fn fail(&self, slot: u32, backoff: &Backoff) -> Option<Failure> {
        let mut state = self.state.lock();
        let message = *state.messages.get(slot as usize)?;
        if message.retried >= message.max_retries {
            return state.stop_running(slot, Stage::Free).then_some(Failure::Dead);
        }
        if !state.stop_running(slot, Stage::Delayed) {
            return None;
        }
        let retried = message.retried + 1;
        state.messages[slot as usize].retried = retried;
        let pause = backoff.pause(retried);
        let deadline = self.later(pause);
        state.delay(slot, deadline);
        drop(state);
        self.alarm.wake_at(deadline);
        Some(Failure::Retry { retried, pause })
    }

    /// Takes a message that does not run out of the queue. False when there is none.
    pub fn remove(&self, slot: u32) -> bool {
        let mut state = self.state.lock();
        let State { channels, messages, free, deadlines } = &mut *state;
        let Some(message) = messages.get_mut(slot as usize) else { return false };
        let Some(channel) = channels.get_mut(message.channel as usize) else { return false };
        match message.stage {
            Stage::Free | Stage::Running | Stage::Removed => return false,
            Stage::Delayed => {
                deadlines.0.cancel(slot);
                channel.delayed -= 1;
                message.stage = Stage::Free;
                free.push(slot);
            }
            Stage::Waiting => {
                message.stage = Stage::Removed;
                channel.removed += 1;
                if channel.removed > REMOVED.max(channel.line.len() / 2) {
                    channel.close_gaps(messages, free);
                }
            }
        }
        true
    }

    /// Empties a channel: all its messages, the running ones first, then those that are kept back
    /// or to be tried again, then those that wait, in their order. Their slots are free, and what handlers
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
        slots.extend(in_stage(Stage::Delayed, messages));
        line.close_gaps(messages, free);
        slots.extend(line.line.drain(..));
        (line.running, line.delayed) = (0, 0);
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

    /// How many messages there are in a channel.
    #[expect(clippy::cast_possible_truncation, reason = "slots are numbers of 32 bits")]
    pub fn counts(&self, channel: u32) -> Counts {
        let state = self.state.lock();
        let Some(channel) = state.channels.get(channel as usize) else { return Counts::default() };
        let waits = |slot: &&u32| state.messages[**slot as usize].stage == Stage::Waiting;
        Counts {
            waiting: (channel.line.len() - channel.removed) as u32,
            delayed: channel.delayed,
            running: channel.running,
            first: channel.line.iter().find(waits).copied(),
        }
    }
}

impl Channel {
    /// Takes the places of removed messages out of the line: their slots are free.
    fn close_gaps(&mut self, messages: &mut [Message], free: &mut Vec<u32>) {
        self.removed = 0;
        self.line.retain(|slot| {
            let message = &mut messages[*slot as usize];
            let stays = message.stage != Stage::Removed;
            if !stays {
                message.stage = Stage::Free;
                free.push(*slot);
            }
            stays
        });
    }
}

impl State {
    /// Gives a message a slot.
    fn add(&mut self, message: Message) -> u32 {
        if let Some(slot) = self.free.pop() {
            let uses = self.messages[slot as usize].uses + 1;
            self.messages[slot as usize] = Message { uses, ..message };
            return slot;
        }
        self.messages.push(message);
        u32::try_from(self.messages.len() - 1).unwrap_or(u32::MAX)
    }

    /// Keeps a message back that is in no line.
    fn delay(&mut self, slot: u32, deadline: u64) {
        let message = &mut self.messages[slot as usize];
        message.stage = Stage::Delayed;
        if let Some(channel) = self.channels.get_mut(message.channel as usize) {
            channel.delayed += 1;
        }
        self.deadlines.0.schedule(slot, deadline);
    }

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
            } else if message.stage == Stage::Delayed {
                message.stage = Stage::Waiting;
                if let Some(channel) = channels.get_mut(message.channel as usize) {
                    channel.delayed -= 1;
                    channel.line.push_back(slot);
                }
                self.listener.ready(message.channel);
            }
        }
        deadlines.0.next_tick()
    }
}
