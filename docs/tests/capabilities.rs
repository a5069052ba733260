//! `capabilities.md` against what the backends declare.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};
use storage_core::{Backends, Driver, DriverConfig, Result};
use storage_fs::FsDriver;
use storage_memory::MemoryDriver;
use storage_object::{AzureDriver, GcsDriver, S3Driver};
use storage_sqlite::SqliteDriver;

/// Each backend as it is opened without any option but an account; services are not asked.
async fn backends(folder: &Path) -> Result<Vec<(&'static str, Backends)>> {
    let at = |scheme: &str, name: &str| DriverConfig::from_url(&format!("{scheme}{}", folder.join(name).display()));
    let remote = |url: &str| DriverConfig { auto_create: false, ..DriverConfig::from_url(url) };
    Ok(vec![
        ("memory", MemoryDriver.open(&DriverConfig::from_url("memory:")).await?),
        ("sqlite", SqliteDriver.open(&at("sqlite:///", "app.db")).await?),
        ("fs", FsDriver.open(&at("file://", "app")).await?),
        ("s3", S3Driver.open(&remote("s3://bucket?access_key=k&secret_key=s")).await?),
        ("az", AzureDriver.open(&remote("az://container?emulator=true")).await?),
        ("gs", GcsDriver.open(&remote("gs://bucket?token=t")).await?),
    ])
}

fn object(value: serde_json::Result<Value>) -> Map<String, Value> {
    value.unwrap().as_object().unwrap().clone()
}

/// The table of one component: a row for each capability, a column for each backend that has the component.
fn table(columns: &[(&str, Map<String, Value>)]) -> String {
    let names: Vec<_> = columns.iter().map(|(name, _)| format!(" {name} |")).collect();
    let mut table = format!("| |{}\n|---|{}\n", names.concat(), "---|".repeat(columns.len()));
    // Sorted, since the order of fields is not kept by JSON.
    for capability in columns[0].1.keys() {
        write!(table, "| `{capability}` |").unwrap();
        for (_, declared) in columns {
            write!(table, " {} |", cell(capability, &declared[capability])).unwrap();
        }
        table.push('\n');
    }
    table
}

fn cell(capability: &str, declared: &Value) -> String {
    match declared {
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "–".into(),
        Value::String(text) => text.clone(),
        Value::Number(n) if capability.ends_with("bytes") => bytes(n.as_u64().unwrap()),
        other => other.to_string(),
    }
}

fn bytes(n: u64) -> String {
    match n {
        n if n >= i64::MAX.unsigned_abs() => "the disk's".into(),
        n if n % (1 << 30) == 0 => format!("{} GiB", n >> 30),
        n if n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
        n => format!("{n} B"),
    }
}

#[tokio::test]
async fn tables_are_what_the_backends_declare() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let backends = backends(folder.path()).await?;
    let declared = |component: &str| -> Vec<(&str, Map<String, Value>)> {
        let of = |backends: &Backends| match component {
            "Records" => backends.records.as_ref().map(|b| object(serde_json::to_value(b.capabilities()))),
            "Queues" => backends.queue.as_ref().map(|b| object(serde_json::to_value(b.capabilities()))),
            _ => backends.blobs.as_ref().map(|b| object(serde_json::to_value(b.capabilities()))),
        };
        backends.iter().filter_map(|(name, backends)| Some((*name, of(backends)?))).collect()
    };
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("capabilities.md")).unwrap();
    for component in ["Records", "Queues", "Blobs"] {
        let expected = format!("\n## {component}\n\n{}", table(&declared(component)));
        assert!(page.contains(&expected), "capabilities.md should have:\n{expected}");
    }
    Ok(())
}
