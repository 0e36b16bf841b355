//! One subscription of a node: what it wants, what is under way, and what it knows of the server.

use super::{
    keys::Keys,
    report::{Report, Reports},
};
use crate::event_queue::adapter::Consumer;
use std::{collections::VecDeque, sync::Arc};

/// Whether the node stands in the line of those that are told of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Taken,
    Free,
    /// The connection was lost meanwhile.
    Unknown,
}

impl Place {
    /// The word of `look.lua` for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Taken => "y",
            Self::Free => "n",
            Self::Unknown => "m",
        }
    }
}

/// Commands that are under way.
pub struct Flight {
    pub number: u64,
    pub since: u64,
    /// Messages that it asks for.
    pub claims: u32,
    /// Suspects that it may fetch.
    pub suspects: u32,
    /// What it tells.
    pub reports: Arc<Reports>,
    /// It may be followed by another before it has landed.
    pub plain: bool,
}

/// A subscription. Times are milliseconds of the queue's clock.
#[expect(clippy::struct_excessive_bools, reason = "they change one by one")]
pub struct Channel {
    pub name: Arc<str>,
    pub keys: Arc<Keys>,
    /// The consumer of the group.
    pub consumer: Arc<str>,
    /// What stands in the line of those that wait.
    pub place_name: Arc<str>,
    pub owner: Arc<dyn Consumer>,
    pub concurrency: u32,
    pub running: u32,
    /// What is to be told to the server.
    pub reports: VecDeque<Report>,
    /// What is under way, the oldest first.
    pub flights: Vec<Flight>,
    /// Entries that were cancelled while what may fetch them is under way.
    pub cancelled: Vec<String>,
    /// The owner has said that messages may be fetched.
    pub wants: bool,
    /// The last claim got all that it asked for: there is a backlog.
    pub backlog: bool,
    /// What is due is to be looked at.
    pub looks: bool,
    pub looked_at: u64,
    pub place: Place,
    /// The node was told of messages while commands were under way: whether they have put it into the line before
    /// or after that is not known.
    pub told_in_flight: bool,
    /// When the node was told of messages, until it has looked or told the next.
    pub told_at: Option<u64>,
    /// When to look at what is due.
    pub due_at: u64,
    /// When to try again after a failure.
    pub again_at: u64,
    /// A claim may have been lost: what the server has given this node is to be compared.
    pub recovers: bool,
    /// The group exists, as far as is known.
    pub joined: bool,
    /// The server does not know the scripts.
    pub in_full: bool,
    /// Nothing is fetched any more.
    pub stopped: bool,
    /// When the leases of others are to be looked at.
    pub check_at: u64,
    /// When something was sent last by which the server hears of the consumer.
    pub renewed_at: u64,
    /// When that was sent last which the server has answered.
    pub heard_at: u64,
    /// What was claimed before may have become others': the server had not heard of the consumer for a lease.
    pub lapsed_at: u64,
    /// The last trouble that was told in the log.
    pub trouble: Option<String>,
}

/// Never.
pub const NEVER: u64 = u64::MAX;

impl Channel {
    pub fn new(
        name: &str,
        consumer: &str,
        place_name: &str,
        concurrency: u32,
        owner: Arc<dyn Consumer>,
    ) -> Self {
        Self {
            name: name.into(),
            keys: Arc::new(Keys::of(name)),
            consumer: consumer.into(),
            place_name: place_name.into(),
            owner,
            concurrency,
            running: 0,
            reports: VecDeque::new(),
            flights: Vec::new(),
            cancelled: Vec::new(),
            wants: false,
            backlog: false,
            looks: true,
            looked_at: 0,
            place: Place::Free,
            told_in_flight: false,
            told_at: None,
            due_at: NEVER,
            again_at: NEVER,
            recovers: false,
            joined: false,
            in_full: false,
            stopped: false,
            check_at: NEVER,
            renewed_at: 0,
            heard_at: 0,
            lapsed_at: 0,
            trouble: None,
        }
    }

    /// Slots in which nothing runs, and nothing is asked for.
    pub fn free(&self) -> u32 {
        let asked: u32 = self.flights.iter().map(|flight| flight.claims).sum();
        self.concurrency.saturating_sub(self.running).saturating_sub(asked)
    }

    /// All slots run; with what is asked for they may still come to be free.
    pub fn is_full(&self) -> bool {
        self.running >= self.concurrency
    }

    /// Whether commands may be sent now: one flight may follow another that is plain.
    pub fn may_launch(&self) -> bool {
        let may_follow = match self.flights.as_slice() {
            [] => true,
            [only] => only.plain,
            _ => false,
        };
        may_follow && self.again_at == NEVER
    }

    /// Nothing is under way, to be told or to be compared.
    pub fn is_settled(&self) -> bool {
        self.flights.is_empty() && self.reports.is_empty() && !self.recovers
    }

    /// Whether the server may hold messages for this node.
    pub fn holds(&self) -> bool {
        self.running > 0 || self.asks() || !self.reports.is_empty()
    }

    /// Whether messages are asked for.
    pub fn asks(&self) -> bool {
        self.flights.iter().any(|flight| flight.claims > 0)
    }

    /// The server has answered what was sent then, by which it has heard of the consumer.
    pub fn heard(&mut self, sent_at: u64, lease: u64) {
        if sent_at > self.heard_at.saturating_add(lease) {
            self.lapsed_at = sent_at;
            self.owner.changed();
        }
        self.heard_at = self.heard_at.max(sent_at);
    }

    /// Whether what was claimed since then may be others' by now, as when this process was stopped for a while.
    pub fn has_lapsed(&self, since: u64, now: u64, lease: u64) -> bool {
        since < self.lapsed_at || now > self.heard_at.max(since).saturating_add(lease)
    }

    /// How long what was claimed then stays this node's, unless the lease is renewed.
    pub fn left(&self, since: u64, now: u64, lease: u64) -> u64 {
        self.heard_at.max(since).saturating_add(lease).saturating_sub(now)
    }

    /// When the channel has something to do next.
    pub fn next_at(&self) -> u64 {
        let told = self.told_at.map_or(NEVER, |at| at + super::PATIENCE);
        self.due_at.min(self.again_at).min(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_queue::adapter::{Delivery, Level};

    struct Nobody;
    impl Consumer for Nobody {
        fn ready(&self) {}
        fn rests(&self) {}
        fn begin(&self, _: Vec<Delivery>) {}
        fn begin_within(&self, _: Vec<Delivery>, _: u64) {}
        fn changed(&self) {}
        fn timed_out(&self, _: u64) {}
        fn cancelled(&self, _: u64) {}
        fn given_up(&self, _: u64) {}
        fn log(&self, _: Level, _: String) {}
    }

    const LEASE: u64 = 500;

    /// A claim was sent at 1000, when nothing was held.
    fn claiming() -> Channel {
        let mut channel = Channel::new("c", "n/0:500", "n/0", 1, Arc::new(Nobody));
        channel.heard_at = 1000;
        channel
    }

    #[test]
    fn what_comes_within_the_lease_has_not_lapsed() {
        let mut channel = claiming();
        channel.heard(1000, LEASE);
        assert!(!channel.has_lapsed(1000, 1000 + LEASE, LEASE));
        assert!(channel.has_lapsed(1000, 1001 + LEASE, LEASE));
    }

    #[test]
    fn renewals_that_were_answered_keep_what_comes_late() {
        let mut channel = claiming();
        (1..9).for_each(|n| channel.heard(1000 + n * 200, LEASE));
        assert!(!channel.has_lapsed(1000, 2700, LEASE));
    }

    #[test]
    fn a_renewal_after_the_lease_does_not_bring_it_back_and_holds_for_later_claims() {
        let mut channel = claiming();
        channel.heard(3000, LEASE);
        assert!(channel.has_lapsed(1000, 3001, LEASE));
        assert!(!channel.has_lapsed(3000, 3001, LEASE));
    }
}
