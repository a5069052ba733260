//! The memory backend against the definition of the traits.

use storage_conformance::{DriverHarness, Harness, Place};
use storage_memory::MemoryDriver;

fn harness() -> impl Harness {
    // Memory can't be out of reach: what comes nearest is a name that is not to be had.
    let broken = || Ok(Place::url("memory://#1"));
    DriverHarness::new(MemoryDriver, || Ok(Place::unique_name("memory://"))).manual_clock().ephemeral().broken(broken)
}

storage_conformance::test_records!(harness());
storage_conformance::test_transactions!(harness());
storage_conformance::test_queues!(harness());
storage_conformance::test_blobs!(harness());
