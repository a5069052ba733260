//! Tasks of another system: those that its programs send, and what it says of those that were sent to it.

use storage_core::{CallEnd, CallNews, ErrorKind, QueueName, Result, ResultExt as _, TaskCall};

use super::change::{EXPIRED, Step};
use super::submit::check;
use super::{TaskStore, subject};
use crate::{NewTask, SubmitOptions, Task, TaskEnd, TaskId, TaskResult, TaskStatus, event};

impl TaskStore {
    /// The task as a call to another system's worker.
    pub(crate) fn call_of(task: &Task) -> TaskCall {
        TaskCall {
            id: task.id().to_call(),
            name: task.kind.clone(),
            input: task.input.clone(),
            not_before: task.not_before,
            start_by: task.start_by,
            priority: task.priority,
            is_own: true,
        }
    }

    /// The task that a call asks for. One that another program sent is written down when it first comes.
    pub(crate) async fn adopt(&self, call: &TaskCall, queue: &QueueName) -> Result<Task> {
        let id = TaskId::of_call(&call.id);
        let adopt = async {
            if let Some(task) = self.get_task(id.clone()).await? {
                return Ok(task);
            }
            let options = SubmitOptions {
                resource_id: Some(id.resource_id.clone()),
                task_id: Some(id.task_id.clone()),
                priority: call.priority,
                queue: Some(queue.clone()),
                ..SubmitOptions::default()
            };
            let mut task = Task::new(NewTask::new(&call.name, call.input.clone()).with(options), self.options());
            task.start_by = call.start_by;
            check(&task)?;
            self.create(task, false).await.map(|submitted| submitted.task)
        };
        adopt.await.context("tasks.adopt", || subject(&id))
    }

    /// Writes down what another system's workers say of a task: that they have begun, or how it ended. News of a finished task change nothing; the end of one
    /// that is not there is kept as a result. Safe to repeat.
    ///
    /// # Errors
    /// The backend's.
    pub async fn note(&self, id: impl Into<TaskId>, news: &CallNews) -> Result<()> {
        let id = id.into();
        let noted = self.try_note(&id, news).await;
        noted.context("tasks.note", || subject(&id))
    }

    async fn try_note(&self, id: &TaskId, news: &CallNews) -> Result<()> {
        let now = self.options().clock.now();
        let begun = self.change(id, None, |task| {
            if task.status != TaskStatus::Pending {
                return Ok(None);
            }
            let mut task = task.clone();
            task.step(TaskStatus::Running, now);
            task.attempts += 1;
            task.started_at = Some(now);
            task.not_before = None;
            // Whoever runs it has its message.
            task.unsent = None;
            Ok(Some(Step::to(task, event::kind::STARTED)))
        });
        match (begun.await, news) {
            (Ok(_), CallNews::Started) => Ok(()),
            (Ok(_), CallNews::Ended(end)) => self.move_to_finished(id.clone(), end_of(end)).await.map(drop),
            (Err(error), CallNews::Ended(end)) if error.kind() == ErrorKind::NotFound => self.keep_end(id, end).await,
            (Err(error), CallNews::Started) if error.kind() == ErrorKind::NotFound => Ok(()),
            (Err(error), _) => Err(error),
        }
    }

    async fn keep_end(&self, id: &TaskId, end: &CallEnd) -> Result<()> {
        self.results().put(&TaskResult::of_call(id, end, self.results().options())).await
    }
}

fn end_of(end: &CallEnd) -> TaskEnd {
    match end {
        CallEnd::Succeeded(output) => TaskEnd::Succeeded(output.clone().into()),
        CallEnd::Failed(text) => TaskEnd::Failed(text.clone()),
        CallEnd::Cancelled(_) => TaskEnd::Cancelled,
    }
}

/// How a finished task is told to the program that sent it.
pub(crate) fn call_end(task: &Task) -> CallEnd {
    let error = task.error.as_deref();
    match task.status {
        TaskStatus::Succeeded => CallEnd::Succeeded(task.output.clone().unwrap_or_default()),
        TaskStatus::Failed if error == Some(EXPIRED) => CallEnd::Cancelled("expired".into()),
        TaskStatus::Cancelled => CallEnd::Cancelled("cancelled".into()),
        _ => CallEnd::Failed(error.unwrap_or("failed").to_owned()),
    }
}
