//! The caches against the definition of their trait.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use async_trait::async_trait;
use storage_cache::{FileCache, FileCacheOptions, MemoryCache, TierOptions, TieredCache};
use storage_conformance::Place;
use storage_conformance::caches::CacheHarness;
use storage_core::{Cache, Clock, Result};

mod memory {
    use super::*;

    struct Memory;

    #[async_trait]
    impl CacheHarness for Memory {
        async fn place(&self) -> Result<Place> {
            Ok(Place::unique_name("cache"))
        }

        async fn open(&self, _: &Place) -> Result<Arc<dyn Cache>> {
            Ok(Arc::new(MemoryCache::new(16 << 20)))
        }
    }

    storage_conformance::test_caches!(Memory);
}

mod file {
    use super::*;

    struct File;

    #[async_trait]
    impl CacheHarness for File {
        async fn place(&self) -> Result<Place> {
            Place::in_folder(|folder| folder.join("cache").display().to_string())
        }

        async fn open(&self, place: &Place) -> Result<Arc<dyn Cache>> {
            Ok(Arc::new(file_cache(place)))
        }
    }

    storage_conformance::test_caches!(File);
}

mod tiered {
    use super::*;

    struct Tiered(u32);

    #[async_trait]
    impl CacheHarness for Tiered {
        async fn place(&self) -> Result<Place> {
            Place::in_folder(|folder| folder.join("cache").display().to_string())
        }

        async fn open(&self, place: &Place) -> Result<Arc<dyn Cache>> {
            let options = TierOptions { promote_after: self.0, ..TierOptions::default() };
            Ok(Arc::new(TieredCache::new(MemoryCache::new(16 << 20), Arc::new(file_cache(place)), options)))
        }
    }

    mod at_once {
        use super::*;
        storage_conformance::test_caches!(Tiered(1));
    }

    mod with_the_second_hit {
        use super::*;
        storage_conformance::test_caches!(Tiered(2));
    }
}

fn file_cache(place: &Place) -> FileCache {
    FileCache::new(FileCacheOptions::new(place.config.url.as_deref().unwrap()), Clock::system())
}
