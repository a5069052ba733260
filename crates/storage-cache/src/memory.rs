//! [`MemoryCache`]: values in memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use moka::notification;
use storage_core::{BackendInfo, Cache, CacheCapabilities, CacheStats, Cached, Look, OpenFlag, RemovalCause, Result, SetOptions};

use crate::counters::{Counters, OnRemoval};

/// What an entry takes besides its key and its value, about.
const ENTRY: usize = 256;

const CAPABILITIES: CacheCapabilities = CacheCapabilities { idle: true, persistent: false, shared: false };

/// Values in the memory of this process: those that are used least go when there are too many bytes.
///
/// A hit copies no bytes and allocates nothing. Clones share the values.
///
/// ```
/// use std::time::Duration;
/// use storage_cache::MemoryCache;
/// use storage_core::SetOptions;
///
/// let cache = MemoryCache::new(64 << 20);
/// cache.insert("greeting", "hello", &SetOptions::ttl(Duration::from_secs(60)));
/// assert_eq!(cache.find("greeting").map(|cached| cached.value), Some("hello".into()));
/// ```
#[derive(Clone)]
pub struct MemoryCache {
    shared: Arc<Shared>,
}

struct Shared {
    entries: moka::sync::Cache<Box<str>, Entry>,
    counters: Arc<Counters>,
    /// Entries of before the last [`clear`](Cache::clear) have a smaller number, however close in time that was.
    life: Arc<AtomicU64>,
    info: BackendInfo,
    open: OpenFlag,
}

#[derive(Clone)]
struct Entry {
    value: Bytes,
    refresh_at: Option<DateTime<Utc>>,
    life: u64,
    /// `None`: no end.
    until: Option<Instant>,
    idle: Option<Duration>,
}

impl Entry {
    fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until.map(|until| until.saturating_duration_since(now));
        match (left, self.idle) {
            (Some(left), Some(idle)) => Some(left.min(idle)),
            (left, idle) => left.or(idle),
        }
    }
}

/// How long moka keeps an entry.
struct Terms;

impl moka::Expiry<Box<str>, Entry> for Terms {
    fn expire_after_create(&self, _: &Box<str>, entry: &Entry, now: Instant) -> Option<Duration> {
        entry.left(now)
    }

    fn expire_after_update(&self, _: &Box<str>, entry: &Entry, now: Instant, _: Option<Duration>) -> Option<Duration> {
        entry.left(now)
    }

    fn expire_after_read(
        &self,
        _: &Box<str>,
        entry: &Entry,
        now: Instant,
        left: Option<Duration>,
        _: Instant,
    ) -> Option<Duration> {
        if entry.idle.is_some() { entry.left(now) } else { left }
    }
}

impl MemoryCache {
    /// Keeps values of up to `max_bytes` in all, with their keys and what it takes to keep them.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self::build(max_bytes, None)
    }

    /// The same, and tells of each value that goes.
    #[must_use]
    pub fn with_listener(max_bytes: u64, on_removal: OnRemoval) -> Self {
        Self::build(max_bytes, Some(on_removal))
    }

    fn build(max_bytes: u64, on_removal: Option<OnRemoval>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let counters = Arc::new(Counters::new(on_removal));
        let tell = {
            let counters = Arc::clone(&counters);
            move |key: Arc<Box<str>>, _: Entry, cause| counters.gone(&key, cause_of(cause))
        };
        let builder = moka::sync::Cache::<Box<str>, Entry>::builder().max_capacity(max_bytes);
        let builder = builder.weigher(|key, entry| u32::try_from(key.len() + entry.value.len() + ENTRY).unwrap_or(u32::MAX));
        let entries = builder.expire_after(Terms).eviction_listener(tell).build();
        let info = BackendInfo::new("memory", format!("cache-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let (life, open) = (Arc::default(), OpenFlag::default());
        Self { shared: Arc::new(Shared { entries, counters, life, info, open }) }
    }

    /// The value of a key.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<Cached> {
        let found = self.find_quietly(key);
        self.shared.counters.read(found.is_some());
        found
    }

    /// The same, not counted: who asks goes on elsewhere.
    pub(crate) fn find_quietly(&self, key: &str) -> Option<Cached> {
        let Entry { value, refresh_at, life, .. } = self.shared.entries.get(key)?;
        (life == self.shared.life.load(Ordering::Acquire)).then_some(Cached { value, refresh_at, left: None })
    }

    /// Keeps a value in place of the one that was there.
    pub fn insert(&self, key: &str, value: impl Into<Bytes>, options: &SetOptions) {
        self.shared.counters.set();
        if options.is_over() {
            self.shared.entries.invalidate(key);
            return;
        }
        let until = options.ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        let life = self.shared.life.load(Ordering::Acquire);
        let entry = Entry { value: value.into(), refresh_at: options.refresh_at, life, until, idle: options.idle };
        self.shared.entries.insert(key.into(), entry);
    }

    /// Removes a value. `false`: there was none.
    pub fn forget(&self, key: &str) -> bool {
        // What moka removes may have been over already.
        let there = self.find_quietly(key).is_some();
        self.shared.entries.invalidate(key);
        there
    }

    /// Removes all values.
    pub fn forget_all(&self) {
        self.shared.life.fetch_add(1, Ordering::AcqRel);
        self.shared.entries.invalidate_all();
    }
}

fn cause_of(cause: notification::RemovalCause) -> RemovalCause {
    match cause {
        notification::RemovalCause::Expired => RemovalCause::Expired,
        notification::RemovalCause::Explicit => RemovalCause::Removed,
        notification::RemovalCause::Replaced => RemovalCause::Replaced,
        notification::RemovalCause::Size => RemovalCause::Evicted,
    }
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache").field("info", &self.shared.info).finish_non_exhaustive()
    }
}

#[async_trait]
impl Cache for MemoryCache {
    fn info(&self) -> &BackendInfo {
        &self.shared.info
    }

    fn capabilities(&self) -> &CacheCapabilities {
        &CAPABILITIES
    }

    fn look(&self, key: &str) -> Look {
        if self.shared.open.is_closed() {
            return Look::Ask;
        }
        self.find(key).map_or(Look::Miss, Look::Hit)
    }

    async fn get(&self, key: &str) -> Result<Option<Cached>> {
        self.shared.open.check()?;
        Ok(self.find(key))
    }

    async fn set(&self, key: &str, value: Bytes, options: &SetOptions) -> Result<()> {
        self.shared.open.check()?;
        self.insert(key, value, options);
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        self.shared.open.check()?;
        Ok(self.forget(key))
    }

    async fn clear(&self) -> Result<()> {
        self.shared.open.check()?;
        self.forget_all();
        Ok(())
    }

    /// Does first what moka has put off, so that the numbers are those of now.
    async fn stats(&self) -> Result<CacheStats> {
        self.shared.open.check()?;
        let entries = &self.shared.entries;
        entries.run_pending_tasks();
        Ok(self.shared.counters.stats(Some(entries.entry_count()), Some(entries.weighted_size())))
    }

    async fn ping(&self) -> Result<()> {
        self.shared.open.check()
    }

    async fn close(&self) -> Result<()> {
        self.shared.open.close();
        self.forget_all();
        Ok(())
    }
}
