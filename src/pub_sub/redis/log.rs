//! One log as a reader sees it: how far it has read, whether anything was missed, and what comes twice.

use super::{
    entry::Arrived,
    id::Id,
    keys::Keys,
    member::Member,
    resume::{Answer, Question},
};
use crate::pub_sub::adapter::Gap;
use std::{collections::HashMap, sync::Arc};

/// Publishers whose last sequence number is kept.
const MOST_PUBLISHERS: usize = 10_000;

/// A log, and who hears of it.
pub struct Log {
    pub keys: Keys,
    pub members: Vec<Arc<Member>>,
    /// Whether the reader's loop has asked for it yet.
    pub taken_up: bool,
    epoch: String,
    /// All up to here was read.
    position: Id,
    /// Where reading began.
    start: Id,
    /// How many entries the log has had up to the position, where that is known.
    counted: Option<u64>,
    /// The connection on which the log was last looked at thoroughly.
    checked_on: u64,
    publishers: Publishers,
}

impl Log {
    /// A log that is read from its end on, as the first answer tells.
    pub fn new(keys: Keys, answer: Answer) -> Self {
        let Answer { epoch, last, added, .. } = answer;
        Self {
            keys,
            members: Vec::new(),
            taken_up: false,
            epoch,
            position: last,
            start: last,
            counted: added,
            checked_on: 0,
            publishers: Publishers::default(),
        }
    }

    pub fn position(&self) -> Id {
        self.position
    }

    /// Whether the log was looked at thoroughly since that connection stands.
    pub fn is_checked_on(&self, connection: u64) -> bool {
        self.checked_on == connection
    }

    /// What is to be asked before the log is read.
    pub fn question(&self, connection: u64) -> Question {
        let newest =
            (!self.is_checked_on(connection) && self.position != Id::ZERO).then_some(self.position);
        let position = Some(self.position);
        Question { epoch: self.epoch.clone(), position, newest }
    }

    /// Takes the answer to a [`question`](Self::question); says whether something was missed.
    pub fn judge(&mut self, answer: &Answer, connection: u64) -> Option<Gap> {
        self.checked_on = connection;
        if answer.epoch != self.epoch {
            self.epoch.clone_from(&answer.epoch);
            self.begin_again(answer);
            return Some(Gap::Replaced);
        }
        if answer.present {
            return self.settle(answer);
        }
        match (self.counted, answer.added) {
            // It was made anew under the same epoch.
            (Some(counted), Some(added)) if added < counted => {
                self.begin_again(answer);
                return Some(Gap::Replaced);
            }
            (Some(counted), Some(added)) => {
                let dropped = added.saturating_sub(answer.length);
                if dropped > counted {
                    self.counted = Some(dropped);
                    return Some(Gap::Trimmed);
                }
            }
            // Without the server's count only neighbours can tell: an entry after the position may
            // have been dropped unless the first is the next. From the log's start nobody knows.
            _ => {
                let first = answer.first.unwrap_or_else(|| answer.last.next());
                if self.position != Id::ZERO && first > self.position.next() {
                    self.position = first.previous();
                    return Some(Gap::Trimmed);
                }
            }
        }
        self.settle(answer)
    }

    /// The log is another one. What has come since is to be heard: from the position on when it is there
    /// too, else from where reading began, which is before all that is new unless the server's clock
    /// has gone back. What is old shows by its sequence numbers.
    fn begin_again(&mut self, answer: &Answer) {
        self.counted = None;
        if !answer.present {
            self.start = if answer.last < self.start { Id::ZERO } else { self.start };
            self.position = self.start;
            if answer.first.is_none_or(|first| first > self.start) {
                // All that is there is to be read. What was dropped before it is part of this gap.
                self.position = answer.first.map_or(self.start, Id::previous);
                self.counted = answer.added.map(|added| added.saturating_sub(answer.length));
            }
        }
        self.settle(answer);
    }

    /// At the log's end the server's count shows what passed between a look and its read.
    fn settle(&mut self, answer: &Answer) -> Option<Gap> {
        if answer.last != self.position {
            return None;
        }
        let counted = std::mem::replace(&mut self.counted, answer.added)?;
        answer.added.filter(|added| *added > counted).map(|_| Gap::Trimmed)
    }

    /// Takes what was read after the position: the entries that are new.
    pub fn take(&mut self, mut arrived: Vec<Arrived>) -> Vec<Arrived> {
        arrived.retain(|entry| {
            if entry.id <= self.position {
                return false;
            }
            self.position = entry.id;
            self.counted = self.counted.map(|counted| counted + 1);
            entry.sender.as_ref().is_none_or(|(name, number)| self.publishers.is_new(name, *number))
        });
        arrived
    }
}

/// The last sequence number of each publisher: one that is not above it was sent again.
#[derive(Default)]
struct Publishers {
    last: HashMap<String, Seen>,
    clock: u64,
}

struct Seen {
    sequence: u64,
    at: u64,
}

impl Publishers {
    fn is_new(&mut self, name: &str, sequence: u64) -> bool {
        self.clock += 1;
        let at = self.clock;
        if let Some(seen) = self.last.get_mut(name) {
            let new = sequence > seen.sequence;
            *seen = Seen { sequence: seen.sequence.max(sequence), at };
            return new;
        }
        if self.last.len() >= MOST_PUBLISHERS {
            self.forget_half();
        }
        self.last.insert(name.to_owned(), Seen { sequence, at });
        true
    }

    /// Those that have been silent for longest.
    fn forget_half(&mut self) {
        let mut times: Vec<u64> = self.last.values().map(|seen| seen.at).collect();
        let (_, middle, _) = times.select_nth_unstable(MOST_PUBLISHERS / 2);
        let middle = *middle;
        self.last.retain(|_, seen| seen.at > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::entry::tests::single, *};

    fn id(milliseconds: u64) -> Id {
        Id { milliseconds, count: 0 }
    }

    fn answer(epoch: &str, last: u64, first: u64, added: Option<u64>, length: u64) -> Answer {
        let first = (length > 0).then(|| id(first));
        Answer { epoch: epoch.into(), last: id(last), first, added, length, present: false }
    }

    /// At the entry 100, the tenth, the log holding five.
    fn log(added: Option<u64>) -> Log {
        Log::new(Keys::of("app"), answer("e", 100, 60, added, 5))
    }

    fn entry(at: u64, sender: &str, sequence: u64) -> Arrived {
        single(id(at), sender, sequence, format!("{sender} {sequence}"))
    }

    #[test]
    fn nothing_is_missed_while_no_more_was_dropped_than_was_read() {
        let mut log = log(Some(10));
        assert_eq!(log.judge(&answer("e", 100, 0, Some(10), 0), 1), None, "all dropped, all read");
        assert_eq!(log.judge(&answer("e", 130, 110, Some(13), 3), 1), None);
        assert_eq!(log.judge(&answer("e", 130, 120, Some(13), 2), 1), Some(Gap::Trimmed));
        assert_eq!(log.judge(&answer("e", 130, 120, Some(13), 2), 1), None, "told once");
        log.take(vec![entry(120, "a", 1), entry(130, "a", 2)]);
        assert_eq!(log.judge(&answer("e", 130, 120, Some(13), 2), 1), None);
        assert_eq!(log.judge(&answer("e", 140, 140, Some(14), 1), 1), None);
        assert_eq!(log.judge(&answer("e", 150, 150, Some(15), 1), 1), Some(Gap::Trimmed));
    }

    #[test]
    fn what_passed_between_a_look_and_its_read_shows_at_the_end_of_the_log() {
        let mut log = log(Some(10));
        log.take(vec![entry(140, "a", 1), entry(150, "a", 2)]);
        let there = Answer { present: true, ..answer("e", 150, 140, Some(15), 2) };
        assert_eq!(log.judge(&there, 1), Some(Gap::Trimmed));
        assert_eq!(log.judge(&there, 1), None);
    }

    #[test]
    fn without_the_servers_count_the_neighbours_tell() {
        let mut log = log(None);
        assert_eq!(log.judge(&answer("e", 100, 0, None, 0), 1), None);
        assert_eq!(log.judge(&answer("e", 130, 120, None, 2), 1), Some(Gap::Trimmed));
        assert_eq!(log.judge(&answer("e", 130, 120, None, 2), 1), None, "told once");
        assert_eq!(log.take(vec![entry(120, "a", 1)]).len(), 1);
    }

    #[test]
    fn another_log_is_read_from_where_reading_began_and_what_was_read_is_not_heard_again() {
        let mut log = log(Some(10));
        assert_eq!(log.take(vec![entry(110, "a", 1), entry(120, "a", 2)]).len(), 2);
        assert_eq!(log.judge(&answer("f", 115, 60, Some(11), 6), 1), Some(Gap::Replaced));
        assert_eq!(log.position(), id(100));
        let entries = log.take(vec![entry(110, "a", 1), entry(115, "b", 1)]);
        assert_eq!(entries.len(), 1, "only what is new");
        // A clock that has gone back.
        assert_eq!(log.judge(&answer("g", 50, 40, Some(2), 2), 1), Some(Gap::Replaced));
        assert_eq!(log.position(), id(40).previous());
        assert_eq!(log.judge(&answer("g", 50, 40, Some(2), 2), 1), None);
        // Deleted by hand.
        assert_eq!(log.take(vec![entry(40, "c", 1), entry(50, "c", 2)]).len(), 2);
        assert_eq!(log.judge(&answer("g", 50, 40, Some(2), 2), 1), None);
        assert_eq!(log.judge(&answer("g", 60, 60, Some(1), 1), 1), Some(Gap::Replaced));
    }

    #[test]
    fn another_log_is_one_gap_however_often_it_is_looked_at_before_it_is_read() {
        for count in [true, false] {
            let counted = |added: u64| count.then_some(added);
            let mut log = log(counted(10));
            assert_eq!(log.judge(&answer("f", 150, 130, counted(4), 3), 1), Some(Gap::Replaced));
            assert_eq!(log.judge(&answer("f", 150, 130, counted(4), 3), 1), None);
            assert_eq!(log.judge(&answer("f", 160, 130, counted(5), 4), 1), None, "more has come");
            assert_eq!(log.judge(&answer("f", 160, 140, counted(5), 3), 1), Some(Gap::Trimmed));
            assert_eq!(log.take(vec![entry(140, "a", 1)]).len(), 1);
        }
        let mut log = log(Some(10));
        assert_eq!(log.judge(&answer("f", 0, 0, Some(0), 0), 1), Some(Gap::Replaced), "empty");
        assert_eq!(log.judge(&answer("f", 130, 130, Some(1), 1), 1), None);
    }

    #[test]
    fn a_new_connection_is_asked_for_the_newest_entry() {
        let mut log = log(Some(10));
        assert_eq!(log.question(1).newest, Some(id(100)));
        log.judge(&answer("e", 100, 60, Some(10), 5), 1);
        assert_eq!(log.question(1).newest, None);
        assert_eq!(log.question(2).newest, Some(id(100)));
    }

    #[test]
    fn an_entry_that_was_sent_again_is_dropped_and_silent_publishers_are_forgotten() {
        let mut log = log(Some(10));
        let entries = log.take(vec![
            entry(110, "a", 1),
            entry(120, "a", 1),
            entry(130, "b", 1),
            entry(140, "a", 5),
            entry(150, "a", 2),
        ]);
        let heard: Vec<&str> =
            entries.iter().flat_map(Arrived::texts).map(|(_, text)| text).collect();
        assert_eq!(heard, ["a 1", "b 1", "a 5"]);
        for n in 0..30_000 {
            log.publishers.is_new(&n.to_string(), 1);
        }
        assert!(log.publishers.last.len() <= MOST_PUBLISHERS);
        assert!(!log.publishers.is_new("29999", 1));
    }
}
