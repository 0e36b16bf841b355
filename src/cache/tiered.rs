//! The near cache of a tiered store: texts of a server in this process's memory, off JavaScript's
//! heap, kept coherent by the server, which tells of each change of a key that was read
//! (`CLIENT TRACKING`, <https://redis.io/docs/latest/develop/reference/client-side-caching/>).
//!
//! The rules:
//! - What was read while its key was changed is not kept: a fill is begun before the read is sent, and
//!   ended with its reply; an invalidation in between spoils it.
//! - Losing the tracking connection empties the near cache before anything else is read from it.
//! - This process's own writes spoil and remove what they change, when they are sent and again when
//!   they are answered; the server does not tell of them (`NOLOOP`).
//! - Nothing lives longer than a minute, nor longer than on the server.

use crate::redis::{Command, Config, Redis, Watch};
use moka::sync::Cache;
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// How long an entry may be answered from here.
pub const LONGEST_LIFE: Duration = Duration::from_secs(60);
/// The default of the most bytes held, 64 MiB.
pub const MAX_BYTES: u64 = 64 << 20;
/// What an entry takes beside its key and its text, about: two allocations and moka's nodes.
const OVERHEAD: usize = 160;

type Hasher = hashbrown::DefaultHashBuilder;
type Key = Box<[u8]>;

/// Somebody who keeps values made from texts of the near cache, and must hear when they are outdated.
/// Keys are told by their bucket: a number below [`BUCKETS`], shared by many keys.
pub trait Observer: Send + Sync {
    /// A key of that bucket has changed.
    fn invalidated(&self, bucket: usize);
    /// All have.
    fn flushed(&self);
}

/// The number of buckets.
pub const BUCKETS: usize = 16384;

#[derive(Clone)]
struct Entry {
    text: Arc<[u8]>,
    epoch: u64,
    until: Instant,
}

/// Texts by key.
pub struct NearCache {
    entries: Cache<Key, Entry, Hasher>,
    /// The reads under way, by key.
    fills: Mutex<HashMap<Key, Reads, Hasher>>,
    /// Grows when all is invalidated. Entries of an earlier one are not answered.
    epoch: AtomicU64,
    /// The open connections whose server tells of changes, and those whose does not. A cluster has
    /// several, and one that does not tell is one too many.
    connections: Mutex<Connections>,
    observers: Mutex<Vec<Weak<dyn Observer>>>,
    hasher: Hasher,
}

#[derive(Default)]
struct Connections {
    tracking: usize,
    silent: usize,
}

#[derive(Default)]
struct Reads {
    under_way: usize,
    /// Grows with each change of the key.
    generation: u64,
}

/// A read that is under way. To be given to [`NearCache::end`], whatever becomes of it.
pub struct Fill {
    key: Key,
    generation: u64,
    epoch: u64,
    begun: Instant,
}

/// A text found, and how long it may still be used.
pub struct Found {
    /// The text.
    pub text: Arc<[u8]>,
    /// From now on.
    pub left: Duration,
}

impl NearCache {
    /// An empty one that holds up to `max_bytes`, and nothing before a server is tracking.
    pub fn new(max_bytes: u64) -> Self {
        let hasher = Hasher::default();
        let weight = |key: &Key, entry: &Entry| {
            u32::try_from(key.len() + entry.text.len() + OVERHEAD).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(weight)
            .time_to_live(LONGEST_LIFE)
            .build_with_hasher(hasher.clone());
        Self {
            entries,
            fills: Mutex::new(HashMap::with_hasher(hasher.clone())),
            epoch: AtomicU64::new(0),
            connections: Mutex::default(),
            observers: Mutex::default(),
            hasher,
        }
    }

    /// The text at `key`, when it is here.
    pub fn get(&self, key: &[u8]) -> Option<Found> {
        let entry = self.entries.get(key)?;
        if entry.epoch != self.epoch.load(Ordering::Acquire) {
            return None;
        }
        let left =
            entry.until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        Some(Found { text: entry.text, left })
    }

    /// Whether the server tells of changes; without that nothing is kept.
    pub fn is_tracking(&self) -> bool {
        let connections = self.connections.lock();
        connections.tracking > 0 && connections.silent == 0
    }

    /// To be called before a read of `key` is sent.
    pub fn begin(&self, key: &[u8]) -> Fill {
        let mut fills = self.fills.lock();
        let reads = match fills.get_mut(key) {
            Some(reads) => reads,
            None => fills.entry(key.into()).or_default(),
        };
        reads.under_way += 1;
        Fill {
            key: key.into(),
            generation: reads.generation,
            epoch: self.epoch.load(Ordering::Acquire),
            begun: Instant::now(),
        }
    }

    /// Ends a read. `found` is the text, and how long it lives on the server (nothing: for ever); it is
    /// kept when nothing has changed since the read began. True when it is.
    pub fn end(&self, fill: Fill, found: Option<(&[u8], Option<Duration>)>) -> bool {
        let Fill { key, generation, epoch, begun } = fill;
        // Held while the entry is put in, so that an invalidation comes before the look at the
        // generation or after the entry is there to be removed.
        let mut fills = self.fills.lock();
        let mut current = false;
        if let Some(reads) = fills.get_mut(&key) {
            current = reads.generation == generation;
            reads.under_way -= 1;
            if reads.under_way == 0 {
                fills.remove(&key);
            }
        }
        let Some((text, life)) = found else { return false };
        // From when the read was sent: it may have been answered long before now.
        let until = begun + life.unwrap_or(LONGEST_LIFE).min(LONGEST_LIFE);
        if !current || epoch != self.epoch.load(Ordering::Acquire) || !self.is_tracking() {
            return false;
        }
        self.entries.insert(key, Entry { text: text.into(), epoch, until });
        true
    }

    /// The key has changed, or is about to.
    pub fn invalidate(&self, key: &[u8]) {
        {
            let mut fills = self.fills.lock();
            if let Some(reads) = fills.get_mut(key) {
                reads.generation += 1;
            }
            self.entries.invalidate(key);
        }
        let bucket = self.bucket(key);
        self.tell(|observer| observer.invalidated(bucket));
    }

    /// Everything may have changed.
    pub fn flush(&self) {
        // First, since this alone makes all entries and fills void.
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.tell(|observer| observer.flushed());
        self.entries.invalidate_all();
    }

    /// The bucket by which observers are told of `key`.
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is small")]
    pub fn bucket(&self, key: &[u8]) -> usize {
        (self.hasher.hash_one(key) % BUCKETS as u64) as usize
    }

    /// Tells `observer` from now on, for as long as it lives.
    pub fn observe(&self, observer: &Arc<dyn Observer>) {
        let mut observers = self.observers.lock();
        observers.retain(|observer| observer.strong_count() > 0);
        observers.push(Arc::downgrade(observer));
    }

    /// How many entries there are, and their bytes, about.
    pub fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }

    fn tell(&self, what: impl Fn(&dyn Observer)) {
        for observer in self.observers.lock().iter().filter_map(Weak::upgrade) {
            what(&*observer);
        }
    }
}

impl Watch for NearCache {
    fn purpose(&self) -> &'static str {
        "tiered"
    }

    fn greeting(&self, resp3: bool) -> Vec<Command> {
        if resp3 { vec![Command::new(["CLIENT", "TRACKING", "ON", "NOLOOP"])] } else { Vec::new() }
    }

    fn opened(&self, replies: &[Value]) -> bool {
        let tracks = matches!(replies, [Value::Okay]);
        if tracks {
            self.connections.lock().tracking += 1;
        } else {
            tracing::warn!(?replies, "the server does not track keys");
            self.connections.lock().silent += 1;
            self.flush();
        }
        tracks
    }

    fn pushed(&self, push: &PushInfo) {
        if push.kind != PushKind::Invalidate {
            return;
        }
        match push.data.first() {
            Some(Value::Array(keys)) => {
                for key in keys {
                    if let Value::BulkString(key) = key {
                        self.invalidate(key);
                    }
                }
            }
            // The database was emptied.
            _ => self.flush(),
        }
    }

    fn lost(&self, opened: Option<bool>) {
        self.flush();
        let mut connections = self.connections.lock();
        match opened {
            Some(true) => connections.tracking -= 1,
            Some(false) => connections.silent -= 1,
            None => {}
        }
    }
}

/// A near cache with the connection that keeps it coherent.
pub struct Tiered {
    /// The connection, by which all reads and writes go.
    pub redis: Arc<Redis>,
    /// The near cache.
    pub near: Arc<NearCache>,
}

static SHARED: LazyLock<Mutex<Vec<Weak<Tiered>>>> = LazyLock::new(Mutex::default);

impl Tiered {
    /// The process's near cache of that server, which is made now when there is none; `max_bytes` is
    /// that of whoever makes it.
    pub fn shared(config: Config, max_bytes: u64, runtime: &Handle) -> Arc<Self> {
        let mut shared = SHARED.lock();
        shared.retain(|tiered| tiered.strong_count() > 0);
        let present =
            shared.iter().filter_map(Weak::upgrade).find(|tiered| *tiered.redis.config() == config);
        present.unwrap_or_else(|| {
            let near = Arc::new(NearCache::new(max_bytes));
            let watch: Arc<dyn Watch> = Arc::clone(&near) as _;
            let tiered = Arc::new(Self { redis: Redis::open(config, watch, runtime), near });
            shared.push(Arc::downgrade(&tiered));
            tiered
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn tracked() -> NearCache {
        let near = NearCache::new(MAX_BYTES);
        near.opened(&[Value::Okay]);
        near
    }

    fn text(near: &NearCache, key: &str) -> Option<String> {
        near.get(key.as_bytes()).map(|found| String::from_utf8_lossy(&found.text).into_owned())
    }

    fn push(keys: Option<&str>) -> PushInfo {
        let keys = keys.map_or(Value::Nil, |key| Value::Array(vec![Value::BulkString(key.into())]));
        PushInfo { kind: PushKind::Invalidate, data: vec![keys] }
    }

    #[test]
    fn what_was_read_is_kept_until_it_changes() {
        let near = tracked();
        let fill = near.begin(b"k");
        assert!(near.end(fill, Some((b"1", None))));
        assert_eq!(text(&near, "k").as_deref(), Some("1"));
        near.pushed(&push(Some("k")));
        assert_eq!(text(&near, "k"), None);
    }

    #[test]
    fn a_read_during_which_its_key_changed_is_not_kept() {
        let near = tracked();
        let (first, second) = (near.begin(b"k"), near.begin(b"k"));
        near.pushed(&push(Some("k")));
        let third = near.begin(b"k");
        assert!(!near.end(first, Some((b"old", None))));
        assert!(near.end(third, Some((b"new", None))));
        assert!(!near.end(second, Some((b"old", None))));
        assert_eq!(text(&near, "k").as_deref(), Some("new"));
        assert!(near.fills.lock().is_empty());
    }

    #[test]
    fn losing_the_connection_empties_all_and_spoils_reads_under_way() {
        let near = tracked();
        let kept = near.begin(b"a");
        near.end(kept, Some((b"1", None)));
        let under_way = near.begin(b"b");
        near.lost(Some(true));
        assert_eq!(text(&near, "a"), None);
        assert!(!near.end(under_way, Some((b"2", None))));
        near.pushed(&push(None));
        assert_eq!(text(&near, "b"), None);
    }

    #[test]
    fn nothing_is_kept_without_tracking_or_beyond_its_life() {
        let near = NearCache::new(MAX_BYTES);
        let fill = near.begin(b"k");
        assert!(!near.end(fill, Some((b"1", None))));
        near.opened(&[Value::Okay]);
        let fill = near.begin(b"k");
        near.end(fill, Some((b"1", Some(Duration::ZERO))));
        assert_eq!(text(&near, "k"), None);
        let fill = near.begin(b"k");
        near.end(fill, Some((b"1", Some(Duration::from_secs(9999)))));
        assert!(near.get(b"k").is_some_and(|found| found.left <= LONGEST_LIFE));
    }

    #[test]
    fn one_connection_that_does_not_track_is_one_too_many() {
        let near = tracked();
        near.opened(&[]);
        assert!(!near.is_tracking());
        near.lost(Some(false));
        assert!(near.is_tracking());
        near.lost(None);
        near.lost(Some(true));
        assert!(!near.is_tracking());
    }

    #[test]
    fn observers_hear_of_changes_for_as_long_as_they_live() {
        struct Counter(AtomicUsize, AtomicUsize);
        impl Observer for Counter {
            fn invalidated(&self, _: usize) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            fn flushed(&self) {
                self.1.fetch_add(1, Ordering::Relaxed);
            }
        }
        let near = tracked();
        let counter = Arc::new(Counter(AtomicUsize::new(0), AtomicUsize::new(0)));
        let observer: Arc<dyn Observer> = Arc::clone(&counter) as _;
        near.observe(&observer);
        near.invalidate(b"k");
        near.flush();
        assert_eq!((counter.0.load(Ordering::Relaxed), counter.1.load(Ordering::Relaxed)), (1, 1));
        drop(observer);
        drop(counter);
        near.flush();
    }

    #[test]
    fn the_bytes_held_are_bounded() {
        let near = NearCache::new(1 << 20);
        near.opened(&[Value::Okay]);
        for n in 0..20_000 {
            let fill = near.begin(format!("key {n}").as_bytes());
            near.end(fill, Some((&[b'x'; 500], None)));
        }
        let (entries, bytes) = near.size();
        assert!(bytes <= 1 << 20 && entries > 500, "{entries} {bytes}");
    }
}
