//! The brokers that tests use: one that `cargo xtask test` starts for all, and ones of their own for those that break theirs.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod broker;

use std::sync::Arc;

use storage_conformance::{DriverHarness, Place};
use storage_core::{Driver as _, DriverConfig, QueueStore};
use storage_queue_amqp::AmqpDriver;

const VARIABLE: &str = "XTASK_TEST_RABBITMQ";

/// The address of the broker for all, or why there is none.
pub(crate) fn address() -> Result<String, String> {
    std::env::var(VARIABLE).map_err(|_| {
        format!("no RabbitMQ: `cargo xtask test --backend queue-amqp` starts it where it is installed (`--all` installs it), or set {VARIABLE}")
    })
}

/// Its address; skips the test where there is none.
pub(crate) fn address_or_skip() -> Option<String> {
    address().map_err(|reason| storage_conformance::skip(&reason)).ok()
}

/// A prefix that nobody else has, also on a broker that outlives the tests.
pub(crate) fn prefix() -> String {
    format!("t{}.", uuid::Uuid::now_v7().simple())
}

/// The suites on queues of a type.
pub(crate) fn harness(options: &'static str) -> DriverHarness<AmqpDriver> {
    let address = address();
    let unavailable = address.as_ref().err().cloned();
    let address = address.unwrap_or_default();
    let place = move || Ok(Place::url(&format!("{address}?prefix={}{options}", prefix())));
    // Nothing listens on port 1.
    let broken = || Ok(Place::url("amqp://127.0.0.1:1"));
    DriverHarness::new(AmqpDriver, place).broken(broken).unavailable(unavailable)
}

/// The queues at an address.
pub(crate) async fn open(url: &str) -> QueueStore {
    let opened = AmqpDriver.open(&DriverConfig::from_url(url)).await.expect("it opens");
    QueueStore::new(Arc::clone(opened.queue.as_ref().expect("it opens queues")))
}
