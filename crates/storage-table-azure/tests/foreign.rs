//! Python's azure-data-tables reads what we write, and the other way round.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::peer::Peer;
use serde_json::json;
use storage_core::{
    ColumnType, ErrorKind, Expect, Filter, KeyType, Query, QueueStore, RecordStore, TableName, TableSchema, Version, fields,
};
use storage_memory::MemoryStore;
use storage_tasks::{NewTask, TaskId, TaskOptions, TaskStatus, TaskStore};

/// Tasks in the tables, their messages in memory.
async fn tasks(records: &RecordStore) -> TaskStore {
    let queue = QueueStore::new(MemoryStore::new().backends().queue.unwrap());
    TaskStore::open(records, &queue, TaskOptions::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_reads_our_tasks() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let Some(peer) = Peer::or_skip(&address, &format!("{prefix}tasks")) else { return };
    let store = tasks(&common::open(&common::url(&address, &prefix))).await;
    let mut new = NewTask::new("resize", json!({"width": 80}));
    new.options.resource_id = Some("photos/2026".into());
    new.options.task_id = Some("cat-1".into());
    store.create_if_not_exists(new).await.unwrap();
    let found = peer.one(json!({"do": "get", "partition": "photos.~2f2026", "row": "cat-1"}));
    assert_eq!((&found["PartitionKey"], &found["RowKey"]), (&json!("photos.~2f2026"), &json!("cat-1")));
    assert_eq!((&found["kind"], &found["status"]), (&json!("resize"), &json!("pending")));
    assert_eq!(found["input"], json!(r#"{"width":80}"#));
    assert_eq!(found["attempts"], json!({"Edm.Int64": 0}));
    assert_eq!(found["cancel_requested"], json!(false));
    assert!(found["created_at"]["Edm.DateTime"].is_string(), "{found}");
    let pending = peer.one(json!({"do": "query", "filter": "status eq 'pending' and attempts eq 0L"}));
    assert_eq!(pending.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_a_peers_tasks() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let Some(peer) = Peer::or_skip(&address, &format!("{prefix}tasks")) else { return };
    let store = tasks(&common::open(&common::url(&address, &prefix))).await;
    let time = json!({"Edm.DateTime": "2026-11-27T12:00:00.123456+00:00"});
    peer.one(json!({"do": "create", "entity": {
        "PartitionKey": "photos", "RowKey": "dog-1", "kind": "resize", "status": "pending", "input": "{\"width\": 80}",
        "attempts": 0, "max_attempts": {"Edm.Int64": 3}, "priority": 0, "queue": "tasks", "cancel_requested": false,
        "created_at": time, "updated_at": time, "uid": "0190f3c2-7d1e-7000-8000-000000000001", "generation": 0, "sequence": 0,
    }}));
    let id = || TaskId::new("photos", "dog-1");
    let mut task = store.get_task(id()).await.unwrap().expect("the task is there");
    assert_eq!((task.status, task.max_attempts, task.version), (TaskStatus::Pending, 3, Version::FIRST));
    assert_eq!(task.input, json!({"width": 80}));
    assert_eq!(task.created_at.timestamp_subsec_micros(), 123_456);
    // Written here, it counts from there on; a field that they change comes back.
    task.error = Some("no such file".into());
    assert_eq!(store.upsert_task(&task).await.unwrap().version, Version(2));
    peer.one(json!({"do": "merge", "entity": {"PartitionKey": "photos", "RowKey": "dog-1", "error": "theirs"}}));
    let task = store.get_task(id()).await.unwrap().unwrap();
    assert_eq!((task.error.as_deref(), task.version), (Some("theirs"), Version(2)));
}

/// Values of every type, both ways, and filters on what they wrote: of integers, those that they wrote as `Edm.Int64`.
#[tokio::test(flavor = "multi_thread")]
async fn every_type_goes_both_ways() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let Some(peer) = Peer::or_skip(&address, &format!("{prefix}things")) else { return };
    let store = common::open(&common::url(&address, &prefix));
    let table: TableName = "things".parse().unwrap();
    let schema = TableSchema::builder("things").partition("p", KeyType::Text).key_of("n", KeyType::Integer);
    let schema = schema
        .column("text", ColumnType::Text)
        .column("whole", ColumnType::Integer)
        .column("real", ColumnType::Real)
        .column("yes", ColumnType::Boolean)
        .column("at", ColumnType::Timestamp)
        .column("bytes", ColumnType::Bytes)
        .column("with-dash", ColumnType::Integer)
        .keep_undeclared();
    store.create_table(&schema.build().unwrap()).await.unwrap();
    let long = "ü".repeat(40_000);
    let record = json!({
        "text": "a 'b' ü \u{1F600}", "whole": 5, "real": 2.0, "yes": true, "at": "2026-11-27T12:00:00.123456Z", "bytes": "AP8Q",
        "with-dash": 7, "more": i64::MAX, "long": long, "list": [1, {"a": null}],
    });
    store.insert(&table, ("a", 1), fields(record.clone())).await.unwrap();
    let found = peer.one(json!({"do": "get", "partition": "a", "row": "0000000000000000001"}));
    for (name, value) in [
        ("text", json!("a 'b' ü \u{1F600}")),
        ("whole", json!({"Edm.Int64": 5})),
        ("real", json!({"Edm.Double": 2.0})),
        ("yes", json!(true)),
        ("bytes", json!({"Edm.Binary": "AP8Q"})),
        ("with_x002D_dash", json!({"Edm.Int64": 7})),
        ("more", json!({"Edm.Int64": i64::MAX})),
        ("_version", json!({"Edm.Int64": 1})),
        ("_rest", json!(r#"{"list":[1,{"a":null}]}"#)),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
    assert!(found["at"]["Edm.DateTime"].as_str().unwrap().starts_with("2026-11-27T12:00:00.123456"), "{}", found["at"]);
    let parts = [found["long"].as_str().unwrap(), found["long_x0000_2"].as_str().unwrap()].concat();
    assert!(parts == long, "parts make the whole");
    assert_eq!(serde_json::Value::Object(store.get(&table, ("a", 1)).await.unwrap().unwrap().fields), record);

    let theirs = json!({
        "text": "b", "whole": {"Edm.Int64": 6}, "real": {"Edm.Double": 2.5}, "yes": false, "at": {"Edm.DateTime": "2026-11-27T13:00:00+00:00"},
        "bytes": {"Edm.Binary": "AAE="}, "with_x002D_dash": {"Edm.Int64": 8}, "more": 3,
    });
    let mut entity = theirs.as_object().unwrap().clone();
    entity.extend(fields(json!({"PartitionKey": "a", "RowKey": "0000000000000000002"})));
    peer.one(json!({"do": "create", "entity": entity}));
    let record = store.get(&table, ("a", 2)).await.unwrap().unwrap();
    let expected = json!({
        "text": "b", "whole": 6, "real": 2.5, "yes": false, "at": "2026-11-27T13:00:00.000000Z", "bytes": "AAE=", "with-dash": 8, "more": 3,
    });
    assert_eq!((record.version, json!(record.fields)), (Version::FIRST, expected));
    for filter in [
        Filter::eq("whole", 6).unwrap(),
        Filter::gt("whole", 5).unwrap(),
        Filter::gt("real", 2.25).unwrap(),
        Filter::gt("at", "2026-11-27T12:30:00Z").unwrap(),
        Filter::eq("with-dash", 8).unwrap(),
        Filter::eq("more", 3).unwrap(),
        Filter::ge("n", 2).unwrap(),
    ] {
        let page = store.scan(&Query::table("things").unwrap().filter(filter.clone())).await.unwrap();
        let keys: Vec<String> = page.records.iter().map(|record| record.key.to_string()).collect();
        assert_eq!(keys, ["a/2"], "{filter:?}");
    }
    // What they did not say stays unsaid when we write.
    let version = store.update(&table, ("a", 2), fields(json!({"text": "c"})), Expect::Version(Version::FIRST)).await.unwrap();
    let found = peer.one(json!({"do": "get", "partition": "a", "row": "0000000000000000002"}));
    assert_eq!((version, &found["text"], &found["whole"]), (Version(2), &json!("c"), &json!({"Edm.Int64": 6})));
}

/// An integer that they wrote as `Edm.Int32` into a declared column is read as any other; a filter on that column may be refused, but is never answered without it.
#[tokio::test(flavor = "multi_thread")]
async fn integers_of_32_bits_are_never_lost_silently() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let Some(peer) = Peer::or_skip(&address, &format!("{prefix}narrow")) else { return };
    let store = common::open(&common::url(&address, &prefix));
    let table: TableName = "narrow".parse().unwrap();
    let schema = TableSchema::builder("narrow").partition("p", KeyType::Text).column("whole", ColumnType::Integer);
    store.create_table(&schema.column("text", ColumnType::Text).keep_undeclared().build().unwrap()).await.unwrap();
    peer.one(json!({"do": "create", "entity": {"PartitionKey": "a", "RowKey": "1", "whole": 6, "text": "b", "more": 3}}));
    let whole = |filter: Filter| {
        let (store, query) = (store.clone(), Query::table(table.clone()).unwrap().filter(filter));
        async move {
            Ok::<_, storage_core::Error>(
                store.scan(&query).await?.records.iter().map(|it| it.fields["whole"].clone()).collect::<Vec<_>>(),
            )
        }
    };
    assert_eq!(store.get(&table, ("a", "1")).await.unwrap().unwrap().fields["whole"], 6);
    // By other columns it is found, by an undeclared one of the same type as well: that is compared here.
    for filter in [Filter::All, Filter::eq("text", "b").unwrap(), Filter::eq("more", 3).unwrap()] {
        assert_eq!(whole(filter.clone()).await.unwrap(), [6], "{filter:?}");
    }
    for filter in [Filter::eq("whole", 6).unwrap(), Filter::gt("whole", 5).unwrap(), Filter::is_in("whole", [5, 6]).unwrap()] {
        match whole(filter.clone()).await {
            Ok(found) => assert_eq!(found, [6], "{filter:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{filter:?}: {error:?}"),
        }
        // What the service need not look at is in nobody's way.
        let elsewhere = Filter::eq("p", "b").unwrap() & filter;
        assert_eq!(whole(elsewhere.clone()).await.unwrap(), Vec::<serde_json::Value>::new(), "{elsewhere:?}");
    }
    // Written here, it is an Int64.
    store.update(&table, ("a", "1"), fields(json!({"text": "c"})), Expect::Anything).await.unwrap();
    assert_eq!(peer.one(json!({"do": "get", "partition": "a", "row": "1"}))["whole"], json!({"Edm.Int64": 6}));
    assert_eq!(whole(Filter::eq("whole", 6).unwrap()).await.unwrap(), [6]);
}
