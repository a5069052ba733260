//! Servers that end, callers that go away, many who write the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::server::{Server, can_start};
use common::{Opened, apart, number, raw, schema, shared_or_skip, table, until};
use storage_core::{Batch, DriverConfig, ErrorKind, Expect, Key, NewMessage, QueueName, QueueSpec, Receive};

/// What a call may answer whose server or connection went away.
fn is_loss(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout)
}

fn queue() -> QueueName {
    QueueName::new("q").unwrap()
}

/// Two records and a message, in one batch.
fn pair(name: &str) -> Batch {
    Batch::new()
        .put(&table(), format!("{name}a"), number(1), Expect::Absent)
        .put(&table(), format!("{name}b"), number(1), Expect::Absent)
        .enqueue(&queue(), NewMessage::new(name.to_owned()))
}

async fn prepared(opened: &Opened) {
    opened.records.create_table(&schema()).await.unwrap();
    opened.queue.create_queue(&queue(), &QueueSpec::default().max_deliveries(None)).await.unwrap();
}

/// Writes pairs until told to stop. Answers which were acknowledged.
fn writer(opened: &Arc<Opened>, number: usize, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<Vec<String>> {
    let (opened, stop) = (Arc::clone(opened), Arc::clone(stop));
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for round in 0.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let name = format!("{number}-{round}");
            match opened.records.commit(pair(&name)).await {
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

/// Every acknowledged pair is there with its message, and no pair is half.
async fn nothing_is_lost_or_half(opened: &Opened, acknowledged: &[String]) {
    let mut sent = BTreeSet::new();
    loop {
        let received = opened.queue.receive(&queue(), &Receive::up_to(1_000).visibility(Duration::from_secs(600))).await.unwrap();
        if received.is_empty() {
            break;
        }
        sent.extend(received.into_iter().map(|delivery| String::from_utf8(delivery.message.body.to_vec()).unwrap()));
    }
    for name in acknowledged {
        assert!(sent.contains(name), "the message of {name} was acknowledged");
    }
    let mut there = BTreeSet::new();
    let mut query = storage_core::Query::table("t").unwrap().limit(10_000);
    loop {
        let page = opened.records.scan(&query).await.unwrap();
        there.extend(page.records.iter().map(|record| record.key.to_string()));
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    assert_eq!(there.len(), 2 * sent.len(), "records and messages come together");
    for name in &sent {
        assert!(there.contains(&format!("{name}a")) && there.contains(&format!("{name}b")), "{name} is half");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_was_acknowledged() {
    if !can_start() {
        return;
    }
    let mut server = Server::start(&[]);
    let opened = Arc::new(Opened::new(&server.url()).await.unwrap());
    prepared(&opened).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8).map(|number| writer(&opened, number, &stop)).collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            std::thread::sleep(Duration::from_millis(200));
            server.restart();
            server
        })
        .await
        .unwrap();
    }
    // All goes on by itself.
    until("a write goes through", async || opened.records.upsert(&table(), "after", number(1)).await.ok()).await;
    opened.records.delete(&table(), "after", Expect::Present).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(acknowledged.len() > 20, "{} pairs", acknowledged.len());
    nothing_is_lost_or_half(&opened, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_connections_are_replaced() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let opened = Arc::new(Opened::new(&format!("{url}&application_name=ended")).await.unwrap());
    prepared(&opened).await;
    let (raw, stop) = (raw(&url).await, Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..6).map(|number| writer(&opened, number, &stop)).collect();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'ended'";
    let mut ended = 0;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        ended += raw.query_one(end, &[]).await.unwrap().get::<_, i64>(0);
    }
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(ended >= 10 && !acknowledged.is_empty(), "{ended} ended, {} written", acknowledged.len());
    until("it goes on", async || opened.records.ping().await.ok()).await;
    nothing_is_lost_or_half(&opened, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_leave_no_transaction_and_no_connection() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let config = DriverConfig { pool_size: Some(5), ..DriverConfig::from_url(&format!("{url}&application_name=gone")) };
    let opened = Arc::new(Opened::with(&config).await.unwrap());
    prepared(&opened).await;
    for round in 0..300_u64 {
        let task = {
            let opened = Arc::clone(&opened);
            tokio::spawn(async move {
                let name = round.to_string();
                let key = Key::from(format!("{name}a"));
                match round % 4 {
                    0 => drop(opened.records.commit(pair(&name)).await),
                    1 => drop(opened.records.scan(&storage_core::Query::table("t")?).await),
                    2 => drop(opened.queue.receive(&queue(), &Receive::up_to(3).visibility(Duration::from_millis(5))).await),
                    _ => {
                        let change = opened.records.transaction(async |tx| {
                            let _ = tx.get(&table(), key.clone()).await?;
                            tx.put(&table(), key.clone(), number(2)).await
                        });
                        drop(change.await);
                    }
                }
                Ok::<_, storage_core::Error>(())
            })
        };
        tokio::time::sleep(Duration::from_micros(round * 37 % 4_000)).await;
        task.abort();
    }
    let raw = raw(&url).await;
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gone' AND state <> 'idle'";
    until("nothing runs and no transaction is open", async || {
        (raw.query_one(busy, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    let all = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gone'";
    // The pool's, and the one for news.
    until("no connection is left over", async || (raw.query_one(all, &[]).await.unwrap().get::<_, i64>(0) <= 6).then_some(()))
        .await;
    assert!(opened.store.connections() <= 5);
    // All connections can still be had, at once.
    futures::future::try_join_all((0..20).map(|_| opened.records.ping())).await.unwrap();
    nothing_is_lost_or_half_but_changed(&opened).await;
    let opened = Arc::into_inner(opened).unwrap();
    opened.close().await;
    until("closing closes all", async || (raw.query_one(all, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())).await;
}

/// Of each pair, both or none: `a` alone may have been written by a transaction of its own.
async fn nothing_is_lost_or_half_but_changed(opened: &Opened) {
    let page = opened.records.scan(&storage_core::Query::table("t").unwrap().limit(10_000)).await.unwrap();
    let keys: BTreeSet<String> = page.records.iter().map(|record| record.key.to_string()).collect();
    for key in keys.iter().filter(|key| key.ends_with('b')) {
        assert!(keys.contains(&key.replace('b', "a")), "{key} is half");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_move_money_and_the_sum_holds_at_every_read() {
    const ACCOUNTS: usize = 12;
    let Some(address) = shared_or_skip() else { return };
    let opened = Arc::new(Opened::new(&apart(&address)).await.unwrap());
    prepared(&opened).await;
    let keys: Vec<Key> = (0..ACCOUNTS).map(|n| format!("{n:02}").into()).collect();
    for key in &keys {
        opened.records.insert(&table(), key.clone(), number(100)).await.unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let writers = (0..16_usize).map(|writer| {
        let (opened, keys) = (Arc::clone(&opened), keys.clone());
        tokio::spawn(async move {
            for round in 0..20 {
                let (from, to) = (&keys[(writer * 5 + round) % ACCOUNTS], &keys[(writer + round * 7 + 1) % ACCOUNTS]);
                if from == to {
                    continue;
                }
                let transfer = opened.records.transaction(async |tx| {
                    let (rich, poor) = (tx.get(&table(), from.clone()).await?, tx.get(&table(), to.clone()).await?);
                    let value = |record: Option<storage_core::Record>| record.unwrap().fields["n"].as_i64().unwrap();
                    tx.update(&table(), from.clone(), number(value(rich) - 3)).await?;
                    tx.update(&table(), to.clone(), number(value(poor) + 3)).await
                });
                transfer.await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let reader = {
        let (opened, keys, done) = (Arc::clone(&opened), keys.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut reads = 0;
            while !done.load(Ordering::SeqCst) {
                let found = opened.records.get_many(&table(), &keys).await.unwrap();
                let by_keys: i64 = found.into_iter().map(|record| record.unwrap().fields["n"].as_i64().unwrap()).sum();
                let page = opened.records.scan(&storage_core::Query::table("t").unwrap()).await.unwrap();
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
}

/// Two who each insert unless the other has: by records that are not there, which no lock on a row can hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_skew_through_absent_records_is_caught() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    // Two stores, as two processes have them: they share no writer.
    let (one, two) = (Opened::new(&url).await.unwrap(), Opened::new(&url).await.unwrap());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_unavailable_and_comes_back() {
    if !can_start() {
        return;
    }
    let mut server = Server::start(&[]);
    let config = DriverConfig { timeout: Some(Duration::from_secs(2)), ..DriverConfig::from_url(&server.url()) };
    let opened = Opened::with(&config).await.unwrap();
    prepared(&opened).await;
    opened.records.upsert(&table(), "a", number(1)).await.unwrap();
    server.kill();
    for _ in 0..3 {
        for error in [
            opened.records.get(&table(), "a").await.unwrap_err(),
            opened.records.upsert(&table(), "a", number(2)).await.unwrap_err(),
            opened.queue.send(&queue(), NewMessage::new("x")).await.unwrap_err(),
            opened.queue.receive(&queue(), &Receive::default()).await.unwrap_err(),
        ] {
            assert!(is_loss(error.kind()) && error.is_retryable(), "{error:?}");
        }
    }
    server.restart();
    until("it answers again", async || opened.records.get(&table(), "a").await.ok()).await;
    opened.records.upsert(&table(), "a", number(3)).await.unwrap();
    opened.queue.send(&queue(), NewMessage::new("x")).await.unwrap();
    assert_eq!(opened.queue.receive(&queue(), &Receive::default()).await.unwrap().len(), 1);
}

/// What others hold is waited for no longer than the timeout, and nothing is left of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_somebody_holds_is_given_up() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let config = DriverConfig { timeout: Some(Duration::from_secs(1)), ..DriverConfig::from_url(&url) };
    let opened = Opened::with(&config).await.unwrap();
    prepared(&opened).await;
    opened.records.upsert(&table(), "a", number(1)).await.unwrap();
    let raw = raw(&url).await;
    raw.batch_execute("BEGIN; SELECT * FROM t FOR UPDATE").await.unwrap();
    let error = opened.records.upsert(&table(), "a", number(2)).await.unwrap_err();
    assert!(is_loss(error.kind()), "{error:?}");
    // Others are not in its way.
    opened.records.upsert(&table(), "b", number(2)).await.unwrap();
    raw.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(opened.records.get(&table(), "a").await.unwrap().unwrap().fields, number(1));
    opened.records.upsert(&table(), "a", number(3)).await.unwrap();
}
