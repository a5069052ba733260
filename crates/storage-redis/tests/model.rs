//! Random operations on a queue here and on the model in memory, every answer compared. Records, which the comparison takes too, are in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use async_trait::async_trait;
use common::{apart, shared};
use storage_conformance::{Harness, Place, model};
use storage_core::{Backends, Driver as _, DriverConfig, Result};
use storage_memory::MemoryStore;
use storage_redis::RedisDriver;

struct WithRecords(std::result::Result<String, String>);

#[async_trait]
impl Harness for WithRecords {
    async fn unavailable(&self) -> Option<String> {
        self.0.as_ref().err().cloned()
    }

    async fn place(&self) -> Result<Place> {
        Ok(Place::url(&apart(self.0.as_deref().unwrap_or_default())))
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let blobs = MemoryStore::new().backends().blobs.expect("memory has blobs");
        let records = storage_object::records::serve(blobs, &DriverConfig::default())?.records;
        Ok(Backends { records, ..RedisDriver.open(config).await? })
    }

    /// The records don't.
    fn survives_close(&self) -> bool {
        false
    }
}

#[test]
fn a_queue_agrees_with_the_model() {
    model::compare_with_memory(&WithRecords(shared("XTASK_TEST_REDIS")), 3_000, 1);
}

#[test]
fn a_queue_of_a_cluster_agrees_with_the_model() {
    model::compare_with_memory(&WithRecords(shared("XTASK_TEST_REDIS_CLUSTER")), 3_000, 2);
}

#[test]
#[ignore = "soak"]
fn soak_a_queue_agrees_with_the_model() {
    for seed in 10..20 {
        model::compare_with_memory(&WithRecords(shared("XTASK_TEST_REDIS")), 5_000, seed);
    }
}
