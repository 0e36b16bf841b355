//! An entry of the log: what one publisher sent in one go. Its first pair is an empty name and
//! `<publisher>-<sequence>`. A single text follows as a pair of its channel and itself; several as one
//! pair of an empty name and a block: channel, text, channel, text, … each as a netstring
//! (`<bytes>:<text>,`, <https://cr.yp.to/proto/netstrings.txt>), which the server and its readers have
//! less work with than with as many pairs.

use super::{id::Id, keys::Keys};
use crate::{pub_sub::adapter::Text, redis::Command};
use redis::Value;
use std::fmt::Write as _;

/// The most texts of an entry.
pub const MOST_TEXTS: usize = 32;
/// An entry takes no further text once it is of that size.
pub const FULL_BYTES: usize = 8 << 10;

/// An entry that was read.
#[derive(Debug)]
pub struct Arrived {
    pub id: Id,
    /// Who sent it, and its sequence number among theirs; nothing for one that somebody else wrote.
    pub sender: Option<(String, u64)>,
    /// Channels and texts; with an empty channel, a block of them.
    pairs: Vec<(String, String)>,
}

impl Arrived {
    /// The channels and their texts.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().flat_map(|(channel, text)| {
            if channel.is_empty() {
                Texts { single: None, block: text }
            } else {
                Texts { single: Some((channel, text)), block: "" }
            }
        })
    }
}

/// A pair's one text, or those of a block as far as it can be read.
struct Texts<'a> {
    single: Option<(&'a str, &'a str)>,
    block: &'a str,
}

impl<'a> Iterator for Texts<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(single) = self.single.take() {
            return Some(single);
        }
        let (channel, rest) = netstring(self.block)?;
        let (text, rest) = netstring(rest)?;
        self.block = rest;
        Some((channel, text))
    }
}

fn netstring(block: &str) -> Option<(&str, &str)> {
    let (length, rest) = block.split_once(':')?;
    let length = length.parse().ok()?;
    Some((rest.get(..length)?, rest.get(length..)?.strip_prefix(',')?))
}

/// The command that appends an entry.
pub fn append<'a>(
    keys: &Keys,
    max_length: u64,
    publisher: &str,
    sequence: u64,
    mut texts: impl ExactSizeIterator<Item = &'a Text>,
) -> Command {
    let mut command = Command::with_capacity(10, 256);
    let (length, sender) = (max_length.to_string(), format!("{publisher}-{sequence}"));
    for word in ["XADD", &keys.log, "MAXLEN", "~", &length, "*", "", &sender] {
        command.push(word.as_bytes());
    }
    if texts.len() == 1 {
        for Text { channel, text } in texts.by_ref() {
            command.push(channel.as_bytes());
            command.push(text.as_bytes());
        }
        return command;
    }
    let mut block = String::with_capacity(FULL_BYTES);
    for Text { channel, text } in texts {
        // Writing to a string cannot fail.
        _ = write!(block, "{}:{channel},{}:{text},", channel.len(), text.len());
    }
    command.push(b"");
    command.push(block.as_bytes());
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
    let mut fields = fields.into_iter().map(text);
    let (mut sender, mut pairs, mut is_first) = (None, Vec::new(), true);
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if std::mem::take(&mut is_first) && name.is_empty() {
            sender = sent_by(&value);
        } else {
            pairs.push((name, value));
        }
    }
    Some(Arrived { id: Id::parse(&id)?, sender, pairs })
}

fn text(value: Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        _ => String::new(),
    }
}

fn sent_by(text: &str) -> Option<(String, u64)> {
    let (publisher, sequence) = text.rsplit_once('-')?;
    Some((publisher.to_owned(), sequence.parse().ok()?))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An entry with one text on the channel `c`.
    pub fn single(id: Id, sender: &str, sequence: u64, text: String) -> Arrived {
        Arrived { id, sender: Some((sender.into(), sequence)), pairs: vec![("c".into(), text)] }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn entries_are_read_from_either_protocol_whoever_wrote_them() {
        let list = |texts: &[&str]| Value::Array(texts.iter().map(|text| bulk(text)).collect());
        let ours = Value::Array(vec![bulk("5-1"), list(&["", "node-7", "c", "one"])]);
        let several = ["", "a-b-8", "", "1:c,5:t,w:o,0:,0:,2:d\u{e4},5:thr"];
        let torn = Value::Array(vec![bulk("5-2"), list(&several)]);
        let theirs = Value::Array(vec![bulk("5-3"), list(&["c", "three", "e", "", "odd"])]);
        let broken = Value::Array(vec![bulk("no id"), list(&[])]);
        let entries = Value::Array(vec![ours, torn, theirs, broken]);
        for reply in [
            Value::Map(vec![(bulk("log"), entries.clone())]),
            Value::Array(vec![Value::Array(vec![bulk("log"), entries.clone()])]),
        ] {
            let streams = streams(reply);
            assert_eq!(streams.len(), 1);
            assert_eq!(streams[0].0, b"log");
            let entries = &streams[0].1;
            let senders: Vec<_> = entries.iter().map(|entry| entry.sender.clone()).collect();
            assert_eq!(senders, [Some(("node".into(), 7)), Some(("a-b".into(), 8)), None]);
            let texts: Vec<Vec<_>> = entries.iter().map(|entry| entry.texts().collect()).collect();
            assert_eq!(texts[0], [("c", "one")]);
            assert_eq!(texts[1], [("c", "t,w:o"), ("", "")], "as far as it can be read");
            assert_eq!(texts[2], [("c", "three"), ("e", "")]);
        }
        assert!(streams(Value::Nil).is_empty());
    }

    #[test]
    fn what_is_appended_is_read_back() {
        let all = [("c", "one"), ("d", "t:w,o\u{e4}\u{1f600}"), ("c", "")];
        let texts = all.map(|(channel, text)| Text { channel: channel.into(), text: text.into() });
        for count in 1..=all.len() {
            let command = append(&Keys::of("app"), 9, "p-q", 3, texts[..count].iter()).into_cmd();
            let word = |word: redis::Arg<&[u8]>| match word {
                redis::Arg::Simple(bytes) => Value::BulkString(bytes.to_vec()),
                _ => Value::Nil,
            };
            let words: Vec<Value> = command.args_iter().skip(6).map(word).collect();
            let read = entry(Value::Array(vec![bulk("1-1"), Value::Array(words)]));
            let read = read.expect("an entry");
            assert_eq!(read.sender, Some(("p-q".into(), 3)));
            assert_eq!(read.texts().collect::<Vec<_>>(), all[..count]);
        }
    }
}
