//! Nodes look after each other: the messages of one whose lease is over are run again by others.

use super::{
    RedisQueue,
    channel::{NEVER, Work},
    entry::{array, field, integer, text},
    keys::{GROUP, Keys, NOBODY, lease_of},
    report::MOST_DEAD,
    scripts,
};
use crate::{
    error::{Error, Result},
    event_queue::adapter::Level,
    redis::Command,
};
use redis::Value;
use std::sync::Arc;

/// How long after the end of a lease it is looked at, in milliseconds.
const MARGIN: u64 = 10;
/// The name of a consumer that holds nothing and was not heard of for so long is dropped, in milliseconds.
const FORGOTTEN: u64 = 600_000;
/// Calls of the script that takes over, in a row.
const MOST_REAPS: usize = 10_000;

/// A consumer as `XINFO CONSUMERS` tells of it.
struct Other {
    name: String,
    pending: u64,
    idle: u64,
}

impl RedisQueue {
    /// Looks at the leases of other nodes where it is time to.
    pub(super) async fn check_others(&self) {
        let due: Vec<(u32, Arc<Keys>, Arc<str>)> = {
            let mut state = self.lock();
            let now = self.alarm.now();
            if state.opened_at.is_none() || state.stopped {
                return;
            }
            let due =
                (0_u32..).zip(&mut state.channels).filter(|(_, channel)| channel.check_at <= now);
            due.map(|(number, channel)| {
                channel.check_at = NEVER;
                (number, Arc::clone(&channel.keys), Arc::clone(&channel.consumer))
            })
            .collect()
        };
        for (number, keys, own) in due {
            let question = Command::new(["XINFO", "CONSUMERS", &keys.stream, GROUP]);
            let consumers = match self.redis().ask(question).await {
                Ok(consumers) => consumers,
                Err(error) => {
                    self.tell_trouble(number, &keys, &error);
                    continue;
                }
            };
            let (ours, others): (Vec<_>, Vec<_>) = array(consumers)
                .iter()
                .filter_map(Other::read)
                .filter(|other| other.name != NOBODY)
                .partition(|other| *other.name == *own);
            self.compare(number, &keys, ours.first().map_or(0, |ours| ours.pending));
            let mut next = Ok(NEVER);
            for other in others {
                let checked = self.check(number, &keys, &other).await;
                next = next.and_then(|next| Ok(next.min(checked?)));
            }
            if let Err(error) = &next {
                self.tell_trouble(number, &keys, error);
            }
            let mut state = self.lock();
            let Some(channel) = state.subscription(number, &keys) else { continue };
            if let Ok(next) = next {
                channel.works(Work::Keeping);
                channel.check_at = channel.check_at.min(next);
            }
        }
    }

    /// What the server refuses is told, once; when it is away, that is told elsewhere.
    fn tell_trouble(&self, number: u32, keys: &Arc<Keys>, error: &Error) {
        let is_gone = |text: &str| text.contains("NOGROUP") || text.contains("no such key");
        if let Error::Redis(text) = error
            && !is_gone(text)
            && let Some(channel) = self.lock().subscription(number, keys)
        {
            channel.tell_trouble(Work::Keeping, text);
        }
    }

    /// A node that holds more than it knows of never runs the rest, and keeps it from others: a claim that came to the
    /// server late, as from a connection that was given up.
    fn compare(&self, number: u32, keys: &Arc<Keys>, pending: u64) {
        let mut state = self.lock();
        let now = self.alarm.now();
        let Some(channel) = state.subscription(number, keys) else { return };
        let known = u64::from(channel.running) + channel.reports.len() as u64;
        if channel.flights.is_empty() && pending > known {
            channel.recovers = true;
            self.pump(&mut state, number, now);
        }
    }

    /// Takes the messages of a consumer whose lease is over. Gives when to look at it again.
    async fn check(&self, number: u32, keys: &Arc<Keys>, other: &Other) -> Result<u64> {
        let lease = lease_of(&other.name).unwrap_or(self.settings.lease);
        let patience = if other.pending > 0 { lease } else { FORGOTTEN.max(lease) };
        let now = self.alarm.now();
        // After this server was away nobody could renew for a while, and after a failover it knows of older renewals.
        let opened = self.lock().opened_at.unwrap_or(now);
        let left = patience.saturating_sub(other.idle).max((opened + lease).saturating_sub(now));
        if left > 0 {
            return Ok(if other.pending > 0 { now + left + MARGIN } else { NEVER });
        }
        self.take_over(number, keys, other, patience).await.map(|()| NEVER)
    }

    async fn take_over(
        &self,
        number: u32,
        keys: &Arc<Keys>,
        other: &Other,
        lease: u64,
    ) -> Result<()> {
        let (mut moved, mut dead, mut done) = (0, 0, Ok(()));
        let all = [&keys.stream, &keys.later, &keys.dead, &keys.ids, &keys.hungry];
        let most = self.settings.max_crashes;
        let error = format!("its node ended while it ran, {most} times");
        for _ in 0..MOST_REAPS {
            let answer = scripts::REAP
                .run(
                    self.redis(),
                    &all.map(String::as_bytes),
                    &[
                        other.name.as_bytes(),
                        lease.to_string().as_bytes(),
                        most.to_string().as_bytes(),
                        if self.settings.crash_counts { b"1" } else { b"0" },
                        error.as_bytes(),
                        MOST_DEAD.as_bytes(),
                    ],
                )
                .await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    done = Err(error);
                    break;
                }
            };
            let numbers: Vec<i64> = array(answer).iter().filter_map(integer).collect();
            let [again, buried, more] = numbers[..] else { break };
            moved += again;
            dead += buried;
            if more == 0 {
                break;
            }
        }
        if moved + dead == 0 {
            return done;
        }
        let mut state = self.lock();
        let Some(channel) = state.subscription(number, keys) else { return done };
        let (name, node) = (&channel.name, &other.name);
        let run_again = format!(
            "node {node} of event queue channel {name} has not renewed its lease of {lease} ms: {moved} messages are run again"
        );
        channel.owner.log(Level::Warn, run_again);
        if dead > 0 {
            channel.owner.log(Level::Error, format!("{dead} messages of event queue channel {name} have ended their nodes {most} times, and are dead letters"));
        }
        channel.looks = true;
        if channel.free() > 0 && !channel.stopped {
            channel.owner.ready();
        }
        done
    }
}

impl Other {
    fn read(info: &Value) -> Option<Self> {
        let number =
            |name: &str| field(info, name).and_then(integer).and_then(|it| u64::try_from(it).ok());
        let name = text(field(info, "name")?.clone())?;
        Some(Self { name, pending: number("pending")?, idle: number("idle")? })
    }
}
