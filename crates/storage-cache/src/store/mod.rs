//! [`CacheStore`]: a cache as a program holds it.

mod flight;
mod refresh;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use storage_core::{Cache, CacheStats, Cached, Clock, Look, Result, ResultExt as _, SetOptions, check_cache_key, require};

use self::flight::{Flights, Joined, Stripe};
pub use self::refresh::RefreshOptions;
use crate::counters::count;

/// What a [`CacheStore`] has loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadStats {
    /// Loads that were begun, those ahead of time included.
    pub loads: u64,
    /// Loads that failed.
    pub failures: u64,
    /// Callers who were given what another one loaded.
    pub shared: u64,
    /// Loads ahead of time, while callers were given what was there.
    pub refreshes: u64,
    /// Values that were not kept, since their key was changed while they were loaded.
    pub outdated: u64,
    /// Calls of the cache that failed, and were done without it.
    pub without_cache: u64,
}

#[derive(Debug, Default)]
struct LoadCounters {
    loads: AtomicU64,
    failures: AtomicU64,
    shared: AtomicU64,
    refreshes: AtomicU64,
    outdated: AtomicU64,
    without_cache: AtomicU64,
    /// Second looks that found nothing: the first has been counted.
    again: AtomicU64,
}

/// A cache as a program holds it: any [`Cache`], with loads that are done once. Cheap to clone.
///
/// Loads and changes of a key look out for each other among all clones: what was loaded while its key was [set](Self::set) or [removed](Self::remove) is not kept, and
/// who asks after that is not given it. So: change the source, then remove the key, and nobody who asks later reads what was before. Handles that were made apart, by
/// [`new`](Self::new), don't know of each other's loads: make one for each cache.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use storage_cache::{CacheStore, MemoryCache};
/// use storage_core::SetOptions;
///
/// let cache = CacheStore::new(Arc::new(MemoryCache::new(64 << 20)));
/// let load = || async { Ok("made with much effort".into()) };
/// let page = cache.get_or_load("page/1", &SetOptions::ttl(Duration::from_secs(60)), load).await?;
/// assert_eq!(page, "made with much effort");
/// cache.remove("page/1").await?;
/// # Ok::<(), storage_core::Error>(()) })?;
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone)]
pub struct CacheStore {
    shared: Arc<Shared>,
}

struct Shared {
    cache: Arc<dyn Cache>,
    flights: Arc<Flights>,
    counters: LoadCounters,
    clock: Clock,
}

/// A change of a key, during which loads begin in vain.
struct Change<'a> {
    stripe: &'a Stripe,
    key: &'a str,
}

impl<'a> Change<'a> {
    fn new(stripe: &'a Stripe, key: &'a str) -> Self {
        stripe.detach(key);
        Self { stripe, key }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.stripe.detach(self.key);
    }
}

impl CacheStore {
    /// The store over a cache.
    pub fn new(cache: Arc<dyn Cache>) -> Self {
        Self::with_clock(cache, Clock::system())
    }

    /// The same, which takes from `clock` whether a value is to be loaded ahead of time.
    pub fn with_clock(cache: Arc<dyn Cache>, clock: Clock) -> Self {
        Self { shared: Arc::new(Shared { cache, flights: Flights::new(), counters: LoadCounters::default(), clock }) }
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &Arc<dyn Cache> {
        &self.shared.cache
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for a bad key; those of the cache.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        check_cache_key(key)?;
        Ok(self.shared.look(key).await?.map(|cached| cached.value))
    }

    /// Keeps a value in place of the one that was there.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for a bad key, [`Unsupported`](storage_core::ErrorKind::Unsupported) for options that the cache does not
    /// offer; those of the cache.
    pub async fn set(&self, key: &str, value: impl Into<Bytes>, options: &SetOptions) -> Result<()> {
        self.shared.check(key, options)?;
        let stripe = self.shared.flights.stripe(key);
        let _change = Change::new(stripe, key);
        let _turn = stripe.order.lock().await;
        let set = self.shared.cache.set(key, value.into(), options).await;
        set.context("cache.set", || format!("key `{key}`"))
    }

    /// Removes a value. `false`: there was none.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for a bad key; those of the cache, after which the value may still be there.
    pub async fn remove(&self, key: &str) -> Result<bool> {
        check_cache_key(key)?;
        let stripe = self.shared.flights.stripe(key);
        let _change = Change::new(stripe, key);
        let _turn = stripe.order.lock().await;
        self.shared.cache.remove(key).await.context("cache.remove", || format!("key `{key}`"))
    }

    /// Removes all values.
    ///
    /// # Errors
    /// Those of the cache, after which some may still be there.
    pub async fn clear(&self) -> Result<()> {
        let stripes = self.shared.flights.all();
        stripes.iter().for_each(Stripe::detach_all);
        let mut turns = Vec::with_capacity(stripes.len());
        for stripe in stripes {
            turns.push(stripe.order.lock().await);
        }
        let cleared = self.shared.cache.clear().await;
        stripes.iter().for_each(Stripe::detach_all);
        cleared.context("cache.clear", || "all values".into())
    }

    /// The value of a key; where there is none, `load` makes it, and it is kept.
    ///
    /// Of those who ask for a key at once, one loads. The others are given what it loaded; if it fails, panics or is dropped, the next of them loads, so that each failure is told to who
    /// ran into it. A value whose key is changed while it is loaded is not kept, and is given to those alone who had asked before. A cache that fails is done without.
    ///
    /// `load` must not ask for the same key: it would wait for itself.
    ///
    /// # Errors
    /// Those of `load`; [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for a bad key, [`Unsupported`](storage_core::ErrorKind::Unsupported) for options that the
    /// cache does not offer.
    pub async fn get_or_load<F, Fut>(&self, key: &str, options: &SetOptions, load: F) -> Result<Bytes>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Bytes>>,
    {
        self.shared.check(key, options)?;
        if let Some(cached) = self.shared.look_if_it_works(key).await {
            return Ok(cached.value);
        }
        self.shared.load(key, options, load).await
    }

    /// What the cache has done, and holds.
    ///
    /// # Errors
    /// Those of the cache.
    pub async fn stats(&self) -> Result<CacheStats> {
        let stats = self.shared.cache.stats().await?;
        let again = self.shared.counters.again.load(Ordering::Relaxed);
        Ok(CacheStats { misses: stats.misses.saturating_sub(again), ..stats })
    }

    /// What was loaded.
    #[must_use]
    pub fn load_stats(&self) -> LoadStats {
        let counters = &self.shared.counters;
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LoadStats {
            loads: now(&counters.loads),
            failures: now(&counters.failures),
            shared: now(&counters.shared),
            refreshes: now(&counters.refreshes),
            outdated: now(&counters.outdated),
            without_cache: now(&counters.without_cache),
        }
    }
}

impl Shared {
    fn check(&self, key: &str, options: &SetOptions) -> Result<()> {
        check_cache_key(key)?;
        if options.idle.is_some() {
            require(self.cache.capabilities().idle, self.cache.info(), "values that go when they are not used")?;
        }
        Ok(())
    }

    async fn look(&self, key: &str) -> Result<Option<Cached>> {
        match self.cache.look(key) {
            Look::Hit(cached) => Ok(Some(cached)),
            Look::Miss => Ok(None),
            Look::Ask => self.cache.get(key).await.context("cache.get", || format!("key `{key}`")),
        }
    }

    async fn look_if_it_works(&self, key: &str) -> Option<Cached> {
        self.look(key).await.unwrap_or_else(|error| {
            self.do_without(&error);
            None
        })
    }

    fn do_without(&self, error: &storage_core::Error) {
        count(&self.counters.without_cache);
        tracing::warn!(%error, "a cache fails: what it was asked for is loaded, and what was loaded is not kept");
    }

    async fn load<F, Fut>(&self, key: &str, options: &SetOptions, load: F) -> Result<Bytes>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Bytes>>,
    {
        let joined = self.flights.join(key);
        let mut turn = joined.flight.turn.lock().await;
        if let Some(value) = &*turn {
            count(&self.counters.shared);
            return Ok(value.clone());
        }
        // Somebody may have been done with it since the first look.
        if let Some(cached) = self.look_if_it_works(key).await {
            count(&self.counters.shared);
            return Ok(cached.value);
        }
        count(&self.counters.again);
        let value = self.load_now(&joined, options, load).await?;
        *turn = Some(value.clone());
        joined.land();
        Ok(value)
    }

    /// Loads, and keeps what was loaded unless the key was changed meanwhile. To be called by who has the turn.
    async fn load_now<F, Fut>(&self, joined: &Joined, options: &SetOptions, load: F) -> Result<Bytes>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Bytes>>,
    {
        count(&self.counters.loads);
        let value = load().await.inspect_err(|_| count(&self.counters.failures))?;
        let _turn = joined.stripe().order.lock().await;
        if !joined.is_current() {
            count(&self.counters.outdated);
        } else if let Err(error) = self.cache.set(&joined.key, value.clone(), options).await {
            self.do_without(&error);
        }
        Ok(value)
    }
}

impl fmt::Debug for CacheStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheStore").field("cache", &self.shared.cache).finish_non_exhaustive()
    }
}
