//! Opening by configuration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use async_trait::async_trait;
use storage_core::{Backends, Driver, DriverConfig, Error, OptionSpec, Result, Surfaces};

use crate::MemoryStore;
use crate::store::Shared;

/// Opens stores in memory: `memory:` a fresh one each time, `memory://name` the one of that name in this process.
///
/// A named store lives as long as a handle on it does, and keeps the clock that it was first opened with.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryDriver;

impl MemoryDriver {
    /// The store that `config` speaks of.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config) for an option: there are none.
    pub fn store(&self, config: &DriverConfig) -> Result<MemoryStore> {
        self.check_options(config).map_err(|e| e.with_operation("memory.open"))?;
        let name = config.address().unwrap_or_default();
        if name.is_empty() {
            return Ok(MemoryStore::with_clock(config.clock.clone()));
        }
        if name.starts_with('#') {
            return Err(Error::config(format!("`{name}` can't name a store in memory: `#` begins the names of unnamed ones"))
                .with_operation("memory.open"));
        }
        static NAMED: OnceLock<Mutex<HashMap<String, Weak<Shared>>>> = OnceLock::new();
        let mut named = NAMED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = named.get(name).and_then(Weak::upgrade) {
            return Ok(MemoryStore(shared));
        }
        named.retain(|_, store| store.strong_count() > 0);
        let store = MemoryStore::named(name.to_owned(), config.clock.clone());
        named.insert(name.to_owned(), Arc::downgrade(&store.0));
        Ok(store)
    }
}

#[async_trait]
impl Driver for MemoryDriver {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["memory"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { records: true, queue: true, blobs: true }
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        Ok(self.store(config)?.backends())
    }
}

#[cfg(test)]
mod tests {
    use storage_core::{BlobPath, ErrorKind};

    use super::*;

    async fn blobs(url: &str) -> Arc<dyn storage_core::BlobBackend> {
        MemoryDriver.open(&DriverConfig::from_url(url)).await.unwrap().blobs.unwrap()
    }

    async fn has(url: &str) -> bool {
        blobs(url).await.head(&BlobPath::new("a").unwrap()).await.is_ok()
    }

    #[tokio::test]
    async fn a_name_is_a_store_and_none_is_a_fresh_one() {
        let named = blobs("memory://tests/one").await;
        let unnamed = blobs("memory:").await;
        for store in [&named, &unnamed] {
            store.put(&BlobPath::new("a").unwrap(), "x".into(), &storage_core::PutOptions::default()).await.unwrap();
        }
        assert!(has("memory://tests/one").await);
        assert!(!has("memory://tests/two").await && !has("memory:").await && !has("memory://").await);
        assert_ne!(unnamed.info(), blobs("memory:").await.info());
        drop(named);
        assert!(!has("memory://tests/one").await, "it ends with the last handle");
    }

    #[tokio::test]
    async fn options_and_reserved_names_are_refused() {
        for url in ["memory:?size=1", "memory://#1"] {
            let error = MemoryDriver.open(&DriverConfig::from_url(url)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        }
    }
}
