//! Nobody reads what is older than what was done before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use futures::FutureExt as _;
use storage_core::Cache;

use super::CacheHarness;
use super::fixture::{FOREVER, Fixture, read};
use crate::{CaseResult, Flavor};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

async fn number(cache: &dyn Cache, key: &str) -> storage_core::Result<Option<u64>> {
    let cached = read(cache, key).await?;
    Ok(cached.map(|cached| String::from_utf8_lossy(&cached.value).parse().expect("a number")))
}

/// Whoever sets a key reads that value, a later one, or none, however many do so at once; and so do those who know that it was set.
pub async fn reads_never_go_back(h: &dyn CacheHarness) -> CaseResult {
    const KEYS: usize = 20;
    let c = Fixture::open(h).await?;
    let writers = (0..KEYS).map(|n| {
        let cache = Arc::clone(&c.cache);
        let known = Arc::new(AtomicU64::new(0));
        async move {
            let key = format!("key {n}");
            let reader = tokio::spawn({
                let (cache, key, known) = (Arc::clone(&cache), key.clone(), Arc::clone(&known));
                async move {
                    loop {
                        let least = known.load(Ordering::Acquire);
                        if least == u64::MAX {
                            return Ok::<_, storage_core::Error>(());
                        }
                        let found = number(&*cache, &key).await?;
                        assert!(found.is_none_or(|found| found >= least), "{found:?} after {least}");
                        tokio::task::yield_now().await;
                    }
                }
            });
            for n in 1..=100_u64 {
                if n % 7 == 0 {
                    cache.remove(&key).await?;
                    assert_eq!(number(&*cache, &key).await?, None, "after a remove");
                } else {
                    cache.set(&key, n.to_string().into(), &FOREVER).await?;
                    let found = number(&*cache, &key).await?;
                    assert!(found.is_none_or(|found| found == n), "{found:?} after {n}");
                }
                known.store(n, Ordering::Release);
            }
            known.store(u64::MAX, Ordering::Release);
            reader.await.expect("a reader")
        }
    });
    futures::future::try_join_all(writers.map(tokio::spawn).map(|writer| writer.map(|done| done.expect("a writer")))).await?;
    Ok(())
}

/// A call that was dropped does not take effect after a later one.
pub async fn a_dropped_call_does_not_come_late(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    for round in 0..100_u64 {
        // Begun, and dropped at once.
        let mut dropped = Box::pin(c.cache.set("a", "dropped".into(), &FOREVER));
        let begun = futures::future::poll_fn(|context| Poll::Ready(dropped.poll_unpin(context).is_ready())).await;
        drop(dropped);
        if round % 2 == 0 {
            c.cache.remove("a").await?;
            assert_eq!(c.get("a").await?, None, "round {round}, done at once: {begun}");
        } else {
            c.set("a", "kept").await?;
        }
        for _ in 0..3 {
            tokio::task::yield_now().await;
            let found = c.get("a").await?;
            assert!(found.as_ref().is_none_or(|found| *found == "kept" && round % 2 == 1), "round {round}: {found:?}");
        }
    }
    Ok(())
}

/// Many set one key at once: afterwards there is one value, which stays the same.
pub async fn concurrent_sets_end_with_one(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    for _ in 0..20 {
        let sets = (0..8_u64).map(|n| {
            let cache = Arc::clone(&c.cache);
            tokio::spawn(async move { cache.set("a", n.to_string().into(), &FOREVER).await })
        });
        for set in futures::future::join_all(sets).await {
            set.expect("a set")?;
        }
        let first = c.get("a").await?;
        for _ in 0..5 {
            let later = c.get("a").await?;
            assert!(later.is_none() || later == first, "{later:?} after {first:?}");
        }
    }
    Ok(())
}
