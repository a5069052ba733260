//! One change of a task with all that goes with it.

use chrono::{DateTime, Utc};
use storage_core::clock::add;
use storage_core::{Error, ErrorKind, Expect, Result, Version, Write, fields};

use super::TaskStore;
use crate::event::Event;
use crate::result::TaskResult;
use crate::{Task, TaskEnd, event};

/// Where the task is before the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Nowhere,
    Active(Version),
    Finished(Version),
}

/// A change.
#[derive(Debug)]
pub(crate) struct Change {
    /// The task after it.
    pub(crate) task: Task,
    pub(crate) from: Place,
    /// The kind of its event.
    pub(crate) event: &'static str,
    /// True where a message goes with it.
    pub(crate) sends: bool,
}

impl TaskStore {
    pub(crate) fn finished_expiry(&self, task: &Task) -> Option<DateTime<Utc>> {
        let keep = self.inner.options.keep_finished?;
        Some(add(task.finished_at.unwrap_or(task.updated_at), keep))
    }

    /// Does a change, or nothing of it.
    ///
    /// # Errors
    /// `Conflict`, or `AlreadyExists`: the task is not what it was taken for. Any other error: it may have taken effect in part, in a way that is
    /// completed later.
    pub(crate) async fn apply(&self, mut change: Change) -> Result<Task> {
        if change.sends && !self.inner.reach.queue {
            change.task.unsent = Some(change.task.updated_at);
        }
        if self.inner.reach.tables {
            let batch = self.batch(&change)?;
            let versions = self.inner.parts.records.commit(batch.into()).await?;
            // The task's own put stands first.
            change.task.version = versions.first().copied().unwrap_or_default();
            self.ring(&change);
            return self.follow(change).await;
        }
        self.apply_in_steps(change).await
    }

    /// All that one batch reaches.
    pub(crate) fn batch(&self, change: &Change) -> Result<Vec<Write>> {
        let (task, inner) = (&change.task, &*self.inner);
        let key = || task.id().key();
        let mut writes = if task.status.is_finished() {
            vec![inner.finished.put(task, Expect::Anything, self.finished_expiry(task))?]
        } else {
            let expect = if let Place::Active(version) = change.from { Expect::Version(version) } else { Expect::Absent };
            vec![inner.active.put(task, expect, None)?]
        };
        match change.from {
            Place::Nowhere => {
                writes.push(Write::Check { table: inner.finished.name.clone(), key: key(), expect: Expect::Absent });
            }
            Place::Active(version) if task.status.is_finished() => {
                writes.push(inner.active.delete(key(), Expect::Version(version)));
            }
            Place::Active(_) => {}
            Place::Finished(version) => writes.push(inner.finished.delete(key(), Expect::Version(version))),
        }
        if inner.reach.events {
            writes.push(self.events().to_write(&Event::of(task, change.event))?);
        }
        if inner.reach.results && task.status.is_finished() {
            writes.extend(self.results().to_write(&TaskResult::of(task, self.results().options()))?);
        }
        if inner.reach.queue && change.sends {
            writes.push(Write::Enqueue { queue: task.queue.parse()?, message: self.message_of(task)? });
        }
        Ok(writes)
    }

    /// Tells those in this process who wait.
    pub(crate) fn ring(&self, change: &Change) {
        if self.inner.reach.events {
            self.events().wake();
        }
        if change.task.status.is_finished() && self.inner.reach.results {
            self.results().wake(&change.task.id());
        }
        if change.task.cancel_requested || change.task.status.is_finished() {
            self.inner.cancels.ring(&change.task.id());
        }
    }

    /// What the batch did not reach.
    pub(crate) async fn follow(&self, change: Change) -> Result<Task> {
        let Change { task, event, sends, .. } = change;
        if task.status.is_finished() {
            self.write_end(&task).await?;
            return Ok(task);
        }
        if sends && !self.inner.reach.queue {
            return Ok(self.relay_now(task).await);
        }
        if !self.inner.reach.events {
            self.try_event(&Event::of(&task, event)).await;
        }
        Ok(task)
    }

    /// An event that may be lost when the process ends just now; so it may when the event store is away.
    async fn try_event(&self, event: &Event) {
        if let Err(error) = self.events().put(event).await {
            tracing::warn!(task = %event.task(), kind = event.kind, %error, "can't write an event");
        }
    }

    /// Event and result of the end, as far as they are not in the batch. Safe to repeat.
    async fn write_end(&self, task: &Task) -> Result<()> {
        if !self.inner.reach.events {
            self.events().put(&Event::of_end(task)).await?;
        }
        if !self.inner.reach.results {
            self.results().put(&TaskResult::of(task, self.results().options())).await?;
        }
        Ok(())
    }

    /// Where no batch reaches both tables: the active record decides, the rest follows.
    async fn apply_in_steps(&self, change: Change) -> Result<Task> {
        let inner = &*self.inner;
        let key = change.task.id().key();
        let taken = || Error::already_exists(format!("there is a finished task `{}`", change.task.id()));
        if change.from == Place::Nowhere && inner.finished.get(key.clone()).await?.is_some() {
            return Err(taken());
        }
        let expect = if let Place::Active(version) = change.from { Expect::Version(version) } else { Expect::Absent };
        let version = inner.active.write(inner.active.put(&change.task, expect, None)?).await?;
        // It may have been moved between the look and the write.
        if change.from == Place::Nowhere && inner.finished.get(key.clone()).await?.is_some() {
            inner.active.write(inner.active.delete(key, Expect::Version(version))).await?;
            return Err(taken());
        }
        let mut change = change;
        change.task.version = version;
        self.ring(&change);
        if change.task.status.is_finished() {
            return self.finish_move(&change.task).await;
        }
        if let Place::Finished(_) = change.from {
            inner.finished.write(inner.finished.delete(key, Expect::Anything)).await?;
        }
        self.follow(change).await
    }

    /// Moves a task whose active record says that it has ended, with event and result. Safe to repeat.
    pub(crate) async fn finish_move(&self, task: &Task) -> Result<Task> {
        let (active, finished) = (&self.inner.active, &self.inner.finished);
        self.write_end(task).await?;
        let version = finished.write(finished.put(task, Expect::Anything, self.finished_expiry(task))?).await?;
        match active.write(active.delete(task.id().key(), Expect::Version(task.version))).await {
            Ok(_) => {}
            // Somebody else has completed the move.
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
        Ok(Task { version, ..task.clone() })
    }

    /// Completes what a crash may have left of a finished task. For a task that a batch finished wholly: nothing.
    pub(crate) async fn complete(&self, task: &Task, from: Place) -> Result<()> {
        if matches!(from, Place::Active(_)) {
            self.finish_move(task).await?;
        } else {
            self.write_end(task).await?;
        }
        Ok(())
    }

    /// Sends a task's message; where that fails, the relay will.
    pub(crate) async fn relay_now(&self, task: Task) -> Task {
        match self.relay_one(&task).await {
            Ok(relayed) => relayed,
            Err(error) => {
                tracing::warn!(task = %task.id(), %error, "can't send a task's message now: the relay will");
                task
            }
        }
    }

    /// Sends the message that a task owes, with all that goes before it, then takes the mark away. Safe to repeat and to do at several places at once: the
    /// queue's dedup, or else the worker, takes out what is sent twice.
    ///
    /// Answers the task as it stands then.
    pub(crate) async fn relay_one(&self, task: &Task) -> Result<Task> {
        let inner = &*self.inner;
        if !inner.reach.tables && !self.tidy_before_relay(task).await? {
            return Ok(task.clone());
        }
        if !inner.reach.events {
            let kind = if task.generation == 0 { event::kind::SUBMITTED } else { event::kind::RESUBMITTED };
            self.events().put(&Event::of(task, kind)).await?;
        }
        let queue = task.queue.parse()?;
        self.ensure_queue(&queue).await?;
        if let Err(error) = self.queues().send(&queue, self.message_of(task)?).await {
            if error.kind() == ErrorKind::NotFound {
                // Somebody has removed it: the next try makes it anew.
                self.forget_queue(&queue);
            }
            return Err(error);
        }
        self.clear_unsent(task).await
    }

    /// Sends the message that a task owes, or, where the queue will never take it, ends the task for that reason: so that it is neither tried for ever nor
    /// forgotten.
    pub(crate) async fn relay_or_refuse(&self, task: &Task) -> Result<()> {
        let error = match self.relay_one(task).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) {
            return Err(error);
        }
        tracing::warn!(task = %task.id(), %error, "the queue refuses a task's message: the task has failed");
        let mut ended = task.clone();
        ended.end(TaskEnd::Failed(format!("its message can't be sent: {error}")), self.inner.options.clock.now());
        let change = Change { task: ended, from: Place::Active(task.version), event: event::kind::FAILED, sends: false };
        match self.apply(change).await {
            // Sent, cancelled or removed by somebody else just now.
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// False where the task is one that was created although a finished one of that id is there, by a process that ended before it saw that.
    async fn tidy_before_relay(&self, task: &Task) -> Result<bool> {
        let (active, finished) = (&self.inner.active, &self.inner.finished);
        let key = task.id().key();
        let Some(other) = finished.get(key.clone()).await? else { return Ok(true) };
        if other.uid == task.uid {
            // Sent again, and the process ended before the finished record was removed.
            finished.write(finished.delete(key, Expect::Version(other.version))).await?;
            return Ok(true);
        }
        active.write(active.delete(key, Expect::Version(task.version))).await?;
        Ok(false)
    }

    /// Takes the mark away, unless the task has been sent again meanwhile.
    async fn clear_unsent(&self, sent: &Task) -> Result<Task> {
        const TRIES: usize = 20;
        let active = &self.inner.active;
        let key = || sent.id().key();
        let mut task = sent.clone();
        for _ in 0..TRIES {
            let cleared = fields(serde_json::json!({"unsent": null}));
            match active.write(active.merge(key(), cleared, Expect::Version(task.version))).await {
                Ok(version) => return Ok(Task { unsent: None, version, ..task }),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
            match active.get(key()).await? {
                Some(now) if now.is_same_run(sent.uid, sent.generation) && now.unsent.is_some() => task = now,
                Some(now) => return Ok(now),
                None => return Ok(self.inner.finished.get(key()).await?.unwrap_or(task)),
            }
        }
        // A worker that changes it so often takes the mark away itself.
        Ok(task)
    }
}
