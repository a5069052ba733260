//! [`CachedRecords`]: records kept in memory.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use storage_core::{
    BackendInfo, Batch, CacheStats, Clock, Key, Page, Query, Record, RecordBackend, RecordCapabilities, Result, SchemaChange,
    TableName, TableSchema, Version, Write, clock,
};

use crate::counters::Counters;
use crate::epochs::{Changing, DOUBT, Epochs, is_final};

/// What an entry takes besides its fields, about.
const ENTRY: usize = 512;

/// Records that expire are not taken from the cache for so long before: the clock that they expire by may differ from ours.
const SKEW: Duration = Duration::from_secs(1);

/// What is kept of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordCacheOptions {
    /// How many bytes the records take in all, about.
    pub max_bytes: u64,
    /// For so long after it was read, a record is given without asking the backend: what other processes write shows so much later.
    pub max_age: Duration,
    /// Pages of queries are kept too: they are of use where a table is read much more often than it is written, since a write takes out all pages of its table.
    pub pages: bool,
}

impl Default for RecordCacheOptions {
    /// 64 MiB, for 30 seconds, with pages.
    fn default() -> Self {
        Self { max_bytes: 64 << 20, max_age: Duration::from_secs(30), pages: true }
    }
}

/// What is kept, and under what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Of {
    Record(TableName, Key),
    /// The query as text.
    Page(TableName, Box<str>),
}

#[derive(Clone)]
struct Entry {
    kept: Kept,
    /// How often the table had been changed.
    table: u64,
}

#[derive(Clone)]
enum Kept {
    /// `None`: there is no such record.
    Record(Option<Arc<Record>>),
    /// With how often records of the table had been written.
    Page(Arc<Page>, u64),
}

/// What changes are about.
#[derive(Hash)]
enum Thing<'a> {
    /// A table itself, and so everything in it.
    Table(&'a TableName),
    /// Any record of a table.
    Pages(&'a TableName),
    Record(&'a TableName, &'a Key),
}

/// The records that a batch is about.
#[derive(Default)]
struct Targets {
    written: Vec<(TableName, Key)>,
    checked: Vec<(TableName, Key)>,
}

impl Targets {
    fn of(batch: &Batch) -> Self {
        let mut targets = Self::default();
        for write in &batch.writes {
            let Some((table, key)) = write.target() else { continue };
            let list = if matches!(write, Write::Check { .. }) { &mut targets.checked } else { &mut targets.written };
            list.push((table.clone(), key.clone()));
        }
        targets
    }
}

/// What all handles on one store in this process share.
struct Shared {
    entries: moka::sync::Cache<Of, Entry>,
    epochs: Epochs,
    counters: Counters,
}

/// The records of another backend, of which those that were read are kept in memory, and so are pages of queries.
///
/// No read that begins after a write through any such handle of this process returns what was before it, whoever reads meanwhile: a write takes out what it is about before it begins, what was read
/// while it went on is not kept, and a batch is read whole or not at all. That holds for a write that was cancelled or whose outcome is not known, too: what it was about is not kept for a
/// minute. Handles on the same store, by driver and location, share what they keep; the first one's options hold.
///
/// What others write (other processes, and this one around the cache) shows after [`max_age`](RecordCacheOptions::max_age) at the latest. A write whose precondition fails takes out what it
/// is about, so that who reads again, as a transaction does, reads what is there.
///
/// Counts, history and stale reads are not kept, and neither are records in the last second before they expire, nor pages with records that expire.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use std::sync::Arc;
/// use storage_cache::{CachedRecords, RecordCacheOptions};
/// use storage_core::{Clock, RecordStore};
/// use storage_memory::MemoryStore;
///
/// let backend = MemoryStore::new().backends().records.expect("memory has records");
/// let cached = CachedRecords::new(backend, RecordCacheOptions::default(), Clock::system());
/// let records = RecordStore::new(Arc::new(cached));
/// # let _ = records;
/// # Ok::<(), storage_core::Error>(()) })?;
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone)]
pub struct CachedRecords {
    inner: Arc<dyn RecordBackend>,
    shared: Arc<Shared>,
    clock: Clock,
    pages: bool,
}

impl Shared {
    fn new(options: &RecordCacheOptions) -> Self {
        let builder = moka::sync::Cache::builder().max_capacity(options.max_bytes).weigher(weigh);
        let entries = builder.time_to_live(options.max_age).build();
        Self { entries, epochs: Epochs::new(DOUBT), counters: Counters::new(None) }
    }

    /// What the handles on a store share.
    fn of(info: &BackendInfo, options: &RecordCacheOptions) -> Arc<Self> {
        static ALL: LazyLock<Mutex<HashMap<BackendInfo, Weak<Shared>>>> = LazyLock::new(Mutex::default);
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = all.get(info).and_then(Weak::upgrade) {
            return shared;
        }
        all.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Self::new(options));
        all.insert(info.clone(), Arc::downgrade(&shared));
        shared
    }
}

/// About: what a value takes as text, times two for its tree.
fn weigh(of: &Of, entry: &Entry) -> u32 {
    let record = |record: &Record| ENTRY + 2 * record.fields.iter().map(|(name, value)| name.len() + size(value)).sum::<usize>();
    let query = if let Of::Page(_, query) = of { query.len() } else { 0 };
    let value = match &entry.kept {
        Kept::Record(kept) => kept.as_deref().map_or(0, record),
        Kept::Page(page, _) => page.records.iter().map(record).sum(),
    };
    u32::try_from(ENTRY + query + value).unwrap_or(u32::MAX)
}

fn size(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => text.len() + 8,
        serde_json::Value::Array(values) => values.iter().map(|value| size(value) + 16).sum(),
        serde_json::Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value) + 32).sum(),
        _ => 16,
    }
}

impl CachedRecords {
    /// Keeps records of `inner`. `clock` is the one that they expire by, or as good as that.
    pub fn new(inner: Arc<dyn RecordBackend>, options: RecordCacheOptions, clock: Clock) -> Self {
        let shared = Shared::of(inner.info(), &options);
        Self { inner, shared, clock, pages: options.pages }
    }

    /// What the cache has done, and holds: that of all handles on the store.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let entries = &self.shared.entries;
        entries.run_pending_tasks();
        self.shared.counters.stats(Some(entries.entry_count()), Some(entries.weighted_size()))
    }

    fn seen_table(&self, table: &TableName) -> Option<u64> {
        self.shared.epochs.seen(&Thing::Table(table))
    }

    /// How often each record was changed. `None`: one is being changed.
    fn seen_records(&self, table: &TableName, keys: &[Key]) -> Option<Vec<u64>> {
        keys.iter().map(|key| self.shared.epochs.seen(&Thing::Record(table, key))).collect()
    }

    /// The records, if all of them are kept, and as of one moment.
    fn find_records(&self, table: &TableName, keys: &[Key]) -> Option<Vec<Option<Record>>> {
        let seen_table = self.seen_table(table)?;
        let seen = if keys.len() > 1 { Some(self.seen_records(table, keys)?) } else { None };
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let entry = self.shared.entries.get(&Of::Record(table.clone(), key.clone()))?;
            let Kept::Record(kept) = entry.kept else { return None };
            if entry.table != seen_table || kept.as_deref().is_some_and(|record| self.expires_soon(record)) {
                return None;
            }
            found.push(kept.map(Arc::unwrap_or_clone));
        }
        // A batch may have come between two of them.
        (seen.is_none() || seen == self.seen_records(table, keys)).then_some(found)
    }

    fn expires_soon(&self, record: &Record) -> bool {
        record.expires_at.is_some() && record.is_expired(clock::add(self.clock.now(), SKEW))
    }

    async fn load_records(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        let (seen_table, seen) = (self.seen_table(table), self.seen_records(table, keys));
        let records = self.inner.get(table, keys).await?;
        if let (Some(seen_table), Some(seen)) = (seen_table, seen) {
            for ((key, seen), record) in keys.iter().zip(seen).zip(&records) {
                let entry = Entry { kept: Kept::Record(record.clone().map(Arc::new)), table: seen_table };
                let keep = || self.shared.entries.insert(Of::Record(table.clone(), key.clone()), entry);
                self.shared.epochs.keep(&Thing::Record(table, key), seen, keep);
            }
        }
        Ok(records)
    }

    fn find_page(&self, of: &Of, seen: (u64, u64)) -> Option<Arc<Page>> {
        let entry = self.shared.entries.get(of)?;
        let Kept::Page(page, written) = entry.kept else { return None };
        ((entry.table, written) == seen).then_some(page)
    }

    /// Begins to change records: what is kept of them goes.
    fn change_records(&self, targets: &[(TableName, Key)]) -> Changing<'_> {
        let things = targets.iter().flat_map(|(table, key)| [Thing::Record(table, key), Thing::Pages(table)]);
        let changing = self.shared.epochs.begin(things);
        for (table, key) in targets {
            self.shared.entries.invalidate(&Of::Record(table.clone(), key.clone()));
        }
        changing
    }

    /// Changes a table itself.
    async fn change_table<T>(&self, table: &TableName, change: impl Future<Output = Result<T>>) -> Result<T> {
        let mut changing = self.shared.epochs.begin([Thing::Table(table)]);
        let outcome = change.await;
        if outcome.as_ref().err().is_none_or(is_final) {
            changing.known();
        }
        outcome
    }
}

impl fmt::Debug for CachedRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedRecords").field("inner", &self.inner).field("pages", &self.pages).finish_non_exhaustive()
    }
}

#[async_trait]
impl RecordBackend for CachedRecords {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> &RecordCapabilities {
        self.inner.capabilities()
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.change_table(&schema.name, self.inner.create_table(schema)).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.change_table(table, self.inner.alter_table(table, change)).await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.change_table(table, self.inner.drop_table(table)).await
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.inner.tables().await
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        if keys.is_empty() {
            return self.inner.get(table, keys).await;
        }
        let found = self.find_records(table, keys);
        self.shared.counters.read(found.is_some());
        match found {
            Some(found) => Ok(found),
            None => self.load_records(table, keys).await,
        }
    }

    async fn get_stale(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.inner.get_stale(table, keys).await
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        let seen = self.seen_table(&query.table).zip(self.shared.epochs.seen(&Thing::Pages(&query.table)));
        let (Some(seen), Some(of)) = (seen.filter(|_| self.pages && !query.stale), page_of(query)) else {
            return self.inner.scan(query).await;
        };
        let found = self.find_page(&of, seen);
        self.shared.counters.read(found.is_some());
        if let Some(page) = found {
            return Ok(Arc::unwrap_or_clone(page));
        }
        let page = self.inner.scan(query).await?;
        // What a page with them shows changes with time alone.
        if page.records.iter().all(|record| record.expires_at.is_none()) {
            let kept = Kept::Page(Arc::new(page.clone()), seen.1);
            self.shared.entries.insert(of, Entry { kept, table: seen.0 });
        }
        Ok(page)
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.inner.count(query).await
    }

    async fn sweep(&self, query: &Query) -> Result<u64> {
        self.inner.sweep(query).await
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        let targets = Targets::of(&batch);
        let mut changing = self.change_records(&targets.written);
        let outcome = self.inner.commit(batch).await;
        if outcome.as_ref().err().is_none_or(is_final) {
            changing.known();
        }
        if outcome.is_err() {
            // Perhaps others have written what was checked: who reads again shall see it.
            self.change_records(&targets.checked).known();
        }
        outcome
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

    /// Forgets everything: there may be another store at this location before all handles are gone.
    async fn close(&self) -> Result<()> {
        let mut changing = self.shared.epochs.begin_all();
        self.shared.entries.invalidate_all();
        let closed = self.inner.close().await;
        changing.known();
        closed
    }
}

/// What a page is kept under. `None`: the query has no text.
fn page_of(query: &Query) -> Option<Of> {
    let text = serde_json::to_string(&(&query.filter, &query.order, query.limit, &query.after)).ok()?;
    Some(Of::Page(query.table.clone(), text.into()))
}
