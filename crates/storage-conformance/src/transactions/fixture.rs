//! Accounts for transactions.

use serde_json::json;
use storage_core::{Atomicity, Batch, ErrorKind, Expect, Key, Record, Transaction, fields};

use crate::check::refused;
use crate::records::batch::{key, partitioned};
use crate::records::table::Table;
use crate::{Failure, Harness};

/// A table `t` with some accounts in one partition. `None` where the backend can't write two records together, which is then checked.
pub(crate) async fn accounts<'h>(h: &'h dyn Harness, names: &[&str], cents: i64) -> Result<Option<Table<'h>>, Failure> {
    let t = partitioned(h).await?;
    for name in names {
        t.put(key(name), json!({"cents": cents})).await?;
    }
    if t.capabilities().atomic >= Atomicity::Partition {
        return Ok(Some(t));
    }
    let outcome = t.store.transaction(async |tx| {
        tx.put(&t.name, key("x"), fields(json!({"cents": 1}))).await?;
        tx.put(&t.name, key("y"), fields(json!({"cents": 1}))).await
    });
    refused(ErrorKind::Unsupported, outcome.await);
    refused(ErrorKind::Unsupported, two_puts(&t).await);
    assert_eq!(t.count().await?, names.len() as u64);
    Ok(None)
}

async fn two_puts(t: &Table<'_>) -> storage_core::Result<Vec<storage_core::Version>> {
    let put = |batch: Batch, id: &str| batch.put(&t.name, key(id), fields(json!({})), Expect::Anything);
    t.commit(put(put(Batch::new(), "x"), "y")).await
}

/// The balance in a record.
pub(crate) fn cents(record: Option<Record>) -> i64 {
    record.and_then(|record| record.fields["cents"].as_i64()).expect("an account with a balance")
}

/// The balance of an account, as the transaction sees it.
pub(crate) async fn balance(tx: &Transaction, t: &Table<'_>, name: &str) -> storage_core::Result<i64> {
    Ok(cents(tx.get(&t.name, account(name)).await?))
}

/// The key of an account.
pub(crate) fn account(name: &str) -> Key {
    key(name)
}

/// Sets a balance.
pub(crate) async fn set(tx: &Transaction, t: &Table<'_>, name: &str, cents: i64) -> storage_core::Result<()> {
    tx.update(&t.name, account(name), fields(json!({"cents": cents}))).await
}
