//! The time that all programs on one database agree about: the server's.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use storage_core::{Clock, Result};

/// A clock that goes as the server's does, without asking it each time.
#[derive(Debug)]
pub struct Time {
    clock: Clock,
    /// By how many microseconds the server's clock is ahead of this machine's.
    ahead: AtomicI64,
}

impl Time {
    /// A clock that is not compared yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, ahead: AtomicI64::new(0) }
    }

    /// The present.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now() + TimeDelta::microseconds(self.ahead.load(Ordering::Relaxed))
    }

    /// Compares the clocks: `ask` answers the server's. A difference that the time of asking explains is none. A clock that a test moves by hand is left as it is.
    ///
    /// # Errors
    /// Those of `ask`.
    pub async fn adjust(&self, ask: impl Future<Output = Result<DateTime<Utc>>> + Send) -> Result<()> {
        if self.clock.is_manual() {
            return Ok(());
        }
        let before = self.clock.now();
        let server = ask.await?;
        let after = self.clock.now();
        let ahead = if server < before {
            server - before
        } else if server > after {
            server - after
        } else {
            TimeDelta::zero()
        };
        self.ahead.store(ahead.num_microseconds().unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }
}

/// How long from `now` until then; nothing, if it is over.
#[must_use]
pub fn until(then: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (then - now).to_std().unwrap_or_default()
}
