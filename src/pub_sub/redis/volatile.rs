//! Plain `PUBLISH` and `SUBSCRIBE`, for those who need no more: one connection a process and server that
//! hears by pushes, so that NocoBase's own Redis adapter and this one hear each other. What passes while
//! a connection is lost is lost.

use super::member::Member;
use crate::{
    error::{Error, Result},
    pub_sub::adapter::{Gap, Text},
    redis::{Command, Config, Redis, Watch},
};
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use std::{
    collections::HashMap,
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
    /// By channel, how many members hear it.
    channels: HashMap<String, usize>,
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

    fn greeting(&self, resp3: bool) -> Vec<Command> {
        let mut state = self.state.lock();
        state.silent = !resp3;
        if !resp3 {
            return Vec::new();
        }
        // One a channel: each is answered by one push.
        state.channels.keys().map(|channel| Command::new(["SUBSCRIBE", channel])).collect()
    }

    fn opened(&self, _: &[Value]) -> bool {
        let (lost, members) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.lost), state.members.clone())
        };
        if lost {
            members.iter().for_each(|member| member.tell(Gap::Disconnected));
        }
        true
    }

    fn pushed(&self, push: &PushInfo) {
        if push.kind != PushKind::Message {
            return;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let text = match push.data.as_slice() {
            [Value::BulkString(channel), Value::BulkString(bytes)] => {
                Text { channel: text(channel), text: text(bytes) }
            }
            _ => return,
        };
        let members = self.state.lock().members.clone();
        members.iter().for_each(|member| member.deliver(&text));
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

    /// Hears a channel once more.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the server is away, [`Error::Unsupported`] when it cannot push.
    pub async fn subscribe(&self, channel: &str) -> Result<()> {
        *self.inner.state.lock().channels.entry(channel.to_owned()).or_default() += 1;
        // Also when it is heard already: this resolves when it surely is.
        let result = self.redis.ask(Command::new(["PING"])).await;
        let result = match result {
            Ok(_) if self.inner.state.lock().silent => Err(unsupported()),
            Ok(_) => self.redis.ask(Command::new(["SUBSCRIBE", channel])).await.map(|_| ()),
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.release(channel);
        }
        result
    }

    /// Hears a channel once less.
    pub async fn unsubscribe(&self, channel: &str) {
        if self.release(channel) && !self.inner.state.lock().silent {
            // A connection that is lost hears nothing anyway.
            _ = self.redis.ask(Command::new(["UNSUBSCRIBE", channel])).await;
        }
    }

    /// True when nobody hears it any more.
    fn release(&self, channel: &str) -> bool {
        let mut state = self.inner.state.lock();
        let Some(count) = state.channels.get_mut(channel) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            state.channels.remove(channel);
        }
        last
    }
}

pub fn unsupported() -> Error {
    Error::Unsupported(
        "delivery 'volatile' needs one Redis server (no cluster) of version 6 or newer, over RESP3"
            .into(),
    )
}
