//! The one error type of the crate. Each variant names the thing that failed and has a code that
//! JavaScript may rely on: messages may change, codes may not.

use std::{sync::Arc, time::Duration};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in any of the services.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument or option of the wrong type or outside its range; a `TypeError` in JavaScript.
    #[error("{0}")]
    InvalidArgument(String),
    /// A file could not be read or written.
    #[error("{action} {path} failed: {source}")]
    Io {
        /// What was attempted, such as `writing`.
        action: &'static str,
        /// The file or folder.
        path: String,
        /// What the system answered.
        source: Arc<std::io::Error>,
    },
    /// The service was closed before or during the call.
    #[error("{0} is closed")]
    Closed(&'static str),
    /// The lock of this key is held by another.
    #[error("lock is locked: {0}")]
    LockLocked(String),
    /// The lock of this key did not come free within the wait.
    #[error("lock acquire timed out: {0}")]
    LockTimeout(String),
    /// The lease was released, or has lapsed.
    #[error("lock is not active")]
    LockNotActive,
    /// The queue's journal could not be read or written.
    #[error("{action} the journal {path} failed: {reason}")]
    Journal {
        /// What was attempted, such as `writing`.
        action: &'static str,
        /// The file.
        path: String,
        /// What the store answered.
        reason: String,
    },
    /// The queue's journal is open in another process, or by another app of this one.
    #[error("the journal {0} is in use by another process or app")]
    JournalLocked(String),
    /// The server is away, or was lost before its reply came: what was sent may have been done.
    #[error("{server} is away: {reason}")]
    Unavailable {
        /// The server, secrets masked.
        server: String,
        /// Why it is away.
        reason: String,
    },
    /// The server did not reply in time: what was sent may have been done.
    #[error("{server} did not reply within {} ms", after.as_millis())]
    CommandTimeout {
        /// The server, secrets masked.
        server: String,
        /// How long was waited.
        after: Duration,
    },
    /// The server refused a command.
    #[error("{0}")]
    Redis(String),
    /// The broker refused what was asked of it.
    #[error("{0}")]
    RabbitMq(String),
    /// What waits for the server has reached its bound.
    #[error("{server} does not take messages as fast as they come: the buffer of {limit} is full")]
    BufferFull {
        /// The server, secrets masked.
        server: String,
        /// The bound, in words.
        limit: &'static str,
    },
    /// The server cannot do what was asked for.
    #[error("{0}")]
    Unsupported(String),
    /// A counter would pass the integers that JavaScript holds exactly.
    #[error("counter {0} would pass 2^53 - 1")]
    CounterRange(String),
    /// All worker ids of the app are taken.
    #[error("all {} worker ids of app {app} are taken: {held} held, {resting} at rest", held + resting)]
    WorkerIdsExhausted {
        /// The app.
        app: String,
        /// How many belong to nodes that live, or whose leases have not lapsed yet.
        held: u64,
        /// How many were released or have lapsed, and are given to nobody yet.
        resting: u64,
    },
    /// A state that this crate promises cannot come about: a bug.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// The stable code, `E_…`, that JavaScript sees as `error.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidArgument(_) => "E_INVALID_ARGUMENT",
            Self::Io { .. } => "E_IO",
            Self::Closed(_) => "E_CLOSED",
            Self::LockLocked(_) => "E_LOCK_LOCKED",
            Self::LockTimeout(_) => "E_LOCK_TIMEOUT",
            Self::LockNotActive => "E_LOCK_NOT_ACTIVE",
            Self::Journal { .. } => "E_JOURNAL",
            Self::JournalLocked(_) => "E_JOURNAL_LOCKED",
            Self::Unavailable { .. } => "E_UNAVAILABLE",
            Self::CommandTimeout { .. } => "E_TIMEOUT",
            Self::Redis(_) => "E_REDIS",
            Self::RabbitMq(_) => "E_RABBITMQ",
            Self::BufferFull { .. } => "E_BUFFER_FULL",
            Self::Unsupported(_) => "E_UNSUPPORTED",
            Self::CounterRange(_) => "E_COUNTER_RANGE",
            Self::WorkerIdsExhausted { .. } => "E_WORKER_IDS_EXHAUSTED",
            Self::Internal(_) => "E_INTERNAL",
        }
    }
}
