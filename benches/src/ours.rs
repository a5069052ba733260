//! The toolkit's side of every section, through the stores that an application holds.

pub mod blobs;
pub mod files;
pub mod layers;
pub mod memory;
pub mod movers;
pub mod queue;
pub mod records;
pub mod tables;

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;
use storage_core::{Backends, Driver, DriverConfig, RecordStore};

/// Opens a store below `dir`, with options.
pub(crate) async fn open(driver: &dyn Driver, url: &str, options: &[(&str, Value)]) -> Result<Backends> {
    let mut config = DriverConfig::from_url(url);
    for (name, value) in options {
        config.options.insert((*name).to_owned(), value.clone());
    }
    Ok(driver.open(&config).await?)
}

/// The address of an SQLite file in `dir`.
pub(crate) fn sqlite_url(dir: &Path) -> String {
    format!("sqlite:///{}/ours.db", dir.display())
}

/// The records of what was opened.
pub(crate) fn records(backends: &Backends) -> Result<RecordStore> {
    let records = backends.records.clone().context("the driver has no records")?;
    Ok(RecordStore::new(records))
}
