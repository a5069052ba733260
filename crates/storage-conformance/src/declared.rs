//! What the backends under test declare, for whoever runs the suites.

use std::io::Write as _;

use serde_json::{Value, json};
use storage_core::Backends;

/// Appends a line of JSON for each component to the file that the environment variable `XTASK_TEST_CAPABILITIES` names, where it is set:
/// `package`, `driver`, `component`, `capabilities`. Cases hold the declarations against what the backend does; a line says what they have held.
///
/// # Panics
/// Where that file can't be written.
pub(crate) fn note(backends: &Backends) {
    let Some(log) = std::env::var_os("XTASK_TEST_CAPABILITIES") else { return };
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "unknown".into());
    let line = |component: &str, driver: &str, capabilities: serde_json::Result<Value>| {
        let capabilities = capabilities.expect("capabilities are JSON");
        format!("{}\n", json!({"package": package, "driver": driver, "component": component, "capabilities": capabilities}))
    };
    let records = backends.records.as_ref().map(|b| line("records", &b.info().driver, serde_json::to_value(b.capabilities())));
    let queues = backends.queue.as_ref().map(|b| line("queues", &b.info().driver, serde_json::to_value(b.capabilities())));
    let blobs = backends.blobs.as_ref().map(|b| line("blobs", &b.info().driver, serde_json::to_value(b.capabilities())));
    let lines: String = [records, queues, blobs].into_iter().flatten().collect();
    // One write: lines of concurrent tests do not mix.
    let written =
        std::fs::OpenOptions::new().create(true).append(true).open(&log).and_then(|mut f| f.write_all(lines.as_bytes()));
    written.unwrap_or_else(|error| panic!("can't write to {}: {error}", log.display()));
}
