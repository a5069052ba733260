//! Reads that may be stale go to a replica: a real one, which is stopped, lags behind, is killed and comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::server::{Server, can_start};
use common::{Raw, apart, open_with};
use storage_conformance::replica::{self, Follower};
use storage_conformance::server::Mortal;
use storage_conformance::{DriverHarness, Place};
use storage_core::DriverConfig;
use storage_mysql::MysqlDriver;

struct Pair {
    primary: Server,
    replica: Server,
}

impl Pair {
    /// The replica follows the primary from its beginning.
    async fn start() -> Self {
        let primary = Server::start(&["--server-id=1", "--log-bin=bin"]);
        let replica = Server::start(&["--server-id=2", "--read-only"]);
        let mut raw = Raw::new(&replica.url()).await;
        let source = format!("MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='root'", primary.port());
        raw.run(&format!("CHANGE MASTER TO {source}, MASTER_USE_GTID=slave_pos")).await;
        raw.run("START SLAVE").await;
        Self { primary, replica }
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
        let all = Raw::new(&self.primary.url()).await.text("SELECT @@gtid_binlog_pos").await.unwrap();
        let mut replica = Raw::new(&self.replica.url()).await;
        assert_eq!(replica.number(&format!("SELECT MASTER_GTID_WAIT('{all}', 30)")).await, 0, "it has all");
        replica.run("STOP SLAVE SQL_THREAD").await;
    }

    async fn resume(&self) {
        Raw::new(&self.replica.url()).await.run("START SLAVE SQL_THREAD").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_stale_is_asked_of_the_replica() {
    if !can_start() {
        return;
    }
    let mut pair = Pair::start().await;
    let place = format!("{}/t?read_url={}", pair.primary.url(), pair.replica.url());
    let config = DriverConfig { timeout: Some(Duration::from_secs(6)), ..DriverConfig::from_url(&place) };
    let opened = open_with(&config).await.unwrap();
    replica::what_may_be_stale_is_asked_of_the_replica(&opened, &mut pair).await;
    opened.close().await.close().await.unwrap();

    // One that takes connections and never answers is given up in time.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("{}/t?read_url=mysql://{}&connect_timeout=60", pair.primary.url(), silent.local_addr().unwrap());
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
    let (primary, read) = (pair.primary.url(), format!("?read_url={}", pair.replica.url()));
    let harness = DriverHarness::new(MysqlDriver, move || Ok(Place::url(&(apart(&primary) + &read)))).lagging();
    replica::the_cases_hold(&harness).await;
}
