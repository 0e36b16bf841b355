//! Locks on Redis, for all processes that name the same server and app: first come, first served, with
//! fencing tokens, renewal and no polling.
//!
//! Acquiring, releasing and renewing are one script each (`scripts.rs`, `lua/`). Who must wait stands in a
//! line on the server; a release lets the next in and tells its node over the node's own channel, in the
//! same script. What this process holds and waits for is in `table/`, which renews leases, looks after
//! lines whose holder has lapsed, and takes places up again after a lost connection.
//!
//! A server that has started anew, was replaced or lost its data grants nothing for a *grace period*, in
//! which those who hold locks put them back: as NFS does it after a restart of its server (RFC 8881,
//! section 8.4.2). Tokens begin with the server's clock, in microseconds, and so grow across lost data.

mod adapter;
mod connection;
mod holders;
mod scripts;
mod table;

use crate::{
    alarm::{Alarm, Alarmed},
    error::{Error, Result},
    redis::{Config, Redis, is_unknown},
};
use adapter::Waits;
use connection::LockConnection;
use parking_lot::Mutex;
use redis::Value;
use scripts::{Answer, Done, Names, Node, Op};
use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use table::Table;
use tokio::{runtime::Handle, sync::watch, time::Instant};

pub use table::NEVER;

/// How long nothing is granted after the server has lost what it granted, 2 s.
pub const GRACE_PERIOD: Duration = Duration::from_secs(2);
/// Leases end after this many milliseconds even when they are to last for ever: a hundred years.
const LONGEST: u64 = 100 * 365 * 86_400_000;
/// The numbers of one owner's leases and waits.
const NUMBERS: u64 = 1 << 32;

/// What an owner is told of a lease or a wait of that number.
#[derive(Debug)]
pub enum News {
    /// The key is held from now on.
    Granted {
        /// The fencing token.
        token: u64,
    },
    /// It is held by another, and there was to be no wait.
    Refused,
    /// The wait is over.
    TimedOut,
    /// The lease's time was over.
    Lapsed,
    /// The lease could not be renewed in time, or the server does not know it any more.
    Lost,
    /// It was held for as long as it may be, and lapses when its lease is over.
    Overheld,
    /// The wait was given up, for that reason.
    Failed(Error),
}

/// Someone who holds and waits.
pub trait Owner: Send + Sync {
    /// Something happened. Called with the table locked: it must be quick, and must not call the locks.
    /// Only leases that are watched tell of their end.
    fn tell(&self, number: u64, news: News);
}

/// What is asked for. Times are milliseconds, [`NEVER`] for no end.
#[derive(Clone)]
pub struct Request {
    /// Who asks.
    pub owner: u32,
    /// The number of the lease: the owner's base, and what the owner likes below 2^32.
    pub number: u64,
    /// The lock's key.
    pub key: Arc<str>,
    /// How long to wait at most; 0 not to wait at all.
    pub wait: u64,
    /// How long the lease lasts without a renewal.
    pub lease: u64,
    /// How long it is renewed for.
    pub hold: u64,
    /// Whether the owner hears of its end.
    pub watched: bool,
}

/// The locks of an app on a server, as this process sees them.
pub struct RedisLocks {
    this: Weak<Self>,
    app: String,
    node: Arc<Node>,
    connection: Arc<LockConnection>,
    table: Mutex<Table>,
    outbox: Mutex<Vec<Op>>,
    sending: Mutex<()>,
    alarm: Alarm,
    /// When grants are possible, once the server knows this node.
    attached: watch::Sender<Option<Instant>>,
    last_owner: AtomicU32,
    waits: Arc<Waits>,
    own: u32,
}

static SHARED: LazyLock<Mutex<Vec<Weak<RedisLocks>>>> = LazyLock::new(Mutex::default);

impl RedisLocks {
    /// The process's locks of that app on that server, which are connected now when there are none.
    /// `name` is the node's in inspections; a random suffix makes it unique.
    pub fn shared(
        config: Config,
        app: &str,
        name: &str,
        grace: Duration,
        runtime: &Handle,
    ) -> Arc<Self> {
        let grace = u64::try_from(grace.as_millis()).unwrap_or(LONGEST).clamp(1, LONGEST);
        let mut shared = SHARED.lock();
        shared.retain(|locks| locks.strong_count() > 0);
        let is_meant = |locks: &Arc<Self>| {
            locks.app == app && locks.node.grace == grace && *locks.redis().config() == config
        };
        if let Some(present) = shared.iter().filter_map(Weak::upgrade).find(is_meant) {
            return present;
        }
        let locks = Self::open(LockConnection::shared(config, runtime), app, name, grace, runtime);
        shared.push(Arc::downgrade(&locks));
        locks
    }

    /// As [`shared`](Self::shared), on a connection of its own: a node beside the process's.
    pub fn separate(
        config: Config,
        app: &str,
        name: &str,
        grace: Duration,
        runtime: &Handle,
    ) -> Arc<Self> {
        let grace = u64::try_from(grace.as_millis()).unwrap_or(LONGEST).clamp(1, LONGEST);
        Self::open(LockConnection::open(config, runtime), app, name, grace, runtime)
    }

    fn open(
        connection: Arc<LockConnection>,
        app: &str,
        name: &str,
        grace: u64,
        runtime: &Handle,
    ) -> Arc<Self> {
        let suffix = RandomState::new().hash_one(SystemTime::now()) & 0xFFFF_FFFF;
        let name: String =
            name.chars().map(|c| if c == '|' || c.is_control() { '_' } else { c }).collect();
        let node =
            Node { names: Names::of(app), name: format!("{name}:{suffix:08x}").into(), grace };
        let config = connection.redis.config();
        let patience = u64::try_from(config.command_timeout.as_millis()).unwrap_or(LONGEST);
        let server = config.shown();
        let locks = Arc::new_cyclic(|this: &Weak<Self>| Self {
            this: this.clone(),
            app: app.to_owned(),
            node: Arc::new(node),
            connection,
            table: Mutex::new(Table::new(server, patience)),
            outbox: Mutex::default(),
            sending: Mutex::default(),
            alarm: Alarm::new(),
            attached: watch::Sender::new(None),
            last_owner: AtomicU32::new(1),
            waits: Arc::default(),
            own: 1,
        });
        locks.table.lock().join(1, Arc::clone(&locks.waits) as Arc<dyn Owner>);
        locks.alarm.start(runtime, Arc::downgrade(&locks));
        locks.connection.join(&locks);
        locks
    }

    /// The connection.
    pub fn redis(&self) -> &Arc<Redis> {
        &self.connection.redis
    }

    /// Waits until the server knows this node, and grants locks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be reached.
    pub async fn ready(&self) -> Result<()> {
        let redis = Arc::clone(self.redis());
        let patience = redis.config().connect_timeout;
        let mut attached = self.attached.subscribe();
        let from = tokio::time::timeout(patience, attached.wait_for(Option::is_some)).await;
        let Ok(Ok(from)) = from.map(|from| from.map(|from| *from)) else {
            let (server, reason) = (redis.config().shown(), redis.monitor().reason());
            return Err(Error::Unavailable { server, reason });
        };
        if let Some(from) = from {
            tokio::time::sleep_until(from).await;
        }
        Ok(())
    }

    /// Makes an owner. Its number stands for it, and the numbers of its leases begin with [`base`].
    ///
    /// [`base`]: Self::base
    pub fn add_owner(&self, owner: Arc<dyn Owner>) -> u32 {
        let number = self.last_owner.fetch_add(1, Relaxed) + 1;
        self.table.lock().join(number, owner);
        number
    }

    /// What an owner's numbers begin with.
    pub fn base(owner: u32) -> u64 {
        u64::from(owner) * NUMBERS
    }

    /// Ends an owner: what it holds and waits for is given back.
    pub fn leave(&self, owner: u32) {
        self.act(|table, now| table.leave(owner, true, now, unix_time()));
    }

    /// Ends what an owner waits for, without telling it, and calls `retired` when it holds nothing any
    /// more, which may be at once.
    pub fn retire(&self, owner: u32, retired: impl FnOnce() + Send + 'static) {
        self.act(|table, now| {
            let ops = table.leave(owner, false, now, unix_time());
            table.retire(owner, Box::new(retired));
            ops
        });
    }

    /// Leases and waits of this process.
    pub fn len(&self) -> usize {
        self.table.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does several things in one round trip; see [`Asked`].
    pub fn perform(&self, all: impl IntoIterator<Item = Asked>) {
        self.act(|table, now| {
            let since = unix_time();
            all.into_iter().filter_map(|asked| asked.begin(table, now, since)).collect()
        });
    }

    /// Whether the lease has not ended.
    pub fn is_held(&self, number: u64) -> bool {
        self.table.lock().is_held(number, self.alarm.now())
    }

    /// Changes the table, and sends what comes of it.
    fn act(&self, change: impl FnOnce(&mut Table, u64) -> Vec<Op>) {
        let (soonest, retired) = {
            let mut table = self.table.lock();
            let ops = change(&mut table, self.alarm.now());
            // Under the table's lock, so that commands go out in the order of what they come from.
            self.outbox.lock().extend(ops);
            (table.take_soonest(), table.take_retired())
        };
        if soonest != NEVER {
            self.alarm.wake_at(soonest);
        }
        self.flush();
        for retired in retired {
            retired();
        }
    }

    /// Sends what is in the outbox. Whoever finds another at it leaves it to them: they look again.
    fn flush(&self) {
        while !self.outbox.lock().is_empty() {
            let Some(sending) = self.sending.try_lock() else { return };
            let ops = std::mem::take(&mut *self.outbox.lock());
            self.send(ops);
            drop(sending);
        }
    }

    fn send(&self, ops: Vec<Op>) {
        if ops.is_empty() {
            return;
        }
        let (ops, node) = (Arc::<[Op]>::from(ops), Arc::clone(&self.node));
        let (sent, answered, this) = (self.alarm.now(), Arc::clone(&ops), self.this.clone());
        // On a cluster it is not known when a command is sent, so that no lease counts as held then.
        let clock = (!self.redis().is_cluster()).then(|| self.this.clone());
        let commands = move || {
            let now = clock.and_then(|locks| locks.upgrade()).map_or(NEVER, |it| it.alarm.now());
            ops.iter().map(|op| op.command(&node, now)).collect()
        };
        let completion = move |results| match this.upgrade() {
            Some(locks) => locks.answered(&answered, results, sent),
            None => answered.iter().for_each(Op::forget),
        };
        self.redis().submit(commands, Box::new(completion));
    }

    fn answered(&self, ops: &[Op], results: Result<Vec<Result<Value>>>, sent: u64) {
        self.act(|table, now| {
            let mut next = Vec::new();
            let mut results = results.map(Vec::into_iter);
            for op in ops {
                let reply = match &mut results {
                    Ok(results) => results.next().unwrap_or(Ok(Value::Nil)),
                    Err(error) => Err(error.clone()),
                };
                if reply.as_ref().is_ok_and(is_unknown) {
                    next.push(op.in_full());
                    continue;
                }
                let answer = reply
                    .and_then(|reply| self.redis().check(reply))
                    .and_then(|reply| Answer::read(op, &reply));
                next.extend(table.answered(op, answer, sent, now));
            }
            next
        });
    }

    /// The connection stands; in `grace` the server grants again.
    fn opened(&self, hears: bool, grace: Duration) {
        self.act(|table, now| table.opened(hears, now));
        self.attached.send_replace(Some(Instant::now() + grace));
    }

    fn lost(&self) {
        // On a cluster another master may still be there, perhaps the one that matters.
        let connected = self.redis().is_cluster();
        self.act(|table, now| {
            table.lost(connected, now);
            Vec::new()
        });
    }

    /// The server tells something on a channel of this node.
    fn heard(&self, channel: &str, text: &str) {
        let names = &self.node.names;
        if channel == names.reclaim_channel() {
            return self.act(Table::reclaim);
        }
        if channel != names.channel(&self.node.name) {
            // Of another node on this connection: one with another grace period.
            return;
        }
        let mut parts = text.splitn(3, '|');
        let mut number = || parts.next().and_then(|part| part.parse().ok());
        let (Some(number), Some(token)) = (number(), number()) else { return };
        let Some(key) = parts.next().and_then(|holder| names.key_of(holder)) else { return };
        self.act(|table, now| {
            // On a cluster each master passes it on, the last of them who knows when.
            let trusts = !self.redis().is_cluster();
            table.granted(number, token, key, trusts, now, unix_time()).into_iter().collect()
        });
    }
}

/// Something that is asked of the locks.
pub enum Asked {
    /// A key; the owner is told.
    Request(Request),
    /// The end of a lease. `done` is told whether there was one.
    Release {
        /// The lease.
        number: u64,
        /// Its key; without it, a lease that has ended here is not looked for on the server.
        key: Option<Arc<str>>,
        /// Who is told.
        done: Reply,
    },
    /// The end of a lease or of a wait, without a word.
    GiveUp(u64),
    /// A new end of a lease, in `lease` milliseconds, or in `hold` where that is longer. `done` is told
    /// whether there was one.
    Extend {
        /// The lease.
        number: u64,
        /// Its new length.
        lease: u64,
        /// How long it is renewed for.
        hold: u64,
        /// Whether the owner hears of its end.
        watched: bool,
        /// Who is told.
        done: Reply,
    },
}

/// Who is told of an outcome.
pub type Reply = Box<dyn FnOnce(Result<bool>) + Send>;

impl Asked {
    /// There is nothing that could do it: there was no lease.
    pub fn decline(self) {
        if let Self::Release { done, .. } | Self::Extend { done, .. } = self {
            done(Ok(false));
        }
    }

    fn begin(self, table: &mut Table, now: u64, since: u64) -> Option<Op> {
        match self {
            Self::Request(mut request) => {
                request.lease = request.lease.clamp(1, LONGEST);
                Some(table.request(&request, now, since))
            }
            Self::Release { number, key, done } => {
                table.release(number, key, now, since, Done::new(done))
            }
            Self::GiveUp(number) => table.give_up(number, now, since),
            Self::Extend { number, lease, hold, watched, done } => {
                table.extend(number, lease.clamp(1, LONGEST), hold, watched, now, Done::new(done))
            }
        }
    }
}

impl Alarmed for RedisLocks {
    fn ring(&self, _: u64) -> Option<u64> {
        self.act(Table::ring);
        self.table.lock().next_tick()
    }
}

/// Milliseconds since 1970.
fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

impl Drop for RedisLocks {
    fn drop(&mut self) {
        // What is still held is given back; the connection sends it before it ends.
        let ops = self.table.lock().drain(self.alarm.now(), unix_time());
        self.send(ops);
        self.connection.leave(&self.node.names.channel(&self.node.name));
    }
}
