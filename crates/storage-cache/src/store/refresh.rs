//! Loads ahead of time, while callers are given what is there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use storage_core::{Result, SetOptions, clock};

use super::flight::Joined;
use super::{CacheStore, Shared};
use crate::counters::count;

/// After a load ahead of time has failed, none is tried for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a value is good, and when it is loaded anew meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshOptions {
    /// For so long after it was loaded it is good.
    pub ttl: Duration,
    /// So long before that ends it is loaded anew, if somebody asks for it then. Zero: not before.
    pub ahead: Duration,
    /// For so long after that has ended it is still given to who asks, and loaded anew (stale while revalidate). Zero: who asks waits.
    pub stale: Duration,
}

impl RefreshOptions {
    /// Good for so long, and loaded anew by who asks after that.
    #[must_use]
    pub const fn new(ttl: Duration) -> Self {
        Self { ttl, ahead: Duration::ZERO, stale: Duration::ZERO }
    }

    /// Loaded anew so long before its end.
    #[must_use]
    pub const fn ahead(mut self, ahead: Duration) -> Self {
        self.ahead = ahead;
        self
    }

    /// Given for so long after its end while it is loaded anew.
    #[must_use]
    pub const fn stale(mut self, stale: Duration) -> Self {
        self.stale = stale;
        self
    }
}

impl Shared {
    fn set_options(&self, options: &RefreshOptions) -> SetOptions {
        let RefreshOptions { ttl, ahead, stale } = *options;
        let refreshes = !(ahead.is_zero() && stale.is_zero());
        let refresh_at = refreshes.then(|| clock::add(self.clock.now(), ttl.saturating_sub(ahead)));
        SetOptions { ttl: Some(ttl.saturating_add(stale)), idle: None, refresh_at }
    }

    /// Loads a key anew.
    async fn refresh<F, Fut>(&self, joined: Joined, options: &RefreshOptions, load: F)
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Bytes>>,
    {
        {
            let mut turn = joined.flight.turn.lock().await;
            if turn.is_some() {
                return;
            }
            count(&self.counters.refreshes);
            match self.load_now(&joined, &self.set_options(options), load).await {
                Ok(value) => {
                    *turn = Some(value);
                    joined.land();
                    return;
                }
                Err(error) => {
                    tracing::warn!(key = &*joined.key, %error, "a cached value can't be loaded anew: the old one is used to its end");
                }
            }
        }
        // Who needs it now may load it; who has something to give does not try again yet.
        tokio::time::sleep(PAUSE).await;
    }
}

impl CacheStore {
    /// The value of a key, as by [`get_or_load`](Self::get_or_load), which is loaded anew before or after its end while callers are given what is there. The load ahead of time runs
    /// by itself; where it fails, that is logged, and tried again a second later.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_refresh<F, Fut>(&self, key: &str, options: &RefreshOptions, load: F) -> Result<Bytes>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Bytes>> + Send + 'static,
    {
        self.shared.check(key, &SetOptions::default())?;
        let Some(cached) = self.shared.look_if_it_works(key).await else {
            return self.shared.load(key, &self.shared.set_options(options), load).await;
        };
        // Begun here rather than by the task: of many who ask at once, one has it.
        if cached.refresh_at.is_some()
            && cached.is_due(self.shared.clock.now())
            && let Some(joined) = self.shared.flights.begin(key)
        {
            let (shared, options) = (Arc::clone(&self.shared), *options);
            tokio::spawn(async move { shared.refresh(joined, &options, load).await });
        }
        Ok(cached.value)
    }
}
