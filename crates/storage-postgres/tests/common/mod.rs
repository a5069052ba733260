//! Servers for tests: the one that `cargo xtask test` starts, which tests share, and own ones that a test may kill.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use storage_conformance::{DriverHarness, Place};
use storage_core::{DriverConfig, QueueStore, RecordStore, Result};
use storage_postgres::{PostgresDriver, PostgresStore};

/// The address of the shared server, or why there is none.
pub(crate) fn shared() -> std::result::Result<String, String> {
    std::env::var("XTASK_TEST_POSTGRES").map_err(|_| {
        "no PostgreSQL: `cargo xtask test --backend postgres` starts it where it is installed (`--all` installs it), or set XTASK_TEST_POSTGRES"
            .to_owned()
    })
}

/// The address of the shared server; skips the test where there is none.
pub(crate) fn shared_or_skip() -> Option<String> {
    shared().map_err(|reason| storage_conformance::skip(&reason)).ok()
}

/// `address` with a schema that nobody else uses.
pub(crate) fn apart(address: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{address}?schema=t{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The suites' harness on the shared server.
pub(crate) fn harness() -> DriverHarness<PostgresDriver> {
    let address = shared();
    let unavailable = address.as_ref().err().cloned();
    let address = address.unwrap_or_default();
    let place = move || {
        let mut place = Place::url(&apart(&address));
        // Many tests share the server's connections.
        place.config.pool_size = Some(4);
        Ok(place)
    };
    // Nothing listens on port 1.
    DriverHarness::new(PostgresDriver, place)
        .broken(|| Ok(Place::url("postgres://127.0.0.1:1/x")))
        .manual_clock()
        .unavailable(unavailable)
}

/// An open store.
pub(crate) struct Opened {
    pub(crate) store: PostgresStore,
    pub(crate) records: RecordStore,
    pub(crate) queue: QueueStore,
}

impl Opened {
    pub(crate) async fn new(url: &str) -> Result<Self> {
        Self::with(&DriverConfig::from_url(url)).await
    }

    pub(crate) async fn with(config: &DriverConfig) -> Result<Self> {
        let store = PostgresStore::open(config).await?;
        let records = RecordStore::new(Arc::new(store.records()));
        let queue = QueueStore::new(Arc::new(store.queue()));
        Ok(Self { store, records, queue })
    }

    /// Closes all handles.
    pub(crate) async fn close(self) {
        self.records.backend().close().await.unwrap();
        self.queue.backend().close().await.unwrap();
        self.store.close().await.unwrap();
    }
}

/// PostgreSQL without the toolkit, in the schema that the URL names.
pub(crate) async fn raw(url: &str) -> tokio_postgres::Client {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let config: tokio_postgres::Config =
        format!("{address}{}", if address.matches('/').count() < 3 { "/postgres" } else { "" }).parse().unwrap();
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    if let Some(schema) = query.strip_prefix("schema=").and_then(|rest| rest.split('&').next()) {
        client.batch_execute(&format!("SET search_path = \"{schema}\"")).await.unwrap();
    }
    client
}
