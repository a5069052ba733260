//! How a component's calls are guarded, as configuration says it.

use std::time::Duration;

use storage_layers::policy::{Breaker, Concurrency, PolicyConfig, RateLimit, Retry, Timeouts};

/// A part of a policy: on with its settings, or off.
pub type Part<T> = Option<T>;

/// What configuration says of a component's policy. `None`: nothing, so that the default of the driver holds; `Some(None)`: off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySettings {
    /// How long tries may take.
    pub timeouts: Option<Part<Timeouts>>,
    /// How long calls may take, tries and waits together.
    pub deadline: Option<Duration>,
    /// What is tried again.
    pub retry: Option<Part<Retry>>,
    /// When calls fail at once.
    pub breaker: Option<Part<Breaker>>,
    /// How many tries there may be in a second.
    pub rate_limit: Option<Part<RateLimit>>,
    /// How many calls there may be at a time.
    pub concurrency: Option<Part<Concurrency>>,
}

impl PolicySettings {
    /// The policy of a backend: behind a network, timeouts and retries unless said otherwise; else what is asked for. `timeout` is the component's,
    /// which bounds a try where `timeouts` doesn't say.
    #[must_use]
    pub fn resolve(&self, is_remote: bool, timeout: Option<Duration>) -> PolicyConfig {
        let default = if is_remote { PolicyConfig::remote() } else { PolicyConfig::default() };
        let retry = self.retry.clone().unwrap_or(default.retry);
        let needed = retry.is_some() || default.timeouts.is_some();
        let fallback = needed.then(|| timeout.map_or_else(Timeouts::default, Timeouts::calls));
        PolicyConfig {
            timeouts: self.timeouts.unwrap_or(fallback),
            deadline: self.deadline,
            retry,
            breaker: self.breaker.clone().unwrap_or(default.breaker),
            rate_limit: self.rate_limit.unwrap_or(default.rate_limit),
            concurrency: self.concurrency.unwrap_or(default.concurrency),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_backends_behind_a_network_are_guarded_unasked() {
        let said_nothing = PolicySettings::default();
        assert_eq!(said_nothing.resolve(false, Some(Duration::from_secs(5))), PolicyConfig::default());
        assert_eq!(said_nothing.resolve(true, None), PolicyConfig::remote());
        let off = PolicySettings { retry: Some(None), timeouts: Some(None), ..PolicySettings::default() };
        assert_eq!(off.resolve(true, None), PolicyConfig::default());
    }

    #[test]
    fn the_components_timeout_bounds_a_try() {
        let retry = PolicySettings { retry: Some(Some(Retry::default())), ..PolicySettings::default() };
        let timeouts = retry.resolve(false, Some(Duration::from_secs(120))).timeouts;
        assert_eq!(timeouts, Some(Timeouts::calls(Duration::from_secs(120))));
    }
}
