//! Second handles, closed handles, broken handles, backups.

use serde_json::json;
use storage_core::{Batch, ErrorKind, Expect, Query, TableSchema, fields};

use super::table::{Table, open_schema};
use crate::check::{done_or_unavailable, refused, refused_as_broken};
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
    done_or_unavailable(t.get("a").await);
    done_or_unavailable(t.put("b", json!({})).await);
    done_or_unavailable(t.store.scan(&t.query()).await);
    done_or_unavailable(t.store.ping().await);
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
    let nowhere = "nowhere".parse()?;
    let error = refused(ErrorKind::NotFound, t.store.get(&nowhere, "a").await);
    assert_eq!(error.backend(), Some(info.to_string().as_str()));
    assert_eq!((error.operation(), error.subject()), (Some("records.get"), Some("table `nowhere`")));
    let error = refused(ErrorKind::NotFound, t.store.schema(&nowhere).await);
    assert_eq!((error.operation(), error.subject()), (Some("records.schema"), Some("table `nowhere`")));
    Ok(())
}

/// A place that can't be reached or used gives errors that say so, on opening or on use; nothing panics, nothing hangs.
pub async fn a_broken_place_gives_errors(h: &dyn Harness) -> CaseResult {
    let Some((_place, backends)) = crate::opened::broken(h).await? else { return Ok(()) };
    let (store, table) = (crate::opened::records(&backends), "t".parse()?);
    refused_as_broken(store.ping().await);
    refused_as_broken(store.create_table(&open_schema().build()?).await);
    refused_as_broken(store.tables().await);
    refused_as_broken(store.get(&table, "a").await);
    refused_as_broken(store.scan(&Query::table("t")?).await);
    refused_as_broken(store.count(&Query::table("t")?).await);
    refused_as_broken(store.commit(Batch::new().put(&table, "a", fields(json!({})), Expect::Anything)).await);
    Ok(())
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
