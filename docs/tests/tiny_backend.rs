//! The backend of `writing-a-backend.md`, against the definition of the traits.

use std::sync::Arc;

use storage_conformance::{DriverHarness, Harness, Place};
use storage_core::Result;
use storage_facade::{Component, Registry, Storage};

#[path = "../examples/tiny_backend.rs"]
pub mod tiny_backend;
#[path = "../examples/tiny_driver.rs"]
pub mod tiny_driver;

fn harness() -> impl Harness {
    DriverHarness::new(tiny_driver::TinyDriver::default(), || Ok(Place::unique_name("tiny:")))
        .manual_clock()
        .broken(|| Ok(Place::url("tiny:no name")))
}

storage_conformance::test_records!(harness());
storage_conformance::test_transactions!(harness());

/// A program opens it as any other backend.
#[tokio::test]
async fn configuration_opens_it() -> Result<()> {
    let mut registry = Registry::default();
    registry.register(Arc::new(tiny_driver::TinyDriver::default()));
    let builder = Storage::builder().no_file().no_env().registry(registry);
    let storage = builder.set("records", "tiny:shop").open().await?;
    assert_eq!(storage.info(Component::Records).await?.driver, "tiny");
    Ok(())
}
