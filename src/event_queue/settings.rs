//! How an event queue on a server treats the messages that run. Times are milliseconds.

use crate::error::{Error, Result};
use serde::Deserialize;

/// The settings, all of which have defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// How long a node that has died keeps its messages. Defaults to 5 seconds.
    pub lease: u64,
    /// How long one run may take; then it counts as failed. Defaults to an hour.
    pub max_run: u64,
    /// How long the environment may stand still before it counts as dead. Defaults to 5 minutes.
    pub max_stall: u64,
    /// How often a message may end its node before it is a dead letter. Defaults to 5.
    pub max_crashes: u32,
    /// Whether a run that ended with its node is one of the attempts that `maxRetries` allows. Defaults to no.
    pub crash_counts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: 5_000,
            max_run: 3_600_000,
            max_stall: 300_000,
            max_crashes: 5,
            crash_counts: false,
        }
    }
}

impl Settings {
    /// Reads the JSON of an object.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| {
            Error::InvalidArgument(format!("the settings of the event queue are wrong: {error}"))
        })
    }
}
