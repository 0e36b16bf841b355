//! Entries of the stream as the server gives them, and how often their messages were tried.

use redis::Value;

/// How often a message was tried before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tries {
    /// Attempts that failed.
    pub retried: u32,
    /// Runs that ended with their node.
    pub crashes: u32,
}

impl Tries {
    /// By the group's count of deliveries, which is 1 more than both numbers in 32 bits each: so the server keeps
    /// it with the message, and the stream's entry need not change.
    pub fn of(count: u64) -> Self {
        let both = count.saturating_sub(1);
        let retried = u32::try_from(both & 0xFFFF_FFFF).unwrap_or(u32::MAX);
        Self { retried, crashes: u32::try_from(both >> 32).unwrap_or(u32::MAX) }
    }

    /// The group's count of deliveries.
    pub fn count(self) -> u64 {
        (u64::from(self.crashes) << 32) + u64::from(self.retried) + 1
    }

    /// After one more failure.
    pub fn failed(self) -> Self {
        Self { retried: self.retried.saturating_add(1), ..self }
    }
}

/// A message of the stream.
#[derive(Debug)]
pub struct Entry {
    /// Its id in the stream.
    pub id: String,
    /// The message.
    pub text: Vec<u8>,
    /// The id that it was given, where it was.
    pub own_id: Option<String>,
    /// How often it was tried.
    pub tries: Tries,
}

impl Entry {
    /// An entry as the server gives it; nothing when it was deleted. One that is none of ours has an empty text.
    pub fn read(value: Value, tries: Tries) -> Option<Self> {
        let Value::Array(parts) = value else { return None };
        let [id, fields]: [Value; 2] = parts.try_into().ok()?;
        let id = text(id)?;
        let (mut message, mut own_id) = (Vec::new(), None);
        let mut words = match fields {
            Value::Array(words) => words,
            Value::Map(pairs) => {
                pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()
            }
            _ => return None,
        }
        .into_iter();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            match (name, value) {
                (Value::BulkString(name), Value::BulkString(value)) if name == b"m" => {
                    message = value;
                }
                (Value::BulkString(name), value) if name == b"u" => own_id = text(value),
                _ => {}
            }
        }
        Some(Self { id, text: message, own_id, tries })
    }

    /// What `XREADGROUP` gives of one stream.
    pub fn read_all(reply: Value) -> Vec<Self> {
        let entries = match reply {
            Value::Map(streams) => streams.into_iter().next().map(|(_, entries)| entries),
            Value::Array(streams) => streams.into_iter().next().and_then(|stream| match stream {
                Value::Array(parts) => parts.into_iter().nth(1),
                _ => None,
            }),
            _ => None,
        };
        let Some(Value::Array(entries)) = entries else { return Vec::new() };
        entries.into_iter().filter_map(|entry| Self::read(entry, Tries::default())).collect()
    }
}

/// What `look.lua` gives.
#[derive(Debug, Default)]
pub struct Looked {
    /// Whether the node is in the line of those that wait.
    pub waits: bool,
    /// Milliseconds until the next is due.
    pub next: Option<u64>,
    /// Whether the channel is paused.
    pub paused: bool,
    /// What was fetched.
    pub entries: Vec<Entry>,
}

impl Looked {
    pub fn read(reply: Value) -> Option<Self> {
        let Value::Array(parts) = reply else { return None };
        let [waits, next, paused, again, fresh]: [Value; 5] = parts.try_into().ok()?;
        let mut entries = Vec::new();
        for item in array(again) {
            let Value::Array(pair) = item else { continue };
            let Ok([tries, entry]) = <[Value; 2]>::try_from(pair) else { continue };
            let tries = Tries::of(text(tries).and_then(|tries| tries.parse().ok()).unwrap_or(1));
            entries.extend(Entry::read(entry, tries));
        }
        let fresh = array(fresh).into_iter();
        entries.extend(fresh.filter_map(|entry| Entry::read(entry, Tries::default())));
        let next = integer(&next).and_then(|next| u64::try_from(next).ok());
        Some(Self { waits: integer(&waits)? == 1, next, paused: integer(&paused)? == 1, entries })
    }
}

pub fn array(value: Value) -> Vec<Value> {
    if let Value::Array(items) = value { items } else { Vec::new() }
}

pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        #[expect(clippy::cast_possible_truncation, reason = "counts and milliseconds")]
        Value::Double(number) => Some(*number as i64),
        _ => None,
    }
}

pub fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The value of that name in what `XINFO` gives.
pub fn field<'a>(info: &'a Value, name: &str) -> Option<&'a Value> {
    let is_name = |value: &Value| match value {
        Value::BulkString(bytes) => bytes == name.as_bytes(),
        Value::SimpleString(text) => text == name,
        _ => false,
    };
    match info {
        Value::Map(pairs) => pairs.iter().find(|(key, _)| is_name(key)).map(|(_, value)| value),
        Value::Array(items) => {
            items.chunks(2).find(|pair| is_name(&pair[0])).and_then(|pair| pair.get(1))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_kept_in_the_count_of_deliveries() {
        assert_eq!(Tries::default().count(), 1);
        let tries = Tries { retried: 7, crashes: 3 };
        assert_eq!(Tries::of(tries.count()), tries);
        assert_eq!(Tries::of(1), Tries::default());
        assert_eq!(Tries::of(0), Tries::default());
    }
}
