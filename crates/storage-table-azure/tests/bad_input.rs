//! What other programs and operators may have done to the tables: told for what it is, and in nobody else's way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::peer::Peer;
use serde_json::json;
use storage_core::{
    Batch, ColumnType, ErrorKind, Expect, Filter, KeyType, Query, RecordStore, TableName, TableSchema, Version, fields,
};

fn schema() -> TableSchema {
    let schema = TableSchema::builder("things").partition("p", KeyType::Text).column("name", ColumnType::Text).required();
    let schema = schema.column("n", ColumnType::Integer).column("at", ColumnType::Timestamp).column("j", ColumnType::Json);
    schema.column("long", ColumnType::Text).build().unwrap()
}

async fn opened() -> Option<(RecordStore, TableName, Peer)> {
    let address = common::address_or_skip()?;
    let prefix = common::prefix();
    let peer = Peer::or_skip(&address, &format!("{prefix}things"))?;
    let store = common::open(&common::url(&address, &prefix));
    store.create_table(&schema()).await.unwrap();
    Some((store, "things".parse().unwrap(), peer))
}

fn record() -> storage_core::Fields {
    let long = "x".repeat(100_000);
    fields(json!({"name": "a", "n": 1, "at": "2026-01-01T00:00:00Z", "j": [1], "long": long}))
}

/// A record that was spoilt is `Corrupt`, by the name of what is wrong; it can be overwritten once the spoilt entity is gone, and others are read as before.
#[tokio::test(flavor = "multi_thread")]
async fn spoilt_entities_are_told() {
    let Some((store, table, peer)) = opened().await else { return };
    let keys = ["p", "q"].map(|p| (p, "a"));
    for key in keys {
        store.insert(&table, key, record()).await.unwrap();
    }
    let merge = |property: &str, value: serde_json::Value| json!({"do": "merge", "entity": {"PartitionKey": "p", "RowKey": "a", property: value}});
    let drop = |property: &str| json!({"do": "drop_property", "partition": "p", "row": "a", "property": property});
    for (spoil, says) in [
        (drop("name"), "`name`"),
        (merge("n", json!("one")), "`n`"),
        (merge("n", json!({"Edm.Double": 1.0})), "`n`"),
        (merge("at", json!("2026-01-01")), "`at`"),
        (merge("j", json!("{")), "`j`"),
        (merge("long", json!("short")), "`long`"),
        (drop("long_x0000_3"), "`long`"),
        (merge("_version", json!("x")), "`_version`"),
        (merge("_expires", json!("never")), "`_expires`"),
        (merge("_split", json!("x")), "`_split`"),
    ] {
        peer.one(spoil);
        let all = Query::table("things").unwrap();
        for error in [
            store.get(&table, ("p", "a")).await.unwrap_err(),
            store.scan(&all).await.unwrap_err(),
            store.update(&table, ("p", "a"), fields(json!({"n": 2})), Expect::Present).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{says}: {error:?}");
            assert!(error.message().contains(says) && error.message().contains("\"p\""), "{error}");
        }
        let others = store.scan(&all.filter(Filter::eq("p", "q").unwrap())).await.unwrap();
        assert_eq!(others.records.len(), 1);
        // Put right by whoever spoilt it.
        peer.one(json!({"do": "replace", "entity": {"PartitionKey": "p", "RowKey": "a", "name": "again"}}));
        store.upsert(&table, ("p", "a"), record()).await.unwrap();
        assert_eq!(store.get(&table, ("p", "a")).await.unwrap().unwrap().fields["n"], json!(1));
    }
}

/// A property that is dropped and not required is null, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_property_is_null() {
    let Some((store, table, peer)) = opened().await else { return };
    store.insert(&table, ("p", "a"), record()).await.unwrap();
    peer.one(json!({"do": "drop_property", "partition": "p", "row": "a", "property": "n"}));
    assert!(!store.get(&table, ("p", "a")).await.unwrap().unwrap().fields.contains_key("n"));
    for filter in [Filter::is_null("n").unwrap(), Filter::ne("n", 1).unwrap(), !Filter::ge("n", 0).unwrap()] {
        assert_eq!(store.count(&Query::table("things").unwrap().filter(filter)).await.unwrap(), 1);
    }
}

/// Entities whose keys no record has, and properties that no field has.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_keys_and_properties() {
    let Some((store, table, peer)) = opened().await else { return };
    peer.one(json!({"do": "create", "entity": {"PartitionKey": "p", "RowKey": "a", "name": "x", "unknown": 1, "_mine": 2}}));
    assert_eq!(store.get(&table, ("p", "a")).await.unwrap().unwrap().fields, fields(json!({"name": "x"})));
    peer.one(json!({"do": "create", "entity": {"PartitionKey": "p", "RowKey": ".~41", "name": "x"}}));
    let error = store.scan(&Query::table("things").unwrap()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.message().contains(".~41"), "{error:?}");
}

/// A table that somebody else made is left alone; an empty one is taken for what is left of a creation that got no further.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_somebody_else_made_or_removed() {
    let Some((store, table, peer)) = opened().await else { return };
    let there = peer.one(json!({"do": "query", "filter": "PartitionKey eq 'nobody'"}));
    assert_eq!(there, json!([]));
    store.insert(&table, ("p", "a"), record()).await.unwrap();
    peer.one(json!({"do": "delete_table"}));
    for error in [
        store.get(&table, ("p", "a")).await.unwrap_err(),
        store.upsert(&table, ("p", "a"), record()).await.unwrap_err(),
        store.insert(&table, ("p", "a"), record()).await.unwrap_err(),
        store.count(&Query::table("things").unwrap()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    }
    // It is in the catalogue: to create it again is to make it whole.
    assert!(!store.create_table(&schema()).await.unwrap());
    store.insert(&table, ("p", "a"), record()).await.unwrap();
    assert!(store.drop_table(&table).await.unwrap());
    peer.one(json!({"do": "create_table"}));
    assert!(store.tables().await.unwrap().is_empty());
    assert_eq!(store.get(&table, ("p", "a")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(store.create_table(&schema()).await.unwrap(), "an empty one may be ours");
    assert!(store.drop_table(&table).await.unwrap());
    peer.ask(&[json!({"do": "create_table"}), json!({"do": "create", "entity": {"PartitionKey": "p", "RowKey": "a"}})]);
    let error = store.create_table(&schema()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::AlreadyExists && error.message().contains("prefix"), "{error:?}");
    assert!(!store.drop_table(&table).await.unwrap());
    assert_eq!(peer.one(json!({"do": "query", "filter": "PartitionKey eq 'p'"})).as_array().unwrap().len(), 1);
}

/// Keys, values and batches that the service does not take are refused here, with what it takes.
#[tokio::test]
async fn what_the_service_does_not_take_is_refused() {
    let Some(address) = common::address_or_skip() else { return };
    let store = common::open(&common::url(&address, &common::prefix()));
    store
        .create_table(&TableSchema::builder("t").partition("p", KeyType::Text).keep_undeclared().build().unwrap())
        .await
        .unwrap();
    let table: TableName = "t".parse().unwrap();
    for key in [("p".to_owned(), "/".repeat(200)), ("%".repeat(400), "a".to_owned())] {
        let error = store.upsert(&table, key.clone(), fields(json!({}))).await.unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidInput && error.message().contains("512"), "{error:?}");
        assert_eq!(store.get(&table, key).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let large = |n: usize| storage_core::Write::Put {
        table: table.clone(),
        key: ("p", n.to_string()).into(),
        fields: fields(json!({"c": "x".repeat(400 << 10)})),
        expect: Expect::Absent,
        expires_at: None,
    };
    let error = store.commit((0..12).map(large).collect()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.message().contains("fewer records"), "{error:?}");
    assert_eq!(store.count(&Query::table("t").unwrap()).await.unwrap(), 0);
    store.commit((0..9).map(large).collect()).await.unwrap();
    // Large ones come few at a time.
    assert_eq!(store.scan(&Query::table("t").unwrap().limit(9)).await.unwrap().records.len(), 9);
    let unique = TableSchema::builder("u").column("n", ColumnType::Integer).unique().build().unwrap();
    assert_eq!(store.create_table(&unique).await.unwrap_err().kind(), ErrorKind::Unsupported);
}

/// What a batch writes to hold a place empty goes with it; left behind by a crash, it is nobody's record.
#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_place_empty_is_no_record() {
    let Some((store, table, peer)) = opened().await else { return };
    let entities = || peer.one(json!({"do": "query", "filter": "PartitionKey eq 'p'"})).as_array().unwrap().len();
    let batch = |at: &str| {
        Batch::new().put(&table, ("p", at), fields(json!({"name": "a"})), Expect::Absent).check(
            &table,
            ("p", "none"),
            Expect::Absent,
        )
    };
    store.commit(batch("a")).await.unwrap();
    assert_eq!(entities(), 1);
    let left = |row: &str| json!({"do": "create", "entity": {"PartitionKey": "p", "RowKey": row, "_version": {"Edm.Int64": 0}, "_expires": {"Edm.DateTime": "1970-01-01T00:00:00+00:00"}}});
    peer.ask(&[left("none"), left("more")]);
    assert_eq!(store.get(&table, ("p", "none")).await.unwrap(), None);
    assert_eq!(store.count(&Query::table("things").unwrap()).await.unwrap(), 1);
    assert_eq!(store.scan(&Query::table("things").unwrap()).await.unwrap().records.len(), 1);
    store.commit(batch("b")).await.unwrap();
    assert_eq!(store.insert(&table, ("p", "none"), record()).await.unwrap(), Version::FIRST);
    assert_eq!(store.sweep(&Query::table("things").unwrap()).await.unwrap(), 1);
    assert_eq!(entities(), 3);
}
