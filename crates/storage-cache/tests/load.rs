//! Loads that are done once, and never kept when they were overtaken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use storage_cache::{CacheStore, FileCache, FileCacheOptions, MemoryCache, RefreshOptions, TierOptions, TieredCache};
use storage_core::{Cache, Clock, Error, ErrorKind, Result, SetOptions};
use tokio::sync::{Notify, oneshot};

const FOREVER: SetOptions = SetOptions { ttl: None, idle: None, refresh_at: None };

fn store() -> CacheStore {
    CacheStore::new(Arc::new(MemoryCache::new(16 << 20)))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("it never came to this: {what}"));
}

/// A load that has begun, and ends when it is told to.
struct Held {
    release: oneshot::Sender<&'static str>,
    caller: tokio::task::JoinHandle<Result<Bytes>>,
}

async fn hold(cache: &CacheStore, key: &'static str) -> Held {
    let (release, value) = oneshot::channel::<&'static str>();
    let (began, begun) = oneshot::channel();
    let cache = cache.clone();
    let load = move || async move {
        began.send(()).unwrap();
        Ok(value.await.unwrap().into())
    };
    let caller = tokio::spawn(async move { cache.get_or_load(key, &FOREVER, load).await });
    begun.await.unwrap();
    Held { release, caller }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stampede_loads_once() {
    let (cache, loads, all) = (store(), Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let callers: Vec<_> = (0..1_000)
        .map(|_| {
            let (cache, loads, all) = (cache.clone(), Arc::clone(&loads), Arc::clone(&all));
            tokio::spawn(async move {
                let load = || async {
                    loads.fetch_add(1, Ordering::SeqCst);
                    all.notified().await;
                    Ok(Bytes::from_static(b"value"))
                };
                cache.get_or_load("a", &FOREVER, load).await
            })
        })
        .collect();
    // All have asked, and found nothing, before the one load ends.
    until("all have asked", async || cache.cache().stats().await.unwrap().misses > 1_000).await;
    all.notify_one();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), "value");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    let stats = cache.load_stats();
    assert_eq!((stats.loads, stats.shared, stats.failures), (1, 999, 0));
    assert_eq!(cache.stats().await.unwrap().misses, 1_000);
    assert_eq!(cache.get("a").await.unwrap(), Some("value".into()));
}

#[tokio::test]
async fn a_loader_that_fails_hands_over() {
    let (cache, tries) = (store(), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let (cache, tries) = (cache.clone(), Arc::clone(&tries));
            tokio::spawn(async move {
                let load = || async {
                    let n = tries.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    if n < 3 { Err(Error::unavailable(format!("try {n}"))) } else { Ok("value".into()) }
                };
                cache.get_or_load("a", &FOREVER, load).await
            })
        })
        .collect();
    let mut failed = Vec::new();
    for caller in callers {
        match caller.await.unwrap() {
            Ok(value) => assert_eq!(value, "value"),
            Err(error) => failed.push(error.message().to_owned()),
        }
    }
    assert_eq!(failed, ["try 0", "try 1", "try 2"], "each failure is told to who ran into it");
    assert_eq!((tries.load(Ordering::SeqCst), cache.load_stats().failures), (4, 3));
}

#[tokio::test]
async fn a_loader_that_panics_hands_over() {
    let cache = store();
    let (panic, now) = oneshot::channel::<()>();
    let (began, begun) = oneshot::channel();
    let first = tokio::spawn({
        let cache = cache.clone();
        async move {
            let load = || async move {
                began.send(()).unwrap();
                now.await.unwrap();
                panic!("as the test wants it")
            };
            cache.get_or_load("a", &FOREVER, load).await
        }
    });
    begun.await.unwrap();
    let second = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_load("a", &FOREVER, || async { Ok("second".into()) }).await }
    });
    until("the second waits", async || cache.cache().stats().await.unwrap().misses >= 3).await;
    panic.send(()).unwrap();
    assert!(first.await.unwrap_err().is_panic());
    assert_eq!(second.await.unwrap().unwrap(), "second");
}

#[tokio::test]
async fn a_loader_that_is_dropped_hands_over() {
    let cache = store();
    let held = hold(&cache, "a").await;
    let second = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_load("a", &FOREVER, || async { Ok("second".into()) }).await }
    });
    until("the second waits", async || cache.cache().stats().await.unwrap().misses >= 3).await;
    held.caller.abort();
    assert_eq!(second.await.unwrap().unwrap(), "second");
    // Dropped with nobody to hand over to, it leaves nothing.
    let held = hold(&cache, "b").await;
    held.caller.abort();
    assert!(held.caller.await.unwrap_err().is_cancelled());
    assert_eq!(cache.get_or_load("b", &FOREVER, || async { Ok("third".into()) }).await.unwrap(), "third");
}

/// Whatever changes the key while it is loaded: what was loaded goes to who had asked before, to nobody else.
#[tokio::test]
async fn a_load_that_was_overtaken_is_not_kept() {
    for change in ["remove", "set", "clear"] {
        let cache = store();
        let held = hold(&cache, "a").await;
        match change {
            "remove" => assert!(!cache.remove("a").await.unwrap()),
            "set" => cache.set("a", "new", &FOREVER).await.unwrap(),
            _ => cache.clear().await.unwrap(),
        }
        // Who asks now does not wait for what is being loaded.
        let now = cache.get_or_load("a", &FOREVER, || async { Ok("new".into()) }).await.unwrap();
        assert_eq!(now, "new", "{change}");
        held.release.send("old").unwrap();
        assert_eq!(held.caller.await.unwrap().unwrap(), "old", "{change}");
        assert_eq!(cache.get("a").await.unwrap(), Some("new".into()), "{change}");
        assert_eq!(cache.load_stats().outdated, 1, "{change}");
    }
    // With nobody who asks meanwhile.
    let cache = store();
    let held = hold(&cache, "a").await;
    cache.remove("a").await.unwrap();
    held.release.send("old").unwrap();
    held.caller.await.unwrap().unwrap();
    assert_eq!(cache.get("a").await.unwrap(), None);
}

/// Another key's change is no reason.
#[tokio::test]
async fn a_load_is_kept_whatever_happens_to_others() {
    let cache = store();
    let held = hold(&cache, "a").await;
    for n in 0..200 {
        cache.set(&format!("other {n}"), "1", &FOREVER).await.unwrap();
        cache.remove(&format!("other {n}")).await.unwrap();
    }
    held.release.send("value").unwrap();
    held.caller.await.unwrap().unwrap();
    assert_eq!(cache.get("a").await.unwrap(), Some("value".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_what_is_older_than_their_own_write() {
    own_writes_show(store(), 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_what_is_older_than_their_own_write_in_tiers() {
    for promote_after in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let files = FileCache::new(FileCacheOptions::new(folder.path()), Clock::system());
        let options = TierOptions { promote_after, ..TierOptions::default() };
        let tiers = TieredCache::new(MemoryCache::new(1 << 20), Arc::new(files), options);
        own_writes_show(CacheStore::new(Arc::new(tiers)), 50).await;
    }
}

/// 64 tasks write and read 100 keys at random: each write goes to the source, then takes the key out.
async fn own_writes_show(cache: CacheStore, steps: usize) {
    let source: Arc<Vec<AtomicU64>> = Arc::new((0..100).map(|_| AtomicU64::new(0)).collect());
    let tasks: Vec<_> = (0..64_u64)
        .map(|task| {
            let (cache, source) = (cache.clone(), Arc::clone(&source));
            tokio::spawn(async move {
                let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(task + 1);
                let mut own = vec![0_u64; 100];
                for _ in 0..steps {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let at = usize::try_from(state % 100).unwrap();
                    let key = at.to_string();
                    if state & (1 << 40) == 0 {
                        own[at] = source[at].fetch_add(1, Ordering::SeqCst) + 1;
                        cache.remove(&key).await.unwrap();
                        continue;
                    }
                    let load = || async {
                        let value = source[at].load(Ordering::SeqCst);
                        // Others write meanwhile.
                        tokio::task::yield_now().await;
                        Ok(value.to_string().into())
                    };
                    let found = cache.get_or_load(&key, &FOREVER, load).await.unwrap();
                    let found: u64 = String::from_utf8_lossy(&found).parse().unwrap();
                    assert!(found >= own[at], "key {at}: {found} after the own {}", own[at]);
                    own[at] = found;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (stats, loads) = (cache.stats().await.unwrap(), cache.load_stats());
    assert!(stats.hits > 0 && loads.loads > 0, "{stats:?} {loads:?}");
}

fn with_clock() -> (CacheStore, Clock, Arc<AtomicU64>) {
    let clock = Clock::manual();
    (CacheStore::with_clock(Arc::new(MemoryCache::new(1 << 20)), clock.clone()), clock, Arc::default())
}

async fn refreshed(cache: &CacheStore, options: &RefreshOptions, loads: &Arc<AtomicU64>) -> Bytes {
    let loads = Arc::clone(loads);
    let load = move || async move { Ok(format!("load {}", loads.fetch_add(1, Ordering::SeqCst) + 1).into()) };
    cache.get_or_refresh("a", options, load).await.unwrap()
}

#[tokio::test]
async fn a_value_is_loaded_anew_ahead_of_its_end() {
    let (cache, clock, loads) = with_clock();
    let options = RefreshOptions::new(Duration::from_secs(60)).ahead(Duration::from_secs(10));
    for _ in 0..5 {
        assert_eq!(refreshed(&cache, &options, &loads).await, "load 1");
    }
    clock.advance(Duration::from_secs(49));
    assert_eq!(refreshed(&cache, &options, &loads).await, "load 1");
    assert_eq!(cache.load_stats().refreshes, 0);
    clock.advance(Duration::from_secs(2));
    // Nobody waits for the load, and it is done once.
    for _ in 0..5 {
        assert_eq!(refreshed(&cache, &options, &loads).await, "load 1");
    }
    until("the new value is there", async || refreshed(&cache, &options, &loads).await == "load 2").await;
    assert_eq!((cache.load_stats().refreshes, cache.load_stats().loads), (1, 2));
}

#[tokio::test]
async fn a_stale_value_is_given_while_it_is_loaded_anew() {
    let (cache, clock, loads) = with_clock();
    let options = RefreshOptions::new(Duration::from_secs(60)).stale(Duration::from_secs(600));
    assert_eq!(refreshed(&cache, &options, &loads).await, "load 1");
    clock.advance(Duration::from_secs(59));
    assert_eq!(refreshed(&cache, &options, &loads).await, "load 1");
    assert_eq!(cache.load_stats().refreshes, 0);
    clock.advance(Duration::from_secs(2));
    assert_eq!(refreshed(&cache, &options, &loads).await, "load 1");
    until("the new value is there", async || refreshed(&cache, &options, &loads).await == "load 2").await;
    // Without that, who asks waits.
    let short = RefreshOptions::new(Duration::from_millis(50));
    cache.remove("a").await.unwrap();
    assert_eq!(refreshed(&cache, &short, &loads).await, "load 3");
    until("it is over", async || cache.get("a").await.unwrap().is_none()).await;
    assert_eq!(refreshed(&cache, &short, &loads).await, "load 4");
}

#[tokio::test]
async fn a_load_ahead_of_time_that_fails_leaves_the_value() {
    let (cache, clock, loads) = with_clock();
    let options = RefreshOptions::new(Duration::from_secs(60)).ahead(Duration::from_secs(10));
    refreshed(&cache, &options, &loads).await;
    clock.advance(Duration::from_secs(55));
    let fail = || async { Err(Error::unavailable("not now")) };
    for _ in 0..20 {
        assert_eq!(cache.get_or_refresh("a", &options, fail).await.unwrap(), "load 1");
        tokio::task::yield_now().await;
    }
    until("it has failed", async || cache.load_stats().failures == 1).await;
    // Not tried again at once.
    assert_eq!(refreshed(&cache, &options, &loads).await, "load 1");
    assert_eq!(cache.load_stats().refreshes, 1);
    // Who needs it does not wait for that.
    cache.remove("a").await.unwrap();
    assert_eq!(refreshed(&cache, &options, &loads).await, "load 2");
}

#[tokio::test]
async fn a_load_ahead_of_time_that_was_overtaken_is_not_kept() {
    let (cache, clock, loads) = with_clock();
    let options = RefreshOptions::new(Duration::from_secs(60)).ahead(Duration::from_secs(10));
    refreshed(&cache, &options, &loads).await;
    clock.advance(Duration::from_secs(55));
    let (release, value) = oneshot::channel::<&str>();
    let (began, begun) = oneshot::channel();
    let load = move || async move {
        began.send(()).unwrap();
        Ok(value.await.unwrap().into())
    };
    assert_eq!(cache.get_or_refresh("a", &options, load).await.unwrap(), "load 1");
    begun.await.unwrap();
    cache.remove("a").await.unwrap();
    release.send("old").unwrap();
    until("it was thrown away", async || cache.load_stats().outdated == 1).await;
    assert_eq!(cache.get("a").await.unwrap(), None);
}

#[tokio::test]
async fn bad_keys_are_refused() {
    let cache = store();
    for key in ["", &"x".repeat(1_025)] {
        for refused in [
            cache.get(key).await.map(|_| ()),
            cache.set(key, "1", &FOREVER).await,
            cache.remove(key).await.map(|_| ()),
            cache.get_or_load(key, &FOREVER, || async { Ok("1".into()) }).await.map(|_| ()),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}

/// A cache that fails costs loads, not answers.
#[tokio::test]
async fn a_cache_that_fails_is_done_without() {
    let cache = store();
    cache.cache().close().await.unwrap();
    for _ in 0..2 {
        assert_eq!(cache.get_or_load("a", &FOREVER, || async { Ok("loaded".into()) }).await.unwrap(), "loaded");
    }
    assert!(cache.load_stats().without_cache > 0);
    // Whoever has to know that it was done is told.
    assert_eq!(cache.remove("a").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// Memory is bounded, and what goes is told.
#[tokio::test]
async fn memory_is_bounded_and_what_goes_is_told() {
    let told = Arc::new(AtomicU64::new(0));
    let listener = {
        let told = Arc::clone(&told);
        Arc::new(move |_: &str, cause| {
            assert_eq!(cause, storage_core::RemovalCause::Evicted);
            told.fetch_add(1, Ordering::SeqCst);
        })
    };
    let cache = MemoryCache::with_listener(100_000, listener);
    for n in 0..100 {
        cache.insert(&n.to_string(), vec![1; 10_000], &FOREVER);
    }
    let stats = cache.stats().await.unwrap();
    assert!(stats.bytes.unwrap() <= 100_000 && stats.entries.unwrap() <= 9, "{stats:?}");
    assert_eq!((stats.removals.evicted, told.load(Ordering::SeqCst)), (100 - stats.entries.unwrap(), stats.removals.evicted));
}
