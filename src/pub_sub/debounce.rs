//! Debounce windows: messages of equal content for one subscription become one call, at the end of
//! the window that the first of them opened. A steady stream is delivered once a window, not never.

use super::Debounce;
use crate::timer_wheel::TimerWheel;
use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
};

/// The open windows of a manager's subscriptions.
pub struct Windows {
    ids: HashMap<Content, u32>,
    open: Vec<Option<Window>>,
    free: Vec<u32>,
    ends: TimerWheel,
}

/// What makes two messages one: the subscription, and the message with the keys of its objects in
/// order.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Content {
    subscription: u32,
    canonical: Option<String>,
}

struct Window {
    content: Content,
    /// The newest message; `None` for `undefined`.
    message: Option<String>,
    /// Whether it is still to be delivered: not when the one that opened the window was delivered
    /// at once, and none followed.
    pending: bool,
}

impl Default for Windows {
    fn default() -> Self {
        Self { ids: HashMap::new(), open: Vec::new(), free: Vec::new(), ends: TimerWheel::new(0) }
    }
}

impl Windows {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Puts a message into its window. Returns the window's end when it had to be opened.
    pub fn take(
        &mut self,
        subscription: u32,
        message: Option<&str>,
        now: u64,
        debounce: &Debounce,
    ) -> Option<u64> {
        let content = Content { subscription, canonical: message.map(canonical) };
        let entry = match self.ids.entry(content) {
            Entry::Occupied(entry) => {
                if let Some(window) = &mut self.open[*entry.get() as usize] {
                    window.message = message.map(str::to_owned);
                    window.pending = true;
                }
                return None;
            }
            Entry::Vacant(entry) => entry,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            u32::try_from(self.open.len() - 1).unwrap_or(u32::MAX)
        });
        self.open[id as usize] = Some(Window {
            content: entry.key().clone(),
            message: message.map(str::to_owned),
            pending: !debounce.leading,
        });
        entry.insert(id);
        let end = now.saturating_add(debounce.window);
        self.ends.schedule(id, end);
        Some(end)
    }

    /// Ends the windows whose time has come, and gives their messages in that order.
    pub fn end(&mut self, now: u64, mut deliver: impl FnMut(u32, Option<&str>)) {
        let mut due = Vec::new();
        self.ends.advance(now, usize::MAX, |id| due.push(id));
        for id in due {
            if let Some(window) = self.close(id).filter(|window| window.pending) {
                deliver(window.content.subscription, window.message.as_deref());
            }
        }
    }

    pub fn next_end(&self) -> Option<u64> {
        self.ends.next_tick()
    }

    /// Closes the windows of the subscriptions that `which` chooses, without a call.
    pub fn cancel(&mut self, which: impl Fn(u32) -> bool) {
        let chosen: Vec<u32> = self
            .ids
            .iter()
            .filter(|(content, _)| which(content.subscription))
            .map(|(_, id)| *id)
            .collect();
        for id in chosen {
            self.ends.cancel(id);
            self.close(id);
        }
    }

    fn close(&mut self, id: u32) -> Option<Window> {
        let window = mem::take(&mut self.open[id as usize])?;
        self.ids.remove(&window.content);
        self.free.push(id);
        Some(window)
    }
}

/// The same text for messages that differ only in the order of their objects' keys.
fn canonical(message: &str) -> String {
    // serde_json keeps an object's keys sorted. What it cannot read stands for itself.
    serde_json::from_str::<serde_json::Value>(message)
        .map_or_else(|_| message.to_owned(), |value| value.to_string())
}
