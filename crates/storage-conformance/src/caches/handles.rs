//! Caches are opened and closed.

use std::time::Duration;

use storage_core::SetOptions;

use super::CacheHarness;
use super::fixture::Fixture;
use crate::check::done_or_unavailable;
use crate::{CaseResult, Flavor};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// What a persistent cache holds is there after it was closed and opened again, with its time; what was removed is not. Of another one's, what is there is right.
pub async fn values_survive_close(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    let survives = c.cache.capabilities().persistent;
    for n in 0..50 {
        c.set(&n.to_string(), format!("value {n}")).await?;
    }
    c.cache.set("over", "1".into(), &SetOptions::ttl(Duration::from_millis(50))).await?;
    c.cache.remove("7").await?;
    c.set("8", "another").await?;
    c.until_gone("over").await?;
    c.cache.close().await?;
    let again = Fixture { harness: h, cache: c.harness.open(&c.place).await?, place: c.place };
    for n in 0..50 {
        let expected = match n {
            7 => None,
            8 => Some("another".into()),
            n => Some(format!("value {n}").into()),
        };
        let found = again.get(&n.to_string()).await?;
        assert!(found == expected || !survives && found.is_none(), "{n}: {found:?}");
    }
    assert_eq!(again.get("over").await?, None);
    let entries = again.cache.stats().await?.entries;
    assert!(entries.is_none_or(|entries| entries == 49 || !survives && entries < 49), "{entries:?} entries");
    Ok(())
}

/// A closed cache answers, or says that it is closed. It may be closed twice.
pub async fn a_closed_cache_fails_cleanly(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    c.set("a", "1").await?;
    c.cache.ping().await?;
    c.cache.close().await?;
    c.cache.close().await?;
    done_or_unavailable(c.get("a").await);
    done_or_unavailable(c.set("a", "2").await);
    done_or_unavailable(c.cache.remove("a").await);
    done_or_unavailable(c.cache.clear().await);
    done_or_unavailable(c.cache.stats().await);
    done_or_unavailable(c.cache.ping().await);
    Ok(())
}

/// A cache says what it is.
pub async fn a_cache_says_what_it_is(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    assert!(!c.cache.info().driver.is_empty() && !c.cache.info().location.is_empty());
    Ok(())
}
