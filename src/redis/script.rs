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

    /// Runs the script, loading it where the server has lost it or never had it.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn run(&self, redis: &Redis, keys: &[&[u8]], arguments: &[&[u8]]) -> Result<Value> {
        let reply = redis.call(command("EVALSHA", self.hash.as_bytes(), keys, arguments)).await?;
        let unknown = matches!(&reply, Value::ServerError(error) if error.code() == "NOSCRIPT");
        if !unknown {
            return redis.check(reply);
        }
        let reply = redis.call(command("EVAL", self.text.as_bytes(), keys, arguments)).await?;
        redis.check(reply)
    }
}

fn command(name: &str, script: &[u8], keys: &[&[u8]], arguments: &[&[u8]]) -> Command {
    let count = keys.len().to_string();
    let head = [name.as_bytes(), script, count.as_bytes()];
    Command::new(head.iter().chain(keys).chain(arguments))
}
