//! Caches: what [`Cache`] promises.

pub mod handles;
pub mod order;
pub mod stats;
pub mod time;
pub mod values;

pub(crate) mod fixture;

use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{Cache, Result};

use crate::Place;

/// How the suite opens a cache.
#[async_trait]
pub trait CacheHarness: Send + Sync {
    /// Why no case can run here; `None` where they can.
    async fn unavailable(&self) -> Option<String> {
        None
    }

    /// Makes an empty place for a cache, which nobody else uses.
    async fn place(&self) -> Result<Place>;

    /// Opens the cache at a place, with room for some MiB. Called again for the same place, after the first one was closed, it opens what is left there.
    async fn open(&self, place: &Place) -> Result<Arc<dyn Cache>>;
}
