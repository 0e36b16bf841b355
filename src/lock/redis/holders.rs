//! Who holds what: for operators.

use super::RedisLocks;
use crate::{cache::redis as keys, error::Result, lock::Holder, redis::Command};
use redis::Value;
use std::time::Duration;

impl RedisLocks {
    /// The locks that are held now, on all nodes, by key. Takes a scan of the server's keys.
    ///
    /// # Errors
    /// As [`Redis::ask`](crate::redis::Redis::ask).
    pub async fn holders(&self) -> Result<Vec<Holder>> {
        let (redis, names) = (self.redis(), &self.node.names);
        let pattern = format!("{}*", escape(&names.held));
        let found = keys::keys(redis, pattern.as_bytes()).await?;
        let found: Vec<String> =
            found.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let questions = found.iter().flat_map(|holder| {
            let line = names.line_of(names.key_of(holder).unwrap_or_default());
            [
                Command::new(["GET", holder]),
                Command::new(["PTTL", holder]),
                Command::new(["LLEN", &line]),
            ]
        });
        let replies = redis.batch(questions.collect()).await?;
        let mut holders: Vec<Holder> = found
            .iter()
            .zip(replies.chunks(3))
            .filter_map(|(holder, replies)| {
                let [Ok(Value::BulkString(text)), Ok(Value::Int(left)), Ok(Value::Int(waiters))] =
                    replies
                else {
                    // It was released meanwhile.
                    return None;
                };
                let text = String::from_utf8_lossy(text);
                let mut parts = text.split('|');
                let (node, _, token) = (parts.next()?, parts.next()?, parts.next()?);
                Some(Holder {
                    key: names.key_of(holder)?.to_owned(),
                    node: node.to_owned(),
                    token: token.parse().ok()?,
                    since: parts.nth(1)?.parse().ok()?,
                    left: Duration::from_millis(u64::try_from(*left).ok()?),
                    waiters: u64::try_from(*waiters).ok()?,
                })
            })
            .collect();
        holders.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(holders)
    }
}

/// The text as a glob pattern that fits nothing else.
fn escape(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
