//! Durable tasks, results, events and schedules, on any backend of the toolkit.
//!
//! Written once, on the stores of [`storage_core`]: this crate knows no backend. A [`TaskStore`] holds tasks, each with a record that says how it stands and a
//! message that says that there is something to do; a [`TaskWorker`] runs handlers on them; a [`ResultStore`] is where others wait for what came of it; an
//! [`EventStore`] holds what happened, to be listed and followed; a [`ScheduleStore`] and its [`Scheduler`] submit tasks by the clock.
//!
//! ```
//! # use std::sync::Arc;
//! # use std::time::Duration;
//! use serde_json::json;
//! use storage_core::{ConsumerOptions, QueueStore, RecordStore};
//! use storage_tasks::{SubmitOptions, TaskFailure, TaskOptions, TaskStore, TaskWorker, WorkerOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> storage_core::Result<()> {
//! # let memory = storage_memory::MemoryStore::new();
//! # let (records, queue) = (RecordStore::new(Arc::new(memory.records())), QueueStore::new(Arc::new(memory.queue())));
//! let tasks = TaskStore::open(&records, &queue, TaskOptions::default()).await?;
//! let submitted = tasks.submit("add", json!([1, 2]), SubmitOptions::default()).await?;
//!
//! let until_empty = ConsumerOptions { drain: true, ..ConsumerOptions::default() };
//! TaskWorker::new(&tasks, WorkerOptions { consumer: until_empty, ..WorkerOptions::default() })
//!     .on("add", |context| async move {
//!         let numbers: Vec<i64> = serde_json::from_value(context.task.input).map_err(TaskFailure::fatal)?;
//!         Ok(numbers.iter().sum::<i64>())
//!     })
//!     .run(std::future::pending())
//!     .await?;
//!
//! let result = tasks.results().wait(submitted.task.id(), Duration::from_secs(1)).await?;
//! assert_eq!(result.and_then(|result| result.output), Some(json!(3)));
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - A task whose submission was answered is there, and runs at least once, until it has succeeded, failed as often as it may, or was cancelled. One submitted
//!   again under the same id is the same task.
//! - Its end, with output, result and event, takes effect once: an attempt that another one has taken over can't write any more.
//! - Where one batch reaches records, events, results and queue ([`TaskStore::is_one_batch`]), each change is one batch. Elsewhere the record decides and the rest
//!   follows, in steps that are repeated after a crash: run an [`OutboxRelay`], and call [`TaskStore::recover`] now and then.
//! - Every tick of a schedule that fires submits one task, however many schedulers run.
//! - Finished tasks, results and events are kept for ever, or for as long as the options say ([`TaskStore::sweep`] where the backend has no expiry of its own).

mod bell;
mod cancel;
pub mod event;
mod follower;
mod ids;
mod message;
mod outbox;
mod result;
mod schedule;
mod status;
mod store;
mod table;
mod tail;
mod task;
mod worker;

pub use cancel::CancelCheck;
pub use event::{Event, EventFilter, EventOptions, EventPage, EventStore};
pub use follower::{FollowOptions, TaskFollower};
pub use ids::{DEFAULT_RESOURCE, TaskId};
pub use message::TaskMessage;
pub use outbox::{OutboxRelay, OwedTasks, RelayOptions};
pub use result::{ResultOptions, ResultStore, TaskResult};
pub use schedule::{
    DueTicks, MAX_TICKS, Misfire, NewSchedule, Schedule, ScheduleOptions, SchedulePage, ScheduleSpec, ScheduleStore, Scheduler,
    SchedulerOptions, SchedulerReport,
};
pub use status::TaskStatus;
pub use store::{Cancel, Claim, Recovered, Start, Swept, TaskFilter, TaskOptions, TaskPage, TaskParts, TaskStore, TaskToken};
pub use tail::TailFrom;
pub use task::{NewTask, SubmitOptions, Submitted, Task, TaskEnd, TaskOutput};
pub use worker::{TaskContext, TaskFailure, TaskWorker, WorkerOptions};
