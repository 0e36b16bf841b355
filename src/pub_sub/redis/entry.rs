//! An entry of the log: what one publisher sent in one go. Its first pair is an empty name and
//! `<publisher>-<sequence>`; each further pair is a channel and a text.

use super::{id::Id, keys::Keys};
use crate::{pub_sub::adapter::Text, redis::Command};
use redis::Value;

/// The most texts of an entry.
pub const MOST_TEXTS: usize = 32;
/// An entry takes no further text once it is of that size.
pub const FULL_BYTES: usize = 8 << 10;

/// An entry that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrived {
    pub id: Id,
    /// Who sent it, and its sequence number among theirs; nothing for one that somebody else wrote.
    pub sender: Option<(String, u64)>,
    pub texts: Vec<Text>,
}

/// The command that appends an entry.
pub fn append<'a>(
    keys: &Keys,
    max_length: u64,
    publisher: &str,
    sequence: u64,
    texts: impl Iterator<Item = &'a Text>,
) -> Command {
    let mut command = Command::with_capacity(8 + 2 * MOST_TEXTS, 256);
    let (length, sender) = (max_length.to_string(), format!("{publisher}-{sequence}"));
    for word in ["XADD", &keys.log, "MAXLEN", "~", &length, "*", "", &sender] {
        command.push(word.as_bytes());
    }
    for Text { channel, text } in texts {
        command.push(channel.as_bytes());
        command.push(text.as_bytes());
    }
    command
}

/// What a reply to `XREAD` holds: for each stream its key and its entries. RESP2 has lists where RESP3
/// has a map.
pub fn streams(reply: Value) -> Vec<(Vec<u8>, Vec<Arrived>)> {
    let pairs: Vec<(Value, Value)> = match reply {
        Value::Map(pairs) => pairs,
        Value::Array(streams) => streams.into_iter().filter_map(pair).collect(),
        _ => return Vec::new(),
    };
    let stream = |(key, entries)| match (key, entries) {
        (Value::BulkString(key), Value::Array(entries)) => {
            Some((key, entries.into_iter().filter_map(entry).collect()))
        }
        _ => None,
    };
    pairs.into_iter().filter_map(stream).collect()
}

fn pair(value: Value) -> Option<(Value, Value)> {
    let Value::Array(items) = value else { return None };
    let mut items = items.into_iter();
    Some((items.next()?, items.next()?))
}

fn entry(value: Value) -> Option<Arrived> {
    let (Value::BulkString(id), Value::Array(fields)) = pair(value)? else { return None };
    let mut arrived =
        Arrived { id: Id::parse(&id)?, sender: None, texts: Vec::with_capacity(fields.len() / 2) };
    let mut fields = fields.into_iter().map(text);
    while let (Some(channel), Some(text)) = (fields.next(), fields.next()) {
        if channel.is_empty() {
            arrived.sender = sender(&text).or(arrived.sender);
        } else {
            arrived.texts.push(Text { channel, text });
        }
    }
    Some(arrived)
}

fn text(value: Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        _ => String::new(),
    }
}

fn sender(text: &str) -> Option<(String, u64)> {
    let (publisher, sequence) = text.rsplit_once('-')?;
    Some((publisher.to_owned(), sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_from_either_protocol_whoever_wrote_them() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let list = |texts: &[&str]| Value::Array(texts.iter().map(|text| bulk(text)).collect());
        let ours = Value::Array(vec![bulk("5-1"), list(&["", "node-7", "c", "one", "d", "two"])]);
        let theirs = Value::Array(vec![bulk("5-2"), list(&["c", "three", "odd"])]);
        let broken = Value::Array(vec![bulk("no id"), list(&[])]);
        let entries = Value::Array(vec![ours, theirs, broken]);
        let text = |channel: &str, text: &str| Text { channel: channel.into(), text: text.into() };
        let expected = [
            Arrived {
                id: Id { milliseconds: 5, count: 1 },
                sender: Some(("node".into(), 7)),
                texts: vec![text("c", "one"), text("d", "two")],
            },
            Arrived {
                id: Id { milliseconds: 5, count: 2 },
                sender: None,
                texts: vec![text("c", "three")],
            },
        ];
        for reply in [
            Value::Map(vec![(bulk("log"), entries.clone())]),
            Value::Array(vec![Value::Array(vec![bulk("log"), entries.clone()])]),
        ] {
            let streams = streams(reply);
            assert_eq!(streams.len(), 1);
            assert_eq!(streams[0].0, b"log");
            assert_eq!(streams[0].1, expected);
        }
        assert!(streams(Value::Nil).is_empty());
    }
}
