//! Servers for tests: the one that `cargo xtask test` starts, which tests share, and own ones that a test may kill.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod server;

use storage_conformance::{DriverHarness, load, server as servers};
use storage_core::{DriverConfig, Result};
use storage_postgres::{PostgresDriver, PostgresStore};

fn shared() -> std::result::Result<String, String> {
    servers::shared("PostgreSQL", "postgres", "XTASK_TEST_POSTGRES")
}

/// The address of the shared server; skips the test where there is none.
pub(crate) fn shared_or_skip() -> Option<String> {
    servers::or_skip(shared())
}

/// `address` with a schema that nobody else uses.
pub(crate) fn apart(address: &str) -> String {
    format!("{address}?schema={}", servers::unique_name())
}

/// The suites' harness on the shared server.
pub(crate) fn harness() -> DriverHarness<PostgresDriver> {
    servers::harness(PostgresDriver, shared(), apart, "postgres://127.0.0.1:1/x")
}

pub(crate) type Opened = load::Opened<PostgresStore>;

pub(crate) async fn open(url: &str) -> Result<Opened> {
    open_with(&DriverConfig::from_url(url)).await
}

pub(crate) async fn open_with(config: &DriverConfig) -> Result<Opened> {
    let store = PostgresStore::open(config).await?;
    let backends = store.backends();
    Ok(Opened::new(store, backends))
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
