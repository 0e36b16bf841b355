//! What is due at its time: timeouts of runs, retries, what was told and not looked at, pauses after failures.

use super::{
    PATIENCE, RedisQueue,
    channel::{Channel, NEVER},
    wake_next,
};
use crate::{
    alarm::Alarmed,
    event_queue::{
        adapter::{Level, Outcome},
        running::Due,
    },
};
use std::sync::atomic::Ordering::Relaxed;

impl Alarmed for RedisQueue {
    fn ring(&self, now: u64) -> Option<u64> {
        let hears = self.hears.load(Relaxed);
        let mut state = self.state.lock();
        let mut commands = Vec::new();
        for due in state.running.ring(now) {
            match due {
                Due::TimedOut { channel, ticket } => {
                    state.channels[channel as usize].owner.timed_out(ticket);
                }
                Due::Overrun { ticket, run } => {
                    state.free_slot(&run);
                    let (channel, most) =
                        (&state.channels[run.channel as usize], self.settings.max_run);
                    let id = run.inner.own_id.as_ref().unwrap_or(&run.inner.entry);
                    channel.owner.log(Level::Error, format!(
                        "message {id} of event queue channel {} has run for {most} ms (maxRun), which counts as a failure; what its handler still says is ignored", channel.name
                    ));
                    channel.owner.given_up(ticket);
                    state.report(run, Outcome::Failed(format!("it ran for more than {most} ms")));
                }
            }
        }
        for number in 0..u32::try_from(state.channels.len()).unwrap_or(u32::MAX) {
            let stopped = state.stopped;
            let channel = &mut state.channels[number as usize];
            if channel.told_at.is_some_and(|at| at + PATIENCE <= now) {
                channel.told_at = None;
                commands.push(wake_next(channel));
            }
            if channel.due_at <= now {
                channel.due_at = NEVER;
                channel.looks = true;
                if !stopped && !channel.stopped && !channel.is_full() {
                    // As if it were told: unless it looks, the next is to.
                    channel.told_at = channel.told_at.or(hears.then_some(now));
                    channel.owner.ready();
                } else if hears {
                    commands.push(wake_next(channel));
                }
            }
            if channel.again_at <= now {
                channel.again_at = NEVER;
                if !stopped && !channel.stopped && !channel.is_full() {
                    channel.owner.ready();
                }
            }
            self.pump(&mut state, number, now);
        }
        self.fire(commands);
        let channels = state.channels.iter().map(Channel::next_at).min().unwrap_or(NEVER);
        let next = channels.min(state.running.next_due().unwrap_or(NEVER));
        (next != NEVER).then_some(next)
    }
}
