//! What a cache does on Redis beyond single commands: keys by prefix, counters, changes that only
//! happen when nothing else has, bloom filters, and the leases by which one node of many loads.
//!
//! All of it is atomic on the server, by one command or one script; none of it touches a key that
//! it was not asked about.

use super::bloom::BloomShape;
use crate::{
    error::{Error, Result},
    redis::{Command, Redis, Script},
};
use redis::Value;
use std::{collections::HashSet, sync::LazyLock};

/// Keys that one SCAN looks at.
const SCAN_COUNT: &str = "1000";
/// Keys that are deleted at a time.
const DELETE_COUNT: usize = 500;
/// Larger sums are not exact in JavaScript: 2^53 - 1.
const LARGEST_SUM: &str = "9007199254740991";

/// The keys that fit a glob pattern of Redis', on all masters, each once.
///
/// # Errors
/// [`Error::Unavailable`] when a part of them cannot be reached.
pub async fn keys(redis: &Redis, pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for master in 0..redis.masters().await? {
        let mut cursor = b"0".to_vec();
        loop {
            let (next, page) = scan(redis, master, &cursor, pattern).await?;
            found.extend(page.into_iter().filter(|key| seen.insert(key.clone())));
            if next == b"0" {
                break;
            }
            cursor = next;
        }
    }
    Ok(found)
}

/// Deletes the keys that fit a pattern, without blocking the server.
///
/// # Errors
/// As [`keys`]; what was deleted by then is gone.
pub async fn delete_matching(redis: &Redis, pattern: &[u8]) -> Result<()> {
    for master in 0..redis.masters().await? {
        let mut cursor = b"0".to_vec();
        loop {
            let (next, page) = scan(redis, master, &cursor, pattern).await?;
            for part in page.chunks(DELETE_COUNT) {
                delete(redis, part).await?;
            }
            if next == b"0" {
                break;
            }
            cursor = next;
        }
    }
    Ok(())
}

async fn scan(
    redis: &Redis,
    master: usize,
    cursor: &[u8],
    pattern: &[u8],
) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
    let words: [&[u8]; 6] = [b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCAN_COUNT.as_bytes()];
    let reply = redis.ask_master(master, Command::new(words)).await?;
    let Value::Array(parts) = reply else { return Err(unexpected("SCAN")) };
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (Some(Value::BulkString(next)), Some(Value::Array(page))) => {
            let key = |value| match value {
                Value::BulkString(key) => Some(key),
                _ => None,
            };
            Ok((next, page.into_iter().filter_map(key).collect()))
        }
        _ => Err(unexpected("SCAN")),
    }
}

/// Deletes keys, in one command, or one a key where they may be on different masters.
///
/// # Errors
/// What the server, or its absence, gives.
pub async fn delete<K: AsRef<[u8]>>(redis: &Redis, keys: &[K]) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let words = |keys: &[K]| {
        let mut words: Vec<Vec<u8>> = vec![b"UNLINK".to_vec()];
        words.extend(keys.iter().map(|key| key.as_ref().to_vec()));
        Command::new(words)
    };
    if !redis.is_cluster() {
        return redis.ask(words(keys)).await.map(|_| ());
    }
    let each = keys.iter().map(|key| words(std::slice::from_ref(key))).collect();
    for result in redis.batch(each).await? {
        redis.check(result?)?;
    }
    Ok(())
}

/// The values of keys, in their order. A key of another type counts as absent, as for `MGET`.
///
/// # Errors
/// What the server, or its absence, gives.
pub async fn get_many<K: AsRef<[u8]>>(redis: &Redis, keys: &[K]) -> Result<Vec<Value>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    if !redis.is_cluster() {
        let words = std::iter::once(b"MGET".as_slice()).chain(keys.iter().map(AsRef::as_ref));
        let Value::Array(values) = redis.ask(Command::new(words)).await? else {
            return Err(unexpected("MGET"));
        };
        return Ok(values);
    }
    let each = keys.iter().map(|key| Command::new([b"GET".as_slice(), key.as_ref()])).collect();
    let results = redis.batch(each).await?;
    results
        .into_iter()
        .map(|result| match result? {
            Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(Value::Nil),
            value => redis.check(value),
        })
        .collect()
}

/// KEYS: the counter. ARGV: what to add, ttl in ms or 0, the largest sum.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local present = redis.call('EXISTS', KEYS[1])
local sum = redis.call('INCRBY', KEYS[1], ARGV[1])
if sum > tonumber(ARGV[3]) or sum < -tonumber(ARGV[3]) then
  if present == 0 then redis.call('DEL', KEYS[1]) else redis.call('DECRBY', KEYS[1], ARGV[1]) end
  return redis.error_reply('RANGE the sum is too large')
end
if present == 0 and ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])",
    )
});

/// Adds to the counter at `key` and gives the sum. `ttl` (milliseconds, 0 for none) starts when the
/// counter does; later additions do not renew it.
///
/// # Errors
/// [`Error::CounterRange`] for a sum that JavaScript could not hold exactly; nothing is added then.
pub async fn count(redis: &Redis, key: &[u8], add: i64, ttl: u64) -> Result<Vec<u8>> {
    let (number, life) = (add.to_string(), ttl.to_string());
    let arguments = [number.as_bytes(), life.as_bytes(), LARGEST_SUM.as_bytes()];
    match COUNT.run(redis, &[key], &arguments).await {
        Ok(Value::BulkString(sum)) => Ok(sum),
        Ok(_) => Err(unexpected("INCRBY")),
        Err(Error::Redis(message)) if message.contains("RANGE") || message.contains("overflow") => {
            Err(Error::CounterRange(String::from_utf8_lossy(key).into_owned()))
        }
        Err(error) => Err(error),
    }
}

/// KEYS: the entry. ARGV: '1' and the text that is expected, or '0' and '' for an absent key; the
/// new text; ttl in ms or 0. Gives what is there when it is something else, else nothing.
static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local present = redis.call('GET', KEYS[1])
if ARGV[1] == '1' and present ~= ARGV[2] then return {present} end
if ARGV[1] == '0' and present then return {present} end
if ARGV[4] == '0' then redis.call('SET', KEYS[1], ARGV[3])
else redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) end
return false",
    )
});

/// Sets `key` to `text` if it still holds `expected` (nothing: is absent). Gives [`Value::Nil`] when
/// it was set, and otherwise a list of what is there: one text, or none.
///
/// # Errors
/// What the server, or its absence, gives.
pub async fn replace(
    redis: &Redis,
    key: &[u8],
    expected: Option<&[u8]>,
    text: &[u8],
    ttl: u64,
) -> Result<Value> {
    let life = ttl.to_string();
    let known: &[u8] = if expected.is_some() { b"1" } else { b"0" };
    REPLACE.run(redis, &[key], &[known, expected.unwrap_or_default(), text, life.as_bytes()]).await
}

/// KEYS: the lease. ARGV: its owner. Deletes it if it is still the owner's.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
    )
});

/// Takes the lease at `key` for `ttl` milliseconds. False when it is another's.
///
/// # Errors
/// What the server, or its absence, gives.
pub async fn take_lease(redis: &Redis, key: &[u8], owner: &[u8], ttl: u64) -> Result<bool> {
    let life = ttl.to_string();
    let words: [&[u8]; 6] = [b"SET", key, owner, b"NX", b"PX", life.as_bytes()];
    Ok(redis.ask(Command::new(words)).await? != Value::Nil)
}

/// Gives the lease back, if it is still its owner's.
///
/// # Errors
/// What the server, or its absence, gives.
pub async fn release_lease(redis: &Redis, key: &[u8], owner: &[u8]) -> Result<()> {
    RELEASE.run(redis, &[key], &[owner]).await.map(|_| ())
}

/// KEYS: the lease. ARGV: its owner, ttl in ms.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0",
    )
});

/// Puts the end of a lease off. False when it is not the owner's any more.
///
/// # Errors
/// What the server, or its absence, gives.
pub async fn renew_lease(redis: &Redis, key: &[u8], owner: &[u8], ttl: u64) -> Result<bool> {
    Ok(RENEW.run(redis, &[key], &[owner, ttl.to_string().as_bytes()]).await? == Value::Int(1))
}

/// KEYS: the entry, the lease to load it. ARGV: the lease's owner, the text, ttl in ms or 0.
static SET_UNDER_LEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
redis.call('DEL', KEYS[2])
return 1",
    )
});

/// Sets `key` to `text` and gives the lease back, if it is still its owner's.
///
/// # Errors
/// What the server, or its absence, gives.
pub async fn set_under_lease(
    redis: &Redis,
    key: &[u8],
    lease: &[u8],
    owner: &[u8],
    text: &[u8],
    ttl: u64,
) -> Result<bool> {
    let reply = SET_UNDER_LEASE
        .run(redis, &[key, lease], &[owner, text, ttl.to_string().as_bytes()])
        .await?;
    Ok(reply == Value::Int(1))
}

/// Bloom filters on a server: the Bloom module's where there is one, else bits of ours.
///
/// Layout of ours, a string: `MBF1`, the number of hashes as 4 and the number of bits as 8 bytes,
/// both big-endian; then the bits, the first being the highest of its byte, as `SETBIT` counts.
pub mod bloom {
    use super::{BloomShape, Command, Error, LazyLock, Redis, Result, Script, Value, unexpected};

    const HEADER: usize = 16;
    const MAGIC: &[u8; 4] = b"MBF1";
    /// The largest string of Redis, 512 MiB, in bits, without the header.
    const MOST_BITS: u64 = (1 << 32) - 8 * HEADER as u64;

    /// KEYS: the filter. ARGV: the header, the length in bytes.
    static RESERVE: LazyLock<Script> = LazyLock::new(|| {
        Script::new(
            "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SETRANGE', KEYS[1], tonumber(ARGV[2]) - 1, string.char(0))
redis.call('SETRANGE', KEYS[1], 0, ARGV[1])
return 1",
        )
    });

    /// KEYS: the filter. ARGV: the header that the bits were computed for, the bits. Gives the
    /// header that is there when it is another.
    static ADD: LazyLock<Script> = LazyLock::new(|| {
        Script::new(
            "local header = redis.call('GETRANGE', KEYS[1], 0, 15)
if header ~= ARGV[1] then return header end
for i = 2, #ARGV do redis.call('SETBIT', KEYS[1], ARGV[i], 1) end
return 0",
        )
    });

    /// As `ADD`; gives 1 when all the bits are set, else 0.
    static EXISTS: LazyLock<Script> = LazyLock::new(|| {
        Script::new(
            "local header = redis.call('GETRANGE', KEYS[1], 0, 15)
if header ~= ARGV[1] then return header end
for i = 2, #ARGV do if redis.call('GETBIT', KEYS[1], ARGV[i]) == 0 then return 0 end end
return 1",
        )
    });

    /// Makes a filter; one that is there is kept.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an impossible shape, and what the server gives.
    pub async fn reserve(redis: &Redis, key: &[u8], error_rate: f64, capacity: f64) -> Result<()> {
        let shape = BloomShape::new(error_rate, capacity)?;
        let (rate, room) = (error_rate.to_string(), capacity.ceil().to_string());
        let words: [&[u8]; 4] = [b"BF.RESERVE", key, rate.as_bytes(), room.as_bytes()];
        match module(redis, Command::new(words)).await {
            Err(Error::Redis(message)) if message.to_lowercase().contains("exists") => {
                return Ok(());
            }
            Err(error) => return Err(error),
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
        }
        if shape.bits > MOST_BITS {
            return Err(Error::InvalidArgument(
                "a bloom filter on Redis is smaller than 512 MiB".into(),
            ));
        }
        let length = (HEADER as u64 + shape.bits.div_ceil(8)).to_string();
        RESERVE.run(redis, &[key], &[&header(shape), length.as_bytes()]).await.map(|_| ())
    }

    /// Adds values; does nothing when there is no filter.
    ///
    /// # Errors
    /// What the server gives.
    pub async fn add(redis: &Redis, key: &[u8], values: &[Vec<u8>]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let head: [&[u8]; 4] = [b"BF.INSERT", key, b"NOCREATE", b"ITEMS"];
        let words = head.into_iter().chain(values.iter().map(Vec::as_slice));
        match module(redis, Command::new(words)).await {
            Err(Error::Redis(message)) if message.to_lowercase().contains("not found") => {
                return Ok(());
            }
            Err(error) => return Err(error),
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
        }
        for part in values.chunks(100) {
            run(redis, &ADD, key, part).await?;
        }
        Ok(())
    }

    /// Whether a value was added, or seems so.
    ///
    /// # Errors
    /// What the server gives.
    pub async fn exists(redis: &Redis, key: &[u8], value: Vec<u8>) -> Result<bool> {
        let words: [&[u8]; 3] = [b"BF.EXISTS", key, &value];
        let reply = match module(redis, Command::new(words)).await {
            Ok(Some(reply)) => reply,
            Ok(None) => run(redis, &EXISTS, key, &[value]).await?,
            Err(error) => return Err(error),
        };
        Ok(matches!(reply, Value::Int(1) | Value::Boolean(true)))
    }

    /// The reply of the Bloom module; nothing when the server has none, or the filter is of ours.
    async fn module(redis: &Redis, command: Command) -> Result<Option<Value>> {
        match redis.call(command).await? {
            Value::ServerError(error) => {
                let text =
                    format!("{} {}", error.code(), error.details().unwrap_or("")).to_lowercase();
                let none = text.contains("unknown command")
                    || text.contains("wrongtype")
                    || text.contains("noperm");
                if none { Ok(None) } else { redis.check(Value::ServerError(error)).map(Some) }
            }
            reply => Ok(Some(reply)),
        }
    }

    /// Runs a script over the bits of values, for the shape that the filter turns out to have.
    async fn run(redis: &Redis, script: &Script, key: &[u8], values: &[Vec<u8>]) -> Result<Value> {
        let words: [&[u8]; 4] = [b"GETRANGE", key, b"0", b"15"];
        let mut found = redis.ask(Command::new(words)).await?;
        // Twice, for a filter that is replaced meanwhile.
        for _ in 0..2 {
            let Value::BulkString(bytes) = &found else { return Err(unexpected("GETRANGE")) };
            let Some(shape) = shape(bytes) else { return Ok(Value::Int(0)) };
            let bits: Vec<String> = values
                .iter()
                .flat_map(|value| {
                    shape.bits_of(value).map(|bit| (bit + 8 * HEADER as u64).to_string())
                })
                .collect();
            let mut arguments: Vec<&[u8]> = vec![bytes];
            arguments.extend(bits.iter().map(String::as_bytes));
            match script.run(redis, &[key], &arguments).await? {
                Value::BulkString(other) => found = Value::BulkString(other),
                reply => return Ok(reply),
            }
        }
        Ok(Value::Int(0))
    }

    fn header(shape: BloomShape) -> Vec<u8> {
        [MAGIC.as_slice(), &shape.hashes.to_be_bytes(), &shape.bits.to_be_bytes()].concat()
    }

    fn shape(header: &[u8]) -> Option<BloomShape> {
        let rest = header.strip_prefix(MAGIC)?;
        let hashes = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
        let bits = u64::from_be_bytes(rest.get(4..12)?.try_into().ok()?);
        (bits > 0).then_some(BloomShape { bits, hashes })
    }
}

fn unexpected(command: &str) -> Error {
    Error::Redis(format!("the reply to {command} is not what Redis gives"))
}
