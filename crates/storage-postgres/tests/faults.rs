//! Servers that end, callers that go away, many who write the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use common::server::{Server, can_start};
use common::{apart, open, open_with, raw, shared_or_skip};
use storage_conformance::load::{self, is_loss, number, table};
use storage_conformance::server::until;
use storage_core::DriverConfig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_was_acknowledged() {
    if !can_start() {
        return;
    }
    let mut server = Server::start_new(&[]);
    let opened = open(&server.url()).await.unwrap();
    load::a_killed_server_loses_nothing_that_was_acknowledged(&opened, &mut server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_connections_are_replaced() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let opened = open(&format!("{url}&application_name=ended")).await.unwrap();
    let raw = raw(&url).await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'ended'";
    let end = async |_| usize::try_from(raw.query_one(end, &[]).await.unwrap().get::<_, i64>(0)).unwrap();
    load::ended_connections_are_replaced(&opened, end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_leave_no_transaction_and_no_connection() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let config = DriverConfig { pool_size: Some(5), ..DriverConfig::from_url(&format!("{url}&application_name=gone")) };
    let opened = open_with(&config).await.unwrap();
    let pairs = opened.pairs().await;
    pairs.callers_that_go_away().await;
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
    pairs.nothing_is_half().await;
    drop(pairs);
    opened.close().await.close().await.unwrap();
    until("closing closes all", async || (raw.query_one(all, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_move_money_and_the_sum_holds_at_every_read() {
    let Some(address) = shared_or_skip() else { return };
    let opened = open(&apart(&address)).await.unwrap();
    opened.pairs().await;
    load::money_moves_and_the_sum_holds(&opened.records).await;
}

/// Two who each insert unless the other has: by records that are not there, which no lock on a row can hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_skew_through_absent_records_is_caught() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    // Two stores, as two processes have them: they share no writer.
    let (one, two) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    one.pairs().await;
    load::write_skew_through_absent_records_is_caught(&one.records, &two.records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_unavailable_and_comes_back() {
    if !can_start() {
        return;
    }
    let mut server = Server::start_new(&[]);
    let config = DriverConfig { timeout: Some(Duration::from_secs(2)), ..DriverConfig::from_url(&server.url()) };
    let opened = open_with(&config).await.unwrap();
    load::a_server_that_is_away_is_unavailable_and_comes_back(&opened, &mut server).await;
}

/// What others hold is waited for no longer than the timeout, and nothing is left of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_somebody_holds_is_given_up() {
    let Some(address) = shared_or_skip() else { return };
    let url = apart(&address);
    let config = DriverConfig { timeout: Some(Duration::from_secs(1)), ..DriverConfig::from_url(&url) };
    let opened = open_with(&config).await.unwrap();
    opened.pairs().await;
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
