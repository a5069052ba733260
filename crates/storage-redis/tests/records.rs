//! Records: many who write the same, servers that end, callers that go away, what others have written under our names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use common::server::{Server, can_start, free_port};
use common::{Store, apart, cli, number, port, prefix, schema, shared, single_or_skip, table, until};
use serde_json::json;
use storage_core::{
    Batch, Column, ColumnType, ErrorKind, Expect, Filter, History, Key, NewMessage, Query, QueueName, QueueSpec, Receive, Record,
    SchemaChange, TableSchema, Write, fields,
};

const LONG: Duration = Duration::from_secs(600);

/// What a call may answer whose server or connection went away.
fn is_loss(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout)
}

fn queue() -> QueueName {
    QueueName::new("q").unwrap()
}

async fn prepared(store: &Store) {
    store.records.create_table(&schema()).await.unwrap();
    store.queue.create_queue(&queue(), &QueueSpec::default().max_deliveries(None)).await.unwrap();
}

/// Two records and a message, in one batch.
fn pair(name: &str) -> Batch {
    Batch::new()
        .put(&table(), format!("{name}a"), number(1), Expect::Absent)
        .put(&table(), format!("{name}b"), number(1), Expect::Absent)
        .enqueue(&queue(), NewMessage::new(name.to_owned()))
}

/// Writes pairs until told to stop. Answers which were acknowledged.
fn writer(store: &Arc<Store>, number: usize, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<Vec<String>> {
    let (store, stop) = (Arc::clone(store), Arc::clone(stop));
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for round in 0.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let name = format!("{number}-{round}");
            match store.records.commit(pair(&name)).await {
                Ok(_) => acknowledged.push(name),
                Err(error) => {
                    assert!(is_loss(error.kind()), "{error:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        acknowledged
    })
}

async fn all(store: &Store, query: &Query) -> Vec<Record> {
    let (mut query, mut records) = (query.clone(), Vec::new());
    loop {
        let page = store.records.scan(&query).await.unwrap();
        records.extend(page.records);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return records,
        }
    }
}

/// The pairs that are there, each with its message and in the index, and none half.
async fn whole_pairs(store: &Store) -> BTreeSet<String> {
    let mut sent = BTreeSet::new();
    loop {
        let received = store.queue.receive(&queue(), &Receive::up_to(1_000).visibility(LONG)).await.unwrap();
        if received.is_empty() {
            break;
        }
        sent.extend(received.into_iter().map(|delivery| String::from_utf8(delivery.message.body.to_vec()).unwrap()));
    }
    let query = Query::table("t").unwrap().limit(10_000);
    let keys = |records: Vec<Record>| records.into_iter().map(|record| record.key.to_string()).collect::<BTreeSet<_>>();
    let there = keys(all(store, &query).await);
    assert_eq!(there.len(), 2 * sent.len(), "records and messages come together");
    for name in &sent {
        assert!(there.contains(&format!("{name}a")) && there.contains(&format!("{name}b")), "{name} is half");
    }
    assert_eq!(keys(all(store, &query.filter(Filter::eq("n", 1).unwrap())).await), there, "by the index");
    sent
}

/// Kills the server again and again while eight write, at a third of the way each.
async fn killed(server: Server) -> (Server, Arc<Store>, Vec<String>) {
    let mut server = server;
    let store = Arc::new(Store::open(&server.url()).await.unwrap());
    prepared(&store).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8).map(|number| writer(&store, number, &stop)).collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        server = tokio::task::spawn_blocking(move || {
            server.restart();
            server
        })
        .await
        .unwrap();
    }
    until("a write goes through", async || store.records.upsert(&table(), "after", number(1)).await.ok()).await;
    store.records.delete(&table(), "after", Expect::Present).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    (server, store, acknowledged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_where_it_is_durable() {
    if !can_start() {
        return;
    }
    let (_server, store, acknowledged) = killed(Server::durable()).await;
    assert!(store.records.capabilities().durable);
    assert!(acknowledged.len() > 20, "{} pairs", acknowledged.len());
    let there = whole_pairs(&store).await;
    assert!(acknowledged.iter().all(|name| there.contains(name)), "what was acknowledged is there");
}

/// With `everysec` the last second may be gone, and `durable` says so. What is there is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_leaves_nothing_half_where_it_is_not() {
    if !can_start() {
        return;
    }
    let server = Server::start(free_port(), &["--appendonly", "yes", "--appendfsync", "everysec"]);
    let (_server, store, acknowledged) = killed(server).await;
    assert!(!store.records.capabilities().durable);
    assert!(!acknowledged.is_empty());
    whole_pairs(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_leave_nothing_half() {
    let Some(address) = single_or_skip() else { return };
    let store = Arc::new(Store::open(&apart(&address)).await.unwrap());
    prepared(&store).await;
    let mut cancelled = 0;
    for round in 0..300_u64 {
        let task = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let commit = store.records.commit(pair(&round.to_string())).await;
                let page = store.records.scan(&Query::table("t")?).await;
                commit.and(page).map(drop)
            })
        };
        tokio::time::sleep(Duration::from_micros(round * 37 % 3_000)).await;
        task.abort();
        cancelled += usize::from(task.await.is_err_and(|error| error.is_cancelled()));
    }
    assert!(cancelled > 20, "{cancelled} were cancelled");
    // What was sent is done by the time that a later call is answered.
    store.records.upsert(&table(), "x", number(0)).await.unwrap();
    store.records.delete(&table(), "x", Expect::Present).await.unwrap();
    assert!(!whole_pairs(&store).await.is_empty());
}

/// A change of a table whose caller went away is done, or not begun; either way the table can be written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_change_leaves_no_lock() {
    let Some(address) = single_or_skip() else { return };
    let store = Arc::new(Store::open(&apart(&address)).await.unwrap());
    prepared(&store).await;
    let batch = (0..2_000).fold(Batch::new(), |batch, n| batch.put(&table(), format!("{n:04}"), number(n), Expect::Absent));
    store.records.commit(batch).await.unwrap();
    for round in 0..20_u64 {
        let change = {
            let store = Arc::clone(&store);
            let column = Column { default: Some(json!(7)), ..column(&format!("c{round}"), ColumnType::Integer) };
            tokio::spawn(async move { store.records.alter_table(&table(), &SchemaChange::AddColumn(column)).await })
        };
        tokio::time::sleep(Duration::from_millis(round * 3 % 40)).await;
        change.abort();
        store.records.upsert(&table(), "0000", number(1)).await.unwrap();
        assert_eq!(store.records.count(&Query::table("t").unwrap()).await.unwrap(), 2_000);
    }
    let columns = store.records.tables().await.unwrap()[0].columns.len();
    assert!(columns > 1, "some were done");
    let record = store.records.get(&table(), "1999").await.unwrap().unwrap();
    assert_eq!(record.fields.len(), columns, "in the records too: {record:?}");
}

fn column(name: &str, kind: ColumnType) -> Column {
    Column { name: name.try_into().unwrap(), kind, required: false, unique: false, default: None }
}

/// Writers wait while a table is rewritten, and none of their writes is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_during_a_change_are_kept() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let (one, two) = (Store::open(&url).await.unwrap(), Store::open(&url).await.unwrap());
    let built = TableSchema::builder("t").column("n", ColumnType::Integer).history(History::KeepAll).keep_undeclared();
    one.records.create_table(&built.build().unwrap()).await.unwrap();
    let batch = (0..3_000).fold(Batch::new(), |batch, n| batch.put(&table(), format!("{n:04}"), number(n), Expect::Absent));
    one.records.commit(batch).await.unwrap();
    let index = storage_core::Index { name: "by_n".try_into().unwrap(), columns: vec!["n".try_into().unwrap()], unique: true };
    let change = SchemaChange::AddIndex(index);
    let write = async {
        for n in 0..200 {
            two.records.insert(&table(), format!("x{n:04}"), number(10_000 + n)).await.unwrap();
        }
    };
    let name = table();
    let (altered, ()) = tokio::join!(one.records.alter_table(&name, &change), write);
    altered.unwrap();
    assert_eq!(two.records.count(&Query::table("t").unwrap()).await.unwrap(), 3_200);
    let found = all(&two, &Query::table("t").unwrap().filter(Filter::eq("n", 10_007).unwrap())).await;
    assert_eq!(found.len(), 1);
    assert_eq!(two.records.history(&table(), "x0007").await.unwrap().len(), 1);
    let error = two.records.insert(&table(), "y", number(5)).await.unwrap_err();
    assert_eq!((error.kind(), error.failed_write()), (ErrorKind::AlreadyExists, Some(0)), "{error}");
    // A change that the records don't allow changes nothing.
    two.records.upsert(&table(), "y", fields(json!({"n": null, "z": 1}))).await.unwrap();
    let error =
        two.records.alter_table(&table(), &SchemaChange::SetUndeclared(storage_core::Undeclared::Reject)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    two.records.upsert(&table(), "y", fields(json!({"z": 2}))).await.unwrap();
    let left = cli(port(&address), &["KEYS", &format!("{}:{{t}}:dropped", prefix(&url))]);
    assert_eq!(left, "", "nothing is left of the old records");
}

/// A change that its program did not finish is given up by whoever writes next, once it was silent for long enough.
#[tokio::test]
async fn an_unfinished_change_is_given_up() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = Store::open(&url).await.unwrap();
    prepared(&store).await;
    let meta = format!("{}:{{t}}:table", prefix(&url));
    cli(port(&address), &["HSET", &meta, "altering", "abc", "altering_until", "1", "altering_schema", "{}"]);
    store.records.insert(&table(), "a", number(1)).await.unwrap();
    assert_eq!(cli(port(&address), &["HEXISTS", &meta, "altering"]), "0");
    // One that is at it is waited for, no longer than a call may take.
    cli(port(&address), &["HSET", &meta, "altering", "abc", "altering_until", "9000000000000000", "altering_schema", "{}"]);
    let hasty = Store::impatient(&url, Duration::from_millis(300)).await.unwrap();
    let error = hasty.records.insert(&table(), "b", number(1)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.is_retryable(), "{error}");
    assert_eq!(hasty.records.get(&table(), "a").await.unwrap().unwrap().fields, number(1), "readers go on");
}

async fn bank(address: Result<String, String>) {
    const ACCOUNTS: usize = 12;
    let address = match address {
        Ok(address) => address,
        Err(reason) => return storage_conformance::skip(&reason),
    };
    let store = Arc::new(Store::open(&apart(&address)).await.unwrap());
    store.records.create_table(&schema()).await.unwrap();
    let keys: Vec<Key> = (0..ACCOUNTS).map(|n| format!("{n:02}").into()).collect();
    for key in &keys {
        store.records.insert(&table(), key.clone(), number(100)).await.unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let writers = (0..16_usize).map(|writer| {
        let (store, keys) = (Arc::clone(&store), keys.clone());
        tokio::spawn(async move {
            for round in 0..20 {
                let (from, to) = (&keys[(writer * 5 + round) % ACCOUNTS], &keys[(writer + round * 7 + 1) % ACCOUNTS]);
                if from == to {
                    continue;
                }
                let transfer = store.records.transaction(async |tx| {
                    let (rich, poor) = (tx.get(&table(), from.clone()).await?, tx.get(&table(), to.clone()).await?);
                    let value = |record: Option<Record>| record.unwrap().fields["n"].as_i64().unwrap();
                    tx.update(&table(), from.clone(), number(value(rich) - 3)).await?;
                    tx.update(&table(), to.clone(), number(value(poor) + 3)).await
                });
                transfer.await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let reader = {
        let (store, keys, done) = (Arc::clone(&store), keys.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut reads = 0;
            while !done.load(Ordering::SeqCst) {
                let found = store.records.get_many(&table(), &keys).await.unwrap();
                let by_keys: i64 = found.into_iter().map(|record| record.unwrap().fields["n"].as_i64().unwrap()).sum();
                let page = store.records.scan(&Query::table("t").unwrap()).await.unwrap();
                let by_scan: i64 = page.records.iter().map(|record| record.fields["n"].as_i64().unwrap()).sum();
                assert_eq!((by_keys, by_scan), (1_200, 1_200));
                reads += 1;
            }
            reads
        })
    };
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    assert!(reader.await.unwrap() > 0);
    // The index followed all of it.
    for record in all(&store, &Query::table("t").unwrap()).await {
        let same = Filter::eq("n", record.fields["n"].clone()).unwrap();
        assert!(all(&store, &Query::table("t").unwrap().filter(same)).await.contains(&record));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_move_money_and_the_sum_holds_at_every_read() {
    bank(shared("XTASK_TEST_REDIS")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_move_money_in_a_cluster() {
    bank(shared("XTASK_TEST_REDIS_CLUSTER")).await;
}

/// Two who each insert unless the other has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_skew_through_absent_records_is_caught() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    // Two stores, as two processes have them.
    let (one, two) = (Store::open(&url).await.unwrap(), Store::open(&url).await.unwrap());
    prepared(&one).await;
    for round in 0..60 {
        let on_call = |mine: &str, theirs: &str| {
            Batch::new().check(&table(), format!("{round}{theirs}"), Expect::Absent).put(
                &table(),
                format!("{round}{mine}"),
                number(1),
                Expect::Absent,
            )
        };
        let (a, b) = tokio::join!(one.records.commit(on_call("a", "b")), two.records.commit(on_call("b", "a")));
        assert!(a.is_ok() != b.is_ok(), "round {round}: {a:?} {b:?}");
        let error = a.and(b).unwrap_err();
        assert_eq!((error.kind(), error.failed_write()), (ErrorKind::AlreadyExists, Some(0)), "{error}");
    }
}

/// A record can be looked at with `redis-cli`.
#[tokio::test]
async fn a_record_is_a_hash_that_can_be_read() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = Store::open(&url).await.unwrap();
    let built = TableSchema::builder("Jobs").column("n", ColumnType::Integer).keep_undeclared();
    let jobs = "Jobs".parse().unwrap();
    store.records.create_table(&built.build().unwrap()).await.unwrap();
    store.records.insert(&jobs, "job 1", fields(json!({"n": 5, "note": "hi", "@odd": [true]}))).await.unwrap();
    let row = cli(port(&address), &["KEYS", &format!("{}:{{jobs}}:*:row:job 1", prefix(&url))]);
    let mut hash: Vec<(String, String)> = Vec::new();
    for name in cli(port(&address), &["HKEYS", &row]).lines() {
        hash.push((name.to_owned(), cli(port(&address), &["HGET", &row, name])));
    }
    hash.sort_unstable();
    hash.retain(|(name, _)| name != "@updated");
    let expected = [("@@odd", "[true]"), ("@version", "1"), ("n", "5"), ("note", "\"hi\"")];
    assert_eq!(hash, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

/// What is not ours under our names is an error that says so, and nothing of a batch that comes across it is done.
#[tokio::test]
async fn foreign_keys_are_corrupt() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = Store::open(&url).await.unwrap();
    let unique = TableSchema::builder("t").column("n", ColumnType::Integer).column("mail", ColumnType::Text).unique();
    store.records.create_table(&unique.index("by_n", ["n"]).history(History::Keep(2)).build().unwrap()).await.unwrap();
    store.records.insert(&table(), "a", fields(json!({"n": 1, "mail": "a"}))).await.unwrap();
    let id = cli(port(&address), &["HGET", &format!("{}:{{t}}:table", prefix(&url)), "id"]);
    let data = format!("{}:{{t}}:{id}:", prefix(&url));
    let corrupt = |error: storage_core::Error| assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    for key in ["keys", "expiring", "kept", "index:by_n", "index:.mail", "unique:.mail", "row:b", "history:b"] {
        let (name, aside) = (format!("{data}{key}"), format!("{data}aside"));
        cli(port(&address), &["EVAL", "return redis.pcall('RENAME', KEYS[1], KEYS[2]).ok", "2", &name, &aside]);
        cli(port(&address), &["SET", &name, "mine"]);
        let batch = Batch::new().put(&table(), "c", fields(json!({"n": 2, "mail": "c"})), Expect::Anything).put(
            &table(),
            "b",
            fields(json!({"n": 3, "mail": "b"})),
            Expect::Anything,
        );
        corrupt(store.records.commit(batch).await.unwrap_err());
        assert_eq!(cli(port(&address), &["EXISTS", &format!("{data}row:c")]), "0", "{key}: nothing is done");
        cli(port(&address), &["DEL", &name]);
        cli(port(&address), &["EVAL", "return redis.pcall('RENAME', KEYS[1], KEYS[2]).ok", "2", &aside, &name]);
    }
    // A hash of somebody else's, a value of another type, no JSON, a version that is none, a damaged index, no record's key.
    let row = format!("{data}row:a");
    for (field, value) in
        [("n", "\"text\""), ("mail", "5"), ("n", "{"), ("@version", "x"), ("@updated", "-"), ("@expires", "soon")]
    {
        let before = cli(port(&address), &["HGET", &row, field]);
        cli(port(&address), &["HSET", &row, field, value]);
        corrupt(store.records.get(&table(), "a").await.unwrap_err());
        corrupt(store.records.scan(&Query::table("t").unwrap()).await.unwrap_err());
        if before.is_empty() {
            cli(port(&address), &["HDEL", &row, field]);
        } else {
            cli(port(&address), &["HSET", &row, field, &before]);
        }
    }
    assert_eq!(store.records.get(&table(), "a").await.unwrap().unwrap().fields, fields(json!({"n": 1, "mail": "a"})));
    cli(port(&address), &["HSET", &format!("{data}row:d"), "name", "Dora"]);
    corrupt(store.records.get(&table(), "d").await.unwrap_err());
    corrupt(store.records.upsert(&table(), "d", fields(json!({"n": 1}))).await.unwrap_err());
    cli(port(&address), &["HSET", &row, "@index", "\u{7f}junk"]);
    corrupt(store.records.upsert(&table(), "a", fields(json!({"n": 1}))).await.unwrap_err());
    cli(port(&address), &["HSET", &format!("{}:{{t}}:table", prefix(&url)), "schema", "{}"]);
    corrupt(Store::open(&url).await.unwrap().records.get(&table(), "a").await.unwrap_err());
}

/// Records whose hash was evicted, or removed by hand, are gone as a whole: they are in no page, twice in none when they are written again, and their
/// key can be used.
#[tokio::test]
async fn lost_rows_are_absent() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = Store::open(&url).await.unwrap();
    prepared(&store).await;
    for n in 0..5 {
        store.records.insert(&table(), format!("r{n}"), number(n % 2)).await.unwrap();
    }
    let id = cli(port(&address), &["HGET", &format!("{}:{{t}}:table", prefix(&url)), "id"]);
    let data = format!("{}:{{t}}:{id}:", prefix(&url));
    cli(port(&address), &["DEL", &format!("{data}row:r1"), &format!("{data}row:r2")]);
    store.records.insert(&table(), "r2", number(1)).await.unwrap();
    let by = |n: i64| Query::table("t").unwrap().filter(Filter::eq("n", n).unwrap());
    let keys = |records: Vec<Record>| records.into_iter().map(|record| record.key.to_string()).collect::<Vec<_>>();
    assert_eq!(keys(all(&store, &by(1)).await), ["r2", "r3"]);
    assert_eq!(keys(all(&store, &by(0)).await), ["r0", "r4"], "not by the value that it had");
    let both = Query::table("t").unwrap().filter(Filter::is_in("n", [0, 1]).unwrap());
    assert_eq!(keys(all(&store, &both).await), ["r0", "r2", "r3", "r4"]);
    assert_eq!(keys(all(&store, &Query::table("t").unwrap()).await), ["r0", "r2", "r3", "r4"]);
    assert_eq!(cli(port(&address), &["ZCARD", &format!("{data}keys")]), "4", "its key was forgotten");
}

/// Records that have expired take up nothing once others have been written, or after a sweep: neither rows nor places in the indexes.
#[tokio::test]
async fn expired_records_leave_nothing() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = Store::open(&url).await.unwrap();
    let unique = TableSchema::builder("t").column("n", ColumnType::Integer).unique().index("by_n", ["n"]);
    store.records.create_table(&unique.build().unwrap()).await.unwrap();
    let put = |n: i64, seconds: i64| Write::Put {
        table: table(),
        key: n.to_string().into(),
        fields: number(n),
        expect: Expect::Absent,
        expires_at: Some(Utc::now() + chrono::TimeDelta::seconds(seconds)),
    };
    let batch: Batch = (0..40).map(|n| put(n, -5)).chain((100..103).map(|n| put(n, 500))).collect();
    store.records.commit(batch).await.unwrap();
    let id = cli(port(&address), &["HGET", &format!("{}:{{t}}:table", prefix(&url)), "id"]);
    let left = || {
        let name = |part: &str| format!("{}:{{t}}:{id}:{part}", prefix(&url));
        let sets = ["keys", "expiring", "index:by_n", "index:.n"].map(|part| cli(port(&address), &["ZCARD", &name(part)]));
        let rows = cli(port(&address), &["EVAL", "return #redis.call('KEYS', ARGV[1])", "0", &name("row:*")]);
        let values = cli(port(&address), &["HLEN", &name("unique:.n")]);
        sets.into_iter().chain([rows, values]).collect::<BTreeSet<_>>()
    };
    assert_eq!(left(), BTreeSet::from(["27".to_owned()]), "the batch itself freed sixteen");
    assert_eq!(store.records.count(&Query::table("t").unwrap()).await.unwrap(), 3);
    store.records.upsert(&table(), "100", number(100)).await.unwrap();
    assert_eq!(
        cli(port(&address), &["ZCARD", &format!("{}:{{t}}:{id}:expiring", prefix(&url))]),
        "10",
        "and it expires no longer"
    );
    assert_eq!(store.records.sweep(&Query::table("t").unwrap()).await.unwrap(), 8);
    let rows = format!("{}:{{t}}:{id}:row:*", prefix(&url));
    assert_eq!(cli(port(&address), &["EVAL", "return #redis.call('KEYS', ARGV[1])", "0", &rows]), "3");
}

/// A dropped table leaves nothing, whatever it had.
#[tokio::test]
async fn a_dropped_table_leaves_nothing() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = Store::open(&url).await.unwrap();
    let built =
        TableSchema::builder("t").column("n", ColumnType::Integer).unique().index("by_n", ["n"]).history(History::KeepAll);
    store.records.create_table(&built.build().unwrap()).await.unwrap();
    let batch = (0..1_200).fold(Batch::new(), |batch, n| batch.put(&table(), n.to_string(), number(n), Expect::Absent));
    store.records.commit(batch).await.unwrap();
    store.records.delete(&table(), "7", Expect::Present).await.unwrap();
    assert_eq!(store.records.history(&table(), "7").await.unwrap().len(), 1);
    assert!(store.records.drop_table(&table()).await.unwrap());
    assert_eq!(cli(port(&address), &["KEYS", &format!("{}:*", prefix(&url))]), "");
}

/// A server whose memory is full refuses what takes more, as a whole, and lets things be removed.
#[tokio::test]
async fn a_full_server_is_throttled_and_can_be_emptied() {
    if !can_start() {
        return;
    }
    let server = Server::start(free_port(), &["--maxmemory", "6mb", "--maxmemory-policy", "noeviction"]);
    let store = Store::open(&server.url()).await.unwrap();
    let built = TableSchema::builder("t").column("n", ColumnType::Integer).keep_undeclared().index("by_n", ["n"]);
    store.records.create_table(&built.build().unwrap()).await.unwrap();
    let large = |n: usize| fields(json!({"n": n, "text": "x".repeat(50_000)}));
    let mut written = 0;
    let error = loop {
        assert!(written < 500, "the server is never full");
        let batch = Batch::new().put(&table(), format!("{written}a"), large(written), Expect::Absent).put(
            &table(),
            format!("{written}b"),
            large(written),
            Expect::Absent,
        );
        match store.records.commit(batch).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(error.kind() == ErrorKind::Throttled && error.is_retryable(), "{error}");
    assert_eq!(store.records.count(&Query::table("t").unwrap()).await.unwrap(), 2 * written as u64, "nothing half");
    // Far beyond: also what takes little is refused, and still things can be removed.
    cli(server.port(), &["CONFIG", "SET", "maxmemory", "2mb"]);
    let error = store.records.update(&table(), "0a", fields(json!({"m": 1})), Expect::Present).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
    for n in 0..written {
        store.records.delete(&table(), format!("{n}a"), Expect::Present).await.unwrap();
    }
    assert_eq!(store.records.count(&Query::table("t").unwrap()).await.unwrap(), written as u64);
    cli(server.port(), &["CONFIG", "SET", "maxmemory", "6mb"]);
    store.records.insert(&table(), "again", large(1)).await.unwrap();
}

/// A user needs the keys of the prefix, and what scripts do; without, it is told so.
#[tokio::test]
async fn limited_users() {
    if !can_start() {
        return;
    }
    let server = Server::start(free_port(), &[]);
    let allowed = ["~storage:*", "resetchannels", "&storage:*", "+@all", "-@dangerous", "+info", "+config|get"];
    cli(server.port(), &[&["ACL", "SETUSER", "app", "on", ">secret"][..], &allowed].concat());
    cli(server.port(), &["ACL", "SETUSER", "guest", "on", ">secret", "~other:*", "+@all"]);
    let url = |user: &str| format!("redis://{user}:secret@127.0.0.1:{}", server.port());
    let store = Store::open(&url("app")).await.unwrap();
    prepared(&store).await;
    store.records.commit(pair("x")).await.unwrap();
    store
        .records
        .alter_table(&table(), &SchemaChange::AddColumn(Column { default: Some(json!(1)), ..column("m", ColumnType::Integer) }))
        .await
        .unwrap();
    assert_eq!(all(&store, &Query::table("t").unwrap()).await.len(), 2);
    let guest = Store::open(&url("guest")).await.unwrap();
    let error = guest.records.get(&table(), "xa").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(store.records.drop_table(&table()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_unavailable_and_comes_back() {
    if !can_start() {
        return;
    }
    let mut server = Server::durable();
    let store = Store::impatient(&server.url(), Duration::from_secs(2)).await.unwrap();
    prepared(&store).await;
    store.records.upsert(&table(), "a", number(1)).await.unwrap();
    server.kill();
    for error in [
        store.records.get(&table(), "a").await.unwrap_err(),
        store.records.upsert(&table(), "a", number(2)).await.unwrap_err(),
        store.records.scan(&Query::table("t").unwrap()).await.unwrap_err(),
    ] {
        assert!(is_loss(error.kind()) && error.is_retryable(), "{error:?}");
    }
    server.restart();
    until("it answers again", async || store.records.get(&table(), "a").await.ok()).await;
    store.records.upsert(&table(), "a", number(3)).await.unwrap();
    assert_eq!(store.records.get(&table(), "a").await.unwrap().unwrap().fields, number(3));
}
