//! `capabilities.md` against what the backends declare.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};
use storage_core::{Backends, Driver, DriverConfig, Result};
use storage_fs::FsDriver;
use storage_memory::MemoryDriver;
use storage_object::{AzureDriver, GcsDriver, HttpDriver, S3Driver};
use storage_queue_amqp::AmqpDriver;
use storage_queue_azure::AzureQueueDriver;
use storage_sqlite::SqliteDriver;
use storage_table_azure::AzureTableDriver;

/// Each backend as it is opened without any option but an account; at the services' address nothing listens.
async fn backends(folder: &Path) -> Result<Vec<(&'static str, Backends)>> {
    let at = |scheme: &str, name: &str| DriverConfig::from_url(&format!("{scheme}{}", folder.join(name).display()));
    let blobs = FsDriver.open(&at("file://", "bucket")).await?.blobs.unwrap();
    let on_blobs = storage_object::records::serve(blobs, &DriverConfig::default())?;
    let remote = |url: &str| DriverConfig { auto_create: false, ..DriverConfig::from_url(url) };
    Ok(vec![
        ("memory", MemoryDriver.open(&DriverConfig::from_url("memory:")).await?),
        ("sqlite", SqliteDriver.open(&at("sqlite:///", "app.db")).await?),
        ("fs", FsDriver.open(&at("file://", "app")).await?),
        ("amqp", AmqpDriver.open(&remote("amqp://127.0.0.1:1")).await?),
        ("amqp-classic", AmqpDriver.open(&remote("amqp://127.0.0.1:1?queue_type=classic")).await?),
        ("azure-queue", AzureQueueDriver.open(&remote("azure-queue:?emulator=true&endpoint=http://127.0.0.1:1")).await?),
        ("azure-table", AzureTableDriver.open(&remote("azure-table:?emulator=true&endpoint=http://127.0.0.1:1")).await?),
        ("on blobs", Backends { blobs: None, ..on_blobs }),
        ("s3", S3Driver.open(&remote("s3://bucket?access_key=k&secret_key=s&endpoint=http://127.0.0.1:1")).await?),
        ("az", AzureDriver.open(&remote("az://container?emulator=true&endpoint=http://127.0.0.1:1")).await?),
        ("gs", GcsDriver.open(&remote("gs://bucket?token=t&endpoint=http://127.0.0.1:1")).await?),
        ("http", HttpDriver.open(&remote("http://127.0.0.1:1/folder")).await?),
    ])
}

fn object(value: serde_json::Result<Value>) -> Map<String, Value> {
    value.unwrap().as_object().unwrap().clone()
}

/// The cells of one component's table by backend and capability. It may have more backends than can be opened here.
fn table<'a>(page: &'a str, component: &str) -> BTreeMap<(&'a str, &'a str), &'a str> {
    let (_, section) = page.split_once(&format!("\n## {component}\n\n")).expect(component);
    let mut rows = section.lines().take_while(|line| line.starts_with('|'));
    let cells = |line: &'a str| line.trim_matches('|').split('|').map(str::trim);
    let backends: Vec<&str> = cells(rows.next().expect("a head")).skip(1).collect();
    let rows = rows.skip(1).flat_map(|line| {
        let mut cells = cells(line);
        let capability = cells.next().unwrap_or_default().trim_matches('`');
        backends.clone().into_iter().zip(cells).map(move |(backend, cell)| ((backend, capability), cell))
    });
    rows.collect()
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
        n if n % (1 << 40) == 0 => format!("{} TiB", n >> 40),
        n if n % (1 << 30) == 0 => format!("{} GiB", n >> 30),
        n if n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
        n if n % (1 << 10) == 0 => format!("{} KiB", n >> 10),
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
        let table = table(&page, component);
        for (backend, declared) in declared(component) {
            let shown: BTreeMap<_, _> =
                table.iter().filter(|((name, _), _)| *name == backend).map(|((_, c), v)| (*c, *v)).collect();
            let declared: BTreeMap<_, _> = declared.iter().map(|(c, v)| (c.as_str(), cell(c, v))).collect();
            let declared: BTreeMap<_, _> = declared.iter().map(|(c, v)| (*c, v.as_str())).collect();
            assert_eq!(shown, declared, "capabilities.md, {component} of {backend}: `cargo xtask matrix` writes it anew");
        }
    }
    Ok(())
}
