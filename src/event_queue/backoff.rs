//! How long to wait between attempts.

use serde::Deserialize;
use std::hash::{BuildHasher, RandomState};

/// The pauses between the attempts of a message. Times are milliseconds.
#[derive(Debug, Clone, Deserialize)]
pub struct Backoff {
    /// How the pauses grow.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The first pause.
    pub delay: f64,
    /// The longest pause.
    pub max: Option<f64>,
    /// The share of a pause by which it is shortened at random, 0 to 1.
    #[serde(default)]
    pub jitter: f64,
}

/// How pauses grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// They do not.
    Fixed,
    /// Each is twice the one before.
    Exponential,
}

impl Backoff {
    /// The pause before the attempt of that number, 1 for the first after the first failure.
    pub fn pause(&self, attempt: u32) -> u64 {
        let grown = match self.kind {
            Kind::Fixed => self.delay,
            Kind::Exponential => self.delay * 2f64.powi(attempt.saturating_sub(1).min(1000).cast_signed()),
        };
        let bounded = grown.min(self.max.unwrap_or(f64::INFINITY));
        super::adapter::whole(bounded * (1.0 - self.jitter * random()))
    }
}

/// A number from 0 up to 1.
fn random() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let bits = (RandomState::new().hash_one(0_u8) >> 11) as f64;
    bits / (1_u64 << 53) as f64
}
