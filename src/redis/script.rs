//! Lua scripts, sent by hash; a server that does not know one gets its text.

use super::{Redis, command::Command};
use crate::error::Result;
use redis::Value;
use std::sync::LazyLock;

/// A script and its SHA-1.
pub struct Script {
    text: &'static str,
    hash: LazyLock<String, Box<dyn FnOnce() -> String + Send>>,
}

impl Script {
    /// A script of that text. Its keys must share a slot.
    pub fn new(text: &'static str) -> Self {
        let hash = move || redis::Script::new(text).get_hash().to_owned();
        Self { text, hash: LazyLock::new(Box::new(hash)) }
    }

    /// The command that runs the script by its hash; a server that does not know it answers `NOSCRIPT`
    /// ([`is_unknown`]), and wants [`in_full`](Self::in_full).
    pub fn by_hash(&self, keys: &[&[u8]], arguments: &[&[u8]]) -> Command {
        command("EVALSHA", self.hash.as_bytes(), keys, arguments)
    }

    /// The command that runs the script by its text, and makes it known.
    pub fn in_full(&self, keys: &[&[u8]], arguments: &[&[u8]]) -> Command {
        command("EVAL", self.text.as_bytes(), keys, arguments)
    }

    /// The command that makes the script known.
    pub fn load(&self) -> Command {
        Command::new(["SCRIPT", "LOAD", self.text])
    }

    /// Runs the script, loading it where the server has lost it or never had it.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn run(&self, redis: &Redis, keys: &[&[u8]], arguments: &[&[u8]]) -> Result<Value> {
        let reply = redis.call(self.by_hash(keys, arguments)).await?;
        if !is_unknown(&reply) {
            return redis.check(reply);
        }
        let reply = redis.call(self.in_full(keys, arguments)).await?;
        redis.check(reply)
    }
}

/// Whether the server did not know a script that was to run by its hash.
pub fn is_unknown(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

fn command(name: &str, script: &[u8], keys: &[&[u8]], arguments: &[&[u8]]) -> Command {
    let count = keys.len().to_string();
    let head = [name.as_bytes(), script, count.as_bytes()];
    Command::new(head.iter().chain(keys).chain(arguments))
}
