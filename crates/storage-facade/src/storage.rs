//! [`Storage`]: every component of a program, opened from its configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Provider;
use storage_core::{
    BackendInfo, Backends, BlobBackend, BlobStore, Clock, Driver, Error, QueueStore, RecordStore, Result, Surfaces,
};
use storage_layers::transform::stack;
use tokio::sync::Mutex;

use crate::config::{BackendConfig, COPIES, Component, Config, ConfigFile, EnvLayer, Layers, PlatformLayout, read};
use crate::registry::Registry;
use crate::tasks::TaskStores;

/// Where records and queues are without any configuration.
const DEFAULT_URL: &str = "sqlite:///storage.db";
/// Where blobs are beside it.
const DEFAULT_BLOBS: &str = "./storage-blobs";
/// The prefix of environment variables.
const DEFAULT_PREFIX: &str = "STORAGE_";

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
    opened: Mutex<Vec<(BackendConfig, Backends)>>,
    /// The blobs with their transforms, once they have been asked for.
    blobs: Mutex<Option<Arc<dyn BlobBackend>>>,
    tasks: TaskStores,
}

/// What a component will use.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) config: BackendConfig,
    /// The copies of a mirror of blobs.
    pub(crate) copies: Vec<Self>,
}

/// Says where the configuration comes from. Later layers win: defaults, file, environment, code.
#[derive(Debug)]
pub struct StorageBuilder {
    file: Option<PathBuf>,
    find_file: bool,
    env: Option<EnvLayer>,
    code: Vec<(String, serde_json::Value)>,
    providers: Vec<Layered>,
    registry: Registry,
    clock: Clock,
    code_name: String,
}

struct Layered(Box<dyn Provider + Send + Sync>);

impl std::fmt::Debug for Layered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.metadata().name)
    }
}

impl Default for StorageBuilder {
    fn default() -> Self {
        Self {
            file: None,
            find_file: true,
            env: Some(EnvLayer::new(DEFAULT_PREFIX)),
            code: Vec::new(),
            providers: Vec::new(),
            registry: Registry::default(),
            clock: Clock::system(),
            code_name: "the program".into(),
        }
    }
}

impl StorageBuilder {
    /// Reads this file rather than looking for `storage.toml`, `.yaml`, `.yml` or `.json` in the working directory.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Reads no file.
    #[must_use]
    pub fn no_file(mut self) -> Self {
        self.find_file = false;
        self
    }

    /// Reads environment variables with this prefix in place of `STORAGE_`.
    #[must_use]
    pub fn env_prefix(mut self, prefix: &str) -> Self {
        self.env = Some(EnvLayer::new(prefix));
        self
    }

    /// Reads these variables in place of the process's own.
    #[must_use]
    pub fn env(mut self, env: EnvLayer) -> Self {
        self.env = Some(env);
        self
    }

    /// Reads no environment variables.
    #[must_use]
    pub fn no_env(mut self) -> Self {
        self.env = None;
        self
    }

    /// One backend for every component.
    #[must_use]
    pub fn url(self, url: &str) -> Self {
        self.set("url", url)
    }

    /// Sets a component's backend (`"blobs"`, a URL or a table as in a file), over file and environment.
    #[must_use]
    pub fn set(mut self, component: &str, value: impl Into<serde_json::Value>) -> Self {
        self.code.push((component.to_owned(), value.into()));
        self
    }

    /// What messages call the settings made with [`url`](Self::url) and [`set`](Self::set), where it is not the program that makes them: `--url`.
    #[must_use]
    pub fn called(mut self, name: &str) -> Self {
        name.clone_into(&mut self.code_name);
        self
    }

    /// Adds a figment provider (a `Figment`, a file of another layout) over file and environment.
    #[must_use]
    pub fn provider(mut self, provider: impl Provider + Send + Sync + 'static) -> Self {
        self.providers.push(Layered(Box::new(provider)));
        self
    }

    /// Uses these drivers.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Uses this clock, in backends that have none of their own.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Reads and checks the configuration; opens nothing.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config) naming the file or variable, the key, and what would be right.
    pub fn config(&self) -> Result<Config> {
        let mut layers = Layers::default();
        let file = match &self.file {
            Some(path) => Some(ConfigFile::read(path)?),
            None if self.find_file => ConfigFile::find(Path::new("."))?,
            None => None,
        };
        match &file {
            Some(file) if PlatformLayout::fits(file) => layers.push(&PlatformLayout::read(file)?)?,
            Some(file) => layers.push(file)?,
            None => {}
        }
        for (index, variable) in self.env.iter().flat_map(EnvLayer::layers).enumerate() {
            match index {
                0 => layers.push(&variable)?,
                _ => layers.push_beside(&variable)?,
            }
        }
        for Layered(provider) in &self.providers {
            layers.push(&**provider)?;
        }
        for (component, value) in &self.code {
            let layer = figment::providers::Serialized::default(component, value);
            layers.push(&Named(layer, self.code_name.clone()))?;
        }
        read(&layers.merged())
    }

    /// Opens the components that are configured; the others when they are asked for.
    ///
    /// # Errors
    /// See [`config`](Self::config), and those of the backends.
    pub async fn open(self) -> Result<Storage> {
        let storage = self.plan()?;
        for component in storage.inner.config.components.keys() {
            match component {
                Component::Blobs => drop(storage.blobs().await?),
                component => drop(storage.backends(*component).await?),
            }
        }
        Ok(storage)
    }

    /// Reads and checks the configuration; each component is opened when it is first asked for, so that one that can't be reached does not keep
    /// the others from working.
    ///
    /// # Errors
    /// See [`config`](Self::config).
    pub fn plan(self) -> Result<Storage> {
        let config = self.config()?;
        let plan = plan(&config, &self.registry)?;
        Ok(Storage {
            inner: Arc::new(Inner {
                plan,
                config,
                clock: self.clock,
                opened: Mutex::default(),
                blobs: Mutex::default(),
                tasks: TaskStores::default(),
            }),
        })
    }
}

/// A layer set by code, named so.
struct Named<P>(P, String);

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named(self.1.clone())
    }

    fn data(&self) -> figment::Result<figment::value::Map<figment::Profile, figment::value::Dict>> {
        self.0.data()
    }
}

/// Decides what each component uses: its own setting; else `default`; else the task queue's backend if it can serve; else the embedded defaults.
fn plan(config: &Config, registry: &Registry) -> Result<BTreeMap<Component, Planned>> {
    let resolve = |backend: &BackendConfig, component: &str, needs| -> Result<Planned> {
        let driver = registry.resolve(backend, component, needs)?;
        let copies = backend.transforms.copies.iter().map(|copy| {
            let driver = registry.resolve(copy, COPIES, Component::Blobs.needs())?;
            Ok(Planned { driver, config: copy.clone(), copies: Vec::new() })
        });
        let copies = copies.collect::<Result<Vec<_>>>()?;
        let checked = backend.transforms.stack.check(copies.len());
        checked.map_err(|e| Error::config(format!("{}: `{component}`: {}", backend.source, e.message())))?;
        Ok(Planned { driver, config: backend.clone(), copies })
    };
    let mut plan = BTreeMap::new();
    for (component, backend) in &config.components {
        plan.insert(*component, resolve(backend, component.key(), component.needs())?);
    }
    let default = config.default.as_ref().map(|d| resolve(d, "default", Surfaces::default())).transpose()?;
    let shared = default.clone().or_else(|| plan.get(&Component::TaskQueue).cloned());
    for component in Component::ALL {
        if plan.contains_key(&component) {
            continue;
        }
        if let Some(shared) = shared.as_ref().filter(|shared| component.is_served_by(&*shared.driver)) {
            plan.insert(component, shared.clone());
        } else if component == Component::Blobs {
            // Blobs beside an embedded database are an embedded folder; beside a server they must be said.
            let beside = shared.as_ref().map_or(Some(DEFAULT_BLOBS.to_owned()), blobs_beside);
            if let Some(planned) = beside.and_then(|path| resolve(&embedded("fs", &path), "blobs", component.needs()).ok()) {
                plan.insert(component, planned);
            }
        } else if let Ok(planned) = resolve(&BackendConfig::at(DEFAULT_URL), component.key(), component.needs()) {
            plan.insert(component, planned);
        }
    }
    Ok(plan)
}

fn embedded(driver: &str, path: &str) -> BackendConfig {
    BackendConfig { driver: Some(driver.into()), url: Some(path.into()), ..BackendConfig::default() }
}

/// The folder for blobs beside an SQLite file: `app.db` → `app.db-blobs`.
fn blobs_beside(shared: &Planned) -> Option<String> {
    if shared.driver.name() != "sqlite" {
        return None;
    }
    let url = shared.config.url.as_deref()?;
    let path = url.strip_prefix("sqlite://").map_or(url, |rest| rest.strip_prefix('/').unwrap_or(rest));
    Some(if path.starts_with(['/', '.']) { format!("{path}-blobs") } else { format!("./{path}-blobs") })
}

impl Storage {
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

    /// The clock in use.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
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
        self.open_planned(self.planned(component)?, component.key()).await
    }

    async fn open_planned(&self, planned: &Planned, component: &str) -> Result<Backends> {
        let mut opened = self.inner.opened.lock().await;
        let address = |c: &BackendConfig| (c.url.clone(), c.driver.clone());
        for (config, backends) in opened.iter() {
            if address(config) != address(&planned.config) {
                continue;
            }
            if (&config.options, config.pool_size, config.timeout, config.auto_create)
                != (&planned.config.options, planned.config.pool_size, planned.config.timeout, planned.config.auto_create)
            {
                return Err(Error::config(format!(
                    "{}: `{component}` opens what another component ({}) opens, with other settings: equal URLs share one backend, so make them the same",
                    planned.config.source, config.source
                )));
            }
            return Ok(backends.clone());
        }
        let mut driver_config = planned.config.driver_config();
        driver_config.clock = self.inner.clock.clone();
        let backends = planned.driver.open(&driver_config).await.map_err(|e| {
            e.with_operation("open")
                .with_subject(format!("`{component}` (set by {})", planned.config.source))
                .with_backend(planned.driver.name())
        })?;
        opened.push((planned.config.clone(), backends.clone()));
        Ok(backends)
    }

    /// The store of records that a component uses.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config): the component is not configured, or its backend has no records. Those of the backend.
    pub async fn records_of(&self, component: Component) -> Result<RecordStore> {
        let records = self.backends(component).await?.records;
        records.map(RecordStore::new).ok_or_else(|| Error::config(format!("the backend of `{component}` has no records")))
    }

    /// The program's own tables.
    ///
    /// # Errors
    /// See [`records_of`](Self::records_of).
    pub async fn records(&self) -> Result<RecordStore> {
        self.records_of(Component::Records).await
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
        let backend = self.open_planned(planned, component).await?.blobs.ok_or_else(none)?;
        let mut copies = Vec::new();
        for copy in &planned.copies {
            copies.push(self.open_planned(copy, COPIES).await?.blobs.ok_or_else(none)?);
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
        let mut outcome = Ok(());
        if let Some(blobs) = self.inner.blobs.lock().await.take() {
            outcome = blobs.close().await;
        }
        for (_, backends) in self.inner.opened.lock().await.drain(..) {
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
