//! [`TieredCache`]: a cache in memory in front of a larger one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use storage_core::{BackendInfo, Cache, CacheCapabilities, CacheStats, Cached, Look, Result, SetOptions};

use crate::MemoryCache;
use crate::counters::Counters;
use crate::epochs::{DOUBT, Epochs};

/// How many keys' hits are remembered.
const REMEMBERED: u64 = 1 << 16;

/// When values of the second tier get into the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierOptions {
    /// With so many hits in the second tier. 1: with the first; 0 as 1.
    pub promote_after: u32,
    /// Within so long of each other.
    pub within: Duration,
    /// For so long at most a value stays in the first tier before the second is asked again.
    pub max_age: Duration,
}

impl Default for TierOptions {
    /// With the second hit within ten minutes, for a minute.
    fn default() -> Self {
        Self { promote_after: 2, within: Duration::from_secs(600), max_age: Duration::from_secs(60) }
    }
}

/// A cache in memory in front of a larger one: files, or one that processes share.
///
/// A value is set in both. One that is found in the second tier gets into the first once it has been found there [often enough](TierOptions::promote_after), so that what is read once does not push out
/// what is read all the time. Nobody reads from the first tier what the second one has no more: a change takes the value out of the first, and a promotion that raced it is
/// not done. What other processes change in the second tier shows after [`max_age`](TierOptions::max_age) at the latest.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let dir = folder.path().join("cache");
/// use std::sync::Arc;
/// use storage_cache::{CacheStore, FileCache, FileCacheOptions, MemoryCache, TierOptions, TieredCache};
/// use storage_core::{Clock, SetOptions};
///
/// let files = FileCache::new(FileCacheOptions::new(dir), Clock::system());
/// let tiers = TieredCache::new(MemoryCache::new(64 << 20), Arc::new(files), TierOptions::default());
/// let cache = CacheStore::new(Arc::new(tiers));
/// cache.set("greeting", "hello", &SetOptions::default()).await?;
/// assert_eq!(cache.get("greeting").await?, Some("hello".into()));
/// # Ok::<(), storage_core::Error>(()) })?;
/// # Ok::<(), storage_core::Error>(())
/// ```
pub struct TieredCache {
    first: MemoryCache,
    second: Arc<dyn Cache>,
    options: TierOptions,
    hits: moka::sync::Cache<Box<str>, u32>,
    epochs: Epochs,
    counters: Counters,
    info: BackendInfo,
    capabilities: CacheCapabilities,
}

impl TieredCache {
    /// `first` in front of `second`. `first` belongs to this cache alone: nobody else may change it.
    pub fn new(first: MemoryCache, second: Arc<dyn Cache>, options: TierOptions) -> Self {
        let info = BackendInfo::new(format!("memory+{}", second.info().driver), second.info().location.clone());
        let capabilities = *second.capabilities();
        let hits = moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_idle(options.within).build();
        Self { first, second, options, hits, epochs: Epochs::new(DOUBT), counters: Counters::new(None), info, capabilities }
    }

    /// True with the hit that is enough.
    fn is_wanted(&self, key: &str) -> bool {
        if self.options.promote_after <= 1 {
            return true;
        }
        let hits = self.hits.get(key).unwrap_or_default() + 1;
        if hits >= self.options.promote_after {
            self.hits.invalidate(key);
            return true;
        }
        self.hits.insert(key.into(), hits);
        false
    }

    /// How long a value stays in the first tier whose time still lasts so long.
    fn max_age(&self, left: Option<Duration>) -> Duration {
        left.map_or(self.options.max_age, |left| left.min(self.options.max_age))
    }

    async fn find(&self, key: &str) -> Result<Option<Cached>> {
        if let Some(cached) = self.first.find_quietly(key) {
            return Ok(Some(cached));
        }
        let seen = self.epochs.seen(key);
        let Some(cached) = self.second.get(key).await? else { return Ok(None) };
        if let Some(seen) = seen
            && self.is_wanted(key)
        {
            let options = SetOptions { refresh_at: cached.refresh_at, ..SetOptions::ttl(self.max_age(cached.left)) };
            self.epochs.keep(key, seen, || self.first.insert(key, cached.value.clone(), &options));
        }
        Ok(Some(cached))
    }
}

impl fmt::Debug for TieredCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredCache")
            .field("first", &self.first)
            .field("second", &self.second)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Cache for TieredCache {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn capabilities(&self) -> &CacheCapabilities {
        &self.capabilities
    }

    fn look(&self, key: &str) -> Look {
        match self.first.find_quietly(key) {
            Some(cached) => {
                self.counters.read(true);
                Look::Hit(cached)
            }
            None => Look::Ask,
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Cached>> {
        let found = self.find(key).await?;
        self.counters.read(found.is_some());
        Ok(found)
    }

    async fn set(&self, key: &str, value: Bytes, options: &SetOptions) -> Result<()> {
        self.counters.set();
        let changing = self.epochs.begin([key]);
        self.first.forget(key);
        self.second.set(key, value.clone(), options).await?;
        let max_age = self.max_age(options.ttl);
        changing.end_with(|| self.first.insert(key, value, &SetOptions { ttl: Some(max_age), ..*options }));
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        let mut changing = self.epochs.begin([key]);
        self.first.forget(key);
        let removed = self.second.remove(key).await?;
        changing.known();
        Ok(removed)
    }

    async fn clear(&self) -> Result<()> {
        let mut changing = self.epochs.begin_all();
        self.first.forget_all();
        self.second.clear().await?;
        changing.known();
        Ok(())
    }

    /// Reads and sets of both tiers as one; what there is, and what went, is of the second.
    async fn stats(&self) -> Result<CacheStats> {
        let second = self.second.stats().await?;
        let own = self.counters.stats(second.entries, second.bytes);
        Ok(CacheStats { removals: second.removals, ..own })
    }

    async fn ping(&self) -> Result<()> {
        self.second.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.first.close().await?;
        self.second.close().await
    }
}
