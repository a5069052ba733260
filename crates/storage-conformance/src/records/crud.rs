//! Single records: put, merge, delete, check.

use serde_json::{Value, json};
use storage_core::{Batch, ErrorKind, Expect, Key, KeyType, TableSchema, Version, fields};

use super::table::Table;
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

pub(crate) type Keys = Vec<Key>;

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// What was put is what is read: every kind of JSON value, key and version beside it.
pub async fn put_then_get(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let value = json!({"text": "ü \"'\\ \u{1F600}", "int": -3, "real": 1.5, "yes": true, "list": [1, [null, {}]], "map": {"a": {"b": ""}}});
    assert_eq!(t.put("a", value.clone()).await?, Version::FIRST);
    let record = t.get("a").await?.expect("what was put");
    assert_eq!((record.key, record.version), (Key::from("a"), Version::FIRST));
    assert_eq!(Value::Object(record.fields), value);
    assert_eq!(record.expires_at, None);
    assert_eq!(t.get("b").await?, None);
    Ok(())
}

/// `get` answers in the order of the keys that were asked for, with `None` for what is not there, also for a key asked for twice.
pub async fn get_many_keeps_the_order_of_the_keys(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("a", json!({"n": 1})).await?;
    t.put("b", json!({"n": 2})).await?;
    let keys: Keys = ["b", "x", "a", "b"].map(Key::from).to_vec();
    let found = t.store.get_many(&t.name, &keys).await?;
    let numbers: Vec<_> = found.iter().map(|r| r.as_ref().map(|r| r.fields["n"].clone())).collect();
    assert_eq!(numbers, [Some(json!(2)), None, Some(json!(1)), Some(json!(2))]);
    assert!(t.store.get_many(&t.name, &[]).await?.is_empty());
    Ok(())
}

/// A put replaces the whole record: fields that it does not name are gone.
pub async fn a_put_replaces_the_whole_record(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("a", json!({"old": 1, "both": 1})).await?;
    assert_eq!(t.put("a", json!({"new": 2, "both": 2})).await?, Version(2));
    assert_eq!(t.value("a").await?, json!({"new": 2, "both": 2}));
    Ok(())
}

/// A merge changes the fields that it names, removes those that it names with null, and leaves the others.
pub async fn a_merge_changes_some_fields(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("a", json!({"keep": 1, "change": 1, "remove": 1, "deep": {"x": 1, "y": 1}})).await?;
    let change = fields(json!({"change": 2, "remove": null, "add": 2, "missing": null, "deep": {"x": 2}}));
    assert_eq!(t.store.update(&t.name, "a", change, Expect::Present).await?, Version(2));
    // Not merged deeply: a field's value is replaced as a whole.
    assert_eq!(t.value("a").await?, json!({"keep": 1, "change": 2, "add": 2, "deep": {"x": 2}}));
    Ok(())
}

/// A merge needs a record, whether it says so or not, and makes none.
pub async fn a_merge_of_nothing_is_not_found(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    for expect in [Expect::Anything, Expect::Present] {
        refused(ErrorKind::NotFound, t.store.update(&t.name, "a", fields(json!({"n": 1})), expect).await);
    }
    refused(ErrorKind::InvalidInput, t.store.update(&t.name, "a", fields(json!({"n": 1})), Expect::Absent).await);
    assert_eq!(t.count().await?, 0);
    Ok(())
}

/// Versions start at 1, grow by one with every write of any kind, and start again after a delete.
pub async fn versions_grow_by_one_with_every_write(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    for n in 1..=5 {
        assert_eq!(t.put("a", json!({"n": n})).await?, Version(n));
        assert_eq!(t.version("a").await?, Version(n));
    }
    assert_eq!(t.store.update(&t.name, "a", fields(json!({})), Expect::Present).await?, Version(6));
    assert_eq!(t.version("a").await?, Version(6), "a merge of nothing is a write");
    assert!(t.delete("a").await?);
    assert_eq!(t.version("a").await?, Version::NONE);
    assert_eq!(t.put("a", json!({})).await?, Version::FIRST);
    Ok(())
}

/// A delete says whether there was a record; of none, it is fine.
pub async fn a_delete_says_whether_there_was_one(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("a", json!({})).await?;
    t.put("b", json!({})).await?;
    assert!(t.delete("a").await?);
    assert!(!t.delete("a").await?);
    assert_eq!(t.get("a").await?, None);
    assert_eq!(t.count().await?, 1);
    Ok(())
}

/// An insert of a key that is there is `AlreadyExists` and changes nothing.
pub async fn an_insert_expects_absence(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    assert_eq!(t.store.insert(&t.name, "a", fields(json!({"n": 1}))).await?, Version::FIRST);
    refused(ErrorKind::AlreadyExists, t.store.insert(&t.name, "a", fields(json!({"n": 2}))).await);
    assert_eq!(t.value("a").await?, json!({"n": 1}));
    assert_eq!(t.version("a").await?, Version::FIRST);
    Ok(())
}

/// `Present` on what is not there is `NotFound`, for every kind of write.
pub async fn present_is_checked(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    refused(ErrorKind::NotFound, t.put_if("a", json!({}), Expect::Present).await);
    refused(ErrorKind::NotFound, t.store.delete(&t.name, "a", Expect::Present).await);
    refused(ErrorKind::NotFound, t.commit(Batch::new().check(&t.name, "a", Expect::Present)).await);
    assert_eq!(t.get("a").await?, None);
    t.put("a", json!({})).await?;
    assert_eq!(t.put_if("a", json!({"n": 2}), Expect::Present).await?, Version(2));
    assert!(t.store.delete(&t.name, "a", Expect::Present).await?);
    Ok(())
}

/// A write that expects another version, older or newer, or one of a record that is gone, is a `Conflict` and changes nothing.
pub async fn versions_are_checked(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("a", json!({"n": 1})).await?;
    t.put("a", json!({"n": 2})).await?;
    for wrong in [1, 3, u64::from(u32::MAX)] {
        let expect = Expect::Version(Version(wrong));
        refused(ErrorKind::Conflict, t.put_if("a", json!({"n": 9}), expect).await);
        refused(ErrorKind::Conflict, t.store.update(&t.name, "a", fields(json!({"n": 9})), expect).await);
        refused(ErrorKind::Conflict, t.store.delete(&t.name, "a", expect).await);
        refused(ErrorKind::Conflict, t.commit(Batch::new().check(&t.name, "a", expect)).await);
        refused(ErrorKind::Conflict, t.put_if("gone", json!({}), expect).await);
        refused(ErrorKind::Conflict, t.store.delete(&t.name, "gone", expect).await);
    }
    assert_eq!((t.value("a").await?, t.count().await?), (json!({"n": 2}), 1));
    let now = Expect::Version(Version(2));
    assert_eq!(t.commit(Batch::new().check(&t.name, "a", now)).await?, [Version(2)]);
    assert_eq!(t.put_if("a", json!({"n": 3}), now).await?, Version(3));
    assert!(t.store.delete(&t.name, "a", Expect::Version(Version(3))).await?);
    let none = Expect::Version(Version::NONE);
    assert_eq!(t.commit(Batch::new().check(&t.name, "a", none)).await?, [Version::NONE]);
    assert_eq!(t.put_if("a", json!({"n": 1}), none).await?, Version::FIRST, "a record that comes back is a new one");
    refused(ErrorKind::Conflict, t.put_if("a", json!({"n": 2}), none).await);
    refused(ErrorKind::Conflict, t.commit(Batch::new().check(&t.name, "a", none)).await);
    assert_eq!(t.value("a").await?, json!({"n": 1}));
    Ok(())
}

/// A check changes nothing, and answers with the version that is there.
pub async fn a_check_only_checks(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let check = |expect| Batch::new().check(&t.name, "a", expect);
    assert_eq!(t.commit(check(Expect::Absent)).await?, [Version::NONE]);
    assert_eq!(t.commit(check(Expect::Anything)).await?, [Version::NONE]);
    t.put("a", json!({"n": 1})).await?;
    for expect in [Expect::Anything, Expect::Present, Expect::Version(Version::FIRST)] {
        assert_eq!(t.commit(check(expect)).await?, [Version::FIRST]);
    }
    refused(ErrorKind::AlreadyExists, t.commit(check(Expect::Absent)).await);
    assert_eq!((t.value("a").await?, t.version("a").await?), (json!({"n": 1}), Version::FIRST));
    Ok(())
}

/// `updated_at` is the time of the write, in microseconds, and moves with every one.
pub async fn updated_at_is_the_time_of_the_write(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("a", json!({})).await?;
    let first = t.get("a").await?.expect("a record").updated_at;
    t.opened.pass(std::time::Duration::from_millis(20)).await;
    t.put("a", json!({})).await?;
    let second = t.get("a").await?.expect("a record").updated_at;
    assert!(second > first, "{second} is not after {first}");
    assert_eq!(second.timestamp_subsec_nanos() % 1_000, 0, "microseconds: {second:?}");
    // A service's clock may differ from this one's, but not by much.
    let off = (t.opened.clock.now() - second).num_seconds().abs();
    assert!(off < 300, "written at {second}, which is {off} s from now");
    Ok(())
}

/// Keys of two parts: each part counts, and the parts don't run together.
pub async fn keys_of_two_parts(h: &dyn Harness) -> CaseResult {
    let schema = TableSchema::builder("t").partition("tenant", KeyType::Text).key_of("n", KeyType::Integer).keep_undeclared();
    let t = Table::new(h, schema).await?;
    let keys: Keys = vec![("a", 1).into(), ("a", 2).into(), ("b", 1).into(), ("a1", 1).into(), ("a/1", 1).into()];
    for (n, key) in keys.iter().enumerate() {
        t.put(key.clone(), json!({"v": n})).await?;
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(t.value(key.clone()).await?, json!({"v": n}), "{key}");
    }
    assert_eq!(t.count().await?, 5);
    assert!(t.delete(keys[0].clone()).await?);
    assert_eq!((t.get(keys[0].clone()).await?, t.count().await?), (None, 4));
    refused(ErrorKind::InvalidInput, t.get("a").await);
    refused(ErrorKind::InvalidInput, t.get(("a", "1")).await);
    Ok(())
}

/// Tables don't see each other's records.
pub async fn tables_are_apart(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let other = TableSchema::builder("other").keep_undeclared().build()?;
    t.store.create_table(&other).await?;
    t.put("a", json!({"n": 1})).await?;
    assert_eq!(t.store.get(&other.name, "a").await?, None);
    t.store.upsert(&other.name, "a", fields(json!({"n": 2}))).await?;
    assert!(t.delete("a").await?);
    assert_eq!(t.store.get(&other.name, "a").await?.expect("not deleted with the other").fields, fields(json!({"n": 2})));
    Ok(())
}
