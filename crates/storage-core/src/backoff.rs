//! Waiting a little longer each time.

use std::time::Duration;

/// Delays that double from a first to a longest one, each with "full jitter": drawn evenly from half of it to all of it, so that many
/// waiters spread out (after M. Brooker, "Exponential Backoff And Jitter").
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
    state: u64,
}

impl Backoff {
    /// From `first` up to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        // Randomness for spreading, not for secrets: a v4 UUID seeds a small generator.
        let (seed, _) = uuid::Uuid::new_v4().as_u64_pair();
        Self { first, longest, tries: 0, state: seed | 1 }
    }

    /// The delay before the next try.
    #[must_use]
    pub fn next_delay(&mut self) -> Duration {
        let full = self.delay_after(self.tries);
        self.tries = self.tries.saturating_add(1);
        // xorshift64* (S. Vigna).
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let fraction = (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f64 / f64::from(1 << 24);
        full.mul_f64(0.5 + fraction / 2.0)
    }

    /// The delay after so many failures, without jitter.
    #[must_use]
    pub fn delay_after(&self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.min(30)).min(self.longest)
    }

    /// Starts again from the first delay.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_stay_within_the_jitter() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
        for expected in [10, 20, 40, 80, 100, 100] {
            let delay = backoff.next_delay();
            assert!(delay >= Duration::from_millis(expected) / 2 && delay <= Duration::from_millis(expected), "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(10));
        assert_eq!(Backoff::new(Duration::from_secs(1), Duration::from_secs(60)).delay_after(u32::MAX), Duration::from_secs(60));
    }
}
