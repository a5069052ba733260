//! The stores that the cases run on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use storage_core::{
    Atomicity, Backends, BlobStore, Clock, ConsumerOptions, ConsumerReport, Count, Driver as _, DriverConfig, QueueBackend,
    QueueStats, QueueStore, RecordBackend, RecordStore, Result,
};
use storage_fs::FsDriver;
use storage_memory::MemoryStore;
use storage_sqlite::SqliteDriver;
use storage_tasks::{
    EventOptions, EventStore, OutboxRelay, RelayOptions, ResultOptions, ResultStore, ScheduleOptions, ScheduleStore, TaskOptions,
    TaskParts, TaskStore, TaskWorker, WorkerOptions,
};

use crate::faults::{Faults, FaultyQueue, FaultyRecords};

/// One process's view of stores that outlive it: [`tasks`](Self::tasks) is a fresh start.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) faults: Arc<Faults>,
    records: Arc<dyn RecordBackend>,
    queue: Arc<dyn QueueBackend>,
    /// Where events are, if not with the tasks. Then results are blobs.
    elsewhere: Option<Arc<dyn RecordBackend>>,
    reduced: bool,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    fn of(clock: Clock, records: Backends, queue: Backends, folder: Option<tempfile::TempDir>) -> Self {
        let (records, queue) = (records.records.unwrap(), queue.queue.unwrap());
        Self { clock, faults: Faults::none(), records, queue, elsewhere: None, reduced: false, _folder: folder }
    }

    /// Everything in one store: one batch.
    pub(crate) async fn memory() -> Self {
        let clock = ahead();
        let store = MemoryStore::with_clock(clock.clone()).backends();
        Self::of(clock, store.clone(), store, None)
    }

    /// The queue in another store, without dedup.
    pub(crate) async fn split() -> Self {
        let clock = ahead();
        let [records, queue] = [(); 2].map(|()| MemoryStore::with_clock(clock.clone()).backends());
        Self::of(clock, records, queue, None)
    }

    /// Events in a bucket, tasks and queue in one store, results in blobs.
    pub(crate) async fn apart() -> Self {
        let clock = ahead();
        let tasks = MemoryStore::with_clock(clock.clone()).backends();
        let events = blob_records(&clock).records;
        let world = Self::of(clock, tasks.clone(), tasks, None);
        Self { elsewhere: events, ..world }
    }

    /// A store that is atomic within a record alone, and has neither expiry nor dedup nor messages within batches.
    pub(crate) async fn reduced() -> Self {
        Self { reduced: true, ..Self::memory().await }
    }

    pub(crate) async fn sqlite() -> Self {
        let (clock, folder) = (ahead(), tempfile::tempdir().unwrap());
        let url = format!("sqlite:///{}/tasks.db?synchronous=off", folder.path().display());
        let config = DriverConfig { clock: clock.clone(), ..DriverConfig::from_url(&url) };
        let store = SqliteDriver.open(&config).await.unwrap();
        Self::of(clock, store.clone(), store, Some(folder))
    }

    pub(crate) async fn fs() -> Self {
        let (clock, folder) = (ahead(), tempfile::tempdir().unwrap());
        let url = format!("file://{}/store?fsync=false", folder.path().display());
        let config = DriverConfig { clock: clock.clone(), ..DriverConfig::from_url(&url) };
        let store = FsDriver.open(&config).await.unwrap();
        Self::of(clock, store.clone(), store, Some(folder))
    }

    /// Tasks, results, events and schedules in a bucket, the queue elsewhere.
    pub(crate) async fn bucket() -> Self {
        let clock = ahead();
        let queue = MemoryStore::with_clock(clock.clone()).backends();
        Self::of(clock.clone(), blob_records(&clock), queue, None)
    }

    /// The same stores, in a process of its own.
    pub(crate) fn another_process(&self) -> Self {
        Self {
            clock: self.clock.clone(),
            faults: Faults::none(),
            records: Arc::clone(&self.records),
            queue: Arc::clone(&self.queue),
            elsewhere: self.elsewhere.clone(),
            reduced: self.reduced,
            _folder: None,
        }
    }

    fn wrapped(&self, inner: &Arc<dyn RecordBackend>) -> RecordStore {
        let mut capabilities = inner.capabilities().clone();
        if self.reduced {
            capabilities.atomic = Atomicity::Record;
            capabilities.enqueue = false;
            capabilities.expiry = false;
        }
        let (inner, faults) = (Arc::clone(inner), Arc::clone(&self.faults));
        RecordStore::new(Arc::new(FaultyRecords { inner, capabilities, faults }))
    }

    pub(crate) fn records(&self) -> RecordStore {
        self.wrapped(&self.records)
    }

    pub(crate) fn queue(&self) -> QueueStore {
        let mut capabilities = self.queue.capabilities().clone();
        // Two relays, or one that ended before it noted the sending, are to send twice in some worlds.
        capabilities.dedup &= !self.reduced && !self.is_split();
        let (inner, faults) = (Arc::clone(&self.queue), Arc::clone(&self.faults));
        QueueStore::new(Arc::new(FaultyQueue { inner, capabilities, faults }))
    }

    fn is_split(&self) -> bool {
        self.records.info() != self.queue.info()
    }

    /// The record store that events are in, if not that of the tasks.
    pub(crate) fn elsewhere(&self) -> Option<RecordStore> {
        self.elsewhere.as_ref().map(|records| self.wrapped(records))
    }

    pub(crate) async fn events(&self, settle: Duration) -> EventStore {
        let options =
            EventOptions { clock: self.clock.clone(), settle, poll: Duration::from_millis(50), ..EventOptions::default() };
        EventStore::open(&self.wrapped(self.elsewhere.as_ref().unwrap_or(&self.records)), options).await.unwrap()
    }

    pub(crate) fn result_options(&self) -> ResultOptions {
        ResultOptions { clock: self.clock.clone(), poll: Duration::from_millis(50), ..ResultOptions::default() }
    }

    pub(crate) async fn schedules(&self) -> ScheduleStore {
        let options = ScheduleOptions { clock: self.clock.clone(), ..ScheduleOptions::default() };
        ScheduleStore::open(&self.records(), options).await.unwrap()
    }

    pub(crate) fn options(&self) -> TaskOptions {
        TaskOptions { clock: self.clock.clone(), max_attempts: 3, ..TaskOptions::default() }
    }

    /// The task store of a process that starts now.
    pub(crate) async fn tasks(&self) -> TaskStore {
        self.tasks_with(self.options(), self.result_options()).await
    }

    pub(crate) async fn tasks_with(&self, options: TaskOptions, results: ResultOptions) -> TaskStore {
        let records = self.records();
        let results = match &self.elsewhere {
            // The blobs are those of the other store: `info` says which.
            Some(_) => ResultStore::on_blobs(&self.blobs(), results).unwrap(),
            None => ResultStore::on_records(&records, results).await.unwrap(),
        };
        let events = self.events(Duration::from_secs(10)).await;
        let parts = TaskParts { records, queue: self.queue(), events, results };
        let tasks = TaskStore::with_parts(parts, options).await.unwrap();
        assert_eq!(tasks.is_one_batch(), !self.reduced && !self.is_split() && self.elsewhere.is_none());
        tasks
    }

    /// The blobs of this world: one store for all its processes.
    pub(crate) fn blobs(&self) -> BlobStore {
        use std::collections::HashMap;
        use std::sync::{LazyLock, Mutex};
        static BLOBS: LazyLock<Mutex<HashMap<String, BlobStore>>> = LazyLock::new(Mutex::default);
        let mut blobs = BLOBS.lock().unwrap();
        let new = || BlobStore::new(Arc::new(MemoryStore::with_clock(self.clock.clone()).blobs()));
        blobs.entry(self.records.info().to_string()).or_insert_with(new).clone()
    }

    pub(crate) async fn stats(&self) -> QueueStats {
        self.queue().stats(&self.options().queue).await.unwrap()
    }

    pub(crate) async fn dead(&self) -> u64 {
        match self.stats().await.dead {
            Count::Exact(dead) => dead,
            other => panic!("{other:?}"),
        }
    }

    /// What a process does when it starts, after others may have ended anywhere.
    pub(crate) async fn recover(&self, tasks: &TaskStore) {
        // Whatever was leased by those who ended.
        self.clock.advance(Duration::from_secs(61));
        tasks.recover().await.unwrap();
        OutboxRelay::new(tasks, RelayOptions::default()).drain().await.unwrap();
    }
}

/// Records on blobs.
fn blob_records(clock: &Clock) -> Backends {
    let config = DriverConfig { clock: clock.clone(), ..DriverConfig::default() };
    storage_object::records::serve(Arc::new(MemoryStore::with_clock(clock.clone()).blobs()), &config).unwrap()
}

/// A clock that stands two minutes ahead, so that writers can be behind it.
fn ahead() -> Clock {
    let clock = Clock::manual();
    clock.advance(Duration::from_secs(120));
    clock
}

pub(crate) fn worker_options() -> WorkerOptions {
    let consumer = ConsumerOptions {
        concurrency: 4,
        drain: true,
        retry_first: Duration::from_millis(1),
        retry_longest: Duration::from_millis(5),
        ..ConsumerOptions::default()
    };
    WorkerOptions { consumer, foreign_delay: Some(Duration::from_millis(1)), ..WorkerOptions::default() }
}

/// Runs a worker until the queue is empty, while the clock moves.
pub(crate) async fn drain(world: &World, worker: &TaskWorker) -> Result<ConsumerReport> {
    let clock = world.clock.clone();
    // Backoffs are by the store's clock, which nobody else moves.
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_millis(2)).await;
            clock.advance(Duration::from_millis(20));
        }
    };
    tokio::select! {
        report = worker.run(std::future::pending()) => report,
        () = ticking => unreachable!("it never ends"),
    }
}

/// A worker that answers every task with its input, and counts.
pub(crate) fn echo(tasks: &TaskStore, runs: &Arc<AtomicU32>) -> TaskWorker {
    let runs = Arc::clone(runs);
    TaskWorker::new(tasks, worker_options()).on_any(move |context| {
        runs.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<Value, _>(context.task.input) }
    })
}
