//! What the cross-crate tests share: the workload that a child process runs until it is killed, and how its remains are checked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_errors_doc,
    reason = "test code: a failure is meant to end the test"
)]

pub mod breaking;
pub mod hooked;
pub mod mount;
pub mod outbox;
pub mod proxy;
pub mod servers;
pub mod workload;

use std::path::Path;

use storage_core::{Backends, BlobStore, Driver, DriverConfig, QueueStore, RecordStore};

/// The stores of one opened backend.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Its records.
    pub records: RecordStore,
    /// Its queues.
    pub queues: QueueStore,
    /// Its blobs, where it has them.
    pub blobs: Option<BlobStore>,
}

/// The backends that keep data in files of this machine.
pub const EMBEDDED: [&str; 2] = ["sqlite", "fs"];

/// The address of a store below `folder`.
#[must_use]
pub fn address(backend: &str, folder: &Path) -> String {
    match backend {
        "sqlite" => format!("sqlite:///{}/app.db", folder.display()),
        "fs" => format!("file://{}/root", folder.display()),
        other => panic!("no embedded backend `{other}`"),
    }
}

/// Opens a store by its address.
pub async fn open(url: &str) -> storage_core::Result<Stores> {
    let driver: Box<dyn Driver> = match storage_core::url_scheme(url) {
        Some("sqlite") => Box::new(storage_sqlite::SqliteDriver),
        Some("file") => Box::new(storage_fs::FsDriver),
        other => panic!("no embedded backend for {other:?}"),
    };
    let Backends { records, queue, blobs } = driver.open(&DriverConfig::from_url(url)).await?;
    Ok(Stores {
        records: RecordStore::new(records.expect("records")),
        queues: QueueStore::new(queue.expect("queues")),
        blobs: blobs.map(BlobStore::new),
    })
}
