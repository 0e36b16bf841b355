//! The seam: what a pub/sub manager needs of the thing that carries its texts.

use crate::error::Result;
use async_trait::async_trait;
use std::sync::Arc;

/// Called with each text that comes on a channel, in the order in which it was published.
pub type Receiver = Arc<dyn Fn(&str, &str) + Send + Sync>;

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

    /// Hears a channel from now on.
    async fn subscribe(&self, channel: &str, receiver: Receiver) -> Result<()>;

    /// Hears a channel no more; nothing when it was not subscribed.
    async fn unsubscribe(&self, channel: &str) -> Result<()>;

    /// Publishes a text; resolves when the carrier has it.
    async fn publish(&self, channel: &str, text: Arc<str>) -> Result<()>;
}
