//! For tests of backends with a replica: what may be stale is asked of it, and only then.

use serde_json::json;
use storage_core::{Column, ColumnType, ErrorKind, Expect, Filter, Query, RecordStore, SchemaChange, TableSchema, fields};

use crate::Harness;
use crate::load::{Opened, table};
use crate::records::stale;
use crate::server::{Mortal, until};

/// A server that follows another, and may be held up.
pub trait Follower: Mortal {
    /// Waits until it has all that the primary has, and stops it there.
    fn pause(&self) -> impl Future<Output = ()>;

    /// Lets it go on.
    fn resume(&self) -> impl Future<Output = ()>;
}

/// The number of the record `a`, by key, by a filter that a database decides, and by one that it leaves to the backend.
pub async fn numbers(records: &RecordStore) -> Vec<i64> {
    let queries = [Filter::ge("n", 0).unwrap(), Filter::eq("kind", "x").unwrap()].map(|f| Query::table("t").unwrap().filter(f));
    let mut found = vec![records.get(&table(), "a").await.unwrap()];
    for query in queries {
        let page = records.scan(&query).await.unwrap();
        assert_eq!(records.count(&query).await.unwrap(), page.records.len() as u64);
        found.extend(page.records.into_iter().map(Some));
    }
    found.into_iter().map(|record| record.unwrap().fields["n"].as_i64().unwrap()).collect()
}

/// A replica that lags, that has not heard of a change of tables, that is gone, and that is back. The store is empty. Leaves the record `a` with the number 4.
pub async fn what_may_be_stale_is_asked_of_the_replica<S>(opened: &Opened<S>, replica: &mut impl Follower) {
    let (records, stale) = (&opened.records, opened.records.stale());
    let schema = TableSchema::builder("t").column("n", ColumnType::Integer).keep_undeclared().build().unwrap();
    records.create_table(&schema).await.unwrap();
    let set = async |n: i64| records.upsert(&table(), "a", fields(json!({"n": n, "kind": "x"}))).await.unwrap();

    let again = TableSchema::builder("again").build().unwrap();
    records.create_table(&again).await.unwrap();
    records.insert(&again.name, "old", fields(json!({}))).await.unwrap();

    let first = set(1).await;
    replica.pause().await;
    set(2).await;
    assert_eq!((numbers(&stale).await, numbers(records).await), (vec![1; 3], vec![2; 3]));
    // What writes goes by what is there.
    let error = stale.update(&table(), "a", fields(json!({"n": 9})), Expect::Version(first)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let read = stale.transaction(async |tx| Ok((tx.get(&table(), "a").await?, tx.find(&Query::table("t")?.stale()).await?)));
    let (by_key, found) = read.await.unwrap();
    assert!(by_key.as_ref().unwrap().fields["n"] == 2 && found[0].fields["n"] == 2, "{by_key:?} {found:?}");

    tables_that_it_does_not_know(records, &stale, &again).await;
    // Until it has heard of them.
    replica.resume().await;
    replica.pause().await;
    set(3).await;
    assert_eq!((numbers(&stale).await, numbers(records).await), (vec![2; 3], vec![3; 3]));

    // One that is gone is done without, and asked again when it is back.
    tokio::task::block_in_place(|| replica.kill());
    for _ in 0..3 {
        assert_eq!(numbers(&stale).await, [3; 3]);
    }
    tokio::task::block_in_place(|| replica.start());
    replica.pause().await;
    set(4).await;
    until("it is asked again", async || (numbers(&stale).await == [3; 3]).then_some(())).await;
    assert_eq!(numbers(records).await, [4; 3]);
}

/// The primary is asked about tables that are no longer, or not yet, as the replica has them.
async fn tables_that_it_does_not_know(records: &RecordStore, stale: &RecordStore, again: &TableSchema) {
    let more = Column {
        name: "more".parse().unwrap(),
        kind: ColumnType::Text,
        required: false,
        unique: false,
        default: Some(json!("d")),
    };
    records.alter_table(&table(), &SchemaChange::AddColumn(more)).await.unwrap();
    let whole = fields(json!({"n": 2, "kind": "x", "more": "d"}));
    assert_eq!(stale.get(&table(), "a").await.unwrap().unwrap().fields, whole);
    assert_eq!(numbers(stale).await, [2; 3]);
    records.create_table(&TableSchema::builder("new").build().unwrap()).await.unwrap();
    assert_eq!(stale.count(&Query::table("new").unwrap()).await.unwrap(), 0);
    // Alike, and yet another.
    assert!(records.drop_table(&again.name).await.unwrap() && records.create_table(again).await.unwrap());
    assert_eq!(stale.count(&Query::table("again").unwrap()).await.unwrap(), 0);
    assert_eq!(stale.get(&again.name, "old").await.unwrap(), None);
}

/// The suite's own cases, on a store with a replica.
pub async fn the_cases_hold(harness: &dyn Harness) {
    stale::a_stale_read_answers_a_state_that_there_was(harness).await.unwrap();
    stale::what_writes_is_never_stale(harness).await.unwrap();
}
