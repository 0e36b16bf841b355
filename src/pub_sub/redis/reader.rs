//! The one who reads: a connection of its own to a server, blocked in `XREAD` on all the logs that
//! somebody in this process hears of. It goes on from where it was after anything that happens to the
//! connection or to the process, and looks before each read whether all is still there.

use super::{
    entry,
    keys::Keys,
    log::Log,
    member::Member,
    resume::{Answer, Question, RESUME},
};
use crate::{
    error::{Error, Result},
    pub_sub::adapter::{Gap, Text},
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

/// Entries that are read at a time, of each log.
const COUNT: &str = "256";
/// The longest time that a read waits for entries. The heartbeat waits behind it.
const LONGEST_BLOCK: Duration = Duration::from_secs(2);
/// How often the logs are looked at while they are read all the time.
const LOOK: Duration = Duration::from_millis(500);
/// They are looked at in any case when the last read was sent so long ago: its reply may be as old. In
/// less hardly any log moves on by its whole length; if one did, its server's count tells afterwards.
const STALE: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
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

#[derive(Default)]
struct Inner {
    logs: Mutex<Vec<Log>>,
    changed: Notify,
    connection: Connection,
}

/// The reader's connections, counted, and the newest's name on the server.
#[derive(Default)]
struct Connection {
    count: AtomicU64,
    client: AtomicI64,
}

impl Watch for Inner {
    fn purpose(&self) -> &'static str {
        "reader"
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
            Ok(reply) if super::outbox::is_passing(&reply) => match redis.check(reply) {
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
        sleep(FIRST_PAUSE.min(left)).await;
        let back = states.wait_for(|state| matches!(state, State::Ready | State::Closed));
        if timeout(left, back).await.is_err() || left.is_zero() {
            return Err(error);
        }
    }
}

/// The task behind a reader.
struct Loop {
    redis: Arc<Redis>,
    inner: Arc<Inner>,
    block: Duration,
    in_full: bool,
    /// The last trouble that was told in the log.
    trouble: Option<String>,
    pause: Duration,
    /// When the logs were looked at, and when the last commands were sent.
    looked: Option<Instant>,
    sent: Instant,
}

/// What one turn of the loop sends.
struct Commands {
    keys: Vec<Keys>,
    /// Whether it begins with a question for each of the logs.
    looks: bool,
    /// Whether it ends with a read.
    reads: bool,
    commands: Vec<Command>,
}

/// What one turn of the loop found.
enum Turn {
    /// All went well, or the connection is a new one: go on at once.
    Read,
    /// Nobody hears of anything.
    Idle,
    /// The server is away, or refuses.
    Trouble(String),
}

impl Loop {
    fn new(redis: Arc<Redis>, inner: Arc<Inner>) -> Self {
        let Config { command_timeout, heartbeat_timeout, .. } = *redis.config();
        let block = LONGEST_BLOCK.min(command_timeout / 2).min(heartbeat_timeout / 2);
        // 0 would be for ever.
        let block = block.max(Duration::from_millis(1));
        Self {
            redis,
            inner,
            block,
            in_full: false,
            trouble: None,
            pause: FIRST_PAUSE,
            looked: None,
            sent: Instant::now(),
        }
    }

    /// Reads until the reader is dropped.
    async fn run(mut self, mut ended: watch::Receiver<()>) {
        loop {
            tokio::select! {
                _ = ended.changed() => return,
                () = self.turn() => {}
            }
        }
    }

    async fn turn(&mut self) {
        let inner = Arc::clone(&self.inner);
        match self.read().await {
            Turn::Read => {
                self.pause = FIRST_PAUSE;
                self.trouble = None;
            }
            Turn::Idle => inner.changed.notified().await,
            Turn::Trouble(reason) => {
                // While the server is away its own line says so, once.
                if self.redis.monitor().state() == State::Ready
                    && self.trouble.as_ref() != Some(&reason)
                {
                    tracing::warn!(server = %self.redis.config().shown(), reason, "reading pub/sub");
                    self.trouble = Some(reason);
                }
                sleep(self.pause).await;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                let mut states = self.redis.monitor().states();
                let back = states.wait_for(|state| *state == State::Ready);
                _ = timeout(LONGEST_PAUSE, back).await;
            }
        }
    }

    /// Looks at all logs when it is time to, reads what is new in them, and delivers it.
    async fn read(&mut self) -> Turn {
        let connection = self.inner.connection.count.load(Ordering::Acquire);
        let Commands { keys, looks, reads, commands } = self.commands(connection);
        if keys.is_empty() {
            return Turn::Idle;
        }
        let mut replies = match self.redis.batch(commands).await {
            Ok(replies) => replies.into_iter(),
            Err(error) => return Turn::Trouble(error.to_string()),
        };
        if self.inner.connection.count.load(Ordering::Acquire) != connection {
            // Asked of one server, read from another perhaps.
            self.looked = None;
            return Turn::Read;
        }
        let mut moved = Vec::new();
        if looks {
            let mut answers = Vec::with_capacity(keys.len());
            for reply in replies.by_ref().take(keys.len()) {
                if matches!(&reply, Ok(reply) if is_unknown(reply)) {
                    self.in_full = true;
                    return Turn::Read;
                }
                let reply = reply.and_then(|reply| self.redis.check(reply));
                match reply.map(|reply| Answer::parse(&reply)) {
                    Ok(Some(answer)) => answers.push(answer),
                    Ok(None) => return Turn::Trouble("the log's state cannot be read".into()),
                    Err(error) => return Turn::Trouble(error.to_string()),
                }
            }
            self.in_full = false;
            self.looked = Some(Instant::now());
            moved = self.judge(&keys, &answers, connection);
        }
        if !reads {
            return Turn::Read;
        }
        match replies.next().map(|reply| reply.and_then(|reply| self.redis.check(reply))) {
            Some(Ok(reply)) => {
                self.deliver(reply, &moved);
                Turn::Read
            }
            Some(Err(error)) => Turn::Trouble(error.to_string()),
            None => Turn::Trouble("a batch has no reply".into()),
        }
    }

    /// The questions, one for each log, and the read; without the read when a log is to be looked at
    /// thoroughly first.
    fn commands(&mut self, connection: u64) -> Commands {
        let now = Instant::now();
        let mut logs = self.inner.logs.lock();
        let reads = logs.iter().all(|log| log.is_checked_on(connection));
        let is_late = self.looked.is_none_or(|looked| now - looked >= LOOK);
        let looks = !reads || is_late || now - self.sent >= STALE;
        self.sent = now;
        let keys: Vec<Keys> = logs.iter().map(|log| log.keys.clone()).collect();
        let mut commands = Vec::with_capacity(logs.len() + 1);
        for log in logs.iter_mut() {
            log.taken_up = true;
            if looks {
                commands.push(log.question(connection).command(&log.keys, self.in_full));
            }
        }
        if reads {
            let block = self.block.as_millis().to_string();
            let mut read = Command::with_capacity(6 + 2 * logs.len(), 128);
            for word in ["XREAD", "COUNT", COUNT, "BLOCK", &block, "STREAMS"] {
                read.push(word.as_bytes());
            }
            for log in logs.iter() {
                read.push(log.keys.log.as_bytes());
            }
            for log in logs.iter() {
                read.push(log.position().to_string().as_bytes());
            }
            commands.push(read);
        }
        Commands { keys, looks, reads, commands }
    }

    /// Takes the answers, and tells of gaps. Gives the logs whose position is another now.
    fn judge(&self, keys: &[Keys], answers: &[Answer], connection: u64) -> Vec<String> {
        let (mut moved, mut gaps): (_, Vec<(Gap, Vec<Arc<Member>>)>) = (Vec::new(), Vec::new());
        {
            let mut logs = self.inner.logs.lock();
            for (keys, answer) in keys.iter().zip(answers) {
                let Some(log) = logs.iter_mut().find(|log| log.keys == *keys) else { continue };
                let before = log.position();
                let Some(gap) = log.judge(answer, connection) else { continue };
                gaps.push((gap, log.members.clone()));
                if gap == Gap::Replaced && log.position() != before {
                    moved.push(keys.log.clone());
                }
            }
        }
        for (gap, members) in gaps {
            members.iter().for_each(|member| member.tell(gap));
        }
        moved
    }

    /// Delivers what was read, but of the logs whose position has changed: they are read again.
    fn deliver(&self, reply: Value, moved: &[String]) {
        for (key, arrived) in entry::streams(reply) {
            let mut logs = self.inner.logs.lock();
            let found = logs.iter_mut().find(|log| log.keys.log.as_bytes() == key);
            let Some(log) = found.filter(|log| !moved.contains(&log.keys.log)) else { continue };
            let (texts, members): (Vec<Text>, _) = (log.take(arrived), log.members.clone());
            drop(logs);
            for text in &texts {
                for member in &members {
                    member.deliver(text);
                }
            }
        }
    }
}
