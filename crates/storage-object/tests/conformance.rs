//! Each service against the definition of the traits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;
// Named so that no report can take it for the service.
#[path = "gcs_fake/mod.rs"]
mod fake;

use common::{Server, s3_options};
use storage_conformance::{DriverHarness, Place};
use storage_core::DriverConfig;
use storage_object::{AzureDriver, GcsDriver, S3Driver};

/// `base`: what a place's unique name is put behind: a bucket for each, or a prefix for each in one bucket.
fn s3(server: Server, base: &'static str, options: &'static str) -> DriverHarness<S3Driver> {
    let address = server.address();
    let unavailable = address.as_ref().err().cloned();
    let endpoint = address.unwrap_or_default();
    let place = move || {
        let mut place = Place::unique_name(base);
        let url = place.config.url.clone().unwrap_or_default();
        place.config = DriverConfig::from_url(&format!("{url}?{}{options}", s3_options(&endpoint)));
        Ok(place)
    };
    // Nothing listens on port 1.
    let broken = || Ok(Place::url(&format!("s3://nowhere?{}", s3_options("http://127.0.0.1:1"))));
    DriverHarness::new(S3Driver, place).broken(broken).unavailable(unavailable)
}

// One bucket: each new one makes SeaweedFS set aside disk space.
mod s3_seaweedfs {
    use super::*;
    storage_conformance::test_blobs!(s3(Server::SeaweedFs, "s3://conformance/", "&dialect=seaweedfs").refused_in_paths("\\"));
}

mod s3_moto {
    use super::*;
    storage_conformance::test_blobs!(s3(Server::Moto, "s3://", ""));
}

fn azure() -> DriverHarness<AzureDriver> {
    let address = Server::Azurite.address();
    let unavailable = address.as_ref().err().cloned();
    let endpoint = address.unwrap_or_default();
    let place = move || {
        let mut place = Place::unique_name("az://");
        let url = place.config.url.clone().unwrap_or_default();
        place.config = DriverConfig::from_url(&format!("{url}/some/prefix?emulator=true&endpoint={endpoint}"));
        Ok(place)
    };
    let broken = || Ok(Place::url("az://nowhere?emulator=true&endpoint=http://127.0.0.1:1"));
    DriverHarness::new(AzureDriver, place).broken(broken).unavailable(unavailable)
}

mod azure_azurite {
    use super::*;
    storage_conformance::test_blobs!(azure().refused_in_paths("\\"));
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
    DriverHarness::new(GcsDriver, place).broken(broken)
}

mod gcs_fake {
    use super::*;
    storage_conformance::test_blobs!(gcs());
}
