//! [`RecordBackend`] on SQLite.

use std::path::Path;

use async_trait::async_trait;
use serde_json::Value;
use storage_core::{
    Atomicity, BackendInfo, Batch, Error, Fields, Key, MAX_BATCH, Page, Query, Record, RecordBackend, RecordCapabilities, Result,
    SchemaChange, TableName, TableSchema, Version, Write,
};

use crate::backup::back_up;
use crate::config::Synchronous;
use crate::database::Database;
use crate::handle::Handle;
use crate::reader::Snapshot;
use crate::session::Session;
use crate::writer::Size;
use crate::{read, tables, write};

/// How many records are read on the caller's own thread.
const READ_HERE: usize = 8;

/// The tables in a [`SqliteStore`](crate::SqliteStore).
#[derive(Debug)]
pub struct SqliteRecords {
    handle: Handle,
    capabilities: RecordCapabilities,
}

impl SqliteRecords {
    pub(crate) fn new(handle: Handle) -> Self {
        let durable = handle.database().shared.settings.synchronous != Synchronous::Off;
        let capabilities = RecordCapabilities {
            atomic: Atomicity::Store,
            enqueue: true,
            expiry: true,
            history: true,
            unique: true,
            alter: true,
            backup: true,
            max_batch: MAX_BATCH,
            max_record_bytes: 64 << 20,
            pushdown: true,
            durable,
        };
        Self { handle, capabilities }
    }

    /// Reads on a thread for it.
    async fn read<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Snapshot<'_>) -> Result<T> + Send + 'static,
    {
        self.handle.open()?.read(read).await
    }

    /// Writes something small, with a savepoint.
    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Session<'_>) -> Result<T> + Send + 'static,
    {
        self.handle.open()?.write(Size::LARGE, work).await
    }

    /// Reads a few records, here if that is possible at once.
    async fn get_from(&self, database: &Database, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        if keys.len() <= READ_HERE
            && let Some(result) = database.read_here(|snapshot| read::get(snapshot, table, keys))
        {
            return result;
        }
        let (table, keys) = (table.clone(), keys.to_vec());
        database.read(move |snapshot| read::get(snapshot, &table, &keys)).await
    }
}

/// How large a batch is in KiB, roughly.
fn kib(batch: &Batch) -> u32 {
    let bytes: usize = batch
        .writes
        .iter()
        .map(|write| match write {
            Write::Put { fields, .. } | Write::Merge { fields, .. } => 64 + size(fields),
            Write::Enqueue { message, .. } => 128 + message.body.len(),
            Write::Delete { .. } | Write::Check { .. } => 64,
        })
        .sum();
    u32::try_from(bytes / 1_024).unwrap_or(u32::MAX)
}

fn size(fields: &Fields) -> usize {
    fields.iter().map(|(name, value)| name.len() + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 16,
        Value::String(text) => 16 + text.len(),
        // Values are at most 100 deep.
        Value::Array(items) => 16 + items.iter().map(value_size).sum::<usize>(),
        Value::Object(fields) => 16 + size(fields),
    }
}

#[async_trait]
impl RecordBackend for SqliteRecords {
    fn info(&self) -> &BackendInfo {
        self.handle.info()
    }

    fn capabilities(&self) -> &RecordCapabilities {
        &self.capabilities
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        let owned = schema.clone();
        self.write(move |session| tables::create(session, &owned)).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        let (name, change) = (table.clone(), change.clone());
        self.write(move |session| tables::alter(session, &name, &change)).await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        let name = table.clone();
        self.write(move |session| tables::drop_table(session, &name)).await
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.read(|snapshot| Ok(snapshot.catalog.schemas())).await
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.get_from(self.handle.open()?, table, keys).await
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        let owned = query.clone();
        self.read(move |snapshot| read::scan(snapshot, &owned)).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        let owned = query.clone();
        self.read(move |snapshot| read::count(snapshot, &owned)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        // A single write is a single statement, but for a message and for history, which come behind it.
        let size = Size { kib: kib(&batch), items: batch.len(), atomic: batch.len() == 1 };
        self.handle.open()?.write(size, move |session| write::commit(session, &batch.writes)).await
    }

    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        let (name, key) = (table.clone(), key.clone());
        self.read(move |snapshot| read::history(snapshot, &name, &key)).await
    }

    async fn backup(&self, to: &Path) -> Result<()> {
        let path = to.to_owned();
        let settings = self.handle.open()?.shared.settings.clone();
        let copied = tokio::task::spawn_blocking(move || back_up(&settings, &path)).await;
        copied.map_err(|e| Error::internal(format!("the backup was given up: {e}")).with_source(e))?
    }

    async fn ping(&self) -> Result<()> {
        self.read(|_| Ok(())).await
    }

    async fn close(&self) -> Result<()> {
        self.handle.close().await
    }
}
