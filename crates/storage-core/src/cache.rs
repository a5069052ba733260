//! Caches: values by key that may be gone at any time, and are never wrong.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{BackendInfo, Error, Result};

/// The longest key, in bytes.
pub const MAX_CACHE_KEY: usize = 1024;

/// What a [`Cache`] can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheCapabilities {
    /// [`SetOptions::idle`] holds.
    pub idle: bool,
    /// What was kept is there after the process has ended, however it ended.
    pub persistent: bool,
    /// Other processes keep and remove the same values.
    pub shared: bool,
}

/// How long a value is kept. The default: until there is no room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// For so long at most. Zero: not at all.
    pub ttl: Option<Duration>,
    /// For so long after its last use. Where [`idle`](CacheCapabilities::idle) is declared.
    pub idle: Option<Duration>,
    /// From when on whoever reads the value should fetch it anew. Caches keep it beside the value, and do nothing about it.
    pub refresh_at: Option<DateTime<Utc>>,
}

impl SetOptions {
    /// Kept for so long at most.
    #[must_use]
    pub fn ttl(ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..Self::default() }
    }

    /// Kept for so long after the last use at most.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = Some(idle);
        self
    }

    /// True where there is nothing to be kept, not even for a moment.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ttl == Some(Duration::ZERO) || self.idle == Some(Duration::ZERO)
    }
}

/// A value that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The value.
    pub value: Bytes,
    /// From when on it should be fetched anew.
    pub refresh_at: Option<DateTime<Utc>>,
    /// How long its time still lasts. `None`: for ever, or the cache does not tell.
    pub left: Option<Duration>,
}

impl Cached {
    /// True where it should be fetched anew.
    #[must_use]
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.refresh_at.is_some_and(|at| at <= now)
    }
}

/// What a cache can say at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The value.
    Hit(Cached),
    /// There is none.
    Miss,
    /// It has to be waited for: [`get`](Cache::get) tells.
    Ask,
}

/// Why a value is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalCause {
    /// Its time was over.
    Expired,
    /// There was no room for it.
    Evicted,
    /// It was removed by a call.
    Removed,
    /// Another value took its place.
    Replaced,
    /// What was kept turned out not to be what was given.
    Damaged,
}

/// How many values went for which cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removals {
    /// See [`RemovalCause::Expired`].
    pub expired: u64,
    /// See [`RemovalCause::Evicted`].
    pub evicted: u64,
    /// See [`RemovalCause::Removed`].
    pub removed: u64,
    /// See [`RemovalCause::Replaced`].
    pub replaced: u64,
    /// See [`RemovalCause::Damaged`].
    pub damaged: u64,
}

/// What a cache has done since it was opened, and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStats {
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Values that were given to it.
    pub sets: u64,
    /// How many values there are; `None` where that is not known.
    pub entries: Option<u64>,
    /// How many bytes they take; `None` where that is not known.
    pub bytes: Option<u64>,
    /// What went, and why.
    pub removals: Removals,
}

impl CacheStats {
    /// The part of reads that found a value. `None`: there were no reads.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a part of one needs no more")]
    pub fn hit_ratio(&self) -> Option<f64> {
        let reads = self.hits.saturating_add(self.misses);
        (reads > 0).then(|| self.hits as f64 / reads as f64)
    }
}

/// Values by key: bytes that may be gone at any time, and are never older than the last [`set`](Self::set) or [`remove`](Self::remove) of their key.
///
/// Keys are text of 1 to [`MAX_CACHE_KEY`] bytes; who calls has [checked](check_cache_key) them, and the [options](SetOptions) against the
/// [capabilities](CacheCapabilities).
///
/// Calls about one key take effect in the order in which they were begun, each after those that had ended or were dropped by then: a call that is dropped may still
/// take effect, but never after a later one.
#[async_trait]
pub trait Cache: Debug + Send + Sync + 'static {
    /// Which cache this is.
    fn info(&self) -> &BackendInfo;

    /// What it can do.
    fn capabilities(&self) -> &CacheCapabilities;

    /// What can be said without waiting, and without allocating. To be written where that is something.
    fn look(&self, key: &str) -> Look {
        let _ = key;
        Look::Ask
    }

    /// The value of a key.
    async fn get(&self, key: &str) -> Result<Option<Cached>>;

    /// Keeps a value in place of the one that was there. Where it can't be kept, that one is gone all the same; that is no error.
    async fn set(&self, key: &str, value: Bytes, options: &SetOptions) -> Result<()>;

    /// Removes a value. `false`: there was none. After an error the value may still be there.
    async fn remove(&self, key: &str) -> Result<bool>;

    /// Removes all values.
    async fn clear(&self) -> Result<()>;

    /// What it has done, and holds.
    async fn stats(&self) -> Result<CacheStats>;

    /// Asks for a sign of life.
    async fn ping(&self) -> Result<()>;

    /// Finishes what is under way and lets go of everything. Later calls may fail with [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn close(&self) -> Result<()>;
}

/// Checks a key.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) where it is empty or longer than [`MAX_CACHE_KEY`].
pub fn check_cache_key(key: &str) -> Result<()> {
    if (1..=MAX_CACHE_KEY).contains(&key.len()) {
        return Ok(());
    }
    Err(Error::invalid(format!("the key of a cached value has {} bytes: 1 to {MAX_CACHE_KEY} are allowed", key.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_a_bound() {
        for good in ["a", "ü/ \n", &"x".repeat(MAX_CACHE_KEY)] {
            assert!(check_cache_key(good).is_ok());
        }
        for bad in ["", &"x".repeat(MAX_CACHE_KEY + 1)] {
            assert_eq!(check_cache_key(bad).unwrap_err().kind(), crate::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_ratio_needs_reads() {
        assert_eq!(CacheStats::default().hit_ratio(), None);
        assert_eq!(CacheStats { hits: 3, misses: 1, ..CacheStats::default() }.hit_ratio(), Some(0.75));
    }
}
