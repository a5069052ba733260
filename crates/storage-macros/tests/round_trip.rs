//! Derived entities through a `Repository`, on the memory backend.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound as _, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage_core::{
    ColumnType, Entity, ErrorKind, Fields, Filter, History, Key, KeyType, RecordStore, Repository, Undeclared, Version, fields,
};
use storage_memory::MemoryStore;
use uuid::Uuid;

fn store() -> RecordStore {
    RecordStore::new(std::sync::Arc::new(MemoryStore::new().records()))
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ready,
    InUse,
}

/// One field of every kind.
#[derive(Clone, Debug, PartialEq, Entity)]
#[entity(table = "everything", history = "all", index(name = "by_both", columns("status", "size")))]
struct Everything {
    #[entity(partition)]
    tenant: String,
    #[entity(key)]
    number: u32,
    #[entity(version)]
    seen: Version,
    #[entity(text)]
    status: Status,
    #[entity(text)]
    before: Option<Status>,
    #[entity(index, default = 3)]
    size: i64,
    ratio: f64,
    fine: bool,
    since: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
    #[entity(unique)]
    serial: Uuid,
    labels: Vec<String>,
    limits: BTreeMap<String, u64>,
    anything: Value,
    #[entity(bytes)]
    body: Vec<u8>,
    #[entity(bytes)]
    digest: Option<Vec<u8>>,
    #[entity(column = "kind")]
    r#type: String,
    #[entity(column = "record_name")]
    record: String,
    #[entity(skip)]
    cached: Option<usize>,
}

fn everything() -> Everything {
    Everything {
        tenant: "acme".into(),
        number: 7,
        seen: Version::NONE,
        status: Status::InUse,
        before: None,
        size: i64::MIN,
        ratio: 0.1 + 0.2,
        fine: true,
        since: Utc::now().trunc_subsecs(6),
        until: None,
        serial: Uuid::nil(),
        labels: vec!["a".into(), "ü".into()],
        limits: BTreeMap::from([("cpu".into(), 2)]),
        anything: json!({"nested": [1, null]}),
        body: vec![0, 159, 255],
        digest: Some(vec![]),
        r#type: "x".into(),
        record: "y".into(),
        cached: None,
    }
}

#[test]
fn the_schema_is_what_the_struct_says() {
    let schema = Everything::schema().unwrap();
    assert_eq!(schema.name, "everything");
    assert_eq!(schema.partition.as_ref().map(|p| (p.name.as_str(), p.kind)), Some(("tenant", KeyType::Text)));
    assert_eq!((schema.id.name.as_str(), schema.id.kind), ("number", KeyType::Integer));
    assert_eq!((schema.history, schema.undeclared), (History::KeepAll, Undeclared::Reject));
    let columns: Vec<_> = schema.columns.iter().map(|c| (c.name.as_str(), c.kind, c.required)).collect();
    let expected = [
        ("status", ColumnType::Text, true),
        ("before", ColumnType::Text, false),
        ("size", ColumnType::Integer, true),
        ("ratio", ColumnType::Real, true),
        ("fine", ColumnType::Boolean, true),
        ("since", ColumnType::Timestamp, true),
        ("until", ColumnType::Timestamp, false),
        ("serial", ColumnType::Text, true),
        ("labels", ColumnType::Json, true),
        ("limits", ColumnType::Json, true),
        ("anything", ColumnType::Json, false),
        ("body", ColumnType::Bytes, true),
        ("digest", ColumnType::Bytes, false),
        ("kind", ColumnType::Text, true),
        ("record_name", ColumnType::Text, true),
    ];
    assert_eq!(columns, expected);
    assert_eq!(schema.column("size").and_then(|c| c.default.clone()), Some(json!(3)));
    let unique: Vec<_> = schema.columns.iter().filter(|c| c.unique).map(|c| c.name.as_str()).collect();
    assert_eq!(unique, ["serial"]);
    let indexes: Vec<_> = schema.indexes.iter().map(|i| (i.name.as_str(), i.columns.len(), i.unique)).collect();
    assert_eq!(indexes, [("by_both", 2, false), ("by_size", 1, false)]);
}

#[tokio::test]
async fn every_kind_of_field_comes_back() {
    let repository = Repository::<Everything>::open(&store()).await.unwrap();
    let mut written = everything();
    assert_eq!(repository.save(&mut written).await.unwrap(), Version::FIRST);
    assert_eq!(written.seen, Version::FIRST);
    let read = repository.find_by_id(("acme", 7)).await.unwrap().unwrap();
    assert_eq!(read, written);
    assert_eq!(read.key(), Key::from(("acme", 7)));
    let filter = Filter::eq("status", "in_use").unwrap() & Filter::eq("kind", "x").unwrap();
    assert_eq!(repository.count(&repository.query().filter(filter)).await.unwrap(), 1);
    let (digest, until) = (None, Some(Utc::now().trunc_subsecs(6)));
    let mut changed = Everything { digest, until, ..read };
    repository.save(&mut changed).await.unwrap();
    assert_eq!(repository.history(("acme", 7)).await.unwrap(), [changed, written]);
}

#[tokio::test]
async fn the_version_is_the_optimistic_lock() {
    let repository = Repository::<Everything>::open(&store()).await.unwrap();
    let mut mine = everything();
    repository.save(&mut mine).await.unwrap();
    let mut theirs = repository.find_by_id(mine.key()).await.unwrap().unwrap();
    repository.save(&mut theirs).await.unwrap();
    assert_eq!(repository.save(&mut mine).await.unwrap_err().kind(), ErrorKind::Conflict);
    let again = repository.save(&mut everything()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
}

#[derive(Debug, PartialEq, Entity)]
#[entity(table = "open", unique_index(name = "by_owner", columns("owner", "id")))]
struct Open {
    #[entity(key)]
    id: Uuid,
    owner: Option<String>,
    #[entity(rest)]
    rest: Fields,
}

#[tokio::test]
async fn the_rest_keeps_what_the_struct_does_not_have() {
    let store = store();
    let repository = Repository::<Open>::open(&store).await.unwrap();
    let id = Uuid::now_v7();
    let seen = fields(json!({"owner": "a", "color": "red", "size": [1]}));
    store.insert(repository.table(), id, seen).await.unwrap();
    let mut read = repository.find_by_id(id).await.unwrap().unwrap();
    assert_eq!(read, Open { id, owner: Some("a".into()), rest: fields(json!({"color": "red", "size": [1]})) });
    // What the struct declares is the struct's to say, whatever stands in the rest.
    read.owner = None;
    read.rest.insert("owner".into(), json!("b"));
    repository.save(&mut read).await.unwrap();
    let record = store.get(repository.table(), id).await.unwrap().unwrap();
    assert_eq!(record.fields, fields(json!({"color": "red", "size": [1]})));
}

#[tokio::test]
async fn a_record_that_does_not_fit_names_the_column() {
    #[derive(Debug, Entity)]
    #[entity(table = "loose", undeclared)]
    struct Loose {
        #[entity(key)]
        id: i64,
    }
    #[derive(Debug, Entity)]
    #[entity(table = "loose")]
    struct Strict {
        #[entity(key)]
        id: i64,
        size: u8,
    }
    let store = store();
    let table = Repository::<Loose>::open(&store).await.unwrap().table().clone();
    store.insert(&table, 1, fields(json!({"size": 256}))).await.unwrap();
    let record = store.get(&table, 1).await.unwrap().unwrap();
    let error = Strict::from_record(record).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("column `size` of record `1` in table `loose`"), "{error}");
}

mod renamed {
    //! Where `storage_core` goes by another name.

    mod toolkit {
        pub(crate) mod inner {
            pub(crate) use storage_core::*;
        }
    }

    use self::toolkit::inner as elsewhere;

    #[derive(elsewhere::Entity)]
    #[entity(table = "t", crate = "self::elsewhere")]
    struct Renamed {
        #[entity(key)]
        id: String,
        #[entity(bytes)]
        body: Vec<u8>,
        #[entity(version)]
        version: elsewhere::Version,
    }

    #[test]
    fn the_generated_code_finds_it() {
        use storage_core::Entity as _;
        let renamed = Renamed { id: "a".into(), body: vec![1], version: elsewhere::Version(2) };
        assert_eq!(renamed.version(), Some(elsewhere::Version(2)));
        assert_eq!(renamed.to_fields().unwrap().len(), 1);
    }
}

#[test]
fn structs_may_be_generic() {
    #[derive(Entity)]
    #[entity(table = "boxes")]
    struct Boxed<T: storage_core::ColumnValue + Send + Sync + 'static> {
        #[entity(key)]
        id: i64,
        content: T,
    }
    let boxed = Boxed { id: 1, content: true };
    assert_eq!(boxed.to_fields().unwrap(), fields(json!({"content": true})));
    assert_eq!(Boxed::<f64>::schema().unwrap().columns[0].kind, ColumnType::Real);
}
