//! A guarded backend against the definition of the traits: a policy must not change what the suites see.

use async_trait::async_trait;
use storage_conformance::{DriverHarness, Harness, Place};
use storage_core::{Backends, DriverConfig, Result};
use storage_fs::FsDriver;
use storage_layers::guarded::guard;
use storage_layers::policy::{Breaker, Concurrency, Policy, RateLimit, Retry, Timeouts};
use storage_memory::MemoryDriver;

/// Another harness, with everything that it opens behind a policy of every part.
struct GuardedHarness<H>(H);

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

#[async_trait]
impl<H: Harness> Harness for GuardedHarness<H> {
    async fn unavailable(&self) -> Option<String> {
        self.0.unavailable().await
    }

    async fn place(&self) -> Result<Place> {
        self.0.place().await
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        Ok(guard(self.0.open(config).await?, &policy()?, Some("conformance")))
    }

    fn takes_manual_clock(&self) -> bool {
        self.0.takes_manual_clock()
    }

    fn survives_close(&self) -> bool {
        self.0.survives_close()
    }

    async fn broken_place(&self) -> Result<Option<Place>> {
        self.0.broken_place().await
    }
}

mod memory {
    use super::*;

    fn harness() -> impl Harness {
        let broken = || Ok(Place::url("memory://#1"));
        let memory = DriverHarness::new(MemoryDriver, || Ok(Place::unique_name("memory://")));
        GuardedHarness(memory.manual_clock().ephemeral().broken(broken))
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
        GuardedHarness(fs.manual_clock().broken(broken))
    }

    storage_conformance::test_records!(harness());
    storage_conformance::test_transactions!(harness());
    storage_conformance::test_queues!(harness());
    storage_conformance::test_blobs!(harness());
}
