//! The keys of an app's log, and names that nobody else has.

use std::hash::{BuildHasher, RandomState};

/// The keys of one app. They share a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The log, a stream.
    pub log: String,
    /// The name of this very log: it is made anew when the log was lost.
    pub epoch: String,
}

impl Keys {
    pub fn of(app: &str) -> Self {
        let log = format!("mortise:{{{app}}}:bus");
        Self { epoch: format!("{log}:epoch"), log }
    }
}

/// A name that is given once.
pub fn unique_name() -> String {
    let half = || RandomState::new().hash_one(0_u8);
    format!("{:016x}{:016x}", half(), half())
}
