//! The queue suite against a real server.

mod common;

use storage_conformance::{DriverHarness, Place};
use storage_nats::NatsDriver;

fn harness() -> DriverHarness<NatsDriver> {
    let address = common::address();
    let unavailable = address.as_ref().err().cloned();
    let address = address.unwrap_or_default();
    let place = move || Ok(Place::url(&common::fresh(&address)));
    // Nothing listens on port 1.
    DriverHarness::new(NatsDriver, place).broken(|| Ok(Place::url("nats://127.0.0.1:1"))).unavailable(unavailable)
}

storage_conformance::test_queues!(harness());
