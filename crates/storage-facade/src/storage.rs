//! [`Storage`]: every component of a program, opened from its configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage_core::outbox::{Outbox, OutboxOptions};
use storage_core::{Atomicity, BackendInfo, Backends, BlobBackend, BlobStore, Clock, Error, QueueStore, RecordStore, Result};
use storage_layers::transform::stack;
use tokio::sync::{Mutex, OnceCell};

use crate::builder::StorageBuilder;
use crate::config::{BackendConfig, COPIES, Component, Config};
use crate::metrics;
use crate::opened::Opened;
use crate::plan::Planned;
use crate::tasks::TaskStores;

/// The components of a program, opened when they are first asked for. Cheap to clone.
///
/// Components with the same URL share one backend and one pool.
#[derive(Clone, Debug)]
pub struct Storage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    plan: BTreeMap<Component, Planned>,
    config: Config,
    clock: Clock,
    opened: Mutex<Vec<Opened>>,
    /// Tell of every call, if they are to.
    observed: bool,
    /// The blobs with their transforms, once they have been asked for.
    blobs: Mutex<Option<Arc<dyn BlobBackend>>>,
    /// Between records and queues of different backends.
    outbox: OnceCell<Option<Outbox>>,
    tasks: TaskStores,
}

impl Storage {
    pub(crate) fn of(plan: BTreeMap<Component, Planned>, config: Config, clock: Clock, observed: bool) -> Self {
        let (opened, blobs, outbox, tasks) = (Mutex::default(), Mutex::default(), OnceCell::default(), TaskStores::default());
        Self { inner: Arc::new(Inner { plan, config, clock, opened, observed, blobs, outbox, tasks }) }
    }

    /// Opens what `storage.toml` (or `.yaml`, `.yml`, `.json`) in the working directory and the environment (`STORAGE_…`) say; without either, SQLite at
    /// `./storage.db` and blobs below `./storage-blobs`.
    ///
    /// # Errors
    /// See [`StorageBuilder::open`].
    pub async fn open() -> Result<Self> {
        Self::builder().open().await
    }

    /// Says where the configuration comes from.
    #[must_use]
    pub fn builder() -> StorageBuilder {
        StorageBuilder::default()
    }

    /// The configuration that it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Serves the numbers of calls where `metrics.listen` says so, as [`open`](StorageBuilder::open) does by itself: once in a process, however often it is called.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config): it is not compiled in; the address can't be listened on; the program has a recorder of its own.
    pub fn serve_metrics(&self) -> Result<()> {
        self.config().metrics.as_ref().map_or(Ok(()), metrics::start)
    }

    /// The clock in use.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// True where a backend serves this component: by its own setting, or another component's.
    #[must_use]
    pub fn is_configured(&self, component: Component) -> bool {
        self.inner.plan.contains_key(&component)
    }

    pub(crate) fn task_stores(&self) -> &TaskStores {
        &self.inner.tasks
    }

    pub(crate) fn planned(&self, component: Component) -> Result<&Planned> {
        self.inner.plan.get(&component).ok_or_else(|| {
            Error::config(format!("`{component}` is not configured, and no other component's backend can serve it: set `{component}` (or STORAGE_{}_URL)", component.key().to_uppercase()))
        })
    }

    /// Opens what a component uses, or takes what is open with the same address.
    pub(crate) async fn backends(&self, component: Component) -> Result<Backends> {
        self.open_planned(self.planned(component)?, component, component.key()).await
    }

    /// `name`: how messages call what is opened.
    async fn open_planned(&self, planned: &Planned, component: Component, name: &str) -> Result<Backends> {
        let mut driver_config = planned.config.driver_config();
        if planned.driver.wants_blobs(&driver_config) {
            // Before the lock below, which this takes as well.
            driver_config.blobs = Some(Box::pin(self.blobs()).await?);
        }
        let mut opened = self.inner.opened.lock().await;
        let address = |c: &BackendConfig| (c.url.clone(), c.driver.clone());
        for there in opened.iter_mut() {
            let config = &there.config;
            if address(config) != address(&planned.config) {
                continue;
            }
            if (&config.options, config.pool_size, config.timeout, config.auto_create)
                != (&planned.config.options, planned.config.pool_size, planned.config.timeout, planned.config.auto_create)
            {
                return Err(Error::config(format!(
                    "{}: `{name}` opens what another component ({}) opens, with other settings: equal URLs share one backend, so make them the same",
                    planned.config.source, config.source
                )));
            }
            return there.guarded(component, &planned.config, self.inner.observed);
        }
        driver_config.clock = self.inner.clock.clone();
        let backends = planned.driver.open(&driver_config).await.map_err(|e| {
            e.with_operation("open")
                .with_subject(format!("`{name}` (set by {})", planned.config.source))
                .with_backend(planned.driver.name())
        })?;
        let is_remote = planned.driver.is_remote(&driver_config);
        let mut there = Opened::new(planned.config.clone(), is_remote, backends);
        let guarded = there.guarded(component, &planned.config, self.inner.observed);
        opened.push(there);
        guarded
    }

    /// The store of records that a component uses.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config): the component is not configured, or its backend has no records. Those of the backend.
    pub async fn records_of(&self, component: Component) -> Result<RecordStore> {
        let records = self.backends(component).await?.records;
        records.map(RecordStore::new).ok_or_else(|| Error::config(format!("the backend of `{component}` has no records")))
    }

    /// The program's own tables. Messages within their batches go to the [queues](Self::queues): where these are another backend, through the
    /// [outbox](Self::outbox).
    ///
    /// # Errors
    /// See [`records_of`](Self::records_of).
    pub async fn records(&self) -> Result<RecordStore> {
        match self.outbox().await? {
            Some(outbox) => Ok(RecordStore::new(Arc::new(outbox))),
            None => self.records_of(Component::Records).await,
        }
    }

    /// What stands between [records](Self::records) and [queues](Self::queues) of different backends, so that batches may send messages. A relay runs in this
    /// process from the first message on; one that runs all the time (in a worker, say) sends what was left by processes that ended.
    ///
    /// `None` where one batch reaches both by itself, or where the records' batches reach over less than their store: then messages within them are refused.
    ///
    /// # Errors
    /// See [`records_of`](Self::records_of). The queues are opened when the first message is sent: that they can't be is no error here.
    pub async fn outbox(&self) -> Result<Option<Outbox>> {
        let open = async {
            let Ok(queue) = self.planned(Component::TaskQueue) else { return Ok(None) };
            let records = self.records_of(Component::Records).await?;
            let (planned, capabilities) = (self.planned(Component::Records)?, records.capabilities());
            let address = |config: &BackendConfig| (config.url.clone(), config.driver.clone());
            let is_one_store = address(&planned.config) == address(&queue.config) && capabilities.enqueue;
            if is_one_store || capabilities.atomic < Atomicity::Store {
                return Ok(None);
            }
            let inner = Arc::downgrade(&self.inner);
            let open = move || {
                let storage = inner.upgrade().map(|inner| Self { inner });
                async move {
                    match storage {
                        Some(storage) => storage.queues().await,
                        None => Err(Error::unavailable("the storage was dropped")),
                    }
                }
            };
            let options = OutboxOptions { clock: self.inner.clock.clone(), ..OutboxOptions::default() };
            Outbox::lazy(Arc::clone(records.backend()), open, options).map(Some)
        };
        self.inner.outbox.get_or_try_init(|| open).await.cloned()
    }

    /// The queues.
    ///
    /// # Errors
    /// See [`records_of`](Self::records_of).
    pub async fn queues(&self) -> Result<QueueStore> {
        let queue = self.backends(Component::TaskQueue).await?.queue;
        queue.map(QueueStore::new).ok_or_else(|| Error::config("the backend of `task_queue` has no queues"))
    }

    /// The blobs.
    ///
    /// # Errors
    /// See [`records_of`](Self::records_of).
    pub async fn blobs(&self) -> Result<BlobStore> {
        let planned = self.planned(Component::Blobs)?;
        let mut stacked = self.inner.blobs.lock().await;
        if let Some(blobs) = &*stacked {
            return Ok(BlobStore::new(Arc::clone(blobs)));
        }
        let component = Component::Blobs.key();
        let none = || Error::config(format!("the backend of `{component}` has no blobs"));
        let backend = self.open_planned(planned, Component::Blobs, component).await?.blobs.ok_or_else(none)?;
        let mut copies = Vec::new();
        for copy in &planned.copies {
            copies.push(self.open_planned(copy, Component::Blobs, COPIES).await?.blobs.ok_or_else(none)?);
        }
        let transforms = &planned.config.transforms.stack;
        let blobs = stack(backend, copies, transforms)
            .map_err(|e| Error::config(format!("{}: `{component}`: {}", planned.config.source, e.message())))?;
        *stacked = Some(Arc::clone(&blobs));
        Ok(BlobStore::new(blobs))
    }

    /// Which backend a component uses: opens it.
    ///
    /// # Errors
    /// See [`records_of`](Self::records_of).
    pub async fn info(&self, component: Component) -> Result<BackendInfo> {
        let needs = component.needs();
        if needs.blobs {
            return Ok(self.blobs().await?.backend().info().clone());
        }
        let backends = self.backends(component).await?;
        let info = match () {
            () if needs.queue => backends.queue.as_ref().map(|b| b.info().clone()),
            () => backends.records.as_ref().map(|b| b.info().clone()),
        };
        info.ok_or_else(|| Error::config(format!("the backend of `{component}` does not serve it")))
    }

    /// Closes every backend that is open.
    ///
    /// # Errors
    /// The first backend's that can't; the others are closed all the same.
    pub async fn close(&self) -> Result<()> {
        if let Some(Some(outbox)) = self.inner.outbox.get() {
            outbox.stop().await;
        }
        let mut outcome = Ok(());
        if let Some(blobs) = self.inner.blobs.lock().await.take() {
            outcome = blobs.close().await;
        }
        for Opened { backends, .. } in self.inner.opened.lock().await.drain(..) {
            let mut closed = Vec::new();
            if let Some(queue) = backends.queue {
                closed.push(queue.close().await);
            }
            if let Some(records) = backends.records {
                closed.push(records.close().await);
            }
            if let Some(blobs) = backends.blobs {
                closed.push(blobs.close().await);
            }
            outcome = closed.into_iter().fold(outcome, Result::and);
        }
        outcome
    }
}
