//! The process's connection for the locks of one server: commands, and pushed messages on the channels
//! of its nodes. It begins by telling the server of each app's node, before any other command.

use super::{RedisLocks, scripts};
use crate::redis::{Command, Config, Redis, Watch};
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use std::{
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::runtime::Handle;

/// A connection, and who uses it.
pub struct LockConnection {
    pub redis: Arc<Redis>,
    members: Arc<Members>,
}

#[derive(Default)]
struct Members {
    all: Mutex<Vec<Weak<RedisLocks>>>,
    resp3: AtomicBool,
    /// Whether the server pushes messages on this connection.
    hears: AtomicBool,
    warned: AtomicBool,
}

static SHARED: LazyLock<Mutex<Vec<Weak<LockConnection>>>> = LazyLock::new(Mutex::default);

impl LockConnection {
    /// The process's connection for locks on that server, which is made now when there is none.
    pub fn shared(config: Config, runtime: &Handle) -> Arc<Self> {
        let mut shared = SHARED.lock();
        shared.retain(|connection| connection.strong_count() > 0);
        let is_meant = |connection: &Arc<Self>| *connection.redis.config() == config;
        shared.iter().filter_map(Weak::upgrade).find(is_meant).unwrap_or_else(|| {
            let connection = Self::open(config, runtime);
            shared.push(Arc::downgrade(&connection));
            connection
        })
    }

    /// A connection of its own.
    pub fn open(config: Config, runtime: &Handle) -> Arc<Self> {
        let members = Arc::<Members>::default();
        let redis = Redis::open(config, Arc::clone(&members) as Arc<dyn Watch>, runtime);
        Arc::new(Self { redis, members })
    }

    /// Tells the server of a node, now and on each new connection.
    pub fn join(&self, locks: &Arc<RedisLocks>) {
        {
            let mut all = self.members.all.lock();
            all.retain(|member| member.strong_count() > 0);
            all.push(Arc::downgrade(locks));
        }
        let members = Arc::clone(&self.members);
        let introduction = introduction(locks, self.members.resp3.load(Relaxed));
        self.redis.submit(
            move || introduction,
            // When this fails, the next connection begins with the same.
            Box::new(move |replies| {
                let replies: Vec<Value> = replies.into_iter().flatten().flatten().collect();
                if replies.iter().any(is_subscribed) {
                    members.hears.store(true, Relaxed);
                }
                members.introduced(&replies);
            }),
        );
    }
}

impl LockConnection {
    /// The node of that channel is no more: nobody counts it as there.
    pub fn leave(&self, channel: &str) {
        if self.members.hears.load(Relaxed) {
            let command = Command::new(["UNSUBSCRIBE", channel]);
            self.redis.submit(move || vec![command], Box::new(|_| {}));
        }
    }
}

/// What makes the server know a node.
fn introduction(locks: &RedisLocks, resp3: bool) -> Vec<Command> {
    let node = &locks.node;
    let channels = [node.names.channel(&node.name), node.names.reclaim_channel()];
    let subscribe = |channel: &String| Command::new(["SUBSCRIBE", channel]);
    let mut commands: Vec<Command> =
        if resp3 { channels.iter().map(subscribe).collect() } else { Vec::new() };
    commands.push(node.names.attach(&locks.app, node.grace));
    commands
}

impl Members {
    fn each(&self) -> Vec<Arc<RedisLocks>> {
        self.all.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Tells those whose introduction was answered.
    fn introduced(&self, replies: &[Value]) {
        let hears = self.hears.load(Relaxed);
        for reply in replies {
            // The script's answer: the app, the milliseconds left of the grace period, whether the server
            // tells which it is. On a cluster the masters of other slots answer with an error instead.
            let Value::Array(items) = reply else { continue };
            let [Value::BulkString(app), Value::Int(grace), Value::Int(tells)] = items.as_slice()
            else {
                continue;
            };
            if *tells == 0 && !self.warned.swap(true, Relaxed) {
                tracing::warn!(
                    "INFO is refused: a restart of the server with older data goes unnoticed by locks"
                );
            }
            let grace = Duration::from_millis(u64::try_from(*grace).unwrap_or(0));
            for locks in self.each().iter().filter(|locks| locks.app.as_bytes() == app) {
                locks.opened(hears, grace);
            }
        }
    }
}

fn is_subscribed(reply: &Value) -> bool {
    matches!(reply, Value::Push { kind: PushKind::Subscribe, .. })
}

impl Watch for Members {
    fn purpose(&self) -> &'static str {
        "lock"
    }

    fn greeting(&self, resp3: bool) -> Vec<Command> {
        self.resp3.store(resp3, Relaxed);
        let introductions = self.each().into_iter().flat_map(|locks| introduction(&locks, resp3));
        scripts::load().chain(introductions).collect()
    }

    fn opened(&self, replies: &[Value]) -> bool {
        for reply in replies {
            if let Value::ServerError(error) = reply
                && error.code() != "MOVED"
            {
                tracing::warn!(
                    code = error.code(),
                    details = error.details(),
                    "greeting for locks"
                );
            }
        }
        let hears = replies.iter().any(is_subscribed);
        self.hears.store(hears, Relaxed);
        self.introduced(replies);
        hears
    }

    fn pushed(&self, push: &PushInfo) {
        if push.kind != PushKind::Message {
            return;
        }
        let [Value::BulkString(channel), Value::BulkString(text)] = push.data.as_slice() else {
            return;
        };
        let (channel, text) = (String::from_utf8_lossy(channel), String::from_utf8_lossy(text));
        for locks in self.each() {
            if channel.starts_with(&locks.node.names.counter) {
                locks.heard(&channel, &text);
            }
        }
    }

    fn lost(&self, _: Option<bool>) {
        for locks in self.each() {
            locks.lost();
        }
    }
}
