//! The record backend.

use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{
    Atomicity, BackendInfo, Batch, DriverConfig, Key, Page, Query, Record, RecordBackend, RecordCapabilities, Result,
    SchemaChange, TableName, TableSchema, Version,
};

use crate::batch::MAX_CHANGES;
use crate::config::Settings;
use crate::entity::MAX_RECORD;
use crate::store::Store;
use crate::{catalogue, commit, names, read};

/// Records on Azure Table Storage.
#[derive(Clone, Debug)]
pub struct AzureTables {
    store: Arc<Store>,
}

const CAPABILITIES: RecordCapabilities = RecordCapabilities {
    atomic: Atomicity::Partition,
    enqueue: false,
    expiry: true,
    history: false,
    unique: false,
    alter: true,
    backup: false,
    max_batch: MAX_CHANGES,
    max_record_bytes: MAX_RECORD,
    pushdown: true,
    durable: true,
};

impl AzureTables {
    /// The tables of a storage account. Nothing is asked of the service yet.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config).
    pub fn open(config: &DriverConfig) -> Result<Self> {
        let settings = Settings::new(config)?;
        Ok(Self { store: Arc::new(Store::new(&settings, config.clock.clone())?) })
    }
}

#[async_trait]
impl RecordBackend for AzureTables {
    fn info(&self) -> &BackendInfo {
        &self.store.info
    }

    fn capabilities(&self) -> &RecordCapabilities {
        &CAPABILITIES
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.store.open.check()?;
        schema.check()?;
        catalogue::check_offers(schema)?;
        catalogue::create(&self.store, schema).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.store.open.check()?;
        catalogue::alter(&self.store, table, change).await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.store.open.check()?;
        catalogue::drop_table(&self.store, table).await
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.store.open.check()?;
        catalogue::tables(&self.store).await
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.store.open.check()?;
        let store = &*self.store;
        store.with_table(table, |table| async move { read::get(&store.client, &table, &store.clock, keys).await }).await
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        self.store.open.check()?;
        let store = &*self.store;
        store.with_table(&query.table, |table| async move { read::scan(&store.client, &table, &store.clock, query).await }).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.store.open.check()?;
        let (store, filter) = (&*self.store, &query.filter);
        store
            .with_table(&query.table, |table| async move { read::count(&store.client, &table, &store.clock, filter).await })
            .await
    }

    async fn sweep(&self, query: &Query) -> Result<u64> {
        self.store.open.check()?;
        let (store, filter) = (&*self.store, &query.filter);
        store
            .with_table(&query.table, |table| async move { read::sweep(&store.client, &table, &store.clock, filter).await })
            .await
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        self.store.open.check()?;
        commit::commit(&self.store, &batch).await
    }

    async fn ping(&self) -> Result<()> {
        self.store.open.check()?;
        // A look at the table of tables: who may do nothing else may do this.
        let mut search = crate::client::Search::new(Vec::new(), 1).select(&["PartitionKey", "RowKey"]);
        match self.store.client.find(&names::catalogue(&self.store.prefix), &mut search).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.is(crate::error::code::NO_TABLE) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn close(&self) -> Result<()> {
        self.store.open.close();
        Ok(())
    }
}
