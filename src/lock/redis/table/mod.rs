//! What this process holds and waits for on one server, and what is to be done about it when. No
//! connection and no clock: every call is told the time, and adds to the commands that are to be sent.
//!
//! Times are milliseconds of this process's clock. A lease is trusted until it would have ended had the
//! server begun it when its command was *sent*, less an allowance for clocks that drift and
//! for telling its holder; a grant that
//! was only announced, from when the newest command that was answered before it was sent.

mod answers;
mod due;
mod entry;

use super::{
    News, Owner, Request,
    scripts::{Done, Op, What},
};
use crate::timer_wheel::TimerWheel;
use entry::{Entry, State, renewal};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// How long a grant to one who waited lasts unless it is used: `CLAIM` of `lua/common.lua`.
const CLAIM: u64 = 1000;
/// How often those look who are not told of their grants: servers without RESP3 push nothing.
const LOOK: u64 = 50;
/// The longest that the first in a line of this process goes without a look: the lease that it waits for
/// may have come to another, whose end it was not told; or to itself, and the notice got lost. Well within
/// the window of such a grant.
const LONGEST_LOOK: u64 = 600;
/// How soon a lease that is longer than its window is claimed. Most locks are given back before.
const CLAIM_AFTER: u64 = 50;
/// The pause before what ends a lease or a wait is sent again.
const RESEND: u64 = 250;
/// Of those, how many at a time.
const RESENT: usize = 1000;
/// The pause before a command is tried again that could not be sent.
const RETRY: u64 = 50;
/// Leases below this may be over before their holder hears of them, and are handed out all the same.
const SHORT: u64 = 100;
/// Tables up to this many leases are kept when they empty.
const SMALL: usize = 128;
/// No deadline.
pub const NEVER: u64 = u64::MAX;

/// By how much earlier than the server a lease counts as over: what two clocks may come to differ by, a
/// thousandth and the rounding to milliseconds; and a twentieth, 100 ms at the most, so that its holder has
/// been told when the server lets the next in. Measured on a busy machine: telling takes up to 2 ms.
fn early(lease: u64) -> u64 {
    lease / 1000 + 1 + (lease / 20).min(100)
}

type Retired = Box<dyn FnOnce() + Send>;

/// The leases and waits of a process.
pub struct Table {
    entries: Vec<Option<Entry>>,
    vacant: Vec<u32>,
    by_number: HashMap<u64, u32>,
    /// By key, who waits in this process, in order; those who do no longer are left out when they come first.
    lines: HashMap<Arc<str>, VecDeque<u64>>,
    wheel: TimerWheel,
    owners: HashMap<u32, Arc<dyn Owner>>,
    /// Owners that ask for nothing more, and who is told when they hold nothing more.
    retiring: HashMap<u32, Retired>,
    retired: Vec<Retired>,
    /// When the newest command was sent that has been answered.
    confirmed: u64,
    hears: bool,
    connected: bool,
    server: String,
    /// How long the server may be away before waits are given up.
    patience: u64,
    /// What ends leases and waits, and was not answered; and when it is sent again.
    unsent: VecDeque<Op>,
    resend_at: u64,
    last_order: u64,
    /// The earliest deadline set since it was asked last.
    soonest: u64,
}

impl Table {
    /// `server` is its name in messages.
    pub fn new(server: String, patience: u64) -> Self {
        Self {
            entries: Vec::new(),
            vacant: Vec::new(),
            by_number: HashMap::new(),
            lines: HashMap::new(),
            wheel: TimerWheel::new(0),
            owners: HashMap::new(),
            retiring: HashMap::new(),
            retired: Vec::new(),
            confirmed: 0,
            hears: false,
            connected: false,
            server,
            patience,
            unsent: VecDeque::new(),
            resend_at: NEVER,
            last_order: 0,
            soonest: NEVER,
        }
    }

    pub fn join(&mut self, number: u32, owner: Arc<dyn Owner>) {
        self.owners.insert(number, owner);
    }

    /// Leases and waits.
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// The owner asks for nothing more. `retired` is among [`take_retired`](Self::take_retired) when
    /// it holds nothing more.
    pub fn retire(&mut self, owner: u32, retired: Retired) {
        self.retiring.insert(owner, retired);
        self.look_whether_idle(owner);
    }

    pub fn take_retired(&mut self) -> Vec<Retired> {
        std::mem::take(&mut self.retired)
    }

    fn look_whether_idle(&mut self, owner: u32) {
        let is_busy = || self.entries.iter().flatten().any(|entry| entry.owner == owner);
        if self.retiring.contains_key(&owner) && !is_busy() {
            self.retired.extend(self.retiring.remove(&owner));
        }
    }

    pub fn take_soonest(&mut self) -> u64 {
        std::mem::replace(&mut self.soonest, NEVER)
    }

    pub fn next_tick(&self) -> Option<u64> {
        let tick = self.wheel.next_tick().unwrap_or(NEVER).min(self.resend_at);
        (tick != NEVER).then_some(tick)
    }

    /// Asks for a key.
    pub fn request(&mut self, request: &Request, now: u64, since: u64) -> Op {
        let Request { owner, number, wait, lease, hold, watched, .. } = *request;
        let wait_end = now.saturating_add(wait);
        self.last_order += 1;
        let mut entry = Entry {
            number,
            owner,
            key: Arc::clone(&request.key),
            lease,
            hold,
            watched,
            wait_end,
            waits: wait > 0,
            hears: self.hears,
            since,
            order: self.last_order,
            turn: 0,
            place: 0,
            state: State::Asking { asked: true, give_up: now + self.patience },
        };
        let op = entry.acquire();
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        self.by_number.insert(number, id);
        self.entries[id as usize] = Some(entry);
        if wait > 0 {
            self.schedule(id, wait_end);
        }
        op
    }

    /// Ends a lease. One that is not known any more is ended on the server all the same, by its key.
    pub fn release(
        &mut self,
        number: u64,
        key: Option<Arc<str>>,
        now: u64,
        since: u64,
        done: Done,
    ) -> Option<Op> {
        let entry = self.remove(number, now);
        let (lease, trusted) = match &entry {
            Some(Entry { lease, state: State::Held { until, .. }, .. }) => (*lease, *until),
            _ => (0, 0),
        };
        let Some(key) = entry.map(|entry| entry.key).or(key) else {
            done.tell(Ok(false));
            return None;
        };
        let until = now.saturating_add(lease);
        Some(Op::new(number, key, What::Release { since, trusted, until, done }))
    }

    /// Ends a lease or a wait, without a word.
    pub fn give_up(&mut self, number: u64, now: u64, since: u64) -> Option<Op> {
        match self.entry(number)?.state {
            State::Held { .. } => self.release(number, None, now, since, Done::default()),
            _ => self.abandon(number, now),
        }
    }

    /// Ends everything.
    pub fn drain(&mut self, now: u64, since: u64) -> Vec<Op> {
        let numbers: Vec<u64> = self.by_number.keys().copied().collect();
        numbers.into_iter().filter_map(|number| self.give_up(number, now, since)).collect()
    }

    /// The lease is to end `lease` from now, renewed until `hold` is over. Nothing, and `done` is told,
    /// when it has ended already.
    pub fn extend(
        &mut self,
        number: u64,
        lease: u64,
        hold: u64,
        watched: bool,
        now: u64,
        done: Done,
    ) -> Option<Op> {
        let entry = self.entry(number);
        let Some(Entry { state: State::Held { token, until, end, .. }, .. }) = entry else {
            done.tell(Ok(false));
            return None;
        };
        if *until <= now {
            done.tell(Ok(false));
            return None;
        }
        // Not renewed by the old rules any more; and it may become shorter, answered or not.
        *end = now.saturating_add(hold);
        *until = (*until).min(now.saturating_add(lease));
        let (token, due) = (*token, (*until).min(*end));
        let entry = self.entry(number)?;
        entry.lease = lease;
        entry.hold = hold;
        entry.watched = watched;
        entry.turn += 1;
        let op = entry.renew(lease, token, done);
        self.schedule_number(number, due);
        Some(op)
    }

    /// Whether the lease is there.
    pub fn is_held(&self, number: u64, now: u64) -> bool {
        let entry = self.by_number.get(&number).and_then(|id| self.entries[*id as usize].as_ref());
        matches!(entry, Some(Entry { state: State::Held { until, .. }, .. }) if *until > now)
    }

    /// Ends all that the owner waits for, without telling it; with `held`, also what it holds.
    pub fn leave(&mut self, owner: u32, held: bool, now: u64, since: u64) -> Vec<Op> {
        let numbers: Vec<(u64, bool)> = self
            .entries
            .iter()
            .flatten()
            .filter(|entry| entry.owner == owner)
            .map(|entry| (entry.number, matches!(entry.state, State::Held { .. })))
            .collect();
        if held {
            self.owners.remove(&owner);
        }
        // Those who wait first, or they would be let in by what is released here.
        let (held_ones, waiting): (Vec<_>, Vec<_>) =
            numbers.into_iter().partition(|(_, held)| *held);
        let held_ones = held_ones.into_iter().filter(|_| held);
        waiting
            .into_iter()
            .chain(held_ones)
            .filter_map(|(number, _)| self.give_up(number, now, since))
            .collect()
    }

    /// The connection stands, and what was granted last may be gone: all is asked for anew.
    pub fn opened(&mut self, hears: bool, now: u64) -> Vec<Op> {
        self.hears = hears;
        self.connected = true;
        let mut ops = self.reclaim(now);
        self.unsent.retain(|op| op.until() > now);
        ops.extend(self.unsent.drain(..));
        self.resend_at = NEVER;
        let mut asking: Vec<&mut Entry> = self
            .entries
            .iter_mut()
            .flatten()
            .filter(|entry| matches!(entry.state, State::Asking { asked: false, .. }))
            .collect();
        // So that those of one line stand in it as before.
        asking.sort_unstable_by_key(|entry| entry.order);
        for entry in asking {
            if let State::Asking { asked, .. } = &mut entry.state {
                *asked = true;
            }
            ops.push(entry.look());
        }
        ops
    }

    /// What ends a lease or a wait was not answered: it is sent again, as long as that makes sense.
    fn resend(&mut self, op: Op, now: u64) {
        self.unsent.push_back(op);
        if self.resend_at == NEVER {
            self.resend_at = now + RESEND;
            self.soonest = self.soonest.min(self.resend_at);
        }
    }

    /// The server may have lost what it granted: it is told of it.
    pub fn reclaim(&mut self, now: u64) -> Vec<Op> {
        let mut ops = Vec::new();
        for entry in self.entries.iter_mut().flatten() {
            let State::Held { token, until, end, renewing, .. } = &mut entry.state else {
                continue;
            };
            if *until <= now {
                continue;
            }
            *renewing = true;
            let left = renewal(entry.lease, entry.hold, *until - now, end.saturating_sub(now));
            let token = *token;
            ops.push(entry.renew(left, token, Done::default()));
        }
        ops
    }

    /// The connection is lost: whoever waits may have lost its place. `connected`: there is another one.
    pub fn lost(&mut self, connected: bool, now: u64) {
        self.connected = connected;
        self.lines.clear();
        for id in 0..self.entries.len() {
            let Some(entry) = &mut self.entries[id] else { continue };
            if !matches!(entry.state, State::Waiting { .. }) {
                continue;
            }
            let give_up = now + self.patience;
            entry.state = State::Asking { asked: false, give_up };
            let due = if connected { now + RETRY } else { give_up }.min(entry.wait_end);
            self.schedule(u32::try_from(id).unwrap_or(u32::MAX), due);
        }
    }

    /// This node is told of a grant. `trusts`: the notice is on the connection by which the server answers,
    /// and so no older than what it has answered.
    pub fn granted(
        &mut self,
        number: u64,
        token: u64,
        key: &str,
        trusts: bool,
        now: u64,
        since: u64,
    ) -> Option<Op> {
        let confirmed = self.confirmed;
        let Some(entry) = self.entry(number) else {
            // Nobody waits for it any more: it is given on.
            let (until, done) = (now + CLAIM, Done::default());
            let what = What::Release { since, trusted: 0, until, done };
            return Some(Op::new(number, key.into(), what));
        };
        if *entry.key != *key || matches!(entry.state, State::Held { .. }) {
            return None;
        }
        let lease = entry.lease.min(CLAIM);
        let until = (confirmed + lease).saturating_sub(early(lease));
        if trusts && until > now + lease / 4 {
            self.hold(number, token, until, lease, now);
            return None;
        }
        if matches!(entry.state, State::Asking { asked: true, .. }) {
            // The answer tells.
            return None;
        }
        // It was sent who knows when: the grant may be over. Asking costs a round trip.
        entry.state = State::Asking { asked: true, give_up: NEVER };
        Some(entry.look())
    }

    fn hold(&mut self, number: u64, token: u64, until: u64, granted: u64, now: u64) {
        let Some(entry) = self.entry(number) else { return };
        let end = if granted >= entry.hold { until } else { now.saturating_add(entry.hold) };
        let rest = until.saturating_sub(now);
        // A window that was granted to one who waited is not its lease: it is claimed soon.
        let after = if granted < entry.lease { CLAIM_AFTER.min(rest / 3) } else { rest / 3 };
        let renew_at = if end > until { now + after } else { NEVER };
        entry.state = State::Held { token, until, end, renew_at, renewing: false };
        let (owner, key) = (entry.owner, Arc::clone(&entry.key));
        self.schedule_number(number, until.min(end).min(renew_at));
        self.leave_line(&key, number, now);
        self.tell(owner, number, News::Granted { token });
    }

    fn wait(&mut self, number: u64, look_at: u64, now: u64) {
        let Some(entry) = self.entry(number) else { return };
        let look_at = look_at.min(now + if entry.hears { LONGEST_LOOK } else { LOOK });
        let again = matches!(entry.state, State::Waiting { .. });
        entry.state = State::Waiting { look_at };
        let (key, wait_end) = (Arc::clone(&entry.key), entry.wait_end);
        let line = self.lines.entry(key).or_default();
        if !again {
            if line.len() >= SMALL && line.len().is_power_of_two() {
                line.retain(|number| self.by_number.contains_key(number));
            }
            line.push_back(number);
        }
        let is_first = line.front() == Some(&number);
        let due = if is_first { look_at.min(wait_end) } else { wait_end };
        self.schedule_number(number, due);
    }

    /// Takes a number out of its key's line when it is the first; whoever is first then looks after the line.
    fn leave_line(&mut self, key: &Arc<str>, number: u64, now: u64) {
        let Some(line) = self.lines.get_mut(key) else { return };
        if line.front() != Some(&number) {
            // Left out when it comes first.
            return;
        }
        line.pop_front();
        while let Some(first) = line.front() {
            let id = self.by_number.get(first).copied();
            let entry = id.and_then(|id| self.entries[id as usize].as_mut());
            if let (
                Some(id),
                Some(Entry { state: State::Waiting { look_at }, wait_end, hears, .. }),
            ) = (id, entry)
            {
                *look_at = now + if *hears { LONGEST_LOOK } else { LOOK };
                let due = (*look_at).min(*wait_end);
                return self.schedule(id, due);
            }
            line.pop_front();
        }
        self.lines.remove(key);
    }

    /// Gives a place in the line up.
    fn abandon(&mut self, number: u64, now: u64) -> Option<Op> {
        let entry = self.remove(number, now)?;
        let Entry { key, lease, hears, since, .. } = entry;
        let until = now.saturating_add(lease.max(self.patience));
        Some(Op::new(number, key, What::Abandon { lease, hears, since, until }))
    }

    fn abandon_as(&mut self, number: u64, news: News, now: u64) -> Option<Op> {
        let owner = self.entry(number)?.owner;
        let op = self.abandon(number, now);
        self.tell(owner, number, news);
        op
    }

    /// Ends a lease or a wait that is over already on the server.
    fn end(&mut self, number: u64, news: News, now: u64) {
        let Some(entry) = self.remove(number, now) else { return };
        if entry.watched || !matches!(entry.state, State::Held { .. }) {
            self.tell(entry.owner, number, news);
        }
    }

    fn remove(&mut self, number: u64, now: u64) -> Option<Entry> {
        let id = self.by_number.remove(&number)?;
        self.wheel.cancel(id);
        self.vacant.push(id);
        let entry = self.entries[id as usize].take()?;
        self.leave_line(&entry.key, number, now);
        if self.by_number.is_empty() && self.entries.len() > SMALL {
            // What many leases took at one time is not kept for ever.
            self.entries = Vec::new();
            self.vacant = Vec::new();
            self.lines = HashMap::new();
            self.by_number.shrink_to(64);
            self.wheel = TimerWheel::new(self.wheel.now());
        }
        self.look_whether_idle(entry.owner);
        Some(entry)
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let id = *self.by_number.get(&number)?;
        self.entries[id as usize].as_mut()
    }

    fn tell(&self, owner: u32, number: u64, news: News) {
        if let Some(owner) = self.owners.get(&owner) {
            owner.tell(number, news);
        }
    }

    fn schedule_number(&mut self, number: u64, due: u64) {
        if let Some(id) = self.by_number.get(&number).copied() {
            self.schedule(id, due);
        }
    }

    fn schedule(&mut self, id: u32, due: u64) {
        if due == NEVER {
            self.wheel.cancel(id);
        } else {
            self.wheel.schedule(id, due);
            self.soonest = self.soonest.min(due);
        }
    }
}

#[cfg(test)]
mod tests;
