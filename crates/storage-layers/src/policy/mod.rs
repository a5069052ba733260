//! How calls to a backend are guarded: timeout, retry, circuit breaker, limits.
//!
//! The order is fixed, whatever the order of the builder's calls:
//!
//! ```text
//! deadline ( concurrency limit ( rate limit ( breaker ( retry ( timeout ( the backend ))))))
//! ```
//!
//! So a timeout ends one try and not the whole of a call; the breaker sees how a call ended, not each of its tries; and a call that waits for its
//! turn keeps nobody else waiting. What may be tried again is decided in one place: [`Repeat`].

mod breaker;
mod budget;
mod call;
mod chain;
mod concurrency;
mod config;
mod idle;
mod rate;
mod repeat;
mod settings;
mod tries;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use storage_core::{Error, Result};

pub use self::breaker::BreakerState;
use self::breaker::CircuitBreaker;
use self::budget::Budget;
pub(crate) use self::call::{Call, Limit};
use self::concurrency::Slots;
pub use self::config::{PolicyConfig, Settings};
pub(crate) use self::idle::{Activity, until_idle};
use self::rate::Rate;
pub use self::repeat::Repeat;
pub use self::settings::{Breaker, Concurrency, RateLimit, Retry, Timeouts};
pub(crate) use self::tries::Tries;

/// How calls are guarded. Cheap to clone; clones share breaker, limits and retry budget, so all handles of one backend should have one.
///
/// [`Policy::default`] guards nothing and costs nothing.
#[derive(Clone, Default)]
pub struct Policy(Arc<Parts>);

#[derive(Default)]
struct Parts {
    timeouts: Option<Timeouts>,
    deadline: Option<Duration>,
    retry: Option<(Retry, Budget)>,
    breaker: Option<CircuitBreaker>,
    rate: Option<Rate>,
    slots: Option<Slots>,
}

impl Policy {
    /// Puts a policy together.
    #[must_use]
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::default()
    }

    /// True where nothing is guarded.
    #[must_use]
    pub fn is_none(&self) -> bool {
        let parts = &self.0;
        parts.timeouts.is_none()
            && parts.deadline.is_none()
            && parts.retry.is_none()
            && parts.breaker.is_none()
            && parts.rate.is_none()
            && parts.slots.is_none()
    }

    /// How long things may take, where that is bounded.
    #[must_use]
    pub fn timeouts(&self) -> Option<&Timeouts> {
        self.0.timeouts.as_ref()
    }

    /// The state of the circuit breaker, where there is one.
    #[must_use]
    pub fn breaker_state(&self) -> Option<BreakerState> {
        self.0.breaker.as_ref().map(CircuitBreaker::state)
    }

    pub(crate) fn retries(&self) -> bool {
        self.0.retry.is_some()
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("timeouts", &self.0.timeouts)
            .field("deadline", &self.0.deadline)
            .field("retry", &self.0.retry.as_ref().map(|(retry, _)| retry))
            .field("breaker", &self.breaker_state())
            .field("rate", &self.0.rate)
            .field("concurrency", &self.0.slots)
            .finish()
    }
}

/// Puts a [`Policy`] together. The order of the calls means nothing.
#[derive(Clone, Debug, Default)]
pub struct PolicyBuilder {
    config: PolicyConfig,
    name: String,
}

impl From<PolicyConfig> for PolicyBuilder {
    fn from(config: PolicyConfig) -> Self {
        Self { config, name: String::new() }
    }
}

impl PolicyBuilder {
    /// Bounds each try. A policy that retries has [`Timeouts::default`] if none are set.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.config.timeouts = Some(timeouts);
        self
    }

    /// Bounds a whole call: its wait for a turn, all its tries and the waits between them. A receive's own wait is not counted; backups and changes
    /// of a table are exempt.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.config.deadline = Some(deadline);
        self
    }

    /// Tries again what failed and is safe to repeat.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.config.retry = Some(retry);
        self
    }

    /// Fails at once while the service fails.
    #[must_use]
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.config.breaker = Some(breaker);
        self
    }

    /// Bounds how many tries there are in a second.
    #[must_use]
    pub fn rate(mut self, rate: RateLimit) -> Self {
        self.config.rate_limit = Some(rate);
        self
    }

    /// Bounds how many calls there are at a time.
    #[must_use]
    pub fn concurrency(mut self, concurrency: Concurrency) -> Self {
        self.config.concurrency = Some(concurrency);
        self
    }

    /// What logs and metrics call the breaker.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The policy.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config) for a setting out of range.
    pub fn build(self) -> Result<Policy> {
        let Self { config, name } = self;
        config.check().map_err(|(key, help)| Error::config(format!("policy: `{key}` {help}")))?;
        // A retry without a timeout would wait for ever for a try that hangs.
        let timeouts = config.timeouts.or_else(|| config.retry.as_ref().map(|_| Timeouts::default()));
        Ok(Policy(Arc::new(Parts {
            timeouts,
            deadline: config.deadline,
            retry: config.retry.map(|retry| (retry.clone(), Budget::new(&retry))),
            breaker: config.breaker.map(|breaker| CircuitBreaker::new(breaker, name)),
            rate: config.rate_limit.map(Rate::new),
            slots: config.concurrency.map(Slots::new),
        })))
    }
}
