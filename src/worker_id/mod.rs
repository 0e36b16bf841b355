//! Small numbers that tell the nodes of an app apart, such as the node bits of the ids that each
//! node generates.

#![forbid(unsafe_code)]

pub mod redis;
mod table;

use crate::error::Result;
use async_trait::async_trait;

/// How many ids there are, from 0 on: they are five bits of the ids that a node generates.
pub const WORKER_IDS: u8 = 32;

/// One node's way to its id. The rules, each with a contract test of its name:
///
/// - Live nodes of an app have different ids, and one too many is refused with an error that names the app.
/// - Asking again, or twice at once, gives the same id.
/// - A released id rests before it is given again, and who finds no other waits for it.
/// - The id of a node that is gone comes back after its lease and its rest, and not before.
/// - Of the free ids the one that has been free longest is given.
/// - Releasing may be repeated, and does nothing without an id.
/// - Releasing ends a wait for an id.
/// - Another app's nodes take no ids away.
/// - After a loss of the server's data live nodes still have different ids.
/// - What the server has forgotten in part is put back before anything new is given.
/// - An id that lapsed and was given to nobody is taken back.
/// - A node whose id was given to another is told, and gets a new one.
#[async_trait]
pub trait WorkerIdAdapter: Send + Sync {
    /// The node's id, below [`WORKER_IDS`]; `WorkerIdsExhausted` when all are taken.
    async fn get_worker_id(&self) -> Result<u8>;

    /// Gives the id back. It takes a bounded time, and what cannot be given back lapses by itself.
    async fn release(&self) -> Result<()>;
}
