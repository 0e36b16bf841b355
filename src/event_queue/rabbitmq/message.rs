//! A message on the broker: its text is the body, what else is known of it is in its properties.

use crate::event_queue::adapter::Options;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use serde::Deserialize;
use std::hash::{BuildHasher, RandomState};

const RETRIED: &str = "mortise-retried";
const CRASHES: &str = "mortise-crashes";
const LEFT: &str = "mortise-left";
const ERROR: &str = "mortise-error";
const ID: &str = "mortise-id";
const ORIGIN: &str = "mortise-origin";
/// How often a quorum queue has had the message back.
const RETURNS: &str = "x-delivery-count";
const PERSISTENT: u8 = 2;
/// Bytes of an error that are kept.
const LONGEST_ERROR: usize = 4096;
const LONGEST_SHORT: usize = 255;
/// The length of what the texts of one [`Unique`] begin with.
const PREFIX: usize = 32;
/// What comes after that. Ids that others make have none, such as those of traces and of parts of files.
const MARK: u8 = b'~';

/// What is known of a message beside its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Its id.
    pub id: String,
    /// No other message has this: ids are given by users, and may be given twice. None when the id is ours.
    pub nonce: Option<String>,
    /// The key of the message that this is a copy of, which may be there, too; none when that was a former attempt.
    pub origin: Option<String>,
    /// How often it was tried before; none when its options say.
    pub retried: Option<u32>,
    /// How often it has ended its node, before it was published last.
    pub crashes: u32,
    /// For how many milliseconds it is still to be kept back when it comes.
    pub left: u64,
    /// What the last attempt of a dead letter has failed with.
    pub error: Option<String>,
}

impl Envelope {
    /// What tells this message from all others, its copies too, where this queue has published it.
    pub fn key(&self) -> &str {
        self.nonce.as_deref().unwrap_or(&self.id)
    }

    /// What this attempt and its copies have in common, and nothing else has. None where that cannot be said: others'
    /// programs may give all of theirs the same id, or none.
    pub fn attempt(&self) -> Option<&str> {
        Some(self.origin.as_deref().unwrap_or(self.key())).filter(|key| Unique::is_one(key))
    }

    /// Makes it a copy of what it was, of the same attempt.
    pub fn copied(self, nonce: String) -> Self {
        let origin = self.attempt().map(str::to_owned);
        Self { nonce: Some(nonce), origin, ..self }
    }

    /// As the broker keeps it.
    pub fn to_properties(&self) -> BasicProperties {
        let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let mut headers = FieldTable::default();
        let mut number =
            |name: &str, value: i64| _ = headers.insert(name.into(), AMQPValue::LongLongInt(value));
        if let Some(retried) = self.retried {
            number(RETRIED, retried.into());
        }
        if self.crashes > 0 {
            number(CRASHES, self.crashes.into());
        }
        if self.left > 0 {
            number(LEFT, i64::try_from(self.left).unwrap_or(i64::MAX));
        }
        let mut text = |name: &str, value: &str| {
            _ = headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
        };
        if let Some(error) = &self.error {
            text(ERROR, cut(error));
        }
        if let Some(origin) = &self.origin {
            text(ORIGIN, origin);
        }
        if self.id.len() > LONGEST_SHORT {
            text(ID, &self.id);
        } else {
            properties = properties.with_message_id(ShortString::from(self.id.as_str()));
        }
        if let Some(nonce) = &self.nonce {
            properties = properties.with_correlation_id(ShortString::from(nonce.as_str()));
        }
        if headers.inner().is_empty() { properties } else { properties.with_headers(headers) }
    }

    /// What the broker says, and how often its queue has had the message back.
    pub fn of(properties: &BasicProperties) -> (Self, u32) {
        let short = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
        let mut it = Self {
            id: short(properties.message_id()).unwrap_or_default(),
            nonce: short(properties.correlation_id()),
            ..Self::default()
        };
        let mut returns = 0;
        for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
            match name.as_str() {
                RETRIED => it.retried = Some(small(value)),
                CRASHES => it.crashes = small(value),
                LEFT => it.left = number(value),
                ERROR => it.error = text(value),
                ID => it.id = text(value).unwrap_or_default(),
                ORIGIN => it.origin = text(value),
                RETURNS => returns = small(value),
                _ => {}
            }
        }
        (it, returns)
    }
}

/// When a message was published, in milliseconds since 1970, where its options say.
pub fn published(text: &[u8]) -> Option<f64> {
    #[derive(Deserialize)]
    struct Published {
        timestamp: Option<f64>,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "what comes after the options must be JSON, too")]
    struct Parts(Published, #[serde(default)] Option<serde::de::IgnoredAny>);
    serde_json::from_slice::<Parts>(text).ok()?.0.timestamp
}

/// How often a message was tried before, by its options.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
pub fn retried_before(options: &Options) -> u32 {
    options.retried as u32
}

/// Makes texts that nobody else has.
pub struct Unique {
    prefix: String,
    count: std::sync::atomic::AtomicU64,
}

impl Default for Unique {
    fn default() -> Self {
        // Two of the process's random keys: 128 bits.
        let prefix = format!(
            "{:016x}{:016x}",
            RandomState::new().hash_one(1),
            RandomState::new().hash_one(2)
        );
        debug_assert_eq!(prefix.len(), PREFIX);
        Self { prefix, count: 0.into() }
    }
}

impl Unique {
    /// Whether one of these could have made the text.
    pub fn is_one(text: &str) -> bool {
        let parts = text.as_bytes().split_at_checked(PREFIX);
        parts.is_some_and(|(prefix, rest)| {
            prefix.iter().all(u8::is_ascii_hexdigit) && rest.first() == Some(&MARK)
        })
    }

    /// The next.
    pub fn next(&self) -> String {
        let count = self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut text = String::with_capacity(PREFIX + 12);
        text.push_str(&self.prefix);
        text.push(char::from(MARK));
        text.push_str(itoa::Buffer::new().format(count));
        text
    }
}

fn number(value: &AMQPValue) -> u64 {
    match *value {
        AMQPValue::LongLongInt(value) => u64::try_from(value).unwrap_or(0),
        AMQPValue::LongInt(value) => u64::try_from(value).unwrap_or(0),
        AMQPValue::LongUInt(value) => value.into(),
        AMQPValue::ShortInt(value) => u64::try_from(value).unwrap_or(0),
        AMQPValue::ShortUInt(value) => value.into(),
        AMQPValue::ShortShortInt(value) => u64::try_from(value).unwrap_or(0),
        AMQPValue::ShortShortUInt(value) => value.into(),
        _ => 0,
    }
}

fn small(value: &AMQPValue) -> u32 {
    u32::try_from(number(value)).unwrap_or(u32::MAX)
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=LONGEST_ERROR.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_message_comes_back() {
        let full = Envelope {
            id: "x".repeat(300),
            nonce: Some("n".into()),
            origin: Some("o".into()),
            retried: Some(3),
            crashes: 2,
            left: 1 << 40,
            error: Some("no".into()),
        };
        assert_eq!(Envelope::of(&full.to_properties()), (full.clone(), 0));
        let plain = Envelope { id: "a".into(), ..Envelope::default() };
        let properties = plain.to_properties();
        assert!(properties.headers().is_none());
        assert_eq!(Envelope::of(&properties), (plain, 0));
    }

    #[test]
    fn copies_are_of_one_attempt() {
        let unique = Unique::default();
        let plain = Envelope { id: unique.next(), ..Envelope::default() };
        let named = Envelope { id: "1".into(), nonce: Some(unique.next()), ..Envelope::default() };
        for first in [plain, named] {
            let copy = first.clone().copied(unique.next());
            let another = copy.clone().copied(unique.next());
            assert_eq!(first.attempt(), Some(first.key()));
            assert_eq!((copy.attempt(), another.attempt()), (first.attempt(), first.attempt()));
            assert!(copy.key() != first.key() && copy.key() != another.key());
        }
    }

    #[test]
    fn attempts_of_messages_that_others_have_published_are_not_known() {
        let unique = Unique::default();
        let trace = "0123456789abcdef0123456789abcdef";
        for id in ["", "1", trace, &format!("{trace}-12"), "ä"] {
            let theirs = Envelope { id: id.to_owned(), ..Envelope::default() };
            assert_eq!(theirs.attempt(), None, "{id}");
            assert!(theirs.copied(unique.next()).attempt().is_some());
        }
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(3000)).len(), LONGEST_ERROR);
        assert_eq!(cut(&format!("a{}", "ä".repeat(3000))).len(), LONGEST_ERROR - 1);
    }

    #[test]
    fn the_time_of_publishing_is_in_the_options() {
        assert_eq!(published(br#"[{"timestamp":5.5,"x":{}},{"a":[]}]"#), Some(5.5));
        assert_eq!(published(b"[{}]"), None);
        assert_eq!(published(b"nonsense"), None);
    }
}
