//! Batches: all or nothing, in order, with the index of the write that failed.

use std::collections::BTreeSet;

use serde_json::json;
use storage_core::{Atomicity, Batch, ErrorKind, Expect, Key, KeyType, TableSchema, Version, Write, fields};

use super::table::Table;
use crate::check::{refused, refused_at};
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A table whose records of one partition every backend with more than single-record batches can write together.
pub(crate) async fn partitioned(h: &dyn Harness) -> storage_core::Result<Table<'_>> {
    Table::new(h, TableSchema::builder("t").partition("p", KeyType::Text).keep_undeclared()).await
}

/// A key of the one partition.
pub(crate) fn key(id: &str) -> Key {
    Key::partitioned("p", id)
}

/// False where batches of several records are refused, which is then checked.
pub(crate) async fn several_records(t: &Table<'_>) -> Result<bool, crate::Failure> {
    if t.capabilities().atomic >= Atomicity::Partition {
        return Ok(true);
    }
    let batch =
        Batch::new().put(&t.name, key("x"), fields(json!({})), Expect::Anything).delete(&t.name, key("y"), Expect::Anything);
    let before = t.count().await?;
    refused(ErrorKind::Unsupported, t.commit(batch).await);
    assert_eq!(t.count().await?, before);
    Ok(false)
}

/// A batch whose last write fails changes nothing: not by puts, merges or deletes.
pub async fn all_writes_or_none(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    if !several_records(&t).await? {
        return Ok(());
    }
    for id in ["old", "merged", "deleted"] {
        t.put(key(id), json!({"n": 1})).await?;
    }
    let batch = |last: Expect| {
        Batch::new()
            .put(&t.name, key("new"), fields(json!({"n": 2})), Expect::Absent)
            .put(&t.name, key("old"), fields(json!({"n": 2})), Expect::Anything)
            .merge(&t.name, key("merged"), fields(json!({"m": 2})), Expect::Present)
            .delete(&t.name, key("deleted"), Expect::Present)
            .check(&t.name, key("guard"), last)
    };
    refused_at(4, ErrorKind::NotFound, t.commit(batch(Expect::Present)).await);
    assert_eq!(t.keys(t.query()).await?, ["p/deleted", "p/merged", "p/old"]);
    for id in ["old", "merged", "deleted"] {
        assert_eq!((t.value(key(id)).await?, t.version(key(id)).await?), (json!({"n": 1}), Version::FIRST), "{id}");
    }
    let versions = t.commit(batch(Expect::Absent)).await?;
    assert_eq!(versions, [Version(1), Version(2), Version(2), Version(1), Version::NONE]);
    assert_eq!(t.keys(t.query()).await?, ["p/merged", "p/new", "p/old"]);
    assert_eq!(t.value(key("merged")).await?, json!({"n": 1, "m": 2}));
    Ok(())
}

/// The error names the write that failed, at whatever place and of whatever kind.
pub async fn the_error_names_the_failed_write(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    if !several_records(&t).await? {
        return Ok(());
    }
    t.put(key("there"), json!({})).await?;
    let ok = |n: usize| Write::Put {
        table: t.name.clone(),
        key: key(&format!("ok{n}")),
        fields: fields(json!({})),
        expect: Expect::Absent,
        expires_at: None,
    };
    let (name, stale) = (&t.name, Expect::Version(Version(7)));
    let failing = [
        (Batch::new().put(name, key("there"), fields(json!({})), Expect::Absent), ErrorKind::AlreadyExists),
        (Batch::new().put(name, key("gone"), fields(json!({})), Expect::Present), ErrorKind::NotFound),
        (Batch::new().put(name, key("there"), fields(json!({})), stale), ErrorKind::Conflict),
        (Batch::new().merge(name, key("gone"), fields(json!({})), Expect::Anything), ErrorKind::NotFound),
        (Batch::new().delete(name, key("gone"), Expect::Present), ErrorKind::NotFound),
        (Batch::new().check(name, key("there"), Expect::Absent), ErrorKind::AlreadyExists),
        (Batch::new().check(name, key("gone"), stale), ErrorKind::Conflict),
    ];
    for (failing, kind) in failing {
        for place in [0, 1, 4] {
            let mut writes: Vec<Write> = (0..4).map(ok).collect();
            writes.insert(place, failing.writes[0].clone());
            refused_at(place, kind, t.commit(writes.into()).await);
        }
    }
    assert_eq!(t.keys(t.query()).await?, ["p/there"]);
    Ok(())
}

/// Of two writes that would fail, the first is named.
pub async fn the_first_failure_is_named(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    if !several_records(&t).await? {
        return Ok(());
    }
    let batch = Batch::new()
        .put(&t.name, key("a"), fields(json!({})), Expect::Anything)
        .check(&t.name, key("b"), Expect::Version(Version(1)))
        .delete(&t.name, key("c"), Expect::Present);
    refused_at(1, ErrorKind::Conflict, t.commit(batch).await);
    assert_eq!(t.count().await?, 0);
    Ok(())
}

/// Writes take effect in order, each seeing those before it: delete k, put k, delete k, put k.
pub async fn writes_take_effect_in_order(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    let k = || key("k");
    t.put(k(), json!({"n": 0})).await?;
    let batch = Batch::new()
        .delete(&t.name, k(), Expect::Present)
        .put(&t.name, k(), fields(json!({"n": 1})), Expect::Absent)
        .delete(&t.name, k(), Expect::Version(Version::FIRST));
    assert_eq!(t.commit(batch.clone()).await?, [Version(1), Version(1), Version(1)]);
    assert_eq!(t.get(k()).await?, None);
    t.put(k(), json!({"n": 0})).await?;
    let then_put = batch.put(&t.name, k(), fields(json!({"n": 2})), Expect::Absent);
    assert_eq!(t.commit(then_put).await?.last(), Some(&Version(1)));
    assert_eq!(t.value(k()).await?, json!({"n": 2}));
    Ok(())
}

/// Several writes of one record in one batch count as several versions, and preconditions see the version that the batch has reached.
pub async fn versions_grow_within_a_batch(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    let k = || key("k");
    let batch = Batch::new()
        .put(&t.name, k(), fields(json!({"a": 1})), Expect::Absent)
        .merge(&t.name, k(), fields(json!({"b": 2})), Expect::Version(Version(1)))
        .check(&t.name, k(), Expect::Version(Version(2)))
        .merge(&t.name, k(), fields(json!({"a": null})), Expect::Version(Version(2)))
        .delete(&t.name, k(), Expect::Version(Version(3)))
        .check(&t.name, k(), Expect::Absent)
        .put(&t.name, k(), fields(json!({"c": 3})), Expect::Absent);
    assert_eq!(t.commit(batch).await?, [1, 2, 2, 3, 3, 0, 1].map(Version));
    assert_eq!(t.value(k()).await?, json!({"c": 3}));
    let wrong_in_the_end = Batch::new().put(&t.name, k(), fields(json!({"d": 4})), Expect::Version(Version(1))).check(
        &t.name,
        k(),
        Expect::Version(Version(1)),
    );
    refused_at(1, ErrorKind::Conflict, t.commit(wrong_in_the_end).await);
    assert_eq!((t.value(k()).await?, t.version(k()).await?), (json!({"c": 3}), Version(1)));
    Ok(())
}

/// A batch of checks alone holds or fails as a whole, and changes nothing.
pub async fn a_batch_of_checks_alone(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    if !several_records(&t).await? {
        return Ok(());
    }
    t.put(key("a"), json!({"n": 1})).await?;
    let checks = |expect| {
        Batch::new().check(&t.name, key("a"), Expect::Version(Version(1))).check(&t.name, key("b"), Expect::Absent).check(
            &t.name,
            key("c"),
            expect,
        )
    };
    assert_eq!(t.commit(checks(Expect::Anything)).await?, [1, 0, 0].map(Version));
    refused_at(2, ErrorKind::NotFound, t.commit(checks(Expect::Present)).await);
    assert_eq!((t.keys(t.query()).await?, t.version(key("a")).await?), (vec!["p/a".to_owned()], Version(1)));
    Ok(())
}

/// An empty batch is fine.
pub async fn an_empty_batch_does_nothing(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    assert!(t.commit(Batch::new()).await?.is_empty());
    assert_eq!(t.count().await?, 0);
    Ok(())
}

/// A batch reaches as far as is declared, and one that reaches further is refused before anything is written.
pub async fn reach_is_as_declared(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    let other = TableSchema::builder("other").partition("p", KeyType::Text).keep_undeclared().build()?;
    t.store.create_table(&other).await?;
    let first = || Batch::new().put(&t.name, key("a"), fields(json!({})), Expect::Anything);
    let reaching = [
        (Atomicity::Record, first().merge(&t.name, key("a"), fields(json!({})), Expect::Present)),
        (Atomicity::Partition, first().put(&t.name, key("b"), fields(json!({})), Expect::Anything)),
        (Atomicity::Table, first().put(&t.name, ("q", "a"), fields(json!({})), Expect::Anything)),
        (Atomicity::Store, first().put(&other.name, key("a"), fields(json!({})), Expect::Anything)),
    ];
    for (reach, batch) in reaching {
        assert_eq!(batch.reach(), reach);
        let targets: BTreeSet<_> = batch.writes.iter().filter_map(|w| w.target().map(|(t, k)| (t.clone(), k.clone()))).collect();
        let allowed = reach <= t.capabilities().atomic;
        match allowed {
            true => drop(t.commit(batch).await?),
            false => drop(refused(ErrorKind::Unsupported, t.commit(batch).await)),
        }
        for (table, key) in targets {
            assert_eq!(t.store.get(&table, key.clone()).await?.is_some(), allowed, "{key} of {table}, reach {reach:?}");
            t.store.delete(&table, key, Expect::Anything).await?;
        }
    }
    Ok(())
}

/// A write to a table that is not there is `NotFound`, and takes the rest of the batch with it.
pub async fn a_missing_table_fails_the_batch(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    let nowhere = "nowhere".parse()?;
    refused(ErrorKind::NotFound, t.store.upsert(&nowhere, key("a"), fields(json!({}))).await);
    let batch = Batch::new().put(&t.name, key("a"), fields(json!({})), Expect::Anything).put(
        &nowhere,
        key("a"),
        fields(json!({})),
        Expect::Anything,
    );
    let kind = if t.capabilities().atomic == Atomicity::Store { ErrorKind::NotFound } else { ErrorKind::Unsupported };
    refused(kind, t.commit(batch).await);
    assert_eq!(t.count().await?, 0);
    Ok(())
}

/// As many writes as are declared fit into one batch (1,000 of them are tried); one more than declared is refused.
pub async fn large_batches(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    if !several_records(&t).await? {
        return Ok(());
    }
    let put = |n: usize| Write::Put {
        table: t.name.clone(),
        key: key(&format!("{n:05}")),
        fields: fields(json!({"n": n})),
        expect: Expect::Absent,
        expires_at: None,
    };
    let max = t.capabilities().max_batch;
    let many = max.min(1_000);
    let versions = t.commit((0..many).map(put).collect()).await?;
    assert_eq!(versions, vec![Version::FIRST; many]);
    assert_eq!(t.count().await?, many as u64);
    // The very last write fails: every other one is undone.
    let mut next: Batch = (many..2 * many - 1).map(put).collect();
    next.writes.push(put(0));
    refused_at(many - 1, ErrorKind::AlreadyExists, t.commit(next).await);
    assert_eq!(t.count().await?, many as u64);
    refused(ErrorKind::InvalidInput, t.commit((0..=max).map(put).collect()).await);
    Ok(())
}
