//! A record backend of the smallest useful kind: tables in one map behind one lock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use storage_core::{
    Applied, Atomicity, BackendInfo, Batch, Clock, Error, Key, MAX_BATCH, Page, Query, Record, RecordBackend, RecordCapabilities,
    Result, TableName, TableSchema, Version,
};

/// What a user may count on. What is `false` here is refused with `Unsupported`, never ignored.
const CAPABILITIES: RecordCapabilities = RecordCapabilities {
    atomic: Atomicity::Store,
    enqueue: false,
    expiry: false,
    history: false,
    unique: false,
    alter: false,
    backup: false,
    max_batch: MAX_BATCH,
    max_record_bytes: 1 << 20,
    pushdown: false,
    durable: false,
};

#[derive(Debug)]
struct Table {
    schema: TableSchema,
    rows: BTreeMap<Key, Record>,
}

/// Tables that live as long as this value.
#[derive(Debug)]
pub struct TinyRecords {
    info: BackendInfo,
    clock: Clock,
    tables: Mutex<BTreeMap<TableName, Table>>,
}

impl TinyRecords {
    /// An empty store. The name appears in errors.
    #[must_use]
    pub fn new(name: &str, clock: Clock) -> Self {
        Self { info: BackendInfo::new("tiny", name), clock, tables: Mutex::default() }
    }

    /// The lock is never held over an `await`, so a cancelled call leaves nothing locked.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TableName, Table>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(tables: &'a BTreeMap<TableName, Table>, name: &TableName) -> Result<&'a Table> {
    tables.get(name).ok_or_else(|| Error::not_found(format!("there is no table `{name}`")))
}

#[async_trait]
impl RecordBackend for TinyRecords {
    fn info(&self) -> &BackendInfo {
        &self.info
    }
    fn capabilities(&self) -> &RecordCapabilities {
        &CAPABILITIES
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        let mut tables = self.lock();
        let same = |table: &&Table| table.schema.name.as_str().eq_ignore_ascii_case(schema.name.as_str());
        let Some(found) = tables.values().find(same) else {
            tables.insert(schema.name.clone(), Table { schema: schema.clone(), rows: BTreeMap::new() });
            return Ok(true);
        };
        match found.schema.difference(schema) {
            None if found.schema.name == schema.name => Ok(false),
            None => Err(Error::already_exists(format!("there is a table `{}`", found.schema.name))),
            Some(difference) => Err(Error::already_exists(format!("it has another schema: {difference}"))),
        }
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        Ok(self.lock().remove(table).is_some())
    }
    async fn tables(&self) -> Result<Vec<TableSchema>> {
        Ok(self.lock().values().map(|table| table.schema.clone()).collect())
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        let tables = self.lock();
        let table = find(&tables, table)?;
        Ok(keys.iter().map(|key| table.rows.get(key).cloned()).collect())
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        let tables = self.lock();
        let table = find(&tables, &query.table)?;
        Page::select(query, &table.schema, table.rows.values().cloned())
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        let tables = self.lock();
        let table = find(&tables, &query.table)?;
        Ok(table.rows.values().filter(|record| query.filter.matches(&table.schema, record)).count() as u64)
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        let mut tables = self.lock();
        let now = self.clock.now(); // under the lock: later commits have later times
        let mut staged: BTreeMap<(&TableName, &Key), Option<Record>> = BTreeMap::new();
        let mut versions = Vec::with_capacity(batch.len());
        for (index, write) in batch.writes.iter().enumerate() {
            let apply = || {
                let Some(target) = write.target() else { return Err(Error::unsupported("this backend has no queues")) };
                let stored = find(&tables, target.0)?.rows.get(target.1);
                Ok((target, write.apply(staged.get(&target).map_or(stored, Option::as_ref), now)?))
            };
            let (target, applied) = apply().map_err(|error| error.with_failed_write(index))?;
            versions.push(applied.version());
            match applied {
                Applied::Put(record) => drop(staged.insert(target, Some(record))),
                Applied::Deleted(_) => drop(staged.insert(target, None)),
                Applied::Unchanged(_) => {}
            }
        }
        for ((table, key), record) in staged {
            let Some(table) = tables.get_mut(table) else { continue };
            table.rows.remove(key);
            table.rows.extend(record.map(|record| (key.clone(), record)));
        }
        Ok(versions)
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
