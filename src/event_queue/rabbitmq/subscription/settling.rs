//! What becomes of a message: it is acknowledged, goes elsewhere and is acknowledged then, or goes back.

use super::{Command, Held, Place, Subscription};
use crate::{
    error::Error,
    event_queue::{
        adapter::{Level, Outcome},
        rabbitmq::{connection::describe, message::Envelope, publisher::Target},
        running::Run,
    },
};
use futures_util::FutureExt as _;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// How often a message whose way on was not stored is published again.
const PAUSE: Duration = Duration::from_secs(1);

/// How an attempt stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// A delivery on the wire of that number is here, and was not settled.
    Here(u64),
    /// It is not here any more, and has not ended.
    Away,
    /// It has ended.
    Done,
}

/// What is known of a delivery once something else has taken its place.
pub enum Past {
    /// The attempt of that name has ended.
    Done(Arc<str>),
    /// The message of that key is there as a copy.
    Moved(Arc<str>),
    /// Nothing: others have published it.
    Unknown,
}

impl Subscription {
    /// A run has ended.
    pub(super) fn ended(&mut self, run: Run<Held>, outcome: Outcome) {
        let Run { options, retried, inner: held, .. } = run;
        let Some(place) = held.place else {
            // Its delivery was lost, and the broker gives it to somebody; if that is this node it is known here.
            if let Some(attempt) = held.envelope.attempt() {
                self.orphans.remove(attempt);
            }
            if matches!(outcome, Outcome::Processed) || held.cancelled {
                self.know(&held.envelope, Known::Done);
            } else if !matches!(outcome, Outcome::Returned) {
                self.log(
                    Level::Warn,
                    &format!(
                        "message {} failed after the broker had given it to another",
                        held.envelope.id
                    ),
                );
            }
            return;
        };
        match outcome {
            Outcome::Processed => self.settle(&held.envelope, place),
            Outcome::Returned => self.hand_back(held),
            Outcome::Failed(_) if held.cancelled => self.settle(&held.envelope, place),
            Outcome::Failed(_) if options.allows_retry(retried) => {
                let pause = options.pause(retried);
                // Nodes that say what has failed were not ended by it.
                let envelope = Envelope { retried: Some(retried + 1), crashes: 0, ..held.envelope };
                self.move_on(place, Target::Delay(pause), envelope, held.text);
            }
            Outcome::Failed(error) => {
                let envelope =
                    Envelope { retried: Some(retried), error: Some(error), ..held.envelope };
                self.move_on(place, Target::Dead, envelope, held.text);
            }
        }
    }

    pub(super) fn settle(&mut self, envelope: &Envelope, place: Place) {
        self.know(envelope, Known::Done);
        self.done(place);
    }

    pub(super) fn drop_one(&mut self, held: &Held) {
        if let Some(place) = held.place {
            self.settle(&held.envelope, place);
        }
    }

    pub(super) fn bury(&mut self, held: Held, error: String) {
        self.log(Level::Error, &format!("message {} is a dead letter: {error}", held.envelope.id));
        if let Some(place) = held.place {
            let envelope = Envelope { error: Some(error), ..held.envelope };
            self.move_on(place, Target::Dead, envelope, held.text);
        }
    }

    /// The attempt has ended, and another of the message is published elsewhere.
    pub(super) fn move_on(
        &mut self,
        place: Place,
        target: Target,
        envelope: Envelope,
        text: Vec<u8>,
    ) {
        let past = envelope.attempt().map_or(Past::Unknown, |attempt| Past::Done(attempt.into()));
        let nonce = Some(self.shared.unique.next());
        self.replace(place, target, Envelope { nonce, origin: None, ..envelope }, text, past);
    }

    /// The message is published elsewhere as it is: it was not attempted here.
    pub(super) fn copy_on(
        &mut self,
        place: Place,
        target: Target,
        envelope: Envelope,
        text: Vec<u8>,
    ) {
        self.log(Level::Debug, &format!("message {} is published anew, as a copy", envelope.id));
        let is_ours = envelope.attempt().is_some();
        let past = if is_ours { Past::Moved(envelope.key().into()) } else { Past::Unknown };
        // The copy may come here before it is known to be stored.
        self.know(&envelope, Known::Away);
        let copy = envelope.copied(self.shared.unique.next());
        self.replace(place, target, copy, text, past);
    }

    /// Publishes what takes the place of a delivery, which is acknowledged once that is stored, and remembered as `past`.
    fn replace(
        &mut self,
        place: Place,
        target: Target,
        envelope: Envelope,
        text: Vec<u8>,
        past: Past,
    ) {
        self.moving += 1;
        let (publisher, channel) = (self.shared.publisher.clone(), Arc::clone(&self.channel));
        let (own, current, consumer) =
            (self.own.clone(), Arc::clone(&self.current), Arc::clone(&self.consumer));
        let task = async move {
            let mut told = false;
            let stored = loop {
                match publisher
                    .send(Arc::clone(&channel), target, envelope.clone(), text.clone())
                    .await
                {
                    Ok(()) => break true,
                    // Others have it then.
                    Err(_) if current.load(Ordering::Acquire) != place.wire => break false,
                    Err(Error::Closed(_)) => break false,
                    Err(error) => {
                        tokio::time::sleep(PAUSE).await;
                        // Whoever publishes may have heard first that the connection is lost.
                        if current.load(Ordering::Acquire) != place.wire {
                            break false;
                        }
                        if !std::mem::replace(&mut told, true) {
                            let id = &envelope.id;
                            consumer.log(Level::Warn, format!("what became of message {id} of event queue channel {channel} could not be stored, which is tried again: {error}"));
                        }
                    }
                }
            };
            if let Some(own) = own.upgrade() {
                _ = own.send(Command::Moved(place, past, stored));
            }
        };
        self.shared.spawn(task);
    }

    /// The message is others' again, and has not failed.
    pub(super) fn hand_back(&mut self, held: Held) {
        let (Some(place), Some(wire)) = (held.place, &mut self.wire) else { return };
        if wire.number != place.wire {
            return;
        }
        if held.returns > 0 {
            // Put back again and again it could not be told from one that ends its nodes.
            let envelope = Envelope { crashes: self.crashes(&held), ..held.envelope };
            self.copy_on(place, Target::Main, envelope, held.text);
            return;
        }
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        _ = wire.channel.basic_nack(place.tag, options).now_or_never();
        wire.unsettled.told(place.tag);
        self.know(&held.envelope, Known::Away);
        self.count_put_back(vec![held.envelope.key().to_owned()]);
    }

    /// These are not to count as having ended their node, here and elsewhere.
    pub(super) fn count_put_back(&mut self, keys: Vec<String>) {
        for key in &keys {
            *self.put_back.entry(key.clone(), 0) += 1;
        }
        if !keys.is_empty() {
            self.shared.control.tell_put_back(&self.channel, keys);
        }
    }

    /// How often a message has ended its node.
    pub(super) fn crashes(&self, held: &Held) -> u32 {
        let ours = self.put_back.get(held.envelope.key()).copied().unwrap_or(0);
        held.envelope.crashes.saturating_add(held.returns.saturating_sub(ours))
    }

    pub(super) fn hand_back_held(&mut self) {
        while let Some(held) = self.held.pop_front() {
            self.hand_back(held);
        }
    }

    pub(super) fn hand_back_all(&mut self) {
        self.stop_consuming();
        let tickets: Vec<u64> = self.running.lock().iter().map(|(ticket, _)| ticket).collect();
        for ticket in tickets {
            let run = self.running.lock().end(ticket);
            if let Some(run) = run {
                self.shared.ended();
                self.hand_back(run.inner);
            }
        }
        self.hand_back_held();
    }

    /// The broker is to be told with the next acknowledgements.
    pub(super) fn done(&mut self, place: Place) {
        if let Some(wire) = self.wire.as_mut().filter(|wire| wire.number == place.wire) {
            wire.unsettled.done(place.tag);
        }
    }

    pub(super) fn remember(&mut self, past: Past) {
        match past {
            Past::Done(attempt) => self.attempts.set(&*attempt, Known::Done),
            Past::Moved(key) => self.moved.set(&*key, ()),
            Past::Unknown => {}
        }
    }

    pub(super) fn know(&mut self, envelope: &Envelope, known: Known) {
        if let Some(attempt) = envelope.attempt() {
            self.attempts.set(attempt, known);
        }
    }

    /// Whether a delivery on that wire is of an attempt that has ended here or is here, or of a message that is there as a copy.
    pub(super) fn is_known(&self, envelope: &Envelope, wire: u64) -> bool {
        let Some(attempt) = envelope.attempt() else { return false };
        let known = self.attempts.get(attempt);
        let is_here = known == Some(&Known::Here(wire));
        is_here || known == Some(&Known::Done) || self.moved.get(envelope.key()).is_some()
    }

    pub(super) fn acknowledge(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let acks = wire.unsettled.acks();
        let through = acks.through.map(|tag| (tag, true));
        for (tag, multiple) in
            through.into_iter().chain(acks.single.into_iter().map(|tag| (tag, false)))
        {
            if let Some(Err(error)) =
                wire.channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never()
            {
                let reason = describe(&error);
                self.lose(Some(reason));
                return;
            }
        }
    }
}
