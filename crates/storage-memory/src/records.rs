//! Records in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use storage_core::{
    Applied, Atomicity, BackendInfo, Batch, Error, Key, MAX_BATCH, NewMessage, OpenFlag, Page, Query, QueueName, Record,
    RecordBackend, RecordCapabilities, Result, SchemaChange, TableName, TableSchema, Version, Write,
};

use crate::queues::Queues;
use crate::store::Shared;
use crate::table::Table;

const CAPABILITIES: RecordCapabilities = RecordCapabilities {
    atomic: Atomicity::Store,
    enqueue: true,
    expiry: true,
    history: true,
    unique: true,
    alter: true,
    backup: false,
    max_batch: MAX_BATCH,
    max_record_bytes: 64 << 20,
    pushdown: false,
    durable: false,
};

/// The tables of a [`MemoryStore`](crate::MemoryStore).
#[derive(Debug)]
pub struct MemoryRecords {
    shared: Arc<Shared>,
    open: OpenFlag,
}

impl MemoryRecords {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: OpenFlag::default() }
    }

    fn read<T>(&self, table: &TableName, read: impl FnOnce(&Table) -> Result<T>) -> Result<T> {
        self.open.check()?;
        let tables = self.shared.tables();
        read(tables.get(table).ok_or_else(|| no_table(table))?)
    }

    fn create(&self, schema: &TableSchema) -> Result<bool> {
        self.open.check()?;
        schema.check()?;
        let mut tables = self.shared.tables_mut();
        let same_name = |name: &&TableName| name.as_str().eq_ignore_ascii_case(schema.name.as_str());
        let Some(name) = tables.keys().find(same_name) else {
            tables.insert(schema.name.clone(), Table::new(schema.clone()));
            return Ok(true);
        };
        if *name != schema.name {
            return Err(Error::already_exists(format!("there is a table `{name}`, and letter case does not distinguish tables")));
        }
        match tables[name].schema.difference(schema) {
            None => Ok(false),
            Some(difference) => Err(Error::already_exists(format!("it is there with another schema: {difference}"))),
        }
    }

    fn alter(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.open.check()?;
        let mut tables = self.shared.tables_mut();
        let entry = tables.get_mut(table).ok_or_else(|| no_table(table))?;
        entry.drop_expired(self.shared.clock.now());
        *entry = entry.altered(change)?;
        Ok(())
    }

    fn commit_now(&self, batch: &Batch) -> Result<Vec<Version>> {
        self.open.check()?;
        let mut tables = self.shared.tables_mut();
        let mut queues = batch.enqueues().then(|| self.shared.queues());
        // Read under the lock: later commits have later times.
        let now = self.shared.clock.now();
        let mut staged = Staged { tables: &mut tables, undo: Vec::new(), written: Vec::new(), messages: Vec::new(), now };
        let mut versions = Vec::with_capacity(batch.len());
        for (index, write) in batch.writes.iter().enumerate() {
            match staged.step(write, queues.as_deref()) {
                Ok(version) => versions.push(version),
                Err(error) => {
                    staged.roll_back();
                    return Err(error.with_failed_write(index));
                }
            }
        }
        staged.finish(queues.as_deref_mut());
        Ok(versions)
    }
}

fn no_table(table: &TableName) -> Error {
    Error::not_found(format!("there is no table `{table}`: create it first"))
}

/// A batch that is being done, write by write, in place.
struct Staged<'a> {
    tables: &'a mut BTreeMap<TableName, Table>,
    /// What was there before each write.
    undo: Vec<(&'a TableName, &'a Key, Option<Record>)>,
    /// New versions, for the history.
    written: Vec<(&'a TableName, Record)>,
    messages: Vec<(&'a QueueName, &'a NewMessage)>,
    now: DateTime<Utc>,
}

impl<'a> Staged<'a> {
    fn step(&mut self, write: &'a Write, queues: Option<&Queues>) -> Result<Version> {
        if let (Write::Enqueue { queue, message }, Some(queues)) = (write, queues) {
            queues.check_home(queue)?;
            self.messages.push((queue, message));
            return Ok(Version::NONE);
        }
        let Some((name, key)) = write.target() else { return Ok(Version::NONE) };
        let table = self.tables.get_mut(name).ok_or_else(|| no_table(name))?;
        let applied = write.apply(table.get(key, self.now), self.now)?;
        let before = table.apply(key, &applied, self.now)?;
        let version = applied.version();
        match applied {
            Applied::Unchanged(_) => return Ok(version),
            Applied::Put(record) if table.schema.history != storage_core::History::None => self.written.push((name, record)),
            Applied::Put(_) | Applied::Deleted(_) => {}
        }
        self.undo.push((name, key, before));
        Ok(version)
    }

    fn roll_back(self) {
        for (name, key, before) in self.undo.into_iter().rev() {
            if let Some(table) = self.tables.get_mut(name) {
                table.restore(key, before);
            }
        }
    }

    /// What can't fail any more.
    fn finish(self, queues: Option<&mut Queues>) {
        for (name, record) in self.written {
            if let Some(table) = self.tables.get_mut(name) {
                table.remember(record);
            }
        }
        let mut swept = None;
        for (name, _, _) in self.undo {
            // Batches mostly stay in one table: sweep it once.
            if swept != Some(name)
                && let Some(table) = self.tables.get_mut(name)
            {
                table.sweep(self.now);
                swept = Some(name);
            }
        }
        if let Some(queues) = queues {
            for (queue, message) in self.messages {
                queues.send(queue, vec![message.clone()], self.now);
            }
        }
    }
}

#[async_trait]
impl RecordBackend for MemoryRecords {
    fn info(&self) -> &BackendInfo {
        &self.shared.info
    }

    fn capabilities(&self) -> &RecordCapabilities {
        &CAPABILITIES
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.create(schema)
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.alter(table, change)
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.open.check()?;
        Ok(self.shared.tables_mut().remove(table).is_some())
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.open.check()?;
        Ok(self.shared.tables().values().map(|table| table.schema.clone()).collect())
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.read(table, |table| {
            let now = table.now(&self.shared.clock);
            Ok(keys.iter().map(|key| table.get(key, now).cloned()).collect())
        })
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        self.read(&query.table, |table| table.scan(query, table.now(&self.shared.clock)))
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.read(&query.table, |table| Ok(table.count(query, table.now(&self.shared.clock)) as u64))
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        self.commit_now(&batch)
    }

    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        self.read(table, |table| table.history(key))
    }

    async fn backup(&self, _to: &Path) -> Result<()> {
        Err(Error::unsupported("a store in memory is not backed up: copy it to a backend that keeps things"))
    }

    async fn ping(&self) -> Result<()> {
        self.open.check()
    }

    async fn close(&self) -> Result<()> {
        self.open.close();
        Ok(())
    }
}
