//! What an event queue on a server does, whatever the server.

use crate::error::Result;
use async_trait::async_trait;
use serde::Deserialize;
use std::sync::Arc;

use super::backoff::Backoff;

/// A message on its way in.
#[derive(Debug, Clone)]
pub struct Message {
    /// JSON: `[options]`, or `[options, content]` where there is a content. The options are an object; those
    /// that matter here are [`Options`].
    pub text: String,
    /// The id that its publisher gave it.
    pub id: Option<String>,
    /// For how many milliseconds it is kept back.
    pub delay: u64,
}

/// A message, its channel, and who is told its id once it is stored, or why it may not have been.
pub struct Publish {
    /// The full name of the channel.
    pub channel: Arc<str>,
    /// The message.
    pub message: Message,
    /// Called in any case, from any thread.
    pub done: Box<dyn FnOnce(Result<String>) + Send>,
}

/// The options of a message that decide about its attempts. Times are milliseconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Options {
    /// When its handler's signal aborts; without it, never.
    pub timeout: Option<f64>,
    /// How often it is tried again; without it (JSON has no infinity), always.
    pub max_retries: Option<f64>,
    /// The pauses between attempts.
    pub backoff: Option<Backoff>,
    /// How often it was tried before it was published.
    pub retried: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: Some(15_000.0), max_retries: Some(0.0), backoff: None, retried: 0.0 }
    }
}

/// A message that is to be processed.
#[derive(Debug)]
pub struct Delivery {
    /// Stands for this very run of it.
    pub ticket: u64,
    /// Its id.
    pub id: String,
    /// How often it was tried before.
    pub retried: u32,
    /// As [`Message::text`].
    pub text: Vec<u8>,
}

impl Delivery {
    /// How many of the first have texts of at most so many bytes together; one that has more goes alone.
    pub fn fitting(deliveries: &[Self], most_bytes: usize) -> usize {
        let mut bytes = 0;
        let fits = |it: &&Self| {
            bytes += it.text.len();
            bytes <= most_bytes
        };
        deliveries.iter().take_while(fits).count().max(1)
    }
}

/// What became of a run.
#[derive(Debug)]
pub struct Finished {
    /// The run.
    pub ticket: u64,
    /// What happened.
    pub outcome: Outcome,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// It is processed.
    Processed,
    /// It failed, with that error: it is to be tried again as far as its options allow.
    Failed(String),
    /// It has not begun: it is to begin elsewhere, or later.
    Returned,
}

/// Whether a message may still begin here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Ours,
    /// It was cancelled.
    Cancelled,
    /// It is others' by now, or may be.
    Lost,
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks for the reason of something strange.
    Debug,
    /// For whoever looks into it.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something is lost, or given up.
    Error,
}

/// Who processes the messages of a channel. Calls come from any thread, in the order of what they tell, with
/// locks held: they must be quick, and must not call the queue.
pub trait Consumer: Send + Sync + 'static {
    /// There may be something to fetch: ask whether it may be, and call [`EventQueueAdapter::turn`].
    fn ready(&self);
    /// There is nothing to fetch for now. Each `turn` with `fetch` leads to this or to [`begin`](Self::begin), unless
    /// messages run.
    fn rests(&self);
    /// These are to be processed now. Each ends by [`EventQueueAdapter::turn`]; what begins after
    /// [`changed`](Self::changed) asks [`EventQueueAdapter::standing`] first.
    fn begin(&self, deliveries: Vec<Delivery>);
    /// As [`begin`](Self::begin), where a lease of so many milliseconds is left: what begins after that asks, too.
    fn begin_within(&self, deliveries: Vec<Delivery>, milliseconds: u64);
    /// Something that was to begin is cancelled or lost, and may not have begun yet.
    fn changed(&self);
    /// The timeout of a running message has passed.
    fn timed_out(&self, ticket: u64);
    /// A running message was cancelled: its failure counts as its end.
    fn cancelled(&self, ticket: u64);
    /// A running message has lost its slot, since it has run for too long: what becomes of it counts no more.
    fn given_up(&self, ticket: u64);
    /// Nothing more comes of the subscription, which has been ended.
    fn over(&self);
    /// A line for the log.
    fn log(&self, level: Level, line: String);
}

/// The environment in which handlers run, which may stand still. Calls as for [`Consumer`].
pub trait Environment: Send + Sync + 'static {
    /// Is to be answered by [`EventQueueAdapter::beat`] as soon as handlers can run.
    fn ask(&self);
    /// A line for the log.
    fn log(&self, level: Level, line: String);
}

/// What is in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counts {
    /// Messages that could begin.
    pub waiting: u64,
    /// Messages that are kept back or wait for their next attempt, where that can be told.
    pub delayed: Option<u64>,
    /// Messages that run.
    pub running: u64,
    /// Dead letters.
    pub dead: u64,
    /// Whether nothing is fetched.
    pub paused: bool,
    /// Milliseconds since the oldest that waits was published, where that can be told; 0 without one.
    pub oldest_age: Option<u64>,
}

/// A message that has failed for good.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its id.
    pub id: String,
    /// As [`Message::text`].
    pub text: Vec<u8>,
    /// What the last attempt failed with.
    pub error: String,
}

/// An event queue.
///
/// - `publish` is answered when the server has stored the message; order is kept within a channel.
/// - A message is acknowledged only after its run has ended as processed.
/// - Nothing is fetched but by [`turn`](Self::turn) with `fetch`, and never more than there are free slots.
/// - A run that is still going is nobody else's, however long the environment stands still, up to `max_stall`.
/// - Nothing panics and nothing hangs while the server is away; fetching goes on when it is back.
#[async_trait]
pub trait EventQueueAdapter: Send + Sync {
    /// Waits until the server can be reached.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::error::Error::Unavailable) when it cannot.
    async fn connect(&self) -> Result<()>;
    /// Stores messages, each at the end of its channel.
    fn publish(&self, messages: Vec<Publish>);
    /// A channel whose messages are fetched from now on, `concurrency` at once at most. The number stands for it.
    fn subscribe(&self, channel: &str, concurrency: u32, consumer: Arc<dyn Consumer>) -> u32;
    /// Fetches no more of the channel; what runs goes on and its end counts.
    fn unsubscribe(&self, channel: u32);
    /// The runs that have ended, and whether more may `fetch`ed now: once, as many as there are free slots.
    fn turn(&self, channel: u32, finished: Vec<Finished>, fetch: bool);
    /// Whether a message of the channel that was to begin may still begin.
    fn standing(&self, channel: u32, ticket: u64) -> Standing;
    /// The answer to [`Environment::ask`].
    fn beat(&self);
    /// Fetches no more of any channel.
    fn stop(&self);
    /// Gives back what still runs, so that others run it, and ends; all that was finished before is acknowledged.
    async fn close(&self);
    /// Removes a message that waits, or aborts one that runs. Says whether there was one.
    async fn cancel(&self, channel: &str, id: &str) -> Result<bool>;
    /// Stops fetching on all nodes, or begins again.
    async fn pause(&self, channel: &str, paused: bool) -> Result<()>;
    /// What is in the channel.
    async fn counts(&self, channel: &str) -> Result<Counts>;
    /// The dead letters, the oldest first.
    async fn dead_letters(&self, channel: &str) -> Result<Vec<DeadLetter>>;
    /// Publishes one, or all, again. Says how many.
    async fn replay(&self, channel: &str, id: Option<&str>) -> Result<u64>;
    /// Forgets one, or all. Says how many.
    async fn drop_dead(&self, channel: &str, id: Option<&str>) -> Result<u64>;
    /// How it is: the name of the state, why, and how often messages waited of which nobody had told.
    fn health(&self) -> (&'static str, Option<String>, u64);
}

impl Options {
    /// The options of a message by its text; nothing when the text is not as [`Message::text`] says.
    pub fn of(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "what comes after the options must be JSON, too")]
        struct Parts(Options, #[serde(default)] Option<serde::de::IgnoredAny>);
        serde_json::from_slice::<Parts>(text).ok().map(|parts| parts.0)
    }

    /// Milliseconds until the handler's signal aborts; `u64::MAX` for never.
    pub fn timeout(&self) -> u64 {
        self.timeout.map_or(u64::MAX, whole)
    }

    /// Whether a message that was tried so often before, and has failed again, is tried once more.
    pub fn allows_retry(&self, retried: u32) -> bool {
        self.max_retries.is_none_or(|most| f64::from(retried) < most)
    }

    /// How long to wait before the next attempt of one that was tried so often before, in milliseconds.
    pub fn pause(&self, retried: u32) -> u64 {
        self.backoff.as_ref().map_or(super::RETRY_DELAY, |backoff| backoff.pause(retried + 1))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
pub(crate) fn whole(number: f64) -> u64 {
    number.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts in which messages of so many bytes go, with 10 bytes to a part.
    fn parts(bytes: &[usize]) -> Vec<usize> {
        let delivery = |&bytes: &usize| Delivery {
            ticket: 0,
            id: String::new(),
            retried: 0,
            text: vec![0; bytes],
        };
        let deliveries: Vec<Delivery> = bytes.iter().map(delivery).collect();
        let (mut rest, mut parts) = (deliveries.as_slice(), Vec::new());
        while !rest.is_empty() {
            parts.push(Delivery::fitting(rest, 10));
            rest = &rest[parts[parts.len() - 1]..];
        }
        parts
    }

    #[test]
    fn messages_go_together_as_far_as_they_fit_and_larger_ones_alone() {
        assert_eq!(parts(&[4, 6, 1, 1, 9]), [2, 2, 1]);
        assert_eq!(parts(&[11, 1, 11, 11]), [1, 1, 1, 1]);
        assert_eq!(parts(&[0, 0, 10, 0]), [4]);
        assert!(parts(&[]).is_empty());
    }
}
