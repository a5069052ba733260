//! [`RecordBackend`] on Redis.

mod admin;
mod alter;
mod commit;
mod encode;
mod pack;
mod plan;
mod read;
mod row;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::cmd;
use storage_core::{
    Atomicity, BackendInfo, Batch, Clock, Error, Key, MAX_BATCH, OpenFlag, Page, Query, Record, RecordBackend,
    RecordCapabilities, Result, SchemaChange, TableName, TableSchema, Version,
};
use tokio::time::Instant;

use self::commit::Outcome;
use self::table::{Table, Tables};
use crate::client::Client;
use crate::config::Topology;
use crate::layout::Layout;

/// How many bytes a record's fields may have: a script has the whole batch in memory, more than once.
const MAX_RECORD: usize = 16 << 20;
/// How often a call is tried anew because the table was changed meanwhile.
const MAX_TRIES: u32 = 100;
/// How long a call waits before it looks whether a table is rewritten.
const PAUSE: Duration = Duration::from_millis(20);

/// The tables in a Redis.
#[derive(Debug)]
pub struct RedisRecords {
    records: Arc<Records>,
    capabilities: RecordCapabilities,
    open: OpenFlag,
}

/// What all parts of it share.
#[derive(Debug)]
struct Records {
    client: Arc<Client>,
    layout: Layout,
    clock: Clock,
    tables: Tables,
}

impl RedisRecords {
    pub(crate) fn new(client: Arc<Client>, layout: Layout, clock: Clock, durable: bool) -> Self {
        // In a Cluster tables are apart, and so are queues.
        let whole = !matches!(client.topology(), Topology::Cluster(_));
        let capabilities = RecordCapabilities {
            atomic: if whole { Atomicity::Store } else { Atomicity::Table },
            enqueue: whole,
            expiry: true,
            history: true,
            unique: true,
            alter: true,
            backup: false,
            max_batch: MAX_BATCH,
            max_record_bytes: MAX_RECORD,
            pushdown: false,
            durable,
        };
        let records = Arc::new(Records { client, layout, clock, tables: Tables::default() });
        Self { records, capabilities, open: OpenFlag::default() }
    }
}

impl Records {
    /// The time as scripts are told: nothing for the server's own, which is the one that counts, but for tests.
    fn now(&self) -> Vec<u8> {
        match self.clock.is_manual() {
            true => self.clock.now().timestamp_micros().to_string().into_bytes(),
            false => Vec::new(),
        }
    }

    async fn known(&self, name: &TableName) -> Result<Arc<Table>> {
        self.tables.known(&self.client, &self.layout, name).await
    }

    async fn fresh(&self, name: &TableName) -> Result<Arc<Table>> {
        self.tables.fresh(&self.client, &self.layout, name).await
    }

    /// Calls with the table as it is known, and again where it is not so.
    async fn with_table<T, F>(&self, name: &TableName, call: impl Fn(Arc<Table>) -> F) -> Result<T>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        for _ in 0..MAX_TRIES {
            if let Some(answer) = call(self.known(name).await?).await? {
                return Ok(answer);
            }
            self.tables.forget(name);
        }
        Err(changing(name))
    }

    /// Waits a little for a table that is rewritten; an error once that has taken as long as a call may.
    async fn wait(&self, name: &TableName, started: Instant) -> Result<()> {
        if started.elapsed() + PAUSE > self.client.timeout() {
            return Err(changing(name));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

fn changing(name: &TableName) -> Error {
    Error::unavailable(format!("table `{name}` is being changed: try again"))
}

#[async_trait]
impl RecordBackend for RedisRecords {
    fn info(&self) -> &BackendInfo {
        self.records.client.info()
    }

    fn capabilities(&self) -> &RecordCapabilities {
        &self.capabilities
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.open.check()?;
        schema.check()?;
        self.records.create(schema).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.open.check()?;
        alter::alter(&self.records, table, change).await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.open.check()?;
        self.records.drop_table(table).await
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.open.check()?;
        self.records.all_tables().await
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.open.check()?;
        self.records.get(table, keys).await
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        self.open.check()?;
        self.records.scan(query).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.open.check()?;
        self.records.count(query).await
    }

    async fn sweep(&self, query: &Query) -> Result<u64> {
        self.open.check()?;
        self.records.sweep(&query.table).await
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        self.open.check()?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let (started, mut changes) = (Instant::now(), 0);
        while changes < MAX_TRIES {
            match commit::attempt(&self.records, &batch).await? {
                Outcome::Done(versions) => return Ok(versions),
                Outcome::Stale(name) => {
                    self.records.tables.forget(&name);
                    changes += 1;
                }
                // Ends with the timeout.
                Outcome::Busy(name) => self.records.wait(&name, started).await?,
            }
        }
        Err(Error::unavailable("the tables of the batch are being changed all the time: try again"))
    }

    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        self.open.check()?;
        self.records.history(table, key).await
    }

    async fn backup(&self, _to: &Path) -> Result<()> {
        Err(Error::unsupported(
            "a Redis is not backed up here: copy its RDB or append-only file, or copy the store to another backend",
        ))
    }

    async fn ping(&self) -> Result<()> {
        self.open.check()?;
        self.records.client.everywhere(&cmd("PING")).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        if self.open.close() {
            self.records.client.disconnect();
        }
        Ok(())
    }
}
