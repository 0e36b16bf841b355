//! What goes on beside the messages, in one task a queue: it renews the leases, asks the environment for a sign of
//! life, looks whether anything waits of which the node was not told, and looks after others (`others.rs`).
//!
//! Each turn has a deadline; one that does not end or panics is given up, and the next begins.

use super::{
    RedisQueue, State,
    channel::{Channel, NEVER, Place, Work},
    entry::{array, field, integer, text},
    keys::{GROUP, Keys},
};
use crate::{
    error::{Error, Result},
    event_queue::adapter::Level,
    redis::Command,
};
use redis::Value;
use std::{
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

/// Renewals within a lease.
const RENEWALS: u64 = 3;

/// Begins to keep.
pub fn start(queue: &Arc<RedisQueue>, runtime: &Handle) {
    runtime.spawn(keep(Arc::downgrade(queue), runtime.clone()));
    runtime.spawn(keep_leases(Arc::downgrade(queue)));
}

/// Renews beside all the rest, which may take longer than a lease when the server is slow or who has died held much.
async fn keep_leases(queue: Weak<RedisQueue>) {
    loop {
        let beat = {
            let Some(keeper) = queue.upgrade() else { return };
            if keeper.is_closed() {
                return;
            }
            keeper.renew().await;
            Duration::from_millis(keeper.beat_length())
        };
        sleep(beat).await;
    }
}

async fn keep(queue: Weak<RedisQueue>, runtime: Handle) {
    let mut turn = 0_u64;
    loop {
        let Some(keeper) = queue.upgrade() else { return };
        let patience = 2 * keeper.redis().config().command_timeout + Duration::from_secs(1);
        let environment = Arc::clone(&keeper.environment);
        let task = runtime.spawn({
            let keeper = Arc::clone(&keeper);
            async move { keeper.keep_once(turn).await }
        });
        let abort = task.abort_handle();
        match timeout(patience, task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => environment.log(
                Level::Error,
                format!("keeping the event queue failed and begins anew: {error}"),
            ),
            Err(_) => {
                abort.abort();
                environment.log(
                    Level::Error,
                    "keeping the event queue stood still and begins anew".to_owned(),
                );
            }
        }
        turn += 1;
        if keeper.is_closed() {
            return;
        }
        keeper.rest_until_next().await;
    }
}

impl RedisQueue {
    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Between two renewals, in milliseconds.
    fn beat_length(&self) -> u64 {
        (self.settings.lease / RENEWALS).max(1)
    }

    async fn rest_until_next(self: Arc<Self>) {
        let beat = self.beat_length();
        let until_check = {
            let (state, now) = (self.lock(), self.alarm.now());
            let first = state.channels.iter().map(|channel| channel.check_at).min();
            // Without the server nothing can be looked at.
            let may_check = state.opened_at.is_some() && !state.stopped;
            first.filter(|_| may_check).map_or(NEVER, |first| first.saturating_sub(now))
        };
        let rest = Duration::from_millis(until_check.min(beat));
        let sooner = Arc::clone(&self.sooner);
        // Who rests does not keep the queue alive.
        drop(self);
        _ = timeout(rest, sooner.notified()).await;
    }

    async fn keep_once(self: Arc<Self>, turn: u64) {
        self.ask_environment();
        self.watch_flights();
        self.renew().await;
        if turn.is_multiple_of(RENEWALS) {
            self.look_around().await;
        }
        self.check_others().await;
    }

    /// The environment is asked for a sign of life; one that has not given it for too long is dead.
    fn ask_environment(&self) {
        let mut state = self.lock();
        let now = self.alarm.now();
        match state.asked_at {
            None => {
                state.asked_at = Some(now);
                self.environment.ask();
            }
            Some(at) if now - at > self.settings.max_stall && !state.stalled => {
                state.stalled = true;
                let stall = self.settings.max_stall;
                self.environment.log(Level::Error, format!(
                    "the event loop has not answered for {stall} ms (maxStall): the messages of this node are others' now"
                ));
            }
            Some(_) => {}
        }
    }

    /// The environment lives.
    pub(super) fn alive(&self) {
        let mut state = self.lock();
        state.asked_at = None;
        if std::mem::take(&mut state.stalled) {
            // What begins from now on has what is left of the lease.
            self.sooner.notify_one();
        }
    }

    /// A flight that is not over although all deadlines have passed must not keep a channel silent.
    fn watch_flights(&self) {
        let mut state = self.lock();
        let now = self.alarm.now();
        let patience = 2 * self.redis().config().command_timeout;
        let patience = u64::try_from(patience.as_millis()).unwrap_or(NEVER).saturating_add(2_000);
        let mut stuck = Vec::new();
        let State { channels, suspects, .. } = &mut *state;
        for (number, channel) in (0_u32..).zip(channels) {
            if channel.stands_still(now, patience) {
                *suspects -= channel.give_up_flights();
                channel.owner.log(
                    Level::Error,
                    format!(
                        "fetching event queue channel {} stood still, and begins anew",
                        channel.name
                    ),
                );
                channel.owner.ready();
                stuck.push(number);
            }
        }
        self.silent.fetch_add(stuck.len() as u64, Relaxed);
        for number in stuck {
            self.pump(&mut state, number, now);
        }
    }

    /// Reading what comes after all that there can be: the server notes that it has heard of the consumer.
    async fn renew(&self) {
        let now = self.alarm.now();
        let (renewed, commands): (Vec<(u32, Arc<Keys>)>, Vec<Command>) = {
            let mut state = self.lock();
            let beat = self.beat_length();
            if state.stalled || state.opened_at.is_none() {
                return;
            }
            let due = (0_u32..).zip(&mut state.channels).filter(|(_, channel)| {
                channel.holds() && now.saturating_sub(channel.renewed_at) >= beat / 2
            });
            due.map(|(number, channel)| {
                channel.renewed_at = now;
                let (stream, consumer) = (channel.keys.stream.as_str(), &*channel.consumer);
                // One below what stands for what is new.
                let last = "18446744073709551615-18446744073709551614";
                let words = ["XREADGROUP", "GROUP", GROUP, consumer, "COUNT", "1", "STREAMS"];
                let command = Command::new(words.into_iter().chain([stream, last]));
                ((number, Arc::clone(&channel.keys)), command)
            })
            .unzip()
        };
        if commands.is_empty() {
            return;
        }
        // What fails is renewed by the next turn, within the lease.
        let Ok(replies) = self.redis().batch(commands).await else { return };
        let mut state = self.lock();
        for ((number, keys), reply) in renewed.into_iter().zip(replies) {
            let Some(channel) = state.subscription(number, &keys) else { continue };
            if reply.is_ok_and(|reply| self.redis().check(reply).is_ok()) {
                channel.heard(now, self.settings.lease);
            }
        }
    }

    /// Looks at each channel: whether something waits, and when the next is due.
    async fn look_around(&self) {
        let channels: Vec<(u32, Arc<Keys>)> = {
            let state = self.lock();
            if state.opened_at.is_none() || state.stopped {
                return;
            }
            let joined = (0_u32..)
                .zip(&state.channels)
                .filter(|(_, channel)| channel.joined && !channel.stopped);
            joined.map(|(number, channel)| (number, Arc::clone(&channel.keys))).collect()
        };
        if channels.is_empty() {
            return;
        }
        let commands = channels.iter().flat_map(|(_, keys)| {
            [
                Command::new(["XINFO", "GROUPS", &keys.stream]),
                Command::new(["ZRANGE", &keys.later, "0", "0", "WITHSCORES"]),
            ]
        });
        let Ok(replies) = self.redis().batch(commands.collect()).await else { return };
        let mut replies = replies.into_iter();
        for (number, keys) in channels {
            let (groups, first) = (replies.next(), replies.next());
            let Some(Ok(groups)) = groups else { continue };
            let first = first.and_then(Result::ok);
            self.take_look(number, &keys, groups, first.as_ref());
        }
    }

    fn take_look(&self, number: u32, keys: &Arc<Keys>, groups: Value, first: Option<&Value>) {
        let mut state = self.lock();
        let now = self.alarm.now();
        let Some(channel) = state.subscription(number, keys) else { return };
        let groups = match self.redis().check(groups) {
            Err(Error::Redis(text)) if text.contains("no such key") => Value::Nil,
            Err(error) => return channel.tell_trouble(Work::Keeping, &error.to_string()),
            Ok(groups) => groups,
        };
        let is_ours =
            |info: &&Value| field(info, "name").cloned().and_then(text).as_deref() == Some(GROUP);
        let groups = array(groups);
        let Some(group) = groups.iter().find(is_ours) else {
            if state.channels[number as usize].flights.is_empty()
                && state.channels[number as usize].joined
            {
                Self::lost_group(&mut state, number);
                self.pump(&mut state, number, now);
            }
            return;
        };
        let pending = field(group, "pending").and_then(integer).unwrap_or(0);
        // Without a count of what is to be read, which older servers do not have, it is looked.
        let waiting = field(group, "lag").and_then(integer);
        let stopped = state.stopped;
        let channel = &mut state.channels[number as usize];
        if pending > 0 {
            channel.check_at = channel.check_at.min(now);
        }
        if let Some(due) = first.and_then(due_at) {
            // By the server's clock, which is asked when the time has come by ours.
            let unix = unix_milliseconds();
            channel.due_at = channel.due_at.min(now + due.saturating_sub(unix));
            self.alarm.wake_at(channel.due_at);
        }
        let may_wait = waiting.is_none_or(|waiting| waiting > 0);
        let is_quiet =
            channel.flights.is_empty() && channel.told_at.is_none() && channel.free() > 0;
        // A node whose owner is not idle has no place in the line, and its owner asks by itself: that costs little.
        if may_wait && is_quiet && !stopped {
            self.silent
                .fetch_add(u64::from(waiting.is_some() && channel.place == Place::Taken), Relaxed);
            channel.looks = true;
            channel.place = Place::Unknown;
            channel.owner.ready();
        }
    }
}

impl State {
    /// The channel of that number, unless it has become another's since its keys were asked for.
    pub(super) fn subscription(&mut self, number: u32, keys: &Arc<Keys>) -> Option<&mut Channel> {
        self.channels.get_mut(number as usize).filter(|channel| Arc::ptr_eq(&channel.keys, keys))
    }
}

/// When the first is due, in milliseconds since 1970; nothing while paused.
fn due_at(first: &Value) -> Option<u64> {
    let mut items = array(first.clone()).into_iter();
    let (member, score) = match items.next()? {
        // RESP3 pairs them.
        Value::Array(pair) => {
            let [member, score] = <[Value; 2]>::try_from(pair).ok()?;
            (member, score)
        }
        member => (member, items.next()?),
    };
    if text(member)? == "p" {
        return None;
    }
    integer(&score).and_then(|score| u64::try_from(score).ok())
}

fn unix_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}
