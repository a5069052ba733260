//! [`Task`], and what one is made of.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage_core::clock::add;
use storage_core::{Entity, QueueName, Version};
use uuid::Uuid;

use crate::TaskStatus;
use crate::ids::{self, DEFAULT_RESOURCE, TaskId};
use crate::store::TaskOptions;

/// A unit of work and what became of it.
///
/// The task's record is the truth; the message in the queue only says that there is something to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Entity)]
#[entity(table = "tasks", index(name = "by_status", columns("status", "kind")), index(name = "by_task_id", columns("task_id")))]
pub struct Task {
    /// What it is about.
    #[entity(partition)]
    pub resource_id: String,
    /// Its id within the resource.
    #[entity(key)]
    pub task_id: String,
    /// What is to be done: names the handler.
    pub kind: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// What the handler is given.
    pub input: Value,
    /// What the handler answered.
    pub output: Option<Value>,
    /// The batch that it is part of.
    #[entity(index)]
    pub batch: Option<String>,
    /// Why the last attempt failed, or the whole task.
    pub error: Option<String>,
    /// The path of a blob with what is too large for input or output.
    pub blob: Option<String>,
    /// How often it was started.
    pub attempts: u32,
    /// How often it may be started.
    pub max_attempts: u32,
    /// The priority of its message.
    pub priority: u8,
    /// The queue of its message.
    pub queue: String,
    /// True where somebody asked a running task to stop.
    pub cancel_requested: bool,
    /// When it was submitted.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// When the latest attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// It does not start before.
    pub not_before: Option<DateTime<Utc>>,
    /// Where it has not been started by then, it fails.
    pub start_by: Option<DateTime<Utc>>,
    /// Tells this task from another that had the same id before.
    pub uid: Uuid,
    /// How often it was sent again by hand. A message of an earlier generation is ignored.
    pub generation: u32,
    /// How often its status changed.
    pub sequence: u32,
    /// The message that runs it. Another one of the same generation is a duplicate.
    pub message: Option<String>,
    /// Since when its message is owed: the task is its own outbox record.
    #[entity(index)]
    pub unsent: Option<DateTime<Utc>>,
    /// The version of its record.
    #[entity(version)]
    pub version: Version,
}

impl Task {
    pub(crate) fn new(new: NewTask, options: &TaskOptions) -> Self {
        let now = options.clock.now();
        let NewTask { kind, input, options: submit } = new;
        Self {
            resource_id: submit.resource_id.unwrap_or_else(|| DEFAULT_RESOURCE.to_owned()),
            task_id: submit.task_id.unwrap_or_else(|| ids::fresh(&options.clock).to_string()),
            kind,
            status: TaskStatus::Pending,
            input,
            output: None,
            batch: submit.batch,
            error: None,
            blob: submit.blob,
            attempts: 0,
            max_attempts: submit.max_attempts.unwrap_or(options.max_attempts),
            priority: submit.priority,
            queue: submit.queue.unwrap_or_else(|| options.queue.clone()).into(),
            cancel_requested: false,
            created_at: now,
            updated_at: now,
            started_at: None,
            finished_at: None,
            not_before: Some(submit.delay).filter(|delay| !delay.is_zero()).map(|delay| add(now, delay)),
            start_by: submit.ttl.map(|ttl| add(now, ttl)),
            uid: Uuid::new_v4(),
            generation: 0,
            sequence: 0,
            message: None,
            unsent: None,
            version: Version::NONE,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId::new(&self.resource_id, &self.task_id)
    }

    /// True where `other` is this very task, sent as often.
    pub(crate) fn is_same_run(&self, uid: Uuid, generation: u32) -> bool {
        self.uid == uid && self.generation == generation
    }

    /// Notes a change of status.
    pub(crate) fn step(&mut self, status: TaskStatus, now: DateTime<Utc>) {
        self.status = status;
        self.updated_at = now;
        self.sequence += 1;
    }

    pub(crate) fn end(&mut self, end: TaskEnd, now: DateTime<Utc>) {
        self.step(end.status(), now);
        self.finished_at = Some(now);
        self.unsent = None;
        match end {
            TaskEnd::Succeeded(TaskOutput { output, blob }) => {
                self.output = Some(output).filter(|output| !output.is_null());
                self.blob = blob.or_else(|| self.blob.take());
                self.error = None;
            }
            TaskEnd::Failed(error) => self.error = Some(error),
            TaskEnd::Cancelled => {}
        }
    }
}

/// A task to be submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTask {
    /// What is to be done.
    pub kind: String,
    /// What the handler is given.
    pub input: Value,
    /// The rest.
    pub options: SubmitOptions,
}

impl NewTask {
    /// A task with default options.
    pub fn new(kind: impl Into<String>, input: impl Into<Value>) -> Self {
        Self { kind: kind.into(), input: input.into(), options: SubmitOptions::default() }
    }

    /// Sets the options.
    #[must_use]
    pub fn with(mut self, options: SubmitOptions) -> Self {
        self.options = options;
        self
    }
}

/// How a task is submitted. What is `None` is the store's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubmitOptions {
    /// What it is about; else [`DEFAULT_RESOURCE`].
    pub resource_id: Option<String>,
    /// The caller's id for it: submitted twice, it runs once. Else a fresh UUIDv7.
    pub task_id: Option<String>,
    /// The batch that it is part of.
    pub batch: Option<String>,
    /// The path of a blob with its input.
    pub blob: Option<String>,
    /// 0 to 9; higher ones run first.
    pub priority: u8,
    /// How long it waits first.
    pub delay: Duration,
    /// Where it has not been started within that time, it fails.
    pub ttl: Option<Duration>,
    /// How often it may be started.
    pub max_attempts: Option<u32>,
    /// The queue to send its message to.
    pub queue: Option<QueueName>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)+) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(mut self, value: impl Into<$type>) -> Self {
                self.$name = Some(value.into());
                self
            }
        )+
    };
}

impl SubmitOptions {
    setters! {
        /// Sets what the task is about.
        resource_id: String;
        /// Sets the task's id.
        task_id: String;
        /// Sets the batch.
        batch: String;
        /// Sets the blob's path.
        blob: String;
        /// Sets the time to live.
        ttl: Duration;
        /// Sets how often it may be started.
        max_attempts: u32;
        /// Sets the queue.
        queue: QueueName;
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the delay.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// The answer to a submission.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// The task as it stands: the one that was there where this is not new.
    pub task: Task,
    /// False where a task of that id was there before; then nothing was sent.
    pub is_new: bool,
}

/// What a handler answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskOutput {
    /// The output.
    pub output: Value,
    /// The path of a blob with more of it.
    pub blob: Option<String>,
}

impl TaskOutput {
    /// Sets the blob's path.
    #[must_use]
    pub fn blob(mut self, path: impl Into<String>) -> Self {
        self.blob = Some(path.into());
        self
    }
}

impl<V: Into<Value>> From<V> for TaskOutput {
    fn from(output: V) -> Self {
        Self { output: output.into(), blob: None }
    }
}

/// How a task ends.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskEnd {
    /// It is done.
    Succeeded(TaskOutput),
    /// It failed for good, for this reason.
    Failed(String),
    /// It was cancelled.
    Cancelled,
}

impl TaskEnd {
    /// The status that it ends with.
    #[must_use]
    pub const fn status(&self) -> TaskStatus {
        match self {
            Self::Succeeded(_) => TaskStatus::Succeeded,
            Self::Failed(_) => TaskStatus::Failed,
            Self::Cancelled => TaskStatus::Cancelled,
        }
    }
}
