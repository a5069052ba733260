//! What becomes of a task: started, ended, sent again, cancelled.

use std::time::Duration;

use chrono::{DateTime, Utc};
use storage_core::backoff::Backoff;
use storage_core::clock::add;
use storage_core::{Error, ErrorKind, Result, ResultExt as _};
use uuid::Uuid;

use super::apply::{Change, Place};
use super::{TaskStore, subject};
use crate::message::TaskMessage;
use crate::{Task, TaskEnd, TaskId, TaskOutput, TaskStatus, event};

/// How often a change is tried again because somebody else changed the task meanwhile.
const TRIES: usize = 100;

/// In whose name a task is started: a message, or nobody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    message: Option<String>,
    uid: Option<(Uuid, u32)>,
}

impl Claim {
    /// The claim of a received message.
    #[must_use]
    pub fn of_message(id: impl Into<String>, message: &TaskMessage) -> Self {
        Self { message: Some(id.into()), uid: Some((message.uid, message.generation)) }
    }

    /// A claim under a name, for programs that run tasks without messages: who claims a task under the same name takes it over.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { message: Some(name.into()), uid: None }
    }

    fn is_for(&self, task: &Task) -> bool {
        let same_run = self.uid.is_none_or(|(uid, generation)| task.is_same_run(uid, generation));
        // The first message that starts it is its message from then on: another one was sent twice.
        let same_message = match (&self.message, &task.message) {
            (Some(mine), Some(known)) => mine == known,
            _ => true,
        };
        same_run && (same_message || task.status.is_finished())
    }
}

/// The answer to a [start](TaskStore::start).
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// It is this caller's to run.
    Run(Task),
    /// It is finished: there is nothing to do. Also where it was started as often as it may be, or too late, and has failed by that just now.
    Finished(Task),
    /// The claim is a duplicate or of an earlier generation: there is nothing to do.
    Superseded,
    /// There is no such task.
    Gone,
}

/// The answer to a [cancel](TaskStore::cancel).
#[derive(Clone, Debug, PartialEq)]
pub enum Cancel {
    /// It had not begun, and never will.
    Cancelled(Task),
    /// It is running: its handler can see that it should stop, and there is no attempt after this one.
    Requested(Task),
    /// It was finished before.
    Finished(Task),
}

/// What becomes of a task. Where nothing does: no step.
pub(super) struct Step {
    task: Task,
    event: &'static str,
    sends: bool,
}

impl Step {
    pub(super) fn to(task: Task, event: &'static str) -> Self {
        Self { task, event, sends: false }
    }

    fn end(task: &Task, end: TaskEnd, now: DateTime<Utc>) -> Self {
        let event = match end {
            TaskEnd::Succeeded(_) => event::kind::SUCCEEDED,
            TaskEnd::Failed(_) => event::kind::FAILED,
            TaskEnd::Cancelled => event::kind::CANCELLED,
        };
        let mut task = task.clone();
        task.end(end, now);
        Self::to(task, event)
    }
}

impl TaskStore {
    /// Starts a task: marks it running and counts the attempt. A running task is taken over by the message that it is running for: whoever ran it is gone, or
    /// has lost its lease.
    ///
    /// # Errors
    /// The backend's.
    pub async fn start(&self, id: impl Into<TaskId>, claim: &Claim) -> Result<Start> {
        self.start_known(&id.into(), None, claim).await
    }

    /// `known` is the task as it was just read, not finished, to spare another reading.
    pub(crate) async fn start_known(&self, id: &TaskId, known: Option<&Task>, claim: &Claim) -> Result<Start> {
        let now = self.inner.options.clock.now();
        let mut superseded = false;
        let started = self
            .change(id, known, |task| {
                superseded = !claim.is_for(task);
                if superseded || task.status.is_finished() {
                    return Ok(None);
                }
                if task.cancel_requested {
                    return Ok(Some(Step::end(task, TaskEnd::Cancelled, now)));
                }
                if task.attempts >= task.max_attempts {
                    let last = task.error.as_deref().unwrap_or("the worker ended without an answer");
                    return Ok(Some(Step::end(
                        task,
                        TaskEnd::Failed(format!("gave up after {} attempts: {last}", task.attempts)),
                        now,
                    )));
                }
                if task.attempts == 0 && task.start_by.is_some_and(|by| by <= now) {
                    return Ok(Some(Step::end(task, TaskEnd::Failed(EXPIRED.into()), now)));
                }
                let mut task = task.clone();
                task.step(TaskStatus::Running, now);
                task.attempts += 1;
                task.started_at = Some(now);
                task.not_before = None;
                task.unsent = None;
                task.message = claim.message.clone().or(task.message);
                Ok(Some(Step::to(task, event::kind::STARTED)))
            })
            .await
            .context("tasks.start", || subject(id));
        match started {
            Ok(_) if superseded => Ok(Start::Superseded),
            Ok((task, place)) if task.status.is_finished() => {
                self.complete(&task, place).await.context("tasks.start", || subject(id))?;
                Ok(Start::Finished(task))
            }
            Ok((task, _)) => Ok(Start::Run(task)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Start::Gone),
            Err(error) => Err(error),
        }
    }

    /// Ends a started task with success: output, result, event and move together.
    ///
    /// # Errors
    /// [`LeaseLost`](ErrorKind::LeaseLost): somebody else has taken the task over, or ended it; nothing was written.
    pub async fn succeed(&self, task: &Task, output: impl Into<TaskOutput>) -> Result<Task> {
        self.end(task, TaskEnd::Succeeded(output.into())).await
    }

    /// Ends a started task with failure, for good.
    ///
    /// # Errors
    /// See [`succeed`](Self::succeed).
    pub async fn fail(&self, task: &Task, error: impl Into<String>) -> Result<Task> {
        self.end(task, TaskEnd::Failed(error.into())).await
    }

    /// Ends a task that this caller started, one way or another.
    ///
    /// # Errors
    /// See [`succeed`](Self::succeed).
    pub async fn end(&self, task: &Task, end: TaskEnd) -> Result<Task> {
        let now = self.inner.options.clock.now();
        let end = |current: &Task| {
            check_owned(task, current)?;
            Ok(Some(Step::end(current, end.clone(), now)))
        };
        let ended = self.change(&task.id(), Some(task), end).await.context("tasks.end", || subject(&task.id()))?;
        Ok(ended.0)
    }

    /// Moves a task to the finished table, whoever has it, as [`end`](Self::end) does for the one who started it. A finished one stays as it is.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`InvalidInput`](ErrorKind::InvalidInput) where its status does not allow that end: what has not begun can't succeed.
    pub async fn move_to_finished(&self, id: impl Into<TaskId>, end: TaskEnd) -> Result<Task> {
        let (id, now) = (id.into(), self.inner.options.clock.now());
        let decide = |current: &Task| match current.status.is_finished() {
            true => Ok(None),
            false => Ok(Some(Step::end(current, end.clone(), now))),
        };
        let (task, place) = self.change(&id, None, decide).await.context("tasks.move_to_finished", || subject(&id))?;
        self.complete(&task, place).await.context("tasks.move_to_finished", || subject(&id))?;
        Ok(task)
    }

    /// Puts a started task back to wait for its next attempt, `after` from now: its message is to be given back with that delay. Where somebody asked it to stop,
    /// or there are no attempts left, it ends instead.
    ///
    /// # Errors
    /// See [`succeed`](Self::succeed).
    pub async fn retry_later(&self, task: &Task, error: impl Into<String>, after: Duration) -> Result<Task> {
        self.wait_again(task, error.into(), after, true).await.context("tasks.retry_later", || subject(&task.id()))
    }

    /// As [`retry_later`](Self::retry_later), but the attempt does not count: nothing was wrong with the task, it was not its time.
    ///
    /// # Errors
    /// See [`succeed`](Self::succeed).
    pub async fn put_back(&self, task: &Task, reason: impl Into<String>, after: Duration) -> Result<Task> {
        self.wait_again(task, reason.into(), after, false).await.context("tasks.put_back", || subject(&task.id()))
    }

    async fn wait_again(&self, task: &Task, error: String, after: Duration, counts: bool) -> Result<Task> {
        let now = self.inner.options.clock.now();
        let decide = |current: &Task| {
            check_owned(task, current)?;
            if current.cancel_requested {
                return Ok(Some(Step::end(current, TaskEnd::Cancelled, now)));
            }
            if counts && current.attempts >= current.max_attempts {
                return Ok(Some(Step::end(current, TaskEnd::Failed(error.clone()), now)));
            }
            let mut waiting = current.clone();
            if !counts {
                // Whoever has lost a task took a number too, and never gives it back: no two that run it have the same.
                waiting.attempts = waiting.attempts.saturating_sub(1);
            }
            waiting.step(TaskStatus::Pending, now);
            waiting.error = Some(error.clone());
            waiting.not_before = Some(add(now, after));
            Ok(Some(Step::to(waiting, event::kind::RETRYING)))
        };
        let changed = self.change(&task.id(), Some(task), decide).await?;
        Ok(changed.0)
    }

    /// Sends a task again by hand, with a fresh count of attempts: one that failed or was cancelled, one whose message was lost, or one that was only created. Who
    /// runs it at that time has lost it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`InvalidInput`](ErrorKind::InvalidInput): it has succeeded.
    pub async fn retry(&self, id: impl Into<TaskId>) -> Result<Task> {
        let (id, now) = (id.into(), self.inner.options.clock.now());
        let decide = |current: &Task| {
            let mut task = current.clone();
            task.step(TaskStatus::Pending, now);
            task.generation += 1;
            task.attempts = 0;
            task.message = None;
            task.cancel_requested = false;
            task.finished_at = None;
            task.not_before = None;
            task.start_by = None;
            Ok(Some(Step { task, event: event::kind::RESUBMITTED, sends: true }))
        };
        let (task, _) = self.change(&id, None, decide).await.context("tasks.retry", || subject(&id))?;
        Ok(task)
    }

    /// Cancels a task. One that waits is finished by that; a running one is asked to stop.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); the backend's.
    pub async fn cancel(&self, id: impl Into<TaskId>) -> Result<Cancel> {
        let (id, now) = (id.into(), self.inner.options.clock.now());
        let mut was_finished = false;
        let decide = |current: &Task| {
            was_finished = current.status.is_finished();
            if was_finished || current.cancel_requested {
                return Ok(None);
            }
            if current.status == TaskStatus::Pending {
                return Ok(Some(Step::end(current, TaskEnd::Cancelled, now)));
            }
            let mut task = current.clone();
            task.step(TaskStatus::Running, now);
            task.cancel_requested = true;
            Ok(Some(Step::to(task, event::kind::CANCEL_REQUESTED)))
        };
        let (task, place) = self.change(&id, None, decide).await.context("tasks.cancel", || subject(&id))?;
        if task.status.is_finished() {
            self.complete(&task, place).await.context("tasks.cancel", || subject(&id))?;
        }
        Ok(match (was_finished, task.status.is_finished()) {
            (true, _) => Cancel::Finished(task),
            (false, true) => Cancel::Cancelled(task),
            (false, false) => Cancel::Requested(task),
        })
    }

    /// Completes what a crash may have left of a finished task; nothing where it has been sent again meanwhile.
    pub(crate) async fn complete_finished(&self, id: &TaskId) -> Result<()> {
        match self.locate(id).await {
            Ok((task, place)) if task.status.is_finished() => self.complete(&task, place).await,
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads a task, lets `decide` say what becomes of it, and writes that if it has not changed meanwhile; else once more. `known` spares the first
    /// reading. Answers the task after it, and where it is.
    pub(super) async fn change(
        &self,
        id: &TaskId,
        known: Option<&Task>,
        mut decide: impl FnMut(&Task) -> Result<Option<Step>>,
    ) -> Result<(Task, Place)> {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
        let mut found = known.map(|task| (task.clone(), Place::Active(task.version)));
        for attempt in 0..TRIES {
            let (current, place) = match found.take() {
                Some(found) => found,
                None => self.locate(id).await?,
            };
            let Some(Step { task, event, sends }) = decide(&current)? else { return Ok((current, place)) };
            if !current.status.may_become(task.status) {
                let (from, to) = (current.status, task.status);
                return Err(Error::invalid(format!("a task that is {from} can't become {to}")));
            }
            let finished = task.status.is_finished();
            match self.apply(Change { task, from: place, event, sends }).await {
                // Wherever it was: a finished task is in the finished table now.
                Ok(task) => {
                    let version = task.version;
                    return Ok((task, if finished { Place::Finished(version) } else { Place::Active(version) }));
                }
                Err(error) if attempt + 1 < TRIES && is_outrun(&error) => tokio::time::sleep(backoff.next_delay()).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::conflict("others change the task all the time"))
    }

    async fn locate(&self, id: &TaskId) -> Result<(Task, Place)> {
        for _ in 0..2 {
            if let Some(task) = self.inner.active.get(id.key()).await? {
                let version = task.version;
                return Ok((task, Place::Active(version)));
            }
            if let Some(task) = self.inner.finished.get(id.key()).await? {
                let version = task.version;
                return Ok((task, Place::Finished(version)));
            }
            // Sent again between the two looks, or not there.
        }
        Err(Error::not_found(format!("there is no task `{id}`")))
    }
}

pub(super) const EXPIRED: &str = "expired: it was not started within its time to live";

/// True where somebody else changed the task between reading and writing.
fn is_outrun(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::AlreadyExists)
}

/// That the task is still in the hands of who started it as `mine`.
fn check_owned(mine: &Task, current: &Task) -> Result<()> {
    let same_run = current.is_same_run(mine.uid, mine.generation);
    if same_run && current.status == TaskStatus::Running && current.attempts == mine.attempts {
        return Ok(());
    }
    Err(Error::lease_lost(format!(
        "attempt {} is no longer this caller's: the task is {} in attempt {}",
        mine.attempts, current.status, current.attempts
    )))
}
