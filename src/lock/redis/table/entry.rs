//! One lease or wait, and the commands about it.

use super::super::scripts::{Done, Op, What};
use std::sync::Arc;

/// A lease, or a wait for one.
pub struct Entry {
    pub number: u64,
    pub owner: u32,
    pub key: Arc<str>,
    /// The length of the lease on the server.
    pub lease: u64,
    /// How long it is held at most; it is renewed while that is longer than the lease.
    pub hold: u64,
    /// Whether its owner hears when it has ended.
    pub watched: bool,
    /// Until when it is waited: a time that never comes, or the time of asking for one that does not wait.
    pub wait_end: u64,
    pub waits: bool,
    /// Whether the server was told that this node hears of grants.
    pub hears: bool,
    pub since: u64,
    /// When it was asked for, among all.
    pub order: u64,
    /// How often it has been given another length.
    pub turn: u32,
    /// How often a place in the line was asked for.
    pub place: u32,
    pub state: State,
}

/// How an entry stands.
pub enum State {
    /// It is not known how it stands: the server is asked, or could not be.
    Asking { asked: bool, give_up: u64 },
    /// In the line. The first of each key looks when the lease before it should have ended.
    Waiting { look_at: u64 },
    Held {
        token: u64,
        /// Trusted until.
        until: u64,
        /// Renewed until.
        end: u64,
        renew_at: u64,
        renewing: bool,
    },
}

impl Entry {
    fn op(&self, what: What) -> Op {
        Op::new(self.number, Arc::clone(&self.key), what)
    }

    /// Asks for a place in the line, or the key.
    pub fn acquire(&mut self) -> Op {
        self.place += 1;
        let Self { lease, hears, waits: wait, since, .. } = *self;
        self.op(What::Acquire { lease, hears, wait, since })
    }

    pub fn look(&self) -> Op {
        let Self { lease, hears, since, place, .. } = *self;
        self.op(What::Look { lease, hears, since, place })
    }

    pub fn renew(&self, left: u64, token: u64, done: Done) -> Op {
        let lease = self.lease.max(left);
        self.op(What::Renew { left, token, lease, since: self.since, turn: self.turn, done })
    }
}

/// For how long a lease is renewed that is trusted for `trusted` more and to be held for `rest` more: never
/// for less than it has, and to the end of what it is held for when that is the lease itself. One that is
/// renewed until its hold is over gets whole leases, so that its holder, who is told then, has time to stop.
pub fn renewal(lease: u64, hold: u64, trusted: u64, rest: u64) -> u64 {
    if hold > lease { lease.max(trusted) } else { lease.min(rest).max(trusted) }
}
