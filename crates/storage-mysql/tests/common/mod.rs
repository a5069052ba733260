//! Servers for tests: the one that `cargo xtask test` starts, which tests share, and own ones that a test may kill.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test binary uses a part")]

pub(crate) mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use storage_conformance::{DriverHarness, Place};
use storage_core::{DriverConfig, QueueStore, RecordStore, Result};
use storage_mysql::{MysqlDriver, MysqlStore};

/// The address of the shared MariaDB, or why there is none.
pub(crate) fn shared() -> std::result::Result<String, String> {
    std::env::var("XTASK_TEST_MARIADB").map_err(|_| {
        "no MariaDB: `cargo xtask test --backend mysql` starts it where it is installed (`--all` installs it), or set XTASK_TEST_MARIADB".to_owned()
    })
}

/// The address of the shared MySQL, or why there is none.
pub(crate) fn shared_mysql() -> std::result::Result<String, String> {
    std::env::var("XTASK_TEST_MYSQL")
        .map_err(|_| "no MySQL: `cargo xtask test --all` installs it, or set XTASK_TEST_MYSQL".to_owned())
}

/// The address, or the test is skipped.
pub(crate) fn or_skip(address: std::result::Result<String, String>) -> Option<String> {
    address.map_err(|reason| storage_conformance::skip(&reason)).ok()
}

/// Makes tests of functions that are given the address of a shared server, on each server.
macro_rules! on_both {
    ($($name:ident,)*) => {
        mod mariadb {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(address) = crate::common::or_skip(crate::common::shared()) {
                        super::$name(address).await;
                    }
                }
            )*
        }

        mod mysql {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(address) = crate::common::or_skip(crate::common::shared_mysql()) {
                        super::$name(address).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use on_both;

/// `address` with a database that nobody else uses.
pub(crate) fn apart(address: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{address}/t{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The suites' harness on a shared server.
pub(crate) fn harness(address: std::result::Result<String, String>) -> DriverHarness<MysqlDriver> {
    let unavailable = address.as_ref().err().cloned();
    let address = address.unwrap_or_default();
    let place = move || {
        let mut place = Place::url(&apart(&address));
        // Many tests share the server's connections.
        place.config.pool_size = Some(4);
        Ok(place)
    };
    // Nothing listens on port 1.
    DriverHarness::new(MysqlDriver, place)
        .broken(|| Ok(Place::url("mysql://127.0.0.1:1/x")))
        .manual_clock()
        .unavailable(unavailable)
}

/// An open store.
pub(crate) struct Opened {
    pub(crate) store: MysqlStore,
    pub(crate) records: RecordStore,
    pub(crate) queue: QueueStore,
}

impl Opened {
    pub(crate) async fn new(url: &str) -> Result<Self> {
        Self::with(&DriverConfig::from_url(url)).await
    }

    pub(crate) async fn with(config: &DriverConfig) -> Result<Self> {
        let store = MysqlStore::open(config).await?;
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

/// The server without the toolkit.
pub(crate) struct Raw(Conn);

impl Raw {
    /// In the database that the URL names.
    pub(crate) async fn new(url: &str) -> Self {
        Self(Conn::from_url(url.split('?').next().unwrap()).await.unwrap())
    }

    pub(crate) async fn run(&mut self, sql: &str) {
        self.0.query_drop(sql).await.unwrap();
    }

    pub(crate) async fn try_run(&mut self, sql: &str) -> bool {
        self.0.query_drop(sql).await.is_ok()
    }

    /// The connections to the database that the URL names.
    pub(crate) async fn connections(&mut self, url: &str) -> Vec<i64> {
        let database = url.rsplit('/').next().unwrap();
        self.0.query(format!("SELECT id FROM information_schema.processlist WHERE db = '{database}'")).await.unwrap()
    }

    /// How many of them do something, or have a transaction open.
    pub(crate) async fn busy(&mut self, url: &str) -> i64 {
        // The server shows transactions as they were when somebody looked last, unless nobody has for 0.1 s.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let database = url.rsplit('/').next().unwrap();
        let busy = "SELECT COUNT(*) FROM information_schema.processlist p LEFT JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id";
        self.number(&format!("{busy} WHERE p.db = '{database}' AND (p.command <> 'Sleep' OR t.trx_id IS NOT NULL)")).await
    }

    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        self.0.query_first(sql).await.unwrap().unwrap()
    }

    pub(crate) async fn text(&mut self, sql: &str) -> Option<String> {
        self.0.query_first(sql).await.unwrap()
    }
}
