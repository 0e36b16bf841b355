//! Plain `PUBLISH` and `SUBSCRIBE`, for those who need no more: one connection a process and server that
//! hears by pushes, so that `NocoBase`'s own Redis adapter and this one hear each other. What passes while
//! a connection is lost is lost.

use super::member::Member;
use crate::{
    error::{Error, Result},
    pub_sub::adapter::Gap,
    redis::{Command, Config, Redis, Watch},
};
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use std::{
    collections::HashSet,
    sync::{Arc, LazyLock, Weak},
};
use tokio::runtime::Handle;

/// Hears for all who hold it; ends when it is dropped.
pub struct Listener {
    config: Config,
    redis: Arc<Redis>,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    members: Vec<Arc<Member>>,
    /// Whether a connection was lost that had been open.
    lost: bool,
    /// Whether the server cannot push.
    silent: bool,
}

impl Watch for Inner {
    fn purpose(&self) -> &'static str {
        "subscriber"
    }

    fn stays_awake(&self) -> bool {
        false
    }

    fn greeting(&self, resp3: bool) -> Vec<Command> {
        let mut state = self.state.lock();
        state.silent = !resp3;
        if !resp3 {
            return Vec::new();
        }
        // One a channel: each is answered by one push.
        let channels: HashSet<String> =
            state.members.iter().flat_map(|member| member.channels()).collect();
        channels.iter().map(|channel| Command::new(["SUBSCRIBE", channel])).collect()
    }

    fn opened(&self, _: &[Value]) -> bool {
        let (lost, members) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.lost), state.members.clone())
        };
        if lost {
            for member in members {
                member.tell(Gap::Disconnected);
            }
        }
        true
    }

    fn pushed(&self, push: &PushInfo) {
        if push.kind != PushKind::Message {
            return;
        }
        let [Value::BulkString(channel), Value::BulkString(text)] = push.data.as_slice() else {
            return;
        };
        let (channel, text) = (String::from_utf8_lossy(channel), String::from_utf8_lossy(text));
        let members = self.state.lock().members.clone();
        for member in members {
            member.deliver(&channel, &text);
        }
    }

    fn lost(&self, opened: Option<bool>) {
        self.state.lock().lost |= opened.is_some();
    }
}

static LISTENERS: LazyLock<Mutex<Vec<Weak<Listener>>>> = LazyLock::new(Mutex::default);

impl Listener {
    /// This process's listener to that server.
    pub fn shared(config: &Config, runtime: &Handle) -> Arc<Self> {
        let mut listeners = LISTENERS.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        let present =
            listeners.iter().filter_map(Weak::upgrade).find(|other| other.config == *config);
        present.unwrap_or_else(|| {
            let inner = Arc::<Inner>::default();
            let redis = Redis::open(config.clone(), Arc::clone(&inner) as Arc<dyn Watch>, runtime);
            let listener = Arc::new(Self { config: config.clone(), redis, inner });
            listeners.push(Arc::downgrade(&listener));
            listener
        })
    }

    pub fn join(&self, member: &Arc<Member>) {
        let mut state = self.inner.state.lock();
        if !state.members.iter().any(|other| Arc::ptr_eq(other, member)) {
            state.members.push(Arc::clone(member));
        }
    }

    pub fn leave(&self, member: &Arc<Member>) {
        self.inner.state.lock().members.retain(|other| !Arc::ptr_eq(other, member));
    }

    /// Hears a channel, for a member that has joined.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the server is away, [`Error::Unsupported`] when it cannot push.
    pub async fn subscribe(&self, channel: &str) -> Result<()> {
        // Whether it can is known once there is a connection.
        self.redis.ask(Command::new(["PING"])).await?;
        if self.inner.state.lock().silent {
            return Err(unsupported());
        }
        // Also when it is heard already: this resolves when it surely is.
        self.redis.ask(Command::new(["SUBSCRIBE", channel])).await.map(|_| ())
    }

    /// Hears a channel no more, unless a member does.
    pub async fn unsubscribe(&self, channel: &str) {
        let unheard = {
            let state = self.inner.state.lock();
            !state.silent && !state.members.iter().any(|member| member.hears(channel))
        };
        if unheard {
            // A connection that is lost hears nothing anyway.
            _ = self.redis.ask(Command::new(["UNSUBSCRIBE", channel])).await;
        }
    }
}

/// The error for a server that cannot do it.
pub fn unsupported() -> Error {
    Error::Unsupported(
        "delivery 'volatile' needs one Redis server (no cluster) of version 6 or newer, over RESP3"
            .into(),
    )
}
