//! One channel's consumer: fetches as it is allowed to, keeps account of what runs, and tells the broker what became of it.
//!
//! Each subscription has an AMQP channel of its own and is a task of its own. A message that is
//! tried again, dies or goes back after it was back before is published anew and then acknowledged, so that it is
//! there once or twice, but never not at all.

use super::{
    Shared,
    bounded::Bounded,
    connection::{Session, describe, jittered},
    delays,
    message::{Envelope, retried_before},
    names::Names,
    publisher::{Target, declare_once},
    topology,
    unsettled::Unsettled,
};
use crate::{
    error::{Error, Result},
    event_queue::{
        adapter::{Consumer, Delivery, Finished, Level, Options, Outcome},
        running::{Due, Run, Running},
    },
};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use lapin::{
    Channel,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    },
    types::FieldTable,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

/// For how long a permission to fetch holds, and how long a new consumer may find nothing before the channel rests.
const WINDOW: Duration = Duration::from_millis(50);
/// What an AMQP channel is given unasked at first, where any number may run; it grows as they run.
const FIRST_WINDOW: usize = 256;
/// AMQP counts what it gives unasked in 16 bits.
const LARGEST_WINDOW: usize = u16::MAX as usize;
/// How long a consumer has all that it may have before it is made anew for more.
const SATURATED: Duration = Duration::from_millis(10);
/// A broker closes the channel of a message that has run for 30 minutes, unless it is set otherwise.
const LONG_RUN: Duration = Duration::from_secs(25 * 60);
/// How often a message whose way on was not stored is published again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often an AMQP channel on which nothing is heard is looked at.
const LOOK: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long closing waits for what is being handed back.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that are remembered after the broker has them back, or was told of their end.
const REMEMBERED: usize = 10_000;
/// Commands that are taken at once.
const TURN: usize = 64;

/// What a subscription is told.
pub enum Command {
    /// See [`EventQueueAdapter::turn`](crate::event_queue::adapter::EventQueueAdapter::turn).
    Turn(Vec<Finished>, bool),
    /// Fetch no more; end when nothing runs.
    End,
    /// Fetch no more.
    Stop,
    /// Hand back what runs, and end.
    Close(oneshot::Sender<()>),
    /// Abort the message if it runs here, or forget it if it is held. Says whether it was there.
    Cancel(String, oneshot::Sender<bool>),
    /// The channel is paused, or is not.
    Pause(bool),
    /// How many run, and how many are held that have not begun.
    Count(oneshot::Sender<(u64, u64)>),
    /// The environment stands still, or goes on.
    Stall(bool),
    /// Another node has put these messages back.
    PutBack(Vec<String>),
    /// What is to take the place of a delivery, of a message with that key, is stored, or will not be.
    Moved(Place, String, bool),
}

/// A delivery: the AMQP channel's number in this subscription, and its tag there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    wire: u64,
    tag: u64,
}

/// A message that is here and was not settled.
struct Held {
    place: Option<Place>,
    envelope: Envelope,
    /// How often the queue has had it back.
    returns: u32,
    text: Vec<u8>,
    cancelled: bool,
}

/// The AMQP channel.
struct Wire {
    number: u64,
    session: Arc<Session>,
    channel: Channel,
    unsettled: Unsettled,
    consuming: Option<Consuming>,
    /// Since when the consumer has had all that it may have, while there were free slots.
    saturated: Option<Instant>,
    long_run_told: Option<Instant>,
}

struct Consuming {
    stream: lapin::Consumer,
    prefetch: usize,
    /// It was cancelled; what had been sent before is still to come.
    ends: bool,
}

/// The task.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a thing of its own that may be so at any time"
)]
pub struct Subscription {
    shared: Arc<Shared>,
    channel: Arc<str>,
    names: Names,
    consumer: Arc<dyn Consumer>,
    limit: usize,
    window: usize,
    commands: mpsc::UnboundedReceiver<Command>,
    own: mpsc::WeakUnboundedSender<Command>,
    sessions: watch::Receiver<Option<Arc<Session>>>,
    start: Instant,
    wire: Option<Wire>,
    /// The number of the wire that there is; 0 without one.
    current: Arc<AtomicU64>,
    wires: u64,
    failures: u32,
    /// An AMQP channel was lost for itself: maybe since the queue is gone.
    doubted: bool,
    running: Running<Held>,
    /// Here, and not begun.
    held: VecDeque<Held>,
    /// Messages whose deliveries were lost while they ran, and their runs.
    orphans: HashMap<String, u64>,
    /// How often this node has put a message back, or lost it with its connection.
    put_back: Bounded<String, u32>,
    /// Messages of which the broker was told that they are done; it may not have heard.
    settled: VecDeque<String>,
    /// Ways on that are not stored yet.
    moving: usize,
    paused: bool,
    stalled: bool,
    /// Nothing is fetched any more.
    stopped: bool,
    ended: bool,
    closing: Option<(oneshot::Sender<()>, Instant)>,
    /// The last turn allowed to fetch.
    willing: bool,
    /// What is here may begin until then.
    permit: Option<Instant>,
    /// The consumer was asked whether it is ready.
    asked: bool,
    /// The consumer is owed a word of what came of its permission.
    owed: bool,
    rests_at: Option<Instant>,
}

type Opening = BoxFuture<'static, Result<(Arc<Session>, Channel, bool)>>;

impl Subscription {
    /// One, whose commands come from `own`.
    pub fn new(
        shared: Arc<Shared>,
        channel: Arc<str>,
        concurrency: u32,
        consumer: Arc<dyn Consumer>,
        (own, commands): (&mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>),
    ) -> Self {
        let limit = usize::try_from(concurrency).unwrap_or(LARGEST_WINDOW).clamp(1, LARGEST_WINDOW);
        let running = Running::new(shared.settings.max_run);
        let (names, sessions) = (shared.names(&channel), shared.link.sessions());
        Self {
            shared,
            channel,
            names,
            consumer,
            limit,
            window: FIRST_WINDOW,
            commands,
            own: own.downgrade(),
            sessions,
            start: Instant::now(),
            wire: None,
            current: Arc::default(),
            wires: 0,
            failures: 0,
            doubted: false,
            running,
            held: VecDeque::new(),
            orphans: HashMap::new(),
            put_back: Bounded::new(REMEMBERED),
            settled: VecDeque::new(),
            moving: 0,
            paused: false,
            stalled: false,
            stopped: false,
            ended: false,
            closing: None,
            willing: false,
            permit: None,
            asked: false,
            owed: false,
            rests_at: None,
        }
    }

    /// Works until it has ended.
    pub async fn run(mut self) {
        let mut opening: Option<Opening> = None;
        while !self.is_over() {
            if self.wire.is_none() && !self.stalled && self.closing.is_none() {
                opening.get_or_insert_with(|| self.open());
            } else {
                opening = None;
            }
            let due = self.next_due();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey_all(command),
                    None => return,
                },
                Some(opened) = maybe(&mut opening) => {
                    opening = None;
                    self.opened(opened);
                }
                delivery = next(&mut self.wire) => self.arrived(delivery),
                Ok(()) = self.sessions.changed() => self.session_changed(),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => self.ring(),
            }
            self.advance();
        }
        self.finish().await;
    }

    fn is_over(&self) -> bool {
        if let Some((_, until)) = &self.closing {
            return self.moving == 0 || *until <= Instant::now();
        }
        self.ended && self.running.is_empty() && self.held.is_empty() && self.moving == 0
    }

    async fn finish(mut self) {
        self.acknowledge();
        if let Some(wire) = self.wire.take() {
            // The broker answers when it has done all that was sent before.
            _ = self.shared.link.within(wire.channel.close(200, "closed".into())).await;
        }
        if self.owed {
            self.consumer.rests();
        }
        if let Some((told, _)) = self.closing {
            _ = told.send(());
        }
    }

    fn open(&self) -> Opening {
        let (shared, names, failures, doubted) =
            (Arc::clone(&self.shared), self.names.clone(), self.failures, self.doubted);
        let mut sessions = self.sessions.clone();
        Box::pin(async move {
            if failures > 0 {
                let pause = PAUSE / 10 * 2_u32.saturating_pow(failures.min(16));
                tokio::time::sleep(jittered(pause.min(LONGEST_PAUSE))).await;
            }
            let present =
                sessions.wait_for(Option::is_some).await.ok().and_then(|session| session.clone());
            let Some(session) = present else { return Err(Error::Closed("event queue")) };
            if doubted {
                session.declared.lock().await.remove(&names.main);
            }
            declare_once(&shared.link, &session, &names.main, topology::main()).await?;
            let channel = shared.link.within(session.channel()).await?;
            let paused = shared.is_paused(&session, &names).await?;
            Ok((session, channel, paused))
        })
    }

    fn opened(&mut self, opened: Result<(Arc<Session>, Channel, bool)>) {
        match opened {
            Ok((session, channel, paused)) => {
                (self.failures, self.doubted) = (0, false);
                self.wires += 1;
                self.current.store(self.wires, Ordering::Release);
                let number = self.wires;
                let unsettled = Unsettled::default();
                self.wire = Some(Wire {
                    number,
                    session,
                    channel,
                    unsettled,
                    consuming: None,
                    saturated: None,
                    long_run_told: None,
                });
                self.paused = paused;
                self.wake_delays();
                if !self.willing {
                    self.ask();
                }
            }
            Err(Error::RabbitMq(reason)) => {
                self.failures += 1;
                if self.failures == 1 {
                    self.log(
                        Level::Error,
                        &format!("cannot be consumed, which is tried again: {reason}"),
                    );
                }
            }
            // Whoever looks after the connection tells it.
            Err(_) => self.failures += 1,
        }
    }

    fn wake_delays(&self) {
        let (shared, names) = (Arc::clone(&self.shared), self.names.clone());
        // What fails here fails with the connection, and is done again on the next.
        self.shared.spawn(async move { _ = delays::wake(&shared, &names).await });
    }

    fn obey_all(&mut self, command: Command) {
        self.obey(command);
        for _ in 1..TURN {
            match self.commands.try_recv() {
                Ok(command) => self.obey(command),
                Err(_) => return,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Turn(finished, fetch) => self.turn(finished, fetch),
            Command::End => {
                (self.ended, self.stopped) = (true, true);
            }
            Command::Stop => self.stopped = true,
            Command::Close(told) => {
                self.stopped = true;
                self.closing = Some((told, Instant::now() + CLOSE_TIMEOUT));
                self.hand_back_all();
            }
            Command::Cancel(id, told) => _ = told.send(self.cancel(&id)),
            Command::Pause(paused) => {
                if self.paused && !paused {
                    self.ask();
                }
                self.paused = paused;
            }
            Command::Count(told) => {
                _ = told.send((self.running.len() as u64, self.held.len() as u64));
            }
            Command::Stall(stalled) => {
                if stalled && !self.stalled && self.wire.is_some() {
                    self.lose(None);
                }
                self.stalled = stalled;
            }
            Command::PutBack(keys) => {
                for key in keys {
                    *self.put_back.entry(key, 0) += 1;
                }
            }
            Command::Moved(place, key, stored) => {
                self.moving -= 1;
                if stored {
                    self.remember(key);
                    self.done(place);
                }
            }
        }
    }

    fn turn(&mut self, finished: Vec<Finished>, fetch: bool) {
        self.asked = false;
        self.willing = fetch;
        // Before the acknowledgements, which would let the broker send more.
        if !self.may_fetch() {
            self.stop_consuming();
        }
        for Finished { ticket, outcome } in finished {
            if let Some(run) = self.running.end(ticket) {
                self.shared.ended();
                self.ended(run, outcome);
            }
        }
        if fetch {
            let until = Instant::now() + WINDOW;
            self.permit = Some(until);
            self.owed = true;
            // Without a consumer there is nothing to be known yet.
            self.rests_at = self.is_consuming().then_some(until);
        }
    }

    fn is_consuming(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.consuming.is_some())
    }

    /// Whether there may be a consumer.
    fn may_fetch(&self) -> bool {
        self.willing && !self.stopped && !self.paused && !self.stalled
    }

    /// Does what follows from what has happened.
    fn advance(&mut self) {
        if !self.may_fetch() {
            self.stop_consuming();
            self.hand_back_held();
            self.rest();
        } else if self.held.is_empty() {
            self.consume();
        } else if self.running.len() < self.limit {
            if self.permit.is_some_and(|until| Instant::now() <= until) {
                self.begin();
            } else {
                self.ask();
            }
        }
        self.acknowledge();
        self.renew();
        if self.owed && self.sessions.borrow().is_none() {
            self.rest();
        }
    }

    fn ask(&mut self) {
        if !self.asked && !self.stopped {
            self.asked = true;
            self.consumer.ready();
        }
    }

    fn rest(&mut self) {
        self.permit = None;
        self.rests_at = None;
        if std::mem::take(&mut self.owed) {
            self.consumer.rests();
        }
    }

    /// What is here begins, as far as there are slots.
    fn begin(&mut self) {
        let mut begins = Vec::new();
        while self.running.len() < self.limit {
            let Some(held) = self.held.pop_front() else { break };
            if let Some(delivery) = self.begin_one(held) {
                begins.push(delivery);
            }
        }
        if begins.is_empty() {
            return;
        }
        self.permit = None;
        self.owed = false;
        self.rests_at = None;
        self.shared.began(begins.len());
        self.consumer.begin(begins);
    }

    fn begin_one(&mut self, held: Held) -> Option<Delivery> {
        if self.shared.was_cancelled(&self.channel, &held.envelope.id, &held.text) {
            self.log(Level::Info, &format!("message {} was cancelled", held.envelope.id));
            self.drop_one(held);
            return None;
        }
        let Some(options) = Options::of(&held.text) else {
            self.bury(held, "it is not JSON as this queue publishes it".into());
            return None;
        };
        let counted = if self.shared.settings.crash_counts { self.crashes(&held) } else { 0 };
        let retried = held.envelope.retried.unwrap_or_else(|| retried_before(&options)) + counted;
        if counted > 0 && !options.allows_retry(retried - 1) {
            self.bury(held, "it has ended its node, and is not to be tried again".into());
            return None;
        }
        let (id, text) = (held.envelope.id.clone(), held.text.clone());
        let now = self.now();
        let ticket = self.running.begin(0, options, retried, held, now);
        Some(Delivery { ticket, id, retried, text })
    }

    /// A run has ended.
    fn ended(&mut self, run: Run<Held>, outcome: Outcome) {
        let Run { options, retried, inner: held, .. } = run;
        let Some(place) = held.place else {
            // Its delivery was lost, and the broker gives it to somebody; if that is this node it is known here.
            self.orphans.remove(held.envelope.key());
            if matches!(outcome, Outcome::Processed) || held.cancelled {
                self.remember(held.envelope.key().to_owned());
            } else if !matches!(outcome, Outcome::Returned) {
                self.log(
                    Level::Warn,
                    &format!(
                        "message {} failed after the broker had given it to another",
                        held.envelope.id
                    ),
                );
            }
            return;
        };
        match outcome {
            Outcome::Processed => self.settle(held.envelope, place),
            Outcome::Returned => self.hand_back(held),
            Outcome::Failed(_) if held.cancelled => self.settle(held.envelope, place),
            Outcome::Failed(_) if options.allows_retry(retried) => {
                let pause = options.pause(retried);
                // Nodes that say what has failed were not ended by it.
                let envelope = Envelope { retried: Some(retried + 1), crashes: 0, ..held.envelope };
                self.move_on(place, Target::Delay(pause), envelope, held.text);
            }
            Outcome::Failed(error) => {
                let envelope =
                    Envelope { retried: Some(retried), error: Some(error), ..held.envelope };
                self.move_on(place, Target::Dead, envelope, held.text);
            }
        }
    }

    fn settle(&mut self, envelope: Envelope, place: Place) {
        self.remember(envelope.nonce.unwrap_or(envelope.id));
        self.done(place);
    }

    fn drop_one(&mut self, held: Held) {
        if let Some(place) = held.place {
            self.settle(held.envelope, place);
        }
    }

    fn bury(&mut self, held: Held, error: String) {
        self.log(Level::Error, &format!("message {} is a dead letter: {error}", held.envelope.id));
        if let Some(place) = held.place {
            let envelope = Envelope { error: Some(error), ..held.envelope };
            self.move_on(place, Target::Dead, envelope, held.text);
        }
    }

    /// The message is published elsewhere, and acknowledged here once that is stored.
    fn move_on(&mut self, place: Place, target: Target, mut envelope: Envelope, text: Vec<u8>) {
        let key = envelope.key().to_owned();
        envelope.nonce = Some(self.shared.unique.next());
        self.moving += 1;
        let (publisher, channel) = (self.shared.publisher.clone(), Arc::clone(&self.channel));
        let (own, current, consumer) =
            (self.own.clone(), Arc::clone(&self.current), Arc::clone(&self.consumer));
        let task = async move {
            let mut told = false;
            let stored = loop {
                match publisher
                    .send(Arc::clone(&channel), target, envelope.clone(), text.clone())
                    .await
                {
                    Ok(()) => break true,
                    // Others have it then.
                    Err(_) if current.load(Ordering::Acquire) != place.wire => break false,
                    Err(Error::Closed(_)) => break false,
                    Err(error) => {
                        tokio::time::sleep(PAUSE).await;
                        // Whoever publishes may have heard first that the connection is lost.
                        if current.load(Ordering::Acquire) != place.wire {
                            break false;
                        }
                        if !std::mem::replace(&mut told, true) {
                            let id = &envelope.id;
                            consumer.log(Level::Warn, format!("what became of message {id} of event queue channel {channel} could not be stored, which is tried again: {error}"));
                        }
                    }
                }
            };
            if let Some(own) = own.upgrade() {
                _ = own.send(Command::Moved(place, key, stored));
            }
        };
        self.shared.spawn(task);
    }

    /// The message is others' again, and has not failed.
    fn hand_back(&mut self, held: Held) {
        let (Some(place), Some(wire)) = (held.place, &mut self.wire) else { return };
        if wire.number != place.wire {
            return;
        }
        if held.returns > 0 {
            // Put back again and again it could not be told from one that ends its nodes.
            let envelope = Envelope { crashes: self.crashes(&held), ..held.envelope };
            self.move_on(place, Target::Main, envelope, held.text);
            return;
        }
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        _ = wire.channel.basic_nack(place.tag, options).now_or_never();
        wire.unsettled.told(place.tag);
        self.count_put_back(vec![held.envelope.key().to_owned()]);
    }

    /// These are not to count as having ended their node, here and elsewhere.
    fn count_put_back(&mut self, keys: Vec<String>) {
        for key in &keys {
            *self.put_back.entry(key.clone(), 0) += 1;
        }
        if !keys.is_empty() {
            self.shared.control.tell_put_back(&self.channel, keys);
        }
    }

    /// How often a message has ended its node.
    fn crashes(&self, held: &Held) -> u32 {
        let ours = self.put_back.get(held.envelope.key()).copied().unwrap_or(0);
        held.envelope.crashes.saturating_add(held.returns.saturating_sub(ours))
    }

    fn hand_back_held(&mut self) {
        while let Some(held) = self.held.pop_front() {
            self.hand_back(held);
        }
    }

    fn hand_back_all(&mut self) {
        self.stop_consuming();
        let tickets: Vec<u64> = self.running.iter().map(|(ticket, _)| ticket).collect();
        for ticket in tickets {
            if let Some(run) = self.running.end(ticket) {
                self.shared.ended();
                self.hand_back(run.inner);
            }
        }
        self.hand_back_held();
    }

    fn cancel(&mut self, id: &str) -> bool {
        let tickets: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, run)| run.inner.envelope.id == id)
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in &tickets {
            if let Some(run) = self.running.get_mut(*ticket) {
                run.inner.cancelled = true;
            }
            self.consumer.cancelled(*ticket);
        }
        let (cancelled, others) =
            std::mem::take(&mut self.held).into_iter().partition(|held| held.envelope.id == id);
        self.held = others;
        let cancelled: VecDeque<Held> = cancelled;
        let found = !tickets.is_empty() || !cancelled.is_empty();
        for held in cancelled {
            self.drop_one(held);
        }
        found
    }

    /// The broker is to be told with the next acknowledgements.
    fn done(&mut self, place: Place) {
        if let Some(wire) = self.wire.as_mut().filter(|wire| wire.number == place.wire) {
            wire.unsettled.done(place.tag);
        }
    }

    fn remember(&mut self, key: String) {
        self.settled.push_back(key);
        if self.settled.len() > REMEMBERED {
            self.settled.pop_front();
        }
    }

    fn acknowledge(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let acks = wire.unsettled.acks();
        let through = acks.through.map(|tag| (tag, true));
        for (tag, multiple) in
            through.into_iter().chain(acks.single.into_iter().map(|tag| (tag, false)))
        {
            if let Some(Err(error)) =
                wire.channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never()
            {
                let reason = describe(&error);
                self.lose(Some(reason));
                return;
            }
        }
    }

    /// Makes a consumer, if there is none.
    fn consume(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        if wire.consuming.is_some() {
            return;
        }
        let capacity = self.limit.min(self.window);
        let prefetch = capacity.saturating_sub(wire.unsettled.open());
        let Some(count) = u16::try_from(prefetch).ok().filter(|&count| count > 0) else { return };
        wire.unsettled.draw_line();
        // Nobody waits for the replies: what fails closes the AMQP channel, which is noticed.
        _ = wire.channel.basic_qos(count, BasicQosOptions::default()).now_or_never();
        let options = BasicConsumeOptions { nowait: true, ..BasicConsumeOptions::default() };
        let tag = self.shared.unique.next();
        let consumer = wire.channel.basic_consume(
            self.names.main.as_str().into(),
            tag.into(),
            options,
            FieldTable::default(),
        );
        match consumer.now_or_never() {
            Some(Ok(stream)) => {
                wire.consuming = Some(Consuming { stream, prefetch, ends: false });
                self.rests_at = Some(Instant::now() + WINDOW);
            }
            Some(Err(error)) => {
                let reason = describe(&error);
                self.lose(Some(reason));
            }
            None => self.lose(Some("the consumer was not made".into())),
        }
    }

    fn stop_consuming(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let Some(consuming) = wire.consuming.as_mut().filter(|consuming| !consuming.ends) else {
            return;
        };
        consuming.ends = true;
        _ = wire
            .channel
            .basic_cancel(consuming.stream.tag(), BasicCancelOptions::default())
            .now_or_never();
    }

    /// A consumer that has all it may have, while there are free slots, makes way for one that may have more.
    fn renew(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let open = wire.unsettled.open();
        let has_all =
            |consuming: &Consuming| !consuming.ends && wire.unsettled.newer() >= consuming.prefetch;
        if open >= self.limit
            || !self.held.is_empty()
            || !wire.consuming.as_ref().is_some_and(has_all)
        {
            wire.saturated = None;
            return;
        }
        if wire.saturated.get_or_insert_with(Instant::now).elapsed() < SATURATED {
            return;
        }
        wire.saturated = None;
        if open >= self.window {
            self.window = (self.window * 2).min(LARGEST_WINDOW);
        }
        self.stop_consuming();
    }

    /// Messages have come, or the consumer has ended.
    fn arrived(&mut self, first: Option<lapin::Result<lapin::message::Delivery>>) {
        let mut next = Some(first);
        while let Some(delivery) = next {
            match delivery {
                Some(Ok(delivery)) => self.take(delivery),
                Some(Err(error)) => return self.lose(Some(describe(&error))),
                None => return self.consumer_ended(),
            }
            let stream = self.wire.as_mut().and_then(|wire| wire.consuming.as_mut());
            next = stream.and_then(|consuming| consuming.stream.next().now_or_never());
        }
    }

    fn consumer_ended(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        if wire.consuming.take().is_some_and(|consuming| consuming.ends) {
            return;
        }
        self.lose(Some("the broker has ended the consumer: the queue was deleted".into()));
    }

    fn take(&mut self, delivery: lapin::message::Delivery) {
        let Some(wire) = &mut self.wire else { return };
        let tag = delivery.delivery_tag;
        let place = Place { wire: wire.number, tag };
        wire.unsettled.add(tag, Instant::now());
        let (mut envelope, returns) = Envelope::of(&delivery.properties);
        if delivery.redelivered || returns > 0 {
            if self.settled.iter().any(|key| key == envelope.key()) {
                return self.done(place);
            }
            let run =
                self.orphans.remove(envelope.key()).and_then(|ticket| self.running.get_mut(ticket));
            if let Some(run) = run {
                run.inner.place = Some(place);
                run.inner.returns = returns;
                return;
            }
        }
        let text = delivery.data;
        if envelope.left > 0 {
            let left = std::mem::take(&mut envelope.left);
            return self.move_on(place, Target::Delay(left), envelope, text);
        }
        let held = Held { place: Some(place), envelope, returns, text, cancelled: false };
        let crashes = self.crashes(&held);
        if crashes >= self.shared.settings.max_crashes {
            let error = format!("it has ended its node {crashes} times");
            return self.bury(held, error);
        }
        self.held.push_back(held);
    }

    fn session_changed(&mut self) {
        let number = self.sessions.borrow_and_update().as_ref().map(|session| session.number);
        if self.wire.as_ref().is_some_and(|wire| Some(wire.session.number) != number) {
            self.lose(None);
        }
    }

    /// The AMQP channel is lost, and all deliveries on it are others' again. With a reason when the connection is not.
    fn lose(&mut self, reason: Option<String>) {
        let Some(wire) = self.wire.take() else { return };
        self.current.store(0, Ordering::Release);
        let mut keys: Vec<String> =
            self.held.drain(..).map(|held| held.envelope.key().to_owned()).collect();
        let lost: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, run)| run.inner.place.is_some())
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in &lost {
            let Some(run) = self.running.get_mut(*ticket) else { continue };
            run.inner.place = None;
            let key = run.inner.envelope.key().to_owned();
            keys.push(key.clone());
            self.orphans.insert(key, *ticket);
        }
        self.count_put_back(keys);
        // Whoever looks after the connection tells of its loss.
        if let Some(reason) = reason.filter(|_| wire.session.is_up()) {
            self.doubted = true;
            let runs = lost.len();
            self.log(Level::Warn, &format!("has lost its AMQP channel, and makes another; {runs} messages that run may be run again: {reason}"));
        }
        if wire.channel.status().connected() {
            self.shared.spawn(async move { _ = wire.channel.close(200, "closed".into()).await });
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn next_due(&self) -> Option<Instant> {
        let due = self
            .running
            .next_due()
            .and_then(|due| self.start.checked_add(Duration::from_millis(due)));
        let rest = self.rests_at.filter(|_| self.owed);
        let close = self.closing.as_ref().map(|(_, until)| *until);
        let oldest = self
            .wire
            .as_ref()
            .and_then(|wire| wire.unsettled.oldest())
            .map(|_| Instant::now() + LOOK);
        let saturated =
            self.wire.as_ref().and_then(|wire| wire.saturated).map(|since| since + SATURATED);
        due.into_iter().chain(rest).chain(close).chain(oldest).chain(saturated).min()
    }

    fn ring(&mut self) {
        if self.owed && self.rests_at.is_some_and(|at| at <= Instant::now()) {
            self.rest();
        }
        let now = self.now();
        for due in self.running.ring(now) {
            match due {
                Due::TimedOut { ticket, .. } => self.consumer.timed_out(ticket),
                Due::Overrun { ticket, run } => {
                    self.consumer.given_up(ticket);
                    self.shared.ended();
                    let most = self.shared.settings.max_run;
                    let id = &run.inner.envelope.id;
                    self.log(Level::Error, &format!("message {id} has run for {most} ms (maxRun), which counts as a failure; what its handler still says is ignored"));
                    let error = format!("it has run for {most} ms (maxRun)");
                    self.ended(run, Outcome::Failed(error));
                }
            }
        }
        self.look();
    }

    /// Looks whether the AMQP channel is there, and whether a message has run for so long that it may go.
    fn look(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        if !wire.channel.status().connected() {
            return self.lose(Some("the broker has closed it".into()));
        }
        let oldest = wire.unsettled.oldest().filter(|since| since.elapsed() >= LONG_RUN);
        if oldest.is_some() && oldest != wire.long_run_told {
            wire.long_run_told = oldest;
            self.log(Level::Warn, "has a message that has run for 25 minutes; brokers before 3.12 take one away after their consumer_timeout, 30 minutes unless it is set otherwise");
        }
    }

    fn log(&self, level: Level, what: &str) {
        self.consumer.log(level, format!("event queue channel {}: {what}", self.channel));
    }
}

/// The next delivery, never without a consumer.
async fn next(wire: &mut Option<Wire>) -> Option<lapin::Result<lapin::message::Delivery>> {
    match wire.as_mut().and_then(|wire| wire.consuming.as_mut()) {
        Some(consuming) => consuming.stream.next().await,
        None => std::future::pending().await,
    }
}

async fn maybe(opening: &mut Option<Opening>) -> Option<Result<(Arc<Session>, Channel, bool)>> {
    match opening {
        Some(opening) => Some(opening.await),
        None => std::future::pending().await,
    }
}
