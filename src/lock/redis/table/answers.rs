//! What the server's answers change.

use super::{NEVER, RETRY, SHORT, Table, drift, entry::State};
use crate::{
    error::{Error, Result},
    lock::redis::{
        News,
        scripts::{Answer, Op, What},
    },
};

impl Table {
    /// The server has answered; `sent` is when it was asked.
    pub fn answered(&mut self, op: &Op, answer: Result<Answer>, sent: u64, now: u64) -> Option<Op> {
        if answer.is_ok() {
            self.confirmed = self.confirmed.max(sent);
        }
        match &op.what {
            What::Acquire { .. } | What::Look { .. } => self.stands(op.number, answer, sent, now),
            What::Renew { left, done, .. } => {
                self.renewed(op.number, &answer, *left, sent, now);
                done.tell(answer.map(|answer| answer == Answer::Flag(true)));
                None
            }
            What::Release { done, .. } => {
                if answer.as_ref().is_err_and(is_unsent) {
                    self.unsent.push(op.again());
                }
                done.tell(answer.map(|answer| answer == Answer::Flag(true)));
                None
            }
            What::Abandon { .. } => {
                if answer.as_ref().is_err_and(is_unsent) {
                    self.unsent.push(op.again());
                }
                None
            }
        }
    }

    fn stands(&mut self, number: u64, answer: Result<Answer>, sent: u64, now: u64) -> Option<Op> {
        let hears = self.hears;
        let entry = self.entry(number)?;
        if matches!(entry.state, State::Held { .. }) {
            // A notice was faster.
            return None;
        }
        let lease = entry.lease;
        match answer {
            Ok(Answer::Held { token, left }) => {
                let granted = left.unwrap_or(lease);
                let until = (sent + granted).saturating_sub(drift(granted));
                if until <= now && lease >= SHORT {
                    // The answer came too late to count on it.
                    entry.state = State::Asking { asked: true, give_up: NEVER };
                    return Some(entry.look());
                }
                self.hold(number, token, until, granted, now);
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

    /// Nothing is known of what was asked. Those who wait ask again, for a while.
    fn unanswered(&mut self, number: u64, error: Error, now: u64) -> Option<Op> {
        let patience = self.patience;
        let entry = self.entry(number)?;
        let give_up = match entry.state {
            State::Asking { give_up, .. } if give_up != NEVER => give_up,
            _ => now + patience,
        };
        if is_unsent(&error) && entry.waits && now < give_up {
            entry.state = State::Asking { asked: false, give_up };
            let due = (now + RETRY).min(entry.wait_end);
            self.schedule_number(number, due);
            return None;
        }
        let op = self.abandon_as(number, News::Failed(error), now);
        if let Some(op) = op {
            // The server is away: when it is back, it is told.
            self.unsent.push(op);
        }
        None
    }

    fn renewed(&mut self, number: u64, answer: &Result<Answer>, left: u64, sent: u64, now: u64) {
        let Some(entry) = self.entry(number) else { return };
        let (lease, hold) = (entry.lease, entry.hold);
        let State::Held { until, end, renew_at, renewing, .. } = &mut entry.state else { return };
        *renewing = false;
        match answer {
            Ok(Answer::Flag(true)) => {
                // Set anew also when that is sooner: it may have been shortened.
                *until = (sent + left).saturating_sub(drift(left));
                *renew_at = now + until.saturating_sub(now) / 3;
                if hold <= lease && left >= end.saturating_sub(sent) {
                    *end = *until;
                }
                if *end <= *until {
                    *renew_at = NEVER;
                }
            }
            Ok(_) => return self.end(number, News::Lost, now),
            Err(_) => *renew_at = now + (lease / 10).clamp(10, 1000),
        }
        let due = (*until).min(*end).min(*renew_at);
        self.schedule_number(number, due);
    }
}

/// Whether the server may not have heard of it.
fn is_unsent(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. } | Error::CommandTimeout { .. })
}
