//! The table of an app's worker ids on the server: one hash, changed by one script at a time.
//!
//! `mortise:{<app>}:workers` has, for each id that was ever given, the field of its number with
//! `owner|end of the lease|end of the rest`, in milliseconds of the server's clock; the owner is
//! empty when the id was released. `server` is the `run_id` of the server that the table was last
//! used on, and `quiet` the moment until which the table gives nothing out.
//!
//! A server that was restarted or replaced may know less than it did: nothing at all, or what was
//! true at its last snapshot, or what its replica had been told by then. So a table that is new, or
//! on a server of another `run_id`, is quiet at first: it takes renewals only, by which each live
//! node puts its own id back.

use super::WORKER_IDS;
use crate::{
    error::{Error, Result},
    redis::{Redis, Script},
};
use redis::Value;
use std::{hash::BuildHasher, sync::LazyLock, time::Duration};

/// How long it may take a node to reach a server that is back, beside its renewals. Defaults to 1 second.
const RECONNECTING: Duration = Duration::from_secs(1);
/// The longest time between two renewals. Defaults to 1 second.
const LONGEST_PERIOD: Duration = Duration::from_secs(1);
/// Renewals a lease has at least.
const RENEWALS: u32 = 5;

/// How long an id is kept.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How long an id stays its node's without a renewal.
    pub lease: Duration,
    /// How long an id that was released or has lapsed is given to nobody.
    pub rest: Duration,
}

impl Times {
    /// How often the lease is renewed.
    pub fn period(&self) -> Duration {
        LONGEST_PERIOD.min(self.lease / RENEWALS)
    }

    /// How long a new table takes renewals only: two of them, and the way to the server. 3 seconds by default.
    fn quiet(&self) -> Duration {
        self.period() * 2 + RECONNECTING
    }
}

/// The outcome of asking for an id.
pub enum Taken {
    /// This one is the owner's now, or is so still.
    Id(u8),
    /// The table is quiet for so long.
    Quiet(Duration),
    /// There is none to give.
    None {
        /// How many are leased.
        held: u64,
        /// How many rest.
        resting: u64,
        /// When the first of those may be given again; nothing when none rests.
        rested: Option<Duration>,
    },
}

/// The outcome of a renewal.
pub enum Renewed {
    /// The lease lasts its whole time from now.
    Kept,
    /// The server had forgotten it and knows it again.
    PutBack,
    /// It is, or was meanwhile, another's.
    Lost,
}

/// What all scripts begin with. `ARGV`: owner, milliseconds of quiet, lease and rest.
macro_rules! script {
    ($body:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(
                r"
local key, owner = KEYS[1], ARGV[1]
local quiet, lease, rest = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- A user who may not ask is not told; then only a table that is gone counts as new.
local info = redis.pcall('INFO', 'server')
local server = type(info) == 'string' and info:match('run_id:(%w+)') or ''
local known = redis.call('HGET', key, 'server')
if not known or (server ~= '' and known ~= server) then
  redis.call('HSET', key, 'server', server, 'quiet', string.format('%.0f', now + quiet))
end
local function put(id, by, lapses)
  redis.call('HSET', key, id, string.format('%s|%.0f|%.0f', by, lapses, lapses + rest))
end
",
                $body
            ))
        })
    };
}

/// `ARGV[5]`: how many ids there are; `ARGV[6]`: a random number.
static TAKE: LazyLock<Script> = script!(
    r"
local free, since, held, resting, soonest = {}, nil, 0, 0, nil
for id = 0, tonumber(ARGV[5]) - 1 do
  local value = redis.call('HGET', key, id) or '|0|0'
  local by, lapses, rested = value:match('^([^|]*)|(%d+)|(%d+)$')
  lapses, rested = tonumber(lapses), tonumber(rested)
  if by == owner then
    put(id, owner, now + lease)
    return {0, id}
  end
  if rested > now then
    if lapses > now then
      held = held + 1
    else
      resting = resting + 1
      if not soonest or rested < soonest then soonest = rested end
    end
  else
    if not since or lapses < since then free, since = {}, lapses end
    if lapses == since then free[#free + 1] = id end
  end
end
local ends = tonumber(redis.call('HGET', key, 'quiet'))
if ends > now then return {1, ends - now} end
if #free == 0 then return {2, held, resting, soonest and soonest - now or 0} end
local id = free[tonumber(ARGV[6]) % #free + 1]
put(id, owner, now + lease)
return {0, id}
"
);

/// `ARGV[5]`: the id.
static RENEW: LazyLock<Script> = script!(
    r"
local value = redis.call('HGET', key, ARGV[5])
if value and value:match('^[^|]*') ~= owner then return 0 end
put(ARGV[5], owner, now + lease)
return value and 1 or 2
"
);

/// `ARGV[5]`: how many ids there are; `ARGV[6]`: the id, if the owner knows of one.
static RELEASE: LazyLock<Script> = script!(
    r"
for id = 0, tonumber(ARGV[5]) - 1 do
  local value = redis.call('HGET', key, id)
  local own = value and value:match('^[^|]*') == owner
  -- What the server has forgotten rests all the same.
  if own or (not value and tostring(id) == ARGV[6]) then put(id, '', now) end
end
return 1
"
);

/// An app's table, as one owner uses it.
pub struct Table {
    key: Vec<u8>,
    owner: String,
    times: Times,
}

impl Table {
    /// The table of `app`, used as an owner like no other.
    pub fn new(app: &str, times: Times) -> Self {
        let key = format!("mortise:{{{app}}}:workers").into_bytes();
        let owner = format!("{}-{:016x}{:016x}", std::process::id(), random(), random());
        Self { key, owner, times }
    }

    /// Asks for an id; what the owner has already is given again.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn take(&self, redis: &Redis) -> Result<Taken> {
        let random = (random() >> 32).to_string();
        let reply = self.run(&TAKE, redis, &[&WORKER_IDS.to_string(), &random]).await?;
        let numbers: Vec<u64> = match &reply {
            Value::Array(items) => items.iter().filter_map(number).collect(),
            _ => Vec::new(),
        };
        match numbers[..] {
            [0, id] if id < u64::from(WORKER_IDS) => {
                Ok(Taken::Id(u8::try_from(id).unwrap_or_default()))
            }
            [1, left] => Ok(Taken::Quiet(Duration::from_millis(left))),
            [2, held, resting, left] => {
                let rested = (resting > 0).then(|| Duration::from_millis(left));
                Ok(Taken::None { held, resting, rested })
            }
            _ => Err(unexpected(&reply)),
        }
    }

    /// Renews the lease of an id that this owner was given.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn renew(&self, redis: &Redis, id: u8) -> Result<Renewed> {
        let reply = self.run(&RENEW, redis, &[&id.to_string()]).await?;
        match number(&reply) {
            Some(0) => Ok(Renewed::Lost),
            Some(1) => Ok(Renewed::Kept),
            Some(2) => Ok(Renewed::PutBack),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Ends the lease of what the owner has, whether it knows the id or not; its rest begins.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn release(&self, redis: &Redis, id: Option<u8>) -> Result<()> {
        let id = id.map_or_else(String::new, |id| id.to_string());
        self.run(&RELEASE, redis, &[&WORKER_IDS.to_string(), &id]).await.map(|_| ())
    }

    async fn run(&self, script: &Script, redis: &Redis, more: &[&str]) -> Result<Value> {
        let times = [self.times.quiet(), self.times.lease, self.times.rest];
        let times = times.map(|time| time.as_millis().to_string());
        let mut arguments = vec![self.owner.as_bytes()];
        arguments.extend(times.iter().map(String::as_bytes));
        arguments.extend(more.iter().map(|argument| argument.as_bytes()));
        script.run(redis, &[&self.key], &arguments).await
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn unexpected(reply: &Value) -> Error {
    Error::Redis(format!("the table of worker ids answered {reply:?}"))
}

/// The standard library's seed is the system's randomness.
fn random() -> u64 {
    std::hash::RandomState::new().hash_one(0_u8)
}
