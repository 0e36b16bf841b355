//! What a node is told, by the server and of its connection.

use super::{
    Claimed, RedisQueue, State,
    channel::{NEVER, Place},
    wake_next,
};
use crate::event_queue::running::Run;
use std::sync::atomic::Ordering::Relaxed;

impl RedisQueue {
    /// The server tells something.
    pub(super) fn heard(&self, text: &str) {
        let mut words = text.split(' ');
        let (what, number, entry) = (words.next(), words.next(), words.next());
        let Some(number) = number.and_then(|number| number.parse().ok()) else { return };
        match (what, entry) {
            (Some("w"), _) => self.told(number),
            (Some("p"), _) => self.paused(number),
            (Some("c"), Some(entry)) => self.cancelled(number, entry),
            _ => {}
        }
    }

    /// There are messages.
    fn told(&self, number: u32) {
        let is_cluster = self.redis().is_cluster();
        self.act(number, |state, commands, now| {
            let stopped = state.stopped;
            let channel = &mut state.channels[number as usize];
            channel.told_in_flight = !channel.flights.is_empty();
            // In a cluster each node tells of the same, and late ones may come after the place was taken again.
            let is_sure = !channel.told_in_flight && !is_cluster;
            channel.place = if is_sure { Place::Free } else { Place::Unknown };
            channel.looks = true;
            if stopped || channel.stopped || channel.is_full() {
                commands.push(wake_next(channel));
            } else {
                channel.told_at = Some(now);
                channel.owner.ready();
            }
        });
    }

    /// The channel is paused: what is fetched next is fetched by looking, which heeds it.
    fn paused(&self, number: u32) {
        if let Some(channel) = self.state.lock().channels.get_mut(number as usize) {
            channel.looks = true;
        }
    }

    fn cancelled(&self, number: u32, entry: &str) {
        let mut state = self.state.lock();
        let State { running, channels, .. } = &mut *state;
        let Some(channel) = channels.get_mut(number as usize) else { return };
        let is_meant = |run: &Run<Claimed>| run.channel == number && run.inner.entry == entry;
        let ticket = running.iter().find(|(_, run)| is_meant(run)).map(|(ticket, _)| ticket);
        if let Some((ticket, run)) =
            ticket.and_then(|ticket| Some((ticket, running.get_mut(ticket)?)))
        {
            run.inner.cancelled = true;
            channel.owner.cancelled(ticket);
        } else if channel.asks() {
            // What is told overtakes replies.
            channel.cancelled.push(entry.to_owned());
        }
    }

    /// The connection stands anew.
    pub(super) fn opened(&self, hears: bool) {
        self.hears.store(hears, Relaxed);
        let mut state = self.state.lock();
        let now = self.alarm.now();
        state.opened_at = Some(now);
        for number in 0..u32::try_from(state.channels.len()).unwrap_or(u32::MAX) {
            let stopped = state.stopped;
            let channel = &mut state.channels[number as usize];
            channel.place = Place::Unknown;
            channel.looks = true;
            channel.again_at = NEVER;
            channel.told_at = None;
            // What was sent as the connection broke may not have been heard.
            channel.renewed_at = 0;
            if !stopped && !channel.stopped && !channel.is_full() {
                channel.owner.ready();
            }
            self.pump(&mut state, number, now);
        }
        drop(state);
        self.sooner.notify_one();
    }

    /// The connection is lost; on a cluster, one of them.
    pub(super) fn lost(&self) {
        let mut state = self.state.lock();
        if !self.redis().is_cluster() {
            state.opened_at = None;
        }
        for channel in &mut state.channels {
            channel.place = Place::Unknown;
            channel.looks = true;
        }
    }
}
