//! Worker ids on Redis: leased, and renewed by a background task whatever the node's own threads
//! are busy with.

use super::{
    WorkerIdAdapter,
    table::{Renewed, Table, Taken},
};
use crate::{
    error::{Error, Result},
    redis::{Config, Redis},
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{fmt, sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

pub use super::table::Times;

/// How long an id stays its node's without a renewal. Defaults to 10 seconds.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long an id is given to nobody after its lease. Defaults to 10 seconds.
pub const REST: Duration = Duration::from_secs(10);
/// How long releasing waits for the server. Defaults to 1 second.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);
/// The longest time after a renewal that failed until the next. Defaults to 250 milliseconds.
const LONGEST_RETRY: Duration = Duration::from_millis(250);
/// How often a wait for a quiet table begins anew, since the server was lost again meanwhile.
const QUIET_WAITS: usize = 5;

/// What an operator should know of an id.
#[derive(Debug, Clone)]
pub enum Notice {
    /// The server could not be reached for as long as the lease.
    Lapsed {
        /// The app.
        app: Arc<str>,
        /// The id.
        id: u8,
        /// Why not.
        reason: String,
    },
    /// The lease had lapsed, and the id is this node's all the same.
    Regained {
        /// The app.
        app: Arc<str>,
        /// The id.
        id: u8,
    },
    /// The server had forgotten whose the id is, and knows it again.
    PutBack {
        /// The app.
        app: Arc<str>,
        /// The id.
        id: u8,
    },
    /// The lease had lapsed, and another node was given the id.
    Lost {
        /// The app.
        app: Arc<str>,
        /// The id.
        id: u8,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lapsed { app, id, reason } => write!(
                f,
                "worker id {id} of app {app} could not be renewed and has lapsed; after its rest another node may be given it: {reason}"
            ),
            Self::Regained { app, id } => {
                write!(f, "worker id {id} of app {app} is renewed again; nobody else was given it")
            }
            Self::PutBack { app, id } => {
                write!(f, "worker id {id} of app {app} was unknown to the server and was put back")
            }
            Self::Lost { app, id } => write!(
                f,
                "worker id {id} of app {app} was given to another node while this one could not renew it; getWorkerId() gives a new one"
            ),
        }
    }
}

/// Told of notices, from any thread.
pub type Told = Arc<dyn Fn(&Notice) + Send + Sync>;

/// One node's worker id on Redis. Dropping it ends the renewals, so that the id lapses.
pub struct RedisWorkerIds {
    app: Arc<str>,
    config: Config,
    table: Arc<Table>,
    times: Times,
    told: Told,
    runtime: Handle,
    holding: Mutex<Option<Hold>>,
}

/// An id that is asked for or held, and the task that does both.
struct Hold {
    redis: Arc<Redis>,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
enum State {
    Asking,
    Held(u8),
    Failed(Error),
    Lost,
}

impl RedisWorkerIds {
    /// A node of `app`. It connects when an id is asked for, and until it is released.
    pub fn new(config: Config, app: &str, times: Times, told: Told, runtime: &Handle) -> Self {
        Self {
            app: app.into(),
            config,
            table: Arc::new(Table::new(app, times)),
            times,
            told,
            runtime: runtime.clone(),
            holding: Mutex::default(),
        }
    }

    /// Whether an id is asked for or held.
    pub fn is_holding(&self) -> bool {
        self.holding.lock().as_ref().is_some_and(Hold::is_alive)
    }

    /// The state of what is held, which is asked for now when there is nothing.
    fn hold(&self) -> watch::Receiver<State> {
        let mut holding = self.holding.lock();
        if let Some(hold) = holding.as_ref().filter(|hold| hold.is_alive()) {
            return hold.state.clone();
        }
        let (told, state) = watch::channel(State::Asking);
        let redis = Redis::shared(self.config.clone(), &self.runtime);
        let keeper = Keeper {
            app: Arc::clone(&self.app),
            redis: Arc::clone(&redis),
            table: Arc::clone(&self.table),
            times: self.times,
            told: Arc::clone(&self.told),
            state: told,
        };
        let task = self.runtime.spawn(keeper.run());
        *holding = Some(Hold { redis, state: state.clone(), task });
        state
    }
}

impl Hold {
    fn is_alive(&self) -> bool {
        matches!(*self.state.borrow(), State::Asking | State::Held(_))
    }
}

#[async_trait]
impl WorkerIdAdapter for RedisWorkerIds {
    async fn get_worker_id(&self) -> Result<u8> {
        loop {
            let mut state = self.hold();
            let settled = state.wait_for(|state| !matches!(state, State::Asking)).await;
            // The task is ended by a release only.
            match settled.map_err(|_| Error::Closed("the worker id"))?.clone() {
                State::Held(id) => return Ok(id),
                State::Failed(error) => {
                    // The connection is not kept for what is not there.
                    drop(self.holding.lock().take_if(|hold| !hold.is_alive()));
                    return Err(error);
                }
                State::Asking | State::Lost => {}
            }
        }
    }

    async fn release(&self) -> Result<()> {
        let Some(mut hold) = self.holding.lock().take() else { return Ok(()) };
        hold.task.abort();
        // No renewal may follow the release.
        _ = (&mut hold.task).await;
        let id = match *hold.state.borrow() {
            State::Held(id) => Some(id),
            State::Failed(_) | State::Lost => return Ok(()),
            // The server may have given one all the same.
            State::Asking => None,
        };
        let release = self.table.release(&hold.redis, id);
        if !matches!(timeout(RELEASE_PATIENCE, release).await, Ok(Ok(()))) {
            tracing::debug!(app = %self.app, id, "the worker id was not released and will lapse");
        }
        Ok(())
    }
}

/// Takes an id and renews its lease.
struct Keeper {
    app: Arc<str>,
    redis: Arc<Redis>,
    table: Arc<Table>,
    times: Times,
    told: Told,
    state: watch::Sender<State>,
}

impl Keeper {
    async fn run(self) {
        // From before the question, for the server's lease begins after it.
        let mut renewed = Instant::now();
        match self.take(&mut renewed).await {
            Ok(id) => {
                self.state.send_replace(State::Held(id));
                self.keep(id, renewed).await;
                // First, so that who is told and asks gets a new one.
                self.state.send_replace(State::Lost);
                (self.told)(&Notice::Lost { app: Arc::clone(&self.app), id });
            }
            Err(error) => _ = self.state.send_replace(State::Failed(error)),
        }
    }

    /// Waits while the table is quiet, and while all ids are taken but some only rest: nodes that are exchanged
    /// together find those of the nodes before them at rest.
    async fn take(&self, asked: &mut Instant) -> Result<u8> {
        let (mut quiet, mut exhausted) = (0, None);
        // All that lapse and rest now have done so by then.
        let patience = self.times.lease + self.times.rest;
        loop {
            *asked = Instant::now();
            match self.table.take(&self.redis).await? {
                Taken::Id(id) => return Ok(id),
                Taken::Quiet(left) if quiet < QUIET_WAITS => {
                    quiet += 1;
                    sleep(left).await;
                }
                Taken::Quiet(_) => break,
                Taken::None { rested: Some(left), .. }
                    if exhausted.get_or_insert(*asked).elapsed() + left <= patience =>
                {
                    sleep(left).await;
                }
                Taken::None { held, resting, .. } => {
                    let app = self.app.to_string();
                    return Err(Error::WorkerIdsExhausted { app, held, resting });
                }
            }
        }
        let reason = "it lost its table of worker ids again and again".into();
        Err(Error::Unavailable { server: self.redis.config().shown(), reason })
    }

    /// Renews until the id is another's.
    async fn keep(&self, id: u8, mut renewed: Instant) {
        let retry = LONGEST_RETRY.min(self.times.period());
        let (mut pause, mut lapsed) = (self.times.period(), false);
        loop {
            sleep(pause).await;
            let asked = Instant::now();
            let app = Arc::clone(&self.app);
            match self.table.renew(&self.redis, id).await {
                Ok(Renewed::Lost) => return,
                Ok(outcome) => {
                    (renewed, pause) = (asked, self.times.period());
                    if matches!(outcome, Renewed::PutBack) {
                        (self.told)(&Notice::PutBack { app: Arc::clone(&app), id });
                    }
                    if std::mem::take(&mut lapsed) {
                        (self.told)(&Notice::Regained { app, id });
                    }
                }
                Err(error) => {
                    pause = retry;
                    if renewed.elapsed() >= self.times.lease
                        && !std::mem::replace(&mut lapsed, true)
                    {
                        (self.told)(&Notice::Lapsed { app, id, reason: error.to_string() });
                    }
                }
            }
        }
    }
}
