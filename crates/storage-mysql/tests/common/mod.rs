//! Servers for tests: the one that `cargo xtask test` starts, which tests share, and own ones that a test may kill.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test binary uses a part")]

pub(crate) mod server;

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use storage_conformance::{DriverHarness, load, server as servers};
use storage_core::{DriverConfig, Result};
use storage_mysql::{MysqlDriver, MysqlStore};

pub(crate) use storage_conformance::server::or_skip;

/// The address of the shared MariaDB, or why there is none.
pub(crate) fn shared() -> std::result::Result<String, String> {
    servers::shared("MariaDB", "mysql", "XTASK_TEST_MARIADB")
}

/// The address of the shared MySQL, or why there is none.
pub(crate) fn shared_mysql() -> std::result::Result<String, String> {
    std::env::var("XTASK_TEST_MYSQL")
        .map_err(|_| "no MySQL: `cargo xtask test --all` installs it, or set XTASK_TEST_MYSQL".to_owned())
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
    format!("{address}/{}", servers::unique_name())
}

/// The suites' harness on a shared server.
pub(crate) fn harness(address: std::result::Result<String, String>) -> DriverHarness<MysqlDriver> {
    servers::harness(MysqlDriver, address, apart, "mysql://127.0.0.1:1/x")
}

pub(crate) type Opened = load::Opened<MysqlStore>;

pub(crate) async fn open(url: &str) -> Result<Opened> {
    open_with(&DriverConfig::from_url(url)).await
}

pub(crate) async fn open_with(config: &DriverConfig) -> Result<Opened> {
    let store = MysqlStore::open(config).await?;
    let backends = store.backends();
    Ok(Opened::new(store, backends))
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
