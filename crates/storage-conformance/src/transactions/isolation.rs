//! What transactions see, and what they notice.

use std::cell::Cell;

use serde_json::json;
use storage_core::{ErrorKind, Expect, Filter, Version, fields};

use super::fixture::{account, accounts, balance, cents, set};
use crate::check::refused;
use crate::records::batch::partitioned;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

/// A transaction reads its own writes (puts, updates, deletes, by key and by query); others see nothing of them before the commit.
pub async fn a_transaction_reads_its_own_writes(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["a", "b"], 100).await? else { return Ok(()) };
    let tx = t.store.begin();
    set(&tx, &t, "a", 150).await?;
    tx.put(&t.name, account("c"), fields(json!({"cents": 7}))).await?;
    assert!(tx.delete(&t.name, account("b")).await?);
    assert_eq!((balance(&tx, &t, "a").await?, balance(&tx, &t, "c").await?), (150, 7));
    assert_eq!(tx.get(&t.name, account("b")).await?, None);
    assert!(!tx.delete(&t.name, account("b")).await?);
    let rich = t.query().filter(Filter::gt("cents", 5)?).descending("id")?;
    let found: Vec<String> = tx.find(&rich).await?.iter().map(|r| r.key.to_string()).collect();
    assert_eq!(found, ["p/c", "p/a"]);
    // Not yet for others.
    assert_eq!(t.keys(t.query()).await?, ["p/a", "p/b"]);
    assert_eq!(t.value(account("a")).await?, json!({"cents": 100}));
    assert_eq!(tx.commit().await?, [Version(2), Version(1), Version(1)]);
    assert_eq!(t.keys(t.query()).await?, ["p/a", "p/c"]);
    assert_eq!(t.value(account("a")).await?, json!({"cents": 150}));
    Ok(())
}

/// A commit after somebody else wrote what was read is a `Conflict` and writes nothing; nothing of the other's write is lost.
pub async fn a_lost_update_is_a_conflict(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["a", "b"], 100).await? else { return Ok(()) };
    let tx = t.store.begin();
    let read = balance(&tx, &t, "a").await?;
    t.put(account("a"), json!({"cents": 500})).await?;
    tx.put(&t.name, account("a"), fields(json!({"cents": read + 1}))).await?;
    set(&tx, &t, "b", 0).await?;
    refused(ErrorKind::Conflict, tx.commit().await);
    assert_eq!(t.value(account("a")).await?, json!({"cents": 500}));
    assert_eq!(t.value(account("b")).await?, json!({"cents": 100}));
    Ok(())
}

/// What was read as absent and is there at the commit is a conflict, and so is what was there and is gone.
pub async fn coming_and_going_is_a_conflict(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["a", "b"], 100).await? else { return Ok(()) };
    let tx = t.store.begin();
    assert_eq!(tx.get(&t.name, account("new")).await?, None);
    set(&tx, &t, "a", 1).await?;
    t.put(account("new"), json!({"cents": 1})).await?;
    refused(ErrorKind::Conflict, tx.commit().await);
    let tx = t.store.begin();
    balance(&tx, &t, "b").await?;
    set(&tx, &t, "a", 2).await?;
    t.delete(account("b")).await?;
    refused(ErrorKind::Conflict, tx.commit().await);
    assert_eq!(t.value(account("a")).await?, json!({"cents": 100}));
    Ok(())
}

/// Write skew is caught: two transactions that each read both records and write one of them don't both commit.
pub async fn write_skew_is_caught(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["a", "b"], 100).await? else { return Ok(()) };
    let (one, two) = (t.store.begin(), t.store.begin());
    for tx in [&one, &two] {
        assert_eq!(balance(tx, &t, "a").await? + balance(tx, &t, "b").await?, 200);
    }
    set(&one, &t, "a", -50).await?;
    set(&two, &t, "b", -50).await?;
    one.commit().await?;
    refused(ErrorKind::Conflict, two.commit().await);
    assert_eq!(cents(t.get(account("b")).await?), 100);
    Ok(())
}

/// A transaction that only reads several records fails where they changed while it read: what it saw was of one moment, or is refused.
pub async fn reads_alone_are_checked(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["a", "b"], 100).await? else { return Ok(()) };
    let tx = t.store.begin();
    balance(&tx, &t, "a").await?;
    t.put(account("a"), json!({"cents": 0})).await?;
    t.put(account("b"), json!({"cents": 200})).await?;
    balance(&tx, &t, "b").await?;
    refused(ErrorKind::Conflict, tx.commit().await);
    let tx = t.store.begin();
    assert_eq!(balance(&tx, &t, "a").await? + balance(&tx, &t, "b").await?, 200);
    assert!(tx.commit().await?.is_empty());
    Ok(())
}

/// `transaction` runs its closure again after a conflict, with fresh reads, until it commits.
pub async fn a_conflict_runs_the_closure_again(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["a", "b"], 100).await? else { return Ok(()) };
    let runs = Cell::new(0);
    let seen = t.store.transaction(async |tx| {
        runs.set(runs.get() + 1);
        let read = balance(&tx, &t, "a").await?;
        if runs.get() <= 2 {
            // Somebody else is quicker.
            t.put(account("a"), json!({"cents": read + 1000})).await?;
        }
        set(&tx, &t, "a", read + 1).await?;
        set(&tx, &t, "b", read).await?;
        Ok(read)
    });
    assert_eq!(seen.await?, 2100);
    assert_eq!(runs.get(), 3);
    assert_eq!((cents(t.get(account("a")).await?), cents(t.get(account("b")).await?)), (2101, 2100));
    Ok(())
}

/// Eight writers increment one counter in transactions: not one increment is lost. One record is within every backend's reach.
pub async fn counters_lose_nothing(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    t.put(account("a"), json!({"cents": 0})).await?;
    let work = (0..8).map(|_| async {
        for _ in 0..5 {
            t.store
                .transaction(async |tx| {
                    let read = balance(&tx, &t, "a").await?;
                    tokio::task::yield_now().await;
                    set(&tx, &t, "a", read + 1).await
                })
                .await?;
        }
        Ok::<_, storage_core::Error>(())
    });
    futures::future::try_join_all(work).await?;
    assert_eq!(t.value(account("a")).await?, json!({"cents": 40}));
    assert_eq!(t.version(account("a")).await?, Version(41));
    Ok(())
}

/// A staged insert of what is there is refused at once; one of what somebody else inserts meanwhile is a conflict.
pub async fn inserts_expect_absence(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["a"], 1).await? else { return Ok(()) };
    let tx = t.store.begin();
    refused(ErrorKind::AlreadyExists, tx.insert(&t.name, account("a"), fields(json!({}))).await);
    tx.insert(&t.name, account("b"), fields(json!({"cents": 2}))).await?;
    refused(ErrorKind::AlreadyExists, tx.insert(&t.name, account("b"), fields(json!({}))).await);
    t.store.upsert(&t.name, account("b"), fields(json!({"cents": 9}))).await?;
    refused(ErrorKind::Conflict, tx.commit().await);
    assert_eq!(t.value(account("b")).await?, json!({"cents": 9}));
    assert!(t.store.delete(&t.name, account("b"), Expect::Version(Version(1))).await?);
    Ok(())
}
