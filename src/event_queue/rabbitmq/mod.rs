//! The event queue on `RabbitMQ`: a durable quorum queue a channel, publisher confirms, acknowledgements by hand.
//!
//! `connection` keeps the connection; `publisher` and each `subscription` are tasks with an AMQP channel of their own, which
//! is made anew when it is lost; `control` is how nodes talk to each other. What is tried again or kept
//! back waits in a queue whose messages expire into the main one; see `topology` and `delays`.

mod bounded;
pub mod config;
mod connection;
mod control;
mod dead;
mod delays;
mod hearing;
mod message;
mod names;
mod pace;
mod publisher;
mod subscription;
mod tls;
mod topology;
mod unsettled;

pub use config::Config;

use super::{
    adapter::{
        Consumer, Counts, DeadLetter, Environment, EventQueueAdapter, Finished, Level, Publish,
        Standing,
    },
    settings::Settings,
};
use crate::error::{Error, Result};
use async_trait::async_trait;
use bounded::Bounded;
use connection::{Link, Session, State};
use control::{Answer, Control, Question};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use message::{Envelope, Unique};
use names::Names;
use parking_lot::Mutex;
use publisher::{Outgoing, Publisher, Target, declare};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use subscription::{Command, Runs, Subscription};
use tokio::{
    runtime::Handle,
    sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot},
    task::{AbortHandle, JoinSet},
};

/// From so many crashes on a message is a suspect: a node has one of them at a time, so that the others do not die
/// with it again and again.
const SUSPECT: u32 = 3;
/// Cancelled messages that a node remembers, in case they come to it.
const CANCELLED: usize = 10_000;
/// How often the environment is asked for a sign of life, at most.
const BEAT: Duration = Duration::from_secs(5);

/// An event queue on `RabbitMQ`.
pub struct RabbitMqQueue {
    shared: Arc<Shared>,
    closed: AtomicBool,
    connection: Mutex<Option<AbortHandle>>,
    /// Looking through dead letters twice at once each would miss what the other has.
    looking: AsyncMutex<()>,
}

/// What its tasks share.
struct Shared {
    link: Arc<Link>,
    settings: Settings,
    environment: Arc<dyn Environment>,
    publisher: Publisher,
    control: Control,
    unique: Unique,
    /// By their numbers, which are nobody's afterwards: tickets are those of a subscription.
    subscriptions: Mutex<BTreeMap<u32, Subscribed>>,
    last_number: AtomicU32,
    cancelled: Mutex<Bounded<(Arc<str>, String), f64>>,
    running: AtomicUsize,
    /// Whoever has a suspect holds its only permit.
    alone: Arc<Semaphore>,
    beat: Mutex<Beat>,
    runtime: Handle,
    tasks: Mutex<JoinSet<()>>,
}

struct Subscribed {
    channel: Arc<str>,
    commands: mpsc::UnboundedSender<Command>,
    runs: Runs,
}

#[derive(Default)]
struct Beat {
    /// When the environment was asked; none after it has answered.
    asked: Option<Instant>,
    stalled: bool,
}

impl RabbitMqQueue {
    /// Connects in the background.
    pub fn open(
        config: Config,
        settings: Settings,
        environment: Arc<dyn Environment>,
        runtime: &Handle,
    ) -> Arc<dyn EventQueueAdapter> {
        let link = Arc::new(Link::new(config, Arc::clone(&environment)));
        let (publisher, task) = Publisher::new(Arc::clone(&link));
        let shared = Arc::new(Shared {
            link: Arc::clone(&link),
            settings,
            environment,
            publisher,
            control: Control::default(),
            unique: Unique::default(),
            subscriptions: Mutex::default(),
            last_number: AtomicU32::new(0),
            cancelled: Mutex::new(Bounded::new(CANCELLED)),
            running: AtomicUsize::new(0),
            alone: Arc::new(Semaphore::new(1)),
            beat: Mutex::default(),
            runtime: runtime.clone(),
            tasks: Mutex::default(),
        });
        shared.spawn(task);
        shared.spawn(control::run(Arc::clone(&shared)));
        shared.spawn(Arc::clone(&shared).watch_environment());
        let connects = shared.spawn(async move { link.run().await });
        Arc::new(Self {
            shared,
            closed: AtomicBool::new(false),
            connection: Mutex::new(Some(connects)),
            looking: AsyncMutex::default(),
        })
    }

    fn tell(&self, subscription: u32, command: Command) {
        if let Some(subscribed) = self.shared.subscriptions.lock().get(&subscription) {
            // One that has ended has nothing to do.
            _ = subscribed.commands.send(command);
        }
    }
}

impl Drop for RabbitMqQueue {
    fn drop(&mut self) {
        // The tasks hold what they share, so that only their end frees it.
        self.shared.tasks.lock().abort_all();
    }
}

impl Shared {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime)
    }

    fn names(&self, channel: &str) -> Names {
        Names::of(&self.link.config().name_prefix, channel)
    }

    fn warn(&self, line: String) {
        self.environment.log(Level::Warn, line);
    }

    fn began(&self, count: usize) {
        self.running.fetch_add(count, Ordering::Relaxed);
    }

    fn ended(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many messages a queue has that are ready, and how many consumers; nothing when there is no such queue.
    async fn state_of(&self, session: &Session, queue: &str) -> Result<Option<(u32, u32)>> {
        let channel = self.link.within(session.asking_channel()).await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match self
            .link
            .within(channel.queue_declare(queue.into(), options, topology::quorum()))
            .await
        {
            Ok(queue) => {
                _ = self.link.within(channel.close(200, "done".into())).await;
                Ok(Some((queue.message_count(), queue.consumer_count())))
            }
            // The broker has closed the channel for it.
            Err(Error::RabbitMq(reason)) if reason.contains("NOT_FOUND") => Ok(None),
            Err(error) => {
                session.give_up_asking().await;
                Err(error)
            }
        }
    }

    /// Asks the environment whether it lives, while messages run; those of one that does not are others'.
    async fn watch_environment(self: Arc<Self>) {
        let longest = Duration::from_millis(self.settings.max_stall);
        let pause = (longest / 4).clamp(Duration::from_millis(10), BEAT);
        loop {
            tokio::time::sleep(pause).await;
            let mut beat = self.beat.lock();
            match beat.asked {
                None if self.running.load(Ordering::Relaxed) > 0 => {
                    beat.asked = Some(Instant::now());
                    drop(beat);
                    self.environment.ask();
                }
                Some(asked) if !beat.stalled && asked.elapsed() >= longest => {
                    beat.stalled = true;
                    drop(beat);
                    self.warn(format!(
                        "the event loop has stood still for {} ms: its messages are run by others",
                        longest.as_millis()
                    ));
                    self.tell_all(|| Command::Stall(true));
                }
                _ => {}
            }
        }
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for subscribed in self.subscriptions.lock().values() {
            _ = subscribed.commands.send(command());
        }
    }
}

#[async_trait]
impl EventQueueAdapter for RabbitMqQueue {
    async fn connect(&self) -> Result<()> {
        let mut sessions = self.shared.link.sessions();
        let present = sessions.wait_for(Option::is_some);
        let timeout = self.shared.link.config().connect_timeout;
        match tokio::time::timeout(timeout, present).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.shared.link.away()),
        }
    }

    fn publish(&self, messages: Vec<Publish>) {
        let outgoing = |Publish { channel, message, done }: Publish| {
            let unique = self.shared.unique.next();
            let (id, nonce) = match message.id {
                None => (unique, None),
                Some(id) => (id, Some(unique)),
            };
            let target =
                if message.delay == 0 { Target::Main } else { Target::Delay(message.delay) };
            let envelope = Envelope { id, nonce, ..Envelope::default() };
            Outgoing { channel, target, envelope, text: message.text.into_bytes(), done }
        };
        self.shared.publisher.publish(messages.into_iter().map(outgoing).collect());
    }

    fn subscribe(&self, channel: &str, concurrency: u32, consumer: Arc<dyn Consumer>) -> u32 {
        let channel: Arc<str> = channel.into();
        let (commands, receiver) = mpsc::unbounded_channel();
        let subscription = Subscription::new(
            Arc::clone(&self.shared),
            Arc::clone(&channel),
            concurrency,
            consumer,
            (&commands, receiver),
        );
        let number = self.shared.last_number.fetch_add(1, Ordering::Relaxed);
        let subscribed = Subscribed { channel, commands, runs: subscription.runs() };
        self.shared.subscriptions.lock().insert(number, subscribed);
        let shared = Arc::clone(&self.shared);
        self.shared.spawn(async move {
            subscription.run().await;
            shared.subscriptions.lock().remove(&number);
        });
        number
    }

    fn unsubscribe(&self, channel: u32) {
        self.tell(channel, Command::End);
    }

    fn turn(&self, channel: u32, finished: Vec<Finished>, fetch: bool) {
        self.tell(channel, Command::Turn(finished, fetch));
    }

    fn standing(&self, channel: u32, ticket: u64) -> Standing {
        let subscriptions = self.shared.subscriptions.lock();
        subscriptions.get(&channel).map_or(Standing::Lost, |it| it.runs.standing(ticket))
    }

    fn beat(&self) {
        let stalled = std::mem::take(&mut *self.shared.beat.lock()).stalled;
        if stalled {
            self.shared.tell_all(|| Command::Stall(false));
        }
    }

    fn stop(&self) {
        self.shared.tell_all(|| Command::Stop);
    }

    async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let subscriptions: Vec<_> =
            self.shared.subscriptions.lock().values().map(|it| it.commands.clone()).collect();
        let mut ends = Vec::new();
        for commands in subscriptions {
            let (told, end) = oneshot::channel();
            if commands.send(Command::Close(told)).is_ok() {
                ends.push(end);
            }
        }
        for end in ends {
            _ = end.await;
        }
        self.shared.publisher.flush().await;
        if let Some(connects) = self.connection.lock().take() {
            connects.abort();
        }
        self.shared.link.close().await;
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock());
        tasks.shutdown().await;
    }

    async fn cancel(&self, channel: &str, id: &str) -> Result<bool> {
        let question = Question::Cancel { id: id.to_owned(), at: since_1970() };
        let answers = self.shared.control.ask(&self.shared, channel, question).await?;
        Ok(answers.iter().any(|answer| answer.found))
    }

    async fn pause(&self, channel: &str, paused: bool) -> Result<()> {
        let session = self.shared.link.session()?;
        let link = &self.shared.link;
        let queue = self.shared.names(channel).paused;
        if paused {
            declare(link, &session, &queue, topology::quorum()).await?;
        } else {
            let amqp = link.within(session.channel()).await?;
            link.within(amqp.queue_delete(queue.into(), QueueDeleteOptions::default())).await?;
            link.within(amqp.close(200, "done".into())).await?;
        }
        self.shared.control.ask(&self.shared, channel, Question::Pause).await.map(drop)
    }

    async fn counts(&self, channel: &str) -> Result<Counts> {
        let session = self.shared.link.session()?;
        let names = self.shared.names(channel);
        let answers = self.shared.control.ask(&self.shared, channel, Question::Count).await?;
        let ready = |state: Option<(u32, u32)>| state.map_or(0, |(ready, _)| u64::from(ready));
        let waiting = ready(self.shared.state_of(&session, &names.main).await?);
        let dead = ready(self.shared.state_of(&session, &names.dead).await?);
        let paused = self.shared.is_paused(&session, &names).await?;
        let sum = |of: fn(&Answer) -> u64| answers.iter().map(of).sum::<u64>();
        let (running, held) = (sum(|answer| answer.running), sum(|answer| answer.held));
        Ok(Counts {
            waiting: waiting + held,
            delayed: None,
            running,
            dead,
            paused,
            oldest_age: None,
        })
    }

    async fn dead_letters(&self, channel: &str) -> Result<Vec<DeadLetter>> {
        let _alone = self.looking.lock().await;
        dead::list(&self.shared, channel).await
    }

    async fn replay(&self, channel: &str, id: Option<&str>) -> Result<u64> {
        let _alone = self.looking.lock().await;
        dead::replay(&self.shared, channel, id).await
    }

    async fn drop_dead(&self, channel: &str, id: Option<&str>) -> Result<u64> {
        let _alone = self.looking.lock().await;
        dead::forget(&self.shared, channel, id).await
    }

    fn health(&self) -> (&'static str, Option<String>, u64) {
        if self.closed.load(Ordering::Acquire) {
            return ("closed", None, 0);
        }
        match self.shared.link.state().0 {
            State::Connecting => ("connecting", None, 0),
            State::Ready => ("ready", None, 0),
            State::Away(reason) => ("away", Some(reason), 0),
        }
    }
}

fn since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}
