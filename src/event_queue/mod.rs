//! The event queue: messages that wait in channels and are processed in order, with retries, by
//! as many handlers at once as a channel allows.
//!
//! [`memory`] decides about the messages of one process, in terms of slots: what a message is
//! stays with the caller, who passes it on without a copy. [`journal`] keeps them on disk, so that
//! killing the process loses none. [`adapter`] is what the queues on servers have in common:
//! [`redis`], [`rabbitmq`].

#![forbid(unsafe_code)]

pub mod adapter;
pub mod backoff;
pub mod journal;
pub mod memory;
pub mod rabbitmq;
pub mod redis;
pub mod running;
pub mod settings;

/// How long after a failure a message is tried again, in milliseconds, unless it says otherwise
/// ([`backoff`]).
pub const RETRY_DELAY: u64 = 500;
