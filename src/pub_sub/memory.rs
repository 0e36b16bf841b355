//! Pub/sub within the process: buses by name, shared by all apps and worker threads. Texts are
//! handed over through a queue and delivered by a background task, in order.

use super::adapter::{PubSubAdapter, Receiver};
use crate::error::{Error, Result};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

static BUSES: LazyLock<Mutex<HashMap<String, Weak<Bus>>>> = LazyLock::new(Mutex::default);
static MEMBERS: AtomicU64 = AtomicU64::new(0);

/// All who talk under one name.
struct Bus {
    members: Mutex<HashMap<u64, Channels>>,
    queue: mpsc::UnboundedSender<Queued>,
}

type Channels = Arc<Mutex<HashMap<String, Receiver>>>;

enum Queued {
    Text {
        channel: Box<str>,
        text: Arc<str>,
    },
    /// Called when all that was queued before is delivered.
    Mark(Box<dyn FnOnce() + Send>),
}

impl Bus {
    /// The bus of that name; it lasts as long as somebody is on it.
    fn named(name: &str, runtime: &tokio::runtime::Handle) -> Arc<Self> {
        let mut buses = BUSES.lock();
        if let Some(bus) = buses.get(name).and_then(Weak::upgrade) {
            return bus;
        }
        buses.retain(|_, bus| bus.strong_count() > 0);
        let (queue, queued) = mpsc::unbounded_channel();
        let bus = Arc::new(Self { members: Mutex::default(), queue });
        runtime.spawn(deliver(Arc::downgrade(&bus), queued));
        buses.insert(name.to_owned(), Arc::downgrade(&bus));
        bus
    }
}

/// Ends when the bus is gone, for with it goes the sender of the queue.
async fn deliver(bus: Weak<Bus>, mut queued: mpsc::UnboundedReceiver<Queued>) {
    while let Some(next) = queued.recv().await {
        let (channel, text) = match next {
            Queued::Text { channel, text } => (channel, text),
            Queued::Mark(reached) => {
                reached();
                continue;
            }
        };
        let Some(bus) = bus.upgrade() else { continue };
        // Receivers are called without a lock: they may subscribe and unsubscribe.
        let members: Vec<Channels> = bus.members.lock().values().cloned().collect();
        for member in members {
            let receiver = member.lock().get(&*channel).cloned();
            if let Some(receiver) = receiver {
                receiver(&channel, &text);
            }
        }
    }
}

/// One member of a bus.
pub struct MemoryPubSub {
    id: u64,
    bus: Arc<Bus>,
    channels: Channels,
    connected: AtomicBool,
}

impl MemoryPubSub {
    /// A member of the bus of that name, not connected yet. Texts are delivered on `runtime`; that
    /// of the first member serves all.
    pub fn new(bus: &str, runtime: &tokio::runtime::Handle) -> Self {
        Self {
            id: MEMBERS.fetch_add(1, Ordering::Relaxed),
            bus: Bus::named(bus, runtime),
            channels: Channels::default(),
            connected: AtomicBool::new(false),
        }
    }

    /// As [`PubSubAdapter::publish`], at once.
    ///
    /// # Errors
    /// [`Error::Closed`] when the adapter is not connected.
    pub fn publish_now(&self, channel: &str, text: Arc<str>) -> Result<()> {
        if !self.is_connected() {
            return Err(Error::Closed("the pub/sub adapter"));
        }
        self.send(Queued::Text { channel: channel.into(), text })
    }

    /// Calls `reached` when all that was published on the bus before has been delivered.
    ///
    /// # Errors
    /// [`Error::Closed`] when the runtime of the bus has ended.
    pub fn when_delivered(&self, reached: impl FnOnce() + Send + 'static) -> Result<()> {
        self.send(Queued::Mark(Box::new(reached)))
    }

    fn send(&self, queued: Queued) -> Result<()> {
        self.bus.queue.send(queued).map_err(|_| Error::Closed("the pub/sub bus"))
    }

    /// As [`PubSubAdapter::subscribe`], at once.
    pub fn subscribe_now(&self, channel: &str, receiver: Receiver) {
        self.channels.lock().insert(channel.to_owned(), receiver);
    }

    /// As [`PubSubAdapter::unsubscribe`], at once.
    pub fn unsubscribe_now(&self, channel: &str) {
        self.channels.lock().remove(channel);
    }

    /// As [`PubSubAdapter::connect`], at once.
    pub fn connect_now(&self) {
        self.connected.store(true, Ordering::Release);
        self.bus.members.lock().insert(self.id, Arc::clone(&self.channels));
    }

    /// As [`PubSubAdapter::close`], at once.
    pub fn close_now(&self) {
        self.connected.store(false, Ordering::Release);
        self.bus.members.lock().remove(&self.id);
    }
}

impl Drop for MemoryPubSub {
    fn drop(&mut self) {
        self.close_now();
    }
}

#[async_trait]
impl PubSubAdapter for MemoryPubSub {
    fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    async fn connect(&self) -> Result<()> {
        self.connect_now();
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.close_now();
        Ok(())
    }

    async fn subscribe(&self, channel: &str, receiver: Receiver) -> Result<()> {
        self.subscribe_now(channel, receiver);
        Ok(())
    }

    async fn unsubscribe(&self, channel: &str) -> Result<()> {
        self.unsubscribe_now(channel);
        Ok(())
    }

    async fn publish(&self, channel: &str, text: Arc<str>) -> Result<()> {
        self.publish_now(channel, text)
    }
}
