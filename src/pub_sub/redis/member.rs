//! One adapter as those see it who read for it: the channels it hears.

use crate::pub_sub::adapter::{Gap, Incoming, Receiver};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Told of each gap, once, before the receivers are.
pub type OnGap = Box<dyn Fn(Gap) + Send + Sync>;

/// The channels of one adapter.
pub struct Member {
    active: AtomicBool,
    channels: Mutex<HashMap<String, Receiver>>,
    on_gap: OnGap,
}

impl Member {
    pub fn new(on_gap: OnGap) -> Arc<Self> {
        Arc::new(Self { active: AtomicBool::new(false), channels: Mutex::default(), on_gap })
    }

    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// From the call on nothing is heard, or all is.
    pub fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }

    pub fn insert(&self, channel: &str, receiver: Receiver) {
        self.channels.lock().insert(channel.to_owned(), receiver);
    }

    /// True when the channel was heard.
    pub fn remove(&self, channel: &str) -> bool {
        self.channels.lock().remove(channel).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.channels.lock().is_empty()
    }

    pub fn hears(&self, channel: &str) -> bool {
        self.channels.lock().contains_key(channel)
    }

    pub fn channels(&self) -> Vec<String> {
        self.channels.lock().keys().cloned().collect()
    }

    pub fn deliver(&self, channel: &str, text: &str) {
        if !self.is_active() {
            return;
        }
        // Receivers are called without a lock: they may subscribe and unsubscribe.
        let receiver = self.channels.lock().get(channel).cloned();
        if let Some(receiver) = receiver {
            call(channel, || receiver(channel, Incoming::Text(text)));
        }
    }

    pub fn tell(&self, gap: Gap) {
        if !self.is_active() {
            return;
        }
        call("", || (self.on_gap)(gap));
        let receivers: Vec<(String, Receiver)> = {
            let channels = self.channels.lock();
            channels.iter().map(|(name, receiver)| (name.clone(), Arc::clone(receiver))).collect()
        };
        for (channel, receiver) in receivers {
            call(&channel, || receiver(&channel, Incoming::Gap(gap)));
        }
    }
}

/// Who panics when it is told must not end the one who reads for all.
fn call(channel: &str, tell: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        tracing::error!(channel, "a receiver of pub/sub panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn who_panics_when_it_is_told_ends_nobody_else() {
        let heard = Arc::new(AtomicU32::new(0));
        let member = Member::new(Box::new(|_| panic!("told of a gap")));
        member.set_active(true);
        member.insert("bad", Arc::new(|_, _| panic!("told")));
        let counter = Arc::clone(&heard);
        member.insert("good", Arc::new(move |_, _| _ = counter.fetch_add(1, Ordering::Relaxed)));
        member.tell(Gap::Trimmed);
        member.deliver("bad", "text");
        member.deliver("good", "text");
        assert_eq!(heard.load(Ordering::Relaxed), 2);
    }
}
