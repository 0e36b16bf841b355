//! Pauses between a failure and the next attempt.

use super::RETRY_DELAY;
use serde::Deserialize;
use std::hash::{BuildHasher, RandomState};

/// How the pauses of a message grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Growth {
    /// They are all the same.
    Fixed,
    /// Each is twice the one before.
    Exponential,
}

/// How long to wait between a failure and the next attempt, as a message's options say it. Times
/// are in milliseconds and may be fractions. Defaults to [`RETRY_DELAY`] each time.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// How the pauses grow.
    #[serde(rename = "type")]
    pub growth: Growth,
    /// The first pause.
    pub delay: f64,
    /// The longest pause. Defaults to none.
    #[serde(default)]
    pub max: Option<f64>,
    /// The share of a pause, 0 to 1, by which it is shortened at random. Defaults to 0.
    #[serde(default)]
    pub jitter: f64,
}

impl Default for Backoff {
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    fn default() -> Self {
        Self { growth: Growth::Fixed, delay: RETRY_DELAY as f64, max: None, jitter: 0.0 }
    }
}

impl Backoff {
    /// The pause before a retry, in whole milliseconds; the first retry is number 1.
    pub fn pause(&self, retry: u32) -> u64 {
        let random = if self.jitter > 0.0 { random() } else { 0.0 };
        self.pause_at(retry, random)
    }

    /// As [`pause`](Self::pause), shortened by the part `random`, 0 to 1, of what `jitter` allows.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    fn pause_at(&self, retry: u32, random: f64) -> u64 {
        let doublings = match self.growth {
            Growth::Fixed => 0,
            Growth::Exponential => i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX),
        };
        // Of no delay the product with infinity would be no number.
        let pause = if self.delay > 0.0 { self.delay * 2_f64.powi(doublings) } else { 0.0 };
        let pause = pause.min(self.max.unwrap_or(f64::INFINITY));
        (pause * (1.0 - self.jitter.clamp(0.0, 1.0) * random)).ceil() as u64
    }
}

#[expect(clippy::cast_precision_loss, reason = "a random number")]
fn random() -> f64 {
    RandomState::new().hash_one(0_u8) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(text: &str) -> Backoff {
        serde_json::from_str(text).expect("a backoff")
    }

    #[test]
    fn by_default_it_is_the_retry_delay_each_time() {
        assert_eq!([1, 2, 1000].map(|n| Backoff::default().pause(n)), [RETRY_DELAY; 3]);
    }

    #[test]
    fn a_fixed_one_stays_and_an_exponential_one_doubles_up_to_its_max() {
        let fixed = backoff(r#"{"type":"fixed","delay":20.5}"#);
        assert_eq!([1, 2, 9].map(|n| fixed.pause(n)), [21; 3]);
        let growing = backoff(r#"{"type":"exponential","delay":100}"#);
        assert_eq!([1, 2, 3, 4].map(|n| growing.pause(n)), [100, 200, 400, 800]);
        assert_eq!(growing.pause(u32::MAX), u64::MAX);
        let bounded = backoff(r#"{"type":"exponential","delay":100,"max":350,"jitter":0}"#);
        assert_eq!([1, 2, 3, u32::MAX].map(|n| bounded.pause(n)), [100, 200, 350, 350]);
        let none = backoff(r#"{"type":"exponential","delay":0}"#);
        assert_eq!([1, 2, u32::MAX].map(|n| none.pause(n)), [0; 3]);
    }

    #[test]
    fn jitter_shortens_a_pause_by_its_share_at_most() {
        let backoff = backoff(r#"{"type":"fixed","delay":1000,"jitter":0.25}"#);
        assert_eq!([0.0, 0.5, 1.0].map(|random| backoff.pause_at(1, random)), [1000, 875, 750]);
        let pauses: Vec<u64> = (0..1000).map(|_| backoff.pause(1)).collect();
        assert!(pauses.iter().all(|pause| (750..=1000).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "they differ");
    }

    #[test]
    fn one_of_another_type_is_none() {
        assert!(serde_json::from_str::<Backoff>(r#"{"type":"square","delay":1}"#).is_err());
    }
}
