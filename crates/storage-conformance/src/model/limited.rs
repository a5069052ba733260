//! The model with no more capabilities than the backend that it is compared with: what that one may refuse, the model refuses too.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{
    BackendInfo, Batch, Key, Page, Query, Record, RecordBackend, RecordCapabilities, Result, SchemaChange, TableName,
    TableSchema, Version,
};

#[derive(Debug)]
pub(super) struct Limited {
    pub(super) inner: Arc<dyn RecordBackend>,
    pub(super) capabilities: RecordCapabilities,
}

#[async_trait]
impl RecordBackend for Limited {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> &RecordCapabilities {
        &self.capabilities
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.inner.create_table(schema).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.inner.alter_table(table, change).await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.inner.drop_table(table).await
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.inner.tables().await
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.inner.get(table, keys).await
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        self.inner.scan(query).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.inner.count(query).await
    }

    async fn sweep(&self, query: &Query) -> Result<u64> {
        self.inner.sweep(query).await
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        self.inner.commit(batch).await
    }

    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        self.inner.history(table, key).await
    }

    async fn backup(&self, to: &Path) -> Result<()> {
        self.inner.backup(to).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
