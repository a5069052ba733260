//! Records on key-value buckets.

mod commit;
mod keys;
mod read;
mod tables;

use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{
    Atomicity, BackendInfo, Batch, Clock, Key, MAX_BATCH, Page, Query, Record, RecordBackend, RecordCapabilities, Result,
    SchemaChange, TableName, TableSchema, Version,
};

use self::tables::Tables;
use crate::store::{Inner, Part};

/// What the message of a record has beside the fields: the key twice over, times, headers.
const AROUND: usize = 32 * 1024;

/// Records on NATS: a key-value bucket for each table. See the [crate](crate#records).
#[derive(Clone, Debug)]
pub struct NatsRecords {
    inner: Arc<Inner>,
    tables: Arc<Tables>,
    clock: Clock,
    capabilities: RecordCapabilities,
}

impl NatsRecords {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let capabilities = RecordCapabilities {
            atomic: Atomicity::Record,
            enqueue: false,
            expiry: true,
            history: false,
            unique: false,
            alter: true,
            backup: false,
            max_batch: MAX_BATCH,
            max_record_bytes: inner.client.max_payload().saturating_sub(AROUND),
            pushdown: false,
            // The server syncs files every two minutes.
            durable: false,
        };
        let clock = inner.settings.clock.clone();
        Self { inner, tables: Arc::default(), clock, capabilities }
    }

    fn open(&self) -> Result<&Inner> {
        self.inner.check_open(Part::Records)?;
        Ok(&self.inner)
    }
}

#[async_trait]
impl RecordBackend for NatsRecords {
    fn info(&self) -> &BackendInfo {
        &self.inner.info
    }

    fn capabilities(&self) -> &RecordCapabilities {
        &self.capabilities
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        let inner = self.open()?;
        schema.check()?;
        tables::check_offers(schema)?;
        self.tables.create(inner, schema).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.tables.alter(self.open()?, &self.clock, table, change).await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.tables.remove(self.open()?, table).await
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.tables.all(self.open()?).await
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        let (inner, clock) = (self.open()?, &self.clock);
        self.tables.with(inner, table, |table| async move { read::get(inner, &table, clock, keys).await }).await
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        let (inner, clock) = (self.open()?, &self.clock);
        self.tables.with(inner, &query.table, |table| async move { read::scan(inner, &table, clock, query).await }).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        let (inner, clock, filter) = (self.open()?, &self.clock, &query.filter);
        self.tables.with(inner, &query.table, |table| async move { read::count(inner, &table, clock, filter).await }).await
    }

    async fn sweep(&self, query: &Query) -> Result<u64> {
        let (inner, clock, filter) = (self.open()?, &self.clock, &query.filter);
        self.tables.with(inner, &query.table, |table| async move { read::sweep(inner, &table, clock, filter).await }).await
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        commit::commit(self.open()?, &self.tables, &self.clock, &batch).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping(Part::Records).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close(Part::Records).await;
        Ok(())
    }
}
