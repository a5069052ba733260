//! Each service against the definition of the traits.

mod common;

use common::{Server, s3_options};
use storage_conformance::{DriverHarness, Harness, Place};
use storage_object::S3Driver;

fn s3(server: Server) -> impl Harness {
    let address = server.address();
    let unavailable = address.as_ref().err().cloned();
    let endpoint = address.unwrap_or_default();
    let place = move || {
        let mut place = Place::unique_name("s3://");
        let url = place.config.url.clone().unwrap_or_default();
        place.config = storage_core::DriverConfig::from_url(&format!("{url}?{}", s3_options(&endpoint)));
        Ok(place)
    };
    // Nothing listens on port 1.
    let broken = || Ok(Place::url(&format!("s3://nowhere?{}", s3_options("http://127.0.0.1:1"))));
    DriverHarness::new(S3Driver, place).broken(broken).unavailable(unavailable)
}

mod s3_seaweedfs {
    use super::*;
    storage_conformance::test_blobs!(s3(Server::SeaweedFs));
}

mod s3_moto {
    use super::*;
    storage_conformance::test_blobs!(s3(Server::Moto));
}
