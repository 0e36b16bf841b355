//! Locks: a key is held by one at a time, first come, first served, for no longer than its lease.
//!
//! [`adapter`] says what every kind of lock promises; [`local`] keeps them for one process, [`redis`] for
//! all that share a server.

pub mod adapter;
pub mod local;
pub mod redis;

pub use adapter::{Holder, Key, Lease, LockAdapter};
pub use local::LocalLocks;
pub use redis::RedisLocks;

use std::time::Duration;

/// How long a lock is held at most unless its caller says otherwise: 500 ms.
pub const DEFAULT_TTL: Duration = Duration::from_millis(500);
/// How long a reservation, a lock that was tried for and got but not yet used, is kept: 60 s.
pub const RESERVATION: Duration = Duration::from_secs(60);
/// A lease, or a wait, without an end.
pub const FOREVER: Duration = Duration::MAX;
