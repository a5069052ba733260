//! The backend of `writing-a-backend.md`, against the definition of the traits.

use storage_conformance::{DriverHarness, Harness, Place};

#[path = "../examples/tiny_backend.rs"]
pub mod tiny_backend;
#[path = "../examples/tiny_driver.rs"]
pub mod tiny_driver;

fn harness() -> impl Harness {
    DriverHarness::new(tiny_driver::TinyDriver::default(), || Ok(Place::url("tiny:"))).manual_clock()
}

storage_conformance::test_records!(harness());
storage_conformance::test_transactions!(harness());
