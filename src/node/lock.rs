//! The process's locks for JavaScript: calls that take effect at once, and news by mailbox.

use super::{
    Context, RUNTIME,
    call::{Call, Entry, Reply, functions},
    mailbox::{Data, Event, Mailbox, Payload},
    redis_lock::describe_holder,
    shared::SharedCells,
};
use crate::{
    error::Result,
    lock::{
        Lease, LocalLocks,
        local::{News, Outcome, Owner, Released, Request},
    },
};
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

static LOCKS: LazyLock<Arc<LocalLocks>> = LazyLock::new(|| LocalLocks::new(RUNTIME.handle()));

/// What JavaScript can call, by name.
pub fn functions() -> Vec<(&'static str, Entry)> {
    functions![
        "lockJoin" => join,
        "lockCells" => cells,
        "lockRequest" => request,
        "lockRelease" => release,
        "lockExtend" => extend,
        "lockWatch" => watch,
        "lockHolders" => holders,
        "lockKeys" => keys,
        "lockBytes" => bytes,
    ]
}

/// An environment's part of the table. Its handle goes with the environment, and so does all it
/// holds or waits for.
struct Membership {
    owner: u32,
    /// A lease that is returned: its slot, its token.
    lease: SharedCells,
}

impl Drop for Membership {
    fn drop(&mut self) {
        LOCKS.leave(self.owner);
    }
}

impl Membership {
    fn put(&self, lease: Lease) {
        self.lease.set_f64(0, f64::from(lease.slot));
        self.lease.set_f64(1, token_to_js(lease.token));
    }
}

/// Where an environment hears of its leases: the token as subject; the slot as value, or which
/// end it was.
struct Ear {
    mailbox: Arc<Mailbox>,
    listener: u32,
}

impl Owner for Ear {
    fn tell(&self, lease: Lease, news: News) {
        let value = match news {
            News::Granted => f64::from(lease.slot),
            News::TimedOut => -1.0,
            News::Lapsed => -2.0,
        };
        let (listener, subject) = (self.listener, token_to_js(lease.token));
        self.mailbox.post(Event { listener, subject, value, payload: Payload::None });
    }
}

/// `lockJoin(listener): Handle`
fn join(call: &Call) -> Reply {
    let Context { mailbox, .. } = call.context;
    let ear = Ear { mailbox: Arc::clone(mailbox), listener: call.u32(0)? };
    let ear: Arc<dyn Owner> = Arc::new(ear);
    let owner = LOCKS.join(&ear);
    call.new_handle(Membership { owner, lease: SharedCells::new(2) })
}

/// `lockCells(locks): ArrayBuffer`: where a lease is returned, as slot and token.
fn cells(call: &Call) -> Reply {
    call.handle::<Membership>(0)?.lease.to_js(call.env)
}

/// `lockRequest(locks, key, wait, ttl, watched): 0 | 1 | 2`: refused; granted; waiting.
fn request(call: &Call) -> Reply {
    let member = call.handle::<Membership>(0)?;
    let (wait, ttl) = (duration(call, 2)?, duration(call, 3)?);
    let request = Request { owner: member.owner, wait, ttl, watched: call.bool(4)? };
    match call.with_utf16(1, |key| LOCKS.request(key, &request))? {
        Outcome::Refused => call.integer(0),
        Outcome::Granted(lease) => {
            member.put(lease);
            call.integer(1)
        }
        Outcome::Waiting(lease) => {
            member.put(lease);
            call.integer(2)
        }
    }
}

/// `lockRelease(locks, slot, token): 0 | 1 | 2`: had ended before; done; done, and the lease that
/// is returned is granted to the same environment.
fn release(call: &Call) -> Reply {
    let member = call.handle::<Membership>(0)?;
    match LOCKS.release(lease(call)?) {
        Released::Nothing => call.integer(0),
        Released::Done => call.integer(1),
        Released::HandedOver(next) => {
            member.put(next);
            call.integer(2)
        }
    }
}

/// `lockExtend(locks, slot, token, ttl): boolean`
fn extend(call: &Call) -> Reply {
    call.boolean(LOCKS.extend(lease(call)?, duration(call, 3)?))
}

/// `lockWatch(locks, slot, token): boolean`
fn watch(call: &Call) -> Reply {
    call.boolean(LOCKS.watch(lease(call)?))
}

/// `lockHolders(node: string)`: a list of [`describe_holder`].
fn holders(call: &Call) -> Reply {
    let all = LOCKS.holders(&call.text(0)?);
    Data::List(all.iter().map(describe_holder).collect()).to_js(call.env)
}

/// `lockKeys(): number`: keys held in the process.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn keys(call: &Call) -> Reply {
    call.number(LOCKS.keys() as f64)
}

/// `lockBytes(): number`: memory kept for them.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn bytes(call: &Call) -> Reply {
    call.number(LOCKS.capacity_bytes() as f64)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tokens are whole and positive"
)]
fn lease(call: &Call) -> Result<Lease> {
    Ok(Lease { slot: call.u32(1)?, token: call.f64(2)? as u64 })
}

/// Milliseconds; what is beyond the range, and Infinity, is for ever.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
fn duration(call: &Call, index: usize) -> Result<Duration> {
    Ok(Duration::from_millis(call.f64(index)?.ceil() as u64))
}

#[expect(clippy::cast_precision_loss, reason = "2^53 grants take 285 years at a million a second")]
fn token_to_js(token: u64) -> f64 {
    token as f64
}
