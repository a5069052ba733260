//! [`TaskMessage`]: what the queue holds of a task.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Task, TaskId};

/// The body of a task's message, as JSON: which task, and which sending of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMessage {
    /// What the task is about.
    pub resource_id: String,
    /// The task.
    pub task_id: String,
    /// Tells it from another that had the same id before.
    pub uid: Uuid,
    /// See [`Task::generation`].
    pub generation: u32,
}

impl TaskMessage {
    pub(crate) fn of(task: &Task) -> Self {
        let Task { resource_id, task_id, uid, generation, .. } = task;
        Self { resource_id: resource_id.clone(), task_id: task_id.clone(), uid: *uid, generation: *generation }
    }

    /// The task.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId::new(&self.resource_id, &self.task_id)
    }
}
