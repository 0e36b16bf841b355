//! What this node hears from the others, or learns of what they have said before: pauses, cancelled messages, questions.

use super::{
    Shared,
    connection::Session,
    control::{Answer, Question},
    message,
    names::Names,
    subscription::Command,
};
use crate::error::Result;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

impl Shared {
    pub(super) async fn is_paused(&self, session: &Session, names: &Names) -> Result<bool> {
        Ok(self.state_of(session, &names.paused).await?.is_some())
    }

    /// Tells subscriptions whether their channel is paused: those of one channel, or all.
    pub(super) async fn look_for_pauses(&self, channel: Option<&str>) {
        let channels = self.channels();
        for name in channels.iter().filter(|name| channel.is_none_or(|channel| channel == &***name))
        {
            let Ok(session) = self.link.session() else { return };
            // A connection that is lost now is looked at again later.
            let Ok(paused) = self.is_paused(&session, &self.names(name)).await else { return };
            for commands in self.of(name) {
                _ = commands.send(Command::Pause(paused));
            }
        }
    }

    /// The channels that are subscribed to.
    pub(super) fn channels(&self) -> Vec<Arc<str>> {
        let mut channels: Vec<Arc<str>> =
            self.subscriptions.lock().values().map(|it| Arc::clone(&it.channel)).collect();
        channels.sort();
        channels.dedup();
        channels
    }

    /// The subscriptions of a channel.
    pub(super) fn of(&self, channel: &str) -> Vec<mpsc::UnboundedSender<Command>> {
        let subscriptions = self.subscriptions.lock();
        subscriptions
            .values()
            .filter(|it| &*it.channel == channel)
            .map(|it| it.commands.clone())
            .collect()
    }

    /// What this node answers to all.
    pub(super) async fn answer(&self, channel: &str, question: Question) -> Answer {
        let mut answer = Answer::default();
        match question {
            Question::Pause => self.look_for_pauses(Some(channel)).await,
            Question::Cancel { id, at } => {
                self.remember_cancelled(&channel.into(), id.clone(), at);
                for commands in self.of(channel) {
                    let (told, found) = oneshot::channel();
                    _ = commands.send(Command::Cancel(id.clone(), told));
                    answer.found |= found.await.unwrap_or(false);
                }
            }
            Question::Count => {
                for commands in self.of(channel) {
                    let (told, counts) = oneshot::channel();
                    _ = commands.send(Command::Count(told));
                    let (running, held) = counts.await.unwrap_or_default();
                    answer.running += running;
                    answer.held += held;
                }
            }
        }
        answer
    }

    pub(super) fn put_back(&self, channel: &str, keys: &[String]) {
        for commands in self.of(channel) {
            _ = commands.send(Command::PutBack(keys.to_vec()));
        }
    }

    pub(super) fn remember_cancelled(&self, channel: &Arc<str>, id: String, at: f64) {
        let mut cancelled = self.cancelled.lock();
        let known = cancelled.entry((Arc::clone(channel), id), at);
        *known = known.max(at);
    }

    /// Whether a message was cancelled after it was published.
    pub(super) fn was_cancelled(&self, channel: &Arc<str>, id: &str, text: &[u8]) -> bool {
        let cancelled = self.cancelled.lock();
        if cancelled.is_empty() {
            return false;
        }
        let at = cancelled.get(&(Arc::clone(channel), id.to_owned())).copied();
        drop(cancelled);
        at.is_some_and(|at| message::published(text).is_none_or(|published| published <= at))
    }
}
