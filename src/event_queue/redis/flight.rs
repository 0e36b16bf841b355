//! What goes to the server and comes back: reports of what has ended, and one claim, in one round trip. What ends
//! while a flight is under way goes with the next.
//!
//! With a backlog a channel has two flights under way, each for half of its slots, the second from when the first
//! has landed: so the handlers of one half run while the server works for the other.

use super::{
    PAUSE, RedisQueue, State,
    channel::{Channel, Flight, NEVER, Place, Work},
    entry::{Entry, Looked, Tries, array, integer, text},
    keys::{GROUP, Keys},
    report::{Report, Reports},
    scripts,
};
use crate::{
    error::{Error, Result},
    event_queue::adapter::Level,
    redis::{Command, is_unknown},
};
use redis::Value;
use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// Reports that go in one flight at most.
const MOST_REPORTS: usize = 1024;
/// What is due is looked at so often while there is a backlog, in milliseconds.
const LOOK: u64 = 50;
/// How often a node looks that the server does not tell, in milliseconds.
const POLL: u64 = 100;
/// Runs of this node that the server is asked for when a claim may have been lost.
const MOST_PENDING: &str = "10000";

/// What a flight asks for beside its reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Nothing,
    /// The group is made first.
    Join,
    /// What the server has given to this node.
    Recover,
    /// What is due and what is new, or a place in the line.
    Look(u32),
    /// What is new.
    Claim(u32),
}

impl RedisQueue {
    /// Sends what there is to send, unless what is under way stands against it.
    pub(super) fn pump(&self, state: &mut State, number: u32, now: u64) {
        if state.opened_at.is_none() {
            return;
        }
        let Some(channel) = state.channels.get_mut(number as usize) else { return };
        if !channel.may_launch() {
            return;
        }
        let ask = Self::choose(channel, now);
        let count = channel.reports.len().min(MOST_REPORTS);
        if count == 0 && ask == Ask::Nothing {
            return;
        }
        let allowed = u32::from(matches!(ask, Ask::Look(_)) && state.suspects == 0);
        state.suspects += allowed;
        let reports = Arc::new(Reports::new(channel.reports.drain(..count).collect()));
        state.flights += 1;
        let flight = state.flights;
        let claims = match ask {
            Ask::Look(count) | Ask::Claim(count) => count,
            _ => 0,
        };
        let plain = matches!(ask, Ask::Nothing | Ask::Claim(_));
        if claims > 0 && !channel.holds() {
            // The lease begins with this claim.
            channel.heard_at = now;
        }
        channel.flights.push(Flight {
            number: flight,
            since: now,
            claims,
            suspects: allowed,
            reports: Arc::clone(&reports),
            plain,
        });
        // What the owner has said holds for all slots that are free now.
        channel.wants &= match ask {
            Ask::Nothing => true,
            Ask::Claim(_) => channel.free() > 0,
            Ask::Join | Ask::Recover | Ask::Look(_) => false,
        };
        if let Ask::Look(_) = ask {
            channel.looks = false;
            channel.looked_at = now;
            channel.due_at = NEVER;
            channel.told_at = None;
            channel.told_in_flight = false;
        }
        if claims > 0 {
            channel.renewed_at = now;
        }
        let mut commands = Vec::with_capacity(reports.commands_len() + 1);
        reports.commands(&channel.keys, &channel.consumer, channel.in_full, &mut commands);
        let place = (&*channel.place_name, channel.place.word());
        commands.extend(command(
            ask,
            &channel.keys,
            &channel.consumer,
            place,
            allowed,
            channel.in_full,
        ));
        let this = self.this.clone();
        self.redis().submit(
            move || commands,
            Box::new(move |replies| {
                if let Some(queue) = this.upgrade() {
                    queue.landed(number, flight, reports, ask, replies);
                }
            }),
        );
    }

    /// What to ask for.
    fn choose(channel: &mut Channel, now: u64) -> Ask {
        let alone = channel.flights.is_empty();
        if alone && !channel.joined && !channel.stopped {
            return Ask::Join;
        }
        if alone && channel.recovers {
            return Ask::Recover;
        }
        let free = channel.free();
        channel.wants &= !channel.stopped && !channel.is_full();
        if !channel.wants || free == 0 {
            return Ask::Nothing;
        }
        let count = free.min(channel.most);
        if !alone && (channel.looks || !channel.backlog || channel.recovers || !channel.joined) {
            return Ask::Nothing;
        }
        if channel.looks || !channel.backlog || now >= channel.looked_at + LOOK {
            if channel.place == Place::Taken && !channel.looks {
                channel.wants = false;
                channel.owner.rests();
                return Ask::Nothing;
            }
            return if alone { Ask::Look(count) } else { Ask::Nothing };
        }
        Ask::Claim(count.min(channel.concurrency.div_ceil(2)))
    }

    fn landed(
        &self,
        number: u32,
        flight: u64,
        reports: Arc<Reports>,
        ask: Ask,
        replies: Result<Vec<Result<Value>>>,
    ) {
        let mut state = self.lock();
        let now = self.alarm.now();
        let Some(channel) = state.channels.get_mut(number as usize) else { return };
        let Some(at) = channel.flights.iter().position(|it| it.number == flight) else {
            // Given up meanwhile.
            return;
        };
        let Flight { since, suspects, .. } = channel.flights.remove(at);
        let reports = Arc::unwrap_or_clone(reports);
        // What was sent in full is known to the server now.
        channel.in_full &= replies.is_err();
        state.suspects -= suspects;
        match replies {
            Err(error) => Self::fail_flight(&mut state, number, reports, ask, &error, now),
            Ok(replies) => {
                let mut replies = replies.into_iter();
                self.settle(&mut state, number, reports, &mut replies, now);
                if ask != Ask::Nothing {
                    let reply = replies.next().unwrap_or(Ok(Value::Nil));
                    self.answered(&mut state, number, (ask, since), reply, now);
                }
            }
        }
        let channel = &mut state.channels[number as usize];
        if !channel.asks() {
            channel.cancelled.clear();
        }
        self.pump(&mut state, number, now);
        self.set_alarm(&state, number);
        let channel = &mut state.channels[number as usize];
        channel.end_if_over();
        if channel.is_settled() {
            self.settled.notify_waiters();
        }
    }

    /// Nothing is known of the flight: it is flown again.
    fn fail_flight(
        state: &mut State,
        number: u32,
        reports: Reports,
        ask: Ask,
        error: &Error,
        now: u64,
    ) {
        let channel = &mut state.channels[number as usize];
        for report in reports.all.into_iter().rev() {
            channel.reports.push_front(report);
        }
        channel.looks = true;
        channel.place = Place::Unknown;
        channel.recovers |= matches!(ask, Ask::Look(_) | Ask::Claim(_) | Ask::Recover);
        if let Ask::Look(count) | Ask::Claim(count) = ask {
            channel.lost_claim(count);
        }
        Self::pause(state, number, now);
        if !matches!(error, Error::Unavailable { .. }) {
            let channel = &mut state.channels[number as usize];
            channel.tell_trouble(Work::Flights, &error.to_string());
        }
    }

    /// Takes the outcomes of reports; what was refused is told again.
    fn settle(
        &self,
        state: &mut State,
        number: u32,
        reports: Reports,
        replies: &mut impl Iterator<Item = Result<Value>>,
        now: u64,
    ) {
        let done = reports.commands_len() - reports.others().len();
        let mut refused = None;
        for _ in 0..done {
            let reply = replies.next().unwrap_or(Ok(Value::Nil));
            refused = refused.or(self.refusal(reply).err());
        }
        let failed: Vec<Report> = reports.others().to_vec();
        let mut again = Vec::new();
        if let Some(error) = refused {
            let count = reports.all.len() - failed.len();
            again.extend(reports.all.into_iter().take(count));
            Self::refused(state, number, &error, now);
        }
        for report in failed {
            let reply = replies.next().unwrap_or(Ok(Value::Nil));
            match self.refusal(reply) {
                Err(error) => {
                    Self::refused(state, number, &error, now);
                    again.push(report);
                }
                Ok(answer) => Self::settle_failure(state, number, &report, answer, now),
            }
        }
        let channel = &mut state.channels[number as usize];
        for report in again.into_iter().rev() {
            channel.reports.push_front(report);
        }
    }

    fn settle_failure(state: &mut State, number: u32, report: &Report, answer: Value, now: u64) {
        let channel = &mut state.channels[number as usize];
        let (entry, name) = (report.entry(), &channel.name);
        let answer = text(answer);
        match (answer.as_deref(), report) {
            (Some("ok"), Report::Again { pause, .. }) => {
                channel.due_at = channel.due_at.min(now.saturating_add(*pause).saturating_add(1));
            }
            (Some("lost"), _) => channel.owner.log(Level::Warn, format!(
                "message {entry} of event queue channel {name} was not processed here, but its lease had lapsed, and it is others' now"
            )),
            (Some("gone"), _) => channel.owner.log(Level::Info, format!(
                "message {entry} of event queue channel {name} has failed, but it was cancelled or lost on the server"
            )),
            _ => {}
        }
    }

    /// The reply, unless the server refuses. A group that is not there makes acknowledgements pointless, no more.
    fn refusal(&self, reply: Result<Value>) -> Result<Value, Error> {
        let reply = reply?;
        if is_unknown(&reply) {
            return Err(Error::Redis("NOSCRIPT".into()));
        }
        match self.redis().check(reply) {
            Err(Error::Redis(text)) if text.contains("NOGROUP") => {
                Ok(Value::BulkString(b"lost".to_vec()))
            }
            other => other,
        }
    }

    fn refused(state: &mut State, number: u32, error: &Error, now: u64) {
        let text = error.to_string();
        if text == "NOSCRIPT" {
            state.channels[number as usize].in_full = true;
            return;
        }
        state.channels[number as usize].tell_trouble(Work::Flights, &text);
        Self::pause(state, number, now);
    }

    /// Waits a little before the next flight.
    fn pause(state: &mut State, number: u32, now: u64) {
        let channel = &mut state.channels[number as usize];
        channel.again_at = now + PAUSE;
        channel.owner.rests();
    }

    fn answered(
        &self,
        state: &mut State,
        number: u32,
        (ask, since): (Ask, u64),
        reply: Result<Value>,
        now: u64,
    ) {
        let reply = match reply {
            Ok(reply) if is_unknown(&reply) => {
                let channel = &mut state.channels[number as usize];
                channel.in_full = true;
                (channel.looks, channel.wants) = (true, true);
                return;
            }
            Ok(reply) => self.redis().check(reply),
            Err(error) => Err(error),
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(Error::Redis(text)) if ask == Ask::Join && text.contains("BUSYGROUP") => {
                Value::Okay
            }
            Err(Error::Redis(text)) if text.contains("NOGROUP") || text.contains("no such key") => {
                Self::lost_group(state, number);
                return;
            }
            Err(error) => {
                let channel = &mut state.channels[number as usize];
                channel.looks = true;
                // A script that was refused halfway may have fetched something.
                channel.recovers |= matches!(ask, Ask::Look(_) | Ask::Claim(_) | Ask::Recover);
                return Self::refused(state, number, &error, now);
            }
        };
        let channel = &mut state.channels[number as usize];
        if matches!(ask, Ask::Look(_) | Ask::Claim(_)) {
            channel.heard(since, self.settings.lease);
            // Nothing was refused that is still to be told.
            if channel.is_settled() {
                channel.works(Work::Flights);
            }
        }
        match ask {
            Ask::Nothing => {}
            Ask::Join => {
                let channel = &mut state.channels[number as usize];
                channel.joined = true;
                channel.looks = true;
                if !channel.wants && channel.free() > 0 {
                    channel.owner.ready();
                }
            }
            Ask::Recover => Self::recover(state, number, reply),
            Ask::Claim(count) => {
                let entries = Entry::read_all(reply);
                let entries = self.still_ours(channel, entries, since, now);
                self.claimed(state, number, entries, (count, since), now);
            }
            Ask::Look(_) => match Looked::read(reply) {
                Some(mut looked) => {
                    looked.entries = self.still_ours(channel, looked.entries, since, now);
                    self.looked(state, number, looked, since, now);
                }
                None => {
                    channel.tell_trouble(Work::Flights, "the answer of look.lua cannot be read");
                }
            },
        }
    }

    /// What has come too late to begin goes back; where it is others' already, the server knows.
    fn still_ours(
        &self,
        channel: &mut Channel,
        entries: Vec<Entry>,
        since: u64,
        now: u64,
    ) -> Vec<Entry> {
        let lease = self.settings.lease;
        if entries.is_empty() || !channel.has_lapsed(since, now, lease) {
            return entries;
        }
        let (count, name) = (entries.len(), &channel.name);
        channel.owner.log(Level::Warn, format!(
            "{count} messages of event queue channel {name} have come after the lease of {lease} ms had lapsed, and do not begin here"
        ));
        let back = entries.into_iter().map(|Entry { id: entry, tries, .. }| Report::Again {
            entry,
            tries,
            pause: 0,
        });
        channel.reports.extend(back);
        Vec::new()
    }

    fn claimed(
        &self,
        state: &mut State,
        number: u32,
        entries: Vec<Entry>,
        (count, since): (u32, u64),
        now: u64,
    ) {
        let is_full = entries.len() >= count as usize;
        self.begin(state, number, entries, since, now);
        let is_stopped = state.stopped;
        let channel = &mut state.channels[number as usize];
        channel.backlog = is_full;
        if channel.free() == 0 || channel.stopped || is_stopped {
            return;
        }
        if is_full {
            // Slots have become free meanwhile, or there are more than one claim gives.
            if !channel.wants {
                channel.owner.ready();
            }
        } else {
            // The owner has just said that it is idle: the place in the line goes with that.
            (channel.wants, channel.looks) = (true, true);
        }
    }

    fn looked(&self, state: &mut State, number: u32, looked: Looked, since: u64, now: u64) {
        let Looked { waits, next, paused, entries } = looked;
        let is_full = !waits;
        let none = entries.is_empty();
        self.begin(state, number, entries, since, now);
        let hears = self.hears.load(Relaxed);
        let channel = &mut state.channels[number as usize];
        channel.backlog = is_full;
        if is_full {
            // When it is still busy then, it tells the next.
            if let Some(next) = next.filter(|next| *next > 0) {
                channel.due_at = channel.due_at.min(now + next + 1);
            }
            if channel.free() > 0 {
                channel.owner.ready();
            }
            return;
        }
        channel.place = if channel.told_in_flight { Place::Unknown } else { Place::Taken };
        if let Some(next) = next.filter(|_| !paused) {
            channel.due_at = channel.due_at.min(now + next + 1);
        }
        if !hears {
            channel.due_at = channel.due_at.min(now + POLL);
        }
        if none {
            channel.owner.rests();
        }
    }

    /// The server has forgotten the channel: it is made anew.
    pub(super) fn lost_group(state: &mut State, number: u32) {
        let channel = &mut state.channels[number as usize];
        if channel.joined {
            let (name, running) = (&channel.name, channel.running);
            channel.owner.log(Level::Warn, format!(
                "the server has lost event queue channel {name}: what waited there is gone; {running} messages that run on this node go on, but cannot be tried again"
            ));
        }
        channel.joined = false;
        // Nor has it given anything to this node.
        channel.recovers = false;
        channel.place = Place::Free;
        channel.looks = true;
    }

    /// What the server has given to this node is compared with what runs: of a claim whose reply was lost nobody
    /// else would hear before this node is gone.
    fn recover(state: &mut State, number: u32, reply: Value) {
        let mut known: HashSet<&str> = state
            .running
            .iter()
            .filter(|(_, run)| run.channel == number)
            .map(|(_, run)| run.inner.entry.as_str())
            .collect();
        let channel = &state.channels[number as usize];
        known.extend(channel.reports.iter().map(Report::entry));
        let mut lost = Vec::new();
        for item in array(reply) {
            let parts = array(item);
            let [id, _, _, count] = parts.as_slice() else { continue };
            let Some(id) = text(id.clone()).filter(|id| !known.contains(id.as_str())) else {
                continue;
            };
            let tries =
                Tries::of(integer(count).and_then(|count| u64::try_from(count).ok()).unwrap_or(1));
            lost.push((id, tries));
        }
        let channel = &mut state.channels[number as usize];
        channel.recovers = false;
        channel.looks = true;
        // They go back into the line, and to whoever fetches next.
        let back = lost.into_iter().map(|(entry, tries)| Report::Again { entry, tries, pause: 0 });
        channel.reports.extend(back);
        if !channel.wants && channel.free() > 0 && !channel.stopped {
            channel.owner.ready();
        }
    }
}

/// The command that asks.
fn command(
    ask: Ask,
    keys: &Keys,
    consumer: &str,
    (place, word): (&str, &str),
    suspects: u32,
    in_full: bool,
) -> Option<Command> {
    let stream = keys.stream.as_str();
    Some(match ask {
        Ask::Nothing => return None,
        Ask::Join => Command::new(["XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM"]),
        Ask::Recover => Command::new(["XPENDING", stream, GROUP, "-", "+", MOST_PENDING, consumer]),
        Ask::Claim(count) => {
            let mut count_text = itoa::Buffer::new();
            let count = count_text.format(count);
            Command::new([
                "XREADGROUP",
                "GROUP",
                GROUP,
                consumer,
                "COUNT",
                count,
                "STREAMS",
                stream,
                ">",
            ])
        }
        Ask::Look(count) => {
            let all = [&keys.stream, &keys.later, &keys.hungry, &keys.delayed, &keys.ids];
            let suspect = Tries { retried: 0, crashes: super::SUSPECT }.count();
            scripts::LOOK.command(
                in_full,
                &all.map(String::as_bytes),
                &[
                    consumer.as_bytes(),
                    place.as_bytes(),
                    word.as_bytes(),
                    count.to_string().as_bytes(),
                    suspects.to_string().as_bytes(),
                    suspect.to_string().as_bytes(),
                ],
            )
        }
    })
}
