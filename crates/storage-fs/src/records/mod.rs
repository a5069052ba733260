//! Records as files.
//!
//! ```text
//! records/<table>/_schema.json                      the schema, and how it came about
//! records/<table>/<key>.json                        a record: key, version, times, fields
//! records/<table>/_unique/<n>/<columns>/<hash>.json who has a unique value
//! records/<table>/_history/<key>/<n>.json           a kept version
//! ```
//!
//! Table names are in lower case; keys are encoded as [`names`](crate::names) says. A record's file may be edited by hand while nobody
//! writes it; unique values are then not checked.

mod alter;
pub(crate) mod history;
mod read;
mod table;
mod unique;
mod write;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{
    Atomicity, BackendInfo, Batch, Key, MAX_BATCH, OpenFlag, Page, Query, Record, RecordBackend, RecordCapabilities, Result,
    SchemaChange, TableName, TableSchema, Version,
};

pub(crate) use alter::discard;
pub(crate) use read::Listings;
pub(crate) use table::{Schemas, TABLES, Table};
pub(crate) use write::remove_expired;

use crate::backup::{self, Extent};
use crate::base::Base;
use crate::store::Core;

/// The tables of an [`FsStore`](crate::FsStore).
#[derive(Debug)]
pub struct FsRecords {
    core: Arc<Core>,
    open: OpenFlag,
    capabilities: RecordCapabilities,
}

impl FsRecords {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let capabilities = RecordCapabilities {
            atomic: Atomicity::Store,
            enqueue: true,
            expiry: true,
            history: true,
            unique: true,
            alter: true,
            backup: true,
            max_batch: MAX_BATCH,
            max_record_bytes: 16 << 20,
            pushdown: false,
            durable: core.base.durable,
        };
        Self { core, open: OpenFlag::default(), capabilities }
    }

    /// Reads while nothing changes.
    async fn read<T: Send + 'static>(
        &self,
        table: &TableName,
        read: impl Fn(&Base, &Table) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        self.open.check()?;
        let table = table.clone();
        self.core
            .while_still(move |base, state| {
                let table = base.schemas.get(base, state.structure, &table)?;
                read(base, &table)
            })
            .await
    }
}

#[async_trait]
impl RecordBackend for FsRecords {
    fn info(&self) -> &BackendInfo {
        &self.core.base.info
    }

    fn capabilities(&self) -> &RecordCapabilities {
        &self.capabilities
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.open.check()?;
        schema.check()?;
        let wanted = schema.clone();
        // Nothing stops for a table that is there.
        if self.core.while_still(move |base, _| alter::is_there(base, &wanted)).await? {
            return Ok(false);
        }
        let wanted = schema.clone();
        self.core.alone(move |alone| alter::create(alone.base, &wanted)).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.open.check()?;
        let (table, change) = (table.clone(), change.clone());
        self.core.alone(move |alone| alter::alter(alone.base, &table, &change)).await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.open.check()?;
        let table = table.clone();
        let dropped = self.core.alone(move |alone| alter::drop(alone.base, &table)).await?;
        self.core.empty_trash().await;
        Ok(dropped)
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.open.check()?;
        self.core.while_still(|base, _| alter::tables(base)).await
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.open.check()?;
        if let Some(found) = read::get_cached(&self.core.base, table, keys)? {
            return Ok(found);
        }
        let keys = keys.to_vec();
        self.read(table, move |base, table| keys.iter().map(|key| read::get(base, table, key)).collect()).await
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        let wanted = query.clone();
        self.read(&query.table, move |base, table| read::scan(base, table, &wanted)).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        let wanted = query.clone();
        self.read(&query.table, move |base, table| read::count(base, table, &wanted)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        self.open.check()?;
        self.core.write(move |group| write::batch(group, &batch)).await
    }

    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        let wanted = key.clone();
        self.read(table, move |base, table| history::read(base, table, &wanted)).await
    }

    async fn backup(&self, to: &Path) -> Result<()> {
        self.open.check()?;
        backup::backup(&self.core, to, Extent::Everything).await
    }

    async fn ping(&self) -> Result<()> {
        self.open.check()?;
        self.core.ping().await
    }

    async fn close(&self) -> Result<()> {
        if self.open.close() {
            self.core.settle().await?;
        }
        Ok(())
    }
}
