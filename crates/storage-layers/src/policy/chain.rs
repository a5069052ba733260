//! The chain that a call goes through.

use std::time::Duration;

use storage_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, timeout, timeout_at};

use super::breaker::CircuitBreaker;
use super::{BreakerState, Call, Policy, Tries};
use crate::observe::Observer;

impl Policy {
    /// Makes a call: `attempt` is one try, told of those before it; `has_more` says whether there can be another.
    pub(crate) async fn run<T, F, Fut>(
        &self,
        call: Call,
        observer: &Observer,
        has_more: impl Fn() -> bool,
        attempt: F,
    ) -> Result<T>
    where
        F: FnMut(&Tries) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let ends = self.ends(call);
        self.admitted(ends, self.tried(call, ends, observer, has_more, attempt)).await
    }

    async fn tried<T, F, Fut>(
        &self,
        call: Call,
        ends: Option<Instant>,
        observer: &Observer,
        has_more: impl Fn() -> bool,
        mut attempt: F,
    ) -> Result<T>
    where
        F: FnMut(&Tries) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let limit = call.limit.of_try(self.timeouts());
        let mut tries = Tries::new(ends);
        loop {
            match within(limit, attempt(&tries)).await {
                Ok(answer) => {
                    self.succeeded();
                    return Ok(answer);
                }
                Err(error) if !has_more() => return Err(error),
                Err(error) => tries.again(self, observer, call.op, call.repeat, error).await?,
            }
        }
    }

    /// Makes a call that finds out whether the service is there: behind no other call, and not held back by the breaker.
    pub(crate) async fn ask<T, F, Fut>(&self, call: Call, observer: &Observer, attempt: F) -> Result<T>
    where
        F: FnMut(&Tries) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        self.tried(call, None, observer, || true, attempt).await
    }

    /// Makes a call with one try, for callers that count their tries themselves.
    pub(crate) async fn once<T>(&self, call: Call, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        self.admitted(self.ends(call), within(call.limit.of_try(self.timeouts()), attempt)).await
    }

    /// When a call that begins now must be done.
    fn ends(&self, call: Call) -> Option<Instant> {
        call.limit.of_call(self.0.deadline).map(|deadline| Instant::now() + deadline)
    }

    /// Waits for the call's turn, makes it if the service works, and tells the breaker how it ended.
    async fn admitted<T>(&self, ends: Option<Instant>, call: impl Future<Output = Result<T>>) -> Result<T> {
        let _slot = match ends {
            None => self.turn().await?,
            Some(ends) => timeout_at(ends, self.turn()).await.map_err(|_| no_turn())??,
        };
        let pass = self.0.breaker.as_ref().map(CircuitBreaker::admit).transpose()?;
        let outcome = match ends {
            None => call.await,
            Some(ends) => timeout_at(ends, call).await.unwrap_or_else(|_| Err(past_deadline())),
        };
        if let Some(pass) = pass {
            pass.ended(&outcome);
        }
        outcome
    }

    async fn turn(&self) -> Result<Option<tokio::sync::SemaphorePermit<'_>>> {
        let slot = match &self.0.slots {
            Some(slots) => Some(slots.take().await?),
            None => None,
        };
        if let Some(rate) = &self.0.rate {
            rate.take().await?;
        }
        Ok(slot)
    }

    /// True where the breaker asks for restraint: a call that finds out whether the service is back has one try.
    pub(super) fn is_doubtful(&self) -> bool {
        self.breaker_state().is_some_and(|state| state != BreakerState::Closed)
    }

    /// Puts into the retry budget.
    pub(crate) fn succeeded(&self) {
        if let Some((_, budget)) = &self.0.retry {
            budget.succeeded();
        }
    }
}

/// Bounds a try.
async fn within<T>(limit: Option<Duration>, attempt: impl Future<Output = Result<T>>) -> Result<T> {
    match limit {
        None => attempt.await,
        Some(limit) => timeout(limit, attempt).await.unwrap_or_else(|_| Err(no_answer(limit))),
    }
}

fn no_answer(limit: Duration) -> Error {
    Error::timeout(format!("no answer within {limit:?}: whether it took effect is not known"))
}

fn past_deadline() -> Error {
    Error::timeout("the deadline of the call is over: whether it took effect is not known")
}

fn no_turn() -> Error {
    Error::new(
        ErrorKind::Throttled,
        "the deadline of the call was over before its turn came: nothing was sent; call less, or raise the limits",
    )
}
