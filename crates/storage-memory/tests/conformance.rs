//! The memory backend against the definition of the traits.

use storage_conformance::{DriverHarness, Harness, Place};
use storage_memory::MemoryDriver;

fn harness() -> impl Harness {
    DriverHarness::new(MemoryDriver, || Ok(Place::unique_name("memory://"))).manual_clock().ephemeral()
}

storage_conformance::test_records!(harness());
storage_conformance::test_transactions!(harness());
storage_conformance::test_queues!(harness());
storage_conformance::test_blobs!(harness());
