//! mortise: what the plugins of a Node.js application need to run on more than one node.
//!
//! The crate is the core of five services and the place where each keeps its promises:
//!
//! - [`cache`]: which entries a bounded memory store keeps, and for how long; bloom filters.
//! - [`pub_sub`]: who hears a message, once or after a debounce window.
//! - [`event_queue`]: messages that are processed at least once, in order, with retries.
//! - [`lock`]: keys held by one at a time, first come, first served.
//! - [`worker_id`]: small numbers that tell the nodes of an application apart.
//!
//! `node` alone knows JavaScript, and nothing else may use it; without the feature of that name
//! the crate is a plain Rust library.
//!
//! # Glossary
//!
//! - *node*: one running instance of an application: a process, or a worker thread of one.
//! - *adapter*, for a cache *store*: what a service runs on (this process, Redis, `RabbitMQ`).
//! - *channel*: the name under which messages are published and subscribed to.
//! - *lease*: the right to hold a key or a message until a moment that can be put off.
//! - *fencing token*: a number that grows with each grant of a key, so that a late writer shows.
//! - *dead letter*: a message whose last permitted attempt has failed.

pub mod alarm;
pub mod cache;
pub mod error;
pub mod event_queue;
pub mod lock;
pub mod pub_sub;
pub mod redis;
pub mod timer_wheel;
pub mod worker_id;

#[cfg(feature = "node")]
mod node;

pub use error::{Error, Result};
