//! The keys of a channel, which share a slot, and the names of those who read it.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The consumer group of every channel; also in `lua/common.lua`.
pub const GROUP: &str = "mortise";
/// Whose the messages are that wait for their next attempt; also in `lua/common.lua`.
pub const NOBODY: &str = "-";
/// What would end the part of a key by which a cluster finds its place.
const BRACES: &AsciiSet = &CONTROLS.add(b'{').add(b'}').add(b'%');

/// The keys of one channel.
#[derive(Debug)]
pub struct Keys {
    /// The messages, a stream with a consumer group.
    pub stream: String,
    /// What is due later, a sorted set by milliseconds since 1970: `r<entry> <tries>` for messages that ran,
    /// `d<id>` for those kept back, `p` while the channel is paused.
    pub later: String,
    /// The line of nodes that wait for messages, a list of `<node>/<number>`.
    pub hungry: String,
    /// Where the messages with ids of their own are, a hash: the entry in the stream; empty while kept back.
    pub ids: String,
    /// The messages that are kept back, a hash by id.
    pub delayed: String,
    /// Dead letters, a stream.
    pub dead: String,
}

impl Keys {
    /// Those of a channel.
    pub fn of(channel: &str) -> Self {
        let base = format!("mortise:{{{}}}:queue", utf8_percent_encode(channel, BRACES));
        let key = |last: &str| format!("{base}:{last}");
        Self {
            stream: key("stream"),
            later: key("later"),
            hungry: key("hungry"),
            ids: key("ids"),
            delayed: key("delayed"),
            dead: key("dead"),
        }
    }
}

/// Where a node is told of messages.
pub fn news_channel(node: &str) -> String {
    format!("mortise:queue:{node}")
}

/// The lease of a consumer, in milliseconds, which its name ends with.
pub fn lease_of(consumer: &str) -> Option<u64> {
    consumer.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Command;

    #[test]
    fn the_keys_of_a_channel_share_a_slot_whatever_its_name() {
        for channel in ["a", "}", "a}b{c", "{}", "%", "😀 x:y@z"] {
            let keys = Keys::of(channel);
            let slot = |key: &str| Command::new(["GET", key]).slot();
            let all = [&keys.later, &keys.hungry, &keys.ids, &keys.delayed, &keys.dead];
            assert!(all.iter().all(|key| slot(key) == slot(&keys.stream)), "{channel}");
        }
        assert_ne!(Keys::of("a}").stream, Keys::of("a%7D").stream);
    }
}
