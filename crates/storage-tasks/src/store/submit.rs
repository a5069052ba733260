//! Submitting tasks.

use serde_json::Value;
use storage_core::{Error, ErrorKind, NewMessage, QueueName, Result, ResultExt as _, Write};

use super::apply::{Change, Place};
use super::{TaskStore, subject};
use crate::{NewTask, SubmitOptions, Submitted, Task, event};

/// How many tasks [`TaskStore::submit_all`] puts into one batch.
const GROUP: usize = 500;

impl TaskStore {
    /// Submits a task: writes it with its event and sends its message.
    ///
    /// Once this answers, the task is there and will run, whatever ends meanwhile (where [`is_one_batch`](Self::is_one_batch) is false: as long as an
    /// [`OutboxRelay`](crate::OutboxRelay) runs somewhere). Submitted again under an id that is taken, it answers the task that is there and sends nothing.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for bad ids or options; [`Unsupported`](ErrorKind::Unsupported) for an option that the queue does not offer;
    /// the backend's.
    pub async fn submit(&self, kind: impl Into<String>, input: impl Into<Value>, options: SubmitOptions) -> Result<Submitted> {
        self.submit_task(NewTask::new(kind, input).with(options)).await
    }

    /// Submits a task.
    ///
    /// # Errors
    /// See [`submit`](Self::submit).
    pub async fn submit_task(&self, new: NewTask) -> Result<Submitted> {
        let task = Task::new(new, self.options());
        let id = task.id();
        let submit = async {
            self.check_sendable(&task).await?;
            self.create(task, true).await
        };
        submit.await.context("tasks.submit", || subject(&id))
    }

    /// Submits many tasks, up to 500 in one batch where the backend can. Answers each, in order.
    ///
    /// # Errors
    /// See [`submit`](Self::submit). Those of earlier batches are submitted then.
    pub async fn submit_all(&self, new: Vec<NewTask>) -> Result<Vec<Submitted>> {
        let mut submitted = Vec::with_capacity(new.len());
        // A task is five writes at most.
        let group = GROUP.min(self.inner.parts.records.capabilities().max_batch / 5).max(1);
        let mut new = new.into_iter();
        loop {
            let tasks: Vec<_> = new.by_ref().take(group).map(|new| Task::new(new, self.options())).collect();
            if tasks.is_empty() {
                return Ok(submitted);
            }
            for task in &tasks {
                self.check_sendable(task).await.context("tasks.submit", || subject(&task.id()))?;
            }
            submitted.extend(self.submit_group(tasks).await.context("tasks.submit", || "several tasks".into())?);
        }
    }

    async fn submit_group(&self, tasks: Vec<Task>) -> Result<Vec<Submitted>> {
        if self.inner.reach.queue {
            match self.create_together(&tasks).await {
                // Some id is taken: each by itself says which.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                outcome => return outcome,
            }
        }
        let mut submitted = Vec::with_capacity(tasks.len());
        for task in tasks {
            submitted.push(self.create(task, true).await?);
        }
        Ok(submitted)
    }

    async fn create_together(&self, tasks: &[Task]) -> Result<Vec<Submitted>> {
        let change =
            |task: &Task| Change { task: task.clone(), from: Place::Nowhere, event: event::kind::SUBMITTED, sends: true };
        let changes: Vec<_> = tasks.iter().map(change).collect();
        let (mut writes, mut positions): (Vec<Write>, _) = (Vec::new(), Vec::new());
        for change in &changes {
            positions.push(writes.len());
            writes.extend(self.batch(change)?);
        }
        let versions = self.inner.parts.records.commit(writes.into()).await?;
        let mut submitted = Vec::with_capacity(changes.len());
        for (mut change, position) in changes.into_iter().zip(positions) {
            change.task.version = versions.get(position).copied().unwrap_or_default();
            self.ring(&change);
            submitted.push(Submitted { task: self.follow(change).await?, is_new: true });
        }
        Ok(submitted)
    }

    /// Writes a task, unless there is one of that id, without sending it: for programs that run tasks in their own way. [`retry`](Self::retry) sends it.
    ///
    /// # Errors
    /// See [`submit`](Self::submit).
    pub async fn create_if_not_exists(&self, new: NewTask) -> Result<Submitted> {
        let task = Task::new(new, self.options());
        let id = task.id();
        let create = async {
            check(&task)?;
            self.create(task, false).await
        };
        create.await.context("tasks.create", || subject(&id))
    }

    pub(super) async fn create(&self, task: Task, sends: bool) -> Result<Submitted> {
        const TRIES: usize = 10;
        let id = task.id();
        for _ in 0..TRIES {
            let change = Change { task: task.clone(), from: Place::Nowhere, event: event::kind::SUBMITTED, sends };
            match self.apply(change).await {
                Ok(task) => return Ok(Submitted { task, is_new: true }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            if let Some(task) = self.get_task(id.clone()).await? {
                return Ok(Submitted { task, is_new: false });
            }
            // It was there and is gone: deleted, or on its way between the tables.
        }
        Err(Error::conflict("the task comes and goes: others create and delete it all the time"))
    }

    async fn check_sendable(&self, task: &Task) -> Result<()> {
        check(task)?;
        if self.is_foreign() && task.blob.is_some() {
            return Err(Error::unsupported("tasks of another system have no blob: pass its path as an argument"));
        }
        let queue: QueueName = task.queue.parse()?;
        let message: NewMessage = self.message_of(task)?;
        self.queues().check_message(&message)?;
        if task.start_by.is_some_and(|by| by <= task.not_before.unwrap_or(task.created_at)) {
            return Err(Error::invalid("the time to live is not longer than the delay: the task could never start"));
        }
        self.ensure_queue(&queue).await
    }
}

pub(super) fn check(task: &Task) -> Result<()> {
    task.id().key().check()?;
    if task.kind.is_empty() || task.kind.len() > 255 || task.kind.chars().any(char::is_control) {
        return Err(Error::invalid("the kind of a task needs 1 to 255 bytes without control characters"));
    }
    if task.max_attempts == 0 {
        return Err(Error::invalid("a task that may never be started: max_attempts is 1 or more"));
    }
    Ok(())
}
