//! [`EventStore`]: what happened to tasks, append-only.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage_core::clock::add;
use storage_core::{Clock, Entity, Expect, Filter, History, PageToken, Query, RecordStore, Result, ResultExt as _, Write};
use tokio::sync::watch;
use uuid::Uuid;

use crate::ids::{self, TaskId, Ticker};
use crate::table::Table;
use crate::tail::{self, TailFrom};
use crate::{Task, TaskStatus};

/// The kinds of events that the task store writes. Programs may append others.
pub mod kind {
    /// The task was submitted.
    pub const SUBMITTED: &str = "submitted";
    /// A worker began an attempt.
    pub const STARTED: &str = "started";
    /// An attempt failed, another one follows.
    pub const RETRYING: &str = "retrying";
    /// Somebody asked the running task to stop.
    pub const CANCEL_REQUESTED: &str = "cancel_requested";
    /// It was sent again by hand.
    pub const RESUBMITTED: &str = "resubmitted";
    /// It is done.
    pub const SUCCEEDED: &str = "succeeded";
    /// It failed for good.
    pub const FAILED: &str = "failed";
    /// It was cancelled.
    pub const CANCELLED: &str = "cancelled";
}

/// Something that happened to a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Entity)]
#[entity(table = "events", index(name = "by_task", columns("task_id", "resource_id")))]
pub struct Event {
    /// A UUIDv7 that sorts by [`at`](Self::at).
    #[entity(key)]
    pub id: Uuid,
    /// When, by the writer's clock.
    pub at: DateTime<Utc>,
    /// What the task is about.
    pub resource_id: String,
    /// The task.
    pub task_id: String,
    /// What happened: see [`kind`].
    pub kind: String,
    /// More about it.
    pub data: Value,
}

impl Event {
    /// The task.
    #[must_use]
    pub fn task(&self) -> TaskId {
        TaskId::new(&self.resource_id, &self.task_id)
    }

    /// The event that `task` has become what it is. Always the same one for the same state, so that it can be written again after a crash.
    pub(crate) fn of(task: &Task, kind: &str) -> Self {
        const UID_BITS: u32 = 48;
        let tail = (u64::from(task.sequence) << UID_BITS) | (task.uid.as_u64_pair().1 & ((1 << UID_BITS) - 1));
        let mut data = json!({"kind": task.kind, "status": task.status, "attempts": task.attempts});
        if let Some(error) = &task.error {
            data["error"] = Value::from(error.as_str());
        }
        Self {
            id: ids::sortable(task.updated_at, tail),
            at: task.updated_at,
            resource_id: task.resource_id.clone(),
            task_id: task.task_id.clone(),
            kind: kind.to_owned(),
            data,
        }
    }

    /// The event that a task has ended.
    pub(crate) fn of_end(task: &Task) -> Self {
        Self::of(
            task,
            match task.status {
                TaskStatus::Succeeded => kind::SUCCEEDED,
                TaskStatus::Cancelled => kind::CANCELLED,
                _ => kind::FAILED,
            },
        )
    }
}

/// How an [`EventStore`] is opened.
#[derive(Clone, Debug)]
pub struct EventOptions {
    /// What the table's name begins with: `<prefix>events`.
    pub prefix: String,
    /// Where the time comes from.
    pub clock: Clock,
    /// How long events are kept. `None`: for ever.
    pub keep: Option<Duration>,
    /// How late an event may become visible, by the reader's clock and counted from the time in its id, and still be seen by a
    /// [`tail`](EventStore::tail): the difference of the clocks and the duration of a commit together.
    pub settle: Duration,
    /// The longest a tail waits before it looks again.
    pub poll: Duration,
}

impl Default for EventOptions {
    /// No prefix, the system's clock, kept for ever, 10 s to settle, a look per second at least.
    fn default() -> Self {
        Self {
            prefix: String::new(),
            clock: Clock::system(),
            keep: None,
            settle: Duration::from_secs(10),
            poll: Duration::from_secs(1),
        }
    }
}

/// Which events. What is `None` does not narrow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventFilter {
    /// Those of a task.
    pub task: Option<TaskId>,
    /// Those of a kind.
    pub kind: Option<String>,
    /// Those at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Those before this time.
    pub until: Option<DateTime<Utc>>,
}

impl EventFilter {
    /// The events of a task.
    pub fn of_task(task: impl Into<TaskId>) -> Self {
        Self { task: Some(task.into()), ..Self::default() }
    }

    /// Those from `since` until `until`, which is not included.
    #[must_use]
    pub fn between(since: DateTime<Utc>, until: DateTime<Utc>) -> Self {
        Self { since: Some(since), until: Some(until), ..Self::default() }
    }

    /// The filter on records. Times go by the id, which is the key.
    pub(crate) fn to_filter(&self) -> Result<Filter> {
        let mut filter = Filter::All;
        if let Some(task) = &self.task {
            filter =
                filter & Filter::eq("task_id", task.task_id.as_str())? & Filter::eq("resource_id", task.resource_id.as_str())?;
        }
        if let Some(kind) = &self.kind {
            filter = filter & Filter::eq("kind", kind.as_str())?;
        }
        if let Some(since) = self.since {
            filter = filter & Filter::ge("id", ids::sortable(since, 0).to_string())?;
        }
        if let Some(until) = self.until {
            filter = filter & Filter::lt("id", ids::sortable(until, 0).to_string())?;
        }
        Ok(filter)
    }
}

/// A page of events, oldest first.
#[derive(Clone, Debug)]
pub struct EventPage {
    /// The events.
    pub events: Vec<Event>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<PageToken>,
}

/// What happened to tasks: append-only, sorted by time, followed with [`tail`](Self::tail). Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventStore {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) table: Table<Event>,
    pub(crate) options: EventOptions,
    ticker: Ticker,
    /// Counts what this process wrote, to wake its tails.
    pub(crate) written: watch::Sender<u64>,
}

impl EventStore {
    /// Opens the table; creates it where it is not there.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for a bad prefix; the backend's.
    pub async fn open(records: &RecordStore, options: EventOptions) -> Result<Self> {
        let table = Table::open(records, &options.prefix, "events", History::None).await?;
        let inner = Inner { table, options, ticker: Ticker::default(), written: watch::Sender::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn records(&self) -> &RecordStore {
        &self.inner.table.records
    }

    /// Appends an event of the program's own.
    ///
    /// # Errors
    /// The backend's.
    pub async fn append(&self, task: impl Into<TaskId>, kind: impl Into<String>, data: Value) -> Result<Event> {
        let (task, at) = (task.into(), self.inner.ticker.next(&self.inner.options.clock));
        let TaskId { resource_id, task_id } = task;
        let event = Event { id: ids::sortable(at, ids::random()), at, resource_id, task_id, kind: kind.into(), data };
        self.put(&event).await.context("events.append", || format!("event `{}` of task `{}`", event.kind, event.task()))?;
        Ok(event)
    }

    /// Writes an event, once more where it is there already.
    pub(crate) async fn put(&self, event: &Event) -> Result<()> {
        self.inner.table.write(self.to_write(event)?).await?;
        self.wake();
        Ok(())
    }

    pub(crate) fn to_write(&self, event: &Event) -> Result<Write> {
        let expires_at = self.inner.options.keep.map(|keep| add(event.at, keep));
        self.inner.table.put(event, Expect::Anything, expires_at)
    }

    /// Says that something was written, to the tails of this process.
    pub(crate) fn wake(&self) {
        self.inner.written.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn query(&self, filter: &EventFilter) -> Result<Query> {
        Ok(self.inner.table.query().filter(filter.to_filter()?))
    }

    /// One page of events, oldest first.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for a bad limit or token; the backend's.
    pub async fn list(&self, filter: &EventFilter, limit: u32, after: Option<PageToken>) -> Result<EventPage> {
        let (events, next) = self.inner.table.page(&self.query(filter)?.limit(limit).after(after)).await?;
        Ok(EventPage { events, next })
    }

    /// The events of a task, oldest first: the first 10,000.
    ///
    /// # Errors
    /// The backend's.
    pub async fn of_task(&self, task: impl Into<TaskId>) -> Result<Vec<Event>> {
        let page = self.list(&EventFilter::of_task(task), storage_core::MAX_PAGE, None).await?;
        Ok(page.events)
    }

    /// Follows events as they come, without end.
    ///
    /// **Guarantee.** Every event that becomes visible within [`settle`](EventOptions::settle) after the time in its id, by this reader's clock, is
    /// seen once and once only, whichever writer wrote it and in whatever order their commits land. So writers' clocks may be behind by that much less
    /// the duration of a commit; ahead, they may be by any amount. An event that comes later than that may be missed (a
    /// [`list`](Self::list) has it). Events come in the order of their ids, but for those that became visible late.
    ///
    /// How: new events are read from behind the newest one seen; besides, now and then, all of the last `settle` before the previous such look are read
    /// again, and what has been seen is left out. What is remembered is the ids of that span.
    ///
    /// An error is an item like any other: the stream goes on after it, a little later.
    #[must_use]
    pub fn tail(&self, filter: EventFilter, from: TailFrom) -> BoxStream<'static, Result<Event>> {
        tail::follow(self.clone(), filter, from)
    }

    /// Removes events that are older than [`keep`](EventOptions::keep). Answers how many the backend had not removed by itself.
    ///
    /// # Errors
    /// The backend's.
    pub async fn sweep(&self) -> Result<u64> {
        let Some(keep) = self.inner.options.keep else { return Ok(0) };
        let horizon = self.inner.options.clock.now() - keep;
        let old = EventFilter { until: Some(horizon), ..EventFilter::default() };
        self.inner.table.sweep(self.query(&old)?).await
    }
}
