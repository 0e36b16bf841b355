//! Pub/sub: who hears a message, and when. [`PubSub`] is one manager's subscriptions, with the
//! rules on own messages and debounce windows; texts come to it from an [`adapter`], or from one
//! that is written in JavaScript. Nothing here runs on JavaScript's thread but the calls
//! themselves: what nobody is to hear never gets there.

#![forbid(unsafe_code)]

pub mod adapter;
mod debounce;
mod envelope;
pub mod memory;
pub mod redis;

use crate::{
    alarm::{Alarm, Alarmed},
    pub_sub::{
        adapter::{Gap, Incoming},
        debounce::Windows,
        envelope::{Envelope, Publisher},
    },
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

pub use envelope::frame;

/// Who is called with messages.
pub trait Sink: Send + Sync + 'static {
    /// A message for a subscription, as JSON text; `None` for one that was `undefined`.
    fn deliver(&self, subscription: u32, message: Option<&str>);
    /// Messages for a subscription may have been missed.
    fn gap(&self, subscription: u32, gap: Gap);
    /// A text came that is no message of a manager's; it is dropped.
    fn malformed(&self, channel: &str, reason: &str);
}

/// How a subscription is called.
#[derive(Debug, Clone, Copy, Default)]
pub struct Debounce {
    /// The window's length in milliseconds; 0: no window, every message is delivered at once.
    pub window: u64,
    /// Deliver the message that opens a window at once, too.
    pub leading: bool,
}

/// The subscriptions of one manager.
pub struct PubSub {
    publisher: Publisher,
    state: Mutex<State>,
    sink: Box<dyn Sink>,
    alarm: Alarm,
}

#[derive(Default)]
struct State {
    channels: HashMap<String, Vec<Subscription>>,
    windows: Windows,
}

struct Subscription {
    id: u32,
    debounce: Debounce,
}

impl PubSub {
    /// A manager without subscriptions, whose windows end on `runtime`.
    pub fn new(
        publisher_id: String,
        sink: impl Sink,
        runtime: &tokio::runtime::Handle,
    ) -> Arc<Self> {
        let (state, sink) = (Mutex::default(), Box::new(sink));
        let manager = Arc::new(Self {
            publisher: Publisher::new(publisher_id),
            state,
            sink,
            alarm: Alarm::new(),
        });
        manager.alarm.start(runtime, Arc::downgrade(&manager));
        manager
    }

    /// The name under which this manager publishes.
    pub fn publisher_id(&self) -> &str {
        &self.publisher.id
    }

    /// The text of a message of this manager, as [`frame`] makes it.
    pub fn frame(
        &self,
        skip_self: Option<bool>,
        only_self: Option<bool>,
        message: Option<&str>,
    ) -> String {
        self.publisher.frame(skip_self, only_self, message)
    }

    /// Adds a subscription, after those that the channel has. `id` must not be in use.
    pub fn subscribe(&self, channel: &str, id: u32, debounce: Debounce) {
        let mut state = self.state.lock();
        state.channels.entry(channel.to_owned()).or_default().push(Subscription { id, debounce });
    }

    /// Ends a subscription, and the windows that are open for it.
    pub fn unsubscribe(&self, channel: &str, id: u32) {
        let mut state = self.state.lock();
        if let Some(subscriptions) = state.channels.get_mut(channel) {
            subscriptions.retain(|subscription| subscription.id != id);
            if subscriptions.is_empty() {
                state.channels.remove(channel);
            }
        }
        state.windows.cancel(|subscription| subscription == id);
    }

    /// Cancels all open windows: their messages are delivered to nobody.
    pub fn cancel_windows(&self) {
        self.state.lock().windows.cancel(|_| true);
    }

    /// The number of open windows.
    pub fn open_windows(&self) -> usize {
        self.state.lock().windows.len()
    }

    /// Takes what came on a channel.
    pub fn hear(&self, channel: &str, incoming: Incoming<'_>) {
        match incoming {
            Incoming::Text(text) => self.receive(channel, text),
            Incoming::Gap(gap) => self.tell(channel, gap),
        }
    }

    /// Tells all who subscribed the channel of a gap. Their windows stay open: what came, came.
    fn tell(&self, channel: &str, gap: Gap) {
        let state = self.state.lock();
        for Subscription { id, .. } in state.channels.get(channel).into_iter().flatten() {
            self.sink.gap(*id, gap);
        }
    }

    /// Takes a text that came on a channel, and delivers what is due at once.
    pub fn receive(&self, channel: &str, text: &str) {
        let mut state = self.state.lock();
        let State { channels, windows } = &mut *state;
        let Some(subscriptions) = channels.get(channel) else { return };
        let envelope = match Envelope::parse(text) {
            Ok(envelope) => envelope,
            Err(error) => return self.sink.malformed(channel, &error.to_string()),
        };
        if !envelope.is_for(&self.publisher) {
            return;
        }
        let message = envelope.message();
        for Subscription { id, debounce } in subscriptions {
            if debounce.window == 0 {
                self.sink.deliver(*id, message);
                continue;
            }
            let now = self.alarm.now();
            let opened = windows.take(*id, message, now, debounce);
            if let Some(deadline) = opened {
                if debounce.leading {
                    self.sink.deliver(*id, message);
                }
                self.alarm.wake_at(deadline);
            }
        }
    }
}

impl Alarmed for PubSub {
    fn ring(&self, now: u64) -> Option<u64> {
        let mut state = self.state.lock();
        state.windows.end(now, |subscription, message| self.sink.deliver(subscription, message));
        state.windows.next_end()
    }
}
