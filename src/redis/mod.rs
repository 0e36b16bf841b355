//! The one connection layer: single server, Sentinel, Cluster; TLS, users, Unix sockets.
//!
//! A [`Redis`] sends commands in the order in which they are given and answers each in any case:
//! within a deadline, and at once while the server is known to be away. Behind it are supervised
//! [`link`]s, one to each server that matters. Whoever opens the same server for the same purpose
//! shares one.

#![forbid(unsafe_code)]

mod cluster;
mod command;
pub mod config;
mod connect;
mod health;
pub mod link;
mod script;

pub use command::Command;
pub use config::Config;
pub use health::{Health, Monitor, State};
pub use link::{Unwatched, Watch};
pub use script::{Script, is_unknown};

use crate::error::{Error, Result};
use cluster::Cluster;
use config::Servers;
use connect::Target;
use link::Link;
use parking_lot::Mutex;
use redis::Value;
use std::sync::{Arc, LazyLock, Weak};
use tokio::{runtime::Handle, sync::oneshot};

/// What is told of a batch: the outcome of each command, in order; or why nothing is known of any.
pub type Completion = Box<dyn FnOnce(Result<Vec<Result<Value>>>) + Send>;

/// A server, or a group of servers that act as one.
pub struct Redis {
    config: Arc<Config>,
    monitor: Arc<Monitor>,
    backend: Backend,
}

enum Backend {
    Link(Link),
    Cluster(Arc<Cluster>),
}

/// The connections of this process that may be shared.
static SHARED: LazyLock<Mutex<Vec<Weak<Redis>>>> = LazyLock::new(Mutex::default);

impl Redis {
    /// The process's shared connection to that server, which is made now when there is none.
    pub fn shared(config: Config, runtime: &Handle) -> Arc<Self> {
        let mut shared = SHARED.lock();
        shared.retain(|redis| redis.strong_count() > 0);
        let present = shared.iter().filter_map(Weak::upgrade).find(|redis| *redis.config == config);
        present.unwrap_or_else(|| {
            let redis = Self::open(config, Arc::new(Unwatched), runtime);
            shared.push(Arc::downgrade(&redis));
            redis
        })
    }

    /// A connection of one's own, watched. It ends when it is dropped.
    pub fn open(config: Config, watch: Arc<dyn Watch>, runtime: &Handle) -> Arc<Self> {
        let config = Arc::new(config);
        let monitor = Arc::new(Monitor::new(config.shown()));
        let backend = match &config.servers {
            Servers::Cluster(_) => Backend::Cluster(Cluster::new(
                Arc::clone(&config),
                watch,
                Arc::clone(&monitor),
                runtime,
            )),
            _ => Backend::Link(Link::new(
                &config,
                Target::Main,
                watch,
                Arc::clone(&monitor),
                runtime,
            )),
        };
        Arc::new(Self { config, monitor, backend })
    }

    /// How it is configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether it can be reached.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }

    /// Whether the keys of one command must share a slot.
    pub fn is_cluster(&self) -> bool {
        matches!(self.backend, Backend::Cluster(_))
    }

    /// Sends commands after all that were given before. `commands` is called where they are sent,
    /// off the caller's thread, and `completion` in any case.
    pub fn submit(
        &self,
        commands: impl FnOnce() -> Vec<Command> + Send + 'static,
        completion: Completion,
    ) {
        match &self.backend {
            Backend::Link(link) => {
                let each = |replies: Vec<Value>| replies.into_iter().map(Ok).collect();
                link.submit(
                    Box::new(commands),
                    Box::new(move |replies| completion(replies.map(each))),
                );
            }
            Backend::Cluster(cluster) => cluster.submit(commands(), completion),
        }
    }

    /// The outcomes of commands that go together as one batch.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::CommandTimeout`] when nothing is known of any of them.
    pub async fn batch(&self, commands: Vec<Command>) -> Result<Vec<Result<Value>>> {
        let (told, result) = oneshot::channel();
        self.submit(|| commands, Box::new(|results| _ = told.send(results)));
        let dropped =
            |_| Error::Unavailable { server: self.config.shown(), reason: "closed".into() };
        result.await.map_err(dropped)?
    }

    /// The reply to a command, a server's error among the replies.
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    pub async fn call(&self, command: Command) -> Result<Value> {
        let mut results = self.batch(vec![command]).await?;
        results.pop().unwrap_or_else(|| Err(Error::Internal("a batch has no reply".into())))
    }

    /// The reply to a command.
    ///
    /// # Errors
    /// As [`batch`](Self::batch), and [`Error::Redis`] with what the server says.
    pub async fn ask(&self, command: Command) -> Result<Value> {
        self.check(self.call(command).await?)
    }

    /// The reply, unless it is a server's error.
    ///
    /// # Errors
    /// [`Error::Redis`] with what the server says.
    pub fn check(&self, reply: Value) -> Result<Value> {
        match reply {
            Value::ServerError(error) => Err(Error::Redis(match error.details() {
                Some(details) => format!("{} {details}", error.code()),
                None => error.code().to_owned(),
            })),
            reply => Ok(reply),
        }
    }

    /// The reply of one master, of those that [`masters`](Self::masters) counts.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn ask_master(&self, master: usize, command: Command) -> Result<Value> {
        match &self.backend {
            Backend::Link(_) => self.ask(command).await,
            Backend::Cluster(cluster) => {
                let link = cluster.masters().into_iter().nth(master);
                let away = || Error::Unavailable {
                    server: self.config.shown(),
                    reason: "a master is gone".into(),
                };
                let mut replies = link.ok_or_else(away)?.send(vec![command]).await?;
                self.check(replies.pop().ok_or_else(away)?)
            }
        }
    }

    /// How many masters there are.
    ///
    /// # Errors
    /// As [`batch`](Self::batch), while the cluster's map of slots is not known.
    pub async fn masters(&self) -> Result<usize> {
        match &self.backend {
            Backend::Link(_) => Ok(1),
            Backend::Cluster(cluster) => {
                if cluster.masters().is_empty() {
                    // The map of slots comes with the first reply.
                    self.call(Command::new(["PING"])).await?;
                }
                Ok(cluster.masters().len())
            }
        }
    }
}
