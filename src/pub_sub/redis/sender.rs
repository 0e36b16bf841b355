//! The task of an [`Outbox`](super::outbox::Outbox): it sends one batch after the other, and keeps the log
//! within its age.

use super::{
    batch::{Batch, is_passing, while_expiring},
    id::Id,
    keys::unique_name,
    outbox::{Group, Retention, Shared},
    resume::{Answer, Question},
};
use crate::{
    error::Error,
    redis::{Command, State},
};
use std::{
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// The pause before a batch is sent again to a server that is there; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The log is trimmed by age that many times in the time that entries are kept.
const TRIMS: u32 = 10;
const SHORTEST_TRIM: Duration = Duration::from_millis(500);

/// The task behind an outbox.
pub struct Sender {
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
    pub fn new(shared: Arc<Shared>) -> Self {
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

    pub async fn run(mut self) {
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
            // The next connection is asked again.
            let Ok(reply) = while_expiring(asked, &*self.shared).await else { return };
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
