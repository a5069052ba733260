//! Records when servers die, connections break, others change tables, and many write at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Server, fresh, records};
use serde_json::{Value, json};
use storage_conformance::proxy::{Harm, Proxy};
use storage_core::{
    Batch, Clock, Column, ColumnType, Driver as _, DriverConfig, ErrorKind, Expect, Filter, KeyType, Query, Record, RecordStore,
    SchemaChange, TableName, TableSchema, Version, Write, fields,
};
use storage_nats::NatsDriver;

const PATIENCE: Duration = Duration::from_secs(120);

fn table() -> TableName {
    "work".parse().unwrap()
}

fn query() -> Query {
    Query::table("work").unwrap()
}

async fn opened(url: &str) -> RecordStore {
    let store = records(url).await.unwrap();
    store.create_table(&TableSchema::builder("work").keep_undeclared().build().unwrap()).await.unwrap();
    store
}

async fn all(store: &RecordStore) -> Vec<Record> {
    store.scan(&query().limit(10_000)).await.unwrap().records
}

/// What the server says of the one bucket of a table, and the client that asked.
async fn bucket(address: &str, prefix: &str) -> (async_nats::jetstream::Context, async_nats::jetstream::stream::Stream) {
    let client = async_nats::jetstream::new(async_nats::connect(address).await.unwrap());
    let names: Vec<String> = futures::TryStreamExt::try_collect(client.stream_names()).await.unwrap();
    let begin = format!("KV_{prefix}-work-");
    let name = names.into_iter().find(|name| name.starts_with(&begin)).expect("a bucket");
    let stream = client.get_stream(name).await.unwrap();
    (client, stream)
}

fn prefix_of(url: &str) -> &str {
    url.split_once("prefix=").unwrap().1
}

/// Counts a record up, again and again until it is acknowledged. Answers how many calls failed.
async fn count_up(store: &RecordStore, key: &str, acknowledged: &AtomicUsize) -> usize {
    let (started, mut failed) = (Instant::now(), 0);
    loop {
        let outcome = async {
            let found = store.get(&table(), key).await?;
            let n = found.as_ref().map_or(0, |record| record.fields["n"].as_u64().unwrap());
            let expect = Expect::Version(found.map_or(Version::NONE, |record| record.version));
            store.commit(Batch::new().put(&table(), key, fields(json!({"n": n + 1})), expect)).await
        };
        match outcome.await {
            Ok(_) => {
                acknowledged.fetch_add(1, Ordering::SeqCst);
                return failed;
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                assert!(started.elapsed() < PATIENCE, "the server is back, but: {error:?}");
                failed += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Four writers who count one record up and write records of their own, while `harm` does what it does. What was acknowledged is there.
async fn work(url: &str, count: usize, harm: impl AsyncFnOnce(&RecordStore, &AtomicUsize)) {
    let config = || DriverConfig { timeout: Some(Duration::from_secs(2)), ..DriverConfig::from_url(url) };
    let open = async || RecordStore::new(NatsDriver.open(&config()).await.unwrap().records.unwrap());
    let store = open().await;
    store.create_table(&TableSchema::builder("work").keep_undeclared().build().unwrap()).await.unwrap();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (store, acknowledged) = (open().await, Arc::clone(&acknowledged));
        writers.spawn(async move {
            let (mut failed, counted) = (0, AtomicUsize::new(0));
            for n in (writer..count).step_by(4) {
                let started = Instant::now();
                while let Err(error) = store.upsert(&table(), format!("k{n}"), fields(json!({"n": n}))).await {
                    assert!(error.is_retryable(), "{error:?}");
                    assert!(started.elapsed() < PATIENCE, "the server is back, but: {error:?}");
                    failed += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                failed += count_up(&store, "counter", &counted).await;
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            (failed, counted.into_inner())
        });
    }
    harm(&store, &acknowledged).await;
    let (mut failed, mut counted) = (0, 0);
    while let Some(ended) = writers.join_next().await {
        let (fails, counts) = ended.unwrap();
        failed += fails;
        counted += counts;
    }
    println!("{failed} calls failed");
    assert!(failed > 0, "nobody noticed");
    let found = all(&store).await;
    assert_eq!(found.len(), count + 1);
    for record in &found {
        if record.key != "counter".into() {
            assert_eq!(format!("k{}", record.fields["n"]), record.key.to_string());
            continue;
        }
        // A count that was not answered may have been made, and was made again.
        let n = usize::try_from(record.fields["n"].as_u64().unwrap()).unwrap();
        assert_eq!(counted, count);
        assert!(n >= counted && n <= counted + failed, "{n} of {counted}, {failed} not answered");
        assert_eq!(record.version, Version(n as u64), "each write is one version");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_twice_keeps_what_it_acknowledged() {
    const COUNT: usize = 1_200;
    let Some(mut server) = Server::or_skip("").await else { return };
    work(&server.address(), COUNT, async |_, acknowledged| {
        for part in [COUNT / 4, COUNT / 2] {
            while acknowledged.load(Ordering::SeqCst) < part {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            server.kill();
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.start().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_for_half_a_minute_loses_nothing() {
    const COUNT: usize = 400;
    let Some(mut server) = Server::or_skip("").await else { return };
    work(&server.address(), COUNT, async |store, acknowledged| {
        while acknowledged.load(Ordering::SeqCst) < COUNT / 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.kill();
        let gone = Instant::now();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let asked = Instant::now();
        for error in [
            store.get(&table(), "k0").await.map(drop).unwrap_err(),
            store.scan(&query()).await.map(drop).unwrap_err(),
            store.insert(&table(), "new", fields(json!({}))).await.map(drop).unwrap_err(),
            store.ping().await.unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error:?}");
        }
        assert!(asked.elapsed() < Duration::from_secs(15), "it took {:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_secs(30).saturating_sub(gone.elapsed())).await;
        server.start().await;
        // What waited in the connection may have been sent by it when it came back.
        let started = Instant::now();
        while let Err(error) = store.delete(&table(), "new", Expect::Anything).await {
            assert!(error.is_retryable() && started.elapsed() < PATIENCE, "{error:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// A connection that breaks in a write, or in the answer to it: it is written or not, and the error says that it is not known.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_are_cut_say_so() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let direct = opened(&url).await;
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::start(port).await;
    let through = opened(&url.replace(&address, &format!("nats://{}", proxy.address()))).await;
    let (mut written, mut lost) = (0, 0);
    let harms = [50, 200, 10_000, 30_000].map(Harm::CutRequest).into_iter().chain([Harm::LoseAnswer, Harm::CutAnswer(1)]);
    for (round, harm) in harms.enumerate() {
        let key = format!("r{round}");
        proxy.harm(harm);
        let outcome = through.insert(&table(), key.as_str(), fields(json!({"text": "x".repeat(50_000)}))).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let there = direct.get(&table(), key.as_str()).await.unwrap().is_some();
        match outcome {
            Ok(_) => assert!(there, "{harm:?}"),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{harm:?}: {error:?}");
                assert!(error.message().contains("may have been written"), "{error}");
                lost += usize::from(there);
            }
        }
        written += usize::from(there);
    }
    println!("{written} written, of which {lost} without an answer");
    assert!(written > 0 && lost > 0, "every way of breaking is met");
}

/// Records that are written during a scan change their places in the stream: each is found all the same, and once.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_misses_nothing_that_is_written_meanwhile() {
    const COUNT: usize = 3_000;
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let store = opened(&url).await;
    let name = table();
    for from in (0..COUNT).step_by(100) {
        let put = |n: usize| store.upsert(&name, format!("k{n:04}"), fields(json!({"n": n})));
        futures::future::try_join_all((from..from + 100).map(put)).await.unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let (store, done) = (store.clone(), Arc::clone(&done));
        writers.spawn(async move {
            let mut writes = 0;
            while !done.load(Ordering::SeqCst) {
                // All over the table, and now and then one that comes and goes.
                let n = (writes * 997 + writer * 131) % COUNT;
                store.upsert(&table(), format!("k{n:04}"), fields(json!({"n": n}))).await.unwrap();
                if writes % 10 == 0 {
                    store.upsert(&table(), format!("z{writer}"), fields(json!({}))).await.unwrap();
                    store.delete(&table(), format!("z{writer}"), Expect::Present).await.unwrap();
                }
                writes += 1;
            }
            writes
        });
    }
    let lasting = query().limit(10_000).filter(Filter::starts_with("id", "k").unwrap());
    for round in 0..10 {
        let found = store.scan(&lasting).await.unwrap().records;
        let keys: BTreeSet<_> = found.iter().map(|record| record.key.to_string()).collect();
        assert_eq!((found.len(), keys.len()), (COUNT, COUNT), "scan {round}");
        assert_eq!(store.count(&lasting).await.unwrap(), COUNT as u64, "count {round}");
    }
    done.store(true, Ordering::SeqCst);
    let mut writes = 0;
    while let Some(ended) = writers.join_next().await {
        writes += ended.unwrap();
    }
    println!("{writes} writes during ten scans and ten counts");
    assert!(writes > 100);
}

/// A table that another handle drops and creates anew has nothing of the old one, and a handle that knew the old one goes on with the new.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_created_anew_is_another() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let (one, other) = (opened(&url).await, opened(&url).await);
    one.insert(&table(), "old", fields(json!({"n": 1}))).await.unwrap();
    assert!(other.get(&table(), "old").await.unwrap().is_some());
    assert!(one.drop_table(&table()).await.unwrap());
    let gone = [
        other.get(&table(), "old").await.map(drop).unwrap_err(),
        other.scan(&query()).await.map(drop).unwrap_err(),
        other.upsert(&table(), "old", fields(json!({}))).await.map(drop).unwrap_err(),
    ];
    for error in gone {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    }
    let schema = TableSchema::builder("work").column("m", ColumnType::Integer).keep_undeclared().build().unwrap();
    one.create_table(&schema).await.unwrap();
    assert_eq!(other.get(&table(), "old").await.unwrap(), None);
    assert_eq!(other.insert(&table(), "old", fields(json!({"m": 2}))).await.unwrap(), Version::FIRST);
    assert_eq!(all(&one).await.len(), 1);
    // Its bucket is all that is left of the two.
    let (client, _) = bucket(&address, prefix_of(&url)).await;
    let names: Vec<String> = futures::TryStreamExt::try_collect(client.stream_names()).await.unwrap();
    let begin = format!("KV_{}-work-", prefix_of(&url));
    assert_eq!(names.iter().filter(|name| name.starts_with(&begin)).count(), 1, "{names:?}");
}

/// A handle that has not heard of a change of the schema does not undo what was written since.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_another_handle_is_noticed_in_its_records() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let (one, other) = (opened(&url).await, opened(&url).await);
    one.insert(&table(), "a", fields(json!({"a": 1, "b": "text"}))).await.unwrap();
    assert!(other.get(&table(), "a").await.unwrap().is_some());
    one.delete(&table(), "a", Expect::Present).await.unwrap();
    let name = "b".parse().unwrap();
    let column = Column { name, kind: ColumnType::Integer, required: false, unique: false, default: None };
    one.alter_table(&table(), &SchemaChange::AddColumn(column)).await.unwrap();
    one.alter_table(&table(), &SchemaChange::DropColumn("b".parse().unwrap())).await.unwrap();
    one.insert(&table(), "a", fields(json!({"a": 1, "b": 7}))).await.unwrap();
    // By what it knew, `b` would be dropped from what it writes.
    other.update(&table(), "a", fields(json!({"a": 2})), Expect::Present).await.unwrap();
    let found = one.get(&table(), "a").await.unwrap().unwrap();
    assert_eq!(Value::Object(found.fields), json!({"a": 2, "b": 7}));
}

/// What was deleted or has expired takes up no room for long.
#[tokio::test(flavor = "multi_thread")]
async fn traces_of_what_is_gone_go_too() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let clock = Clock::manual();
    let config = DriverConfig { clock: clock.clone(), ..DriverConfig::from_url(&url) };
    let store = RecordStore::new(NatsDriver.open(&config).await.unwrap().records.unwrap());
    store.create_table(&TableSchema::builder("work").keep_undeclared().build().unwrap()).await.unwrap();
    for n in 0..10 {
        store.insert(&table(), format!("deleted{n}"), fields(json!({}))).await.unwrap();
        store.delete(&table(), format!("deleted{n}"), Expect::Present).await.unwrap();
        let put = Write::Put {
            table: table(),
            key: format!("expires{n}").into(),
            fields: fields(json!({})),
            expect: Expect::Absent,
            expires_at: Some(storage_core::clock::add(clock.now(), Duration::from_secs(5))),
        };
        store.commit(Batch::new().with(put)).await.unwrap();
    }
    store.insert(&table(), "stays", fields(json!({}))).await.unwrap();
    let (_client, mut stream) = bucket(&address, prefix_of(&url)).await;
    assert_eq!(stream.info().await.unwrap().state.messages, 21, "other clients see deletes for a while");
    clock.advance(Duration::from_secs(10));
    assert_eq!(store.sweep(&query()).await.unwrap(), 10);
    // Markers stay for a minute, by the server's time of storing.
    clock.advance(Duration::from_secs(3600 * 24 * 365 * 100));
    assert_eq!(store.count(&query()).await.unwrap(), 1);
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
    assert_eq!(store.insert(&table(), "deleted0", fields(json!({}))).await.unwrap(), Version::FIRST);
}

/// A filter that names keys, or a partition, does not look at the others.
#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_filter_find_what_a_look_at_all_finds() {
    let Some(address) = common::or_skip() else { return };
    let store = records(&fresh(&address)).await.unwrap();
    let schema = TableSchema::builder("work").partition("p", KeyType::Text).keep_undeclared().build().unwrap();
    store.create_table(&schema).await.unwrap();
    for p in ["a", "a.b", "a b", "_kv", "*"] {
        for n in 0..5 {
            store.insert(&table(), (p, n.to_string()), fields(json!({"n": n}))).await.unwrap();
        }
    }
    let is = |column: &str, value: &str| Filter::eq(column, value).unwrap();
    let one_of = |column: &str, values: &[&str]| Filter::is_in(column, values.iter().copied()).unwrap();
    for (filter, count) in [
        (is("p", "a"), 5),
        (is("p", "*"), 5),
        (is("p", "_kv") & Filter::ge("n", 2).unwrap(), 3),
        (is("p", "a.b") & one_of("id", &["1", "2", "9"]), 2),
        (one_of("p", &["a", "a b"]) & is("id", "3"), 2),
        (one_of("p", &["a", "a b"]), 10),
        (is("id", "3"), 5),
        (is("p", "a") & is("p", "a b"), 0),
        (one_of("id", &["1", "1"]) & is("p", "a"), 1),
    ] {
        let found = store.scan(&query().filter(filter.clone())).await.unwrap();
        assert_eq!(found.records.len(), count, "{filter:?}");
        assert_eq!(store.count(&query().filter(filter.clone())).await.unwrap(), count as u64, "{filter:?}");
    }
}

/// What is larger than a message of the server's is refused, also where a merge makes it so.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_refused() {
    let Some(address) = common::or_skip() else { return };
    let store = opened(&fresh(&address)).await;
    let max = store.capabilities().max_record_bytes;
    let text = |len: usize| fields(json!({"a": "x".repeat(len)}));
    let key = "k".repeat(512);
    let empty = r#"{"a":""}"#.len();
    store.insert(&table(), key.as_str(), text(max - empty)).await.unwrap();
    let error = store.upsert(&table(), key.as_str(), text(max - empty + 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    let more = fields(json!({"b": "y".repeat(max / 2)}));
    let error = store.update(&table(), key.as_str(), more, Expect::Present).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert_eq!(store.get(&table(), key.as_str()).await.unwrap().unwrap().version, Version::FIRST);
}

/// An account that may not have as many streams as a table needs: nothing is left of the attempt.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_room_for_a_table_has_no_half_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = format!(
        "jetstream {{ store_dir: \"{}\" }}\naccounts {{ A {{ jetstream {{ max_mem: 1M, max_file: 10M, max_streams: 2, max_consumers: 10 }}, \
         users [{{ user: joe, password: x }}] }} }}\n",
        folder.path().display()
    );
    let Some(server) = Server::or_skip(&accounts).await else { return };
    let store = opened(&server.address().replace("nats://", "nats://joe:x@")).await;
    let another = TableSchema::builder("another").keep_undeclared().build().unwrap();
    for _ in 0..2 {
        let error = store.create_table(&another).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled, "{error:?}");
        assert_eq!(store.tables().await.unwrap().len(), 1);
    }
    assert!(store.drop_table(&table()).await.unwrap());
    assert!(store.create_table(&another).await.unwrap());
}
