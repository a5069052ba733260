//! Who writes, together with others: batches and messages that come while a transaction is under way share the next one, and its sync of the disk.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use storage_core::{Error, NewMessage, QueueName, Result, Sent, Version, Write};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::shared::Shared;
use crate::write;

/// How many transactions are under way at once: while one waits for the disk, the next is made ready.
const WRITERS: usize = 3;
/// How many callers share a transaction.
const MAX_JOBS: usize = 256;
/// How many writes they have together, but for a single one with more.
const MAX_ITEMS: usize = 10_000;
/// How large, in KiB, what waits may be together. What comes then waits with its caller.
const ROOM_KIB: u32 = 64 * 1_024;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Work {
    Batch(Vec<Write>),
    Send(QueueName, Vec<NewMessage>),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Answer {
    Versions(Vec<Version>),
    Sent(Vec<Sent>),
}

/// Somebody who waits for an answer.
struct Job {
    work: Work,
    reply: oneshot::Sender<Result<Answer>>,
    _room: OwnedSemaphorePermit,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    writers: usize,
}

/// All who write.
pub(crate) struct Committer {
    state: Mutex<State>,
    room: Arc<Semaphore>,
    idle: Notify,
}

impl Committer {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), room: Arc::new(Semaphore::new(ROOM_KIB as usize)), idle: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is left to write.
    pub(crate) async fn finish(&self) {
        loop {
            let idle = self.idle.notified();
            if self.lock().writers == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl State {
    /// The next to share a transaction. Those whose callers are gone are not done at all.
    fn take(&mut self) -> Vec<Job> {
        let (mut jobs, mut items) = (Vec::new(), 0);
        while let Some(job) = self.waiting.pop_front() {
            if job.reply.is_closed() {
                continue;
            }
            items += job.work.items();
            if !jobs.is_empty() && items > MAX_ITEMS {
                self.waiting.push_front(job);
                break;
            }
            jobs.push(job);
            if jobs.len() == MAX_JOBS {
                break;
            }
        }
        jobs
    }
}

impl Work {
    fn items(&self) -> usize {
        match self {
            Self::Batch(writes) => writes.len(),
            Self::Send(_, messages) => messages.len(),
        }
    }
}

/// Does the work, together with what others want. Once begun it is finished, also where the caller goes away.
pub(crate) async fn commit(shared: &Arc<Shared>, work: Work, kib: u32) -> Result<Answer> {
    let committer = &shared.committer;
    let limit = shared.settings.timeout;
    let (reply, answer) = oneshot::channel();
    let work = async {
        let room = Arc::clone(&committer.room).acquire_many_owned(kib.clamp(1, ROOM_KIB)).await;
        let room = room.map_err(|_| Error::unavailable("the store was closed: open another").with_retryable(false))?;
        let starts = {
            let mut state = committer.lock();
            state.waiting.push_back(Job { work, reply, _room: room });
            let starts = state.writers < WRITERS;
            state.writers += usize::from(starts);
            starts
        };
        if starts {
            tokio::spawn(write_all(Writing { shared: Arc::clone(shared), counted: true }));
        }
        answer.await.map_err(|_| Error::internal("the writer went away: this is a bug"))?
    };
    // Each transaction has the timeout for itself; this is about waiting for those before.
    let patience = limit.saturating_mul(2);
    tokio::time::timeout(patience, work)
        .await
        .map_err(|_| Error::timeout(format!("it was not written within {patience:?}; it may yet be")))?
}

/// One of the writers, counted as long as it works.
struct Writing {
    shared: Arc<Shared>,
    counted: bool,
}

impl Drop for Writing {
    fn drop(&mut self) {
        let committer = &self.shared.committer;
        if self.counted {
            committer.lock().writers -= 1;
        }
        committer.idle.notify_waiters();
    }
}

async fn write_all(mut writing: Writing) {
    let shared = Arc::clone(&writing.shared);
    loop {
        let jobs = {
            // Under one lock with the question whether somebody has to be started: nobody comes in between.
            let mut state = shared.committer.lock();
            let jobs = state.take();
            if jobs.is_empty() {
                state.writers -= 1;
                writing.counted = false;
                return;
            }
            jobs
        };
        let (works, replies): (Vec<Work>, Vec<_>) = jobs.into_iter().map(|job| (job.work, (job.reply, job._room))).unzip();
        let answers = write::together(&shared, &works).await;
        for ((reply, _room), answer) in replies.into_iter().zip(answers) {
            // Whoever went away does not want to know.
            let _ = reply.send(answer);
        }
    }
}
