//! How fast bytes may move.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many pieces a second, about, of the size that is best for a rate.
const PIECES_PER_SECOND: u64 = 10;
/// The smallest such piece.
const LEAST: u64 = 4 << 10;
/// The longest that a single piece is waited for.
const MAX_COST: Duration = Duration::from_secs(3600);

/// A rate that all files of a transfer share. Each piece takes its time, and the next one goes when that is over: so nothing is saved up while nothing moves.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: NonZeroU64,
    free_at: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until these bytes may go.
    pub(super) async fn wait(&self, bytes: u64) {
        let starts = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let starts = Instant::now().max(*free_at);
            *free_at = starts + self.cost(bytes);
            starts
        };
        tokio::time::sleep_until(starts).await;
    }

    fn cost(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        u64::try_from(nanos).map_or(MAX_COST, Duration::from_nanos).min(MAX_COST)
    }

    /// How many bytes are best moved at once.
    pub(super) fn piece(&self) -> u64 {
        (self.bytes_per_second.get() / PIECES_PER_SECOND).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time_whoever_moves_them() {
        let (pace, began) = (Pace::new(NonZeroU64::new(1000).unwrap()), Instant::now());
        pace.wait(500).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "the first go at once");
        tokio::join!(pace.wait(250), pace.wait(250));
        pace.wait(1).await;
        let took = began.elapsed();
        assert!((1000..1005).contains(&took.as_millis()), "a thousand bytes, a second: {took:?}");
        tokio::time::sleep(Duration::from_secs(10)).await;
        let began = Instant::now();
        pace.wait(1000).await;
        pace.wait(1).await;
        assert!(began.elapsed() >= Duration::from_secs(1), "idle time is not saved up");
    }

    #[test]
    fn extreme_rates_have_a_cost() {
        let pace = |rate| Pace::new(NonZeroU64::new(rate).unwrap());
        assert_eq!(pace(1).cost(u64::MAX), MAX_COST);
        assert_eq!(pace(u64::MAX).cost(1), Duration::ZERO);
        assert_eq!((pace(1).piece(), pace(1 << 30).piece()), (LEAST, (1 << 30) / 10));
    }
}
