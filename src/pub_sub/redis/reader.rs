//! The one who reads: a connection of its own to a server, blocked in `XREAD` on all the logs that
//! somebody in this process hears of. It goes on from where it was after anything that happens to the
//! connection or to the process, and looks before each read whether all is still there.

use super::{
    batch::is_passing,
    keys::Keys,
    log::Log,
    member::Member,
    read_loop::Loop,
    resume::{Answer, Question, RESUME},
};
use crate::{
    error::{Error, Result},
    redis::{Command, Config, Redis, State, Watch, is_unknown},
};
use parking_lot::Mutex;
use redis::{PushInfo, Value};
use std::{
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

/// The pause before a first look is tried again.
const PAUSE: Duration = Duration::from_millis(10);
/// How often a blocked read is called back for a log that was added.
const CALL_BACK: Duration = Duration::from_millis(2);
const CALLS_BACK: u32 = 500;

/// Reads for all who hold it; ends when it is dropped.
pub struct Reader {
    /// On a cluster each log has a reader, since their slots differ.
    log: Option<String>,
    config: Config,
    inner: Arc<Inner>,
    /// What is not read goes over the process's shared connection.
    shared: Arc<Redis>,
    runtime: Handle,
    joining: tokio::sync::Mutex<()>,
    _end: watch::Sender<()>,
}

/// What the reader and its loop share.
#[derive(Default)]
pub struct Inner {
    pub logs: Mutex<Vec<Log>>,
    pub changed: Notify,
    pub connection: Connection,
}

/// The reader's connections, counted, and the newest's name on the server.
#[derive(Default)]
pub struct Connection {
    pub count: AtomicU64,
    client: AtomicI64,
}

impl Watch for Inner {
    fn purpose(&self) -> &'static str {
        "reader"
    }

    fn stays_awake(&self) -> bool {
        false
    }

    fn greeting(&self, _: bool) -> Vec<Command> {
        vec![Command::new(["CLIENT", "ID"]), RESUME.load()]
    }

    fn opened(&self, replies: &[Value]) -> bool {
        let client = match replies.first() {
            Some(Value::Int(client)) => *client,
            _ => 0,
        };
        self.connection.client.store(client, Ordering::Release);
        self.connection.count.fetch_add(1, Ordering::AcqRel);
        true
    }

    fn pushed(&self, _: &PushInfo) {}

    fn lost(&self, _: Option<bool>) {
        self.connection.client.store(0, Ordering::Release);
    }
}

static READERS: LazyLock<Mutex<Vec<Weak<Reader>>>> = LazyLock::new(Mutex::default);

impl Reader {
    /// This process's reader for that server, or for that log of a cluster.
    pub fn shared(shared: &Arc<Redis>, keys: &Keys, runtime: &Handle) -> Arc<Self> {
        let config = shared.config().clone();
        let log = shared.is_cluster().then(|| keys.log.clone());
        let mut readers = READERS.lock();
        readers.retain(|reader| reader.strong_count() > 0);
        let is_same = |reader: &Arc<Self>| reader.config == config && reader.log == log;
        let present = readers.iter().filter_map(Weak::upgrade).find(is_same);
        present.unwrap_or_else(|| {
            let inner = Arc::<Inner>::default();
            let redis = Redis::open(config.clone(), Arc::clone(&inner) as Arc<dyn Watch>, runtime);
            let (end, ended) = watch::channel(());
            runtime.spawn(Loop::new(redis, Arc::clone(&inner)).run(ended));
            let reader = Arc::new(Self {
                log,
                config,
                inner,
                shared: Arc::clone(shared),
                runtime: runtime.clone(),
                joining: tokio::sync::Mutex::default(),
                _end: end,
            });
            readers.push(Arc::downgrade(&reader));
            reader
        })
    }

    /// Reads a log for `member`, from now on. Waits for a server that is away, up to the command timeout.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not come back in time, and what the server refuses.
    pub async fn join(self: &Arc<Self>, keys: &Keys, member: &Arc<Member>) -> Result<()> {
        let _turn = self.joining.lock().await;
        if self.add(keys, member) {
            return Ok(());
        }
        let answer = first_look(&self.shared, keys).await?;
        let mut log = Log::new(keys.clone(), answer);
        log.members.push(Arc::clone(member));
        self.inner.logs.lock().push(log);
        self.inner.changed.notify_one();
        self.call_back(keys.clone());
        Ok(())
    }

    /// Adds to a log that is read already.
    fn add(&self, keys: &Keys, member: &Arc<Member>) -> bool {
        let mut logs = self.inner.logs.lock();
        let Some(log) = logs.iter_mut().find(|log| log.keys == *keys) else { return false };
        if !log.members.iter().any(|other| Arc::ptr_eq(other, member)) {
            log.members.push(Arc::clone(member));
        }
        true
    }

    /// Reads for `member` no more.
    pub fn leave(&self, keys: &Keys, member: &Arc<Member>) {
        let mut logs = self.inner.logs.lock();
        if let Some(log) = logs.iter_mut().find(|log| log.keys == *keys) {
            log.members.retain(|other| !Arc::ptr_eq(other, member));
        }
        logs.retain(|log| !log.members.is_empty());
    }

    /// Ends a blocked read, until the loop has seen the new log. What fails here costs the time of a
    /// block, no more.
    fn call_back(self: &Arc<Self>, keys: Keys) {
        if self.log.is_some() {
            return;
        }
        let reader = Arc::downgrade(self);
        self.runtime.spawn(async move {
            for _ in 0..CALLS_BACK {
                let Some(reader) = reader.upgrade() else { return };
                let waits = |log: &Log| log.keys == keys && !log.taken_up;
                if !reader.inner.logs.lock().iter().any(waits) {
                    return;
                }
                let client = reader.inner.connection.client.load(Ordering::Acquire);
                if client != 0 {
                    let command = Command::new(["CLIENT", "UNBLOCK", &client.to_string()]);
                    if reader.shared.ask(command).await.is_err() {
                        return;
                    }
                }
                drop(reader);
                sleep(CALL_BACK).await;
            }
        });
    }
}

/// Where a log ends, by the shared connection.
async fn first_look(redis: &Arc<Redis>, keys: &Keys) -> Result<Answer> {
    let patience = redis.config().command_timeout;
    let end = Instant::now() + patience;
    let mut in_full = false;
    let mut states = redis.monitor().states();
    loop {
        let error = match redis.call(Question::default().command(keys, in_full)).await {
            Ok(reply) if is_unknown(&reply) => {
                in_full = true;
                continue;
            }
            Ok(reply) if is_passing(&reply) => match redis.check(reply) {
                Err(error) => error,
                Ok(_) => return Err(Error::Internal("an error is none".into())),
            },
            Ok(reply) => {
                let reply = redis.check(reply)?;
                let unexpected = || Error::Redis("the log's state cannot be read".into());
                return Answer::parse(&reply).ok_or_else(unexpected);
            }
            Err(error) => error,
        };
        let left = end.saturating_duration_since(Instant::now());
        sleep(PAUSE.min(left)).await;
        let back = states.wait_for(|state| matches!(state, State::Ready | State::Closed));
        if timeout(left, back).await.is_err() || left.is_zero() {
            return Err(error);
        }
    }
}
