//! [`TaskStore`]: tasks, from their submission to their end.

mod apply;
mod change;
mod foreign;
mod list;
mod recover;
mod submit;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use storage_core::{
    Atomicity, Batch, Clock, Error, Expect, ForeignTasks, History, NewMessage, QueueName, QueueSpec, QueueStore, RecordStore,
    Result, ResultExt as _, Version,
};

pub use self::change::{Cancel, Claim, Start};
pub(crate) use self::foreign::call_end;
pub use self::list::{TaskFilter, TaskPage, TaskToken};
pub use self::recover::{Recovered, Swept};

use crate::Task;
use crate::bell::Bell;
use crate::event::{EventOptions, EventStore};
use crate::ids::TaskId;
use crate::message::TaskMessage;
use crate::result::{ResultOptions, ResultStore};
use crate::table::{Table, is_same_store};

/// How a [`TaskStore`] is opened.
#[derive(Clone, Debug)]
pub struct TaskOptions {
    /// What the tables' names begin with: `<prefix>tasks`, `<prefix>tasks_finished`.
    pub prefix: String,
    /// Where the time comes from.
    pub clock: Clock,
    /// The queue of tasks that name none.
    pub queue: QueueName,
    /// How queues are created that are not there. Without a delivery cap: the cap that counts is the task's [`max_attempts`](Task::max_attempts), and a
    /// message that the queue itself set aside would leave its task behind.
    pub queue_spec: QueueSpec,
    /// How often a task may be started, where it does not say.
    pub max_attempts: u32,
    /// How long finished tasks are kept. `None`: for ever.
    pub keep_finished: Option<Duration>,
    /// How many versions of each task's record are kept: what it looked like before.
    pub history: History,
}

impl Default for TaskOptions {
    /// No prefix, the system's clock, queue `tasks` without a delivery cap, 10 attempts, finished tasks kept for ever, the current version of each alone.
    fn default() -> Self {
        Self {
            prefix: String::new(),
            clock: Clock::system(),
            queue: default_queue(),
            queue_spec: QueueSpec::default().max_deliveries(None),
            max_attempts: 10,
            keep_finished: None,
            history: History::None,
        }
    }
}

#[expect(clippy::expect_used, reason = "a literal that is a good name")]
fn default_queue() -> QueueName {
    QueueName::new("tasks").expect("a good name")
}

/// The stores that tasks live in.
#[derive(Clone, Debug)]
pub struct TaskParts {
    /// The tasks themselves.
    pub records: RecordStore,
    /// The messages that run them.
    pub queue: QueueStore,
    /// What happens to them.
    pub events: EventStore,
    /// How they end.
    pub results: ResultStore,
}

/// What one batch of the record store reaches. The rest is done behind it, so that it can be done again after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Both tables.
    pub(crate) tables: bool,
    pub(crate) events: bool,
    pub(crate) results: bool,
    pub(crate) queue: bool,
}

impl Reach {
    fn of(parts: &TaskParts) -> Self {
        let (records, capabilities) = (&parts.records, parts.records.capabilities());
        let tables = capabilities.atomic == Atomicity::Store;
        let same_queue = records.backend().info() == parts.queue.backend().info();
        let events = tables && is_same_store(records, parts.events.records());
        Self {
            tables,
            events,
            results: tables && parts.results.records().is_some_and(|results| is_same_store(records, results)),
            // With events elsewhere the mark that a message is owed says too that the event is.
            queue: events && capabilities.enqueue && same_queue,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) active: Table<Task>,
    pub(crate) finished: Table<Task>,
    pub(crate) parts: TaskParts,
    pub(crate) options: TaskOptions,
    pub(crate) reach: Reach,
    /// The tasks of the system whose queues these are, where they are another's.
    foreign: Option<Arc<dyn ForeignTasks>>,
    /// Rings for a running task that is asked to stop.
    pub(crate) cancels: Bell<TaskId>,
    /// Queues that are known to be there.
    queues: Mutex<HashSet<QueueName>>,
}

/// Tasks, from their submission to their end. Cheap to clone.
///
/// A task that is not finished has its record in the active table, a finished one in the finished table. What happens to it is decided by **one conditional
/// write of its active record**; all else (event, result, move, message) goes into the same batch where the backend can, and else follows it in
/// steps that are safe to repeat and that [`recover`](Self::recover), the [`OutboxRelay`](crate::OutboxRelay) or the next delivery of its message completes after a crash:
///
/// - Records, events, results and queue in one store with [`enqueue`](storage_core::RecordCapabilities::enqueue): everything is one batch.
/// - Queue or events elsewhere: the task is its own outbox record. Its [`unsent`](Task::unsent) is written with it, and taken away when the message is sent
///   ([why](crate::OutboxRelay#why-not-the-outbox-of-the-core)).
/// - Events or results elsewhere: written behind the task, again with the same id where that is repeated. `submitted` and the events of the end are never
///   lost; `started`, `retrying` and `cancel_requested` are where the process ends just then.
/// - A backend that is atomic within less than the store: the active record first says how the task ended, then the finished one is put, then the active
///   one removed. Whoever reads in between gets the same answer from either.
#[derive(Clone, Debug)]
pub struct TaskStore {
    pub(crate) inner: Arc<Inner>,
}

impl TaskStore {
    /// Opens tasks with their events and results in one record store: the usual case.
    ///
    /// # Errors
    /// See [`with_parts`](Self::with_parts).
    pub async fn open(records: &RecordStore, queue: &QueueStore, options: TaskOptions) -> Result<Self> {
        let (prefix, clock) = (options.prefix.clone(), options.clock.clone());
        let events = EventOptions { prefix: prefix.clone(), clock: clock.clone(), ..EventOptions::default() };
        let results = ResultOptions { prefix, clock, ..ResultOptions::default() };
        let parts = TaskParts {
            records: records.clone(),
            queue: queue.clone(),
            events: EventStore::open(records, events).await?,
            results: ResultStore::on_records(records, results).await?,
        };
        Self::with_parts(parts, options).await
    }

    /// Opens tasks whose events and results may be elsewhere. Creates tables and queue where they are not there.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for bad options; [`AlreadyExists`](storage_core::ErrorKind::AlreadyExists) for a table of another
    /// schema; the backends'.
    pub async fn with_parts(parts: TaskParts, options: TaskOptions) -> Result<Self> {
        if options.max_attempts == 0 {
            return Err(Error::invalid("tasks that may never be started: max_attempts is 1 or more"));
        }
        let active = Table::open(&parts.records, &options.prefix, "tasks", options.history).await?;
        let finished = Table::open(&parts.records, &options.prefix, "tasks_finished", options.history).await?;
        let reach = Reach::of(&parts);
        let (foreign, cancels, queues) = (parts.queue.foreign_tasks(), Bell::default(), Mutex::default());
        let inner = Inner { active, finished, parts, options, reach, foreign, cancels, queues };
        let store = Self { inner: Arc::new(inner) };
        store.ensure_queue(&store.inner.options.queue).await?;
        Ok(store)
    }

    /// The stores that they live in.
    #[must_use]
    pub fn parts(&self) -> &TaskParts {
        &self.inner.parts
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> &EventStore {
        &self.inner.parts.events
    }

    /// The results.
    #[must_use]
    pub fn results(&self) -> &ResultStore {
        &self.inner.parts.results
    }

    /// The queues.
    #[must_use]
    pub fn queues(&self) -> &QueueStore {
        &self.inner.parts.queue
    }

    /// How it was opened.
    #[must_use]
    pub fn options(&self) -> &TaskOptions {
        &self.inner.options
    }

    /// True where a submission is one batch, message included. Else an [`OutboxRelay`](crate::OutboxRelay) should run somewhere.
    #[must_use]
    pub fn is_one_batch(&self) -> bool {
        self.inner.reach.queue
    }

    /// True where the queues are another system's: its workers run what is submitted here, and a [`TaskFollower`](crate::TaskFollower) should run somewhere;
    /// a [`TaskWorker`](crate::TaskWorker) runs what its programs send.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.inner.foreign.is_some()
    }

    pub(crate) fn foreign(&self) -> Option<Arc<dyn ForeignTasks>> {
        self.inner.foreign.clone()
    }

    pub(crate) async fn ensure_queue(&self, queue: &QueueName) -> Result<()> {
        let known = || self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(queue) {
            return Ok(());
        }
        self.queues().ensure_queue(queue, &self.inner.options.queue_spec).await?;
        known().insert(queue.clone());
        Ok(())
    }

    /// It may be there no more.
    pub(crate) fn forget_queue(&self, queue: &QueueName) {
        self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }

    /// The message of a task as it stands.
    pub(crate) fn message_of(&self, task: &Task) -> Result<NewMessage> {
        if let Some(foreign) = &self.inner.foreign {
            return foreign.message(&Self::call_of(task));
        }
        let capabilities = self.queues().capabilities();
        let now = self.inner.options.clock.now();
        let mut message = NewMessage::json(&TaskMessage::of(task))?.priority(task.priority);
        message.delay = task.not_before.and_then(|at| (at - now).to_std().ok()).unwrap_or_default();
        if capabilities.dedup {
            message = message.dedup_id(format!("{}-{}", task.uid, task.generation));
        }
        Ok(message)
    }

    /// The task of that id, whether it is finished or not.
    ///
    /// # Errors
    /// The backend's.
    pub async fn get_task(&self, id: impl Into<TaskId>) -> Result<Option<Task>> {
        let id = id.into();
        let key = || id.key();
        let get = async {
            if let Some(task) = self.inner.active.get(key()).await? {
                return Ok(Some(task));
            }
            if let Some(task) = self.inner.finished.get(key()).await? {
                return Ok(Some(task));
            }
            // It may have been sent again between the two.
            self.inner.active.get(key()).await
        };
        get.await.context("tasks.get", || subject(&id))
    }

    /// Writes a whole task as it is, whatever is there: for imports and repairs. Neither event nor result nor message comes with it.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for an id that can't be a key; the backend's.
    pub async fn upsert_task(&self, task: &Task) -> Result<Task> {
        let (active, finished) = (&self.inner.active, &self.inner.finished);
        let (to, from, expires_at) = match task.status.is_finished() {
            true => (finished, active, self.finished_expiry(task)),
            false => (active, finished, None),
        };
        let upsert = async {
            let (put, delete) = (to.put(task, Expect::Anything, expires_at)?, from.delete(task.id().key(), Expect::Anything));
            if self.inner.reach.tables {
                let versions = self.inner.parts.records.commit(Batch::from(vec![put, delete])).await?;
                return Ok::<_, Error>(versions.first().copied().unwrap_or_default());
            }
            let version = to.write(put).await?;
            from.write(delete).await?;
            Ok(version)
        };
        let version = upsert.await.context("tasks.upsert", || subject(&task.id()))?;
        Ok(Task { version, ..task.clone() })
    }

    /// Removes a task, finished or not; its message finds nothing to do, its events and its result stay. `false`: there was none.
    ///
    /// # Errors
    /// The backend's.
    pub async fn delete_task(&self, id: impl Into<TaskId>) -> Result<bool> {
        let id = id.into();
        let tables = [&self.inner.active, &self.inner.finished];
        let writes = tables.map(|table| table.delete(id.key(), Expect::Anything));
        let delete = async {
            if self.inner.reach.tables {
                let versions = self.inner.parts.records.commit(Batch::from(Vec::from(writes))).await?;
                return Ok::<_, Error>(versions.iter().any(|version| *version != Version::NONE));
            }
            let mut deleted = false;
            for (table, write) in tables.into_iter().zip(writes) {
                deleted |= table.write(write).await? != Version::NONE;
            }
            Ok(deleted)
        };
        delete.await.context("tasks.delete", || subject(&id))
    }
}

pub(crate) fn subject(id: &TaskId) -> String {
    format!("task `{id}`")
}
