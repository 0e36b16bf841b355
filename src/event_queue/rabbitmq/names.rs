//! What the things of a channel are called on the broker.

use std::fmt::Write as _;
use xxhash_rust::xxh3::xxh3_128;

/// Longer names are shortened, so that what follows has room in the 255 bytes of an AMQP name.
const LONGEST: usize = 180;
/// Parts of a name that mean something after a channel's name, or in its place.
const RESERVED: [&str; 5] = ["dead", "delay", "delays", "nodes", "paused"];

/// The names of all that belongs to one channel.
#[derive(Debug, Clone)]
pub struct Names {
    /// The queue of what waits.
    pub main: String,
    /// The queue of dead letters.
    pub dead: String,
    /// The queue whose existence says that the channel is paused.
    pub paused: String,
    /// The queue in which the pauses are noted that have queues.
    pub delays: String,
}

impl Names {
    /// Those of a channel: letters, digits and `-_.` stay, the rest is percent-encoded; what is too long then ends with a
    /// hash of it. No two channels share one.
    pub fn of(prefix: &str, channel: &str) -> Self {
        let main = format!("{prefix}.{}", shortened(encode(channel), channel));
        Self {
            dead: format!("{main}.dead"),
            paused: format!("{main}.paused"),
            delays: format!("{main}.delays"),
            main,
        }
    }

    /// The queue in which messages wait for so many milliseconds.
    pub fn delay(&self, milliseconds: u64) -> String {
        format!("{}.delay.{milliseconds}", self.main)
    }
}

/// The exchange by which nodes talk to each other.
pub fn control(prefix: &str) -> String {
    format!("{prefix}.control")
}

/// The queue that every node consumes, so that their number is known; it holds nothing.
pub fn nodes(prefix: &str) -> String {
    format!("{prefix}.nodes")
}

fn encode(channel: &str) -> String {
    let mut name = String::with_capacity(channel.len());
    for (number, part) in channel.split('.').enumerate() {
        if number > 0 {
            name.push('.');
        }
        let reserved = RESERVED.contains(&part);
        for (at, byte) in part.bytes().enumerate() {
            let plain = byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if plain && !(reserved && at == 0) {
                name.push(char::from(byte));
            } else {
                // Writing into memory cannot fail.
                _ = write!(name, "%{byte:02X}");
            }
        }
    }
    name
}

fn shortened(mut name: String, channel: &str) -> String {
    if name.len() > LONGEST {
        name.truncate(LONGEST - 33);
        _ = write!(name, "~{:032x}", xxh3_128(channel.as_bytes()));
    }
    name
}

/// The pause rounded up to two digits that count, so that few queues are needed for all pauses.
pub fn rounded(milliseconds: u64) -> u64 {
    let digits = milliseconds.checked_ilog10().unwrap_or(0);
    let unit = 10_u64.pow(digits.saturating_sub(1));
    milliseconds.div_ceil(unit).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_channels_share_a_name_and_all_names_are_short_enough() {
        let long = "🦀".repeat(300);
        let other = format!("{}!", "🦀".repeat(299));
        let channels = [
            "a",
            "a b",
            "a%20b",
            "a.dead",
            "dead",
            "nodes",
            "a.delay.500",
            "a.delays",
            "a.paused",
            "a:b",
            "a@b",
            "é",
            "",
            ".",
            &long,
            &other,
        ];
        let mut all: Vec<String> = channels
            .iter()
            .flat_map(|channel| {
                let names = Names::of("mortise", channel);
                [names.delay(1_800_000_000), names.main, names.dead, names.paused, names.delays]
            })
            .chain([nodes("mortise")])
            .collect();
        for name in &all {
            assert!(name.len() <= 255 && name.is_ascii() && name.starts_with("mortise."), "{name}");
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn common_names_stay_readable() {
        assert_eq!(Names::of("mortise", "main.workflow-1_x").main, "mortise.main.workflow-1_x");
        assert_eq!(Names::of("mortise", "a b").dead, "mortise.a%20b.dead");
    }

    #[test]
    fn pauses_are_rounded_up_to_two_digits() {
        for (given, wanted) in [
            (1, 1),
            (10, 10),
            (99, 99),
            (101, 110),
            (500, 500),
            (1001, 1100),
            (123_456, 130_000),
            (995, 1000),
        ] {
            assert_eq!(rounded(given), wanted);
        }
    }
}
