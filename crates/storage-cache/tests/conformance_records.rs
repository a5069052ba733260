//! Cached records against the definition of the traits: a cache must not change what the suites see.

use std::sync::Arc;

use storage_cache::{CachedRecords, RecordCacheOptions};
use storage_conformance::{DriverHarness, Harness, LayeredHarness, Place};
use storage_core::{Backends, RecordBackend};
use storage_memory::MemoryDriver;

fn harness() -> impl Harness {
    let broken = || Ok(Place::url("memory://#1"));
    let memory = DriverHarness::new(MemoryDriver, || Ok(Place::unique_name("memory://")));
    LayeredHarness::new(memory.manual_clock().ephemeral().broken(broken), |backends, config| {
        let cached = |records| CachedRecords::new(records, RecordCacheOptions::default(), config.clock.clone());
        let records = backends.records.map(|records| Arc::new(cached(records)) as Arc<dyn RecordBackend>);
        Ok(Backends { records, ..backends })
    })
}

storage_conformance::test_records!(harness());
storage_conformance::test_transactions!(harness());
