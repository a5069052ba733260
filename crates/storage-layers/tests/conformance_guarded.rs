//! A guarded backend against the definition of the traits: a policy must not change what the suites see.

use storage_conformance::{DriverHarness, Harness, LayeredHarness, Place};
use storage_core::Result;
use storage_fs::FsDriver;
use storage_layers::guarded::guard;
use storage_layers::policy::{Breaker, Concurrency, Policy, RateLimit, Retry, Timeouts};
use storage_memory::MemoryDriver;

fn policy() -> Result<Policy> {
    Policy::builder()
        .timeouts(Timeouts::default())
        .deadline(std::time::Duration::from_secs(600))
        .retry(Retry::default())
        .breaker(Breaker::default())
        .rate(RateLimit::per_second(1_000_000))
        .concurrency(Concurrency::default())
        .build()
}

/// Another harness, with everything that it opens behind a policy of every part.
fn guarded(inner: impl Harness) -> impl Harness {
    LayeredHarness::new(inner, |backends, _| Ok(guard(backends, &policy()?, Some("conformance"))))
}

mod memory {
    use super::*;

    fn harness() -> impl Harness {
        let broken = || Ok(Place::url("memory://#1"));
        let memory = DriverHarness::new(MemoryDriver, || Ok(Place::unique_name("memory://")));
        guarded(memory.manual_clock().ephemeral().broken(broken))
    }

    storage_conformance::test_records!(harness());
    storage_conformance::test_transactions!(harness());
    storage_conformance::test_queues!(harness());
    storage_conformance::test_blobs!(harness());
}

mod fs {
    use super::*;

    fn harness() -> impl Harness {
        let fs = DriverHarness::new(FsDriver, || Place::in_folder(|folder| format!("fs://{}", folder.join("store").display())));
        let broken = || {
            Place::in_folder(|folder| {
                let file = folder.join("file");
                // Where this fails, there is no folder to open either, and the case finds what it looks for.
                let _ = std::fs::write(&file, "not a folder");
                format!("fs://{}", file.display())
            })
        };
        guarded(fs.manual_clock().broken(broken))
    }

    storage_conformance::test_records!(harness());
    storage_conformance::test_transactions!(harness());
    storage_conformance::test_queues!(harness());
    storage_conformance::test_blobs!(harness());
}
