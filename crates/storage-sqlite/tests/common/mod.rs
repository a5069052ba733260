//! What the tests of this crate share.

#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use storage_core::{
    ColumnType, DriverConfig, Expect, Fields, History, QueueStore, RecordStore, Result, TableName, TableSchema, fields,
};
use storage_sqlite::SqliteStore;
use tempfile::TempDir;

/// A folder with a database in it.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("test.db")
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self) -> DriverConfig {
        config(&self.path())
    }

    pub(crate) async fn open(&self) -> Opened {
        Opened::new(&self.config()).await.unwrap()
    }

    /// SQLite without the toolkit.
    pub(crate) fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

/// Short waits for locks: nothing here should take long.
pub(crate) fn config(path: &Path) -> DriverConfig {
    DriverConfig { timeout: Some(Duration::from_secs(20)), ..DriverConfig::from_url(&format!("sqlite:///{}", path.display())) }
}

/// An open store.
pub(crate) struct Opened {
    pub(crate) store: SqliteStore,
    pub(crate) records: RecordStore,
    pub(crate) queue: QueueStore,
}

impl Opened {
    pub(crate) async fn new(config: &DriverConfig) -> Result<Self> {
        let store = SqliteStore::open(config).await?;
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

    pub(crate) async fn put(&self, key: impl Into<storage_core::Key>, value: i64) -> Result<storage_core::Version> {
        self.records.upsert(&table(), key, number(value)).await
    }

    pub(crate) async fn value(&self, key: impl Into<storage_core::Key>) -> Option<i64> {
        self.records.get(&table(), key).await.unwrap().map(|r| r.fields["n"].as_i64().unwrap())
    }
}

pub(crate) fn schema() -> TableSchema {
    TableSchema::builder("t").column("n", ColumnType::Integer).index("by_n", ["n"]).history(History::Keep(2)).build().unwrap()
}

pub(crate) fn table() -> TableName {
    "t".parse().unwrap()
}

pub(crate) fn number(n: i64) -> Fields {
    fields(json!({ "n": n }))
}

/// Adds one to a record as often as it takes to get it through.
pub(crate) async fn increment(records: &RecordStore, key: &str) {
    loop {
        let (expect, value) = match records.get(&table(), key).await.unwrap() {
            Some(record) => (Expect::Version(record.version), record.fields["n"].as_i64().unwrap()),
            None => (Expect::Absent, 0),
        };
        let batch = storage_core::Batch::new().put(&table(), key, number(value + 1), expect);
        match records.commit(batch).await {
            Ok(_) => return,
            Err(error) if matches!(error.kind(), storage_core::ErrorKind::Conflict | storage_core::ErrorKind::AlreadyExists) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
