//! Fetching: the consumer, how much it may have, and what it brings.

use super::{Held, Place, Subscription, Wire, settling::Known, wire::Consuming};
use crate::event_queue::rabbitmq::{
    SUSPECT, connection::describe, message::Envelope, publisher::Target,
};
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// For how long a permission to fetch holds, and how long a new consumer may find nothing before the channel rests.
pub(super) const WINDOW: Duration = Duration::from_millis(50);
/// What an AMQP channel is given unasked at first, where any number may run; it grows as they run.
pub(super) const FIRST_WINDOW: usize = 256;
/// AMQP counts what it gives unasked in 16 bits.
pub(super) const LARGEST_WINDOW: usize = u16::MAX as usize;
/// How long a consumer has all that it may have before it is made anew for more.
pub(super) const SATURATED: Duration = Duration::from_millis(10);
/// For how many milliseconds a suspect is kept back that comes to a node which has one.
const SUSPECT_PAUSE: u64 = 500;

impl Subscription {
    pub(super) fn is_consuming(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.consuming.is_some())
    }

    /// Whether there may be a consumer.
    pub(super) fn may_fetch(&self) -> bool {
        self.willing && !self.stopped && !self.paused && !self.stalled
    }

    /// Makes a consumer, if there is none.
    pub(super) fn consume(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        if wire.consuming.is_some() {
            return;
        }
        let capacity = self.limit.min(self.window);
        let prefetch = capacity.saturating_sub(wire.unsettled.open());
        let Some(count) = u16::try_from(prefetch).ok().filter(|&count| count > 0) else { return };
        wire.unsettled.draw_line();
        // Nobody waits for the replies: what fails closes the AMQP channel, which is noticed.
        _ = wire.channel.basic_qos(count, BasicQosOptions::default()).now_or_never();
        let options = BasicConsumeOptions { nowait: true, ..BasicConsumeOptions::default() };
        let tag = self.shared.unique.next();
        let consumer = wire.channel.basic_consume(
            self.names.main.as_str().into(),
            tag.into(),
            options,
            FieldTable::default(),
        );
        match consumer.now_or_never() {
            Some(Ok(stream)) => {
                wire.consuming = Some(Consuming { stream, prefetch, ends: false });
                self.rests_at = Some(Instant::now() + WINDOW);
            }
            Some(Err(error)) => {
                let reason = describe(&error);
                self.lose(Some(reason));
            }
            None => self.lose(Some("the consumer was not made".into())),
        }
    }

    pub(super) fn stop_consuming(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let Some(consuming) = wire.consuming.as_mut().filter(|consuming| !consuming.ends) else {
            return;
        };
        consuming.ends = true;
        _ = wire
            .channel
            .basic_cancel(consuming.stream.tag(), BasicCancelOptions::default())
            .now_or_never();
    }

    /// A consumer that has all it may have, while there are free slots, makes way for one that may have more.
    pub(super) fn renew(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let open = wire.unsettled.open();
        let has_all =
            |consuming: &Consuming| !consuming.ends && wire.unsettled.newer() >= consuming.prefetch;
        if open >= self.limit
            || !self.held.is_empty()
            || !wire.consuming.as_ref().is_some_and(has_all)
        {
            wire.saturated = None;
            return;
        }
        if wire.saturated.get_or_insert_with(Instant::now).elapsed() < SATURATED {
            return;
        }
        wire.saturated = None;
        if open >= self.window {
            self.window = (self.window * 2).min(LARGEST_WINDOW);
        }
        self.stop_consuming();
    }

    /// Messages have come, or the consumer has ended.
    pub(super) fn arrived(&mut self, first: Option<lapin::Result<lapin::message::Delivery>>) {
        let mut next = Some(first);
        while let Some(delivery) = next {
            match delivery {
                Some(Ok(delivery)) => self.take(delivery),
                Some(Err(error)) => return self.lose(Some(describe(&error))),
                None => return self.consumer_ended(),
            }
            let stream = self.wire.as_mut().and_then(|wire| wire.consuming.as_mut());
            next = stream.and_then(|consuming| consuming.stream.next().now_or_never());
        }
    }

    pub(super) fn consumer_ended(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        if wire.consuming.take().is_some_and(|consuming| consuming.ends) {
            return;
        }
        self.lose(Some("the broker has ended the consumer: the queue was deleted".into()));
    }

    pub(super) fn take(&mut self, delivery: lapin::message::Delivery) {
        let Some(wire) = &mut self.wire else { return };
        let tag = delivery.delivery_tag;
        let place = Place { wire: wire.number, tag };
        wire.unsettled.add(tag, Instant::now());
        let (mut envelope, returns) = Envelope::of(&delivery.properties);
        // Also of what is not said to come again: it may be a copy, and a broker that was killed may have forgotten it.
        if self.is_known(&envelope, place.wire) {
            return self.done(place);
        }
        self.know(&envelope, Known::Here(place.wire));
        let orphan = envelope.attempt().and_then(|attempt| self.orphans.remove(attempt));
        if let Some(ticket) = orphan
            && let Some(run) = self.running.lock().get_mut(ticket)
        {
            (run.inner.place, run.inner.returns) = (Some(place), returns);
            run.inner.envelope = Envelope { left: 0, ..envelope };
            return;
        }
        let text = delivery.data;
        if envelope.left > 0 {
            let left = std::mem::take(&mut envelope.left);
            return self.copy_on(place, Target::Delay(left), envelope, text);
        }
        let mut held =
            Held { place: Some(place), envelope, returns, text, cancelled: false, alone: None };
        let crashes = self.crashes(&held);
        if crashes >= self.shared.settings.max_crashes {
            let error = format!("it has ended its node {crashes} times");
            return self.bury(held, error);
        }
        if crashes >= SUSPECT {
            let Ok(alone) = Arc::clone(&self.shared.alone).try_acquire_owned() else {
                // It must not be here when the other ends the node.
                let envelope = Envelope { crashes, ..held.envelope };
                return self.copy_on(place, Target::Delay(SUSPECT_PAUSE), envelope, held.text);
            };
            held.alone = Some(alone);
        }
        self.held.push_back(held);
    }
}

/// The next delivery, never without a consumer.
pub(super) async fn next(
    wire: &mut Option<Wire>,
) -> Option<lapin::Result<lapin::message::Delivery>> {
    match wire.as_mut().and_then(|wire| wire.consuming.as_mut()) {
        Some(consuming) => consuming.stream.next().await,
        None => std::future::pending().await,
    }
}
