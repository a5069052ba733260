//! The emulators that tests use: one that `cargo xtask test` starts for all, and ones of their own for those that break theirs.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod access;
pub(crate) mod server;

use std::sync::Arc;

use storage_conformance::{DriverHarness, Place};
use storage_core::{DriverConfig, QueueStore};
use storage_queue_azure::{AzureQueue, AzureQueueDriver};

const VARIABLE: &str = "XTASK_TEST_AZURITE_QUEUE";

/// The address of the emulator for all, or why there is none.
pub(crate) fn address() -> Result<String, String> {
    std::env::var(VARIABLE).map_err(|_| {
        format!("no Azurite: `cargo xtask test --backend queue-azure` starts it where it is installed (`--all` installs it), or set {VARIABLE}")
    })
}

/// Its address; skips the test where there is none.
pub(crate) fn address_or_skip() -> Option<String> {
    address().map_err(|reason| storage_conformance::skip(&reason)).ok()
}

/// A prefix that nobody else has, also on an emulator that outlives the tests.
pub(crate) fn prefix() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("t{}-", &id[..12])
}

/// The URL of an emulator's queues.
pub(crate) fn url(address: &str, prefix: &str) -> String {
    format!("azure-queue:?emulator=true&endpoint={address}&prefix={prefix}")
}

/// The emulator works on one request at a time, and its machine on much else: requests that wait for it in line must not wait for too long.
pub(crate) fn harness() -> DriverHarness<AzureQueueDriver> {
    let address = address();
    let unavailable = address.as_ref().err().cloned();
    let address = address.unwrap_or_default();
    let place = move || {
        let url = format!("{}&concurrency=16", url(&address, &prefix()));
        Ok(Place::url(&url).with_guard(Leavings(url)))
    };
    // Nothing listens on port 1.
    let broken = || Ok(Place::url(&url("http://127.0.0.1:1", "")));
    DriverHarness::new(AzureQueueDriver, place).broken(broken).unavailable(unavailable)
}

/// Removes what a case leaves behind: the emulator looks through all messages for each.
struct Leavings(String);

impl Drop for Leavings {
    fn drop(&mut self) {
        let url = self.0.clone();
        let clean = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let store = open(&url);
                for queue in store.queues().await? {
                    store.delete_queue(&queue).await?;
                }
                Ok::<_, storage_core::Error>(())
            })
        };
        // A runtime can't be made within another.
        drop(std::thread::spawn(clean).join());
    }
}

/// The queues at a URL.
pub(crate) fn open(url: &str) -> QueueStore {
    QueueStore::new(Arc::new(backend(url)))
}

pub(crate) fn backend(url: &str) -> AzureQueue {
    AzureQueue::open(&DriverConfig::from_url(url)).expect("it opens")
}
