//! Reads that may be of a while ago.

use serde_json::json;
use storage_core::{ErrorKind, Expect, Key, Record, fields};

use super::table::Table;
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A read that may be stale answers a state that there was, whole: the current one, unless the store has a replica that lags.
pub async fn a_stale_read_answers_a_state_that_there_was(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let (stale, query) = (t.store.stale(), t.query());
    for n in 1..=10_u64 {
        t.put("a", json!({"n": n, "twice": 2 * n})).await?;
        let mut seen: Vec<Option<Record>> = vec![stale.get(&t.name, "a").await?];
        seen.extend(stale.get_many(&t.name, &["x", "a"].map(Key::from)).await?.pop());
        for page in [stale.scan(&query).await?, t.store.scan(&query.clone().stale()).await?] {
            assert!(page.records.len() <= 1, "{page:?}");
            seen.push(page.records.into_iter().next());
        }
        for record in seen {
            let state = record.as_ref().map_or(0, |record| record.version.0);
            assert!(state == n || h.lags() && state < n, "{state} after {n}");
            if let Some(record) = record {
                assert_eq!(record.fields, fields(json!({"n": state, "twice": 2 * state})));
            }
        }
        for count in [stale.count(&query).await?, t.store.count(&query.clone().stale()).await?] {
            assert!(count == 1 || h.lags() && count == 0, "{count} records");
        }
    }
    Ok(())
}

/// A store whose reads may be stale writes, checks preconditions and runs transactions by what is there.
pub async fn what_writes_is_never_stale(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let stale = t.store.stale();
    for n in 1..=10 {
        let add = stale.transaction(async |tx| {
            let before = tx.get(&t.name, "a").await?.and_then(|record| record.fields["n"].as_i64()).unwrap_or(0);
            tx.put(&t.name, "a", fields(json!({"n": before + 1}))).await
        });
        add.await?;
        assert_eq!(t.value("a").await?, json!({"n": n}));
        assert_eq!(stale.fresh().get(&t.name, "a").await?, t.get("a").await?);
    }
    refused(ErrorKind::AlreadyExists, stale.insert(&t.name, "a", fields(json!({}))).await);
    let before = t.get("a").await?.expect("a record").version;
    stale.update(&t.name, "a", fields(json!({"n": 11})), Expect::Version(before)).await?;
    assert_eq!(t.value("a").await?, json!({"n": 11}));
    Ok(())
}
