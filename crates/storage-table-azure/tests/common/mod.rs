//! Servers for tests: the emulator that `cargo xtask test` starts for all, and ones of their own for those that break theirs.

#![allow(dead_code, reason = "each test binary uses a part")]

#[path = "../../../storage-queue-azure/tests/common/access.rs"]
pub(crate) mod access;
pub(crate) mod peer;
#[path = "../../../storage-queue-azure/tests/common/server.rs"]
pub(crate) mod server;

use std::sync::Arc;

use storage_conformance::{DriverHarness, Place};
use storage_core::{DriverConfig, RecordStore};
use storage_table_azure::{AzureTableDriver, AzureTables};

const VARIABLE: &str = "XTASK_TEST_AZURITE_TABLE";

/// The address of the emulator for all, or why there is none.
pub(crate) fn address() -> Result<String, String> {
    std::env::var(VARIABLE).map_err(|_| {
        format!("no Azurite: `cargo xtask test --backend table-azure` starts it where it is installed (`--all` installs it), or set {VARIABLE}")
    })
}

/// Its address; skips the test where there is none.
pub(crate) fn address_or_skip() -> Option<String> {
    address().map_err(|reason| storage_conformance::skip(&reason)).ok()
}

/// A prefix that nobody else has, also on an emulator that outlives the tests.
pub(crate) fn prefix() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("t{}", &id[..12])
}

/// The URL of an emulator's tables.
pub(crate) fn url(address: &str, prefix: &str) -> String {
    format!("azure-table:?emulator=true&endpoint={address}&prefix={prefix}")
}

/// The emulator works on one request at a time, and its machine on much else: requests that wait for it in line must not wait for too long.
pub(crate) fn harness() -> DriverHarness<AzureTableDriver> {
    let address = address();
    let unavailable = address.as_ref().err().cloned();
    let address = address.unwrap_or_default();
    let place = move || Ok(Place::url(&format!("{}&concurrency=16", url(&address, &prefix()))));
    // Nothing listens on port 1.
    let broken = || Ok(Place::url(&url("http://127.0.0.1:1", "")));
    DriverHarness::new(AzureTableDriver, place).broken(broken).unavailable(unavailable).manual_clock()
}

/// The tables at a URL.
pub(crate) fn open(url: &str) -> RecordStore {
    RecordStore::new(Arc::new(AzureTables::open(&DriverConfig::from_url(url)).expect("it opens")))
}
