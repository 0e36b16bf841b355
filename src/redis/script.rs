//! Lua scripts, sent by hash; a server that does not know one gets its text.

use super::{Redis, command::Command};
use crate::error::Result;
use redis::Value;
use std::borrow::Cow;

/// A script and its SHA-1.
pub struct Script {
    text: Cow<'static, str>,
    hash: String,
}

impl Script {
    /// A script of that text. Its keys must share a slot.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// The command that runs the script by its hash, which a server that does not know it answers with
    /// an error ([`is_unknown`]); or `in_full`, by its text, which makes it known.
    pub fn command(&self, in_full: bool, keys: &[&[u8]], arguments: &[&[u8]]) -> Command {
        let mut command = self.begin(in_full, keys.len(), 128);
        keys.iter().chain(arguments).for_each(|word| command.push(word));
        command
    }

    /// The beginning of the command that runs the script, by its hash or `in_full`, with so many keys; they
    /// and the arguments are to be pushed. There is room for `bytes`.
    pub fn begin(&self, in_full: bool, keys: usize, bytes: usize) -> Command {
        let (name, script): (&[u8], &str) =
            if in_full { (b"EVAL", &self.text) } else { (b"EVALSHA", &self.hash) };
        let mut command = Command::with_capacity(16, bytes);
        command.push(name);
        command.push(script.as_bytes());
        command.push(keys.to_string().as_bytes());
        command
    }

    /// The command that makes the script known.
    pub fn load(&self) -> Command {
        Command::new(["SCRIPT", "LOAD", &self.text])
    }

    /// Runs the script, loading it where the server has lost it or never had it.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn run(&self, redis: &Redis, keys: &[&[u8]], arguments: &[&[u8]]) -> Result<Value> {
        let reply = redis.call(self.command(false, keys, arguments)).await?;
        if !is_unknown(&reply) {
            return redis.check(reply);
        }
        let reply = redis.call(self.command(true, keys, arguments)).await?;
        redis.check(reply)
    }
}

/// Whether the server did not know a script that was to run by its hash.
pub fn is_unknown(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOSCRIPT")
}
