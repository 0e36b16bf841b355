//! The queue as an adapter: what is rarely asked for stands here in full.

use super::{
    RedisQueue, State as QueueState,
    channel::{Channel, NEVER},
    entry::{Entry, Tries, array, field, integer, text},
    keys::Keys,
    scripts,
};
use crate::{
    error::{Error, Result},
    event_queue::adapter::{
        Consumer, Counts, DeadLetter, EventQueueAdapter, Finished, Outcome, Publish, Standing,
    },
    redis::{Command, Script, State},
};
use async_trait::async_trait;
use redis::Value;
use std::sync::{Arc, atomic::Ordering::Relaxed};
use tokio::time::{Instant, timeout, timeout_at};

/// Dead letters that are read at a time.
const PAGE: &str = "500";

impl RedisQueue {
    async fn run(&self, script: &Script, keys: &[&String], arguments: &[&[u8]]) -> Result<Value> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        script.run(self.redis(), &keys, arguments).await
    }

    /// The dead letters of a channel with their entries, the oldest first.
    async fn letters(&self, keys: &Keys) -> Result<Vec<(String, DeadLetter)>> {
        let (mut letters, mut from) = (Vec::new(), "-".to_owned());
        loop {
            let page = Command::new(["XRANGE", &keys.dead, &from, "+", "COUNT", PAGE]);
            let entries = array(self.redis().ask(page).await?);
            let Some(last) =
                entries.last().cloned().and_then(|entry| Entry::read(entry, Tries::default()))
            else {
                return Ok(letters);
            };
            from = format!("({}", last.id);
            for entry in entries {
                let error =
                    array(entry.clone()).get(1).and_then(|fields| field(fields, "e").cloned());
                let error = error.and_then(text).unwrap_or_default();
                let Some(Entry { id, text, own_id, .. }) = Entry::read(entry, Tries::default())
                else {
                    continue;
                };
                let letter = DeadLetter { id: own_id.unwrap_or_else(|| id.clone()), text, error };
                letters.push((id, letter));
            }
        }
    }

    /// The entries of the dead letter of that id, or of all.
    async fn chosen(&self, keys: &Keys, id: Option<&str>) -> Result<Vec<String>> {
        let letters = self.letters(keys).await?;
        let is_chosen = |(_, letter): &(String, DeadLetter)| id.is_none_or(|id| letter.id == id);
        Ok(letters.into_iter().filter(is_chosen).map(|(entry, _)| entry).collect())
    }

    /// Waits until all that is to be told was told, until the deadline, and for a server that was lost as long as
    /// commands wait for it.
    async fn settle_all(&self, deadline: Instant) {
        let patient_until = Instant::now() + self.redis().config().grace;
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            {
                let state = self.lock();
                let is_settled = state.channels.iter().all(Channel::is_settled);
                let is_away = state.opened_at.is_none() && Instant::now() >= patient_until;
                if is_settled || is_away || Instant::now() >= deadline {
                    return;
                }
            }
            let until = if Instant::now() < patient_until { patient_until } else { deadline };
            _ = timeout_at(until.min(deadline), settled).await;
        }
    }
}

#[async_trait]
impl EventQueueAdapter for RedisQueue {
    async fn connect(&self) -> Result<()> {
        let mut states = self.redis().monitor().states();
        let patience = self.redis().config().connect_timeout;
        let ready = timeout(patience, states.wait_for(|state| *state == State::Ready)).await;
        if matches!(ready, Ok(Ok(_))) {
            return Ok(());
        }
        let (server, reason) = (self.redis().config().shown(), self.redis().monitor().reason());
        Err(Error::Unavailable { server, reason })
    }

    fn publish(&self, messages: Vec<Publish>) {
        self.publish_all(messages);
    }

    fn subscribe(&self, channel: &str, concurrency: u32, consumer: Arc<dyn Consumer>) -> u32 {
        self.subscribe_channel(channel, concurrency, consumer)
    }

    fn unsubscribe(&self, channel: u32) {
        self.act(channel, |state, commands, _| {
            let channel = &mut state.channels[channel as usize];
            (channel.stopped, channel.wants, channel.due_at) = (true, false, NEVER);
            commands.push(super::leave(channel));
            if channel.told_at.take().is_some() {
                commands.push(super::wake_next(channel));
            }
        });
    }

    fn turn(&self, channel: u32, finished: Vec<Finished>, fetch: bool) {
        self.take_turn(channel, finished, fetch);
    }

    fn standing(&self, _channel: u32, ticket: u64) -> Standing {
        let mut state = self.lock();
        let QueueState { running, channels, .. } = &mut *state;
        let Some(run) = running.get_mut(ticket) else { return Standing::Lost };
        if run.inner.cancelled {
            return Standing::Cancelled;
        }
        let (now, lease) = (self.alarm.now(), self.settings.lease);
        let has_lapsed = |channel: &Channel| channel.has_lapsed(run.inner.since, now, lease);
        if channels.get(run.channel as usize).is_none_or(has_lapsed) {
            return Standing::Lost;
        }
        Standing::Ours
    }

    fn beat(&self) {
        self.alive();
    }

    fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        let mut commands = Vec::new();
        for channel in &mut state.channels {
            channel.wants = false;
            if channel.told_at.take().is_some() {
                commands.push(super::wake_next(channel));
            }
        }
        self.fire(commands);
    }

    async fn close(&self) {
        {
            let mut state = self.lock();
            (state.stopped, state.closed) = (true, true);
            let now = self.alarm.now();
            let tickets: Vec<u64> = state.running.iter().map(|(ticket, _)| ticket).collect();
            for ticket in tickets {
                if let Some(run) = state.end(ticket) {
                    state.report(run, Outcome::Returned);
                }
            }
            for number in 0..u32::try_from(state.channels.len()).unwrap_or(u32::MAX) {
                self.pump(&mut state, number, now);
            }
        }
        // A server that does not answer is waited for as long as a command may take, not once more for each step.
        let deadline = Instant::now() + self.redis().config().command_timeout;
        self.settle_all(deadline).await;
        let commands: Vec<Command> = self.lock().channels.iter().map(super::leave).collect();
        if self.lock().opened_at.is_some() && !commands.is_empty() {
            _ = timeout_at(deadline, self.redis().batch(commands)).await;
        }
        self.connection.leave(&self.this, &self.node);
        self.redis().monitor().unlisten(self.monitor_id);
        self.sooner.notify_one();
    }

    async fn cancel(&self, channel: &str, id: &str) -> Result<bool> {
        let keys = Keys::of(channel);
        let all = [&keys.stream, &keys.later, &keys.ids, &keys.delayed];
        let answer = self.run(&scripts::CANCEL, &all, &[id.as_bytes()]).await?;
        Ok(integer(&answer).is_some_and(|found| found > 0))
    }

    async fn pause(&self, channel: &str, paused: bool) -> Result<()> {
        let keys = Keys::of(channel);
        let flag: &[u8] = if paused { b"1" } else { b"0" };
        let all = [&keys.later, &keys.hungry, &keys.stream];
        self.run(&scripts::PAUSE, &all, &[flag]).await.map(|_| ())
    }

    async fn counts(&self, channel: &str) -> Result<Counts> {
        let keys = Keys::of(channel);
        let answer =
            self.run(&scripts::COUNTS, &[&keys.stream, &keys.later, &keys.dead], &[]).await?;
        let numbers: Vec<u64> = array(answer)
            .iter()
            .map(|number| integer(number).and_then(|it| u64::try_from(it).ok()).unwrap_or(0))
            .collect();
        let [waiting, delayed, running, dead, paused, age] = numbers[..] else {
            return Err(Error::Internal("the answer of counts.lua cannot be read".into()));
        };
        let (delayed, oldest_age) = (Some(delayed), Some(age));
        Ok(Counts { waiting, delayed, running, dead, paused: paused > 0, oldest_age })
    }

    async fn dead_letters(&self, channel: &str) -> Result<Vec<DeadLetter>> {
        let letters = self.letters(&Keys::of(channel)).await?;
        Ok(letters.into_iter().map(|(_, letter)| letter).collect())
    }

    async fn replay(&self, channel: &str, id: Option<&str>) -> Result<u64> {
        let keys = Keys::of(channel);
        let mut count = 0;
        for part in self.chosen(&keys, id).await?.chunks(100) {
            let entries: Vec<&[u8]> = part.iter().map(String::as_bytes).collect();
            let all = [&keys.stream, &keys.hungry, &keys.ids, &keys.dead];
            let answer = self.run(&scripts::REPLAY, &all, &entries).await?;
            count += integer(&answer).and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
        }
        Ok(count)
    }

    async fn drop_dead(&self, channel: &str, id: Option<&str>) -> Result<u64> {
        let keys = Keys::of(channel);
        let mut count = 0;
        for part in self.chosen(&keys, id).await?.chunks(100) {
            let words = ["XDEL", &keys.dead].into_iter().chain(part.iter().map(String::as_str));
            let answer = self.redis().ask(Command::new(words)).await?;
            count += integer(&answer).and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
        }
        Ok(count)
    }

    fn health(&self) -> (&'static str, Option<String>, u64) {
        let health = self.redis().monitor().health();
        (health.state.name(), health.reason, self.silent.load(Relaxed))
    }
}
