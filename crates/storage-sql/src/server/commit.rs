//! Who writes, together with others: batches and messages that come while a transaction is under way share the next one, and its sync of the disk.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use storage_core::{Error, Fields, NewMessage, QueueName, Result, Sent, Version, Write};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Group, together};

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
pub enum Work {
    /// A batch.
    Batch(Vec<Write>),
    /// Messages for a queue.
    Send(QueueName, Vec<NewMessage>),
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    /// Of a batch.
    Versions(Vec<Version>),
    /// Of messages.
    Sent(Vec<Sent>),
}

impl Answer {
    /// The answer to a batch.
    ///
    /// # Errors
    /// None but a bug's.
    pub fn versions(self) -> Result<Vec<Version>> {
        match self {
            Self::Versions(versions) => Ok(versions),
            Self::Sent(_) => Err(Error::internal("a batch was answered as a sending")),
        }
    }

    /// The answer to messages.
    ///
    /// # Errors
    /// None but a bug's.
    pub fn sent(self) -> Result<Vec<Sent>> {
        match self {
            Self::Sent(sent) => Ok(sent),
            Self::Versions(_) => Err(Error::internal("a sending was answered as a batch")),
        }
    }
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
pub struct Committer {
    state: Mutex<State>,
    room: Arc<Semaphore>,
    idle: Notify,
}

impl Default for Committer {
    fn default() -> Self {
        Self { state: Mutex::default(), room: Arc::new(Semaphore::new(ROOM_KIB as usize)), idle: Notify::new() }
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}

impl Committer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is left to write.
    pub async fn finish(&self) {
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

    /// How large it is in KiB, roughly.
    fn kib(&self) -> u32 {
        let message = |message: &NewMessage| 128 + message.body.len();
        let bytes: usize = match self {
            Self::Send(_, messages) => messages.iter().map(message).sum(),
            Self::Batch(writes) => writes
                .iter()
                .map(|write| match write {
                    Write::Put { fields, .. } | Write::Merge { fields, .. } => 64 + size(fields),
                    Write::Enqueue { message: sent, .. } => message(sent),
                    Write::Delete { .. } | Write::Check { .. } => 64,
                })
                .sum(),
        };
        u32::try_from(bytes / 1_024).unwrap_or(u32::MAX)
    }
}

fn size(fields: &Fields) -> usize {
    fields.iter().map(|(name, value)| name.len() + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 16,
        Value::String(text) => 16 + text.len(),
        // Values are at most 100 deep.
        Value::Array(items) => 16 + items.iter().map(value_size).sum::<usize>(),
        Value::Object(fields) => 16 + size(fields),
    }
}

/// Does the work, together with what others want. Once begun it is finished, also where the caller goes away.
///
/// # Errors
/// What came of the work. [`Timeout`](storage_core::ErrorKind::Timeout) where those before it take too long.
pub async fn commit<G: Group>(shared: &Arc<G>, work: Work) -> Result<Answer> {
    let (committer, limit, kib) = (shared.committer(), shared.limit(), work.kib());
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
struct Writing<G: Group> {
    shared: Arc<G>,
    counted: bool,
}

impl<G: Group> Drop for Writing<G> {
    fn drop(&mut self) {
        let committer = self.shared.committer();
        if self.counted {
            committer.lock().writers -= 1;
        }
        committer.idle.notify_waiters();
    }
}

async fn write_all<G: Group>(mut writing: Writing<G>) {
    let shared = Arc::clone(&writing.shared);
    loop {
        let jobs = {
            // Under one lock with the question whether somebody has to be started: nobody comes in between.
            let mut state = shared.committer().lock();
            let jobs = state.take();
            if jobs.is_empty() {
                state.writers -= 1;
                writing.counted = false;
                return;
            }
            jobs
        };
        let (works, replies): (Vec<Work>, Vec<_>) = jobs.into_iter().map(|job| (job.work, (job.reply, job._room))).unzip();
        let answers = together(&*shared, &works).await;
        for ((reply, _room), answer) in replies.into_iter().zip(answers) {
            // Whoever went away does not want to know.
            let _ = reply.send(answer);
        }
    }
}
