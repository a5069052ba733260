//! Earlier versions.

use serde_json::{Value, json};
use storage_core::{Batch, ErrorKind, Expect, History, Key, KeyType, SchemaChange, fields};

use super::batch::{key, several_records};
use super::table::{Table, open_schema};
use crate::check::refused;
use crate::opened::Opened;
use crate::{CaseResult, Failure, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A table with history. `None` where that is not offered, which is then checked.
async fn kept(h: &dyn Harness, history: History) -> Result<Option<Table<'_>>, Failure> {
    let schema = || open_schema().partition("p", KeyType::Text).history(history);
    let opened = Opened::fresh(h).await?;
    if opened.records().capabilities().history {
        return Ok(Some(Table::within(opened, schema()).await?));
    }
    refused(ErrorKind::Unsupported, opened.records().create_table(&schema().build()?).await);
    assert!(opened.records().tables().await?.is_empty());
    Ok(None)
}

async fn versions(t: &Table<'_>, id: impl Into<Key>) -> storage_core::Result<Vec<(u64, Value)>> {
    let history = t.store.history(&t.name, id).await?;
    Ok(history.into_iter().map(|r| (r.version.0, Value::Object(r.fields))).collect())
}

/// All versions are kept, whole, newest first, the current one included.
pub async fn all_versions_are_kept(h: &dyn Harness) -> CaseResult {
    let Some(t) = kept(h, History::KeepAll).await? else { return Ok(()) };
    t.put(key("a"), json!({"n": 1})).await?;
    t.put(key("a"), json!({"n": 2, "x": true})).await?;
    t.store.update(&t.name, key("a"), fields(json!({"n": 3})), Expect::Present).await?;
    t.put(key("b"), json!({"n": 9})).await?;
    let expected = [(3, json!({"n": 3, "x": true})), (2, json!({"n": 2, "x": true})), (1, json!({"n": 1}))];
    assert_eq!(versions(&t, key("a")).await?, expected);
    let history = t.store.history(&t.name, key("a")).await?;
    assert_eq!(history[0], t.get(key("a")).await?.expect("a record"));
    assert!(history.windows(2).all(|w| w[0].updated_at >= w[1].updated_at && w[0].key == key("a")));
    assert_eq!(versions(&t, key("b")).await?, [(1, json!({"n": 9}))]);
    assert!(versions(&t, key("never")).await?.is_empty());
    Ok(())
}

/// With a bound, the newest so many are kept, the current one counted.
pub async fn the_newest_are_kept(h: &dyn Harness) -> CaseResult {
    let Some(t) = kept(h, History::Keep(3)).await? else { return Ok(()) };
    for n in 1..=6 {
        t.put(key("a"), json!({"n": n})).await?;
        let newest: Vec<u64> = versions(&t, key("a")).await?.into_iter().map(|(version, _)| version).collect();
        let expected: Vec<u64> = (1..=n).rev().take(3).collect();
        assert_eq!(newest, expected, "after {n} writes");
    }
    Ok(())
}

/// History outlives the record; a new record of the same key goes on in the same history, from version 1.
pub async fn history_outlives_the_record(h: &dyn Harness) -> CaseResult {
    let Some(t) = kept(h, History::KeepAll).await? else { return Ok(()) };
    t.put(key("a"), json!({"n": 1})).await?;
    t.put(key("a"), json!({"n": 2})).await?;
    t.delete(key("a")).await?;
    assert_eq!(versions(&t, key("a")).await?, [(2, json!({"n": 2})), (1, json!({"n": 1}))]);
    t.put(key("a"), json!({"n": 3})).await?;
    assert_eq!(versions(&t, key("a")).await?, [(1, json!({"n": 3})), (2, json!({"n": 2})), (1, json!({"n": 1}))]);
    assert_eq!(t.count().await?, 1, "history is not counted among the records");
    Ok(())
}

/// A batch that fails leaves no versions; one that writes a record several times leaves them all.
pub async fn history_of_batches(h: &dyn Harness) -> CaseResult {
    let Some(t) = kept(h, History::KeepAll).await? else { return Ok(()) };
    let put = |batch: Batch, n: u64| batch.put(&t.name, key("a"), fields(json!({"n": n})), Expect::Anything);
    let twice = put(put(Batch::new(), 1), 2);
    refused(
        ErrorKind::Conflict,
        t.commit(twice.clone().check(&t.name, key("a"), Expect::Version(storage_core::Version(9)))).await,
    );
    assert!(versions(&t, key("a")).await?.is_empty());
    t.commit(twice).await?;
    assert_eq!(versions(&t, key("a")).await?, [(2, json!({"n": 2})), (1, json!({"n": 1}))]);
    if several_records(&t).await? {
        let failing = put(Batch::new(), 3).delete(&t.name, key("missing"), Expect::Present);
        refused(ErrorKind::NotFound, t.commit(failing).await);
        assert_eq!(versions(&t, key("a")).await?.len(), 2);
    }
    Ok(())
}

/// A table without history refuses to tell one.
pub async fn without_history_it_is_refused(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("a", json!({})).await?;
    refused(ErrorKind::Unsupported, t.store.history(&t.name, "a").await);
    Ok(())
}

/// History can be switched on later: from the next write on, versions are kept.
pub async fn history_can_be_switched_on(h: &dyn Harness) -> CaseResult {
    let Some(_) = kept(h, History::KeepAll).await? else { return Ok(()) };
    let t = Table::open(h).await?;
    let change = SchemaChange::SetHistory(History::Keep(2));
    t.put("a", json!({"n": 1})).await?;
    if !t.capabilities().alter {
        refused(ErrorKind::Unsupported, t.store.alter_table(&t.name, &change).await);
        return Ok(());
    }
    t.store.alter_table(&t.name, &change).await?;
    for n in 2..=4 {
        t.put("a", json!({"n": n})).await?;
    }
    assert_eq!(versions(&t, "a").await?, [(4, json!({"n": 4})), (3, json!({"n": 3}))]);
    t.store.alter_table(&t.name, &SchemaChange::SetHistory(History::None)).await?;
    refused(ErrorKind::Unsupported, t.store.history(&t.name, "a").await);
    assert_eq!(t.value("a").await?, json!({"n": 4}));
    Ok(())
}
