//! Records that expire: absent everywhere from then on.

use std::time::Duration;

use serde_json::json;
use storage_core::{Batch, ColumnType, ErrorKind, Expect, Filter, Key, SchemaBuilder, TableSchema, Version, Write, fields};

use super::batch::{key, several_records};
use super::table::{Table, open_schema};
use crate::check::{refused, refused_at};
use crate::opened::Opened;
use crate::{CaseResult, Failure, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

const SOON: Duration = Duration::from_millis(200);
const LATE: Duration = Duration::from_secs(3600);

/// A table in a store that lets records expire. `None` where it does not, which is then checked.
async fn expiring(h: &dyn Harness, schema: SchemaBuilder) -> Result<Option<Table<'_>>, Failure> {
    let t = Table::within(Opened::fresh(h).await?, schema).await?;
    if t.capabilities().expiry {
        return Ok(Some(t));
    }
    refused(ErrorKind::Unsupported, t.commit(Batch::new().with(put(&t, "a", LATE))).await);
    assert_eq!(t.count().await?, 0);
    Ok(None)
}

/// A put that expires after so long.
fn put(t: &Table<'_>, id: impl Into<Key>, after: Duration) -> Write {
    let expires_at = Some(storage_core::clock::add(t.opened.clock.now(), after));
    Write::Put { table: t.name.clone(), key: id.into(), fields: fields(json!({"n": 1})), expect: Expect::Anything, expires_at }
}

async fn put_expiring(t: &Table<'_>, id: impl Into<Key>, after: Duration) -> storage_core::Result<Version> {
    t.commit(Batch::new().with(put(t, id, after))).await.map(|versions| versions[0])
}

/// An expired record is absent for `get`, `scan` and `count`, filtered and not; others stay.
pub async fn expired_records_are_not_read(h: &dyn Harness) -> CaseResult {
    let Some(t) = expiring(h, open_schema()).await? else { return Ok(()) };
    put_expiring(&t, "soon", SOON).await?;
    put_expiring(&t, "late", LATE).await?;
    t.put("never", json!({"n": 1})).await?;
    t.opened.pass(SOON).await;
    assert_eq!(t.get("soon").await?, None);
    assert_eq!(t.store.get_many(&t.name, &["soon".into(), "late".into()]).await?.iter().filter(|r| r.is_some()).count(), 1);
    assert_eq!(t.matching(Filter::All).await?, ["late", "never"]);
    assert_eq!(t.matching(Filter::eq("n", 1)?).await?, ["late", "never"]);
    assert_eq!(t.keys(t.query().limit(1).descending("id")?).await?, ["never", "late"]);
    Ok(())
}

/// Until then it is a record as any other, and says when it will expire, in microseconds.
pub async fn a_record_is_there_until_it_expires(h: &dyn Harness) -> CaseResult {
    let Some(t) = expiring(h, open_schema()).await? else { return Ok(()) };
    let write = put(&t, "a", LATE);
    let Write::Put { expires_at, .. } = &write else { panic!("a put") };
    let expires_at = *expires_at;
    t.commit(Batch::new().with(write)).await?;
    let record = t.get("a").await?.expect("not yet expired");
    assert_eq!(record.expires_at, expires_at);
    assert_eq!(t.all(t.query()).await?[0].expires_at, expires_at);
    assert_eq!(t.count().await?, 1);
    Ok(())
}

/// A merge keeps the expiry; a put sets it anew, also to none.
pub async fn merges_keep_the_expiry_and_puts_set_it(h: &dyn Harness) -> CaseResult {
    let Some(t) = expiring(h, open_schema()).await? else { return Ok(()) };
    for id in ["merged", "put"] {
        put_expiring(&t, id, SOON).await?;
    }
    let before = t.get("merged").await?.map(|r| r.expires_at);
    if before.is_some() {
        // Unless it expired right here, on a slow machine.
        let merge = t.store.update(&t.name, "merged", fields(json!({"m": 2})), Expect::Present).await;
        if let Err(error) = merge {
            assert!(!t.opened.clock.is_manual() && error.kind() == ErrorKind::NotFound, "{error}");
        } else {
            assert!(t.get("merged").await?.is_none_or(|r| Some(r.expires_at) == before));
        }
    }
    t.put("put", json!({})).await?;
    assert_eq!(t.get("put").await?.expect("does not expire").expires_at, None);
    t.opened.pass(SOON).await;
    assert_eq!(t.matching(Filter::All).await?, ["put"]);
    put_expiring(&t, "put", LATE).await?;
    assert!(t.get("put").await?.expect("not yet").expires_at.is_some());
    Ok(())
}

/// Preconditions and versions take an expired record for none: it can be inserted again and starts at version 1; it can't be merged or deleted.
pub async fn preconditions_take_expired_for_absent(h: &dyn Harness) -> CaseResult {
    let Some(t) = expiring(h, open_schema()).await? else { return Ok(()) };
    for id in ["a", "b", "c"] {
        t.put(id, json!({})).await?;
        assert_eq!(put_expiring(&t, id, SOON).await?, Version(2));
    }
    t.opened.pass(SOON).await;
    let version = Expect::Version(Version(2));
    refused(ErrorKind::NotFound, t.commit(Batch::new().check(&t.name, "a", Expect::Present)).await);
    refused(ErrorKind::Conflict, t.commit(Batch::new().check(&t.name, "a", version)).await);
    refused(ErrorKind::NotFound, t.store.update(&t.name, "a", fields(json!({})), Expect::Anything).await);
    refused(ErrorKind::Conflict, t.put_if("a", json!({}), version).await);
    refused(ErrorKind::NotFound, t.store.delete(&t.name, "a", Expect::Present).await);
    assert_eq!(t.commit(Batch::new().check(&t.name, "a", Expect::Absent)).await?, [Version::NONE]);
    assert!(!t.delete("a").await?, "there was none");
    assert_eq!(t.put_if("b", json!({"new": 1}), Expect::Absent).await?, Version::FIRST);
    assert_eq!(t.put("c", json!({"new": 1})).await?, Version::FIRST);
    assert_eq!(t.value("c").await?, json!({"new": 1}));
    assert_eq!(t.matching(Filter::All).await?, ["b", "c"]);
    Ok(())
}

/// A unique value of an expired record is free.
pub async fn unique_values_of_expired_records_are_free(h: &dyn Harness) -> CaseResult {
    let probe = Opened::fresh(h).await?;
    if !probe.records().capabilities().unique {
        let schema = TableSchema::builder("t").column("mail", ColumnType::Text).unique();
        refused(ErrorKind::Unsupported, probe.records().create_table(&schema.build()?).await);
        return Ok(());
    }
    let schema = open_schema().partition("p", storage_core::KeyType::Text).column("mail", ColumnType::Text).unique();
    let Some(t) = expiring(h, schema).await? else { return Ok(()) };
    let expires_at = Some(storage_core::clock::add(t.opened.clock.now(), SOON));
    let mail = || fields(json!({"mail": "x"}));
    t.commit(Batch::new().with(Write::Put {
        table: t.name.clone(),
        key: key("old"),
        fields: mail(),
        expect: Expect::Anything,
        expires_at,
    }))
    .await?;
    t.opened.pass(SOON).await;
    if several_records(&t).await? {
        // Also where the batch then fails.
        let failing = Batch::new().put(&t.name, key("new"), mail(), Expect::Absent).check(&t.name, key("no"), Expect::Present);
        refused_at(1, ErrorKind::NotFound, t.commit(failing).await);
        assert_eq!(t.count().await?, 0);
    }
    t.put_if(key("new"), json!({"mail": "x"}), Expect::Absent).await?;
    refused(ErrorKind::AlreadyExists, t.put(key("third"), json!({"mail": "x"})).await);
    assert_eq!(t.matching(Filter::All).await?, ["p/new"]);
    Ok(())
}

/// A record put with an expiry in the past is absent at once.
pub async fn an_expiry_in_the_past(h: &dyn Harness) -> CaseResult {
    let Some(t) = expiring(h, open_schema()).await? else { return Ok(()) };
    t.put("a", json!({})).await?;
    let past = t.opened.clock.now() - chrono::TimeDelta::seconds(5);
    let write = Write::Put {
        table: t.name.clone(),
        key: "a".into(),
        fields: fields(json!({})),
        expect: Expect::Anything,
        expires_at: Some(past),
    };
    t.commit(Batch::new().with(write)).await?;
    assert_eq!((t.get("a").await?, t.count().await?), (None, 0));
    assert_eq!(t.put("a", json!({})).await?, Version::FIRST);
    Ok(())
}

/// Many expired records don't come back and don't get in the way, however much is written meanwhile.
pub async fn many_expired_records(h: &dyn Harness) -> CaseResult {
    let Some(t) = expiring(h, open_schema()).await? else { return Ok(()) };
    for n in 0..100 {
        put_expiring(&t, format!("old{n:03}"), SOON / 4).await?;
    }
    t.opened.pass(SOON / 4).await;
    assert_eq!(t.count().await?, 0);
    t.put_all((0..100).map(|n| (format!("new{n:03}"), json!({"n": n})))).await?;
    t.put_all((0..50).map(|n| (format!("old{n:03}"), json!({"n": n})))).await?;
    assert_eq!(t.count().await?, 150);
    assert_eq!(t.keys(t.query().limit(7)).await?.len(), 150);
    assert_eq!(t.version("old000").await?, Version::FIRST);
    Ok(())
}

/// A sweep frees what has expired, if the backend does not do so by itself: what is there stays, and what is written again too.
pub async fn a_sweep_takes_what_has_expired_alone(h: &dyn Harness) -> CaseResult {
    let Some(t) = expiring(h, open_schema()).await? else { return Ok(()) };
    for n in 0..5 {
        put_expiring(&t, format!("soon{n}"), SOON).await?;
    }
    put_expiring(&t, "late", LATE).await?;
    t.put("never", json!({"n": 2})).await?;
    t.opened.pass(SOON).await;
    t.put("soon0", json!({"n": 3})).await?;
    assert!(t.store.sweep(&t.query()).await? <= 4);
    assert_eq!(t.store.sweep(&t.query()).await?, 0, "the first took them all");
    assert_eq!(t.matching(Filter::All).await?, ["late", "never", "soon0"]);
    assert_eq!(t.put("soon1", json!({})).await?, Version::FIRST);
    refused(ErrorKind::NotFound, t.store.sweep(&storage_core::Query::table("nowhere")?).await);
    Ok(())
}
