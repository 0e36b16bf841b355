//! The process's connection for the queues on one server: commands, and pushed messages on the channel of each
//! queue's node.

use super::{RedisQueue, keys::news_channel, scripts};
use crate::redis::{Command, Config, Redis, Watch};
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use std::sync::{
    Arc, LazyLock, Weak,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use tokio::runtime::Handle;

/// A connection, and who uses it.
pub struct QueueConnection {
    pub redis: Arc<Redis>,
    members: Arc<Members>,
}

#[derive(Default)]
struct Members {
    all: Mutex<Vec<Weak<RedisQueue>>>,
    resp3: AtomicBool,
    /// Whether the server pushes messages on this connection.
    hears: AtomicBool,
}

static SHARED: LazyLock<Mutex<Vec<Weak<QueueConnection>>>> = LazyLock::new(Mutex::default);

impl QueueConnection {
    /// The process's connection for queues on that server, which is made now when there is none.
    pub fn shared(config: Config, runtime: &Handle) -> Arc<Self> {
        let mut shared = SHARED.lock();
        shared.retain(|connection| connection.strong_count() > 0);
        let is_meant = |connection: &Arc<Self>| *connection.redis.config() == config;
        shared.iter().filter_map(Weak::upgrade).find(is_meant).unwrap_or_else(|| {
            let members = Arc::<Members>::default();
            let redis = Redis::open(config, Arc::clone(&members) as Arc<dyn Watch>, runtime);
            let connection = Arc::new(Self { redis, members });
            shared.push(Arc::downgrade(&connection));
            connection
        })
    }

    /// Has the server push what is for that queue's node, now and on each new connection.
    pub fn join(&self, queue: &Arc<RedisQueue>) {
        {
            let mut all = self.members.all.lock();
            all.retain(|member| member.strong_count() > 0);
            all.push(Arc::downgrade(queue));
        }
        let members = Arc::clone(&self.members);
        let subscribe = Command::new(["SUBSCRIBE", &news_channel(&queue.node)]);
        let (redis, queue) = (Arc::clone(&self.redis), Arc::downgrade(queue));
        self.redis.submit(
            {
                let members = Arc::clone(&members);
                move || if members.resp3.load(Relaxed) { vec![subscribe] } else { Vec::new() }
            },
            // When this fails, the next connection begins with the same.
            Box::new(move |replies| {
                let Ok(replies) = replies else { return };
                if replies.iter().flatten().any(is_subscribed) {
                    members.hears.store(true, Relaxed);
                }
                if let (true, Some(queue)) = (is_ready(&redis), queue.upgrade()) {
                    queue.opened(members.hears.load(Relaxed));
                }
            }),
        );
    }

    /// The node is no more.
    pub fn leave(&self, queue: &Weak<RedisQueue>, node: &str) {
        self.members.all.lock().retain(|member| !member.ptr_eq(queue));
        if self.members.hears.load(Relaxed) {
            let command = Command::new(["UNSUBSCRIBE", &news_channel(node)]);
            self.redis.submit(move || vec![command], Box::new(|_| {}));
        }
    }
}

fn is_ready(redis: &Redis) -> bool {
    redis.monitor().state() == crate::redis::State::Ready
}

fn is_subscribed(reply: &Value) -> bool {
    matches!(reply, Value::Push { kind: PushKind::Subscribe, .. })
}

impl Members {
    fn each(&self) -> Vec<Arc<RedisQueue>> {
        self.all.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

impl Watch for Members {
    fn purpose(&self) -> &'static str {
        "queue"
    }

    fn greeting(&self, resp3: bool) -> Vec<Command> {
        self.resp3.store(resp3, Relaxed);
        let mut commands = scripts::load();
        if resp3 {
            let channels = self.each().into_iter().map(|queue| news_channel(&queue.node));
            commands.extend(channels.map(|channel| Command::new(["SUBSCRIBE", &channel])));
        }
        commands
    }

    fn opened(&self, replies: &[Value]) -> bool {
        for reply in replies {
            if let Value::ServerError(error) = reply {
                tracing::warn!(
                    code = error.code(),
                    details = error.details(),
                    "greeting for queues"
                );
            }
        }
        let hears = self.resp3.load(Relaxed)
            && !replies.iter().any(
                |reply| matches!(reply, Value::ServerError(error) if error.code() == "NOPERM"),
            );
        self.hears.store(hears, Relaxed);
        for queue in self.each() {
            queue.opened(hears);
        }
        hears
    }

    fn pushed(&self, push: &PushInfo) {
        if push.kind != PushKind::Message {
            return;
        }
        let [Value::BulkString(channel), Value::BulkString(text)] = push.data.as_slice() else {
            return;
        };
        let Some(node) = channel.strip_prefix(b"mortise:queue:") else { return };
        for queue in self.each().iter().filter(|queue| queue.node.as_bytes() == node) {
            queue.heard(&String::from_utf8_lossy(text));
        }
    }

    fn lost(&self, _: Option<bool>) {
        for queue in self.each() {
            queue.lost();
        }
    }
}
