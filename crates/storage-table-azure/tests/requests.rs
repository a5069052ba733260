//! How many requests calls cost, counted on the way to the emulator, beside those of Python's azure-data-tables.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::peer::Peer;
use serde_json::json;
use storage_conformance::requests::RequestCounter;
use storage_core::{Batch, Expect, Filter, Key, KeyType, Query, RecordStore, TableName, TableSchema, Version, fields};

async fn opened(counter: &RequestCounter, prefix: &str) -> (RecordStore, TableName) {
    let store = common::open(&common::url(&counter.url(), prefix));
    store
        .create_table(&TableSchema::builder("work").partition("p", KeyType::Text).keep_undeclared().build().unwrap())
        .await
        .unwrap();
    counter.take();
    (store, "work".parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_cost_what_is_documented() {
    let Some(address) = common::address_or_skip() else { return };
    let counter = RequestCounter::start(&address).await;
    let (store, table) = opened(&counter, &common::prefix()).await;
    let put = |expect| {
        let table = table.clone();
        move |batch: Batch, n: usize| batch.put(&table, ("p", format!("{n:03}")), fields(json!({"n": n})), expect)
    };
    store.insert(&table, ("q", "a"), fields(json!({}))).await.unwrap();
    assert_eq!(counter.take(), 1, "an insert");
    store.upsert(&table, ("q", "a"), fields(json!({}))).await.unwrap();
    assert_eq!(counter.take(), 2, "an upsert reads first");
    store.update(&table, ("q", "a"), fields(json!({"n": 1})), Expect::Version(Version(2))).await.unwrap();
    assert_eq!(counter.take(), 2, "an update reads first");
    store.commit((0..100).fold(Batch::new(), put(Expect::Absent))).await.unwrap();
    assert_eq!(counter.take(), 1, "a batch of inserts");
    store.commit((100..150).fold(Batch::new(), put(Expect::Anything))).await.unwrap();
    assert_eq!(counter.take(), 1, "a batch of puts of new records");
    store.commit((0..10).fold(Batch::new(), put(Expect::Anything))).await.unwrap();
    assert_eq!(counter.take(), 12, "a batch of puts of old ones: in vain, then each is read");
    let keys: Vec<Key> = (0..12).map(|n| ("p", format!("{n:03}")).into()).collect();
    assert_eq!(store.get_many(&table, &keys).await.unwrap().into_iter().flatten().count(), 12);
    assert_eq!(counter.take(), 1, "twelve keys of a partition");
    let page = store.scan(&Query::table("work").unwrap().filter(Filter::eq("p", "p").unwrap()).limit(50)).await.unwrap();
    assert_eq!((page.records.len(), counter.take()), (50, 1), "a page");
    let next = Query::table("work").unwrap().filter(Filter::eq("p", "p").unwrap()).limit(50).after(page.next);
    assert_eq!((store.scan(&next).await.unwrap().records.len(), counter.take()), (50, 1), "the next page");
    assert_eq!((store.count(&Query::table("work").unwrap()).await.unwrap(), counter.take()), (151, 1), "a count");
}

/// 1,000 new records in ten partitions.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_requests_than_the_peer_makes() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let counter = RequestCounter::start(&address).await;
    let Some(peer) = Peer::or_skip(&counter.url(), &format!("{prefix}theirs")) else { return };
    let (store, table) = opened(&counter, &prefix).await;
    peer.one(json!({"do": "create_table"}));
    counter.take();
    peer.one(json!({"do": "insert_batches", "count": 1_000}));
    let theirs = counter.take();
    // What the table is like is known anew: it may have taken long to get here.
    store.get(&table, ("p", "a")).await.unwrap();
    counter.take();
    for start in (0..1_000).step_by(100) {
        let put = |batch: Batch, n: usize| {
            batch.put(&table, (format!("p{start}"), n.to_string()), fields(json!({"n": n})), Expect::Absent)
        };
        store.commit((start..start + 100).fold(Batch::new(), put)).await.unwrap();
    }
    let ours = counter.take();
    assert_eq!((ours, theirs), (10, 10), "one for each hundred, on both sides");
}
