//! Durable tasks, results, events and schedules, on any backend of the toolkit.
mod bell;
mod cancel;
pub mod event;
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
pub use ids::{DEFAULT_RESOURCE, TaskId};
pub use message::TaskMessage;
pub use outbox::{OutboxRelay, RelayOptions};
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
