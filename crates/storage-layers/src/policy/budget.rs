//! The retry budget: a service that is down does not get many times the load.

use std::fmt;
use std::time::Duration;

use tower::retry::budget::{Budget as _, TpsBudget};

use super::Retry;

/// Over how long successes count.
const WINDOW: Duration = Duration::from_secs(10);

/// Tokens that successes put in and retries take out (tower's, after finagle's).
pub(super) struct Budget(TpsBudget);

impl Budget {
    pub(super) fn new(retry: &Retry) -> Self {
        Self(TpsBudget::new(WINDOW, retry.reserve, retry.budget))
    }

    pub(super) fn succeeded(&self) {
        self.0.deposit();
    }

    /// True where there may be one retry more.
    pub(super) fn take(&self) -> bool {
        self.0.withdraw()
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Budget")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_share_of_the_successes() {
        let budget = Budget::new(&Retry { budget: 0.2, reserve: 0, ..Retry::default() });
        assert!(!budget.take());
        (0..10).for_each(|_| budget.succeeded());
        assert!(budget.take() && budget.take());
        assert!(!budget.take());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reserve_comes_back_with_time() {
        let budget = Budget::new(&Retry { budget: 0.0, reserve: 1, ..Retry::default() });
        let taken = std::iter::repeat_with(|| budget.take()).take_while(|taken| *taken).count();
        assert_eq!(taken, 10, "one per second of the window");
        tokio::time::advance(WINDOW * 2).await;
        assert!(budget.take());
    }
}
