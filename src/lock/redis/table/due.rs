//! What is due at a time: looks, renewals, ends.

use super::{
    LONGEST_LOOK, NEVER, RESEND, RESENT, Table,
    entry::{Entry, State, renewal},
};
use crate::{
    error::Error,
    lock::redis::{
        News,
        scripts::{Done, Op},
    },
};

impl Table {
    /// Does what is due.
    pub fn ring(&mut self, now: u64) -> Vec<Op> {
        let mut due = Vec::new();
        self.wheel.advance(now, usize::MAX, |id| due.push(id));
        let mut ops: Vec<Op> = due.into_iter().filter_map(|id| self.act(id, now)).collect();
        if self.resend_at <= now {
            self.unsent.retain(|op| op.until() > now);
            if self.connected {
                ops.extend(self.unsent.drain(..self.unsent.len().min(RESENT)));
            }
            self.resend_at = if self.unsent.is_empty() { NEVER } else { now + RESEND };
        }
        ops
    }

    fn act(&mut self, id: u32, now: u64) -> Option<Op> {
        let entry = self.entries.get_mut(id as usize)?.as_mut()?;
        let (number, wait_end) = (entry.number, entry.wait_end);
        let held = matches!(entry.state, State::Held { .. });
        if !held && wait_end <= now {
            if self.connected && matches!(entry.state, State::Asking { asked: true, .. }) {
                // The answer is on its way: a key that is free is got however short the wait is.
                return None;
            }
            return self.abandon_as(number, News::TimedOut, now);
        }
        match &mut entry.state {
            State::Held { .. } => self.keep(id, now),
            State::Asking { asked: true, .. } => None,
            State::Asking { give_up, .. } if *give_up <= now => {
                let reason = "it was away for too long".into();
                let error = Error::Unavailable { server: self.server.clone(), reason };
                let op = self.abandon_as(number, News::Failed(error), now)?;
                self.resend(op, now);
                None
            }
            State::Asking { asked, give_up } => {
                let due = if self.connected { wait_end } else { wait_end.min(*give_up) };
                *asked = self.connected;
                let op = self.connected.then(|| entry.look());
                self.schedule(id, due);
                op
            }
            State::Waiting { look_at } => {
                // In case the answer is lost.
                *look_at = now + LONGEST_LOOK;
                let due = (*look_at).min(wait_end);
                let op = entry.look();
                self.schedule(id, due);
                Some(op)
            }
        }
    }

    /// What is due for a lease.
    fn keep(&mut self, id: u32, now: u64) -> Option<Op> {
        let entry = self.entries.get_mut(id as usize)?.as_mut()?;
        let Entry { owner, number, lease, hold, .. } = *entry;
        let State::Held { token, until, end, renew_at, renewing } = &mut entry.state else {
            return None;
        };
        if *until <= now {
            let news = if *end <= *until { News::Lapsed } else { News::Lost };
            self.end(number, news, now);
            return None;
        }
        if *end <= now {
            // Held for as long as it may be: it is not renewed any more, and lapses.
            *end = *until;
            *renew_at = NEVER;
            let (due, watched) = (*until, std::mem::take(&mut entry.watched));
            self.schedule(id, due);
            if watched {
                self.tell(owner, number, News::Overheld);
            }
            return None;
        }
        let is_due = *renew_at <= now && !*renewing;
        let left = renewal(lease, hold, *until - now, *end - now);
        let token = *token;
        *renewing |= is_due;
        let due = (*until).min(*end);
        let op = is_due.then(|| entry.renew(left, token, Done::default()));
        self.schedule(id, due);
        op
    }
}
