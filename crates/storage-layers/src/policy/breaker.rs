//! The circuit breaker: calls fail at once while the service fails.
//!
//! Own code because no crate does it: `failsafe` and `recloser` let every call through once the breaker is half open, count by calls or by a moving
//! average rather than over a time, and read the machine's clock, so that a test would have to sleep; those for tower are services of its kind.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use storage_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::Breaker;

/// How many parts the window moves in.
const SLICES: u32 = 10;

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go through, failures are counted.
    Closed,
    /// Calls fail at once.
    Open,
    /// A few calls try whether the service is back, the others fail at once.
    HalfOpen,
}

impl BreakerState {
    /// `closed`, `open`, `half-open`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// What a call's end says of the service.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It answered, be it with a refusal that is the caller's own doing.
    Works,
    /// It could not be reached, or did not answer.
    Fails,
    /// Nothing: it asked to slow down, or the caller went away.
    Unknown,
}

impl Verdict {
    fn of<T>(outcome: &Result<T>) -> Self {
        match outcome {
            Err(error) => match error.kind() {
                ErrorKind::Timeout => Self::Fails,
                // A full disk is no reason to stop reading from it.
                ErrorKind::Unavailable if error.is_retryable() => Self::Fails,
                ErrorKind::Throttled => Self::Unknown,
                _ => Self::Works,
            },
            Ok(_) => Self::Works,
        }
    }
}

pub(super) struct CircuitBreaker {
    settings: Breaker,
    name: String,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Grows with every change of phase: how a call of an earlier phase ends no longer counts.
    generation: u64,
}

enum Phase {
    Closed(Window),
    Open { until: Instant },
    HalfOpen { running: u32, succeeded: u32 },
}

impl CircuitBreaker {
    pub(super) fn new(settings: Breaker, name: String) -> Self {
        let window = Window::new(settings.window);
        Self { settings, name, state: Mutex::new(State { phase: Phase::Closed(window), generation: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> BreakerState {
        match &self.lock().phase {
            Phase::Closed(_) => BreakerState::Closed,
            Phase::Open { until } if *until > Instant::now() => BreakerState::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Lets a call through, or says why not.
    pub(super) fn admit(&self) -> Result<Pass<'_>> {
        let mut state = self.lock();
        if let Phase::Open { until } = state.phase {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Err(rejected(left));
            }
            self.change(&mut state, Phase::HalfOpen { running: 0, succeeded: 0 });
        }
        if let Phase::HalfOpen { running, succeeded } = &mut state.phase {
            if *running + *succeeded >= self.settings.probes {
                return Err(rejected(self.settings.open / 10));
            }
            *running += 1;
        }
        Ok(Pass { breaker: self, generation: state.generation, verdict: Verdict::Unknown })
    }

    fn change(&self, state: &mut State, phase: Phase) {
        let name = match &phase {
            Phase::Closed(_) => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        };
        state.phase = phase;
        state.generation += 1;
        match name {
            BreakerState::Open => tracing::warn!(breaker = self.name, "the circuit breaker opened: calls fail at once"),
            name => tracing::info!(breaker = self.name, state = name.as_str(), "the circuit breaker changed"),
        }
        crate::observe::breaker_changed(&self.name, name);
    }

    fn record(&self, generation: u64, verdict: Verdict) {
        let mut state = self.lock();
        if state.generation != generation {
            return;
        }
        let settings = &self.settings;
        let next = match (&mut state.phase, verdict) {
            (Phase::Closed(window), Verdict::Works | Verdict::Fails) => {
                let (calls, failures) = window.count(verdict == Verdict::Fails);
                let is_over = calls >= settings.min_calls && failures as f32 >= calls as f32 * settings.error_rate;
                (verdict == Verdict::Fails && is_over).then(|| self.open())
            }
            (Phase::HalfOpen { .. }, Verdict::Fails) => Some(self.open()),
            (Phase::HalfOpen { running, succeeded }, verdict) => {
                *running = running.saturating_sub(1);
                *succeeded += u32::from(verdict == Verdict::Works);
                (*succeeded >= settings.probes).then(|| Phase::Closed(Window::new(settings.window)))
            }
            (Phase::Closed(_) | Phase::Open { .. }, _) => None,
        };
        if let Some(next) = next {
            self.change(&mut state, next);
        }
    }

    fn open(&self) -> Phase {
        Phase::Open { until: Instant::now() + self.settings.open }
    }
}

fn rejected(left: Duration) -> Error {
    Error::unavailable("the circuit breaker is open, since the service fails: nothing was sent; try again later")
        .with_retry_after(left)
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker").field("name", &self.name).field("state", &self.state()).finish_non_exhaustive()
    }
}

/// A call that was let through. Dropped without an end, it says nothing of the service.
pub(super) struct Pass<'a> {
    breaker: &'a CircuitBreaker,
    generation: u64,
    verdict: Verdict,
}

impl Pass<'_> {
    pub(super) fn ended<T>(mut self, outcome: &Result<T>) {
        self.verdict = Verdict::of(outcome);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.breaker.record(self.generation, self.verdict);
    }
}

/// Calls and failures over a time that moves on in slices.
struct Window {
    slice: Duration,
    began: Instant,
    current: usize,
    counts: [(u32, u32); SLICES as usize],
}

impl Window {
    fn new(length: Duration) -> Self {
        Self { slice: length / SLICES, began: Instant::now(), current: 0, counts: Default::default() }
    }

    /// Counts a call; answers how many there were, and how many of them failed.
    fn count(&mut self, failed: bool) -> (u32, u32) {
        let now = Instant::now();
        let mut passed = 0;
        while now.saturating_duration_since(self.began) >= self.slice {
            if passed == self.counts.len() {
                self.began = now;
                break;
            }
            passed += 1;
            self.began += self.slice;
            self.current = (self.current + 1) % self.counts.len();
            self.counts[self.current] = (0, 0);
        }
        let (calls, failures) = &mut self.counts[self.current];
        *calls = calls.saturating_add(1);
        *failures = failures.saturating_add(u32::from(failed));
        // Only a failure can open the breaker: what works need not add up.
        if !failed {
            return (0, 0);
        }
        let sum = |(a, b): (u32, u32), (c, d): &(u32, u32)| (a.saturating_add(*c), b.saturating_add(*d));
        self.counts.iter().fold((0, 0), sum)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn breaker() -> CircuitBreaker {
        let settings =
            Breaker { error_rate: 0.5, window: Duration::from_secs(10), min_calls: 4, open: Duration::from_secs(5), probes: 2 };
        CircuitBreaker::new(settings, "test".into())
    }

    fn works(breaker: &CircuitBreaker) {
        breaker.admit().unwrap().ended(&Ok(()));
    }

    fn fails(breaker: &CircuitBreaker) {
        breaker.admit().unwrap().ended::<()>(&Err(Error::timeout("no answer")));
    }

    async fn opened() -> CircuitBreaker {
        let breaker = breaker();
        (0..4).for_each(|_| fails(&breaker));
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn opens_at_the_error_rate_and_not_before() {
        let breaker = breaker();
        (0..3).for_each(|_| works(&breaker));
        (0..2).for_each(|_| fails(&breaker));
        assert_eq!(breaker.state(), BreakerState::Closed, "2 of 5");
        fails(&breaker);
        assert_eq!(breaker.state(), BreakerState::Open, "3 of 6");
        let error = breaker.admit().err().unwrap();
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Unavailable, Some(Duration::from_secs(5))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_long_ago_does_not_count() {
        let breaker = breaker();
        (0..3).for_each(|_| fails(&breaker));
        advance(Duration::from_secs(11)).await;
        fails(&breaker);
        assert_eq!(breaker.state(), BreakerState::Closed);
        advance(Duration::from_secs(86_400)).await;
        (0..3).for_each(|_| fails(&breaker));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_refuse_are_no_failures() {
        let breaker = breaker();
        for kind in [ErrorKind::NotFound, ErrorKind::Conflict, ErrorKind::Throttled, ErrorKind::InvalidInput] {
            (0..4).for_each(|_| breaker.admit().unwrap().ended::<()>(&Err(Error::new(kind, "x"))));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn probes_are_limited_and_close_it() {
        let breaker = opened().await;
        advance(Duration::from_secs(5)).await;
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        let (first, second) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        assert!(breaker.admit().is_err(), "a third probe");
        first.ended(&Ok(()));
        assert!(breaker.admit().is_err(), "one succeeded, one is under way");
        second.ended(&Ok(()));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_again() {
        let breaker = opened().await;
        advance(Duration::from_secs(5)).await;
        fails(&breaker);
        assert_eq!(breaker.state(), BreakerState::Open);
        advance(Duration::from_secs(4)).await;
        assert!(breaker.admit().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_gives_its_place_back() {
        let breaker = opened().await;
        advance(Duration::from_secs(5)).await;
        drop((breaker.admit().unwrap(), breaker.admit().unwrap()));
        works(&breaker);
        works(&breaker);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_from_before_says_nothing_of_now() {
        let breaker = breaker();
        let late = breaker.admit().unwrap();
        (0..4).for_each(|_| fails(&breaker));
        advance(Duration::from_secs(5)).await;
        let probe = breaker.admit().unwrap();
        late.ended::<()>(&Err(Error::timeout("no answer")));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        probe.ended(&Ok(()));
    }
}
