//! A batch under way: groups of texts, cut into entries, of which each is sent until it is settled.

use super::{
    bounds::Told,
    entry::{self, FULL_BYTES, MOST_TEXTS},
    id::Id,
    keys::Keys,
    outbox::Group,
};
use crate::{
    error::{Error, Result},
    pub_sub::adapter::{Text, check_channel},
    redis::{Command, Redis},
};
use redis::Value;
use std::{
    future::{Future, pending},
    pin::pin,
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};

/// Those that wait behind a batch, whose time runs too.
pub trait Expiry {
    /// The earliest of their deadlines.
    fn next_deadline(&self) -> Option<Instant>;
    /// Gives up those whose deadline has passed.
    fn expire(&self, now: Instant);
    /// What is told of those that are given up.
    fn late(&self) -> Error;
}

/// Groups, and the entries that are not settled.
pub struct Batch {
    groups: Vec<Waiting>,
    entries: Vec<Entry>,
}

struct Waiting {
    deadline: Option<Instant>,
    told: Told,
    /// Its entries that are not settled.
    left: usize,
}

struct Entry {
    sequence: u64,
    /// Each with its group.
    texts: Vec<(usize, Text)>,
}

impl Batch {
    /// Cuts groups into entries of a bounded size (or one, unless `cut`), numbered on from `sequence`.
    pub fn new(groups: Vec<Group>, sequence: &mut u64, cut: bool) -> Self {
        let mut batch = Self { groups: Vec::with_capacity(groups.len()), entries: Vec::new() };
        let mut bytes = FULL_BYTES;
        for (index, Group { texts, deadline, mut told }) in groups.into_iter().enumerate() {
            let texts = (texts.make)();
            if let Some(error) = texts.iter().find_map(|text| check_channel(&text.channel).err()) {
                told.tell(Err(error));
            }
            batch.groups.push(Waiting { deadline, told, left: 0 });
            if batch.groups[index].told.is_told() {
                continue;
            }
            for text in texts {
                let full = batch.entries.last().is_none_or(|entry| {
                    cut && (bytes >= FULL_BYTES || entry.texts.len() >= MOST_TEXTS)
                });
                if full {
                    *sequence += 1;
                    batch.entries.push(Entry { sequence: *sequence, texts: Vec::new() });
                    bytes = 0;
                }
                bytes += text.channel.len() + text.text.len();
                if let Some(entry) = batch.entries.last_mut() {
                    if entry.texts.last().is_none_or(|(group, _)| *group != index) {
                        batch.groups[index].left += 1;
                    }
                    entry.texts.push((index, text));
                }
            }
        }
        batch
    }

    pub fn is_settled(&self) -> bool {
        self.entries.is_empty()
    }

    /// The commands that send what is not settled.
    pub fn commands(&self, keys: &Keys, max_length: u64, publisher: &str) -> Vec<Command> {
        let command = |entry: &Entry| {
            let texts = entry.texts.iter().map(|(_, text)| text);
            entry::append(keys, max_length, publisher, entry.sequence, texts)
        };
        self.entries.iter().map(command).collect()
    }

    /// Waits for `future`, while the deadlines of this batch and of those behind it run. Nothing when
    /// nobody waits for this batch any more.
    pub async fn while_waiting<T>(
        &mut self,
        future: impl Future<Output = T>,
        behind: &impl Expiry,
    ) -> Option<T> {
        let mut future = pin!(future);
        loop {
            let own = self.groups.iter().filter(|group| !group.told.is_told());
            let own = own.filter_map(|group| group.deadline).min();
            let next = match (own, behind.next_deadline()) {
                (Some(own), Some(other)) => Some(own.min(other)),
                (own, other) => own.or(other),
            };
            tokio::select! {
                biased;
                result = &mut future => return Some(result),
                () = until(next) => {
                    let now = Instant::now();
                    self.expire(now, behind);
                    behind.expire(now);
                    if self.is_settled() {
                        return None;
                    }
                }
            }
        }
    }

    fn expire(&mut self, now: Instant, behind: &impl Expiry) {
        for group in &mut self.groups {
            if group.deadline.is_some_and(|deadline| deadline <= now) && !group.told.is_told() {
                group.told.tell(Err(behind.late()));
            }
        }
        self.drop_told();
    }

    /// What nobody waits for is not sent again.
    fn drop_told(&mut self) {
        for entry in &mut self.entries {
            entry.texts.retain(|(group, _)| !self.groups[*group].told.is_told());
        }
        self.entries.retain(|entry| !entry.texts.is_empty());
    }

    /// Takes the outcomes of [`commands`](Self::commands). Gives the id of the newest entry that the
    /// server has; what it refuses for now stays.
    pub fn take(
        &mut self,
        redis: &Redis,
        results: Vec<Result<Value>>,
        sequence: &mut u64,
    ) -> Option<Id> {
        let (mut newest, mut kept) = (None, Vec::new());
        let mut overtaken = false;
        for (entry, result) in std::mem::take(&mut self.entries).into_iter().zip(results) {
            match result {
                Ok(reply) if is_passing(&reply) => kept.push(entry),
                Err(Error::Unavailable { .. } | Error::CommandTimeout { .. }) => kept.push(entry),
                outcome => match outcome.and_then(|reply| redis.check(reply)) {
                    Ok(Value::BulkString(id)) => {
                        newest = Id::parse(&id).or(newest);
                        overtaken |= !kept.is_empty();
                        self.settle(&entry, &Ok(()));
                    }
                    Ok(_) => self.settle(&entry, &Err(Error::Internal("XADD has no id".into()))),
                    Err(error) => self.settle(&entry, &Err(error)),
                },
            }
        }
        if overtaken {
            // Under its old number it would be taken for one that was heard.
            for entry in &mut kept {
                *sequence += 1;
                entry.sequence = *sequence;
            }
        }
        self.entries = kept;
        self.drop_told();
        newest
    }

    fn settle(&mut self, entry: &Entry, result: &Result<()>) {
        let mut last = usize::MAX;
        for (index, _) in &entry.texts {
            if *index == last {
                continue;
            }
            last = *index;
            let group = &mut self.groups[*index];
            group.left -= 1;
            if result.is_err() || group.left == 0 {
                group.told.tell(result.clone());
            }
        }
    }

    /// Gives all of it up.
    pub fn fail(&mut self, error: &Error) {
        for group in &mut self.groups {
            if group.left > 0 {
                group.told.tell(Err(error.clone()));
            }
        }
        self.entries.clear();
    }

    /// Tells the groups that were empty.
    pub fn end(self) {
        for mut group in self.groups {
            group.told.tell(Ok(()));
        }
    }
}

/// How late those may be told whose time has passed during [`while_expiring`].
const EXPIRY: Duration = Duration::from_millis(20);

/// Waits for `future`, while the deadlines of those that wait run, and of those that come meanwhile.
pub async fn while_expiring<T>(future: impl Future<Output = T>, waiting: &impl Expiry) -> T {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            result = &mut future => return result,
            () = sleep(EXPIRY) => waiting.expire(Instant::now()),
        }
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

/// Whether a server refuses for now what it will take later, or another server takes.
pub fn is_passing(reply: &Value) -> bool {
    const PASSING: [&str; 6] =
        ["READONLY", "LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY"];
    matches!(reply, Value::ServerError(error) if PASSING.contains(&error.code()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Behind(Mutex<Vec<Instant>>);

    impl Expiry for Behind {
        fn next_deadline(&self) -> Option<Instant> {
            self.0.lock().iter().min().copied()
        }

        fn expire(&self, now: Instant) {
            self.0.lock().retain(|deadline| *deadline > now);
        }

        fn late(&self) -> Error {
            Error::Closed("a test")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_while_the_log_is_looked_at_is_told_in_time() {
        let (behind, start) = (Behind::default(), Instant::now());
        let second = Duration::from_secs(1);
        let looking = async {
            sleep(second).await;
            behind.0.lock().push(start + 2 * second);
            sleep(second + 2 * EXPIRY).await;
            behind.0.lock().len()
        };
        assert_eq!(while_expiring(looking, &behind).await, 0);
    }
}
