//! Worker ids' functions: one node's id on Redis.

use super::{
    RUNTIME,
    call::{Call, Entry, Reply, functions},
    mailbox::{Event, Mailbox, Payload},
};
use crate::{
    error::Result,
    redis::Config,
    worker_id::{
        WorkerIdAdapter,
        redis::{Notice, RedisWorkerIds, Times, Told},
    },
};
use std::{sync::Arc, time::Duration};

/// What JavaScript can call, by name.
pub fn functions() -> Vec<(&'static str, Entry)> {
    functions![
        "workerIdNew" => new,
        "workerIdGet" => get,
        "workerIdRelease" => release,
        "workerIdIsHolding" => is_holding,
    ]
}

type Node = Arc<RedisWorkerIds>;

/// `workerIdNew(options: string, app: string, lease: number, rest: number, listener: number): Handle`:
/// posts lines for the log, with the level (0 info, 1 warn, 2 error) as value.
fn new(call: &Call) -> Reply {
    let config = Config::from_json(&call.text(0)?)?;
    let times = Times { lease: milliseconds(call.f64(2)?), rest: milliseconds(call.f64(3)?) };
    let (mailbox, listener) = (Arc::clone(&call.context.mailbox), call.u32(4)?);
    let told: Told = Arc::new(move |notice| {
        let payload = Payload::Text(notice.to_string());
        mailbox.post(Event { listener, subject: 0.0, value: level(notice), payload });
    });
    let node = RedisWorkerIds::new(config, &call.text(1)?, times, told, RUNTIME.handle());
    call.new_handle::<Node>(Arc::new(node))
}

fn level(notice: &Notice) -> f64 {
    match notice {
        Notice::Regained { .. } | Notice::PutBack { .. } => 0.0,
        Notice::Lapsed { .. } => 1.0,
        Notice::Lost { .. } => 2.0,
    }
}

/// `workerIdGet(node, listener, sequence)`: posts the id.
fn get(call: &Call) -> Reply {
    let (node, settle) = (Arc::clone(call.handle::<Node>(0)?), settle(call)?);
    RUNTIME.spawn(async move { settle(node.get_worker_id().await) });
    call.undefined()
}

/// `workerIdRelease(node, listener, sequence)`: posts when it is done.
fn release(call: &Call) -> Reply {
    let (node, settle) = (Arc::clone(call.handle::<Node>(0)?), settle(call)?);
    RUNTIME.spawn(async move { settle(node.release().await.map(|()| 0)) });
    call.undefined()
}

/// `workerIdIsHolding(node): boolean`: whether an id is asked for or held.
fn is_holding(call: &Call) -> Reply {
    call.boolean(call.handle::<Node>(0)?.is_holding())
}

/// Settles the promise of the arguments `listener, sequence`.
fn settle(call: &Call) -> Result<impl FnOnce(Result<u8>) + Send + use<>> {
    let mailbox: Arc<Mailbox> = Arc::clone(&call.context.mailbox);
    let (listener, subject) = (call.u32(1)?, call.f64(2)?);
    Ok(move |result| {
        let (value, payload) = match result {
            Ok(id) => (f64::from(id), Payload::None),
            Err(error) => (0.0, Payload::Error(error)),
        };
        mailbox.post(Event { listener, subject, value, payload });
    })
}

fn milliseconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value / 1000.0).unwrap_or(Duration::MAX)
}
