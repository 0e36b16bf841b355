//! The event queues on servers, for JavaScript: what ends and what is published in a turn goes over in one
//! call, what begins comes in one event.

use super::{
    RUNTIME,
    call::{Call, Entry, Reply, functions},
    mailbox::{Data, Event, Mailbox, Payload},
    shared::SharedCells,
};
use crate::{
    error::{Error, Result},
    event_queue::{
        adapter::{
            Consumer, Counts, DeadLetter, Delivery, Environment, EventQueueAdapter, Finished,
            Level, Message, Outcome, Publish, Standing,
        },
        rabbitmq::{self, RabbitMqQueue},
        redis::RedisQueue,
        settings::Settings,
    },
    redis::Config,
};
use parking_lot::Mutex;
use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

/// What JavaScript can call, by name.
pub fn functions() -> Vec<(&'static str, Entry)> {
    functions![
        "redisQueueOpen" => open_redis,
        "rabbitQueueCheck" => check_rabbit,
        "rabbitQueueOpen" => open_rabbit,
        "serverQueueCells" => cells,
        "serverQueueConnect" => connect,
        "serverQueuePublish" => publish,
        "serverQueueSubscribe" => subscribe,
        "serverQueueUnsubscribe" => unsubscribe,
        "serverQueueTurn" => turn,
        "serverQueueStanding" => standing,
        "serverQueueBeat" => beat,
        "serverQueueStop" => stop,
        "serverQueueClose" => close,
        "serverQueueCancel" => cancel,
        "serverQueuePause" => pause,
        "serverQueueCounts" => counts,
        "serverQueueDeadLetters" => dead_letters,
        "serverQueueReplay" => replay,
        "serverQueueDrop" => drop_dead,
        "serverQueueHealth" => health,
    ]
}

/// What an event of a channel is, its value; the subject is the channel.
mod kind {
    /// There may be something to fetch.
    pub const READY: f64 = 0.0;
    /// Messages begin: JSON, `[changes, until, [ticket, id, retried, [options, content]]…]`. What begins when the
    /// cell of `serverQueueCells` has another number than `changes`, or `performance.now()` is past `until`, asks
    /// `serverQueueStanding` first.
    pub const BEGIN: f64 = 1.0;
    /// The ticket of a run whose timeout has passed.
    pub const TIMED_OUT: f64 = 2.0;
    /// The ticket of a run that was cancelled.
    pub const CANCELLED: f64 = 3.0;
    /// The ticket of a run that has lost its slot.
    pub const GIVEN_UP: f64 = 4.0;
    /// `[level, line]`.
    pub const LOG: f64 = 5.0;
    /// The environment is to call `serverQueueBeat`. Its subject is 0.
    pub const BEAT: f64 = 6.0;
    /// There is nothing to fetch for now.
    pub const RESTS: f64 = 7.0;
    /// Nothing more comes of a subscription that was ended; one for each.
    pub const OVER: f64 = 8.0;
}

type Queue = Arc<dyn EventQueueAdapter>;

/// A queue that ends when it is closed, before its handle is collected.
struct Opened {
    queue: Mutex<Option<Queue>>,
    sight: Sight,
}

type Slot = Arc<Opened>;

/// What JavaScript looks at before a message begins.
#[derive(Clone)]
struct Sight {
    /// How often something that was to begin was cancelled or lost.
    changes: SharedCells,
    /// When JavaScript's clock said what.
    clock: (Instant, f64),
}

impl Sight {
    fn new(now: f64) -> Self {
        Self { changes: SharedCells::new(1), clock: (Instant::now(), now) }
    }

    /// What `performance.now()` says after so many milliseconds, rounded down.
    fn after(&self, milliseconds: u64) -> u64 {
        let (at, now) = self.clock;
        let left = at.elapsed().saturating_add(Duration::from_millis(milliseconds));
        left.saturating_add(Duration::from_secs_f64(now / 1000.0))
            .as_millis()
            .try_into()
            .unwrap_or(u64::MAX)
    }
}

/// Where the events of a channel, or of the queue, go.
struct Ear {
    mailbox: Arc<Mailbox>,
    listener: u32,
    channel: f64,
    sight: Sight,
}

impl Ear {
    fn post(&self, value: f64, payload: Payload) {
        let (listener, subject) = (self.listener, self.channel);
        self.mailbox.post(Event { listener, subject, value, payload });
    }

    fn post_ticket(&self, value: f64, ticket: u64) {
        self.post(value, Payload::Data(Data::Number(float(ticket))));
    }

    fn post_begin(&self, deliveries: &[Delivery], until: u64) {
        let changes = self.sight.changes.counted(CHANGES);
        let mut rest = deliveries;
        while !rest.is_empty() {
            let (part, others) = rest.split_at(Delivery::fitting(rest, MOST_BYTES));
            let text = join(changes, until, part);
            self.post(kind::BEGIN, Payload::Data(Data::Bytes(text)));
            rest = others;
        }
    }
}

impl Consumer for Ear {
    fn ready(&self) {
        self.post(kind::READY, Payload::None);
    }

    fn rests(&self) {
        self.post(kind::RESTS, Payload::None);
    }

    fn begin(&self, deliveries: Vec<Delivery>) {
        self.post_begin(&deliveries, u64::MAX);
    }

    fn begin_within(&self, deliveries: Vec<Delivery>, milliseconds: u64) {
        self.post_begin(&deliveries, self.sight.after(milliseconds));
    }

    fn changed(&self) {
        self.sight.changes.count(CHANGES);
    }

    fn timed_out(&self, ticket: u64) {
        self.post_ticket(kind::TIMED_OUT, ticket);
    }

    fn cancelled(&self, ticket: u64) {
        self.changed();
        self.post_ticket(kind::CANCELLED, ticket);
    }

    fn given_up(&self, ticket: u64) {
        self.changed();
        self.post_ticket(kind::GIVEN_UP, ticket);
    }

    fn over(&self) {
        self.post(kind::OVER, Payload::None);
    }

    fn log(&self, level: Level, line: String) {
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        let parts = [level.as_bytes().to_vec(), line.into_bytes()];
        let parts = parts.into_iter().map(Data::Bytes).collect();
        self.post(kind::LOG, Payload::Data(Data::List(parts)));
    }
}

impl Environment for Ear {
    fn ask(&self) {
        self.post(kind::BEAT, Payload::None);
    }

    fn log(&self, level: Level, line: String) {
        Consumer::log(self, level, line);
    }
}

/// The bytes of messages in one event, beside the first: JavaScript's strings hold half a gigabyte at most.
const MOST_BYTES: usize = 64 << 20;

/// One JSON array of all, which is parsed in one go: a quarter to a half faster than one by one.
fn join(changes: u32, until: u64, deliveries: &[Delivery]) -> Vec<u8> {
    let room: usize = deliveries.iter().map(|it| it.text.len() + it.id.len() + 48).sum();
    let mut text = Vec::with_capacity(room + 34);
    text.push(b'[');
    text.extend_from_slice(itoa::Buffer::new().format(changes).as_bytes());
    text.push(b',');
    text.extend_from_slice(itoa::Buffer::new().format(until).as_bytes());
    for Delivery { ticket, id, retried, text: message } in deliveries {
        text.extend_from_slice(b",[");
        text.extend_from_slice(itoa::Buffer::new().format(*ticket).as_bytes());
        text.push(b',');
        // Writing a string into memory cannot fail.
        _ = serde_json::to_writer(&mut text, id);
        text.push(b',');
        text.extend_from_slice(itoa::Buffer::new().format(*retried).as_bytes());
        text.push(b',');
        text.extend_from_slice(message);
        text.push(b']');
    }
    text.push(b']');
    text
}

fn new_handle(call: &Call, queue: Queue, sight: Sight) -> Reply {
    call.new_handle::<Slot>(Arc::new(Opened { queue: Mutex::new(Some(queue)), sight }))
}

fn slot<'a>(call: &'a Call) -> Result<&'a Slot> {
    call.handle::<Slot>(0)
}

fn queue(call: &Call) -> Result<Queue> {
    slot(call)?.queue.lock().clone().ok_or(Error::Closed("the event queue"))
}

/// `redisQueueOpen(options, settings, listener, now): Handle`; both as JSON. Events of the queue go to the listener;
/// `now` is `performance.now()`.
fn open_redis(call: &Call) -> Reply {
    let config = Config::from_json(&call.text(0)?)?;
    let settings = Settings::from_json(&call.text(1)?)?;
    let sight = Sight::new(call.f64(3)?);
    let environment = Arc::new(ear(call, 2, 0.0, &sight)?);
    let queue: Queue = RedisQueue::open(config, settings, environment, RUNTIME.handle());
    new_handle(call, queue, sight)
}

/// `rabbitQueueCheck(options)`: throws what is wrong with them.
fn check_rabbit(call: &Call) -> Reply {
    rabbitmq::Config::from_json(&call.text(0)?)?;
    call.undefined()
}

/// `rabbitQueueOpen(options, settings, listener, now): Handle`; as `redisQueueOpen`.
fn open_rabbit(call: &Call) -> Reply {
    let config = rabbitmq::Config::from_json(&call.text(0)?)?;
    let settings = Settings::from_json(&call.text(1)?)?;
    let sight = Sight::new(call.f64(3)?);
    let environment = Arc::new(ear(call, 2, 0.0, &sight)?);
    let queue = RabbitMqQueue::open(config, settings, environment, RUNTIME.handle());
    new_handle(call, queue, sight)
}

fn ear(call: &Call, argument: usize, channel: f64, sight: &Sight) -> Result<Ear> {
    let mailbox = Arc::clone(&call.context.mailbox);
    Ok(Ear { mailbox, listener: call.u32(argument)?, channel, sight: sight.clone() })
}

/// The cell that counts what has changed of messages that were to begin.
const CHANGES: usize = 0;

/// `serverQueueCells(queue): ArrayBuffer`: a `Uint32`, how often something that was to begin was cancelled or lost.
fn cells(call: &Call) -> Reply {
    slot(call)?.sight.changes.to_js(call.env)
}

/// Where an answer goes; its subject is a sequence number.
struct Answer {
    mailbox: Arc<Mailbox>,
    listener: u32,
    sequence: f64,
}

impl Answer {
    fn post(self, payload: Result<Payload>) {
        let payload = payload.unwrap_or_else(Payload::Error);
        let (listener, subject) = (self.listener, self.sequence);
        self.mailbox.post(Event { listener, subject, value: 0.0, payload });
    }
}

/// Does `work`, and posts to the listener and with the sequence number that are the second and third argument.
fn answer<F>(call: &Call, work: impl FnOnce(Queue) -> F) -> Reply
where
    F: Future<Output = Result<Payload>> + Send + 'static,
{
    let mailbox = Arc::clone(&call.context.mailbox);
    let answer = Answer { mailbox, listener: call.u32(1)?, sequence: call.f64(2)? };
    let work = work(queue(call)?);
    RUNTIME.spawn(async move { answer.post(work.await) });
    call.undefined()
}

/// `serverQueueConnect(queue, listener, sequence)`
fn connect(call: &Call) -> Reply {
    answer(call, |queue| async move { queue.connect().await.map(|()| Payload::None) })
}

/// `serverQueuePublish(queue, listener, commands, text, numbers, filled, units)`: for each command its sequence
/// number, its delay, whether it has an id (0 or 1), and the lengths of channel, id and message. Posts the id.
fn publish(call: &Call) -> Reply {
    let (queue, listener) = (queue(call)?, call.u32(1)?);
    let mut batch = call.batch(2)?;
    let mut messages = Vec::with_capacity(batch.count());
    let mut last: Option<Arc<str>> = None;
    for _ in 0..batch.count() {
        let (sequence, delay) = (batch.f64()?, whole(batch.f64()?));
        let has_id = batch.number()? != 0;
        let channel = batch.bytes()?;
        // Mostly the same as before it.
        let channel = match &last {
            Some(last) if last.as_bytes() == &*channel => Arc::clone(last),
            _ => String::from_utf8_lossy(&channel).into(),
        };
        last = Some(Arc::clone(&channel));
        let (id, text) = (batch.string()?, batch.string()?);
        let message = Message { text, id: has_id.then_some(id), delay };
        let answer = Answer { mailbox: Arc::clone(&call.context.mailbox), listener, sequence };
        let done = move |stored: Result<String>| {
            answer.post(stored.map(|id| Payload::Data(Data::Bytes(id.into_bytes()))));
        };
        messages.push(Publish { channel, message, done: Box::new(done) });
    }
    queue.publish(messages);
    call.undefined()
}

/// `serverQueueSubscribe(queue, channel, concurrency, listener): number`
fn subscribe(call: &Call) -> Reply {
    let (name, concurrency) = (call.text(1)?, call.u32(2)?);
    let number = call.u32(4)?;
    let ear = Arc::new(ear(call, 3, f64::from(number), &slot(call)?.sight)?);
    call.integer(queue(call)?.subscribe(&name, concurrency, ear))
}

/// `serverQueueUnsubscribe(queue, channel)`; nothing once it is closed.
fn unsubscribe(call: &Call) -> Reply {
    let channel = call.u32(1)?;
    if let Ok(queue) = queue(call) {
        queue.unsubscribe(channel);
    }
    call.undefined()
}

/// How a run has ended, the first number of it; see `serverQueueTurn`.
const PROCESSED: u32 = 0;
const FAILED: u32 = 1;

/// `serverQueueTurn(queue, channel, fetch, commands, text, numbers, filled, units)`: for each command how the run
/// has ended (0 processed, 1 failed, 2 returned), its ticket, and the length of the error.
fn turn(call: &Call) -> Reply {
    let (channel, fetch) = (call.u32(1)?, call.bool(2)?);
    let mut batch = call.batch(3)?;
    let mut finished = Vec::with_capacity(batch.count());
    for _ in 0..batch.count() {
        let (how, ticket, error) = (batch.number()?, whole(batch.f64()?), batch.string()?);
        let outcome = match how {
            PROCESSED => Outcome::Processed,
            FAILED => Outcome::Failed(error),
            _ => Outcome::Returned,
        };
        finished.push(Finished { ticket, outcome });
    }
    // What is told to a closed queue has been given back.
    if let Ok(queue) = queue(call) {
        queue.turn(channel, finished, fetch);
    }
    call.undefined()
}

/// `serverQueueStanding(queue, channel, ticket): number`: whether the message may begin: 0 it may, 1 it was cancelled,
/// 2 it is others'.
fn standing(call: &Call) -> Reply {
    let (channel, ticket) = (call.u32(1)?, whole(call.f64(2)?));
    let standing = queue(call).map_or(Standing::Lost, |queue| queue.standing(channel, ticket));
    call.integer(match standing {
        Standing::Ours => 0,
        Standing::Cancelled => 1,
        Standing::Lost => 2,
    })
}

/// `serverQueueBeat(queue)`; nothing once it is closed: the answer may come late.
fn beat(call: &Call) -> Reply {
    if let Ok(queue) = queue(call) {
        queue.beat();
    }
    call.undefined()
}

/// `serverQueueStop(queue)`
fn stop(call: &Call) -> Reply {
    queue(call)?.stop();
    call.undefined()
}

/// `serverQueueClose(queue, listener, sequence)`
fn close(call: &Call) -> Reply {
    let slot = Arc::clone(slot(call)?);
    answer(call, |queue| async move {
        queue.close().await;
        slot.queue.lock().take();
        Ok(Payload::None)
    })
}

/// `serverQueueCancel(queue, listener, sequence, channel, id)`: 1 or 0.
fn cancel(call: &Call) -> Reply {
    let (channel, id) = (call.text(3)?, call.text(4)?);
    answer(call, |queue| async move {
        let found = queue.cancel(&channel, &id).await?;
        Ok(Payload::Data(Data::Number(f64::from(u8::from(found)))))
    })
}

/// `serverQueuePause(queue, listener, sequence, channel, paused)`
fn pause(call: &Call) -> Reply {
    let (channel, paused) = (call.text(3)?, call.bool(4)?);
    answer(call, |queue| async move { queue.pause(&channel, paused).await.map(|()| Payload::None) })
}

/// `serverQueueCounts(queue, listener, sequence, channel)`: a list of [`describe`].
fn counts(call: &Call) -> Reply {
    let channel = call.text(3)?;
    answer(call, |queue| async move { queue.counts(&channel).await.map(|it| describe(&it)) })
}

/// `[waiting, delayed, running, dead, paused, oldestAge]`; -1 is unknown.
fn describe(counts: &Counts) -> Payload {
    let known = |number: Option<u64>| number.map_or(-1.0, float);
    let numbers = [
        float(counts.waiting),
        known(counts.delayed),
        float(counts.running),
        float(counts.dead),
        f64::from(u8::from(counts.paused)),
        known(counts.oldest_age),
    ];
    Payload::Data(Data::List(numbers.into_iter().map(Data::Number).collect()))
}

/// `serverQueueDeadLetters(queue, listener, sequence, channel)`: a list of `[id, error, message]`.
fn dead_letters(call: &Call) -> Reply {
    let channel = call.text(3)?;
    answer(call, |queue| async move {
        let list = |DeadLetter { id, text, error }: DeadLetter| {
            let parts = [id.into_bytes(), error.into_bytes(), text];
            Data::List(parts.into_iter().map(Data::Bytes).collect())
        };
        let letters = queue.dead_letters(&channel).await?;
        Ok(Payload::Data(Data::List(letters.into_iter().map(list).collect())))
    })
}

/// The id, or all for an empty one.
fn chosen(id: &str) -> Option<&str> {
    (!id.is_empty()).then_some(id)
}

/// `serverQueueReplay(queue, listener, sequence, channel, id)`: how many; all without an id.
fn replay(call: &Call) -> Reply {
    let (channel, id) = (call.text(3)?, call.text(4)?);
    answer(call, |queue| async move {
        let count = queue.replay(&channel, chosen(&id)).await?;
        Ok(Payload::Data(Data::Number(float(count))))
    })
}

/// `serverQueueDrop(queue, listener, sequence, channel, id)`: how many; all without an id.
fn drop_dead(call: &Call) -> Reply {
    let (channel, id) = (call.text(3)?, call.text(4)?);
    answer(call, |queue| async move {
        let count = queue.drop_dead(&channel, chosen(&id)).await?;
        Ok(Payload::Data(Data::Number(float(count))))
    })
}

/// `serverQueueHealth(queue): [state, reason, silent]`
fn health(call: &Call) -> Reply {
    let (state, reason, silent) = queue(call)?.health();
    let reason = reason.map_or(Data::Null, |reason| Data::Bytes(reason.into_bytes()));
    let state = Data::Bytes(state.as_bytes().to_vec());
    Data::List(vec![state, reason, Data::Number(float(silent))]).to_js(call.env)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
fn whole(number: f64) -> u64 {
    number.ceil() as u64
}

#[expect(clippy::cast_precision_loss, reason = "tickets and counts are below 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}
