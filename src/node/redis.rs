//! Redis' functions: connections, batches of plain commands, and what a cache does beyond those.

use super::{
    RUNTIME,
    batch::Commands,
    call::{Call, Entry, Reply, functions},
    mailbox::{Data, Event, Mailbox, Payload},
    tiered::Near,
};
use crate::{
    cache::redis as store,
    error::{Error, Result},
    redis::{Command, Config, Health, Redis},
};
use redis::Value;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What JavaScript can call, by name.
pub fn functions() -> Vec<(&'static str, Entry)> {
    functions![
        "redisOpen" => open,
        "redisClose" => close,
        "redisHealth" => health,
        "redisSubmit" => submit,
        "redisOperate" => operate,
        "redisShown" => shown,
    ]
}

/// One user of a connection: a handle of it in JavaScript.
pub struct User {
    pub redis: Arc<Redis>,
    pub near: Option<Near>,
    id: u64,
}

impl Drop for User {
    fn drop(&mut self) {
        self.redis.monitor().unlisten(self.id);
    }
}

static NEXT_USER: AtomicU64 = AtomicU64::new(0);

/// A handle that can be closed before it is collected.
type Slot = parking_lot::Mutex<Option<User>>;

/// The open connection behind a handle.
pub fn redis(call: &Call, argument: usize) -> Result<Arc<Redis>> {
    let slot = call.handle::<Slot>(argument)?.lock();
    slot.as_ref().map(|user| Arc::clone(&user.redis)).ok_or(Error::Closed("the redis connection"))
}

/// What [`tiered`](super::tiered) has open beside the connection.
pub fn near(call: &Call, argument: usize) -> Result<Near> {
    let slot = call.handle::<Slot>(argument)?.lock();
    let near = slot.as_ref().and_then(|user| user.near.clone());
    near.ok_or(Error::Closed("the tiered store's connection"))
}

/// A handle to `redis`, whose changes of state are posted to `listener`, now and later.
pub fn handle(call: &Call, redis: Arc<Redis>, near: Option<Near>, listener: u32) -> Reply {
    let id = NEXT_USER.fetch_add(1, Ordering::Relaxed);
    let mailbox = Arc::clone(&call.context.mailbox);
    redis.monitor().listen(id, move |health| {
        let payload = Payload::Data(describe(health));
        mailbox.post(Event { listener, subject: 0.0, value: 0.0, payload });
    });
    call.new_handle::<Slot>(parking_lot::Mutex::new(Some(User { redis, near, id })))
}

/// `redisOpen(options: string, listener: number): Handle`, the process's connection with those options (JSON).
fn open(call: &Call) -> Reply {
    let config = Config::from_json(&call.text(0)?)?;
    handle(call, Redis::shared(config, RUNTIME.handle()), None, call.u32(1)?)
}

/// `redisClose(redis: Handle)`: the connection ends when its last user has closed it.
fn close(call: &Call) -> Reply {
    // Out of the lock: ending a connection tells its listeners.
    let user = call.handle::<Slot>(0)?.lock().take();
    drop(user);
    call.undefined()
}

/// `redisHealth(redis: Handle): [server, state, reason, milliseconds, version, protocol, eviction]`
fn health(call: &Call) -> Reply {
    let health = redis(call, 0)?.monitor().health();
    describe(&health).to_js(call.env)
}

/// The parts of a health: server, state, reason, milliseconds, version, protocol, eviction policy.
pub fn describe(health: &Health) -> Data {
    let text = |text: &str| Data::Bytes(text.as_bytes().to_vec());
    Data::List(vec![
        text(&health.server),
        text(health.state.name()),
        health.reason.as_deref().map_or(Data::Null, text),
        Data::Number(health.since.elapsed().as_secs_f64() * 1000.0),
        text(&health.version),
        Data::Number(f64::from(health.protocol)),
        text(&health.eviction),
    ])
}

/// `redisShown(options: string): string`: the options as a URL, secrets masked.
fn shown(call: &Call) -> Reply {
    call.string(&Config::from_json(&call.text(0)?)?.shown())
}

/// `redisSubmit(redis, listener, commands, text, numbers, filled, units)`; a command is its sequence
/// number, the count of its words, and the words.
fn submit(call: &Call) -> Reply {
    let redis = redis(call, 0)?;
    let answers = Answers { mailbox: Arc::clone(&call.context.mailbox), listener: call.u32(1)? };
    let mut batch = call.batch(2)?;
    let count = batch.count();
    let sequences = batch.sequences()?;
    let cut = move || {
        let mut commands = Vec::with_capacity(count);
        for _ in 0..count {
            // The lengths were read once already, so no batch is too short here.
            if let Ok(command) = cut(&mut batch) {
                commands.push(command);
            }
        }
        commands
    };
    let server = Arc::clone(&redis);
    redis.submit(
        cut,
        Box::new(move |results| match results {
            Ok(results) => {
                let events = sequences.into_iter().zip(results).map(|(sequence, result)| {
                    let result = result.and_then(|value| server.check(value));
                    answers.event(sequence, result)
                });
                answers.mailbox.post_all(events);
            }
            Err(error) => {
                let events = sequences
                    .into_iter()
                    .map(|sequence| answers.event(sequence, Err(error.clone())));
                answers.mailbox.post_all(events);
            }
        }),
    );
    call.undefined()
}

fn cut(batch: &mut Commands) -> Result<Command> {
    batch.f64()?;
    let words = batch.number()?;
    let mut command = Command::with_capacity(words as usize, batch.lengths(words as usize).sum());
    for _ in 0..words {
        command.push(&batch.bytes()?);
    }
    Ok(command)
}

/// Where replies go.
pub struct Answers {
    pub mailbox: Arc<Mailbox>,
    pub listener: u32,
}

/// The value of an event that stands for `OK`.
const OKAY: f64 = f64::NAN;

impl Answers {
    pub fn event(&self, sequence: f64, result: Result<Value>) -> Event {
        let (value, payload) = match result {
            Ok(Value::Okay) => (OKAY, Payload::None),
            #[expect(clippy::cast_precision_loss, reason = "JavaScript has no larger integers")]
            Ok(Value::Int(number)) => (number as f64, Payload::None),
            Ok(value) => (0.0, Payload::Data(data(value))),
            Err(error) => (0.0, Payload::Error(error)),
        };
        Event { listener: self.listener, subject: sequence, value, payload }
    }
}

/// A reply as JavaScript sees it: maps as lists of pairs, in turn.
fn data(value: Value) -> Data {
    let list = |values: Vec<Value>| Data::List(values.into_iter().map(data).collect());
    match value {
        Value::Nil => Data::Null,
        #[expect(clippy::cast_precision_loss, reason = "JavaScript has no larger integers")]
        Value::Int(number) => Data::Number(number as f64),
        Value::BulkString(bytes) => Data::Bytes(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => {
            Data::Bytes(text.into_bytes())
        }
        Value::Okay => Data::Bytes(b"OK".to_vec()),
        Value::Double(number) => Data::Number(number),
        Value::Boolean(flag) => Data::Number(f64::from(u8::from(flag))),
        Value::Array(values) | Value::Set(values) | Value::Push { data: values, .. } => {
            list(values)
        }
        Value::Map(pairs) => Data::List(
            pairs.into_iter().flat_map(|(key, value)| [data(key), data(value)]).collect(),
        ),
        Value::Attribute { data: inner, .. } => data(*inner),
        Value::ServerError(error) => {
            let details = error.details().map_or_else(String::new, |details| format!(" {details}"));
            Data::Error(Error::Redis(format!("{}{details}", error.code())))
        }
        other => Data::Bytes(format!("{other:?}").into_bytes()),
    }
}

/// What [`operate`] is asked for; `lib/redis/operations.ts` has the same numbers.
mod operation {
    pub const KEYS: u32 = 0;
    pub const DELETE_MATCHING: u32 = 1;
    pub const GET_MANY: u32 = 2;
    pub const DELETE_MANY: u32 = 3;
    pub const COUNT: u32 = 4;
    pub const REPLACE: u32 = 5;
    pub const TAKE_LEASE: u32 = 6;
    pub const RELEASE_LEASE: u32 = 7;
    pub const BLOOM_RESERVE: u32 = 8;
    pub const BLOOM_ADD: u32 = 9;
    pub const BLOOM_EXISTS: u32 = 10;
    pub const RENEW_LEASE: u32 = 11;
    pub const SET_UNDER_LEASE: u32 = 12;
}

/// `redisOperate(redis, listener, sequence, operation, words: string[])`: what takes more than one
/// plain command. It begins after all that was submitted before.
fn operate(call: &Call) -> Reply {
    let redis = redis(call, 0)?;
    let answers = Answers { mailbox: Arc::clone(&call.context.mailbox), listener: call.u32(1)? };
    let (sequence, operation, words) = (call.f64(2)?, call.u32(3)?, call.strings(4)?);
    RUNTIME.spawn(async move {
        let result = perform(&redis, operation, words).await;
        answers.mailbox.post(answers.event(sequence, result));
    });
    call.undefined()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "lib/ checks them")]
async fn perform(redis: &Redis, operation: u32, words: Vec<Vec<u8>>) -> Result<Value> {
    let word = |at: usize| words.get(at).map(Vec::as_slice).unwrap_or_default();
    let number = |at: usize| number(word(at));
    let flag = |flag: bool| Value::Int(i64::from(flag));
    match operation {
        operation::KEYS => {
            let keys = store::keys(redis, word(0)).await?;
            Ok(Value::Array(keys.into_iter().map(Value::BulkString).collect()))
        }
        operation::DELETE_MATCHING => {
            store::delete_matching(redis, word(0)).await.map(|()| Value::Okay)
        }
        operation::GET_MANY => store::get_many(redis, &words).await.map(Value::Array),
        operation::DELETE_MANY => store::delete(redis, &words).await.map(|()| Value::Okay),
        operation::COUNT => {
            let sum = store::count(redis, word(0), number(1)? as i64, number(2)? as u64).await?;
            Ok(Value::Double(self::number(&sum)?))
        }
        operation::REPLACE => {
            let expected = (word(1) == b"1").then(|| word(2));
            store::replace(redis, word(0), expected, word(3), number(4)? as u64).await
        }
        operation::TAKE_LEASE => {
            store::take_lease(redis, word(0), word(1), number(2)? as u64).await.map(flag)
        }
        operation::RELEASE_LEASE => {
            store::release_lease(redis, word(0), word(1)).await.map(|()| Value::Okay)
        }
        operation::BLOOM_RESERVE => store::bloom::reserve(redis, word(0), number(1)?, number(2)?)
            .await
            .map(|()| Value::Okay),
        operation::BLOOM_ADD => {
            store::bloom::add(redis, word(0), words.get(1..).unwrap_or_default())
                .await
                .map(|()| Value::Okay)
        }
        operation::BLOOM_EXISTS => {
            store::bloom::exists(redis, word(0), word(1).to_vec()).await.map(flag)
        }
        operation::RENEW_LEASE => {
            store::renew_lease(redis, word(0), word(1), number(2)? as u64).await.map(flag)
        }
        operation::SET_UNDER_LEASE => {
            store::set_under_lease(redis, word(0), word(1), word(2), word(3), number(4)? as u64)
                .await
                .map(flag)
        }
        other => Err(Error::Internal(format!("operation {other}"))),
    }
}

fn number(text: &[u8]) -> Result<f64> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Error::Redis(format!("not a number: {}", String::from_utf8_lossy(text))))
}
