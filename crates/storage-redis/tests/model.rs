//! Random operations on a store here and on the model in memory, every answer compared.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use async_trait::async_trait;
use common::{apart, harness, shared};
use storage_conformance::{Harness, Place, model};
use storage_core::{Backends, Driver as _, DriverConfig, Result};
use storage_redis::RedisDriver;

/// Records alone: their time can be moved by hand, that of queues is the server's.
struct RecordsAlone(std::result::Result<String, String>);

#[async_trait]
impl Harness for RecordsAlone {
    async fn unavailable(&self) -> Option<String> {
        self.0.as_ref().err().cloned()
    }

    async fn place(&self) -> Result<Place> {
        Ok(Place::url(&apart(self.0.as_deref().unwrap_or_default())))
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        Ok(Backends { queue: None, ..RedisDriver.open(config).await? })
    }

    fn takes_manual_clock(&self) -> bool {
        true
    }
}

#[test]
fn a_store_agrees_with_the_model() {
    model::compare_with_memory(&harness(shared("XTASK_TEST_REDIS"), ""), 3_000, 1);
}

#[test]
fn a_store_in_a_cluster_agrees_with_the_model() {
    model::compare_with_memory(&harness(shared("XTASK_TEST_REDIS_CLUSTER"), ""), 3_000, 2);
}

#[test]
fn records_that_expire_agree_with_the_model() {
    model::compare_with_memory(&RecordsAlone(shared("XTASK_TEST_REDIS")), 3_000, 3);
}

#[test]
fn records_that_expire_in_a_cluster_agree_with_the_model() {
    model::compare_with_memory(&RecordsAlone(shared("XTASK_TEST_REDIS_CLUSTER")), 3_000, 4);
}

#[test]
#[ignore = "soak"]
fn soak_a_store_agrees_with_the_model() {
    for seed in 10..20 {
        model::compare_with_memory(&harness(shared("XTASK_TEST_REDIS"), ""), 5_000, seed);
        model::compare_with_memory(&RecordsAlone(shared("XTASK_TEST_REDIS")), 5_000, seed);
    }
}
