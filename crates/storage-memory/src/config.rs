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
