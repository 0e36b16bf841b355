//! The tiered store's functions: looking into the near cache, and filling it.

use super::{
    RUNTIME,
    call::{Call, Entry, Reply, functions, string_of_bytes},
    redis::{Answers, handle, near, redis},
    shared::SharedCells,
};
use crate::{
    cache::tiered::{BUCKETS, Fill, NearCache, Observer, Tiered},
    error::Result,
    redis::{Command, Config},
};
use redis::Value;
use std::{sync::Arc, time::Duration};

/// What JavaScript can call, by name.
pub fn functions() -> Vec<(&'static str, Entry)> {
    functions![
        "tieredOpen" => open,
        "tieredCells" => cells,
        "tieredGet" => get,
        "tieredFill" => fill,
        "tieredInvalidate" => invalidate,
        "tieredFlush" => flush,
        "tieredIsTracking" => is_tracking,
        "tieredSize" => size,
    ]
}

/// Cells of what JavaScript reads without calling: the epoch, then a version for each bucket.
/// After a hit: the hit's bucket, its version when it was looked up, and the milliseconds it has left.
const EPOCH: usize = 0;
const VERSIONS: usize = 1;
const BUCKET: usize = VERSIONS + BUCKETS;
const VERSION: usize = BUCKET + 1;
const LEFT: usize = BUCKET + 2;
const CELLS: usize = BUCKET + 3;

/// One environment's sight of a near cache.
#[derive(Clone)]
pub struct Near {
    tiered: Arc<Tiered>,
    cells: SharedCells,
    /// Kept so that it is told.
    _observer: Arc<dyn Observer>,
}

struct Versions(SharedCells);

impl Observer for Versions {
    fn invalidated(&self, bucket: usize) {
        self.0.count(VERSIONS + bucket);
    }

    fn flushed(&self) {
        self.0.count(EPOCH);
    }
}

/// `tieredOpen(options: string, maxBytes: number, listener: number): Handle`; the handle goes for one of
/// Redis' too.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "lib/ checks it")]
fn open(call: &Call) -> Reply {
    let config = Config::from_json(&call.text(0)?)?;
    let tiered = Tiered::shared(config, call.f64(1)? as u64, RUNTIME.handle());
    let cells = SharedCells::new(CELLS);
    let observer: Arc<dyn Observer> = Arc::new(Versions(cells.clone()));
    tiered.near.observe(&observer);
    let redis = Arc::clone(&tiered.redis);
    handle(call, redis, Some(Near { tiered, cells, _observer: observer }), call.u32(2)?)
}

/// `tieredCells(tiered): ArrayBuffer`
fn cells(call: &Call) -> Reply {
    near(call, 0)?.cells.to_js(call.env)
}

/// `tieredGet(tiered, key): string | undefined`; sets the last three cells.
#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn get(call: &Call) -> Reply {
    let near = near(call, 0)?;
    let key = call.text(1)?;
    let cache = &near.tiered.near;
    let bucket = cache.bucket(key.as_bytes());
    // Before the look, so that a change in between shows.
    let version = near.cells.counted(VERSIONS + bucket);
    let Some(found) = cache.get(key.as_bytes()) else { return call.undefined() };
    near.cells.set_f64(BUCKET, bucket as f64);
    near.cells.set_f64(VERSION, f64::from(version));
    near.cells.set_f64(LEFT, found.left.as_secs_f64() * 1000.0);
    string_of_bytes(call.env, &found.text)
}

/// `tieredFill(tiered, listener, commands, text, numbers, filled, units)`: reads keys and keeps what is found. A
/// command is its sequence number, 1, and the key.
fn fill(call: &Call) -> Reply {
    let redis = redis(call, 0)?;
    let cache = Arc::clone(&near(call, 0)?.tiered.near);
    let answers = Answers { mailbox: Arc::clone(&call.context.mailbox), listener: call.u32(1)? };
    let mut batch = call.batch(2)?;
    let mut fills: Vec<(f64, Fill)> = Vec::with_capacity(batch.count());
    let mut commands = Vec::with_capacity(batch.count() * 2);
    for _ in 0..batch.count() {
        let sequence = batch.f64()?;
        batch.number()?;
        let key = batch.bytes()?;
        fills.push((sequence, cache.begin(&key)));
        // How long it lives is asked after what it is: a change in between shows as an invalidation.
        commands.push(Command::new([b"GET".as_slice(), &key]));
        commands.push(Command::new([b"PTTL".as_slice(), &key]));
    }
    let server = Arc::clone(&redis);
    redis.submit(
        move || commands,
        Box::new(move |results| {
            let mut results = results.map_err(Some).map(Vec::into_iter);
            let events: Vec<_> = fills
                .into_iter()
                .map(|(sequence, fill)| {
                    let (text, life) = match &mut results {
                        Ok(results) => (results.next(), results.next()),
                        Err(error) => (error.clone().map(Err), None),
                    };
                    let text = text.unwrap_or(Ok(Value::Nil)).and_then(|text| server.check(text));
                    keep(&cache, fill, &text, life.as_ref());
                    answers.event(sequence, text)
                })
                .collect();
            answers.mailbox.post_all(events);
        }),
    );
    call.undefined()
}

/// Ends a fill with the replies to `GET` and `PTTL`.
fn keep(cache: &NearCache, fill: Fill, text: &Result<Value>, life: Option<&Result<Value>>) {
    let life = match life {
        Some(Ok(Value::Int(-1))) => Some(None),
        Some(Ok(Value::Int(milliseconds))) => {
            u64::try_from(*milliseconds).ok().map(Duration::from_millis).map(Some)
        }
        _ => None,
    };
    let found = match (text, life) {
        (Ok(Value::BulkString(text)), Some(life)) => Some((text.as_slice(), life)),
        _ => None,
    };
    cache.end(fill, found);
}

/// `tieredInvalidate(tiered, key)`: this process changes the key, or has done so.
fn invalidate(call: &Call) -> Reply {
    near(call, 0)?.tiered.near.invalidate(call.text(1)?.as_bytes());
    call.undefined()
}

/// `tieredFlush(tiered)`
fn flush(call: &Call) -> Reply {
    near(call, 0)?.tiered.near.flush();
    call.undefined()
}

/// `tieredIsTracking(tiered): boolean`
fn is_tracking(call: &Call) -> Reply {
    call.boolean(near(call, 0)?.tiered.near.is_tracking())
}

/// `tieredSize(tiered): [entries, bytes]`
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn size(call: &Call) -> Reply {
    let (entries, bytes) = near(call, 0)?.tiered.near.size();
    call.array([entries, bytes].into_iter().map(|number| call.number(number as f64)))
}
