//! A command with its place in a cluster.

use redis::Cmd;

/// Slots of a cluster.
pub const SLOTS: u16 = 16384;

/// A command, and the slot of its key.
#[derive(Clone)]
pub struct Command {
    cmd: Cmd,
    words: usize,
    key_at: usize,
    /// The key follows the word `STREAMS`, wherever that is.
    reads_streams: bool,
    slot: Option<u16>,
}

/// Commands that have no key, or none that matters: any server may answer them.
const KEYLESS: [&str; 21] = [
    "PING", "INFO", "SCAN", "DBSIZE", "FLUSHALL", "FLUSHDB", "SCRIPT", "CONFIG", "CLIENT", "ROLE",
    "TIME", "ACL", "MEMORY", "ECHO", "PUBLISH", "CLUSTER", "COMMAND", "FUNCTION", "WAIT", "ASKING",
    "KEYS",
];
/// Commands whose first key is their third argument, after a script and a count.
const SCRIPTS: [&str; 5] = ["EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL"];

impl Command {
    /// A command of words, the first of which is its name. The key is found by the name.
    pub fn new<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>) -> Self {
        let mut command = Self::with_capacity(4, 64);
        for word in words {
            command.push(word.as_ref());
        }
        command
    }

    /// A command without words yet, with room for so many words of so many bytes.
    pub fn with_capacity(words: usize, bytes: usize) -> Self {
        Self {
            cmd: Cmd::with_capacity(words, bytes),
            words: 0,
            key_at: usize::MAX,
            reads_streams: false,
            slot: None,
        }
    }

    /// Adds a word.
    pub fn push(&mut self, word: &[u8]) {
        if self.words == 0 {
            self.key_at = key_position(word);
            self.reads_streams = is_one_of(word, &["XREAD", "XREADGROUP"]);
        } else if self.reads_streams && word.eq_ignore_ascii_case(b"STREAMS") {
            self.key_at = self.words + 1;
            self.reads_streams = false;
        }
        if self.words == self.key_at {
            self.slot = Some(slot_of(word));
        }
        self.cmd.arg(word);
        self.words += 1;
    }

    /// The slot of its key; nothing when any server may answer.
    pub fn slot(&self) -> Option<u16> {
        self.slot
    }

    /// The command as redis-rs knows it.
    pub fn into_cmd(self) -> Cmd {
        self.cmd
    }
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

fn key_position(name: &[u8]) -> usize {
    if is_one_of(name, &KEYLESS) || is_one_of(name, &["XREAD", "XREADGROUP"]) {
        usize::MAX
    } else if is_one_of(name, &SCRIPTS) {
        3
    } else if is_one_of(name, &["XGROUP", "XINFO"]) {
        2
    } else {
        1
    }
}

/// The slot of a key: CRC16 (XMODEM) of the key, or of what stands between its first braces, by
/// the cluster specification, <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(key)) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_hash_tags_have_the_slots_of_the_specification() {
        assert_eq!(slot_of(b"123456789"), 12739);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"a{foo}b{bar}"), 12182);
        assert_eq!(slot_of(b"{}foo"), crc16::State::<crc16::XMODEM>::calculate(b"{}foo") % SLOTS);
        assert_eq!(Command::new(["get", "foo"]).slot(), Some(12182));
        assert_eq!(Command::new(["EVALSHA", "0", "1", "foo", "x"]).slot(), Some(12182));
        let info = ["XINFO", "GROUPS", "foo"];
        assert_eq!(Command::new(info).slot(), Some(12182));
        let read = ["XREAD", "COUNT", "1", "STREAMS", "foo", "0-0"];
        assert_eq!(Command::new(read).slot(), Some(12182));
        assert_eq!(Command::new(["ping"]).slot(), None);
    }
}
