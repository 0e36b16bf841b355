//! The seam: what a pub/sub manager needs of the thing that carries its texts.

use crate::error::{Error, Result};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Why texts may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// The log had moved on: texts that were not read yet were dropped from it.
    Trimmed,
    /// The log is another one: the server was emptied, replaced, or has lost its newest data.
    Replaced,
    /// The connection was lost, on an adapter that keeps no log.
    Disconnected,
}

/// What comes on a channel.
#[derive(Debug, Clone, Copy)]
pub enum Incoming<'a> {
    /// What somebody has published.
    Text(&'a str),
    /// Here texts may be missing.
    Gap(Gap),
}

/// Called with what comes on a channel, in the order in which it was published.
pub type Receiver = Arc<dyn Fn(&str, Incoming<'_>) + Send + Sync>;

/// Called once with what became of a publication.
pub type Completion = Box<dyn FnOnce(Result<()>) + Send>;

/// A text and its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Where it is published.
    pub channel: String,
    /// What is.
    pub text: String,
}

/// Texts to be published together. They are made where they are sent: cutting them up is no work for
/// JavaScript's thread.
pub struct Texts {
    /// How many there are.
    pub count: usize,
    /// Their size, about.
    pub bytes: usize,
    /// Makes them.
    pub make: Box<dyn FnOnce() -> Vec<Text> + Send>,
}

/// Carries texts between managers. The rules, each with a contract test of its name:
///
/// - A text reaches every subscriber of its channel, the publisher's own among them.
/// - A text reaches nobody on another channel, or on another bus.
/// - Texts of one publisher arrive in the order in which they were published.
/// - Subscribing a channel again replaces its receiver.
/// - After `unsubscribe` nothing more arrives.
/// - Connecting and closing may be repeated; what was subscribed is heard again after connecting.
/// - A closed adapter hears nothing, and publishing on it is an error.
#[async_trait]
pub trait PubSubAdapter: Send + Sync {
    /// Whether texts can be published and are heard.
    fn is_connected(&self) -> bool;

    /// Begins to carry texts.
    async fn connect(&self) -> Result<()>;

    /// Ends carrying texts; subscriptions are kept for the next `connect`.
    async fn close(&self) -> Result<()>;

    /// Hears a channel: all that is published after this has resolved.
    async fn subscribe(&self, channel: &str, receiver: Receiver) -> Result<()>;

    /// Hears a channel no more; nothing when it was not subscribed.
    async fn unsubscribe(&self, channel: &str) -> Result<()>;

    /// Publishes texts, after all that were given before. `completion` is called in any case, when
    /// the carrier has them or when it is known that it has not taken them all.
    fn submit(&self, texts: Texts, completion: Completion);

    /// Publishes a text; resolves when the carrier has it.
    async fn publish(&self, channel: &str, text: &str) -> Result<()> {
        let (told, result) = oneshot::channel();
        let made = Text { channel: channel.to_owned(), text: text.to_owned() };
        let bytes = channel.len() + text.len();
        let texts = Texts { count: 1, bytes, make: Box::new(|| vec![made]) };
        self.submit(texts, Box::new(|result| _ = told.send(result)));
        result.await.unwrap_or(Err(Error::Closed("the pub/sub adapter")))
    }
}

/// # Errors
/// [`Error::InvalidArgument`] for a channel without a name.
pub(super) fn check_channel(channel: &str) -> Result<()> {
    if channel.is_empty() {
        return Err(Error::InvalidArgument("a channel is a string that is not empty".into()));
    }
    Ok(())
}
