//! How configuration opens the tiny backend.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use storage_core::{Backends, Driver, DriverConfig, OptionSpec, Result, Surfaces};

use crate::tiny_backend::TinyRecords;

/// Opens `tiny:`. One driver holds one store, so two handles of one driver see the same records.
#[derive(Debug, Default)]
pub struct TinyDriver(OnceLock<Arc<TinyRecords>>);

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
        let records = self.0.get_or_init(|| Arc::new(TinyRecords::new(config.clock.clone())));
        Ok(Backends { records: Some(Arc::clone(records) as _), ..Backends::default() })
    }
}
