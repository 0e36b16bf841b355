//! Messages on their way in: those of one call and one channel are one script call.

use super::{
    RedisQueue,
    entry::{array, text},
    keys::Keys,
    scripts,
};
use crate::{
    error::{Error, Result},
    event_queue::adapter::{Message, Publish},
    redis::{Command, is_unknown},
};
use redis::Value;
use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::SystemTime,
};

/// The bytes of messages that go in one script call at most, beside the first.
const MOST_BYTES: usize = 1 << 20;

type Done = Box<dyn FnOnce(Result<String>) + Send>;

/// Messages of one channel, in their order.
struct Group {
    channel: Arc<str>,
    /// All are plain: neither ids nor delays.
    plain: bool,
    messages: Vec<Message>,
    bytes: usize,
}

impl RedisQueue {
    pub(super) fn publish_all(&self, all: Vec<Publish>) {
        let mut groups: Vec<(Group, Vec<Done>)> = Vec::new();
        for Publish { channel, message, done } in all {
            let plain = message.id.is_none() && message.delay == 0;
            let bytes = message.text.len();
            // The last group of the channel, so that order is kept.
            let last = groups.iter_mut().rfind(|(group, _)| group.channel == channel);
            let fits = |last: &Group| last.plain == plain && last.bytes + bytes <= MOST_BYTES;
            if let Some((group, dones)) = last.filter(|(last, _)| fits(last)) {
                group.bytes += bytes;
                group.messages.push(message);
                dones.push(done);
            } else {
                let group = Group { channel, plain, messages: vec![message], bytes };
                groups.push((group, vec![done]));
            }
        }
        for (group, dones) in groups {
            self.send(Arc::new(group), dones, false);
        }
    }

    fn send(&self, group: Arc<Group>, dones: Vec<Done>, in_full: bool) {
        let (this, sent) = (self.this.clone(), Arc::clone(&group));
        self.redis().submit(
            move || vec![sent.command(in_full)],
            Box::new(move |replies| {
                let reply = replies.and_then(|mut replies| {
                    let none = || Err(Error::Internal("a batch has no reply".into()));
                    replies.pop().unwrap_or_else(none)
                });
                match (reply, this.upgrade()) {
                    // A script that is not known has done nothing.
                    (Ok(reply), Some(queue)) if is_unknown(&reply) => {
                        queue.send(group, dones, true);
                    }
                    (Ok(reply), Some(queue)) => answer(dones, queue.redis().check(reply)),
                    (Ok(_), None) => answer(dones, Err(Error::Closed("the event queue"))),
                    (Err(error), _) => answer(dones, Err(error)),
                }
            }),
        );
    }
}

impl Group {
    fn command(&self, in_full: bool) -> Command {
        let keys = Keys::of(&self.channel);
        let room = self.bytes + 64 * self.messages.len() + 256;
        if self.plain {
            let mut command = scripts::PUBLISH.begin(in_full, 2, room);
            command.push(keys.stream.as_bytes());
            command.push(keys.hungry.as_bytes());
            for message in &self.messages {
                command.push(message.text.as_bytes());
            }
            return command;
        }
        let mut command = scripts::PUBLISH_WITH.begin(in_full, 5, room);
        for key in [&keys.stream, &keys.hungry, &keys.later, &keys.ids, &keys.delayed] {
            command.push(key.as_bytes());
        }
        for message in &self.messages {
            // What is kept back has no place in the stream yet that could be its id.
            let id = message.id.clone().or_else(|| (message.delay > 0).then(unique_id));
            command.push(message.text.as_bytes());
            command.push(id.unwrap_or_default().as_bytes());
            command.push(message.delay.to_string().as_bytes());
        }
        command
    }
}

fn answer(dones: Vec<Done>, reply: Result<Value>) {
    let ids = match reply {
        Ok(reply) => array(reply),
        Err(error) => return dones.into_iter().for_each(|done| done(Err(error.clone()))),
    };
    let mut ids = ids.into_iter();
    for done in dones {
        let id = ids.next().and_then(text);
        done(id.ok_or_else(|| Error::Internal("a message has no id".into())));
    }
}

fn unique_id() -> String {
    let half = || RandomState::new().hash_one(SystemTime::now());
    format!("{:016x}{:016x}", half(), half())
}
