//! [`RecordBackend`] on MySQL and MariaDB.

use async_trait::async_trait;
use storage_core::{
    Atomicity, BackendInfo, Batch, Key, MAX_BATCH, Page, Query, Record, RecordBackend, RecordCapabilities, Result, SchemaChange,
    TableName, TableSchema, Version,
};
use storage_sql::server::{Count, Get, Scan, Versions, Work, commit};

use crate::shared::Handle;
use crate::{catalog, maintenance, read, tables};

/// The tables in a [`MysqlStore`](crate::MysqlStore).
#[derive(Debug)]
pub struct MysqlRecords {
    handle: Handle,
    capabilities: RecordCapabilities,
}

impl MysqlRecords {
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
            max_record_bytes: handle.shared().found.largest(),
            pushdown: true,
            durable: handle.shared().found.durable,
        };
        Self { handle, capabilities }
    }
}

#[async_trait]
impl RecordBackend for MysqlRecords {
    fn info(&self) -> &BackendInfo {
        self.handle.info()
    }

    fn capabilities(&self) -> &RecordCapabilities {
        &self.capabilities
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        let owned = schema.clone();
        self.handle.open()?.apart(move |connection, shared| Box::pin(tables::create(shared, connection, owned))).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        let (name, change) = (table.clone(), change.clone());
        self.handle.open()?.apart(move |connection, shared| Box::pin(tables::alter(shared, connection, name, change))).await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        let name = table.clone();
        self.handle.open()?.apart(move |connection, shared| Box::pin(tables::drop_table(shared, connection, name))).await
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        let shared = self.handle.open()?;
        let mut first = true;
        loop {
            let lent = shared.lend().await?;
            let tables = shared.in_time(read::tables(shared, &lent)).await?;
            if let Some(tables) = shared.asked(lent, tables, &mut first) {
                return tables;
            }
        }
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
        let mut first = true;
        loop {
            let lent = shared.lend().await?;
            let sweep = async {
                catalog::reload(&shared.catalog, &lent).await?;
                let tables = shared.still(&lent, vec![&query.table]).await?;
                maintenance::sweep(shared, &lent, tables.table(&query.table)?).await
            };
            let swept = shared.in_time(sweep).await?;
            if let Some(swept) = shared.asked(lent, swept, &mut first) {
                return swept;
            }
        }
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
        crate::shared::ping(self.handle.open()?).await
    }

    async fn close(&self) -> Result<()> {
        self.handle.close().await
    }
}
