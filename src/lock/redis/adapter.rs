//! The locks on Redis for callers in Rust, who wait by futures.

use super::{Asked, NEVER, News, Owner, RedisLocks, Reply, Request};
use crate::{
    error::{Error, Result},
    lock::{FOREVER, Holder, Key, Lease, LockAdapter},
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};
use tokio::sync::oneshot;

/// The futures that wait, by number.
#[derive(Default)]
pub struct Waits {
    senders: Mutex<HashMap<u64, oneshot::Sender<News>>>,
    last: AtomicU32,
}

impl Owner for Waits {
    fn tell(&self, number: u64, news: News) {
        if let Some(sender) = self.senders.lock().remove(&number) {
            // Whoever no longer waits gives the lease back itself.
            _ = sender.send(news);
        }
    }
}

/// A wait that is given up when its future is dropped.
struct Place<'a> {
    locks: &'a RedisLocks,
    number: u64,
    taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.locks.waits.senders.lock().remove(&self.number);
        if !self.taken {
            self.locks.perform([Asked::GiveUp(self.number)]);
        }
    }
}

impl RedisLocks {
    async fn wait(&self, key: &Key, wait: Duration, ttl: Duration) -> Result<Lease> {
        let slot = self.waits.last.fetch_add(1, Relaxed);
        let number = self.number(slot);
        let (sender, news) = oneshot::channel();
        self.waits.senders.lock().insert(number, sender);
        let mut place = Place { locks: self, number, taken: false };
        let lease = milliseconds(ttl);
        self.perform([Asked::Request(Request {
            owner: self.own,
            number,
            key: key.to_string().into(),
            wait: milliseconds(wait),
            lease,
            hold: lease,
            watched: false,
        })]);
        let news = news.await;
        place.taken = matches!(news, Ok(News::Granted { .. }));
        match news {
            Ok(News::Granted { token }) => Ok(Lease { slot, token }),
            Ok(News::Refused) => Err(Error::LockLocked(key.to_string())),
            Ok(News::Failed(error)) => Err(error),
            Ok(_) => Err(Error::LockTimeout(key.to_string())),
            Err(_) => Err(Error::Closed("the lock adapter")),
        }
    }

    fn number(&self, slot: u32) -> u64 {
        Self::base(self.own) + u64::from(slot)
    }

    async fn told(&self, ask: impl FnOnce(Reply) -> Asked) -> Result<bool> {
        let (sender, told) = oneshot::channel();
        self.perform([ask(Box::new(|outcome| _ = sender.send(outcome)))]);
        told.await.unwrap_or(Err(Error::Closed("the lock adapter")))
    }
}

/// Fractions are rounded up.
fn milliseconds(duration: Duration) -> u64 {
    if duration == FOREVER {
        return NEVER;
    }
    let whole = duration.as_nanos().div_ceil(1_000_000);
    u64::try_from(whole).unwrap_or(NEVER)
}

#[async_trait]
impl LockAdapter for RedisLocks {
    async fn connect(&self) -> Result<()> {
        self.ready().await
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn acquire(&self, key: &Key, ttl: Duration) -> Result<Lease> {
        self.wait(key, FOREVER, ttl).await
    }

    async fn try_acquire(&self, key: &Key, wait: Duration, ttl: Duration) -> Result<Lease> {
        self.wait(key, wait, ttl).await
    }

    async fn extend(&self, lease: Lease, ttl: Duration) -> Result<()> {
        let (number, lease) = (self.number(lease.slot), milliseconds(ttl));
        let extend = |done| Asked::Extend { number, lease, hold: lease, watched: false, done };
        if self.told(extend).await? { Ok(()) } else { Err(Error::LockNotActive) }
    }

    async fn release(&self, lease: Lease) -> Result<()> {
        let number = self.number(lease.slot);
        self.told(|done| Asked::Release { number, key: None, done }).await.map(|_| ())
    }

    async fn holders(&self) -> Result<Vec<Holder>> {
        RedisLocks::holders(self).await
    }
}
