//! One supervised connection to one server: it connects, and connects again, for as long as
//! somebody holds the link; it sends batches in the order in which they were given, each as one
//! pipeline; it tells a server that is away from one that is slow.
//!
//! Nothing waits for ever: a batch has a deadline, waiting for the connection included; while the
//! server is away batches wait through a short grace and then fail at once; and a connection whose
//! heartbeat stays unanswered is given up, whatever TCP thinks of it.

use super::{
    command::Command,
    config::Config,
    connect::{Connected, Target, connect, is_master, reason},
    health::Monitor,
};
use crate::error::{Error, Result};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use redis::{
    Pipeline, PushInfo, PushKind, Value,
    aio::{AsyncPushSender, MultiplexedConnection, SendError},
};
use std::{
    collections::VecDeque,
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep_until, timeout, timeout_at},
};

/// The first pause between two attempts to connect; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Commands sent as one pipeline; larger batches are cut, so that their replies begin sooner.
const PIPELINE: usize = 256;

/// How long the thread stays awake after a command or a reply, to catch the next without being woken.
/// Measured with locks that are acquired and released one by one: 1.7 times as many.
const AWAKE: Duration = Duration::from_micros(50);

/// What is told of a batch: its replies, in order, server errors in their places.
type Completion = Box<dyn FnOnce(Result<Vec<Value>>) + Send>;

/// What somebody who relies on the connection itself is told. Called in the order of what happens
/// on the connection, pushes before the replies that follow them.
pub trait Watch: Send + Sync + 'static {
    /// The connection's name on the server.
    fn purpose(&self) -> &'static str;
    /// Whether the thread is to stay awake for a moment after a command and after a reply, since the next
    /// often follows at once; not on a connection whose commands wait on the server.
    fn stays_awake(&self) -> bool {
        true
    }
    /// What is sent on each new connection before anything else; an error in the reply is logged.
    fn greeting(&self, resp3: bool) -> Vec<Command>;
    /// A new connection stands, and answered the greeting so. What it gives is told when it is lost.
    fn opened(&self, replies: &[Value]) -> bool;
    /// The server pushes.
    fn pushed(&self, push: &PushInfo);
    /// A connection is lost; `opened` is what it gave, nothing when it was lost while it greeted. Once
    /// for each, before a new one is made.
    fn lost(&self, opened: Option<bool>);
}

/// Nobody watches.
pub struct Unwatched;

impl Watch for Unwatched {
    fn purpose(&self) -> &'static str {
        "shared"
    }

    fn greeting(&self, _: bool) -> Vec<Command> {
        Vec::new()
    }

    fn opened(&self, _: &[Value]) -> bool {
        true
    }

    fn pushed(&self, _: &PushInfo) {}

    fn lost(&self, _: Option<bool>) {}
}

/// A batch on its way.
struct Job {
    /// Made where it is sent, not where it was given: cutting up a batch is no work for JavaScript's thread.
    commands: Box<dyn FnOnce() -> Vec<Command> + Send>,
    deadline: Instant,
    completion: Pending,
}

/// A completion that is called in any case: dropped, it tells that the connection was lost.
struct Pending {
    completion: Option<Completion>,
    server: Arc<str>,
}

impl Pending {
    fn complete(mut self, result: Result<Vec<Value>>) {
        if let Some(completion) = self.completion.take() {
            completion(result);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(completion) = self.completion.take() {
            let reason = "the connection was lost before the reply came".into();
            completion(Err(Error::Unavailable { server: self.server.to_string(), reason }));
        }
    }
}

/// A link to a server. Dropping the last one ends the connection.
pub struct Link {
    jobs: mpsc::UnboundedSender<Job>,
    monitor: Arc<Monitor>,
    server: Arc<str>,
    patience: Duration,
}

impl Link {
    /// Begins to connect.
    pub fn new(
        config: &Arc<Config>,
        target: Target,
        watch: Arc<dyn Watch>,
        monitor: Arc<Monitor>,
        runtime: &Handle,
    ) -> Self {
        let (jobs, inbox) = mpsc::unbounded_channel();
        let server: Arc<str> = match &target {
            Target::Main => config.shown().into(),
            Target::Node(node) => format!("{} node {node}", config.shown()).into(),
        };
        let driver = Driver {
            config: Arc::clone(config),
            target,
            watch,
            monitor: Arc::clone(&monitor),
            inbox,
            waiting: VecDeque::new(),
            server: Arc::clone(&server),
        };
        runtime.spawn(driver.run());
        Self { jobs, monitor, server, patience: config.command_timeout }
    }

    /// Sends what `commands` gives, after all that was given before. `completion` is called in any case.
    pub fn submit(
        &self,
        commands: Box<dyn FnOnce() -> Vec<Command> + Send>,
        completion: Completion,
    ) {
        let deadline = Instant::now() + self.patience;
        let completion = Pending { completion: Some(completion), server: Arc::clone(&self.server) };
        // A closed inbox drops the job, which tells its completion.
        _ = self.jobs.send(Job { commands, deadline, completion });
    }

    /// As [`submit`](Self::submit), for a caller that waits.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::CommandTimeout`] when nothing is known of any of the commands.
    pub fn send(&self, commands: Vec<Command>) -> impl Future<Output = Result<Vec<Value>>> + use<> {
        let (told, result) = oneshot::channel();
        self.submit(Box::new(|| commands), Box::new(|result| _ = told.send(result)));
        let server = Arc::clone(&self.server);
        async move {
            result.await.unwrap_or_else(|_| {
                Err(Error::Unavailable { server: server.to_string(), reason: "closed".into() })
            })
        }
    }

    /// Its health.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }
}

/// The pushes of one connection.
#[derive(Clone)]
struct Pushes {
    watch: Arc<dyn Watch>,
    state: Arc<PushState>,
}

#[derive(Default)]
struct PushState {
    /// Held while the watch is told, so that it is told in order.
    phase: Mutex<Phase>,
    lost: Notify,
}

#[derive(Default, Clone, Copy)]
enum Phase {
    #[default]
    Connecting,
    Greeting,
    Open(bool),
    Lost,
}

impl Pushes {
    /// Pushes may come from now on.
    fn greet(&self) {
        *self.state.phase.lock() = Phase::Greeting;
    }

    /// The greeting was answered. False when the connection is lost already.
    fn open(&self, replies: &[Value]) -> bool {
        let mut phase = self.state.phase.lock();
        let alive = matches!(*phase, Phase::Greeting);
        if alive {
            *phase = Phase::Open(self.watch.opened(replies));
        }
        alive
    }

    fn lose(&self) {
        let mut phase = self.state.phase.lock();
        match std::mem::replace(&mut *phase, Phase::Lost) {
            Phase::Greeting => self.watch.lost(None),
            Phase::Open(opened) => self.watch.lost(Some(opened)),
            Phase::Connecting | Phase::Lost => {}
        }
    }
}

impl AsyncPushSender for Pushes {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        if push.kind == PushKind::Disconnection {
            self.lose();
            self.state.lost.notify_one();
        } else if matches!(*self.state.phase.lock(), Phase::Greeting | Phase::Open(_)) {
            self.watch.pushed(&push);
        }
        Ok(())
    }
}

struct Driver {
    config: Arc<Config>,
    target: Target,
    watch: Arc<dyn Watch>,
    monitor: Arc<Monitor>,
    inbox: mpsc::UnboundedReceiver<Job>,
    /// What came while there was no connection.
    waiting: VecDeque<Job>,
    server: Arc<str>,
}

/// Why a connection ended.
enum End {
    /// Nobody holds the link any more.
    Dropped,
    /// It is lost.
    Lost(String),
}

/// A job that met a broken connection. Its completion is told after the watch.
struct Broken {
    reason: String,
    _completion: Pending,
}

type Execution = Pin<Box<dyn Future<Output = Option<Broken>> + Send>>;
type InFlight = FuturesUnordered<Execution>;

impl Driver {
    async fn run(mut self) {
        // Commands wait for the outcome of the very first attempt, and for a grace after a loss.
        let mut patient_until = Instant::now() + self.config.connect_timeout;
        let mut first = true;
        let mut pause = FIRST_PAUSE;
        loop {
            let pushes = Pushes { watch: Arc::clone(&self.watch), state: Arc::default() };
            let Some(outcome) = self.connect(&pushes, patient_until).await else { break };
            match outcome {
                Ok((connected, greeted)) => {
                    pause = FIRST_PAUSE;
                    first = false;
                    let reason = match self.serve(connected, &greeted, &pushes).await {
                        End::Dropped => break,
                        End::Lost(reason) => reason,
                    };
                    self.monitor.away(reason);
                    patient_until = Instant::now() + self.config.grace;
                }
                Err(reason) => {
                    tracing::debug!(server = %self.server, reason, "connecting failed");
                    self.monitor.away(reason);
                    if std::mem::take(&mut first) {
                        patient_until = Instant::now().min(patient_until) + self.config.grace;
                    }
                    if !self.rest(jittered(pause), patient_until).await {
                        break;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        self.monitor.closed();
    }

    /// Connects, while jobs gather. Nothing when the link was dropped meanwhile.
    async fn connect(
        &mut self,
        pushes: &Pushes,
        patient_until: Instant,
    ) -> Option<Result<(Connected, Vec<Value>), String>> {
        let (config, target, watch) =
            (Arc::clone(&self.config), self.target.clone(), Arc::clone(&self.watch));
        let pushes = pushes.clone();
        let connecting = async move {
            let mut connected = connect(&config, &target, watch.purpose(), pushes.clone()).await?;
            let greeting = watch.greeting(connected.resp3);
            // Pushes may follow the greeting's reply at once.
            pushes.greet();
            let greeted = if greeting.is_empty() {
                Ok(Vec::new())
            } else {
                send(&mut connected.connection, greeting).await
            };
            greeted.map(|greeted| (connected, greeted)).map_err(|error| {
                pushes.lose();
                reason(&error)
            })
        };
        let connecting = timeout(self.config.connect_timeout, connecting);
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                biased;
                outcome = &mut connecting => {
                    return Some(outcome.unwrap_or_else(|_| Err("no answer while connecting".into())));
                }
                alive = self.gather(patient_until) => if !alive { return None },
            }
        }
    }

    /// Waits for `pause`, while jobs gather. False when the link was dropped.
    async fn rest(&mut self, pause: Duration, patient_until: Instant) -> bool {
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(end) => return true,
                alive = self.gather(patient_until) => if !alive { return false },
            }
        }
    }

    /// Takes the next job, or refuses the jobs that have waited long enough. False when the link was dropped.
    async fn gather(&mut self, patient_until: Instant) -> bool {
        let first = self.waiting.front().map(|job| job.deadline.min(patient_until));
        tokio::select! {
            job = self.inbox.recv() => {
                let Some(job) = job else { return false };
                self.waiting.push_back(job);
                if Instant::now() >= patient_until {
                    self.refuse(patient_until);
                }
            }
            () = sleep_until(first.unwrap_or_else(Instant::now)), if first.is_some() => self.refuse(patient_until),
        }
        true
    }

    /// Fails what has waited long enough.
    fn refuse(&mut self, patient_until: Instant) {
        let now = Instant::now();
        while self.waiting.front().is_some_and(|job| now >= job.deadline.min(patient_until)) {
            if let Some(job) = self.waiting.pop_front() {
                job.completion.complete(Err(self.unavailable()));
            }
        }
    }

    fn unavailable(&self) -> Error {
        Error::Unavailable { server: self.server.to_string(), reason: self.monitor.reason() }
    }

    /// Serves jobs until the connection is lost or nobody holds the link.
    async fn serve(&mut self, connected: Connected, greeted: &[Value], pushes: &Pushes) -> End {
        let Connected { connection, resp3, version, eviction } = connected;
        if !pushes.open(greeted) {
            return End::Lost("the server closed the connection".into());
        }
        self.monitor.ready(version, if resp3 { 3 } else { 2 }, eviction);
        let mut in_flight: InFlight = FuturesUnordered::new();
        for job in std::mem::take(&mut self.waiting) {
            in_flight.push(self.execute(&connection, job));
        }
        let heartbeat = beat(Arc::clone(&self.config), connection.clone());
        tokio::pin!(heartbeat);
        let awake = if self.watch.stays_awake() { AWAKE } else { Duration::ZERO };
        let mut awake_until = Instant::now();
        let end = loop {
            tokio::select! {
                job = self.inbox.recv() => if let Some(job) = job {
                    in_flight.push(self.execute(&connection, job));
                    awake_until = Instant::now() + awake;
                } else {
                    // What was accepted is still answered.
                    while in_flight.next().await.is_some() {}
                    break End::Dropped;
                },
                Some(broken) = in_flight.next() => if let Some(broken) = broken {
                    pushes.lose();
                    break End::Lost(broken.reason.clone());
                } else {
                    awake_until = Instant::now() + awake;
                },
                reason = &mut heartbeat => break End::Lost(reason),
                () = pushes.state.lost.notified() => break End::Lost("the server closed the connection".into()),
                () = tokio::task::yield_now(), if Instant::now() < awake_until => {}
            }
        };
        // Before the jobs' completions hear of it, so that nobody trusts what hung on this connection.
        pushes.lose();
        end
    }

    /// Sends one job. The future gives the reason when the connection turned out to be broken.
    fn execute(&self, connection: &MultiplexedConnection, job: Job) -> Execution {
        let mut connection = connection.clone();
        let (server, patience) = (Arc::clone(&self.server), self.config.command_timeout);
        let Job { commands, deadline, completion } = job;
        Box::pin(async move {
            match timeout_at(deadline, send(&mut connection, commands())).await {
                Ok(Ok(replies)) => {
                    // A master that has become a replica: the sentinels know the new one.
                    let demoted = replies.iter().any(is_read_only);
                    completion.complete(Ok(replies));
                    demoted.then(|| Broken {
                        reason: "the server has become a replica".into(),
                        _completion: Pending { completion: None, server },
                    })
                }
                Ok(Err(error)) if error.is_io_error() || error.is_unrecoverable_error() => {
                    Some(Broken { reason: reason(&error), _completion: completion })
                }
                Ok(Err(error)) => {
                    let server = server.to_string();
                    completion.complete(Err(Error::Unavailable { server, reason: reason(&error) }));
                    None
                }
                Err(_) => {
                    let server = server.to_string();
                    completion.complete(Err(Error::CommandTimeout { server, after: patience }));
                    None
                }
            }
        })
    }
}

fn is_read_only(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "READONLY")
}

/// Sends commands as pipelines of a bounded length, all at once.
async fn send(
    connection: &mut MultiplexedConnection,
    commands: Vec<Command>,
) -> redis::RedisResult<Vec<Value>> {
    if commands.is_empty() {
        // redis-rs takes an empty pipeline for an error.
        return Ok(Vec::new());
    }
    if commands.len() <= PIPELINE {
        let pipeline = pipeline(commands);
        return connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
    }
    let mut replies = Vec::with_capacity(commands.len());
    let mut commands = commands.into_iter().peekable();
    let mut parts = futures_util::stream::FuturesOrdered::new();
    while commands.peek().is_some() {
        let pipeline = pipeline(commands.by_ref().take(PIPELINE).collect());
        let mut connection = connection.clone();
        parts.push_back(async move {
            connection.send_packed_commands(&pipeline, 0, pipeline.len()).await
        });
    }
    while let Some(part) = parts.next().await {
        replies.extend(part?);
    }
    Ok(replies)
}

fn pipeline(commands: Vec<Command>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command.into_cmd());
    }
    pipeline
}

/// Asks for a sign of life every so often; ends, with the reason, when there is none. Behind
/// sentinels it asks for the role, since a master that was replaced may go on answering.
async fn beat(config: Arc<Config>, mut connection: MultiplexedConnection) -> String {
    let behind_sentinels = matches!(config.servers, super::config::Servers::Sentinel { .. });
    let question = redis::cmd(if behind_sentinels { "ROLE" } else { "PING" });
    loop {
        tokio::time::sleep(config.heartbeat).await;
        match timeout(config.heartbeat_timeout, connection.send_packed_command(&question)).await {
            Err(_) => return "the server does not answer".into(),
            Ok(Err(error)) => return reason(&error),
            Ok(Ok(reply)) if behind_sentinels && is_master(&reply) == Some(false) => {
                return "the server has become a replica".into();
            }
            Ok(Ok(_)) => {}
        }
    }
}

/// Between half of a pause and all of it, so that nodes do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 1000;
    pause.mul_f64(0.5 + f64::from(u16::try_from(random).unwrap_or(0)) / 2000.0)
}
