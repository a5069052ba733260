//! Timeouts of what takes as long as it takes, so long as it gets on.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use storage_core::{Error, Result};
use tokio::time::{Instant, sleep_until};

/// Whether a body that is being sent gets on.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    last: Instant,
    /// The backend waits for the caller's stream: that is not the backend's time.
    on_caller: bool,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { last: Instant::now(), on_caller: false }))
    }

    /// The backend asked for a piece and has, or has not, got it.
    pub(crate) fn asked(&self, got: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State { last: Instant::now(), on_caller: !got };
    }

    fn quiet_since(&self) -> Option<Instant> {
        let state = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!state.on_caller).then_some(state.last)
    }
}

/// Ends `call` with a timeout once nothing has been asked for `limit`.
pub(crate) async fn until_idle<T>(
    limit: Option<Duration>,
    activity: &Activity,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(limit) = limit else { return call.await };
    let watch = async {
        let mut look = Instant::now() + limit;
        loop {
            sleep_until(look).await;
            match activity.quiet_since().map(|since| since + limit) {
                Some(ends) if ends <= Instant::now() => return,
                Some(ends) => look = ends,
                None => look = Instant::now() + limit,
            }
        }
    };
    tokio::select! {
        biased;
        outcome = call => outcome,
        () = watch => Err(Error::timeout(format!(
            "the service took none of the body, and gave no answer, for {limit:?}: whether it took effect is not known"
        ))),
    }
}
