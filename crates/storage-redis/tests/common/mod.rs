//! Servers for tests: those that `cargo xtask test` starts, which tests share, and own ones that a test may kill.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]

pub(crate) mod server;

use std::process::Command;
use std::time::Duration;

use storage_conformance::{DriverHarness, Place, server as servers};
use storage_core::{Driver as _, DriverConfig, QueueName, QueueSpec, QueueStore, RecordStore, Result};
use storage_redis::RedisDriver;

pub(crate) use storage_conformance::load::{number, schema, table};
pub(crate) use storage_conformance::server::{PATIENCE, until};

/// The address of a shared server, or why there is none.
pub(crate) fn shared(variable: &str) -> std::result::Result<String, String> {
    servers::shared("Redis", "redis", variable)
}

/// The address of the shared single server; skips the test where there is none.
pub(crate) fn single_or_skip() -> Option<String> {
    servers::or_skip(shared("XTASK_TEST_REDIS"))
}

/// `address` with a prefix that nobody else uses.
pub(crate) fn apart(address: &str) -> String {
    let (address, query) = address.split_once('?').unwrap_or((address, ""));
    format!("{address}?prefix={}&{query}", servers::unique_name())
}

/// The suites' harness on servers that are there.
pub(crate) fn harness(address: std::result::Result<String, String>, broken: &'static str) -> DriverHarness<RedisDriver> {
    let unavailable = address.as_ref().err().cloned();
    let address = address.unwrap_or_default();
    let place = move || Ok(Place::url(&apart(&address)));
    DriverHarness::new(RedisDriver, place).broken(move || Ok(Place::url(broken))).unavailable(unavailable)
}

pub(crate) async fn open(url: &str) -> Result<QueueStore> {
    open_with(&DriverConfig::from_url(url)).await
}

/// Gives up early, so that a test sees the end of a wait.
pub(crate) async fn open_impatient(url: &str, timeout: Duration) -> Result<QueueStore> {
    open_with(&DriverConfig { timeout: Some(timeout), ..DriverConfig::from_url(url) }).await
}

/// Records and queues of one store.
pub(crate) struct Store {
    pub(crate) records: RecordStore,
    pub(crate) queue: QueueStore,
}

impl Store {
    pub(crate) async fn open(url: &str) -> Result<Self> {
        Self::with(&DriverConfig::from_url(url)).await
    }

    /// Gives up early, so that a test sees the end of a wait.
    pub(crate) async fn impatient(url: &str, timeout: Duration) -> Result<Self> {
        Self::with(&DriverConfig { timeout: Some(timeout), ..DriverConfig::from_url(url) }).await
    }

    async fn with(config: &DriverConfig) -> Result<Self> {
        let backends = RedisDriver.open(config).await?;
        let records = RecordStore::new(backends.records.expect("records"));
        Ok(Self { records, queue: QueueStore::new(backends.queue.expect("queues")) })
    }
}

/// The prefix of a store at an address made by [`apart`].
pub(crate) fn prefix(url: &str) -> String {
    url.split("prefix=").nth(1).unwrap().trim_end_matches('&').to_owned()
}

async fn open_with(config: &DriverConfig) -> Result<QueueStore> {
    Ok(QueueStore::new(RedisDriver.open(config).await?.queue.expect("queues")))
}

/// A queue without a delivery cap.
pub(crate) async fn queue(store: &QueueStore, name: &str) -> QueueName {
    let name = QueueName::new(name).unwrap();
    store.create_queue(&name, &QueueSpec::default().max_deliveries(None)).await.unwrap();
    name
}

/// What `redis-cli` prints.
pub(crate) fn cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(arguments).output().expect("redis-cli is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// The port of an address of one server.
pub(crate) fn port(address: &str) -> u16 {
    let digits = address.rsplit(':').next().unwrap().split(['/', '?']).next().unwrap();
    digits.parse().unwrap()
}
