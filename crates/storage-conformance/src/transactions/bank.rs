//! Money moves between accounts: the sum holds at every read.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use storage_core::Expect;

use super::fixture::{account, accounts, balance, cents, set};
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// While four writers move money between five accounts, every read of all of them, by keys or in a transaction, adds up, and so does the end.
pub async fn the_sum_holds_at_every_read(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &NAMES, 100).await? else { return Ok(()) };
    let done = AtomicBool::new(false);
    let writers = async {
        let writers = (0..4_usize).map(|writer| {
            let t = &t;
            async move {
                for round in 0..15_usize {
                    let (from, to) = (NAMES[(writer + round) % 5], NAMES[(writer * 2 + round * 3 + 1) % 5]);
                    if from == to {
                        continue;
                    }
                    let transfer = t.store.transaction(async |tx| {
                        let (rich, poor) = (balance(&tx, t, from).await?, balance(&tx, t, to).await?);
                        tokio::task::yield_now().await;
                        set(&tx, t, from, rich - 7).await?;
                        set(&tx, t, to, poor + 7).await
                    });
                    transfer.await?;
                }
                Ok::<_, storage_core::Error>(())
            }
        });
        let outcome = futures::future::try_join_all(writers).await;
        done.store(true, Ordering::SeqCst);
        outcome
    };
    let reader = async {
        let keys = NAMES.map(account);
        let mut reads = 0;
        while !done.load(Ordering::SeqCst) || reads == 0 {
            let found = t.store.get_many(&t.name, &keys).await?;
            assert_eq!(found.into_iter().map(cents).sum::<i64>(), 500, "a read of many keys is of one moment");
            reads += 1;
            tokio::task::yield_now().await;
        }
        Ok::<_, storage_core::Error>(())
    };
    let auditor = async {
        while !done.load(Ordering::SeqCst) {
            let sum = t.store.transaction(async |tx| {
                let mut sum = 0;
                for name in NAMES {
                    sum += balance(&tx, &t, name).await?;
                }
                Ok(sum)
            });
            match sum.await {
                Ok(sum) => assert_eq!(sum, 500, "a transaction that only reads sees one moment"),
                // Writers may be quicker a hundred times over.
                Err(error) => assert_eq!(error.kind(), storage_core::ErrorKind::Conflict, "{error}"),
            }
            tokio::task::yield_now().await;
        }
        Ok::<_, storage_core::Error>(())
    };
    futures::try_join!(writers, reader, auditor)?;
    let end = t.all(t.query()).await?;
    assert_eq!(end.into_iter().map(|record| cents(Some(record))).sum::<i64>(), 500);
    Ok(())
}

/// Of several transactions that take the last of something, one gets it.
pub async fn only_one_takes_the_last(h: &dyn Harness) -> CaseResult {
    let Some(t) = accounts(h, &["stock", "sold"], 1).await? else { return Ok(()) };
    t.put_if(account("sold"), json!({"cents": 0}), Expect::Present).await?;
    let buyers = (0..6).map(|_| {
        t.store.transaction(async |tx| {
            let left = balance(&tx, &t, "stock").await?;
            tokio::task::yield_now().await;
            if left == 0 {
                return Ok(false);
            }
            set(&tx, &t, "stock", left - 1).await?;
            let sold = balance(&tx, &t, "sold").await?;
            set(&tx, &t, "sold", sold + 1).await?;
            Ok(true)
        })
    });
    let got = futures::future::try_join_all(buyers).await?;
    assert_eq!(got.into_iter().filter(|got| *got).count(), 1);
    assert_eq!((cents(t.get(account("stock")).await?), cents(t.get(account("sold")).await?)), (0, 1));
    Ok(())
}
