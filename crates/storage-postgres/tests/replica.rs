//! Reads that may be stale go to a replica: a real one, which is stopped, lags behind, is killed and comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::server::{Server, can_start};
use common::{apart, open_with, raw};
use storage_conformance::replica::{self, Follower};
use storage_conformance::server::{Mortal, until};
use storage_conformance::{DriverHarness, Place};
use storage_core::DriverConfig;
use storage_postgres::PostgresDriver;

struct Pair {
    primary: Server,
    replica: Server,
}

impl Pair {
    async fn start() -> Self {
        tokio::task::block_in_place(|| {
            let primary = Server::start_new(&[]);
            let replica = primary.follower();
            Self { primary, replica }
        })
    }
}

impl Mortal for Pair {
    fn kill(&mut self) {
        self.replica.kill();
    }

    fn start(&mut self) {
        self.replica.start();
    }
}

impl Follower for Pair {
    async fn pause(&self) {
        let (primary, replica) = (raw(&self.primary.url()).await, raw(&self.replica.url()).await);
        let all: String = primary.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
        let there = format!("SELECT pg_last_wal_replay_lsn() >= '{all}'::pg_lsn");
        let has_all = async || replica.query_one(&there, &[]).await.unwrap().get::<_, Option<bool>>(0)?.then_some(());
        until("it has all", has_all).await;
        replica.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
        let paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
        until("it is paused", async || replica.query_one(paused, &[]).await.unwrap().get::<_, bool>(0).then_some(())).await;
    }

    async fn resume(&self) {
        raw(&self.replica.url()).await.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_stale_is_asked_of_the_replica() {
    if !can_start() {
        return;
    }
    let mut pair = Pair::start().await;
    let place = format!("{}?read_url={}", pair.primary.url(), pair.replica.url());
    let config = DriverConfig { timeout: Some(Duration::from_secs(6)), ..DriverConfig::from_url(&place) };
    let opened = open_with(&config).await.unwrap();
    replica::what_may_be_stale_is_asked_of_the_replica(&opened, &mut pair).await;
    opened.close().await.close().await.unwrap();

    // One that takes connections and never answers is given up in time.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("{}?read_url=postgres://{}&connect_timeout=60", pair.primary.url(), silent.local_addr().unwrap());
    let config = DriverConfig { timeout: Some(Duration::from_secs(2)), ..DriverConfig::from_url(&place) };
    let opened = open_with(&config).await.unwrap();
    assert_eq!(replica::numbers(&opened.records.stale()).await, [4; 3]);
    opened.close().await.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cases_hold() {
    if !can_start() {
        return;
    }
    let pair = Pair::start().await;
    let (primary, read) = (pair.primary.url(), format!("&read_url={}", pair.replica.url()));
    let harness = DriverHarness::new(PostgresDriver, move || Ok(Place::url(&(apart(&primary) + &read)))).lagging();
    replica::the_cases_hold(&harness).await;
}
