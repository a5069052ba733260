//! Tasks, results, events and schedules, each on the backend of its component.

use storage_core::{History, PageToken, RecordStore, Result};
use storage_tasks::{
    EventOptions, EventStore, OwedTasks, ResultOptions, ResultStore, ScheduleOptions, ScheduleStore, TaskOptions, TaskParts,
    TaskStore,
};
use tokio::sync::OnceCell;

use crate::config::{Component, Versioning};
use crate::storage::Storage;

/// Opened when they are first asked for, and shared from then on: who waits for a result is woken by who writes it.
#[derive(Debug, Default)]
pub(crate) struct TaskStores {
    tasks: OnceCell<TaskStore>,
    results: OnceCell<ResultStore>,
    events: OnceCell<EventStore>,
    schedules: OnceCell<ScheduleStore>,
}

impl Storage {
    /// Tasks: messages and rows on the backend of `task_queue` (the rows on that of `records` where it has no records), results and events
    /// on theirs. Where these are one store, a submission and an end are one batch; else see
    /// [`TaskStore::is_one_batch`].
    ///
    /// # Errors
    /// See [`records_of`](Self::records_of); [`AlreadyExists`](storage_core::ErrorKind::AlreadyExists) where a table of the same name has another schema.
    pub async fn tasks(&self) -> Result<TaskStore> {
        let open = async {
            let parts = TaskParts {
                records: self.task_rows().await?,
                queue: self.queues().await?,
                events: self.events().await?,
                results: self.results().await?,
            };
            let history = self.versions(Component::TaskQueue)?;
            let mut options = TaskOptions { clock: self.clock().clone(), history, ..TaskOptions::default() };
            if let Some(foreign) = parts.queue.foreign_tasks() {
                options.queue = foreign.default_queue().parse()?;
            }
            TaskStore::with_parts(parts, options).await
        };
        self.task_stores().tasks.get_or_try_init(|| open).await.cloned()
    }

    /// How many versions of its records a component is configured to keep.
    fn versions(&self, component: Component) -> Result<History> {
        Ok(match self.planned(component)?.config.versioning {
            Versioning::Off => History::None,
            Versioning::Keep(n) => History::Keep(n),
            Versioning::All => History::KeepAll,
        })
    }

    /// Where the rows of tasks are: with their messages, if that backend has records.
    async fn task_rows(&self) -> Result<RecordStore> {
        match self.backends(Component::TaskQueue).await?.records {
            Some(records) => Ok(RecordStore::new(records)),
            None => self.records_of(Component::Records).await,
        }
    }

    /// Tasks whose message is owed (see [`OutboxRelay`](storage_tasks::OutboxRelay)), those owed longest first. Read from their rows alone, so also while the
    /// queue's server is away.
    ///
    /// # Errors
    /// See [`records_of`](Self::records_of).
    pub async fn owed_tasks(&self, limit: u32, after: Option<PageToken>) -> Result<OwedTasks> {
        let rows = match self.planned(Component::TaskQueue)?.driver.surfaces().records {
            true => Component::TaskQueue,
            false => Component::Records,
        };
        OwedTasks::read(&self.records_of(rows).await?, &TaskOptions::default(), limit, after).await
    }

    /// How tasks ended.
    ///
    /// # Errors
    /// See [`tasks`](Self::tasks).
    pub async fn results(&self) -> Result<ResultStore> {
        let open = async {
            let history = self.versions(Component::ResultStorage)?;
            // Only then, so that results can be read while the queue is away.
            let foreign = match self.planned(Component::TaskQueue)?.driver.has_foreign_tasks() {
                true => self.queues().await?.foreign_tasks(),
                false => None,
            };
            let options = ResultOptions { clock: self.clock().clone(), history, foreign, ..ResultOptions::default() };
            ResultStore::on_records(&self.records_of(Component::ResultStorage).await?, options).await
        };
        self.task_stores().results.get_or_try_init(|| open).await.cloned()
    }

    /// What happened to tasks.
    ///
    /// # Errors
    /// See [`tasks`](Self::tasks).
    pub async fn events(&self) -> Result<EventStore> {
        let open = async {
            let options = EventOptions { clock: self.clock().clone(), ..EventOptions::default() };
            EventStore::open(&self.records_of(Component::EventStorage).await?, options).await
        };
        self.task_stores().events.get_or_try_init(|| open).await.cloned()
    }

    /// Which tasks are submitted when.
    ///
    /// # Errors
    /// See [`tasks`](Self::tasks).
    pub async fn schedules(&self) -> Result<ScheduleStore> {
        let open = async {
            let history = self.versions(Component::ScheduleStorage)?;
            let options = ScheduleOptions { clock: self.clock().clone(), history, ..ScheduleOptions::default() };
            ScheduleStore::open(&self.records_of(Component::ScheduleStorage).await?, options).await
        };
        self.task_stores().schedules.get_or_try_init(|| open).await.cloned()
    }
}
