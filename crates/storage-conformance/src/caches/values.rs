//! Values come back as they were given.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use storage_core::{MAX_CACHE_KEY, SetOptions};

use super::CacheHarness;
use super::fixture::Fixture;
use crate::blobs::fixture::noise;
use crate::{CaseResult, Flavor};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A value comes back; a key that was not set has none.
pub async fn a_value_comes_back(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    assert_eq!(c.get("a").await?, None);
    c.set("a", "1").await?;
    c.set("b", "2").await?;
    for _ in 0..5 {
        assert_eq!((c.get("a").await?, c.get("b").await?), (Some("1".into()), Some("2".into())));
    }
    assert_eq!(c.get("c").await?, None);
    Ok(())
}

/// A set takes the place of the value that was there, whatever their lengths.
pub async fn a_set_replaces(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    for len in [10, 100_000, 0, 5, 300_000, 10] {
        let value = noise(len);
        c.set("a", value.clone()).await?;
        assert_eq!(c.get("a").await?, Some(value), "{len} bytes");
    }
    Ok(())
}

/// A remove says whether there was a value, and it is gone.
pub async fn a_remove_says_whether_there_was_one(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    assert!(!c.cache.remove("a").await?);
    c.set("a", "1").await?;
    c.set("b", "2").await?;
    assert!(c.cache.remove("a").await?);
    assert!(!c.cache.remove("a").await?);
    assert_eq!((c.get("a").await?, c.get("b").await?), (None, Some("2".into())));
    c.set("a", "3").await?;
    assert_eq!(c.get("a").await?, Some("3".into()));
    Ok(())
}

/// A clear removes all values, and none that is set after it.
pub async fn a_clear_removes_all(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    for round in 0..20 {
        for n in 0..10 {
            c.set(&format!("{n}"), format!("{round}")).await?;
        }
        c.cache.clear().await?;
        c.set("after", format!("{round}")).await?;
        for n in 0..10 {
            assert_eq!(c.get(&format!("{n}")).await?, None);
        }
        assert_eq!(c.get("after").await?, Some(format!("{round}").into()));
    }
    Ok(())
}

/// Values of any length, of any bytes.
pub async fn values_are_bytes(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    let all: Bytes = (0..=255_u8).collect();
    let values = [Bytes::new(), Bytes::from_static(b"\0"), all, noise(4_095), noise(4_096), noise(262_144), noise(1_000_000)];
    for (n, value) in values.iter().enumerate() {
        let key = n.to_string();
        c.set(&key, value.clone()).await?;
        assert_eq!(c.get(&key).await?.as_ref(), Some(value), "{} bytes", value.len());
    }
    Ok(())
}

/// Keys are text of any kind: what could be a path, a number or a pattern is none, and those that look alike are not.
pub async fn odd_keys(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    let long = "k".repeat(MAX_CACHE_KEY);
    let longer_by_one = format!("{}l", &long[1..]);
    let keys = [
        "a",
        "A",
        "a ",
        " a",
        "a/b",
        "/a",
        "../a",
        ".",
        "..",
        "a\0b",
        "a\nb",
        "*",
        "a?",
        "%2F",
        "ä",
        "a\u{308}",
        "😀",
        "0",
        "00",
        "-1",
        &long,
        &longer_by_one,
    ];
    for key in keys {
        c.set(key, format!("of {key}")).await?;
    }
    for key in keys {
        assert_eq!(c.get(key).await?, Some(format!("of {key}").into()), "{key:?}");
    }
    assert!(c.cache.remove("a").await?);
    assert_eq!(c.get("A").await?, Some("of A".into()));
    Ok(())
}

/// When to fetch a value anew comes back with it.
pub async fn the_time_of_a_refresh_comes_back(h: &dyn CacheHarness) -> CaseResult {
    let c = Fixture::open(h).await?;
    for at in [None, DateTime::<Utc>::from_timestamp_micros(1_800_000_000_123_456)] {
        c.cache.set("a", "1".into(), &SetOptions { refresh_at: at, ..SetOptions::default() }).await?;
        for _ in 0..3 {
            assert_eq!(super::fixture::read(&*c.cache, "a").await?.map(|cached| cached.refresh_at), Some(at));
        }
    }
    Ok(())
}
