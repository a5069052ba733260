//! What records on blobs promise beyond the traits: the layout, the requests, and what becomes of interruptions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod watched;

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use serde_json::{Value, json};
use storage_core::{
    Batch, BlobBackend as _, BlobPath, BlobStore, Clock, DriverConfig, ErrorKind, Expect, Filter, Key, KeyPart, KeyType, PutMode,
    PutOptions, Query, RecordStore, TableName, TableSchema, Version, Write, fields,
};
use storage_memory::MemoryStore;
use storage_object::records::{self, BlobRecords, RecordsOptions};

use self::watched::{Fault, Watched};

struct Bucket {
    watched: Arc<Watched>,
    blobs: BlobStore,
    records: RecordStore,
    clock: Clock,
    name: TableName,
}

impl Bucket {
    /// With a table `t`, of keys of one part.
    async fn new() -> Self {
        Self::with(TableSchema::builder("t").keep_undeclared().build().unwrap()).await
    }

    async fn with(schema: TableSchema) -> Self {
        let clock = Clock::manual();
        let store = MemoryStore::with_clock(clock.clone());
        let watched = Watched::new(&store);
        let blobs = BlobStore::new(Arc::new(store.blobs()));
        let bucket = Self { records: store_on(&watched, &clock), blobs, watched, clock, name: schema.name.clone() };
        bucket.records.create_table(&schema).await.unwrap();
        bucket.watched.taken();
        bucket
    }

    /// Another process.
    fn again(&self) -> RecordStore {
        store_on(&self.watched, &self.clock)
    }

    async fn put(&self, key: impl Into<Key>, value: Value) -> Version {
        self.records.upsert(&self.name, key, fields(value)).await.unwrap()
    }

    async fn put_until(&self, key: impl Into<Key>, after: Duration) {
        let expires_at = Some(self.clock.now() + after);
        let put = Write::Put {
            table: self.name.clone(),
            key: key.into(),
            fields: fields(json!({})),
            expect: Expect::Anything,
            expires_at,
        };
        self.records.commit(Batch::new().with(put)).await.unwrap();
    }

    async fn paths(&self) -> Vec<String> {
        self.blobs.list_all(None).map_ok(|meta| meta.path.to_string()).try_collect().await.unwrap()
    }

    /// The one path that ends so.
    async fn path(&self, end: &str) -> BlobPath {
        let paths = self.paths().await;
        BlobPath::new(paths.into_iter().find(|path| path.ends_with(end)).unwrap()).unwrap()
    }

    fn query(&self) -> Query {
        Query::table(self.name.clone()).unwrap()
    }

    fn requests(&self) -> Vec<(&'static str, u32)> {
        self.watched.taken().into_iter().collect()
    }
}

fn store_on(watched: &Arc<Watched>, clock: &Clock) -> RecordStore {
    let options = RecordsOptions { clock: clock.clone(), ..RecordsOptions::default() };
    RecordStore::new(Arc::new(BlobRecords::new(watched.clone(), options).unwrap()))
}

#[tokio::test]
async fn the_layout_is_as_documented() {
    let schema = TableSchema::builder("Jobs").partition("owner", KeyType::Text).key_of("n", KeyType::Integer).keep_undeclared();
    let bucket = Bucket::with(schema.build().unwrap()).await;
    bucket.put(("ACME a/b", 17), json!({"state": "new"})).await;
    let paths = bucket.paths().await;
    let (data, table) = (&paths[0], &paths[1]);
    assert_eq!(table, "records/tables/jobs.json");
    let folder = data.strip_suffix("/_41_43_4d_45,20a.2fb!/0000000000000000017").unwrap();
    let folder = folder.strip_prefix("records/data/").unwrap();
    assert!(folder.strip_prefix("jobs-").is_some_and(|hex| hex.len() == 8 && hex.bytes().all(|b| b.is_ascii_hexdigit())));
    let object: Value = bucket.blobs.get_json(&BlobPath::new(data.as_str()).unwrap()).await.unwrap();
    assert_eq!(object["key"], json!({"partition": "ACME a/b", "id": 17}));
    assert_eq!((&object["version"], &object["fields"]), (&json!(1), &json!({"state": "new"})));
    let table: Value = bucket.blobs.get_json(&BlobPath::new(table.as_str()).unwrap()).await.unwrap();
    assert_eq!((&table["folder"], &table["schema"]["name"]), (&json!(folder), &json!("Jobs")));
    let meta = bucket.blobs.head(&BlobPath::new(data.as_str()).unwrap()).await.unwrap();
    assert_eq!(meta.attributes.content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn what_a_person_wrote_is_read() {
    let bucket = Bucket::new().await;
    bucket.put("a", json!({})).await;
    let folder = bucket.path("/a").await.to_string().replace("/a", "/");
    let object = json!({"key": {"id": "b"}, "version": 7, "updated_at": "2026-11-21T09:30:00Z", "fields": {"by": "hand"}});
    bucket.blobs.put_json(&BlobPath::new(folder.clone() + "b").unwrap(), &object).await.unwrap();
    let record = bucket.records.get(&bucket.name, "b").await.unwrap().unwrap();
    assert_eq!((record.version, record.fields), (Version(7), fields(json!({"by": "hand"}))));
    assert_eq!(bucket.put("b", json!({})).await, Version(8));
    // What is no record of this place is said so, rather than passed over.
    for (name, content) in [("c", object), ("B", json!({})), ("d", json!({"key": 1})), ("e", json!("x".repeat(5 << 20)))] {
        let path = BlobPath::new(folder.clone() + name).unwrap();
        bucket.blobs.put_json(&path, &content).await.unwrap();
        let error = bucket.records.scan(&bucket.query()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.message().contains(path.as_str()), "{error}");
        bucket.blobs.delete(&path).await.unwrap();
    }
}

/// The table, five records, the one behind them, and no more begun than are under way at once.
fn a_page_of_five(bucket: &Bucket) {
    let requests = bucket.watched.taken();
    assert!((7..=12).contains(&requests["get"]) && requests["list"] == 1 && requests["listed"] <= 12, "{requests:?}");
}

#[tokio::test]
async fn calls_make_as_many_requests_as_documented() {
    let bucket = Bucket::new().await;
    for n in 0..100 {
        bucket.put(format!("{n:02}"), json!({"n": n})).await;
    }
    bucket.requests();
    bucket.put("50", json!({"n": 50})).await;
    assert_eq!(bucket.requests(), [("get", 2), ("put", 1)]);
    assert!(bucket.records.delete(&bucket.name, "99", Expect::Anything).await.unwrap());
    assert_eq!(bucket.requests(), [("delete", 1), ("get", 2)]);
    let keys: Vec<Key> = (0..30).map(|n| format!("{n:02}").into()).collect();
    assert_eq!(bucket.records.get_many(&bucket.name, &keys).await.unwrap().iter().flatten().count(), 30);
    assert_eq!(bucket.requests(), [("get", 31)]);
    assert_eq!(bucket.records.count(&bucket.query()).await.unwrap(), 99);
    assert_eq!(bucket.requests(), [("get", 1), ("list", 1), ("listed", 99)]);
    let page = bucket.records.scan(&bucket.query().limit(5)).await.unwrap();
    a_page_of_five(&bucket);
    let next = bucket.records.scan(&bucket.query().limit(5).after(page.next)).await.unwrap();
    assert_eq!(next.records[0].key, "05".into());
    a_page_of_five(&bucket);
    // A part of the keys is a part of the listing, and one record more at most.
    for (filter, found) in [
        (Filter::ge("id", "40").unwrap() & Filter::lt("id", "45").unwrap(), 5),
        (Filter::starts_with("id", "7").unwrap(), 10),
        (Filter::eq("id", "33").unwrap(), 1),
        (Filter::is_in("id", ["10", "12"]).unwrap(), 2),
    ] {
        assert_eq!(bucket.records.scan(&bucket.query().filter(filter.clone())).await.unwrap().records.len(), found);
        let requests = bucket.watched.taken();
        assert_eq!(requests["get"] as usize, found + 1, "{filter:?}");
        assert!(requests["listed"] as usize <= found + 3, "{filter:?}: {requests:?}");
    }
    // Another order looks at everything.
    bucket.records.scan(&bucket.query().descending("id").unwrap().limit(1)).await.unwrap();
    assert_eq!(bucket.requests(), [("get", 100), ("list", 1), ("listed", 99)]);
}

#[tokio::test]
async fn a_partition_is_a_folder() {
    let schema = TableSchema::builder("t").partition("p", KeyType::Text).keep_undeclared().build().unwrap();
    let bucket = Bucket::with(schema).await;
    for (n, p) in ["a", "a-b", "a/b", "A", "b"].into_iter().enumerate() {
        for id in 0..=n {
            bucket.put((p, format!("{id}")), json!({})).await;
        }
    }
    bucket.requests();
    let within = Filter::eq("p", "a/b").unwrap() & Filter::gt("id", "0").unwrap();
    assert_eq!(bucket.records.count(&bucket.query().filter(within)).await.unwrap(), 2);
    assert_eq!(bucket.requests(), [("get", 1), ("list", 1), ("listed", 3)]);
    let keys = |filter: Filter| {
        let stream = bucket.records.stream(bucket.query().filter(filter).limit(2));
        stream.map_ok(|record| record.key.to_string()).try_collect::<Vec<_>>()
    };
    let all = ["A/0", "A/1", "A/2", "A/3", "a/0", "a-b/0", "a-b/1", "a/b/0", "a/b/1", "a/b/2", "b/0", "b/1", "b/2", "b/3", "b/4"];
    assert_eq!(keys(Filter::All).await.unwrap(), all);
    assert_eq!(keys(Filter::gt("p", "a-b").unwrap()).await.unwrap(), all[7..]);
    assert_eq!(keys(Filter::le("p", "a-b").unwrap()).await.unwrap(), all[..7]);
    assert_eq!(keys(Filter::starts_with("p", "a").unwrap()).await.unwrap(), all[4..10]);
}

#[tokio::test]
async fn long_keys_come_in_order_page_by_page() {
    let schema = TableSchema::builder("t").partition("p", KeyType::Text).keep_undeclared().build().unwrap();
    let bucket = Bucket::with(schema).await;
    let long = |end: u32| format!("{}{end}", "k".repeat(300));
    let parts: Vec<String> = (0..4).map(long).chain(["k".to_owned(), "k".repeat(200), "z".to_owned()]).collect();
    let mut keys = Vec::new();
    for p in &parts {
        for id in &parts {
            let key = Key::partitioned(KeyPart::from(p), KeyPart::from(id));
            bucket.put(key.clone(), json!({})).await;
            keys.push(key);
        }
    }
    keys.sort();
    for limit in [1, 3, 100] {
        let found = bucket.records.stream(bucket.query().limit(limit)).map_ok(|record| record.key);
        assert_eq!(found.try_collect::<Vec<_>>().await.unwrap(), keys, "{limit} a page");
        let one = bucket.query().filter(Filter::eq("p", long(2)).unwrap()).limit(limit);
        let found: Vec<Key> = bucket.records.stream(one).map_ok(|record| record.key).try_collect().await.unwrap();
        assert!(found.iter().all(|key| key.partition == Some(long(2).into())) && found.is_sorted() && found.len() == parts.len());
    }
    assert_eq!(bucket.records.count(&bucket.query().filter(Filter::gt("p", long(1)).unwrap())).await.unwrap(), 21);
}

#[tokio::test]
async fn a_lost_answer_is_an_error_and_not_repeated() {
    let bucket = Bucket::new().await;
    bucket.put("a", json!({"n": 1})).await;
    bucket.requests();
    bucket.watched.fail(Fault::LostAnswer);
    let error = bucket.records.update(&bucket.name, "a", fields(json!({"n": 2})), Expect::Version(Version(1))).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Timeout, true), "{error}");
    assert!(error.message().contains("may have been written"), "{error}");
    assert_eq!(bucket.requests(), [("get", 2), ("put", 1)]);
    let record = bucket.records.get(&bucket.name, "a").await.unwrap().unwrap();
    assert_eq!((record.version, record.fields), (Version(2), fields(json!({"n": 2}))));
}

#[tokio::test]
async fn a_put_that_a_layer_repeated_counts_once() {
    let bucket = Bucket::new().await;
    for (round, expect) in [(1, Expect::Absent), (2, Expect::Anything), (3, Expect::Version(Version(2)))] {
        bucket.watched.fail(Fault::Repeated);
        let batch = Batch::new().put(&bucket.name, "a", fields(json!({"round": round})), expect);
        assert_eq!(bucket.records.commit(batch).await.unwrap(), [Version(round)]);
    }
    assert_eq!(bucket.records.get(&bucket.name, "a").await.unwrap().unwrap().version, Version(3));
}

#[tokio::test]
async fn a_drop_that_was_interrupted_is_finished_later() {
    let bucket = Bucket::new().await;
    for n in 0..40 {
        bucket.put(format!("{n}"), json!({})).await;
    }
    bucket.watched.fail(Fault::NoDeletes);
    assert!(bucket.records.drop_table(&bucket.name).await.unwrap(), "it is gone, whatever is left of its records");
    assert!(bucket.records.tables().await.unwrap().is_empty());
    let left = bucket.paths().await;
    assert!(left.len() > 10 && left.iter().any(|path| path.starts_with("records/dropped/t-")), "{left:?}");
    bucket.records.create_table(&TableSchema::builder("t").build().unwrap()).await.unwrap();
    assert_eq!(bucket.paths().await, ["records/tables/t.json"]);
    assert_eq!(bucket.records.count(&bucket.query()).await.unwrap(), 0);
}

#[tokio::test]
async fn who_knew_a_table_before_it_was_dropped_writes_to_the_new_one() {
    let bucket = Bucket::new().await;
    let other = bucket.again();
    other.upsert(&bucket.name, "old", fields(json!({}))).await.unwrap();
    bucket.records.drop_table(&bucket.name).await.unwrap();
    let error = other.upsert(&bucket.name, "old", fields(json!({}))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    bucket.records.create_table(&TableSchema::builder("t").keep_undeclared().build().unwrap()).await.unwrap();
    other.upsert(&bucket.name, "new", fields(json!({}))).await.unwrap();
    assert!(bucket.records.get(&bucket.name, "new").await.unwrap().is_some());
    assert!(other.get(&bucket.name, "old").await.unwrap().is_none());
}

#[tokio::test]
async fn queries_remove_what_has_expired() {
    let bucket = Bucket::new().await;
    for n in 0..100 {
        bucket.put_until(format!("{n:02}"), Duration::from_secs(60)).await;
    }
    bucket.put("stays", json!({})).await;
    bucket.clock.advance(Duration::from_secs(61));
    // Those alone that a query comes across.
    assert_eq!(bucket.records.count(&bucket.query().filter(Filter::lt("id", "40").unwrap())).await.unwrap(), 0);
    assert_eq!(bucket.paths().await.len(), 62, "with the table");
    assert_eq!(bucket.records.count(&bucket.query()).await.unwrap(), 1);
    assert_eq!(bucket.paths().await.len(), 2);
    assert!(bucket.records.get(&bucket.name, "stays").await.unwrap().is_some());
}

#[tokio::test]
async fn an_expired_record_that_was_written_again_stays() {
    let bucket = Bucket::new().await;
    bucket.put_until("a", Duration::from_secs(1)).await;
    bucket.clock.advance(Duration::from_secs(2));
    // Two in turns: one looks, the other revives.
    let revive = async {
        for _ in 0..50 {
            bucket.put("a", json!({})).await;
            bucket.put_until("a", Duration::ZERO).await;
        }
        bucket.put("a", json!({"last": true})).await;
    };
    let look = async {
        for _ in 0..50 {
            bucket.records.scan(&bucket.query()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    futures::join!(revive, look);
    assert_eq!(bucket.records.get(&bucket.name, "a").await.unwrap().unwrap().fields, fields(json!({"last": true})));
}

#[tokio::test]
async fn two_prefixes_are_two_stores() {
    let store = MemoryStore::new();
    let open = |prefix: &str| {
        let options = RecordsOptions { prefix: BlobPath::new(prefix).unwrap(), ..RecordsOptions::default() };
        BlobRecords::new(Arc::new(store.blobs()), options)
    };
    let (one, two) = (RecordStore::new(Arc::new(open("a/b").unwrap())), RecordStore::new(Arc::new(open("a/c").unwrap())));
    assert_ne!(one.backend().info(), two.backend().info());
    one.create_table(&TableSchema::builder("t").build().unwrap()).await.unwrap();
    assert!(two.tables().await.unwrap().is_empty());
    assert_eq!(open(&"p".repeat(401)).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn blobs_that_take_no_conditions_hold_no_records() {
    let watched = Watched::new(&MemoryStore::new());
    let able = watched.capabilities().clone();
    for (create, conditional, lacks) in
        [(false, true, "`create`"), (true, false, "`conditional`"), (false, false, "`create`) and")]
    {
        *watched.capabilities.lock().unwrap() =
            Box::leak(Box::new(storage_core::BlobCapabilities { create, conditional, ..able.clone() }));
        let error = BlobRecords::new(watched.clone(), RecordsOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains(lacks), "{error}");
        let backends = records::serve(watched.clone(), &DriverConfig::default()).unwrap();
        assert!(backends.records.is_none() && backends.blobs.is_some());
    }
}

#[tokio::test]
async fn a_record_that_grows_too_large_is_refused_and_stays() {
    let bucket = Bucket::new().await;
    let max = bucket.records.capabilities().max_record_bytes;
    let half = "x".repeat(max / 2 + (64 << 10));
    bucket.put("a", json!({"one": half})).await;
    let error = bucket.records.update(&bucket.name, "a", fields(json!({"two": half})), Expect::Present).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(bucket.records.get(&bucket.name, "a").await.unwrap().unwrap().version, Version(1));
}

#[tokio::test]
async fn records_and_blobs_of_one_bucket_close_apart() {
    let store = MemoryStore::new();
    let backends = records::serve(Arc::new(store.blobs()), &DriverConfig::default()).unwrap();
    let (records, blobs) = (backends.records.unwrap(), backends.blobs.unwrap());
    records.close().await.unwrap();
    assert_eq!(records.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let path = BlobPath::new("x").unwrap();
    blobs.put(&path, "x".into(), &PutOptions::default().mode(PutMode::Create)).await.unwrap();
}
