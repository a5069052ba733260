//! Records on any blobs: one JSON object a record, its ETag the optimistic lock.
//!
//! ```
//! use std::sync::Arc;
//!
//! use serde_json::json;
//! use storage_core::{RecordStore, TableName, TableSchema, fields};
//! use storage_memory::MemoryStore;
//! use storage_object::records::{BlobRecords, RecordsOptions};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! let bucket = Arc::new(MemoryStore::new().blobs());
//! let records = RecordStore::new(Arc::new(BlobRecords::new(bucket, RecordsOptions::default())?));
//! records.create_table(&TableSchema::builder("notes").keep_undeclared().build()?).await?;
//! records.insert(&TableName::new("notes")?, "a", fields(json!({"text": "hello"}))).await?;
//! # Ok::<(), storage_core::Error>(())
//! # }).unwrap();
//! ```
//!
//! # What is where
//!
//! ```text
//! records/tables/<table>.json                            the schema, how it came about, and the folder of the records
//! records/data/<table>-<8 hex digits>/<id>               a record of a table with one key column
//! records/data/<table>-<8 hex digits>/<partition>!/<id>  a record of a table with two
//! records/dropped/<table>-<8 hex digits>.json            a dropped table whose folder is still to be emptied
//! ```
//!
//! A record's object is `{"key": {"partition": …, "id": …}, "version": 3, "updated_at": …, "expires_at": …, "fields": {…}}`; besides, `generation` counts the
//! changes of the schema that it has seen, and `write` is the mark of the commit that wrote it. Tables are in lower case; names of keys are lower case too,
//! sort as the keys do, and can be read back (`A/b` is `_41.2fb`; integers have 19 digits; what is longer than 200 bytes ends in a hash).
//!
//! # What it promises
//!
//! A write reads the record, decides, and puts it back on condition that its ETag is still the same; where it is not, it begins anew. So writes of one record
//! are exact, whoever else writes: versions grow by one, no update is lost, of many inserts one succeeds. Several writes in one batch are atomic if they are
//! about one record; others are refused, and so are unique columns, history and messages within batches. What a table's changes ask of its records is done as they
//! are read, so that a change is one write too.
//!
//! A put whose answer is lost (`Timeout`, `Unavailable`) may have happened: read the record before trying again. It is not repeated here.
//!
//! # What it costs
//!
//! | call | requests |
//! |---|---|
//! | `get` of *n* keys | 1 + *n* reads, 16 at a time |
//! | `commit` | 2 reads side by side, then 1 write; 3 more each time that another writer came first |
//! | `scan` by key, *n* records | 1 read, a listing per 1,000 names, *n* + 1 reads, 16 at a time (so up to 15 too many) |
//! | `scan` in another order, or by fields | the same with *n* = all records that the filter's key columns leave |
//! | `count` by key columns, where nothing expires | 1 read, a listing per 1,000 names |
//! | `count` otherwise | as a `scan` by fields |
//! | `sweep` | nothing where nothing expires; else as a `scan` by fields, and a write for each that has expired |
//!
//! Filters on the key narrow the listing: a partition, and a first and a last key. Nothing else is indexed. Expired records are absent at once; a query that comes
//! across one removes it, and so does `sweep`.

mod admin;
mod commit;
mod names;
mod objects;
mod range;
mod read;
mod table;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{
    Atomicity, BackendInfo, Backends, Batch, BlobBackend, BlobPath, Clock, DriverConfig, Error, History, Key, MAX_BATCH,
    OpenFlag, Page, Query, Record, RecordBackend, RecordCapabilities, Result, SchemaChange, TableName, TableSchema, Version,
};

use self::objects::Objects;
use self::table::Tables;

/// How many bytes a record's fields may have: 16 of them are in memory at a time, beside the page.
const MAX_RECORD: u64 = 4 << 20;
/// What an object has beside the fields.
const AROUND: u64 = 64 << 10;
/// The longest prefix, in bytes: a path has 1,024, and the names of table and key need their part.
const MAX_PREFIX: usize = 400;

/// How records are kept on blobs.
#[derive(Clone, Debug)]
pub struct RecordsOptions {
    /// The folder that all of it is in, of 400 bytes at most.
    pub prefix: BlobPath,
    /// Where expiry and the times of writes come from. Programs that share records need clocks that agree.
    pub clock: Clock,
}

impl Default for RecordsOptions {
    /// Below `records`, by the system's clock.
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "a literal that is a good path")]
        let prefix = BlobPath::new("records").expect("a good path");
        Self { prefix, clock: Clock::system() }
    }
}

/// Records on blobs. See the [module](self).
#[derive(Debug)]
pub struct BlobRecords {
    info: BackendInfo,
    capabilities: RecordCapabilities,
    objects: Objects,
    tables: Tables,
    clock: Clock,
    open: OpenFlag,
}

impl BlobRecords {
    /// Records on `blobs`, which it does not close.
    ///
    /// # Errors
    /// [`Unsupported`](storage_core::ErrorKind::Unsupported) where the blobs don't take conditional writes; [`InvalidInput`](storage_core::ErrorKind::InvalidInput)
    /// for a prefix that is too long.
    pub fn new(blobs: Arc<dyn BlobBackend>, options: RecordsOptions) -> Result<Self> {
        let able = blobs.capabilities().clone();
        if let Some(lacks) = lacks(&*blobs) {
            return Err(Error::unsupported(format!("records on blobs need {lacks}, which this backend does not offer"))
                .with_operation("records.open")
                .with_backend(blobs.info()));
        }
        if options.prefix.as_str().len() > MAX_PREFIX {
            return Err(Error::invalid(format!("the prefix of records on blobs may have {MAX_PREFIX} bytes"))
                .with_operation("records.open"));
        }
        let max_record = MAX_RECORD.min(able.max_blob_bytes.saturating_sub(AROUND));
        let capabilities = RecordCapabilities {
            atomic: Atomicity::Record,
            enqueue: false,
            expiry: true,
            history: false,
            unique: false,
            alter: true,
            backup: false,
            max_batch: MAX_BATCH,
            max_record_bytes: usize::try_from(max_record).unwrap_or(usize::MAX),
            pushdown: false,
            durable: able.durable,
        };
        let info = BackendInfo::new(&blobs.info().driver, format!("{}/{}", blobs.info().location, options.prefix));
        let objects = Objects { blobs, root: options.prefix, max_bytes: max_record + AROUND };
        Ok(Self { info, capabilities, objects, tables: Tables::default(), clock: options.clock, open: OpenFlag::default() })
    }
}

/// What blobs would need to hold records, in words.
fn lacks(blobs: &dyn BlobBackend) -> Option<&'static str> {
    let able = blobs.capabilities();
    match (able.create, able.conditional) {
        (true, true) => None,
        (false, true) => Some("writes that create only (`create`)"),
        (true, false) => Some("writes and deletes on condition of an ETag (`conditional`)"),
        (false, false) => Some("writes that create only (`create`) and those on condition of an ETag (`conditional`)"),
    }
}

/// What a driver that has opened `blobs` answers with: them, and records on them where they take conditional writes.
///
/// # Errors
/// Those of [`BlobRecords::new`], but for blobs that can't hold records: then there are none.
pub fn serve(blobs: Arc<dyn BlobBackend>, config: &DriverConfig) -> Result<Backends> {
    let records: Option<Arc<dyn RecordBackend>> = match lacks(&*blobs) {
        None => {
            let options = RecordsOptions { clock: config.clock.clone(), ..RecordsOptions::default() };
            Some(Arc::new(BlobRecords::new(Arc::clone(&blobs), options)?))
        }
        Some(_) => None,
    };
    Ok(Backends { records, queue: None, blobs: Some(blobs) })
}

fn check_offers(schema: &TableSchema) -> Result<()> {
    if schema.unique_sets().next().is_some() {
        return Err(Error::unsupported("records on blobs can't enforce unique columns: each record is an object of its own"));
    }
    if schema.history != History::None {
        return Err(Error::unsupported("records on blobs keep no history: each record is one object"));
    }
    Ok(())
}

#[async_trait]
impl RecordBackend for BlobRecords {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn capabilities(&self) -> &RecordCapabilities {
        &self.capabilities
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.open.check()?;
        schema.check()?;
        check_offers(schema)?;
        admin::create(&self.objects, schema).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.open.check()?;
        admin::alter(&self.objects, &self.clock, table, change).await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.open.check()?;
        admin::drop(&self.objects, table).await
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.open.check()?;
        admin::tables(&self.objects).await
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.open.check()?;
        read::get(&self.objects, &self.tables, &self.clock, table, keys).await
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        self.open.check()?;
        let table = self.tables.load(&self.objects, &query.table).await?;
        read::scan(&self.objects, &table, &self.clock, query).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.open.check()?;
        let table = self.tables.load(&self.objects, &query.table).await?;
        read::count(&self.objects, &table, &self.clock, &query.filter).await
    }

    async fn sweep(&self, query: &Query) -> Result<u64> {
        self.open.check()?;
        let table = self.tables.load(&self.objects, &query.table).await?;
        read::sweep(&self.objects, &table, &self.clock, &query.filter).await
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        self.open.check()?;
        commit::commit(&self.objects, &self.tables, &self.clock, &batch).await
    }

    async fn history(&self, _table: &TableName, _key: &Key) -> Result<Vec<Record>> {
        Err(Error::unsupported("records on blobs keep no history: each record is one object"))
    }

    async fn backup(&self, _to: &Path) -> Result<()> {
        Err(Error::unsupported("records on blobs are not backed up here: copy the blobs, or use the service's versioning"))
    }

    async fn ping(&self) -> Result<()> {
        self.open.check()?;
        self.objects.blobs.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.open.close();
        Ok(())
    }
}
