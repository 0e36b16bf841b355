//! Locks on Redis for JavaScript: what is asked for in a turn goes over in one call, news come by mailbox.

use super::{
    RUNTIME,
    batch::Commands,
    call::{Call, Entry, Reply, functions},
    mailbox::{Data, Event, Mailbox, Payload},
    redis::describe,
};
use crate::{
    error::{Error, Result},
    lock::{
        FOREVER, Holder,
        redis::{Asked, NEVER, News, Owner, RedisLocks, Request},
    },
    redis::Config,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What JavaScript can call, by name.
pub fn functions() -> Vec<(&'static str, Entry)> {
    functions![
        "redisLockOpen" => open,
        "redisLockBase" => base,
        "redisLockReady" => ready,
        "redisLockSubmit" => submit,
        "redisLockIsHeld" => is_held,
        "redisLockHolders" => holders,
        "redisLockClose" => close,
        "redisLockSize" => size,
    ]
}

/// An environment's part in the locks of an app on a server. It goes with its handle, and so does all
/// that it holds or waits for.
struct Member {
    locks: Arc<RedisLocks>,
    owner: u32,
    /// The listener at the connection's monitor.
    id: u64,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.locks.redis().monitor().unlisten(self.id);
        self.locks.leave(self.owner);
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// A handle that can be closed before it is collected.
type Slot = Arc<parking_lot::Mutex<Option<Member>>>;

fn member<R>(call: &Call, get: impl FnOnce(&Member) -> R) -> Result<R> {
    let slot = call.handle::<Slot>(0)?.lock();
    slot.as_ref().map(get).ok_or(Error::Closed("the lock adapter"))
}

/// Where an environment hears of its leases: the number as subject; the token as value, or what it is
/// that has happened.
struct Ear {
    mailbox: Arc<Mailbox>,
    listener: u32,
}

impl Owner for Ear {
    fn tell(&self, number: u64, news: News) {
        let (value, payload) = match news {
            News::Granted { token } => (float(token), Payload::None),
            News::Refused => (-1.0, Payload::None),
            News::TimedOut => (-2.0, Payload::None),
            News::Lapsed => (-3.0, Payload::None),
            News::Lost => (-4.0, Payload::None),
            News::Overheld => (-5.0, Payload::None),
            News::Failed(error) => (-6.0, Payload::Error(error)),
        };
        self.mailbox.post(Event {
            listener: self.listener,
            subject: float(number),
            value,
            payload,
        });
    }
}

/// `redisLockOpen(options, app, node, gracePeriod, listener, healthListener): Handle`; the options as
/// JSON. Posts news to the one listener and the connection's health to the other.
fn open(call: &Call) -> Reply {
    let config = Config::from_json(&call.text(0)?)?;
    let (app, node) = (call.text(1)?, call.text(2)?);
    let grace = Duration::from_millis(milliseconds(call.f64(3)?));
    let locks = RedisLocks::shared(config, &app, &node, grace, RUNTIME.handle());
    let mailbox = Arc::clone(&call.context.mailbox);
    let ear = Ear { mailbox: Arc::clone(&mailbox), listener: call.u32(4)? };
    let (owner, health) = (locks.add_owner(Arc::new(ear)), call.u32(5)?);
    let id = NEXT_ID.fetch_add(1, Relaxed);
    locks.redis().monitor().listen(id, move |state| {
        let payload = Payload::Data(describe(state));
        mailbox.post(Event { listener: health, subject: 0.0, value: 0.0, payload });
    });
    let member = Member { locks, owner, id };
    call.new_handle::<Slot>(Arc::new(parking_lot::Mutex::new(Some(member))))
}

/// `redisLockBase(locks): number`: what the numbers of this environment's leases begin with.
fn base(call: &Call) -> Reply {
    call.number(float(RedisLocks::base(member(call, |member| member.owner)?)))
}

/// `redisLockReady(locks, listener, sequence)`: posts when locks are granted, or why they are not.
fn ready(call: &Call) -> Reply {
    let locks = member(call, |member| Arc::clone(&member.locks))?;
    let answer = Answer::of(call)?;
    RUNTIME.spawn(async move { answer.post(0.0, locks.ready().await.map(|()| Payload::None)) });
    call.undefined()
}

/// Where an answer goes, whose subject is its sequence number.
struct Answer {
    mailbox: Arc<Mailbox>,
    listener: u32,
    sequence: f64,
}

impl Answer {
    /// By the second and the third argument.
    fn of(call: &Call) -> Result<Self> {
        let mailbox = Arc::clone(&call.context.mailbox);
        Ok(Self { mailbox, listener: call.u32(1)?, sequence: call.f64(2)? })
    }

    fn post(self, value: f64, payload: Result<Payload>) {
        let payload = payload.unwrap_or_else(Payload::Error);
        let (listener, subject) = (self.listener, self.sequence);
        self.mailbox.post(Event { listener, subject, value, payload });
    }
}

/// The first number of a command.
mod kind {
    /// Number, wait, lease, hold; the key. -1 is for ever.
    pub const REQUEST: u32 = 0;
    /// Number, sequence; the key.
    pub const RELEASE: u32 = 1;
    /// Number, sequence, lease, hold; nothing.
    pub const EXTEND: u32 = 2;
}

/// `redisLockSubmit(locks, listener, commands, text, numbers, filled, units)`. Those with a sequence
/// number post with it to the listener: 1 when there was a lease, 0 when there was none.
fn submit(call: &Call) -> Reply {
    // Once all is given back there is no lease any more that could be released or extended.
    let open = member(call, |member| (Arc::clone(&member.locks), member.owner)).ok();
    let owner = open.as_ref().map_or(0, |(_, owner)| *owner);
    let (mailbox, listener) = (&call.context.mailbox, call.u32(1)?);
    let mut batch = call.batch(2)?;
    let mut all = Vec::with_capacity(batch.count());
    for _ in 0..batch.count() {
        let kind = batch.number()?;
        let number = milliseconds(batch.f64()?);
        all.push(if kind == kind::REQUEST {
            read_request(&mut batch, owner, number)?
        } else {
            let sequence = batch.f64()?;
            let answer = Answer { mailbox: Arc::clone(mailbox), listener, sequence };
            if kind == kind::RELEASE {
                Asked::Release { number, key: Some(batch.string()?.into()), done: answer.into() }
            } else {
                debug_assert_eq!(kind, kind::EXTEND);
                let (lease, hold) = (milliseconds(batch.f64()?), milliseconds(batch.f64()?));
                batch.string()?;
                Asked::Extend { number, lease, hold, watched: true, done: answer.into() }
            }
        });
    }
    match open {
        Some((locks, _)) => locks.perform(all),
        None => all.into_iter().for_each(Asked::decline),
    }
    call.undefined()
}

impl From<Answer> for crate::lock::redis::Reply {
    fn from(answer: Answer) -> Self {
        Box::new(move |had| match had {
            Ok(had) => answer.post(f64::from(u8::from(had)), Ok(Payload::None)),
            Err(error) => answer.post(0.0, Err(error)),
        })
    }
}

fn read_request(batch: &mut Commands, owner: u32, number: u64) -> Result<Asked> {
    let wait = milliseconds(batch.f64()?);
    let (lease, hold) = (milliseconds(batch.f64()?), milliseconds(batch.f64()?));
    let key = batch.string()?.into();
    Ok(Asked::Request(Request { owner, number, key, wait, lease, hold, watched: true }))
}

/// `redisLockIsHeld(locks, number): boolean`
fn is_held(call: &Call) -> Reply {
    let number = milliseconds(call.f64(1)?);
    call.boolean(member(call, |member| member.locks.is_held(number)).unwrap_or(false))
}

/// `redisLockHolders(locks, listener, sequence)`: posts a list of [`describe_holder`].
fn holders(call: &Call) -> Reply {
    let locks = member(call, |member| Arc::clone(&member.locks))?;
    let answer = Answer::of(call)?;
    RUNTIME.spawn(async move {
        let list = |all: Vec<Holder>| Data::List(all.iter().map(describe_holder).collect());
        let found = locks.holders().await;
        answer.post(0.0, found.map(|all| Payload::Data(list(all))));
    });
    call.undefined()
}

/// `[key, node, since, left, waiters, token]`; `left` is -1 for a lease without an end.
pub fn describe_holder(holder: &Holder) -> Data {
    let text = |text: &str| Data::Bytes(text.as_bytes().to_vec());
    let left = if holder.left == FOREVER { -1.0 } else { holder.left.as_secs_f64() * 1000.0 };
    Data::List(vec![
        text(&holder.key),
        text(&holder.node),
        Data::Number(float(holder.since)),
        Data::Number(left),
        Data::Number(float(holder.waiters)),
        Data::Number(float(holder.token)),
    ])
}

/// `redisLockClose(locks, listener)`: what waits is given up; what is held stays until it has ended, and
/// then posts to the listener.
fn close(call: &Call) -> Reply {
    let slot = Arc::clone(call.handle::<Slot>(0)?);
    let (mailbox, listener) = (Arc::clone(&call.context.mailbox), call.u32(1)?);
    let Ok((locks, owner)) = member(call, |member| (Arc::clone(&member.locks), member.owner))
    else {
        return call.undefined();
    };
    locks.retire(owner, move || {
        // Out of the lock: the last member ends the connection, which tells its listeners.
        let member = slot.lock().take();
        drop(member);
        mailbox.post(Event { listener, subject: -1.0, value: 0.0, payload: Payload::None });
    });
    call.undefined()
}

/// `redisLockSize(locks): number`: leases and waits of this process.
fn size(call: &Call) -> Reply {
    call.number(float(member(call, |member| member.locks.len())? as u64))
}

/// A whole number from JavaScript, fractions rounded up; negative ones and what is beyond the range are
/// for ever.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
fn milliseconds(number: f64) -> u64 {
    if number < 0.0 || number > 2f64.powi(53) { NEVER } else { number.ceil() as u64 }
}

#[expect(clippy::cast_precision_loss, reason = "tokens and numbers are below 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}
