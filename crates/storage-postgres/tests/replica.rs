//! Reads that may be stale go to a replica: a real one, which is stopped, lags behind, is killed and comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::server::{Server, can_start};
use common::{apart, open_with, raw};
use serde_json::json;
use storage_conformance::records::stale;
use storage_conformance::server::{Mortal as _, until};
use storage_conformance::{DriverHarness, Place};
use storage_core::{
    Column, ColumnType, DriverConfig, ErrorKind, Expect, Filter, Query, RecordStore, SchemaChange, TableSchema, fields,
};
use storage_postgres::PostgresDriver;

/// The number of the record `a`, by key, by a filter that the database decides, and by one that is decided here.
async fn numbers(records: &RecordStore) -> Vec<i64> {
    let table = "t".parse().unwrap();
    let queries = [Filter::ge("n", 0).unwrap(), Filter::eq("kind", "x").unwrap()].map(|f| Query::table("t").unwrap().filter(f));
    let mut found = vec![records.get(&table, "a").await.unwrap()];
    for query in queries {
        let page = records.scan(&query).await.unwrap();
        assert_eq!(records.count(&query).await.unwrap(), page.records.len() as u64);
        found.extend(page.records.into_iter().map(Some));
    }
    found.into_iter().map(|record| record.unwrap().fields["n"].as_i64().unwrap()).collect()
}

/// Waits until the replica has all that the primary has, and stops it there.
async fn pause(primary: &tokio_postgres::Client, replica: &Server) {
    let replica = raw(&replica.url()).await;
    let all: String = primary.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let there = format!("SELECT pg_last_wal_replay_lsn() >= '{all}'::pg_lsn");
    until("it has all", async || replica.query_one(&there, &[]).await.unwrap().get::<_, Option<bool>>(0)?.then_some(())).await;
    replica.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    let paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
    until("it is paused", async || replica.query_one(paused, &[]).await.unwrap().get::<_, bool>(0).then_some(())).await;
}

async fn resume(replica: &Server) {
    raw(&replica.url()).await.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_stale_is_asked_of_the_replica() {
    if !can_start() {
        return;
    }
    let primary = Server::start_new(&[]);
    let mut replica = primary.follower();
    let place = format!("{}?read_url={}", primary.url(), replica.url());
    let config = DriverConfig { timeout: Some(Duration::from_secs(6)), ..DriverConfig::from_url(&place) };
    let opened = open_with(&config).await.unwrap();
    let (records, stale) = (&opened.records, opened.records.stale());
    let table = TableSchema::builder("t").column("n", ColumnType::Integer).keep_undeclared().build().unwrap();
    records.create_table(&table).await.unwrap();
    let set = async |n: i64| records.upsert(&table.name, "a", fields(json!({"n": n, "kind": "x"}))).await.unwrap();
    let raw = raw(&primary.url()).await;

    let first = set(1).await;
    pause(&raw, &replica).await;
    set(2).await;
    assert_eq!((numbers(&stale).await, numbers(records).await), (vec![1; 3], vec![2; 3]));
    // What writes goes by what is there.
    let error = stale.update(&table.name, "a", fields(json!({"n": 9})), Expect::Version(first)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let read = stale.transaction(async |tx| Ok((tx.get(&table.name, "a").await?, tx.find(&Query::table("t")?.stale()).await?)));
    let (by_key, found) = read.await.unwrap();
    assert!(by_key.as_ref().unwrap().fields["n"] == 2 && found[0].fields["n"] == 2, "{by_key:?} {found:?}");

    // It knows nothing of a table that has changed: the primary is asked.
    let column = Column {
        name: "more".parse().unwrap(),
        kind: ColumnType::Text,
        required: false,
        unique: false,
        default: Some(json!("d")),
    };
    records.alter_table(&table.name, &SchemaChange::AddColumn(column)).await.unwrap();
    assert_eq!(stale.get(&table.name, "a").await.unwrap().unwrap().fields, fields(json!({"n": 2, "kind": "x", "more": "d"})));
    assert_eq!(numbers(&stale).await, [2; 3]);
    let new = TableSchema::builder("new").build().unwrap();
    records.create_table(&new).await.unwrap();
    assert_eq!(stale.count(&Query::table("new").unwrap()).await.unwrap(), 0);
    // Until it has the change too.
    resume(&replica).await;
    pause(&raw, &replica).await;
    set(3).await;
    assert_eq!((numbers(&stale).await, numbers(records).await), (vec![2; 3], vec![3; 3]));

    // One that is gone is done without, and asked again when it is back.
    tokio::task::block_in_place(|| replica.kill());
    for _ in 0..3 {
        assert_eq!(numbers(&stale).await, [3; 3]);
    }
    tokio::task::block_in_place(|| replica.start());
    pause(&raw, &replica).await;
    set(4).await;
    until("it is asked again", async || (numbers(&stale).await == [3; 3]).then_some(())).await;
    assert_eq!(numbers(records).await, [4; 3]);

    // So is one that takes connections and never answers, in time.
    drop(replica);
    opened.close().await.close().await.unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("{}?read_url=postgres://{}&connect_timeout=60", primary.url(), silent.local_addr().unwrap());
    let opened =
        open_with(&DriverConfig { timeout: Some(Duration::from_secs(2)), ..DriverConfig::from_url(&place) }).await.unwrap();
    assert_eq!(numbers(&opened.records.stale()).await, [4; 3]);
    opened.close().await.close().await.unwrap();
}

/// The suite's own cases, on a store with a replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cases_hold_on_a_replica() {
    if !can_start() {
        return;
    }
    let primary = Server::start_new(&[]);
    let replica = primary.follower();
    let (primary, read) = (primary.url(), format!("&read_url={}", replica.url()));
    let harness = DriverHarness::new(PostgresDriver, move || Ok(Place::url(&(apart(&primary) + &read)))).lagging();
    stale::a_stale_read_answers_a_state_that_there_was(&harness).await.unwrap();
    stale::what_writes_is_never_stale(&harness).await.unwrap();
}
