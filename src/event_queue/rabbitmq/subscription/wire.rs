//! The AMQP channel of a subscription: how it is made, how its loss is noticed, and what is done then.

use super::{Held, Subscription};
use crate::{
    error::{Error, Result},
    event_queue::{
        adapter::Level,
        rabbitmq::{
            connection::{Session, jittered},
            delays,
            publisher::declare_once,
            topology,
            unsettled::Unsettled,
        },
    },
};
use futures_util::future::BoxFuture;
use lapin::Channel;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// The pauses between attempts to make an AMQP channel: each twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often an AMQP channel on which nothing is heard is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The share of the broker's `consumer_timeout` after which a warning tells of a message that runs.
const LONG_RUN: f64 = 5.0 / 6.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub(super) wire: u64,
    pub(super) tag: u64,
}

/// The AMQP channel.
pub(super) struct Wire {
    pub(super) number: u64,
    pub(super) session: Arc<Session>,
    pub(super) channel: Channel,
    pub(super) unsettled: Unsettled,
    pub(super) consuming: Option<Consuming>,
    /// Since when the consumer has had all that it may have, while there were free slots.
    pub(super) saturated: Option<Instant>,
    /// The delivery that a warning has told of.
    pub(super) long_run_told: Option<u64>,
}

pub(super) struct Consuming {
    pub(super) stream: lapin::Consumer,
    pub(super) prefetch: usize,
    /// It was cancelled; what had been sent before is still to come.
    pub(super) ends: bool,
}

pub(super) type Opening = BoxFuture<'static, Result<(Arc<Session>, Channel, bool)>>;

impl Subscription {
    pub(super) fn open(&self) -> Opening {
        let (shared, names, failures, doubted) =
            (Arc::clone(&self.shared), self.names.clone(), self.failures, self.doubted);
        let mut sessions = self.sessions.clone();
        Box::pin(async move {
            if failures > 0 {
                let pause = FIRST_PAUSE * 2_u32.saturating_pow(failures.min(16) - 1);
                tokio::time::sleep(jittered(pause.min(LONGEST_PAUSE))).await;
            }
            let present =
                sessions.wait_for(Option::is_some).await.ok().and_then(|session| session.clone());
            let Some(session) = present else { return Err(Error::Closed("event queue")) };
            if doubted {
                session.declared.lock().await.remove(&names.main);
            }
            declare_once(&shared.link, &session, &names.main, topology::main()).await?;
            let channel = shared.link.within(session.channel()).await?;
            let paused = shared.is_paused(&session, &names).await?;
            Ok((session, channel, paused))
        })
    }

    pub(super) fn opened(&mut self, opened: Result<(Arc<Session>, Channel, bool)>) {
        match opened {
            Ok((session, channel, paused)) => {
                (self.failures, self.doubted) = (0, false);
                self.wires += 1;
                self.current.store(self.wires, Ordering::Release);
                let number = self.wires;
                let unsettled = Unsettled::default();
                self.wire = Some(Wire {
                    number,
                    session,
                    channel,
                    unsettled,
                    consuming: None,
                    saturated: None,
                    long_run_told: None,
                });
                self.paused = paused;
                self.wake_delays();
                if !self.willing {
                    self.ask();
                }
            }
            Err(Error::RabbitMq(reason)) => {
                self.failures += 1;
                if self.failures == 1 {
                    self.log(
                        Level::Error,
                        &format!("cannot be consumed, which is tried again: {reason}"),
                    );
                }
            }
            // Whoever looks after the connection tells it.
            Err(_) => self.failures += 1,
        }
    }

    pub(super) fn wake_delays(&self) {
        let (shared, names) = (Arc::clone(&self.shared), self.names.clone());
        // What fails here fails with the connection, and is done again on the next.
        self.shared.spawn(async move { _ = delays::wake(&shared, &names).await });
    }

    pub(super) fn session_changed(&mut self) {
        self.failures = 0;
        let number = self.sessions.borrow_and_update().as_ref().map(|session| session.number);
        if self.wire.as_ref().is_some_and(|wire| Some(wire.session.number) != number) {
            self.lose(None);
        }
    }

    /// The AMQP channel is lost, and all deliveries on it are others' again. With a reason when the connection is not.
    pub(super) fn lose(&mut self, reason: Option<String>) {
        let Some(wire) = self.wire.take() else { return };
        self.current.store(0, Ordering::Release);
        let mut keys: Vec<String> =
            self.held.drain(..).map(|held| held.envelope.key().to_owned()).collect();
        let mut running = self.running.lock();
        let lost: Vec<u64> = running
            .iter()
            .filter(|(_, run)| run.inner.place.is_some())
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in &lost {
            let Some(run) = running.get_mut(*ticket) else { continue };
            run.inner.place = None;
            let envelope = &run.inner.envelope;
            keys.push(envelope.key().to_owned());
            if let Some(attempt) = envelope.attempt() {
                self.orphans.insert(attempt.to_owned(), *ticket);
            }
        }
        drop(running);
        if !lost.is_empty() {
            self.consumer.changed();
        }
        self.count_put_back(keys);
        // Whoever looks after the connection tells of its loss.
        if let Some(reason) = reason.filter(|_| wire.session.is_up()) {
            self.doubted = true;
            let runs = lost.len();
            self.log(Level::Warn, &format!("has lost its AMQP channel, and makes another; {runs} messages that run may be run again: {reason}"));
        }
        if wire.channel.status().connected() {
            self.shared.spawn(async move { _ = wire.channel.close(200, "closed".into()).await });
        }
    }

    /// Looks whether the AMQP channel is there, and whether a message has run for so long that it may go.
    pub(super) fn look(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        if !wire.channel.status().connected() {
            // With a consumer its stream has the broker's own words.
            let guess = if wire.long_run_told.is_some() {
                ", likely since a message has run for longer than its consumer_timeout"
            } else {
                ""
            };
            return self.lose(Some(format!("the broker has closed it{guess}")));
        }
        let most = self.shared.link.config().consumer_timeout;
        let Some((tag, since)) = wire.unsettled.oldest() else { return };
        if since.elapsed() < most.mul_f64(LONG_RUN) || wire.long_run_told == Some(tag) {
            return;
        }
        wire.long_run_told = Some(tag);
        let is_it = |held: &Held| held.place.is_some_and(|place| place.tag == tag);
        let running = self.running.lock();
        let Some((_, run)) = running.iter().find(|(_, run)| is_it(&run.inner)) else { return };
        let id = &run.inner.envelope.id;
        let (for_ms, most) = (since.elapsed().as_millis(), most.as_millis());
        self.log(Level::Warn, &format!("message {id} has run for {for_ms} ms; a broker before 3.12 gives it to another after its consumer_timeout, {most} ms by the option consumerTimeout"));
    }

    /// When to look next.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let wire = self.wire.as_ref()?;
        let (tag, since) = wire.unsettled.oldest()?;
        let look = Instant::now() + LOOK;
        if wire.long_run_told == Some(tag) {
            return Some(look);
        }
        let long = since + self.shared.link.config().consumer_timeout.mul_f64(LONG_RUN);
        Some(look.min(long))
    }
}

pub(super) async fn maybe(
    opening: &mut Option<Opening>,
) -> Option<Result<(Arc<Session>, Channel, bool)>> {
    match opening {
        Some(opening) => Some(opening.await),
        None => std::future::pending().await,
    }
}
