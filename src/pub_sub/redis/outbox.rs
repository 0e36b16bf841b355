//! What this process publishes on a log. One batch is under way at a time, and what gathers meanwhile
//! is the next: so a batch that must be sent again cannot be overtaken, and with its old sequence
//! numbers is not heard twice.

use super::{
    batch::Expiry,
    bounds::{Bounds, Told},
    entry::MOST_TEXTS,
    keys::Keys,
    sender::Sender,
};
use crate::{
    error::Error,
    pub_sub::adapter::{Completion, Texts},
    redis::{Redis, State},
};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Weak},
    time::Duration,
};
use tokio::{runtime::Handle, sync::Notify, time::Instant};

/// Texts and bytes of one batch, about.
const BATCH_TEXTS: usize = 4096;
const BATCH_BYTES: usize = 1 << 20;

/// How much of a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Entries, about.
    pub length: u64,
    /// Entries older than this are dropped, by and by.
    pub age: Duration,
}

/// A group of texts that were published together.
pub struct Group {
    pub texts: Texts,
    /// Nothing for one that is empty: it waits for those before it.
    pub deadline: Option<Instant>,
    pub told: Told,
}

/// What the outbox and its task share.
pub struct Shared {
    pub redis: Arc<Redis>,
    pub keys: Keys,
    pub retention: Retention,
    pub wake: Notify,
    bounds: Arc<Bounds>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    groups: VecDeque<Group>,
    closed: bool,
}

/// Dropping it ends it, after what was given before is settled.
pub struct Outbox {
    shared: Arc<Shared>,
}

static OUTBOXES: LazyLock<Mutex<Vec<Weak<Outbox>>>> = LazyLock::new(Mutex::default);

impl Outbox {
    /// This process's outbox for that log.
    pub fn shared(
        redis: Arc<Redis>,
        keys: Keys,
        retention: Retention,
        runtime: &Handle,
    ) -> Arc<Self> {
        let mut outboxes = OUTBOXES.lock();
        outboxes.retain(|outbox| outbox.strong_count() > 0);
        let is_same = |outbox: &Arc<Self>| {
            let Shared { redis: other, keys: log, retention: kept, .. } = &*outbox.shared;
            other.config() == redis.config() && *log == keys && *kept == retention
        };
        let present = outboxes.iter().filter_map(Weak::upgrade).find(is_same);
        present.unwrap_or_else(|| {
            let bounds = Bounds::new(redis.config().shown());
            let (queue, wake) = (Mutex::default(), Notify::new());
            let shared = Arc::new(Shared { redis, keys, retention, wake, bounds, queue });
            runtime.spawn(Sender::new(Arc::clone(&shared)).run());
            let outbox = Arc::new(Self { shared });
            outboxes.push(Arc::downgrade(&outbox));
            outbox
        })
    }

    /// Publishes texts after all that were given before. `completion` is called when the server has
    /// them, or when they were given up: refused, or not taken in time.
    pub fn submit(&self, texts: Texts, completion: Completion) {
        let Shared { bounds, redis, .. } = &*self.shared;
        match Bounds::take(bounds, texts.count, texts.bytes) {
            Err(error) => completion(Err(error)),
            Ok(taken) => {
                let deadline = Some(Instant::now() + redis.config().command_timeout);
                self.push(Group { texts, deadline, told: Told::new(completion, Some(taken)) });
            }
        }
    }

    /// Calls `reached` when all that was given before is settled.
    pub fn when_settled(&self, reached: Completion) {
        let texts = Texts { count: 0, bytes: 0, make: Box::new(Vec::new) };
        self.push(Group { texts, deadline: None, told: Told::new(reached, None) });
    }

    fn push(&self, group: Group) {
        self.shared.queue.lock().groups.push_back(group);
        self.shared.wake.notify_one();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    /// The groups of the next batch; nothing when there is none.
    pub fn next(&self) -> Option<Vec<Group>> {
        let mut queue = self.queue.lock();
        let (mut count, mut bytes, mut groups) = (0, 0, Vec::new());
        // On a cluster an entry may be sent elsewhere while the next is not: one at a time keeps order.
        let most = if self.redis.is_cluster() { MOST_TEXTS } else { BATCH_TEXTS };
        while count < most && bytes < BATCH_BYTES {
            let Some(group) = queue.groups.pop_front() else { break };
            count += group.texts.count;
            bytes += group.texts.bytes;
            groups.push(group);
        }
        (!groups.is_empty()).then_some(groups)
    }

    /// Whether nobody holds the outbox any more.
    pub fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }
}

impl Expiry for Shared {
    /// The earliest deadline of those that wait for the next batch.
    fn next_deadline(&self) -> Option<Instant> {
        self.queue.lock().groups.iter().find_map(|group| group.deadline)
    }

    fn expire(&self, now: Instant) {
        let expired: Vec<Group> = {
            let mut queue = self.queue.lock();
            let is_over = |group: &&Group| group.deadline.is_none_or(|at| at <= now);
            let over = queue.groups.iter().take_while(is_over).count();
            // Those that wait for others only stay, and hide nobody.
            let (expired, empty): (Vec<_>, Vec<_>) =
                queue.groups.drain(..over).partition(|group| group.deadline.is_some());
            for group in empty.into_iter().rev() {
                queue.groups.push_front(group);
            }
            expired
        };
        for mut group in expired {
            group.told.tell(Err(self.late()));
        }
    }

    /// Why a text was not taken in time.
    fn late(&self) -> Error {
        let (config, monitor) = (self.redis.config(), self.redis.monitor());
        let server = config.shown();
        match monitor.state() {
            State::Ready => Error::CommandTimeout { server, after: config.command_timeout },
            _ => Error::Unavailable { server, reason: monitor.reason() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{Config, Unwatched};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// An outbox's queue without its task.
    fn shared() -> Shared {
        let config = Config::from_url("redis://127.0.0.1:1").expect("a URL");
        let redis = Redis::open(config, Arc::new(Unwatched), &Handle::current());
        Shared {
            redis,
            keys: Keys::of("app"),
            retention: Retention { length: 1, age: Duration::from_secs(1) },
            wake: Notify::new(),
            bounds: Bounds::new("redis://h".into()),
            queue: Mutex::default(),
        }
    }

    #[tokio::test]
    async fn who_waits_for_others_only_hides_nobody_whose_time_has_passed() {
        let (shared, late) = (shared(), Arc::new(AtomicU32::new(0)));
        let now = Instant::now();
        let deadlines = [None, Some(now), None, Some(now + Duration::from_secs(1))];
        for deadline in deadlines {
            let late = Arc::clone(&late);
            let told = Told::new(Box::new(move |_| _ = late.fetch_add(1, Ordering::Relaxed)), None);
            let texts = Texts { count: 0, bytes: 0, make: Box::new(Vec::new) };
            shared.queue.lock().groups.push_back(Group { texts, deadline, told });
        }
        shared.expire(now);
        assert_eq!(late.load(Ordering::Relaxed), 1);
        let left: Vec<_> = shared.queue.lock().groups.iter().map(|group| group.deadline).collect();
        assert_eq!(left, [None, None, deadlines[3]]);
    }
}
