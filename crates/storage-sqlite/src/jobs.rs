//! Queues of jobs between callers, who are async, and threads, which are not.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use storage_core::{Error, Result};

/// Jobs that wait for a thread. How many there may be is for the caller to bound.
#[derive(Debug)]
pub(crate) struct Jobs<J> {
    state: Mutex<State<J>>,
    news: Condvar,
}

#[derive(Debug)]
struct State<J> {
    jobs: VecDeque<J>,
    closed: bool,
    /// A thread is to look after other things once there are no jobs.
    nudged: bool,
    /// How many threads sleep: nobody is woken needlessly, which costs a system call.
    sleeping: usize,
}

/// Whom a thread expects to come back right after it has answered them, and how long it looks out for them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expected {
    /// How many jobs.
    pub(crate) jobs: usize,
    /// Not longer than this.
    pub(crate) patience: Duration,
}

/// What a thread finds.
#[derive(Debug)]
pub(crate) enum Taken<J> {
    Jobs(Vec<J>),
    /// Nothing, for as long as it was ready to wait.
    Nothing,
    /// Nothing, and nothing more will come.
    Closed,
}

impl<J> Jobs<J> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State { jobs: VecDeque::new(), closed: false, nudged: false, sleeping: 0 }),
            news: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job.
    pub(crate) fn push(&self, job: J) -> Result<()> {
        let mut state = self.state();
        if state.closed {
            return Err(closed());
        }
        state.jobs.push_back(job);
        let wake = state.sleeping > 0;
        drop(state);
        if wake {
            self.news.notify_one();
        }
        Ok(())
    }

    /// Takes the jobs that wait, as many as `fits` lets through but at least one, or waits for one.
    pub(crate) fn take(&self, patience: Duration, mut fits: impl FnMut(&J) -> bool) -> Taken<J> {
        let mut state = self.state();
        if state.is_idle() {
            state.sleeping += 1;
            let idle = |state: &mut State<J>| state.is_idle();
            state = self.news.wait_timeout_while(state, patience, idle).unwrap_or_else(PoisonError::into_inner).0;
            state.sleeping -= 1;
        }
        let Some(first) = state.jobs.pop_front() else {
            state.nudged = false;
            return if state.closed { Taken::Closed } else { Taken::Nothing };
        };
        fits(&first);
        let mut taken = vec![first];
        while let Some(next) = state.jobs.pop_front_if(|job| fits(job)) {
            taken.push(next);
        }
        Taken::Jobs(taken)
    }

    /// Looks out for jobs without going to sleep, until those that are expected are there, the patience is over, or there is something else to do. Others
    /// have the processor meanwhile.
    pub(crate) fn look_out(&self, expected: Expected) {
        let until = Instant::now() + expected.patience;
        while Instant::now() < until {
            let state = self.state();
            if state.jobs.len() >= expected.jobs || state.closed {
                return;
            }
            drop(state);
            std::thread::yield_now();
        }
    }

    /// Lets no more jobs in. Those that are in are still taken.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.news.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// True where nobody waits and jobs are let in.
    pub(crate) fn is_free(&self) -> bool {
        let state = self.state();
        state.jobs.is_empty() && !state.closed
    }

    /// Makes a thread that sleeps look up, though there is no job.
    pub(crate) fn nudge(&self) {
        self.state().nudged = true;
        self.news.notify_one();
    }
}

impl<J> State<J> {
    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && !self.closed && !self.nudged
    }
}

/// The handle, or the whole store, was closed.
pub(crate) fn closed() -> Error {
    Error::unavailable("this store was closed: open it again").with_retryable(false)
}
