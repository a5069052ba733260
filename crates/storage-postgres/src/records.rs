//! [`RecordBackend`] on PostgreSQL.

use async_trait::async_trait;
use storage_core::{
    Atomicity, BackendInfo, Batch, Key, MAX_BATCH, Page, Query, Record, RecordBackend, RecordCapabilities, Result, SchemaChange,
    TableName, TableSchema, Version,
};
use storage_sql::server::{Count, Get, Scan, Versions, Work, commit};

use crate::error::OrExplain as _;
use crate::shared::Handle;
use crate::{catalog, maintenance, tables};

/// The tables in a [`PostgresStore`](crate::PostgresStore).
#[derive(Debug)]
pub struct PostgresRecords {
    handle: Handle,
    capabilities: RecordCapabilities,
}

impl PostgresRecords {
    pub(crate) fn new(handle: Handle) -> Self {
        let capabilities = RecordCapabilities {
            atomic: Atomicity::Store,
            enqueue: true,
            expiry: true,
            history: true,
            unique: true,
            alter: true,
            backup: false,
            max_batch: MAX_BATCH,
            max_record_bytes: 64 << 20,
            pushdown: true,
            durable: handle.shared().found.durable,
        };
        Self { handle, capabilities }
    }
}

#[async_trait]
impl RecordBackend for PostgresRecords {
    fn info(&self) -> &BackendInfo {
        self.handle.info()
    }

    fn capabilities(&self) -> &RecordCapabilities {
        &self.capabilities
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        let owned = schema.clone();
        self.handle.open()?.transact(move |connection, _| Box::pin(async move { tables::create(connection, &owned).await })).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        let (name, change) = (table.clone(), change.clone());
        let alter = self.handle.open()?.transact(move |connection, shared| {
            Box::pin(async move { tables::alter(connection, &name, &change, shared.time.now()).await })
        });
        alter.await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        let name = table.clone();
        self.handle
            .open()?
            .transact(move |connection, _| Box::pin(async move { tables::drop_table(connection, &name).await }))
            .await
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let catalog = shared.in_time(catalog::reload(&shared.catalog, &lent)).await?;
        lent.done(catalog).map(|catalog| catalog.schemas())
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.handle.open()?.read(&Get { table, keys, stale: false }).await
    }

    async fn get_stale(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.handle.open()?.read(&Get { table, keys, stale: true }).await
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        self.handle.open()?.read(&Scan(query)).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.handle.open()?.read(&Count(query)).await
    }

    async fn sweep(&self, query: &Query) -> Result<u64> {
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let sweep = async {
            let tables = catalog::reload(&shared.catalog, &lent).await?;
            maintenance::sweep(shared, &lent, tables.table(&query.table)?).await
        };
        let swept = shared.in_time(sweep).await?;
        lent.done(swept)
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        let shared = self.handle.open()?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        commit(shared, Work::Batch(batch.writes)).await?.versions()
    }

    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        self.handle.open()?.read(&Versions { table, key }).await
    }

    async fn ping(&self) -> Result<()> {
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let answer = shared.in_time(lent.batch("")).await?;
        lent.done(answer).or_explain()
    }

    async fn close(&self) -> Result<()> {
        self.handle.close().await
    }
}
