//! The time that all programs on one database agree about: the server's.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use storage_core::{Clock, Result};

use crate::connection::Connection;
use crate::error::OrExplain as _;

/// A clock that goes as the server's does, without asking it each time.
#[derive(Debug)]
pub(crate) struct Time {
    clock: Clock,
    /// By how many microseconds the server's clock is ahead of this machine's.
    ahead: AtomicI64,
}

impl Time {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, ahead: AtomicI64::new(0) }
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now() + TimeDelta::microseconds(self.ahead.load(Ordering::Relaxed))
    }

    /// Compares the clocks. A difference that the time of asking explains is none. A clock that a test moves by hand is left as it is.
    pub(crate) async fn adjust(&self, connection: &Connection) -> Result<()> {
        if self.clock.is_manual() {
            return Ok(());
        }
        let before = self.clock.now();
        let server: DateTime<Utc> = connection.row("SELECT clock_timestamp()", Vec::new()).await?.try_get(0).or_explain()?;
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
pub(crate) fn until(then: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (then - now).to_std().unwrap_or_default()
}
