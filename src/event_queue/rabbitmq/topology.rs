//! What is declared on the broker: durable quorum queues, all with the same arguments on every node.

use lapin::types::{AMQPValue, FieldTable, LongString};

/// Dead letters that a channel keeps; the oldest go first.
const DEAD_LETTERS: i64 = 10_000;
/// Pauses that are noted, some of them more than once.
const DELAYS: i64 = 2_000;
/// The longest pause that one queue can give: it has to live for twice as long, which is below 2^32 milliseconds.
pub const LONGEST_DELAY: u64 = 1_700_000_000;
/// By how much a queue of pauses outlives twice its pause.
const SPARE: u64 = 600_000;
/// How often a message may come back before the broker itself gives it up: never, since it is counted here. Without
/// it `RabbitMQ` 4 drops messages after the twentieth time.
const DELIVERY_LIMIT: i64 = 1_000_000_000;
/// How long a message may run before the broker closes its channel, from `RabbitMQ` 3.12 on: 30 days. It is the same for
/// all settings of `maxRun`, since a queue has one.
const CONSUMER_TIMEOUT: i64 = 2_592_000_000;

/// The arguments of a channel's main queue.
pub fn main() -> FieldTable {
    let mut table = quorum();
    set(&mut table, "x-consumer-timeout", CONSUMER_TIMEOUT);
    table
}

/// The arguments of a channel's dead letters.
pub fn dead() -> FieldTable {
    let mut table = quorum();
    set(&mut table, "x-max-length", DEAD_LETTERS);
    table
}

/// The arguments of a queue in which messages for `main` wait for so many milliseconds. It goes by itself once
/// nobody has declared it for as long as [`lifetime`] says.
pub fn delay(milliseconds: u64, main: &str) -> FieldTable {
    let mut table = quorum();
    set(&mut table, "x-message-ttl", signed(milliseconds));
    set(&mut table, "x-expires", signed(lifetime(milliseconds)));
    set_text(&mut table, "x-dead-letter-exchange", "");
    set_text(&mut table, "x-dead-letter-routing-key", main);
    // The way on is confirmed, too; the broker wants publishers refused rather than messages dropped for it.
    set_text(&mut table, "x-dead-letter-strategy", "at-least-once");
    set_text(&mut table, "x-overflow", "reject-publish");
    table
}

/// How long a queue of pauses lives after it was declared.
fn lifetime(milliseconds: u64) -> u64 {
    2 * milliseconds + SPARE
}

/// After how many milliseconds it is declared again, so that it outlives what is published to it.
pub fn renewal(milliseconds: u64) -> u64 {
    lifetime(milliseconds) / 4
}

/// The arguments of the queue in which a channel's pauses are noted.
pub fn delays() -> FieldTable {
    let mut table = quorum();
    set(&mut table, "x-max-length", DELAYS);
    table
}

/// The arguments of queues that are nothing more.
pub fn quorum() -> FieldTable {
    let mut table = FieldTable::default();
    set_text(&mut table, "x-queue-type", "quorum");
    set(&mut table, "x-delivery-limit", DELIVERY_LIMIT);
    table
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn set(table: &mut FieldTable, name: &str, value: i64) {
    table.insert(name.into(), AMQPValue::LongLongInt(value));
}

fn set_text(table: &mut FieldTable, name: &str, value: &str) {
    table.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_of_pauses_outlives_what_is_in_it() {
        for milliseconds in [1, 500, 3_600_000, LONGEST_DELAY] {
            assert!(lifetime(milliseconds) - renewal(milliseconds) > milliseconds);
            assert!(lifetime(milliseconds) < 1 << 32);
        }
    }
}
