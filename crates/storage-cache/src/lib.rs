//! Caches: values in memory, in files and in tiers, with loads that are done once; and backends that keep what others hold.
//!
//! A [`Cache`](storage_core::Cache) keeps bytes by key: [`MemoryCache`] in this process, [`FileCache`] in a folder, where they survive restarts, and [`TieredCache`] in one in front of the
//! other. A program holds a [`CacheStore`] over one of them, which loads what is missing: one load a key, whoever asks, and nothing kept that was overtaken by a change.
//!
//! [`CachedRecords`] and [`CachedBlobs`] are backends in front of backends. No read that begins after a write through them answers what was before it, in this process.
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use std::sync::Arc;
//! use std::time::Duration;
//! use storage_cache::{CacheStore, MemoryCache};
//! use storage_core::SetOptions;
//!
//! let cache = CacheStore::new(Arc::new(MemoryCache::new(64 << 20)));
//! let minute = SetOptions::ttl(Duration::from_secs(60));
//! let rates = cache.get_or_load("rates/today", &minute, || async { Ok("1.0842".into()) }).await?;
//! assert_eq!(rates, "1.0842");
//! assert_eq!(cache.load_stats().loads, 1);
//! # Ok::<(), storage_core::Error>(()) })?;
//! # Ok::<(), storage_core::Error>(())
//! ```

mod blobs;
mod counters;
mod epochs;
mod file;
mod folder;
mod memory;
mod order;
mod records;
mod store;
mod tiered;

pub use blobs::{CacheOptions, CachedBlobs, FileOptions};
pub use counters::OnRemoval;
pub use file::{FileCache, FileCacheOptions};
pub use memory::MemoryCache;
pub use records::{CachedRecords, RecordCacheOptions};
pub use store::{CacheStore, LoadStats, RefreshOptions};
pub use tiered::{TierOptions, TieredCache};
