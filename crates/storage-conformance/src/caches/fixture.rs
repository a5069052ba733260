//! A fresh cache, and short words for what cases do with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use storage_core::{Cache, Cached, Look, Result, SetOptions};

use super::CacheHarness;
use crate::Place;
use crate::opened::PATIENCE;

/// A fresh cache.
pub(crate) struct Fixture<'h> {
    pub(crate) harness: &'h dyn CacheHarness,
    pub(crate) cache: Arc<dyn Cache>,
    // Dropped last: it removes what is there.
    pub(crate) place: Place,
}

/// Kept until there is no room.
pub(crate) const FOREVER: SetOptions = SetOptions { ttl: None, idle: None, refresh_at: None };

impl<'h> Fixture<'h> {
    pub(crate) async fn open(harness: &'h dyn CacheHarness) -> Result<Self> {
        let place = harness.place().await?;
        let cache = harness.open(&place).await?;
        Ok(Self { harness, cache, place })
    }

    pub(crate) async fn set(&self, key: &str, value: impl Into<Bytes>) -> Result<()> {
        self.cache.set(key, value.into(), &FOREVER).await
    }

    /// The value; what can be said at once must agree with it.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(read(&*self.cache, key).await?.map(|cached| cached.value))
    }

    /// Waits until a value is gone.
    pub(crate) async fn until_gone(&self, key: &str) -> Result<()> {
        let waiting = async {
            while self.cache.get(key).await?.is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("a value does not go when its time is over")
    }
}

/// A read as programs do it: what can be said at once, else what is worth waiting for.
pub(crate) async fn read(cache: &dyn Cache, key: &str) -> Result<Option<Cached>> {
    match cache.look(key) {
        Look::Hit(cached) => Ok(Some(cached)),
        Look::Miss => Ok(None),
        Look::Ask => cache.get(key).await,
    }
}
