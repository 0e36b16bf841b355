//! What every kind of lock promises, and the words it is said in.

use crate::error::Result;
use async_trait::async_trait;
use std::{fmt, time::Duration};

/// The name of a lock: UTF-16 units, so that all strings of JavaScript stay apart, lone surrogates
/// too.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Box<[u16]>);

impl Key {
    /// The key's UTF-16 units.
    pub fn units(&self) -> &[u16] {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.encode_utf16().collect())
    }
}

impl From<&[u16]> for Key {
    fn from(units: &[u16]) -> Self {
        Self(units.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf16_lossy(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf16_lossy(&self.0))
    }
}

/// One grant of a key, or one place in the line for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Where the adapter finds it.
    pub slot: u32,
    /// The fencing token, which is no other lease's.
    pub token: u64,
}

/// A key that is held: for people who look what is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The lock's key.
    pub key: String,
    /// The node that holds it.
    pub node: String,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// What is left of its lease; [`FOREVER`](super::FOREVER) when that has no end.
    pub left: Duration,
    /// How many wait for it.
    pub waiters: u64,
    /// The fencing token.
    pub token: u64,
}

/// Locks by name. A lease ends when it is released, or when its time is over: it *lapses*.
///
/// - A free key is granted at once.
/// - A held key is granted when its lease is released or lapses.
/// - Those who wait for a key get it in the order they asked.
/// - A lease lapses when its time is over, and the next in line is let in.
/// - A lease of [`FOREVER`](super::FOREVER) does not lapse.
/// - Releasing a lease twice is not an error and frees nobody else's lock.
/// - Releasing a lease that has lapsed is not an error and frees nobody else's lock.
/// - Trying without a wait fails at once when the key is held.
/// - Trying with a wait fails when the wait is over, and the place in the line is given up.
/// - Trying gets the key when it comes free within the wait.
/// - Extending makes a lease end its new time from now, be that later or sooner.
/// - A lease that was released or has lapsed cannot be extended.
/// - Fencing tokens grow with each grant of a key.
/// - Different keys do not wait for each other.
/// - The holder of a key waits like anyone else when it asks again.
/// - The keys that are held are told, with how many wait for each.
/// - A wait whose future is dropped leaves the line, and a grant nobody took is given on.
/// - `connect` and `close` may be called twice, and in any order.
#[async_trait]
pub trait LockAdapter: Send + Sync {
    /// Makes ready what the adapter runs on.
    async fn connect(&self) -> Result<()>;

    /// Lets go of what the adapter runs on.
    async fn close(&self) -> Result<()>;

    /// Waits for `key` and holds it for at most `ttl`.
    async fn acquire(&self, key: &Key, ttl: Duration) -> Result<Lease>;

    /// Like [`acquire`](Self::acquire), but waits no longer than `wait`: `LockLocked` without a
    /// wait, `LockTimeout` after one.
    async fn try_acquire(&self, key: &Key, wait: Duration, ttl: Duration) -> Result<Lease>;

    /// The lease now ends `ttl` from now; `LockNotActive` when it has ended already.
    async fn extend(&self, lease: Lease, ttl: Duration) -> Result<()>;

    /// Ends the lease; nothing when it has ended already.
    async fn release(&self, lease: Lease) -> Result<()>;

    /// The keys that are held now, in order.
    async fn holders(&self) -> Result<Vec<Holder>>;
}
