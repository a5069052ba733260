//! The tries of one call: whether there is another, and the wait before it.

use std::time::Duration;

use storage_core::backoff::Backoff;
use storage_core::{Error, Result};
use tokio::time::{Instant, sleep};

use super::repeat::nothing_was_done;
use super::{Policy, Repeat};
use crate::observe::{Observer, Op};

/// The tries of one call.
pub(crate) struct Tries {
    made: u32,
    /// Made after the first failure: most calls need none.
    backoff: Option<Backoff>,
    uncertain: bool,
    ends: Option<Instant>,
    /// Each try is a call of its own, which takes its turn.
    are_calls: bool,
}

impl Tries {
    /// Of a call that must be done when `ends` is reached.
    pub(crate) fn new(ends: Option<Instant>) -> Self {
        Self { made: 1, backoff: None, uncertain: false, ends, are_calls: false }
    }

    /// Of what goes on, each time by a call of its own.
    pub(crate) fn of_calls() -> Self {
        Self { are_calls: true, ..Self::new(None) }
    }

    /// True where an earlier try may have been done all the same.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// Counts from the start again: there was progress.
    pub(crate) fn progressed(&mut self) {
        self.made = 1;
        self.backoff = None;
    }

    /// Waits for the next try, or gives the failure back where there is none.
    pub(crate) async fn again(
        &mut self,
        policy: &Policy,
        observer: &Observer,
        op: Op,
        repeat: Repeat,
        error: Error,
    ) -> Result<()> {
        let Some((retry, budget)) = &policy.0.retry else { return Err(error) };
        if self.made >= retry.attempts || !repeat.allows(&error) || policy.is_doubtful() {
            return Err(error);
        }
        let backoff = self.backoff.get_or_insert_with(|| Backoff::new(retry.first, retry.longest));
        let delay = backoff.next_delay();
        let asked = error.retry_after().unwrap_or_default();
        if asked > retry.max_wait || !self.leaves(delay.max(asked)) || !budget.take() {
            return Err(error);
        }
        let delay = delay.max(asked);
        tracing::debug!(operation = op.name(), attempt = self.made, ?delay, %error, "tries again");
        observer.retried(op);
        self.uncertain |= !nothing_was_done(&error);
        self.made += 1;
        sleep(delay).await;
        match policy.0.rate.as_ref().filter(|_| !self.are_calls) {
            Some(rate) => rate.take().await.map_err(|_| error),
            None => Ok(()),
        }
    }

    /// True where the deadline leaves time for a try after so long a wait.
    fn leaves(&self, delay: Duration) -> bool {
        self.ends.is_none_or(|ends| Instant::now() + delay < ends)
    }
}
