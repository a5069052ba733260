//! Random operations on a store here and on the model in memory, every answer compared.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use async_trait::async_trait;
use storage_conformance::{Harness, Place, model};
use storage_core::{Backends, Driver as _, DriverConfig, Result};
use storage_nats::NatsDriver;

/// Records alone: their time can be moved by hand, that of queues is the server's.
struct RecordsAlone;

#[async_trait]
impl Harness for RecordsAlone {
    async fn unavailable(&self) -> Option<String> {
        common::address().err()
    }

    async fn place(&self) -> Result<Place> {
        Ok(Place::url(&common::fresh(&common::address().unwrap_or_default())))
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        Ok(Backends { records: NatsDriver.open(config).await?.records, ..Backends::default() })
    }

    fn takes_manual_clock(&self) -> bool {
        true
    }
}

#[test]
fn records_agree_with_the_model() {
    model::compare_with_memory(&RecordsAlone, 2_000, 1);
}

#[test]
fn filters_find_what_the_model_finds() {
    model::compare_filters_with_memory(&RecordsAlone, 600, 1);
}

#[test]
#[ignore = "soak"]
fn soak_records_agree_with_the_model() {
    for seed in 10..20 {
        model::compare_with_memory(&RecordsAlone, 5_000, seed);
    }
}
