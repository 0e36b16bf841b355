//! Pub/sub within the process: buses by name, shared by all apps and worker threads. Texts are
//! handed over through a queue and delivered by a background task, in order.

use super::adapter::{Completion, Incoming, PubSubAdapter, Receiver, Text, Texts};
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
    Text(Text),
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
        let Text { channel, text } = match next {
            Queued::Text(text) => text,
            Queued::Mark(reached) => {
                reached();
                continue;
            }
        };
        let Some(bus) = bus.upgrade() else { continue };
        // Receivers are called without a lock: they may subscribe and unsubscribe.
        let members: Vec<Channels> = bus.members.lock().values().cloned().collect();
        for member in members {
            let receiver = member.lock().get(&channel).cloned();
            if let Some(receiver) = receiver {
                receiver(&channel, Incoming::Text(&text));
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

    /// Calls `reached` when all that was published on the bus before has been delivered.
    ///
    /// # Errors
    /// [`Error::Closed`] when the runtime of the bus has ended.
    fn when_delivered(&self, reached: impl FnOnce() + Send + 'static) -> Result<()> {
        self.send(Queued::Mark(Box::new(reached)))
    }

    fn send(&self, queued: Queued) -> Result<()> {
        self.bus.queue.send(queued).map_err(|_| Error::Closed("the pub/sub bus"))
    }

    fn close_now(&self) {
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
        self.connected.store(true, Ordering::Release);
        self.bus.members.lock().insert(self.id, Arc::clone(&self.channels));
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.close_now();
        Ok(())
    }

    async fn subscribe(&self, channel: &str, receiver: Receiver) -> Result<()> {
        self.channels.lock().insert(channel.to_owned(), receiver);
        Ok(())
    }

    async fn unsubscribe(&self, channel: &str) -> Result<()> {
        self.channels.lock().remove(channel);
        Ok(())
    }

    /// Takes effect at once; completed when the texts are delivered.
    fn submit(&self, texts: Texts, completion: Completion) {
        if !self.is_connected() {
            return completion(Err(Error::Closed("the pub/sub adapter")));
        }
        for text in (texts.make)() {
            if let Err(error) = self.send(Queued::Text(text)) {
                return completion(Err(error));
            }
        }
        // A bus whose runtime has ended drops the mark; nobody is there to be told then.
        _ = self.when_delivered(move || completion(Ok(())));
    }
}
