//! The server that `cargo xtask test` starts, and those that a test starts for itself.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use storage_conformance::{DriverHarness, Place};
use storage_core::{BlobStore, Driver as _, DriverConfig, QueueName, QueueStore, RecordStore, Result};
use storage_nats::NatsDriver;

const VARIABLE: &str = "XTASK_TEST_NATS";

/// The server's address, `nats://127.0.0.1:PORT`, or why it is not there.
pub(crate) fn address() -> std::result::Result<String, String> {
    std::env::var(VARIABLE).map_err(|_| {
        format!("no nats-server: `cargo xtask test --backend nats` starts it where it is installed (`--all` installs it), or set {VARIABLE}")
    })
}

/// Its address; skips the test where there is none.
pub(crate) fn or_skip() -> Option<String> {
    address().map_err(|reason| storage_conformance::skip(&reason)).ok()
}

/// A store that nobody else uses.
pub(crate) fn fresh(address: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{address}?prefix=t{}_{}", storage_conformance::process_mark(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A fresh place on the server for each case.
pub(crate) fn harness() -> DriverHarness<NatsDriver> {
    let address = address();
    let unavailable = address.as_ref().err().cloned();
    let address = address.unwrap_or_default();
    let place = move || Ok(Place::url(&fresh(&address)));
    // Nothing listens on port 1.
    DriverHarness::new(NatsDriver, place).broken(|| Ok(Place::url("nats://127.0.0.1:1"))).unavailable(unavailable)
}

pub(crate) async fn records(url: &str) -> Result<RecordStore> {
    let backends = NatsDriver.open(&DriverConfig::from_url(url)).await?;
    Ok(RecordStore::new(backends.records.expect("records")))
}

pub(crate) async fn blobs(url: &str) -> Result<BlobStore> {
    let backends = NatsDriver.open(&DriverConfig::from_url(url)).await?;
    Ok(BlobStore::new(backends.blobs.expect("blobs")))
}

pub(crate) async fn open(url: &str) -> Result<QueueStore> {
    let backends = NatsDriver.open(&DriverConfig::from_url(url)).await?;
    Ok(QueueStore::new(backends.queue.expect("queues")))
}

pub(crate) fn q() -> QueueName {
    "q".parse().unwrap()
}

/// A server of a test's own, which it may kill.
pub(crate) struct Server {
    process: Option<Child>,
    port: u16,
    /// Removed with the server.
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Server {
    /// Starts one with these lines of configuration; skips the test where there is no program, or tests must not start servers.
    pub(crate) async fn or_skip(configuration: &str) -> Option<Self> {
        if std::env::var_os("XTASK_TEST_NO_SERVERS").is_some() {
            storage_conformance::skip("tests must not start servers");
            return None;
        }
        if Command::new("nats-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            storage_conformance::skip("no program `nats-server`: `cargo xtask test --all` installs it");
            return None;
        }
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("server.conf");
        std::fs::write(&config, configuration).unwrap();
        let mut arguments = vec!["-a".to_owned(), "127.0.0.1".to_owned(), "-p".to_owned(), port.to_string()];
        if !configuration.contains("jetstream") {
            arguments.extend(["-js".to_owned(), "-sd".to_owned(), folder.path().join("store").display().to_string()]);
        }
        arguments.extend(["-c".to_owned(), config.display().to_string()]);
        let mut server = Self { process: None, port, folder, arguments };
        server.start().await;
        Some(server)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new("nats-server");
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let started = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < Duration::from_secs(30), "the server does not come up: {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
