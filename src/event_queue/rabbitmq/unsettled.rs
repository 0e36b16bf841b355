//! Deliveries of one AMQP channel that the broker waits to hear of: which acknowledgement says the most.

use std::{collections::VecDeque, time::Instant};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// To be acknowledged, which the broker was not told yet.
    Done,
    Told,
}

struct Entry {
    tag: u64,
    since: Instant,
    state: State,
}

/// The deliveries in the order of their tags.
#[derive(Default)]
pub struct Unsettled {
    entries: VecDeque<Entry>,
    /// Those that are done and not told.
    done: Vec<u64>,
    open: usize,
    /// Of the tags above `boundary`.
    newer: usize,
    boundary: u64,
}

/// What the broker is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// This one and all before it are done.
    pub through: Option<u64>,
    /// And these, each for itself.
    pub single: Vec<u64>,
}

impl Unsettled {
    /// One has come; its tag is higher than all before it.
    pub fn add(&mut self, tag: u64, since: Instant) {
        self.entries.push_back(Entry { tag, since, state: State::Open });
        self.open += 1;
        self.newer += 1;
    }

    /// One is done; the broker is told with the next [`acks`](Self::acks).
    pub fn done(&mut self, tag: u64) {
        if self.mark(tag, State::Done) {
            self.done.push(tag);
        }
    }

    /// The broker was told of one in another way.
    pub fn told(&mut self, tag: u64) {
        self.mark(tag, State::Told);
        self.trim();
    }

    /// What the broker is to be told now.
    pub fn acks(&mut self) -> Acks {
        if self.done.is_empty() {
            return Acks::default();
        }
        let settled = self.entries.iter().take_while(|entry| entry.state != State::Open);
        let through =
            settled.filter(|entry| entry.state == State::Done).map(|entry| entry.tag).last();
        let mut single = std::mem::take(&mut self.done);
        single.retain(|&tag| through.is_none_or(|last| tag > last));
        for tag in &single {
            self.mark(*tag, State::Told);
        }
        self.trim();
        Acks { through, single }
    }

    /// The oldest of which the broker waits to hear, and since when.
    pub fn oldest(&self) -> Option<(u64, Instant)> {
        self.entries.front().map(|entry| (entry.tag, entry.since))
    }

    /// How many there are that are not done.
    pub fn open(&self) -> usize {
        self.open
    }

    /// How many of these have come since [`draw_line`](Self::draw_line).
    pub fn newer(&self) -> usize {
        self.newer
    }

    /// Those that come from now on are newer.
    pub fn draw_line(&mut self) {
        self.boundary = self.entries.back().map_or(self.boundary, |entry| entry.tag);
        self.newer = 0;
    }

    fn mark(&mut self, tag: u64, state: State) -> bool {
        match self.entries.binary_search_by_key(&tag, |entry| entry.tag) {
            Ok(at) if self.entries[at].state != State::Told => {
                if self.entries[at].state == State::Open {
                    self.open -= 1;
                    self.newer -= usize::from(tag > self.boundary);
                }
                self.entries[at].state = state;
                true
            }
            _ => false,
        }
    }

    fn trim(&mut self) {
        // What is done and not told is told with what `acks` gives.
        while self.entries.front().is_some_and(|entry| {
            entry.state == State::Told || (entry.state == State::Done && self.done.is_empty())
        }) {
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(tags: std::ops::RangeInclusive<u64>) -> Unsettled {
        let mut all = Unsettled::default();
        tags.for_each(|tag| all.add(tag, Instant::now()));
        all
    }

    #[test]
    fn one_acknowledgement_covers_all_before_it() {
        let mut all = with(1..=4);
        for tag in [2, 1, 3] {
            all.done(tag);
        }
        assert_eq!(all.acks(), Acks { through: Some(3), single: vec![] });
        assert_eq!(all.acks(), Acks::default());
        assert!(all.oldest().is_some());
        all.done(4);
        assert_eq!(all.acks(), Acks { through: Some(4), single: vec![] });
        assert!(all.oldest().is_none());
    }

    #[test]
    fn what_is_behind_one_that_runs_is_told_for_itself_and_once() {
        let mut all = with(1..=5);
        for tag in [3, 5] {
            all.done(tag);
        }
        assert_eq!(all.acks(), Acks { through: None, single: vec![3, 5] });
        all.done(1);
        assert_eq!(all.acks(), Acks { through: Some(1), single: vec![] });
        all.told(2);
        all.done(4);
        assert_eq!(all.acks(), Acks { through: Some(4), single: vec![] });
        assert!(all.oldest().is_none());
    }

    #[test]
    fn what_is_open_is_counted_and_what_came_since_the_line() {
        let mut all = with(1..=3);
        all.draw_line();
        (4..=5).for_each(|tag| all.add(tag, Instant::now()));
        assert_eq!((all.open(), all.newer()), (5, 2));
        all.done(4);
        all.done(4);
        all.told(1);
        assert_eq!((all.open(), all.newer()), (3, 1));
        all.acks();
        all.draw_line();
        assert_eq!((all.open(), all.newer()), (3, 0));
    }

    #[test]
    fn tags_that_are_not_there_say_nothing() {
        let mut all = with(5..=6);
        all.done(1);
        all.told(7);
        assert_eq!(all.acks(), Acks::default());
        all.told(5);
        all.done(5);
        assert_eq!(all.acks(), Acks::default());
    }
}
