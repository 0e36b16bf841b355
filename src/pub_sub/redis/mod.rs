//! Pub/sub on Redis. By default a capped log, one stream an app, of which every node reads all from its
//! own position and keeps what is on its channels: what passes while a connection is cut or a process
//! is stopped is read afterwards, and what cannot be read any more is told of as a [`Gap`].
//!
//! Layout: `mortise:{<app>}:bus`, a stream whose entries are what one publisher sent in one go (`entry.rs`);
//! `mortise:{<app>}:bus:epoch`, the name of this very log (`resume.rs`).

mod batch;
mod bounds;
mod entry;
mod id;
mod keys;
mod log;
mod member;
mod outbox;
mod read_loop;
mod reader;
mod resume;
mod sender;
mod volatile;

use super::adapter::{Completion, Gap, PubSubAdapter, Receiver, Texts, check_channel};
use crate::{
    error::{Error, Result},
    redis::{Command, Config, Redis, State},
};
use async_trait::async_trait;
use bounds::{Bounds, Told};
use keys::Keys;
use member::Member;
use outbox::{Outbox, Retention};
use parking_lot::Mutex;
use reader::Reader;
use std::{sync::Arc, time::Duration};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};
use volatile::Listener;

/// How many entries of the log are kept, about. Defaults to 10 000.
pub const MAX_LENGTH: u64 = 10_000;
/// How long entries are kept. Defaults to 10 minutes.
pub const MAX_AGE: Duration = Duration::from_secs(600);

/// How texts are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// By the log.
    Log {
        /// See [`MAX_LENGTH`].
        max_length: u64,
        /// See [`MAX_AGE`].
        max_age: Duration,
    },
    /// By plain `PUBLISH`.
    Volatile,
}

/// Carries the texts of one app between all its nodes on a server.
pub struct RedisPubSub {
    config: Config,
    keys: Keys,
    delivery: Delivery,
    runtime: Handle,
    member: Arc<Member>,
    /// Held while it is connected, closed, subscribed: one after the other.
    turn: tokio::sync::Mutex<()>,
    open: Mutex<Option<Open>>,
}

#[derive(Clone)]
struct Open {
    redis: Arc<Redis>,
    line: Line,
}

#[derive(Clone)]
enum Line {
    Log { outbox: Arc<Outbox>, reader: Option<Arc<Reader>> },
    Volatile { bounds: Arc<Bounds>, listener: Option<Arc<Listener>> },
}

impl RedisPubSub {
    /// Not connected yet. Nodes hear each other that have the same `app` on the same server.
    /// `on_gap` is told of each gap, before the receivers are.
    pub fn new(
        config: Config,
        app: &str,
        delivery: Delivery,
        on_gap: impl Fn(Gap) + Send + Sync + 'static,
        runtime: &Handle,
    ) -> Self {
        Self {
            config,
            keys: Keys::of(app),
            delivery,
            runtime: runtime.clone(),
            member: Member::new(Box::new(on_gap)),
            turn: tokio::sync::Mutex::default(),
            open: Mutex::new(None),
        }
    }

    fn opened(&self) -> Result<Open> {
        self.open.lock().clone().ok_or(Error::Closed("the pub/sub adapter"))
    }

    fn line(&self, redis: &Arc<Redis>) -> Result<Line> {
        match self.delivery {
            Delivery::Log { max_length: length, max_age: age } => {
                let (redis, keys) = (Arc::clone(redis), self.keys.clone());
                let retention = Retention { length, age };
                let outbox = Outbox::shared(redis, keys, retention, &self.runtime);
                Ok(Line::Log { outbox, reader: None })
            }
            Delivery::Volatile => {
                if redis.monitor().health().protocol < 3 {
                    return Err(volatile::unsupported());
                }
                Ok(Line::Volatile { bounds: Bounds::new(self.config.shown()), listener: None })
            }
        }
    }

    /// Waits for the server.
    async fn reach(&self, redis: &Redis) -> Result<()> {
        let mut states = redis.monitor().states();
        let ready = states.wait_for(|state| *state == State::Ready);
        if matches!(timeout(self.config.connect_timeout, ready).await, Ok(Ok(_))) {
            return Ok(());
        }
        let reason = redis.monitor().reason();
        Err(Error::Unavailable { server: self.config.shown(), reason })
    }

    /// Hears a channel on what is open.
    async fn hear(&self, open: &mut Open, channel: &str) -> Result<()> {
        match &mut open.line {
            Line::Log { reader, .. } => {
                if reader.is_none() {
                    let made = Reader::shared(&open.redis, &self.keys, &self.runtime);
                    made.join(&self.keys, &self.member).await?;
                    *reader = Some(made);
                }
                Ok(())
            }
            Line::Volatile { listener, .. } => {
                let listener =
                    listener.get_or_insert_with(|| Listener::shared(&self.config, &self.runtime));
                listener.join(&self.member);
                listener.subscribe(channel).await
            }
        }
    }

    fn leave(&self, open: &mut Open) {
        match &mut open.line {
            Line::Log { reader, .. } => {
                if let Some(reader) = reader.take() {
                    reader.leave(&self.keys, &self.member);
                }
            }
            Line::Volatile { listener, .. } => {
                if let Some(listener) = listener.take() {
                    listener.leave(&self.member);
                }
            }
        }
    }
}

impl Drop for RedisPubSub {
    fn drop(&mut self) {
        self.member.set_active(false);
        if let Some(mut open) = self.open.lock().take() {
            self.leave(&mut open);
        }
    }
}

#[async_trait]
impl PubSubAdapter for RedisPubSub {
    fn is_connected(&self) -> bool {
        self.open.lock().is_some()
    }

    /// Resolves when the server can be reached and all that was subscribed is heard.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be within the connect timeout; [`Error::Unsupported`] for
    /// volatile delivery where the server cannot push.
    async fn connect(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        if self.is_connected() {
            return Ok(());
        }
        let redis = Redis::shared(self.config.clone(), &self.runtime);
        if self.delivery == Delivery::Volatile && redis.is_cluster() {
            return Err(volatile::unsupported());
        }
        self.reach(&redis).await?;
        let mut open = Open { line: self.line(&redis)?, redis };
        for channel in self.member.channels() {
            if let Err(error) = self.hear(&mut open, &channel).await {
                self.leave(&mut open);
                return Err(error);
            }
        }
        *self.open.lock() = Some(open);
        self.member.set_active(true);
        Ok(())
    }

    /// Resolves when what was published before is settled, at the latest after the command timeout.
    async fn close(&self) -> Result<()> {
        self.member.set_active(false);
        let _turn = self.turn.lock().await;
        self.member.set_active(false);
        let Some(mut open) = self.open.lock().take() else { return Ok(()) };
        let left = open.line.clone();
        self.leave(&mut open);
        if let Line::Volatile { listener: Some(listener), .. } = left {
            for channel in self.member.channels() {
                listener.unsubscribe(&channel).await;
            }
        }
        if let Line::Log { outbox, .. } = &open.line {
            let (settled, reached) = oneshot::channel();
            outbox.when_settled(Box::new(|_| _ = settled.send(())));
            _ = reached.await;
        }
        Ok(())
    }

    async fn subscribe(&self, channel: &str, receiver: Receiver) -> Result<()> {
        check_channel(channel)?;
        let _turn = self.turn.lock().await;
        let known = self.member.remove(channel);
        self.member.insert(channel, receiver);
        let Ok(mut open) = self.opened() else { return Ok(()) };
        if known && self.delivery == Delivery::Volatile {
            return Ok(());
        }
        let heard = self.hear(&mut open, channel).await;
        if heard.is_err() && !known {
            self.member.remove(channel);
        }
        *self.open.lock() = Some(open);
        heard
    }

    async fn unsubscribe(&self, channel: &str) -> Result<()> {
        let _turn = self.turn.lock().await;
        if !self.member.remove(channel) {
            return Ok(());
        }
        let Ok(mut open) = self.opened() else { return Ok(()) };
        if let Line::Volatile { listener: Some(listener), .. } = &open.line {
            listener.unsubscribe(channel).await;
        }
        if self.member.is_empty() {
            self.leave(&mut open);
            *self.open.lock() = Some(open);
        }
        Ok(())
    }

    fn submit(&self, texts: Texts, completion: Completion) {
        let open = match self.opened() {
            Ok(open) => open,
            Err(error) => return completion(Err(error)),
        };
        match &open.line {
            Line::Log { outbox, .. } => outbox.submit(texts, completion),
            Line::Volatile { bounds, .. } => send(&open.redis, bounds, texts, completion),
        }
    }
}

/// Publishes without a log: once, whatever becomes of it.
fn send(redis: &Arc<Redis>, bounds: &Arc<Bounds>, texts: Texts, completion: Completion) {
    let taken = match Bounds::take(bounds, texts.count, texts.bytes) {
        Ok(taken) => taken,
        Err(error) => return completion(Err(error)),
    };
    let mut told = Told::new(completion, Some(taken));
    let make = texts.make;
    let commands = move || {
        let command =
            |text: super::adapter::Text| Command::new(["PUBLISH", &text.channel, &text.text]);
        make().into_iter().map(command).collect()
    };
    let server = Arc::clone(redis);
    let check = move |results: Vec<Result<_>>| {
        results.into_iter().try_for_each(|result| server.check(result?).map(|_| ()))
    };
    redis.submit(commands, Box::new(move |results| told.tell(results.and_then(check))));
}
