//! What a cache says it has done.

use std::time::Duration;

use storage_core::SetOptions;

use super::CacheHarness;
use super::fixture::Fixture;
use crate::opened::PATIENCE;
use crate::{CaseResult, Flavor};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// Each read is a hit or a miss, once.
pub async fn reads_are_hits_or_misses(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    c.set("a", "1").await?;
    c.set("b", "1").await?;
    for _ in 0..7 {
        c.get("a").await?;
    }
    for _ in 0..3 {
        c.get("none").await?;
    }
    let stats = c.cache.stats().await?;
    assert_eq!((stats.hits, stats.misses, stats.sets), (7, 3, 2));
    assert_eq!(stats.hit_ratio(), Some(0.7));
    Ok(())
}

/// What goes is counted by why it went.
pub async fn what_goes_is_counted_by_cause(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    c.set("replaced", "1").await?;
    c.set("replaced", "2").await?;
    c.set("removed", "1").await?;
    c.cache.remove("removed").await?;
    c.cache.remove("removed").await?;
    c.cache.set("expired", "1".into(), &SetOptions::ttl(Duration::from_millis(50))).await?;
    c.until_gone("expired").await?;
    // It may be found out later than its time is over.
    let counted = async {
        while c.cache.stats().await?.removals.expired == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        c.cache.stats().await
    };
    let removals = tokio::time::timeout(PATIENCE, counted).await.expect("what has expired is not counted")?.removals;
    assert_eq!((removals.replaced, removals.removed, removals.expired, removals.damaged), (1, 1, 1, 0));
    Ok(())
}

/// Where a cache knows how much it holds, it holds what was set.
pub async fn what_is_there_is_counted(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    for n in 0..10 {
        c.set(&n.to_string(), vec![7; 10_000]).await?;
    }
    let stats = c.cache.stats().await?;
    assert!(stats.entries.is_none_or(|entries| entries == 10), "{stats:?}");
    assert!(stats.bytes.is_none_or(|bytes| (100_000..200_000).contains(&bytes)), "{stats:?}");
    c.cache.clear().await?;
    let stats = c.cache.stats().await?;
    assert!(stats.entries.is_none_or(|entries| entries == 0) && stats.bytes.is_none_or(|bytes| bytes == 0), "{stats:?}");
    Ok(())
}
