//! One sleeping task for a service that has deadlines: it wakes when the earliest is due, asks the
//! service to act, and sleeps until the next. Dropping the [`Alarm`] ends the task.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Duration, Instant},
};

/// A service that acts at its deadlines.
pub trait Alarmed: Send + Sync + 'static {
    /// Does what is due at `now`, in milliseconds since the alarm's start, and returns when to be
    /// asked again, or `None` while it has no deadline.
    fn ring(&self, now: u64) -> Option<u64>;
}

/// The clock of a service and its sleeping task. All times are milliseconds since the start,
/// taken from tokio's clock, which tests can pause.
pub struct Alarm {
    shared: Arc<Shared>,
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    start: Instant,
    /// When the task wakes next; `u64::MAX` when it waits for [`Alarm::wake_at`].
    wakes_at: AtomicU64,
    sooner: Notify,
}

impl Default for Alarm {
    fn default() -> Self {
        Self::new()
    }
}

impl Alarm {
    /// A clock that starts now, with nothing to wake yet.
    pub fn new() -> Self {
        let shared = Shared {
            start: Instant::now(),
            wakes_at: AtomicU64::new(u64::MAX),
            sooner: Notify::new(),
        };
        Self { shared: Arc::new(shared), task: parking_lot::Mutex::new(None) }
    }

    /// Starts the task that calls `service`, on `runtime`. It ends by itself when the service is
    /// gone.
    pub fn start<T: Alarmed>(&self, runtime: &tokio::runtime::Handle, service: Weak<T>) {
        let task = runtime.spawn(run(Arc::clone(&self.shared), service));
        if let Some(old) = self.task.lock().replace(task) {
            old.abort();
        }
    }

    /// Milliseconds since the start.
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// Sees to it that the service is rung at `tick` or before. Cheap when it would be anyway.
    pub fn wake_at(&self, tick: u64) {
        if tick < self.shared.wakes_at.fetch_min(tick, Ordering::AcqRel) {
            self.shared.sooner.notify_one();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn run<T: Alarmed>(shared: Arc<Shared>, service: Weak<T>) {
    loop {
        // Cleared before the service looks, so that a deadline set meanwhile is never overlooked.
        shared.wakes_at.store(u64::MAX, Ordering::Release);
        let Some(next) = service.upgrade().map(|service| service.ring(shared.now())) else {
            return;
        };
        if let Some(tick) = next {
            shared.wakes_at.fetch_min(tick, Ordering::AcqRel);
        }
        loop {
            let tick = shared.wakes_at.load(Ordering::Acquire);
            if tick <= shared.now() {
                break;
            }
            let sooner = shared.sooner.notified();
            if tick == u64::MAX {
                sooner.await;
            } else {
                // A tick is over only when the clock has passed it, hence sleep_until and not
                // a rounded duration.
                let at = shared.start + Duration::from_millis(tick);
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = sooner => {}
                }
            }
        }
    }
}
