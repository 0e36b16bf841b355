//! What this process publishes on a log. One batch is under way at a time, and what gathers meanwhile
//! is the next: so a batch that must be sent again cannot be overtaken, and with its old sequence
//! numbers is not heard twice.

use super::{
    batch::{Batch, Expiry},
    bounds::{Bounds, Told},
    id::Id,
    keys::{Keys, unique_name},
    resume::{Answer, Question},
};
use crate::{
    error::Error,
    pub_sub::adapter::{Completion, Texts},
    redis::{Command, Redis, State},
};
use parking_lot::Mutex;
use redis::Value;
use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, LazyLock, Weak},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

/// Texts and bytes of one batch, about.
const BATCH_TEXTS: usize = 4096;
const BATCH_BYTES: usize = 1 << 20;
/// The pause before a batch is sent again to a server that is there; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The log is trimmed by age that many times in the time that entries are kept.
const TRIMS: u32 = 10;
const SHORTEST_TRIM: Duration = Duration::from_millis(500);

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

struct Shared {
    redis: Arc<Redis>,
    keys: Keys,
    retention: Retention,
    bounds: Arc<Bounds>,
    queue: Mutex<Queue>,
    wake: Notify,
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
            let shared = Arc::new(Shared { redis, keys, retention, bounds, queue, wake });
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
    fn next(&self) -> Option<Vec<Group>> {
        let mut queue = self.queue.lock();
        let (mut count, mut bytes, mut groups) = (0, 0, Vec::new());
        // On a cluster an entry may be sent elsewhere while the next is not: one at a time keeps order.
        let most = if self.redis.is_cluster() { super::entry::MOST_TEXTS } else { BATCH_TEXTS };
        while count < most && bytes < BATCH_BYTES {
            let Some(group) = queue.groups.pop_front() else { break };
            count += group.texts.count;
            bytes += group.texts.bytes;
            groups.push(group);
        }
        (!groups.is_empty()).then_some(groups)
    }

    fn is_closed(&self) -> bool {
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
            let mut expired = Vec::new();
            while queue
                .groups
                .front()
                .is_some_and(|group| group.deadline.is_some_and(|at| at <= now))
            {
                expired.extend(queue.groups.pop_front());
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

/// The task behind an outbox.
struct Sender {
    shared: Arc<Shared>,
    name: String,
    sequence: u64,
    states: watch::Receiver<State>,
    /// What is known of the log, to tell when the server has lost what it had acknowledged.
    epoch: String,
    newest: Option<Id>,
    /// Whether the connection has changed since the log was looked at.
    unchecked: bool,
    trim_at: Option<Instant>,
    last_sent: Instant,
}

impl Sender {
    fn new(shared: Arc<Shared>) -> Self {
        let states = shared.redis.monitor().states();
        Self {
            shared,
            name: unique_name(),
            sequence: 0,
            states,
            epoch: String::new(),
            newest: None,
            unchecked: true,
            trim_at: None,
            last_sent: Instant::now(),
        }
    }

    async fn run(mut self) {
        loop {
            // Asked for before the look, so that what comes in between wakes.
            let shared = Arc::clone(&self.shared);
            let woken = shared.wake.notified();
            if let Some(groups) = shared.next() {
                drop(woken);
                self.deliver(groups).await;
                continue;
            }
            if shared.is_closed() {
                return;
            }
            tokio::select! {
                () = woken => {}
                Ok(()) = self.states.changed() => self.check_changed(),
                () = at(self.trim_at) => self.trim(),
            }
            if self.unchecked && *self.states.borrow() == State::Ready && self.newest.is_some() {
                self.check().await;
            }
        }
    }

    /// Notes a connection that is not the one on which the log was looked at.
    fn check_changed(&mut self) {
        self.states.mark_unchanged();
        self.unchecked = true;
    }

    /// Sends a batch until all of it is settled.
    async fn deliver(&mut self, groups: Vec<Group>) {
        let cut = !self.shared.redis.is_cluster();
        let mut batch = Batch::new(groups, &mut self.sequence, cut);
        let mut pause = FIRST_PAUSE;
        while !batch.is_settled() {
            let commands =
                batch.commands(&self.shared.keys, self.shared.retention.length, &self.name);
            let shared = Arc::clone(&self.shared);
            let sending = shared.redis.batch(commands);
            // Given up when nobody waits for it any more.
            let Some(outcome) = batch.while_waiting(sending, &*shared).await else { break };
            match outcome {
                Err(Error::Unavailable { .. } | Error::CommandTimeout { .. }) => {}
                Err(error) => batch.fail(&error),
                Ok(results) => {
                    if let Some(newest) = batch.take(&shared.redis, results, &mut self.sequence) {
                        self.acknowledged(newest).await;
                    }
                }
            }
            if batch.is_settled() {
                break;
            }
            let ready = self.ready_after(pause);
            if batch.while_waiting(ready, &*shared).await.is_none() {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        batch.end();
    }

    /// Waits until the server can be reached, and for a pause in any case.
    fn ready_after(&self, pause: Duration) -> impl Future<Output = ()> + use<> {
        let mut states = self.states.clone();
        async move {
            tokio::time::sleep(pause).await;
            _ = states.wait_for(|state| matches!(state, State::Ready | State::Closed)).await;
        }
    }

    /// The server has entries up to that one. Before it is taken over, a new connection's server is
    /// asked for the one before.
    async fn acknowledged(&mut self, newest: Id) {
        if self.states.has_changed().unwrap_or(false) {
            self.check_changed();
        }
        if self.unchecked {
            self.check().await;
        }
        self.newest = self.newest.max(Some(newest));
        self.last_sent = Instant::now();
        let age = self.shared.retention.age;
        let due = jittered((age / TRIMS).max(SHORTEST_TRIM));
        let at = self.last_sent + due;
        if self.trim_at.is_none_or(|earlier| earlier > at) {
            self.trim_at = Some(at);
        }
        if self.trim_at.is_some_and(|at| at <= self.last_sent) {
            self.trim();
        }
    }

    /// Has the log looked at: a server that has lost what it had acknowledged makes a new epoch.
    async fn check(&mut self) {
        let Shared { redis, keys, .. } = &*self.shared;
        for in_full in [false, true] {
            let newest = self.newest.filter(|_| !self.epoch.is_empty());
            let question = Question { epoch: self.epoch.clone(), newest, ..Question::default() };
            let asked = redis.call(question.command(keys, in_full));
            let reply = match timeout(redis.config().command_timeout, asked).await {
                Ok(Ok(reply)) => reply,
                // The next connection is asked again.
                Ok(Err(_)) | Err(_) => return,
            };
            if crate::redis::is_unknown(&reply) {
                continue;
            }
            if is_passing(&reply) {
                return;
            }
            self.unchecked = false;
            if let Some(answer) = Answer::parse(&reply) {
                if answer.epoch != self.epoch && !self.epoch.is_empty() {
                    self.newest = None;
                }
                self.epoch = answer.epoch;
            }
            return;
        }
    }

    /// Drops what is too old, by the server's clock as its last answer and the time since tell.
    fn trim(&mut self) {
        let now = Instant::now();
        let Retention { age, .. } = self.shared.retention;
        let silent = now - self.last_sent;
        // Once more when all of it is too old; then not before something is published again.
        self.trim_at =
            (silent < age + age / TRIMS).then(|| now + jittered((age / TRIMS).max(SHORTEST_TRIM)));
        let Some(newest) = self.newest else { return };
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let server = newest.milliseconds.saturating_add(milliseconds(silent));
        let oldest = server.saturating_sub(milliseconds(age)).to_string();
        let log = self.shared.keys.log.clone();
        let commands = move || vec![Command::new(["XTRIM", &log, "MINID", "~", &oldest])];
        // A server before 6.2 does not know it; the log is bounded by its length all the same.
        self.shared.redis.submit(commands, Box::new(|_| {}));
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

/// Between half of it and all, so that nodes do not do it in step.
fn jittered(time: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(1_u8) % 1000;
    time.mul_f64(0.5 + f64::from(u16::try_from(random).unwrap_or(0)) / 2000.0)
}

/// Whether a server refuses for now what it will take later, or another server takes.
pub fn is_passing(reply: &Value) -> bool {
    const PASSING: [&str; 6] =
        ["READONLY", "LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY"];
    matches!(reply, Value::ServerError(error) if PASSING.contains(&error.code()))
}
