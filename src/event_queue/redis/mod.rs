//! The event queue on Redis: a stream with one consumer group a channel; what is tried again or kept back in a
//! sorted set; dead letters in a second stream. The layout stands in `keys.rs` and `docs/redis.md`.
//!
//! Messages are told, then fetched. A node that has nothing to do stands in a line on the server; publishing
//! tells as many of the line as there are messages (`lua/common.lua`, `wake`). A node that is told asks its owner
//! whether it is idle, and fetches as many as it has free slots; one that is not, or does not answer, tells the
//! next. While there is a backlog it fetches by `XREADGROUP` alone, in one round trip with the acknowledgements
//! of what has ended (`flight.rs`).
//!
//! A lease is the server's own: how long ago a consumer was heard of. Its length stands in the consumer's
//! name. Every node looks after the others' (`keeper.rs`).

mod adapter;
mod channel;
mod connection;
mod deadlines;
mod entry;
mod flight;
mod keeper;
mod keys;
mod news;
mod others;
mod publish;
mod report;
mod scripts;

use super::{
    adapter::{Consumer, Delivery, Environment, Finished, Level, Options, Outcome},
    running::{Run, Running},
    settings::Settings,
};
use crate::{
    alarm::Alarm,
    redis::{Command, Config, Redis},
};
use channel::{Channel, NEVER, Place};
use connection::QueueConnection;
use entry::{Entry, Tries};
use parking_lot::{Mutex, MutexGuard};
use report::Report;
use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};
use tokio::{runtime::Handle, sync::Notify};

/// A node that was told of messages and has not looked within so many milliseconds tells the next.
const PATIENCE: u64 = 50;
/// How long to wait after a failure.
const PAUSE: u64 = 200;
/// From so many crashes on a message is a suspect: a node runs one of them at a time, so that the others do not
/// die with it again and again.
const SUSPECT: u32 = 3;

/// What the queue knows of a run.
#[derive(Debug, Clone)]
struct Claimed {
    entry: String,
    own_id: Option<String>,
    tries: Tries,
    /// When it was asked for.
    since: u64,
    cancelled: bool,
}

/// The event queue of one app or adapter.
pub struct RedisQueue {
    this: Weak<Self>,
    /// This node's name, which nobody else has.
    node: String,
    settings: Settings,
    connection: Arc<QueueConnection>,
    environment: Arc<dyn Environment>,
    state: Mutex<State>,
    alarm: Alarm,
    /// Told when a channel has settled.
    settled: Notify,
    /// Told when the keeper has something to do sooner.
    sooner: Arc<Notify>,
    hears: AtomicBool,
    /// How often messages waited of which this node was not told.
    silent: AtomicU64,
    /// The server does not let anybody be told of messages.
    wake_refused: AtomicBool,
    monitor_id: u64,
}

struct State {
    channels: Vec<Channel>,
    running: Running<Claimed>,
    /// The connection stands, and since when.
    opened_at: Option<u64>,
    stopped: bool,
    closed: bool,
    /// Suspects that run, or that may be fetched by what is under way.
    suspects: u32,
    /// When the environment was asked, until it answers.
    asked_at: Option<u64>,
    stalled: bool,
    flights: u64,
}

static NEXT_MONITOR: AtomicU64 = AtomicU64::new(1 << 32);

impl RedisQueue {
    /// Begins to connect.
    pub fn open(
        config: Config,
        settings: Settings,
        environment: Arc<dyn Environment>,
        runtime: &Handle,
    ) -> Arc<Self> {
        let connection = QueueConnection::shared(config, runtime);
        let suffix = RandomState::new().hash_one(SystemTime::now());
        let monitor_id = NEXT_MONITOR.fetch_add(1, Relaxed);
        let queue = Arc::new_cyclic(|this: &Weak<Self>| Self {
            this: this.clone(),
            node: format!("{}-{suffix:016x}", std::process::id()),
            state: Mutex::new(State {
                channels: Vec::new(),
                running: Running::new(settings.max_run),
                opened_at: None,
                stopped: false,
                closed: false,
                suspects: 0,
                asked_at: None,
                stalled: false,
                flights: 0,
            }),
            settings,
            connection,
            environment: Arc::clone(&environment),
            alarm: Alarm::new(),
            settled: Notify::new(),
            sooner: Arc::default(),
            hears: AtomicBool::new(false),
            silent: AtomicU64::new(0),
            wake_refused: AtomicBool::new(false),
            monitor_id,
        });
        queue.alarm.start(runtime, Arc::downgrade(&queue));
        keeper::start(&queue, runtime);
        queue.watch_health(environment);
        queue.connection.join(&queue);
        queue
    }

    fn redis(&self) -> &Arc<Redis> {
        &self.connection.redis
    }

    /// A line of the log for each change of the server's state.
    fn watch_health(&self, environment: Arc<dyn Environment>) {
        let (was_away, warned) = (AtomicBool::new(false), AtomicBool::new(false));
        self.redis().monitor().listen(self.monitor_id, move |health| {
            let server = &health.server;
            match health.state {
                crate::redis::State::Away => {
                    was_away.store(true, Relaxed);
                    let reason = health.reason.as_deref().unwrap_or("the connection was lost");
                    environment.log(Level::Warn, format!("{server} is away: {reason}"));
                }
                crate::redis::State::Ready => {
                    if was_away.swap(false, Relaxed) {
                        environment.log(Level::Info, format!("{server} is back"));
                    }
                    let evicts = !health.eviction.is_empty() && health.eviction != "noeviction";
                    if evicts && !warned.swap(true, Relaxed) {
                        let policy = &health.eviction;
                        environment.log(Level::Warn, format!(
                            "the event queue on {server}: the server may evict messages (maxmemory-policy {policy}); use noeviction"
                        ));
                    }
                }
                _ => {}
            }
        });
    }

    fn subscribe_channel(&self, name: &str, concurrency: u32, owner: Arc<dyn Consumer>) -> u32 {
        let mut state = self.state.lock();
        // The place of one that has ended altogether is taken: who subscribes again and again needs no more of them.
        let index = state.channels.iter().position(|channel| channel.is_over);
        let index = index.unwrap_or(state.channels.len());
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let place = format!("{}/{number}", self.node);
        let consumer = format!("{place}:{}", self.settings.lease);
        let mut channel = Channel::new(name, &consumer, &place, concurrency.max(1), owner);
        if let Some(old) = state.channels.get_mut(index) {
            channel.place = Place::Unknown;
            *old = channel;
        } else {
            state.channels.push(channel);
        }
        drop(state);
        self.sooner.notify_one();
        number
    }

    /// Does something with a channel, and sends what comes of it.
    fn act(&self, number: u32, change: impl FnOnce(&mut State, &mut Vec<Command>, u64)) {
        let mut state = self.state.lock();
        let now = self.alarm.now();
        let mut commands = Vec::new();
        if (number as usize) < state.channels.len() {
            change(&mut state, &mut commands, now);
        }
        self.fire(commands);
        self.pump(&mut state, number, now);
        self.set_alarm(&state, number);
        if let Some(channel) = state.channels.get_mut(number as usize) {
            channel.end_if_over();
        }
    }

    /// Sends commands whose replies do not matter.
    fn fire(&self, commands: Vec<Command>) {
        if !commands.is_empty() {
            self.redis().submit(move || commands, Box::new(|_| {}));
        }
    }

    fn set_alarm(&self, state: &State, number: u32) {
        let channel = state.channels.get(number as usize).map_or(NEVER, Channel::next_at);
        let next = channel.min(state.running.next_due().unwrap_or(NEVER));
        if next != NEVER {
            self.alarm.wake_at(next);
        }
    }

    /// What has ended, and whether more may be fetched.
    fn take_turn(&self, number: u32, finished: Vec<Finished>, fetch: bool) {
        self.act(number, |state, commands, now| {
            for Finished { ticket, outcome } in finished {
                let Some(run) = state.end(ticket) else { continue };
                // Of a subscription before this one.
                let other = (run.channel != number).then_some(run.channel);
                state.report(run, outcome);
                if let Some(other) = other {
                    self.pump(state, other, now);
                    state.channels[other as usize].end_if_over();
                }
            }
            let stopped = state.stopped;
            let channel = &mut state.channels[number as usize];
            if channel.told_at.take().is_some() && !fetch {
                commands.push(wake_next(channel));
            }
            channel.wants = fetch && !channel.stopped && !stopped;
            if fetch && !channel.wants {
                channel.owner.rests();
            }
        });
    }

    /// Begins runs of what was asked for at `since`, and tells their owner.
    fn begin(&self, state: &mut State, number: u32, entries: Vec<Entry>, since: u64, now: u64) {
        let bytes = entries.iter().map(|entry| entry.text.len()).sum();
        state.channels[number as usize].fetched(entries.len(), bytes);
        let mut deliveries = Vec::with_capacity(entries.len());
        for Entry { id: entry, text, own_id, tries } in entries {
            if tries.crashes > 0 && state.has_again(number, &entry, since) {
                continue;
            }
            if state.closed {
                // Nobody is there any more to process it.
                let back = Report::Again { entry, tries, pause: 0 };
                state.channels[number as usize].reports.push_back(back);
                continue;
            }
            let channel = &mut state.channels[number as usize];
            if channel.cancelled.contains(&entry) {
                let line = format!(
                    "message {entry} of event queue channel {} was cancelled",
                    channel.name
                );
                channel.owner.log(Level::Info, line);
                channel.reports.push_back(Report::Done { entry, own_id });
                continue;
            }
            let claimed = Claimed { entry, own_id, tries, since, cancelled: false };
            let Some(options) = Options::of(&text) else {
                let error = "the message cannot be read".to_owned();
                let Claimed { entry, tries, .. } = claimed;
                let line = format!(
                    "message {entry} of event queue channel {} cannot be read, and is a dead letter",
                    channel.name
                );
                channel.owner.log(Level::Error, line);
                channel.reports.push_back(Report::Dead { entry, tries, error });
                continue;
            };
            let before = super::adapter::whole(options.retried);
            let retried = tries.retried.saturating_add(u32::try_from(before).unwrap_or(u32::MAX));
            let id = claimed.own_id.as_ref().unwrap_or(&claimed.entry).clone();
            state.suspects += u32::from(tries.crashes >= SUSPECT);
            let ticket = state.running.begin(number, options, retried, claimed, now);
            deliveries.push(Delivery { ticket, id, retried, text });
        }
        let channel = &mut state.channels[number as usize];
        channel.running += u32::try_from(deliveries.len()).unwrap_or(u32::MAX);
        if !deliveries.is_empty() {
            let left = channel.left(since, now, self.settings.lease);
            channel.owner.begin_within(deliveries, left);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Ends a run: its slot is free.
    fn end(&mut self, ticket: u64) -> Option<Run<Claimed>> {
        let run = self.running.end(ticket)?;
        self.free_slot(&run);
        Some(run)
    }

    /// Whether a message that was taken from this node, as one that could not renew its lease, and has come back to it
    /// still runs here or has ended here: then that run counts, and no other begins.
    fn has_again(&mut self, number: u32, entry: &str, since: u64) -> bool {
        let Self { running, channels, .. } = self;
        let is_it = |run: &Run<Claimed>| run.channel == number && run.inner.entry == entry;
        let ticket = running.iter().find(|(_, run)| is_it(run)).map(|(ticket, _)| ticket);
        if let Some(run) = ticket.and_then(|ticket| running.get_mut(ticket)) {
            run.inner.since = since;
            return true;
        }
        channels[number as usize].reports.iter().any(|report| report.entry() == entry)
    }

    fn free_slot(&mut self, run: &Run<Claimed>) {
        self.suspects -= u32::from(run.inner.tries.crashes >= SUSPECT);
        if let Some(channel) = self.channels.get_mut(run.channel as usize) {
            channel.running -= 1;
        }
    }

    /// What became of a run is to be told to the server.
    fn report(&mut self, run: Run<Claimed>, outcome: Outcome) {
        let Run { channel, options, retried, inner: Claimed { entry, own_id, tries, .. }, .. } =
            run;
        let report = match outcome {
            Outcome::Processed => Report::Done { entry, own_id },
            Outcome::Failed(_) if options.allows_retry(retried) => {
                Report::Again { entry, tries: tries.failed(), pause: options.pause(retried) }
            }
            Outcome::Failed(error) => Report::Dead { entry, tries, error },
            Outcome::Returned => Report::Again { entry, tries, pause: 0 },
        };
        if let Some(channel) = self.channels.get_mut(channel as usize) {
            channel.reports.push_back(report);
        }
    }
}

/// In full, as `leave`: nobody would hear that the server does not know the script.
fn wake_next(channel: &Channel) -> Command {
    publish::wake(&channel.keys, 1, true)
}

fn leave(channel: &Channel) -> Command {
    let keys = [channel.keys.stream.as_bytes(), channel.keys.hungry.as_bytes()];
    let arguments = [channel.consumer.as_bytes(), channel.place_name.as_bytes()];
    scripts::LEAVE.command(true, &keys, &arguments)
}

impl Drop for RedisQueue {
    fn drop(&mut self) {
        self.redis().monitor().unlisten(self.monitor_id);
        self.connection.leave(&self.this, &self.node);
    }
}
