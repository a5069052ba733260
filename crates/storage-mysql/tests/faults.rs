//! Servers that end, callers that go away, many who write the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use common::server::{Server, can_start};
use common::{Raw, apart, open, open_with};
use serde_json::json;
use storage_conformance::load::{self, is_loss, number, table};
use storage_conformance::server::until;
use storage_core::{Batch, ColumnType, DriverConfig, ErrorKind, Expect, SchemaChange, TableSchema, fields};

common::on_both! {
    ended_connections_are_replaced,
    callers_that_go_away_leave_no_transaction_and_no_connection,
    sixteen_writers_move_money_and_the_sum_holds_at_every_read,
    write_skew_through_absent_records_is_caught,
    a_record_that_somebody_holds_is_given_up,
    what_was_left_half_done_is_finished,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_was_acknowledged() {
    if !can_start() {
        return;
    }
    let mut server = Server::start(&[]);
    let opened = open(&format!("{}/t", server.url())).await.unwrap();
    load::a_killed_server_loses_nothing_that_was_acknowledged(&opened, &mut server).await;
}

async fn ended_connections_are_replaced(address: String) {
    let url = apart(&address);
    let opened = open(&url).await.unwrap();
    let mut raw = Raw::new(&address).await;
    let end = async |round| {
        // By turns what a connection does, and the connection.
        let what = if round % 2 == 0 { "CONNECTION" } else { "QUERY" };
        let mut ended = 0;
        for connection in raw.connections(&url).await {
            ended += usize::from(raw.try_run(&format!("KILL {what} {connection}")).await);
        }
        ended
    };
    load::ended_connections_are_replaced(&opened, end).await;
}

async fn callers_that_go_away_leave_no_transaction_and_no_connection(address: String) {
    let url = apart(&address);
    let config = DriverConfig { pool_size: Some(5), ..DriverConfig::from_url(&url) };
    let opened = open_with(&config).await.unwrap();
    let pairs = opened.pairs().await;
    pairs.callers_that_go_away().await;
    let mut raw = Raw::new(&address).await;
    until("nothing runs and no transaction is open", async || (raw.busy(&url).await == 0).then_some(())).await;
    until("no connection is left over", async || (raw.connections(&url).await.len() <= 5).then_some(())).await;
    assert!(opened.store.connections() <= 5);
    // All connections can still be had, at once.
    futures::future::try_join_all((0..20).map(|_| opened.records.ping())).await.unwrap();
    pairs.nothing_is_half().await;
    drop(pairs);
    opened.close().await.close().await.unwrap();
    until("closing closes all", async || raw.connections(&url).await.is_empty().then_some(())).await;
}

async fn sixteen_writers_move_money_and_the_sum_holds_at_every_read(address: String) {
    let opened = open(&apart(&address)).await.unwrap();
    opened.pairs().await;
    load::money_moves_and_the_sum_holds(&opened.records).await;
}

/// Two who each insert unless the other has: by records that are not there, which no lock on a row can hold.
async fn write_skew_through_absent_records_is_caught(address: String) {
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
    let mut server = Server::start(&[]);
    let config = DriverConfig { timeout: Some(Duration::from_secs(2)), ..DriverConfig::from_url(&format!("{}/t", server.url())) };
    let opened = open_with(&config).await.unwrap();
    load::a_server_that_is_away_is_unavailable_and_comes_back(&opened, &mut server).await;
}

/// What others hold is waited for no longer than the timeout, and nothing is left of it.
async fn a_record_that_somebody_holds_is_given_up(address: String) {
    let url = apart(&address);
    let config = DriverConfig { timeout: Some(Duration::from_secs(1)), ..DriverConfig::from_url(&url) };
    let opened = open_with(&config).await.unwrap();
    opened.pairs().await;
    opened.records.upsert(&table(), "a", number(1)).await.unwrap();
    let mut raw = Raw::new(&url).await;
    // Without locks on what is between the records.
    raw.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await;
    raw.run("START TRANSACTION").await;
    raw.run("SELECT * FROM t FOR UPDATE").await;
    let error = opened.records.upsert(&table(), "a", number(2)).await.unwrap_err();
    assert!(error.is_retryable() && (is_loss(error.kind()) || error.kind() == ErrorKind::Conflict), "{error:?}");
    // Others are not in its way.
    opened.records.upsert(&table(), "b", number(2)).await.unwrap();
    raw.run("ROLLBACK").await;
    assert_eq!(opened.records.get(&table(), "a").await.unwrap().unwrap().fields, number(1));
    opened.records.upsert(&table(), "a", number(3)).await.unwrap();
}

/// A change of a table that somebody began and did not end, with a process that is gone: whoever comes across it finishes it.
async fn what_was_left_half_done_is_finished(address: String) {
    let url = apart(&address);
    let opened = open(&url).await.unwrap();
    let kept = TableSchema::builder("t").column("n", ColumnType::Integer).keep_undeclared().build().unwrap();
    opened.records.create_table(&kept).await.unwrap();
    opened.records.insert(&table(), "a", fields(json!({"n": 1, "note": "x", "more": true}))).await.unwrap();
    let mut raw = Raw::new(&url).await;
    let change = json!({"alter": {"add_column": {"name": "note", "type": "text", "required": false, "unique": true}}});
    let changed = "UPDATE _storage_meta SET value = value + 1 WHERE name = 'generation'";
    // Noted, and nothing more; then up to the new column; then up to the new schema.
    for (round, step) in ["SELECT 1", "ALTER TABLE t ADD COLUMN note varchar(768)"].into_iter().enumerate() {
        raw.run(step).await;
        raw.run(&format!("UPDATE _storage_tables SET doing = '{change}' WHERE name = 't'")).await;
        raw.run(changed).await;
        let record = opened.records.get(&table(), "a").await.unwrap().unwrap();
        assert_eq!(record.fields, fields(json!({"n": 1, "note": "x", "more": true})), "round {round}");
        assert_eq!(raw.text("SELECT note FROM t").await.as_deref(), Some("x"));
        assert_eq!(raw.text("SELECT _extra FROM t").await.as_deref(), Some(r#"{"more":true}"#));
        let column = opened.records.tables().await.unwrap()[0].columns.iter().any(|column| column.name.as_str() == "note");
        assert!(column && raw.number("SELECT COUNT(*) FROM _storage_tables WHERE doing IS NOT NULL").await == 0);
        opened.records.alter_table(&table(), &SchemaChange::DropColumn("note".parse().unwrap())).await.unwrap();
        opened.records.upsert(&table(), "a", fields(json!({"n": 1, "note": "x", "more": true}))).await.unwrap();
    }
    // What can't be done is undone: two have the same.
    opened.records.insert(&table(), "b", fields(json!({"note": "x"}))).await.unwrap();
    raw.run(&format!("UPDATE _storage_tables SET doing = '{change}' WHERE name = 't'")).await;
    raw.run(changed).await;
    let batch = Batch::new().put(&table(), "c", number(3), Expect::Absent);
    opened.records.commit(batch).await.unwrap();
    assert_eq!(
        raw.number("SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() AND column_name = 'note'")
            .await,
        0
    );
    assert_eq!(opened.records.get(&table(), "b").await.unwrap().unwrap().fields, fields(json!({"note": "x"})));
    // A table that was being made, and one that was being removed.
    raw.run("CREATE TABLE u (x int) COMMENT='storage toolkit: records; its schema is in _storage_tables'").await;
    raw.run("INSERT INTO _storage_tables (name, table_schema, doing) VALUES ('u', '{}', '\"create\"')").await;
    raw.run("UPDATE _storage_tables SET doing = '\"drop\"' WHERE name = 't'").await;
    raw.run(changed).await;
    assert_eq!(opened.records.get(&table(), "a").await.unwrap_err().kind(), ErrorKind::NotFound);
    for name in ["u", "t"] {
        assert!(opened.records.create_table(&TableSchema::builder(name).build().unwrap()).await.unwrap());
    }
    assert!(opened.records.get(&table(), "a").await.unwrap().is_none());
}
