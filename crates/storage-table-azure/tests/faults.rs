//! What happens when the service or the network fails. Tests that break an emulator start one of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::server::Server;
use serde_json::json;
use storage_conformance::proxy::{Harm, Proxy};
use storage_core::{
    Batch, DriverConfig, ErrorKind, Expect, Key, KeyType, Query, RecordStore, TableName, TableSchema, Version, fields,
};
use storage_table_azure::AzureTables;

const PATIENCE: Duration = Duration::from_secs(120);

fn schema() -> TableSchema {
    TableSchema::builder("work").partition("p", KeyType::Text).keep_undeclared().build().unwrap()
}

fn table() -> TableName {
    "work".parse().unwrap()
}

async fn opened(url: &str) -> RecordStore {
    let store = common::open(url);
    store.create_table(&schema()).await.unwrap();
    store
}

/// Writes ten records of a partition at once, again and again until it is acknowledged. Answers how many calls failed.
async fn write(store: &RecordStore, partition: usize, acknowledged: &AtomicUsize) -> usize {
    let (started, mut failed) = (Instant::now(), 0);
    let put = |batch: Batch, n: usize| {
        batch.put(&table(), (format!("p{partition}"), n.to_string()), fields(json!({"n": n})), Expect::Anything)
    };
    while let Err(error) = store.commit((0..10).fold(Batch::new(), put)).await {
        assert!(error.is_retryable(), "{error:?}");
        assert!(started.elapsed() < PATIENCE, "the service is back, but: {error:?}");
        failed += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    acknowledged.fetch_add(1, Ordering::SeqCst);
    failed
}

/// The service is gone for 30 seconds in the middle of writes: calls fail at once and say why, all that was acknowledged is there, no batch by half, and
/// the same handle goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_gone_for_half_a_minute_loses_nothing() {
    const COUNT: usize = 300;
    let Some(mut server) = Server::start_or_skip("table", &[]) else { return };
    // An emulator that is told to end goes on until its last connection is closed.
    let proxy = Proxy::start(server.port()).await;
    let store = opened(&common::url(&format!("http://127.0.0.1:{}", proxy.port()), "")).await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..4)
        .map(|part| {
            let (store, acknowledged) = (store.clone(), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let mut failed = 0;
                for partition in (part..COUNT).step_by(4) {
                    failed += write(&store, partition, &acknowledged).await;
                }
                failed
            })
        })
        .collect();
    while acknowledged.load(Ordering::SeqCst) < COUNT / 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.vanish();
    let gone = Instant::now();
    let server = tokio::task::spawn_blocking(move || {
        server.stop();
        server
    });
    let mut server = server.await.unwrap();
    let asked = Instant::now();
    for error in [
        store.get(&table(), ("p0", "0")).await.map(drop).unwrap_err(),
        store.scan(&Query::table("work").unwrap()).await.map(drop).unwrap_err(),
        store.insert(&table(), ("new", "0"), fields(json!({}))).await.map(drop).unwrap_err(),
        store.ping().await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error:?}");
    }
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
    tokio::time::sleep(Duration::from_secs(30).saturating_sub(gone.elapsed())).await;
    let server = tokio::task::spawn_blocking(move || {
        server.start();
        server
    });
    let _server = server.await.unwrap();
    proxy.come_back();
    let mut failed = 0;
    for writer in writers {
        failed += writer.await.unwrap();
    }
    println!("{failed} calls failed while it was gone");
    assert!(failed >= 4);
    for partition in 0..COUNT {
        let keys: Vec<Key> = (0..10).map(|n| (format!("p{partition}"), n.to_string()).into()).collect();
        let found = store.get_many(&table(), &keys).await.unwrap();
        let versions: Vec<Version> = found.into_iter().map(|record| record.expect("it was acknowledged").version).collect();
        assert!(versions.windows(2).all(|pair| pair[0] == pair[1]), "half a batch in p{partition}: {versions:?}");
    }
    assert_eq!(store.count(&Query::table("work").unwrap()).await.unwrap(), 10 * COUNT as u64);
}

/// A connection that breaks anywhere in a batch, or in the answer to it: all of it is there or nothing, and the error says that it is not known.
#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_cut_are_whole_or_nothing() {
    let Some(address) = common::address_or_skip() else { return };
    let port = address.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let prefix = common::prefix();
    let proxy = Proxy::start(port).await;
    let through = opened(&common::url(&format!("http://127.0.0.1:{}", proxy.port()), &prefix)).await;
    let direct = common::open(&common::url(&address, &prefix));
    // What the table is like is known from here on.
    through.get(&table(), ("p", "a")).await.unwrap();
    let (mut written, mut lost) = (0, 0);
    let harms =
        (0..12).map(|n| Harm::CutRequest(500 * n)).chain((0..6).map(|n| Harm::CutAnswer(300 * n))).chain([Harm::LoseAnswer]);
    for (round, harm) in harms.enumerate() {
        let partition = format!("r{round}");
        let put = |batch: Batch, n: usize| {
            batch.put(&table(), (partition.as_str(), n.to_string()), fields(json!({"n": n})), Expect::Absent)
        };
        proxy.harm(harm);
        let outcome = through.commit((0..10).fold(Batch::new(), put)).await;
        let partition = storage_core::Filter::eq("p", partition.as_str()).unwrap();
        let count = direct.count(&Query::table("work").unwrap().filter(partition)).await.unwrap();
        match outcome {
            Ok(_) => assert_eq!(count, 10, "{harm:?}"),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{harm:?}: {error:?}");
                assert!(error.message().contains("may have been written"), "{error}");
                assert!(count == 0 || count == 10, "{harm:?}: half a batch, {count}");
                lost += usize::from(count == 10);
            }
        }
        written += usize::from(count == 10);
    }
    println!("{written} written, of which {lost} without an answer");
    assert!(written > 0 && lost > 0, "every way of breaking is met");
}

/// A service that does not answer holds nobody longer than the time that is set.
#[tokio::test]
async fn a_service_that_hangs_is_a_timeout() {
    let Some(server) = Server::start_or_skip("table", &["--inMemoryPersistence"]) else { return };
    let mut config = DriverConfig::from_url(&common::url(&server.address(), ""));
    config.timeout = Some(Duration::from_secs(2));
    let store = RecordStore::new(Arc::new(AzureTables::open(&config).unwrap()));
    store.create_table(&schema()).await.unwrap();
    assert!(server.signal("-STOP"));
    let started = Instant::now();
    for error in [
        store.insert(&table(), ("p", "a"), fields(json!({}))).await.map(drop).unwrap_err(),
        store.scan(&Query::table("work").unwrap()).await.map(drop).unwrap_err(),
        store.ping().await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Timeout, true), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());
    assert!(server.signal("-CONT"));
}
