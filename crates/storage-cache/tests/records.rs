//! What cached records promise: they save reads, and nobody reads what was before a write.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use storage_cache::{CachedRecords, RecordCacheOptions};
use storage_core::{
    BackendInfo, Batch, Clock, Error, ErrorKind, Expect, Filter, Key, Page, Query, Record, RecordBackend, RecordCapabilities,
    RecordStore, Result, TableName, TableSchema, Version, Write, fields,
};
use storage_memory::MemoryStore;
use tokio::sync::Semaphore;

/// What a commit does but for committing.
#[derive(Debug, Default)]
enum Commits {
    #[default]
    Answer,
    /// Are never answered, and not done yet.
    Hang,
    /// Are answered with a timeout, and not done yet.
    TimeOut,
}

/// Records that count reads, hold their answers back, and answer commits as a test wants it.
#[derive(Debug)]
struct Hooked {
    inner: Arc<dyn RecordBackend>,
    reads: AtomicU64,
    /// Reads that were done and are not answered yet wait for a permit here.
    gate: Semaphore,
    waiting: AtomicU64,
    commits: std::sync::Mutex<Commits>,
}

impl Hooked {
    fn new(inner: Arc<dyn RecordBackend>) -> Arc<Self> {
        let gate = Semaphore::new(Semaphore::MAX_PERMITS);
        Arc::new(Self { inner, reads: AtomicU64::new(0), gate, waiting: AtomicU64::new(0), commits: std::sync::Mutex::default() })
    }

    fn reads(&self) -> u64 {
        self.reads.swap(0, Ordering::SeqCst)
    }

    fn close_gate(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn open_gate(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS);
    }

    async fn answer(&self) {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.acquire().await.unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    async fn until_waiting(&self, count: u64) {
        while self.waiting.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl RecordBackend for Hooked {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }
    fn capabilities(&self) -> &RecordCapabilities {
        self.inner.capabilities()
    }
    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.inner.create_table(schema).await
    }
    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.inner.drop_table(table).await
    }
    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.inner.tables().await
    }
    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        let records = self.inner.get(table, keys).await;
        self.answer().await;
        records
    }
    async fn scan(&self, query: &Query) -> Result<Page> {
        let page = self.inner.scan(query).await;
        self.answer().await;
        page
    }
    async fn count(&self, query: &Query) -> Result<u64> {
        self.inner.count(query).await
    }
    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        let how = std::mem::take(&mut *self.commits.lock().unwrap());
        match how {
            Commits::Answer => self.inner.commit(batch).await,
            Commits::Hang => std::future::pending().await,
            Commits::TimeOut => Err(Error::timeout("no answer")),
        }
    }
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

struct World {
    /// Around the cache, as another process would.
    source: RecordStore,
    hooked: Arc<Hooked>,
    records: RecordStore,
    clock: Clock,
}

fn name(table: &str) -> TableName {
    table.parse().unwrap()
}

impl World {
    async fn new() -> Self {
        Self::with(RecordCacheOptions { max_age: Duration::from_secs(3600), ..RecordCacheOptions::default() }).await
    }

    async fn with(options: RecordCacheOptions) -> Self {
        let clock = Clock::manual();
        let inner = MemoryStore::with_clock(clock.clone()).backends().records.unwrap();
        let hooked = Hooked::new(Arc::clone(&inner));
        let cached = CachedRecords::new(Arc::clone(&hooked) as _, options, clock.clone());
        let world = Self { source: RecordStore::new(inner), hooked, records: RecordStore::new(Arc::new(cached)), clock };
        for table in ["t", "other"] {
            world.records.create_table(&TableSchema::builder(table).keep_undeclared().build().unwrap()).await.unwrap();
        }
        world.put("a", 1).await.unwrap();
        world.hooked.reads();
        world
    }

    async fn put(&self, key: &str, n: u64) -> Result<()> {
        put(&self.records, key, n).await
    }

    async fn get(&self, key: &str) -> Option<u64> {
        get(&self.records, key).await
    }

    async fn page(&self) -> Vec<u64> {
        let query = Query::table("t").unwrap().filter(Filter::All);
        let page = self.records.scan(&query).await.unwrap();
        page.records.iter().map(|record| record.fields["n"].as_u64().unwrap()).collect()
    }
}

async fn put(records: &RecordStore, key: &str, n: u64) -> Result<()> {
    records.commit(Batch::new().put(&name("t"), key, fields(json!({"n": n})), Expect::Anything)).await.map(|_| ())
}

async fn get(records: &RecordStore, key: &str) -> Option<u64> {
    let record = records.get(&name("t"), key).await.unwrap();
    record.map(|record| record.fields["n"].as_u64().unwrap())
}

#[tokio::test]
async fn what_was_read_is_kept_until_it_is_written() -> Result<()> {
    let w = World::new().await;
    for _ in 0..5 {
        assert_eq!((w.get("a").await, w.get("none").await), (Some(1), None));
    }
    assert_eq!(w.hooked.reads(), 2, "what is not there is kept too");
    w.put("a", 2).await?;
    w.put("none", 3).await?;
    assert_eq!((w.get("a").await, w.get("none").await), (Some(2), Some(3)));
    let table = name("t");
    w.records.commit(Batch::new().merge(&table, "a", fields(json!({"n": 4})), Expect::Present)).await?;
    assert_eq!(w.get("a").await, Some(4));
    w.records.commit(Batch::new().delete(&table, "a", Expect::Present)).await?;
    assert_eq!(w.get("a").await, None);
    w.hooked.reads();
    assert_eq!((w.get("a").await, w.get("none").await, w.hooked.reads()), (None, Some(3), 0));
    w.records.drop_table(&table).await?;
    assert_eq!(w.records.get(&table, "none").await.unwrap_err().kind(), ErrorKind::NotFound);
    Ok(())
}

#[tokio::test]
async fn pages_are_kept_until_their_table_is_written() -> Result<()> {
    let w = World::new().await;
    w.put("b", 2).await?;
    for _ in 0..5 {
        assert_eq!(w.page().await, [1, 2]);
    }
    assert_eq!(w.hooked.reads(), 1);
    w.put("c", 3).await?;
    assert_eq!(w.page().await, [1, 2, 3]);
    w.records.commit(Batch::new().delete(&name("t"), "a", Expect::Present)).await?;
    assert_eq!(w.page().await, [2, 3]);
    // A page with what expires is not kept.
    let expires_at = Some(w.clock.now() + chrono::TimeDelta::seconds(60));
    let write =
        Write::Put { table: name("t"), key: "d".into(), fields: fields(json!({"n": 4})), expect: Expect::Absent, expires_at };
    w.records.commit(Batch::new().with(write)).await?;
    assert_eq!((w.page().await, w.get("d").await), (vec![2, 3, 4], Some(4)));
    w.clock.advance(Duration::from_secs(60));
    assert_eq!((w.page().await, w.get("d").await), (vec![2, 3], None));
    Ok(())
}

/// A read that is under way while a write is done is answered as it was, and not kept.
#[tokio::test]
async fn a_read_that_was_overtaken_is_not_kept() -> Result<()> {
    let w = World::new().await;
    w.hooked.close_gate();
    let (records, pages) = (w.records.clone(), w.records.clone());
    let record = tokio::spawn(async move { get(&records, "a").await });
    let page = tokio::spawn(async move { pages.scan(&Query::table("t")?).await });
    w.hooked.until_waiting(2).await;
    w.put("a", 2).await?;
    w.hooked.open_gate();
    assert_eq!(record.await.unwrap(), Some(1));
    let page = page.await.unwrap()?;
    assert_eq!(page.records[0].fields["n"], 1);
    assert_eq!((w.get("a").await, w.page().await), (Some(2), vec![2]));
    Ok(())
}

/// A write that was cancelled, or not answered, may be done later: what it is about is not kept.
#[tokio::test]
async fn a_write_of_unknown_outcome_is_not_hidden() -> Result<()> {
    for cancelled in [true, false] {
        let w = World::new().await;
        assert_eq!(w.get("a").await, Some(1));
        *w.hooked.commits.lock().unwrap() = if cancelled { Commits::Hang } else { Commits::TimeOut };
        let write = tokio::time::timeout(Duration::from_millis(20), w.put("a", 2)).await;
        assert!(write.is_err() == cancelled && write.is_ok_and(|answer| answer.is_err()) != cancelled);
        assert_eq!((w.get("a").await, w.page().await), (Some(1), vec![1]), "not done yet");
        // Now it is.
        put(&w.source, "a", 2).await?;
        assert_eq!((w.get("a").await, w.page().await), (Some(2), vec![2]));
    }
    Ok(())
}

/// What was refused for good changes nothing, and takes nothing out for longer than that.
#[tokio::test]
async fn what_others_wrote_shows_after_a_conflict_and_after_its_age() -> Result<()> {
    let w = World::new().await;
    let table = name("t");
    assert_eq!(w.get("a").await, Some(1));
    put(&w.source, "a", 2).await?;
    assert_eq!(w.get("a").await, Some(1), "others' writes are not known");
    let check =
        Batch::new().check(&table, "a", Expect::Version(Version(1))).put(&table, "b", fields(json!({"n": 1})), Expect::Anything);
    assert_eq!(w.records.commit(check).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(w.get("a").await, Some(2));
    // So a transaction that meets one goes through when it is run again.
    put(&w.source, "a", 3).await?;
    let written = w.records.transaction(async |tx| {
        let record = tx.get(&table, "a").await?.unwrap();
        tx.put(&table, "b", fields(json!({"n": record.fields["n"]}))).await?;
        Ok(record.fields["n"].clone())
    });
    assert_eq!(written.await?, json!(3));

    let w = World::with(RecordCacheOptions { max_age: Duration::from_millis(50), ..RecordCacheOptions::default() }).await;
    assert_eq!(w.get("a").await, Some(1));
    put(&w.source, "a", 2).await?;
    let shows = async {
        // It may show at once, on a machine that is slow.
        while w.get("a").await != Some(2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), shows).await.expect("it does not show");
    Ok(())
}

/// Two handles on one store, made apart.
#[tokio::test]
async fn handles_on_one_store_see_each_others_writes() -> Result<()> {
    let w = World::new().await;
    let second = CachedRecords::new(Arc::clone(&w.hooked) as _, RecordCacheOptions::default(), w.clock.clone());
    let second = RecordStore::new(Arc::new(second));
    for n in 2..20 {
        let (writes, reads) = if n % 2 == 0 { (&w.records, &second) } else { (&second, &w.records) };
        put(writes, "a", n).await?;
        assert_eq!((get(reads, "a").await, get(writes, "a").await), (Some(n), Some(n)));
    }
    Ok(())
}

/// 64 tasks write and read 100 keys at random, through records and pages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_what_is_older_than_their_own_write() -> Result<()> {
    let w = Arc::new(World::new().await);
    let tasks: Vec<_> = (0..64_u64)
        .map(|task| {
            let w = Arc::clone(&w);
            tokio::spawn(async move {
                let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(task + 1);
                for _ in 0..200 {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let key = Key::from(format!("k{}", state % 100));
                    let (table, any) = (name("t"), Expect::Anything);
                    if state & (1 << 40) == 0 {
                        let batch = Batch::new().put(&table, key.clone(), fields(json!({"n": state >> 1})), any);
                        let version = w.records.commit(batch).await.unwrap()[0];
                        let found = w.records.get(&table, key.clone()).await.unwrap().unwrap();
                        assert!(found.version >= version, "{key}: {:?} after {version:?}", found.version);
                        let page = w.records.scan(&Query::table("t").unwrap().limit(1_000)).await.unwrap();
                        let found = page.records.iter().find(|record| record.key == key).unwrap();
                        assert!(found.version >= version, "{key}: {:?} after {version:?} on a page", found.version);
                    } else {
                        w.records.get(&table, key.clone()).await.unwrap();
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    Ok(())
}

/// A batch shows as a whole, also where parts of what is read were kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_read_whole() -> Result<()> {
    let w = Arc::new(World::new().await);
    let keys: Vec<Key> = vec!["x".into(), "y".into(), "z".into()];
    let write = async |w: &World, n: u64| {
        let keys = ["x", "y", "z"].into_iter();
        let batch = keys.fold(Batch::new(), |batch, key| batch.put(&name("t"), key, fields(json!({"n": n})), Expect::Anything));
        w.records.commit(batch).await
    };
    write(&w, 0).await?;
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (w, keys) = (Arc::clone(&w), keys.clone());
            tokio::spawn(async move {
                let mut last = 0;
                while last < 500 {
                    let all = w.records.get_many(&name("t"), &keys).await.unwrap();
                    let all: Vec<_> = all.into_iter().map(|record| record.unwrap().fields["n"].as_u64().unwrap()).collect();
                    assert!(all.iter().all(|n| *n == all[0]) && all[0] >= last, "{all:?} after {last}");
                    last = all[0];
                    // Parts of it are kept by themselves, too.
                    w.records.get(&name("t"), keys[1].clone()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for n in 1..=500 {
        write(&w, n).await?;
        tokio::task::yield_now().await;
    }
    for reader in readers {
        reader.await.unwrap();
    }
    Ok(())
}
