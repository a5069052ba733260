//! Each service against the definition of the traits: blobs, and the records on them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;
// Named so that no report can take it for the service.
#[path = "gcs_fake/mod.rs"]
mod fake;

use common::services::{apache, azurite, moto, seaweedfs};
use storage_conformance::{DriverHarness, Place};
use storage_core::DriverConfig;
use storage_object::GcsDriver;

/// The suites of a service.
macro_rules! test_service {
    ($name:ident, $harness:expr) => {
        mod $name {
            use super::*;
            storage_conformance::test_blobs!($harness);
            storage_conformance::test_records!($harness);
            storage_conformance::test_transactions!($harness);
        }
    };
}

test_service!(s3_seaweedfs, seaweedfs());
test_service!(s3_moto, moto());
test_service!(azure_azurite, azurite());

// WebDAV has no conditions that records could be kept by.
mod http_apache {
    use super::*;
    storage_conformance::test_blobs!(apache());
}

/// Google Cloud Storage, of which there is a fake alone.
fn gcs() -> DriverHarness<GcsDriver> {
    let with =
        |url: &str, endpoint: &str| DriverConfig::from_url(&format!("{url}?endpoint={endpoint}&token={}&project=p", fake::TOKEN));
    let place = move || {
        let mut place = Place::unique_name("gs://");
        place.config = with(&place.config.url.clone().unwrap_or_default(), fake::address());
        Ok(place)
    };
    let broken = move || {
        let mut place = Place::unique_name("gs://");
        place.config = with("gs://nowhere", "http://127.0.0.1:1");
        Ok(place)
    };
    DriverHarness::new(GcsDriver, place).broken(broken).manual_clock().few_queries()
}

test_service!(gcs_fake, gcs());
