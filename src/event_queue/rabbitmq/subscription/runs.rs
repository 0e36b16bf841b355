//! Runs: what is here begins as far as there are slots, once the consumer has said that it is idle.

use super::{Held, Subscription};
use crate::event_queue::{
    adapter::{Delivery, Level, Options, Standing},
    rabbitmq::message::retried_before,
    running::Running,
};
use parking_lot::{Mutex, MutexGuard};
use std::{collections::VecDeque, sync::Arc};

/// What runs, or is to: the subscription's, and open to who asks how one of them stands.
#[derive(Clone)]
pub struct Runs(Arc<Mutex<Running<Held>>>);

impl Runs {
    /// None, each of which may run for `max_run` milliseconds at most.
    pub(super) fn new(max_run: u64) -> Self {
        Self(Arc::new(Mutex::new(Running::new(max_run))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Running<Held>> {
        self.0.lock()
    }

    /// See [`EventQueueAdapter::standing`](crate::event_queue::adapter::EventQueueAdapter::standing).
    pub fn standing(&self, ticket: u64) -> Standing {
        match self.lock().get_mut(ticket) {
            Some(run) if run.inner.cancelled => Standing::Cancelled,
            Some(run) if run.inner.place.is_some() => Standing::Ours,
            _ => Standing::Lost,
        }
    }
}

impl Subscription {
    pub(super) fn ask(&mut self) {
        if !self.asked && !self.stopped {
            self.asked = true;
            self.consumer.ready();
        }
    }

    pub(super) fn rest(&mut self) {
        self.permit = None;
        self.rests_at = None;
        if std::mem::take(&mut self.owed) {
            self.consumer.rests();
        }
    }

    /// What is here begins, as far as there are slots.
    pub(super) fn begin(&mut self) {
        let mut begins = Vec::new();
        while self.running.lock().len() < self.limit {
            if self.held.front().is_some_and(|held| held.alone.is_some()) {
                // What makes way for a suspect is not to be here any more when that ends the node.
                if self.moving > 0 {
                    break;
                }
                self.acknowledge();
            }
            let Some(held) = self.held.pop_front() else { break };
            if let Some(delivery) = self.begin_one(held) {
                begins.push(delivery);
            }
        }
        if begins.is_empty() {
            return;
        }
        self.permit = None;
        self.owed = false;
        self.rests_at = None;
        self.shared.began(begins.len());
        self.consumer.begin(begins);
    }

    pub(super) fn begin_one(&mut self, held: Held) -> Option<Delivery> {
        if self.shared.was_cancelled(&self.channel, &held.envelope.id, &held.text) {
            self.log(Level::Info, &format!("message {} was cancelled", held.envelope.id));
            self.drop_one(&held);
            return None;
        }
        let Some(options) = Options::of(&held.text) else {
            self.bury(held, "it is not JSON as this queue publishes it".into());
            return None;
        };
        let counted = if self.shared.settings.crash_counts { self.crashes(&held) } else { 0 };
        let retried = held.envelope.retried.unwrap_or_else(|| retried_before(&options)) + counted;
        if counted > 0 && !options.allows_retry(retried - 1) {
            self.bury(held, "it has ended its node, and is not to be tried again".into());
            return None;
        }
        let (id, text) = (held.envelope.id.clone(), held.text.clone());
        let now = self.now();
        let ticket = self.running.lock().begin(0, options, retried, held, now);
        Some(Delivery { ticket, id, retried, text })
    }

    pub(super) fn cancel(&mut self, id: &str) -> bool {
        let tickets: Vec<u64> = self
            .running
            .lock()
            .iter()
            .filter(|(_, run)| run.inner.envelope.id == id)
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in &tickets {
            if let Some(run) = self.running.lock().get_mut(*ticket) {
                run.inner.cancelled = true;
            }
            self.consumer.cancelled(*ticket);
        }
        let (cancelled, others) =
            std::mem::take(&mut self.held).into_iter().partition(|held| held.envelope.id == id);
        self.held = others;
        let cancelled: VecDeque<Held> = cancelled;
        let found = !tickets.is_empty() || !cancelled.is_empty();
        for held in cancelled {
            self.drop_one(&held);
        }
        found
    }
}
