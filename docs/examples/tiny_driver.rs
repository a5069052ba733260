//! How configuration opens the tiny backend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use storage_core::{Backends, Driver, DriverConfig, Error, OptionSpec, Result, Surfaces};

use crate::tiny_backend::TinyRecords;

/// Opens `tiny:name`: for one driver, handles of one name are the same store.
#[derive(Debug, Default)]
pub struct TinyDriver(Mutex<HashMap<String, Arc<TinyRecords>>>);

#[async_trait]
impl Driver for TinyDriver {
    fn name(&self) -> &'static str {
        "tiny"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["tiny"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { records: true, ..Surfaces::default() }
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let name = config.address().unwrap_or_default();
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Error::config(format!("{name:?} can't name a tiny store: use letters, digits and `-`")));
        }
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || Arc::new(TinyRecords::new(name, config.clock.clone()));
        let records = Arc::clone(stores.entry(name.to_owned()).or_insert_with(open));
        Ok(Backends { records: Some(records), ..Backends::default() })
    }
}
