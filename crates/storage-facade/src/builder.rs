//! [`StorageBuilder`]: where the configuration comes from.

use std::path::{Path, PathBuf};

use figment::Provider;
use storage_core::{Clock, Result};

use crate::config::{Component, Config, ConfigFile, EnvLayer, Layers, PlatformLayout, read};
use crate::plan::plan;
use crate::registry::Registry;
use crate::storage::Storage;

/// The prefix of environment variables.
const DEFAULT_PREFIX: &str = "STORAGE_";

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
    observed: bool,
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
            observed: false,
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

    /// Tells of every call: a `tracing` span of level debug, and, with the cargo feature `metrics`, counts, latencies and bytes (see
    /// [`storage_layers::observe`]).
    #[must_use]
    pub fn observed(mut self) -> Self {
        self.observed = true;
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

    /// Opens the components that are configured; the others when they are asked for. Serves the numbers of calls, where `metrics.listen` says so.
    ///
    /// # Errors
    /// See [`config`](Self::config), and those of the backends.
    pub async fn open(self) -> Result<Storage> {
        let storage = self.plan()?;
        storage.serve_metrics()?;
        for component in storage.config().components.keys() {
            match component {
                Component::Blobs => drop(storage.blobs().await?),
                component => drop(storage.backends(*component).await?),
            }
        }
        Ok(storage)
    }

    /// Reads and checks the configuration; each component is opened when it is first asked for, so that one that can't be reached does not keep
    /// the others from working. Numbers of calls are served when [`Storage::serve_metrics`] is called.
    ///
    /// # Errors
    /// See [`config`](Self::config).
    pub fn plan(self) -> Result<Storage> {
        let config = self.config()?;
        let plan = plan(&config, &self.registry)?;
        let observed = self.observed || config.metrics.as_ref().is_some_and(|metrics| metrics.enabled);
        Ok(Storage::of(plan, config, self.clock, observed))
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
