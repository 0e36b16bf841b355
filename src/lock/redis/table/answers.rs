//! What the server's answers change.

use super::{CLAIM, NEVER, RETRY, SHORT, Table, early, entry::State};
use crate::{
    error::{Error, Result},
    lock::redis::{
        News,
        scripts::{Answer, Done, Op, What},
    },
};
use std::sync::Arc;

impl Table {
    /// The server has answered; `sent` is when it was asked.
    pub fn answered(&mut self, op: &Op, answer: Result<Answer>, sent: u64, now: u64) -> Option<Op> {
        if answer.is_ok() {
            self.confirmed = self.confirmed.max(sent);
        }
        match &op.what {
            What::Acquire { .. } | What::Look { .. } => self.stands(op, answer, sent, now),
            What::Renew { left, turn, done, .. } => {
                let next = self.renewed(op, &answer, (*left, *turn), sent, now);
                done.tell(answer.map(|answer| answer == Answer::Flag(true)));
                next
            }
            What::Release { done, .. } => {
                if answer.as_ref().is_err_and(is_worth_a_retry) && op.until() > now {
                    self.resend(op.again(), now);
                }
                done.tell(answer.map(|answer| answer == Answer::Flag(true)));
                None
            }
            What::Abandon { .. } => {
                if answer.as_ref().is_err_and(is_worth_a_retry) && op.until() > now {
                    self.resend(op.again(), now);
                }
                None
            }
        }
    }

    fn stands(&mut self, op: &Op, answer: Result<Answer>, sent: u64, now: u64) -> Option<Op> {
        let number = op.number;
        let hears = self.hears;
        let Some(entry) = self.entry(number) else { return self.unwanted(op, &answer, now) };
        if matches!(entry.state, State::Held { .. }) {
            // A notice was faster.
            return None;
        }
        if matches!(op.what, What::Look { place, .. } if place != entry.place) {
            // Another look was answered first, and a new place asked for: that answer counts.
            return None;
        }
        let lease = entry.lease;
        match answer {
            Ok(Answer::Held { token, left }) => {
                let granted = left.unwrap_or(lease);
                let until = (sent + granted).saturating_sub(early(granted));
                let is_fresh = matches!(op.what, What::Renew { .. });
                if !is_fresh && until <= now + lease.min(CLAIM) / 4 && lease >= SHORT {
                    // Too little to count on: it is renewed first, once, if it is still there.
                    entry.state = State::Asking { asked: true, give_up: NEVER };
                    return Some(entry.renew(lease, token, Done::default()));
                }
                self.hold(number, token, until, granted, now);
                None
            }
            Ok(Answer::Waiting { .. }) if entry.waits && entry.wait_end <= now => {
                self.abandon_as(number, News::TimedOut, now)
            }
            Ok(Answer::Flag(_)) if entry.waits && entry.wait_end <= now => {
                self.end(number, News::TimedOut, now);
                None
            }
            Ok(Answer::Waiting { left }) => {
                self.wait(number, now.saturating_add(left).saturating_add(1), now);
                None
            }
            Ok(Answer::Flag(_)) if !entry.waits => {
                self.end(number, News::Refused, now);
                None
            }
            Ok(Answer::Flag(_)) => {
                // Its place is gone: granted and lapsed while nobody heard, or lost with the server's data.
                entry.hears = hears;
                entry.state = State::Asking { asked: true, give_up: NEVER };
                Some(entry.acquire())
            }
            Err(error) => self.unanswered(number, error, now),
        }
    }

    /// The server has done what nobody wants any more: it was overtaken by what was to undo it.
    fn unwanted(&self, op: &Op, answer: &Result<Answer>, now: u64) -> Option<Op> {
        let What::Acquire { lease, hears, since, .. } = op.what else { return None };
        if !matches!(answer, Ok(Answer::Held { .. } | Answer::Waiting { .. })) {
            return None;
        }
        let until = now.saturating_add(lease.max(self.patience));
        let what = What::Abandon { lease, hears, since, until };
        Some(Op::new(op.number, Arc::clone(&op.key), what))
    }

    /// Nothing is known of what was asked. Those who wait ask again, for a while.
    fn unanswered(&mut self, number: u64, error: Error, now: u64) -> Option<Op> {
        let patience = self.patience;
        let entry = self.entry(number)?;
        let give_up = match entry.state {
            State::Asking { give_up, .. } if give_up != NEVER => give_up,
            _ => now + patience,
        };
        if is_worth_a_retry(&error) && entry.waits && now < give_up {
            entry.state = State::Asking { asked: false, give_up };
            let due = (now + RETRY).min(entry.wait_end);
            self.schedule_number(number, due);
            return None;
        }
        let op = self.abandon_as(number, News::Failed(error), now)?;
        if self.connected {
            // What was asked may yet be done; this comes after it.
            return Some(op);
        }
        self.resend(op, now);
        None
    }

    /// `asked`: for how long, and in which turn of the lease.
    fn renewed(
        &mut self,
        op: &Op,
        answer: &Result<Answer>,
        asked: (u64, u32),
        sent: u64,
        now: u64,
    ) -> Option<Op> {
        let (left, turn) = asked;
        let number = op.number;
        let entry = self.entry(number)?;
        let (lease, hold) = (entry.lease, entry.hold);
        if entry.turn != turn {
            // It has another length since: the answer to that counts.
            if let State::Held { renewing, .. } = &mut entry.state {
                *renewing = false;
            }
            return None;
        }
        let State::Held { until, end, renew_at, renewing, .. } = &mut entry.state else {
            return self.claimed(op, answer, left, sent, now);
        };
        *renewing = false;
        match answer {
            Ok(Answer::Flag(true)) => {
                // Set anew also when that is sooner: it may have been shortened.
                *until = (sent + left).saturating_sub(early(left));
                *renew_at = now + until.saturating_sub(now) / 3;
                if hold <= lease && left >= end.saturating_sub(sent) {
                    *end = *until;
                }
                if *end <= *until {
                    *renew_at = NEVER;
                }
            }
            Ok(_) => {
                self.end(number, News::Lost, now);
                return None;
            }
            Err(_) => *renew_at = now + (lease / 10).clamp(10, 1000),
        }
        let due = (*until).min(*end).min(*renew_at);
        self.schedule_number(number, due);
        None
    }

    /// A grant that was renewed before anybody was told of it.
    fn claimed(
        &mut self,
        op: &Op,
        answer: &Result<Answer>,
        left: u64,
        sent: u64,
        now: u64,
    ) -> Option<Op> {
        let What::Renew { token, .. } = op.what else { return None };
        let answer = match answer {
            Ok(Answer::Flag(true)) => Ok(Answer::Held { token, left: Some(left) }),
            other => other.clone(),
        };
        self.stands(op, answer, sent, now)
    }
}

/// Whether it may be done, or can be, at another time: the server did not hear of it, or could not just then.
fn is_worth_a_retry(error: &Error) -> bool {
    const PASSING: [&str; 8] = [
        "BUSY",
        "LOADING",
        "READONLY",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "NOREPLICAS",
        "MISCONF",
    ];
    match error {
        Error::Unavailable { .. } | Error::CommandTimeout { .. } => true,
        Error::Redis(text) => PASSING.iter().any(|code| text.starts_with(code)),
        _ => false,
    }
}
