//! Second handles, closed handles, broken handles, backups.

use serde_json::json;
use storage_core::{Backends, Batch, ErrorKind, Expect, Query, RecordStore, TableSchema, fields};

use super::table::{Table, open_schema};
use crate::check::{refused, refused_as};
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A second handle sees the tables and writes of the first, at once, and the other way round.
pub async fn a_second_handle_sees_the_firsts_writes(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let other = crate::opened::records(&t.opened.again().await?);
    for n in 0..20 {
        t.put("a", json!({"n": n})).await?;
        assert_eq!(other.get(&t.name, "a").await?.expect("a record").fields["n"], json!(n));
        other.update(&t.name, "a", fields(json!({"m": n})), Expect::Present).await?;
        assert_eq!(t.value("a").await?, json!({"n": n, "m": n}));
    }
    assert_eq!(other.tables().await?.len(), 1);
    other.create_table(&TableSchema::builder("more").build()?).await?;
    assert_eq!(t.store.tables().await?.len(), 2);
    Ok(())
}

/// Preconditions hold across handles.
pub async fn preconditions_hold_across_handles(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let other = crate::opened::records(&t.opened.again().await?);
    let version = t.put("a", json!({"n": 1})).await?;
    other.upsert(&t.name, "a", fields(json!({"n": 2}))).await?;
    refused(ErrorKind::Conflict, t.put_if("a", json!({"n": 3}), Expect::Version(version)).await);
    refused(ErrorKind::AlreadyExists, other.insert(&t.name, "a", fields(json!({}))).await);
    assert_eq!(t.value("a").await?, json!({"n": 2}));
    Ok(())
}

/// What was written is there when the store is opened again.
pub async fn data_survives_close(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put_all((0..50).map(|n| (format!("{n:02}"), json!({"n": n})))).await?;
    let again = t.opened.again().await?;
    t.store.close().await?;
    // A backend that forgets is opened before the last handle goes.
    let store = if h.survives_close() {
        drop(again);
        crate::opened::records(&t.opened.again().await?)
    } else {
        crate::opened::records(&again)
    };
    assert_eq!(store.count(&t.query()).await?, 50);
    assert_eq!(store.get(&t.name, "07").await?.expect("a record").fields, fields(json!({"n": 7})));
    assert_eq!(store.schema(&t.name).await?.difference(&open_schema().build()?), None);
    Ok(())
}

/// A closed handle answers or says that it is `Unavailable`: it neither panics nor hangs, and closing it again is fine. Others go on.
pub async fn a_closed_handle_fails_cleanly(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let other = crate::opened::records(&t.opened.again().await?);
    t.put("a", json!({})).await?;
    t.store.close().await?;
    t.store.close().await?;
    let closed = |outcome: storage_core::Result<()>| drop(outcome.map_err(|e| refused::<()>(ErrorKind::Unavailable, Err(e))));
    closed(t.get("a").await.map(drop));
    closed(t.put("b", json!({})).await.map(drop));
    closed(t.store.scan(&t.query()).await.map(drop));
    closed(t.store.ping().await);
    assert!(other.get(&t.name, "a").await?.is_some());
    other.ping().await?;
    Ok(())
}

/// `ping` answers on a store that is well, and `info` says what it is.
pub async fn a_store_says_what_it_is(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.store.ping().await?;
    let info = t.store.backend().info();
    assert!(!info.driver.is_empty() && !info.location.is_empty(), "{info:?}");
    let again = crate::opened::records(&t.opened.again().await?);
    assert_eq!(again.backend().info(), info, "one store, one place");
    let elsewhere = crate::opened::Opened::fresh(h).await?;
    assert_ne!(elsewhere.records().backend().info(), info, "two stores, two places");
    let error = refused(ErrorKind::NotFound, t.store.get(&"nowhere".parse()?, "a").await);
    assert_eq!(error.backend(), Some(info.to_string().as_str()));
    Ok(())
}

/// A place that can't be reached or used gives errors that say so, on opening or on use; nothing panics, nothing hangs.
pub async fn a_broken_place_gives_errors(h: &dyn Harness) -> CaseResult {
    let Some(place) = h.broken_place().await? else {
        crate::skip("the harness knows no broken place");
        return Ok(());
    };
    match h.open(&place.config).await {
        Err(error) => drop(refused_as::<()>(BROKEN, Err(error))),
        Ok(backends) => {
            for outcome in use_records(&backends).await? {
                refused_as(BROKEN, outcome);
            }
        }
    }
    Ok(())
}

/// How a broken place may fail.
pub(crate) const BROKEN: &[ErrorKind] = &[
    ErrorKind::Unavailable,
    ErrorKind::NotFound,
    ErrorKind::Unauthorized,
    ErrorKind::Timeout,
    ErrorKind::Config,
    ErrorKind::Corrupt,
];

async fn use_records(backends: &Backends) -> storage_core::Result<Vec<storage_core::Result<()>>> {
    let store: RecordStore = crate::opened::records(backends);
    let table = "t".parse()?;
    Ok(vec![
        store.ping().await,
        store.create_table(&open_schema().build()?).await.map(drop),
        store.tables().await.map(drop),
        store.get(&table, "a").await.map(drop),
        store.scan(&Query::table("t")?).await.map(drop),
        store.count(&Query::table("t")?).await.map(drop),
        store.commit(Batch::new().put(&table, "a", fields(json!({})), Expect::Anything)).await.map(drop),
    ])
}

/// A backup is a store of its own, as of one moment, made while others write; an existing target is not overwritten.
pub async fn backup(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("backup");
    t.put_all((0..100).map(|n| (format!("{n}"), json!({"n": n})))).await?;
    if !t.capabilities().backup {
        refused(ErrorKind::Unsupported, t.store.backup(&target).await);
        assert!(!target.exists());
        return Ok(());
    }
    let writing = async {
        for n in 0..20 {
            t.put("busy", json!({"n": n})).await?;
        }
        Ok(())
    };
    futures::try_join!(t.store.backup(&target), writing)?;
    assert!(target.exists());
    let size = |path: &std::path::Path| std::fs::metadata(path).map(|m| (m.len(), m.modified().ok()));
    let before = size(&target)?;
    refused(ErrorKind::AlreadyExists, t.store.backup(&target).await);
    assert_eq!(size(&target)?, before);
    assert_eq!(t.count().await?, 101);
    Ok(())
}
