//! Transactions that do not take effect.

use std::time::Duration;

use serde_json::json;
use storage_core::{Error, ErrorKind, fields};

use super::fixture::{account, accounts, balance, set};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

/// A transaction that is dropped leaves nothing, and nothing locked.
pub async fn dropped_is_rolled_back(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["a", "b"], 100).await? else { return Ok(()) };
    let tx = t.store.begin();
    set(&tx, &t, "a", 0).await?;
    tx.delete(&t.name, account("b")).await?;
    tx.put(&t.name, account("c"), fields(json!({}))).await?;
    drop(tx);
    assert_eq!(t.keys(t.query()).await?, ["p/a", "p/b"]);
    assert_eq!(t.value(account("a")).await?, json!({"cents": 100}));
    t.put(account("a"), json!({"cents": 1})).await?;
    Ok(())
}

/// An error of the closure rolls back and comes out as it is; the closure runs once.
pub async fn an_error_of_the_closure_rolls_back(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["a"], 100).await? else { return Ok(()) };
    let runs = std::cell::Cell::new(0);
    let outcome = t.store.transaction(async |tx| {
        runs.set(runs.get() + 1);
        set(&tx, &t, "a", 0).await?;
        Err::<(), _>(Error::invalid("not enough"))
    });
    assert_eq!(refused(ErrorKind::InvalidInput, outcome.await).message(), "not enough");
    assert_eq!((runs.get(), t.value(account("a")).await?), (1, json!({"cents": 100})));
    Ok(())
}

/// A transaction whose future is dropped in the middle of its work leaves nothing, and others go on.
pub async fn a_cancelled_transaction_leaves_nothing(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["a", "b"], 100).await? else { return Ok(()) };
    for _ in 0..10 {
        let work = t.store.transaction(async |tx| {
            set(&tx, &t, "a", 0).await?;
            set(&tx, &t, "b", 200).await?;
            futures::future::pending::<storage_core::Result<()>>().await
        });
        assert!(tokio::time::timeout(Duration::from_millis(5), work).await.is_err(), "it never ends by itself");
    }
    let both = t.store.transaction(async |tx| Ok((balance(&tx, &t, "a").await?, balance(&tx, &t, "b").await?)));
    assert_eq!(both.await?, (100, 100));
    t.store.transaction(async |tx| set(&tx, &t, "a", 50).await).await?;
    assert_eq!(t.value(account("a")).await?, json!({"cents": 50}));
    Ok(())
}

/// A committed transaction can do no more, through whatever handle on it.
pub async fn a_committed_transaction_is_over(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["a"], 100).await? else { return Ok(()) };
    let tx = t.store.begin();
    let clone = tx.clone();
    set(&tx, &t, "a", 1).await?;
    tx.commit().await?;
    refused(ErrorKind::InvalidInput, set(&clone, &t, "a", 2).await);
    refused(ErrorKind::InvalidInput, clone.commit().await);
    assert_eq!(t.value(account("a")).await?, json!({"cents": 1}));
    Ok(())
}

/// A transaction with a write that can't be done (a unique value that is taken) does none.
pub async fn a_taken_unique_value_rolls_back(h: &dyn Harness) -> CaseResult {
    use storage_core::{ColumnType, KeyType, TableSchema};
    let schema = TableSchema::builder("t").partition("p", KeyType::Text).column("mail", ColumnType::Text).unique();
    let Some(_) = accounts(h, &[], 0).await? else { return Ok(()) };
    let opened = crate::opened::Opened::fresh(h).await?;
    if !opened.records().capabilities().unique {
        refused(ErrorKind::Unsupported, opened.records().create_table(&schema.build()?).await);
        return Ok(());
    }
    let t = crate::records::table::Table::within(opened, schema).await?;
    t.put(account("a"), json!({"mail": "x"})).await?;
    let outcome = t.store.transaction(async |tx| {
        tx.put(&t.name, account("b"), fields(json!({"mail": "y"}))).await?;
        tx.put(&t.name, account("c"), fields(json!({"mail": "x"}))).await
    });
    refused(ErrorKind::AlreadyExists, outcome.await);
    assert_eq!(t.keys(t.query()).await?, ["p/a"]);
    Ok(())
}
