//! The local locks for callers in Rust, who wait by futures.

use super::{LocalLocks, News, Outcome, Owner, Request};
use crate::{
    error::{Error, Result},
    lock::{FOREVER, Holder, Key, Lease, LockAdapter},
};
use async_trait::async_trait;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::oneshot;

/// The futures that wait, by token.
#[derive(Default)]
pub struct Waits(Mutex<HashMap<u64, Wait>>);

enum Wait {
    Asked(oneshot::Sender<News>),
    /// The news came before the question.
    Told(News),
}

impl Owner for Waits {
    fn tell(&self, lease: Lease, news: News) {
        let mut waits = self.0.lock();
        if let Some(Wait::Asked(sender)) = waits.remove(&lease.token) {
            // Whoever no longer waits gives the lease back itself.
            let _ = sender.send(news);
        } else {
            waits.insert(lease.token, Wait::Told(news));
        }
    }
}

impl Waits {
    async fn news(&self, token: u64) -> Option<News> {
        let receiver = {
            let mut waits = self.0.lock();
            if let Some(Wait::Told(news)) = waits.remove(&token) {
                return Some(news);
            }
            let (sender, receiver) = oneshot::channel();
            waits.insert(token, Wait::Asked(sender));
            receiver
        };
        receiver.await.ok()
    }
}

/// A place in a line that is given back when its future is dropped.
struct Place<'a> {
    locks: &'a LocalLocks,
    lease: Lease,
    taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        if let super::Released::HandedOver(next) = self.locks.release(self.lease) {
            self.locks.waits.tell(next, News::Granted);
        }
        // Nothing is told of the lease any more, so nothing comes back into the map.
        self.locks.waits.0.lock().remove(&self.lease.token);
    }
}

impl LocalLocks {
    async fn wait(&self, key: &Key, wait: Duration, ttl: Duration) -> Result<Lease> {
        let request = Request { owner: self.this, wait, ttl, watched: false };
        let lease = match self.request(key.units(), &request) {
            Outcome::Granted(lease) => return Ok(lease),
            Outcome::Refused => return Err(Error::LockLocked(key.to_string())),
            Outcome::Waiting(lease) => lease,
        };
        let mut place = Place { locks: self, lease, taken: false };
        let news = self.waits.news(lease.token).await;
        place.taken = news == Some(News::Granted);
        if place.taken { Ok(lease) } else { Err(Error::LockTimeout(key.to_string())) }
    }
}

#[async_trait]
impl LockAdapter for LocalLocks {
    async fn connect(&self) -> Result<()> {
        Ok(())
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
        if LocalLocks::extend(self, lease, ttl) { Ok(()) } else { Err(Error::LockNotActive) }
    }

    async fn release(&self, lease: Lease) -> Result<()> {
        if let super::Released::HandedOver(next) = LocalLocks::release(self, lease) {
            self.waits.tell(next, News::Granted);
        }
        Ok(())
    }

    async fn holders(&self) -> Result<Vec<Holder>> {
        Ok(LocalLocks::holders(self, "local"))
    }
}
