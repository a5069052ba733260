//! The services behind the servers, as the suites open them.

use storage_conformance::{DriverHarness, Place};
use storage_core::DriverConfig;
use storage_object::{AzureDriver, HttpDriver, S3Driver};

use super::{Server, s3_options};

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
    DriverHarness::new(S3Driver, place).broken(broken).unavailable(unavailable).manual_clock().few_queries()
}

/// One bucket: each new one makes SeaweedFS set aside disk space.
pub(crate) fn seaweedfs() -> DriverHarness<S3Driver> {
    s3(Server::SeaweedFs, "s3://conformance/", "&dialect=seaweedfs").refused_in_paths("\\")
}

pub(crate) fn moto() -> DriverHarness<S3Driver> {
    s3(Server::Moto, "s3://", "")
}

pub(crate) fn azurite() -> DriverHarness<AzureDriver> {
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
    DriverHarness::new(AzureDriver, place)
        .broken(broken)
        .unavailable(unavailable)
        .refused_in_paths("\\")
        .manual_clock()
        .few_queries()
}

pub(crate) fn apache() -> DriverHarness<HttpDriver> {
    let address = super::apache();
    let unavailable = address.as_ref().err().cloned();
    let endpoint = address.unwrap_or_default();
    let place = move || Ok(Place::unique_name(&format!("{endpoint}/conformance/")));
    let broken = || Ok(Place::url("http://127.0.0.1:1/nowhere"));
    DriverHarness::new(HttpDriver, place).broken(broken).unavailable(unavailable).manual_clock()
}
