//! One subscription of a node: what it wants, what is under way, and what it knows of the server.

use super::{
    keys::Keys,
    report::{Report, Reports},
};
use crate::event_queue::adapter::{Consumer, Level};
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
    /// The flight that was seen to be late, and since when.
    late: Option<(u64, u64)>,
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
    /// Messages that one claim fetches at most: fewer where they are large.
    pub most: u32,
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
    /// What was told in the log of troubles that last.
    troubles: Vec<(Work, String)>,
    /// The owner knows that nothing more comes of the subscription.
    pub is_over: bool,
}

/// What there may be trouble with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// What the channel fetches and reports.
    Flights,
    /// Looking after the channel and after others.
    Keeping,
}

/// Messages that one claim fetches at most.
const MOST: u32 = 256;
/// The bytes that one claim is to fetch at most. A server ends connections that are told of something, as this one is,
/// when so much waits to be sent that `client-output-buffer-limit pubsub` is passed: 32 MB unless configured, for the
/// two claims that may be under way.
const MOST_BYTES: usize = 8 << 20;

/// Different troubles that are told of at most.
const MOST_TROUBLES: usize = 16;

/// A flight that is late is waited for so long since that was seen, in milliseconds.
const LATE: u64 = 1000;
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
            late: None,
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
            most: MOST,
            recovers: false,
            joined: false,
            in_full: false,
            stopped: false,
            check_at: NEVER,
            renewed_at: 0,
            heard_at: 0,
            lapsed_at: 0,
            troubles: Vec::new(),
            is_over: false,
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

    /// So many messages were fetched, of so many bytes: the next are likely to be as large.
    pub fn fetched(&mut self, count: usize, bytes: usize) {
        let fit = MOST_BYTES.saturating_mul(count).checked_div(bytes);
        let fit = fit.and_then(|fit| u32::try_from(fit).ok()).unwrap_or(MOST).clamp(1, MOST);
        self.most = fit.min(self.most.saturating_mul(2));
    }

    /// The connection was lost, or the reply was late, when so many messages were asked for: they may have been too much.
    pub fn lost_claim(&mut self, count: u32) {
        self.most = (count / 2).max(1);
    }

    /// Trouble is told once, until all works again.
    pub fn tell_trouble(&mut self, with: Work, text: &str) {
        let is_known = self.troubles.iter().any(|it| it.0 == with && it.1 == text);
        if is_known || self.troubles.len() >= MOST_TROUBLES {
            return;
        }
        self.troubles.push((with, text.to_owned()));
        self.owner.log(Level::Warn, format!("event queue channel {}: {text}", self.name));
    }

    /// All works.
    pub fn works(&mut self, what: Work) {
        if !self.troubles.is_empty() {
            self.troubles.retain(|it| it.0 != what);
        }
    }

    /// Whether the oldest flight should have been over `patience` ago. One that is seen to be late for the first time is
    /// given another second: where the whole process stood still, its deadlines pass only now.
    pub fn stands_still(&mut self, now: u64, patience: u64) -> bool {
        let first = self.flights.first().filter(|it| it.since.saturating_add(patience) < now);
        let number = first.map(|flight| flight.number);
        let since = self.late.filter(|(late, _)| Some(*late) == number).map_or(now, |(_, at)| at);
        self.late = number.map(|number| (number, since));
        number.is_some() && now - since >= LATE
    }

    /// Gives up what is under way, of which nothing was heard for too long: what it tells is told again, which does no
    /// harm. Gives how many suspects it might have fetched.
    pub fn give_up_flights(&mut self) -> u32 {
        let mut suspects = 0;
        for flight in std::mem::take(&mut self.flights).into_iter().rev() {
            suspects += flight.suspects;
            for report in flight.reports.all.iter().rev() {
                self.reports.push_front(report.clone());
            }
        }
        (self.recovers, self.looks) = (true, true);
        suspects
    }

    /// Tells the owner when the subscription has ended, and nothing more comes of it.
    pub fn end_if_over(&mut self) {
        if self.stopped && !self.is_over && !self.holds() && self.is_settled() {
            self.is_over = true;
            self.owner.over();
        }
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
    use crate::event_queue::adapter::Delivery;

    struct Nobody;
    impl Consumer for Nobody {
        fn ready(&self) {}
        fn rests(&self) {}
        fn begin(&self, _: Vec<Delivery>) {}
        fn begin_within(&self, _: Vec<Delivery>, _: u64) {}
        fn changed(&self) {}
        fn over(&self) {}
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

    fn done(entry: &str) -> Report {
        Report::Done { entry: entry.to_owned(), own_id: None }
    }

    fn flight(number: u64, reports: Vec<Report>, claims: u32) -> Flight {
        let reports = Arc::new(Reports::new(reports));
        Flight { number, since: 0, claims, suspects: 1, reports, plain: true }
    }

    #[test]
    fn what_flights_tell_that_are_given_up_is_told_again_before_the_rest() {
        let mut channel = claiming();
        channel.flights =
            vec![flight(1, vec![done("1-0"), done("2-0")], 1), flight(2, vec![done("3-0")], 0)];
        channel.reports.push_back(done("4-0"));
        assert_eq!(channel.give_up_flights(), 2);
        let told: Vec<&str> = channel.reports.iter().map(Report::entry).collect();
        assert_eq!(told, ["1-0", "2-0", "3-0", "4-0"]);
        assert!(!channel.asks() && channel.recovers, "what they have fetched is to be found");
        assert!(channel.may_launch());
    }

    #[test]
    fn a_flight_stands_still_when_it_is_late_for_a_while_and_not_when_the_clock_has_leapt() {
        let mut channel = claiming();
        channel.flights = vec![flight(1, Vec::new(), 1)];
        assert!(!channel.stands_still(500, 600), "it may still come");
        assert!(!channel.stands_still(90_000, 600), "the process may have been stopped");
        assert!(!channel.stands_still(90_999, 600));
        assert!(channel.stands_still(91_000, 600));
        // Another one is waited for anew.
        channel.flights = vec![flight(2, Vec::new(), 1)];
        assert!(!channel.stands_still(92_000, 600));
        channel.flights.clear();
        assert!(!channel.stands_still(99_000, 600));
    }

    #[test]
    fn claims_become_smaller_for_large_messages_and_grow_again_with_small_ones() {
        let mut channel = claiming();
        channel.fetched(0, 0);
        assert_eq!(channel.most, MOST);
        channel.lost_claim(10);
        assert_eq!(channel.most, 5);
        channel.lost_claim(5);
        channel.fetched(2, 24 << 20);
        assert_eq!(channel.most, 1, "no more than fit");
        channel.lost_claim(1);
        assert_eq!(channel.most, 1);
        (0..8).for_each(|_| channel.fetched(1, 100));
        assert_eq!(channel.most, MOST);
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
