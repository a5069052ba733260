//! How many tries there may be in a second.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use storage_core::{Error, ErrorKind, Result};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::RateLimit;
use super::concurrency::Place;

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>;

pub(super) struct Rate {
    settings: RateLimit,
    limiter: Limiter,
    /// Who has it sleeps until the next try may go; the others wait for it in the order in which they came.
    turn: Mutex<()>,
    waiting: AtomicU32,
}

impl Rate {
    pub(super) fn new(settings: RateLimit) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(settings.per_second));
        let quota = settings.burst.map_or(quota, |burst| quota.allow_burst(at_least_one(burst)));
        let limiter = RateLimiter::direct_with_clock(quota, TokioClock(Instant::now()));
        Self { settings, limiter, turn: Mutex::new(()), waiting: AtomicU32::new(0) }
    }

    /// Waits until there may be one try more, first come, first served.
    pub(super) async fn take(&self) -> Result<()> {
        if let Ok(_turn) = self.turn.try_lock()
            && self.limiter.check().is_ok()
        {
            return Ok(());
        }
        // Who would wait longer than is allowed is told at once.
        let max_wait = self.settings.max_wait;
        let most = max_wait.as_secs_f64() * f64::from(self.settings.per_second);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of reals saturate")]
        let _place = Place::take(&self.waiting, most.ceil() as u32).ok_or_else(|| self.too_many())?;
        timeout(max_wait, self.turn()).await.map_err(|_| self.too_many())
    }

    async fn turn(&self) {
        let _turn = self.turn.lock().await;
        while let Err(not_yet) = self.limiter.check() {
            sleep(not_yet.wait_time_from(self.limiter.clock().now())).await;
        }
    }

    fn too_many(&self) -> Error {
        let RateLimit { per_second, max_wait, .. } = self.settings;
        let error = Error::new(
            ErrorKind::Throttled,
            format!(
                "the limit of {per_second} tries per second that this program is set to leaves no turn within {max_wait:?}: nothing was sent; call less often, or raise `rate_limit`"
            ),
        );
        error.with_retry_after(max_wait)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rate").field(&self.settings).finish()
    }
}

/// tokio's time, which tests move.
#[derive(Clone)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_are_spread_after_a_burst() {
        let rate = Rate::new(RateLimit { per_second: 10, burst: Some(5), max_wait: Duration::from_secs(10) });
        let began = Instant::now();
        join_all((0..5).map(|_| rate.take())).await.into_iter().collect::<Result<()>>().unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        join_all((0..10).map(|_| rate.take())).await.into_iter().collect::<Result<()>>().unwrap();
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(999) && took < Duration::from_millis(1100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_allowed() {
        let rate = Rate::new(RateLimit { per_second: 1, burst: Some(1), max_wait: Duration::from_secs(3) });
        let outcomes = join_all((0..10).map(|_| rate.take())).await;
        let passed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!((3..=4).contains(&passed), "{passed}");
        let error = outcomes.into_iter().find_map(Result::err).unwrap();
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Throttled, Some(Duration::from_secs(3))));
    }
}
