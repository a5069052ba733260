//! Values go when their time is over, not before.

use std::time::{Duration, Instant};

use storage_core::SetOptions;

use super::CacheHarness;
use super::fixture::{FOREVER, Fixture};
use crate::{CaseResult, Flavor};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

const SHORT: Duration = Duration::from_millis(300);

/// A value goes when its time to live is over, not before; others stay.
pub async fn a_value_goes_when_its_time_is_over(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    c.set("stays", "1").await?;
    let began = Instant::now();
    c.cache.set("goes", "1".into(), &SetOptions::ttl(SHORT)).await?;
    let found = c.get("goes").await?;
    assert!(found.is_some() || began.elapsed() >= SHORT, "it went before its time");
    c.until_gone("goes").await?;
    // A clock of the machine and one of this process may differ by a little.
    assert!(began.elapsed() + Duration::from_millis(10) >= SHORT, "it went after {:?}", began.elapsed());
    assert_eq!(c.get("stays").await?, Some("1".into()));
    assert!(!c.cache.remove("goes").await?, "what is over is not there to be removed");
    Ok(())
}

/// A set begins a new time, or none.
pub async fn a_set_begins_a_new_time(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    c.cache.set("a", "1".into(), &SetOptions::ttl(SHORT)).await?;
    c.set("a", "2").await?;
    c.cache.set("b", "1".into(), &SetOptions::ttl(SHORT)).await?;
    c.until_gone("b").await?;
    assert_eq!(c.get("a").await?, Some("2".into()));
    Ok(())
}

/// A read does not prolong the time to live.
pub async fn reads_do_not_prolong_the_time_to_live(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    c.cache.set("a", "1".into(), &SetOptions::ttl(SHORT)).await?;
    c.until_gone("a").await?;
    Ok(())
}

/// What is to be kept for no time is not kept, and what was there is gone.
pub async fn no_time_at_all(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    c.set("a", "1").await?;
    c.cache.set("a", "2".into(), &SetOptions::ttl(Duration::ZERO)).await?;
    assert_eq!(c.get("a").await?, None);
    Ok(())
}

/// The longest time to live there is.
pub async fn a_very_long_time(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    for ttl in [Duration::from_secs(3600 * 24 * 365 * 200), Duration::MAX] {
        c.cache.set("a", "1".into(), &SetOptions::ttl(ttl)).await?;
        assert_eq!(c.get("a").await?, Some("1".into()), "{ttl:?}");
    }
    Ok(())
}

/// A value goes when it has not been used for its idle time, and stays as long as it is.
pub async fn a_value_goes_when_it_is_not_used(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    if !c.cache.capabilities().idle {
        // Stores refuse idle times there; a value that nobody uses stays.
        c.set("idle", "1").await?;
        tokio::time::sleep(SHORT * 2).await;
        assert_eq!(c.get("idle").await?, Some("1".into()));
        return Ok(());
    }
    c.cache.set("idle", "1".into(), &FOREVER.idle(SHORT)).await?;
    c.cache.set("used", "1".into(), &FOREVER.idle(SHORT)).await?;
    let (began, mut last) = (Instant::now(), Instant::now());
    while began.elapsed() < SHORT * 2 {
        let found = c.get("used").await?;
        if found.is_none() {
            assert!(last.elapsed() >= SHORT, "a value went although it was used {:?} ago", last.elapsed());
            break;
        }
        last = Instant::now();
        tokio::time::sleep(SHORT / 10).await;
    }
    assert_eq!(c.get("idle").await?, None, "not used for {:?}", began.elapsed());
    // The time to live ends it all the same.
    c.cache.set("both", "1".into(), &SetOptions::ttl(SHORT).idle(SHORT * 100)).await?;
    c.until_gone("both").await?;
    Ok(())
}
