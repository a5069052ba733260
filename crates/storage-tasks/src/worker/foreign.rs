//! A worker on the tasks of another system's programs.

use storage_core::{ErrorKind, ForeignTasks, Message, Outcome, QueueName, Result};

use super::{TaskFailure, TaskWorker};
use crate::store::{Claim, Start, call_end};
use crate::{Task, TaskEnd, TaskId, TaskStatus};

impl TaskWorker {
    /// Runs the task of a message, and tells whoever sent it how it ended. The message is removed when that is told: until then it comes again, and finds the
    /// task finished.
    pub(super) async fn handle_call(&self, foreign: &dyn ForeignTasks, queue: &QueueName, message: &Message) -> Outcome {
        match self.try_call(foreign, queue, message).await {
            Ok(outcome) => outcome,
            // Another worker has it, or will: this delivery is settled by its stale receipt.
            Err(error) if error.kind() == ErrorKind::LeaseLost => Outcome::Done,
            Err(error) => {
                tracing::warn!(message = %message.id, %error, "can't handle a task now: its message comes again");
                Outcome::retry(error)
            }
        }
    }

    async fn try_call(&self, foreign: &dyn ForeignTasks, queue: &QueueName, message: &Message) -> Result<Outcome> {
        let call = foreign.call(message)?;
        let id = TaskId::of_call(&call.id);
        let task = self.tasks.adopt(&call, queue).await?;
        if task.status.is_finished() {
            self.tasks.complete_finished(&id).await?;
            return tell(foreign, queue, message, &task).await;
        }
        if let Some(reason) = foreign.refusal(message)? {
            let task = self.tasks.move_to_finished(id, TaskEnd::Failed(reason)).await?;
            return tell(foreign, queue, message, &task).await;
        }
        let Some(handler) = self.handler(&task) else { return self.without_handler(&task).await };
        let task = match self.tasks.start_known(&id, Some(&task), &Claim::named(&call.id)).await? {
            Start::Run(task) => task,
            Start::Finished(task) => return tell(foreign, queue, message, &task).await,
            Start::Superseded | Start::Gone => return Ok(Outcome::Done),
        };
        let answer = match self.run_handler(&handler, &task).await {
            // The sender waits for the first failure: it tries again by itself, or not at all.
            Err(TaskFailure::Retry { reason, after: None }) if !call.is_own => Err(TaskFailure::Fatal { reason }),
            answer => answer,
        };
        let ended = self.settle_task(&task, answer, message.deliveries, None).await?;
        self.after(foreign, queue, message, ended).await
    }

    async fn after(
        &self,
        foreign: &dyn ForeignTasks,
        queue: &QueueName,
        message: &Message,
        ended: Result<Task, Outcome>,
    ) -> Result<Outcome> {
        match ended {
            Ok(task) => tell(foreign, queue, message, &task).await,
            Err(again) => Ok(again),
        }
    }
}

async fn tell(foreign: &dyn ForeignTasks, queue: &QueueName, message: &Message, task: &Task) -> Result<Outcome> {
    debug_assert_ne!(task.status, TaskStatus::Running);
    foreign.answer(queue, message, &call_end(task)).await?;
    Ok(Outcome::Done)
}
