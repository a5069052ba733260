//! What a program is configured to use, read from layers and checked.

mod env;
mod file;
mod layer;
mod metrics;
mod platform;
mod policy;
mod read;
mod transforms;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};
use storage_core::{DriverConfig, Surfaces};

pub use self::env::EnvLayer;
pub use self::file::ConfigFile;
pub(crate) use self::layer::Layers;
pub use self::metrics::MetricsConfig;
pub use self::platform::PlatformLayout;
pub use self::policy::{Part, PolicySettings};
pub(crate) use self::read::read;
pub(crate) use self::transforms::COPIES;
pub use self::transforms::Transforms;

/// A part of the toolkit that is configured on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// A program's own tables.
    Records,
    /// Queues, and the rows of tasks.
    TaskQueue,
    /// Results of tasks.
    ResultStorage,
    /// Events of tasks.
    EventStorage,
    /// Schedules.
    ScheduleStorage,
    /// Blobs.
    Blobs,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Records, Self::TaskQueue, Self::ResultStorage, Self::EventStorage, Self::ScheduleStorage, Self::Blobs];

    /// Its key in configuration.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::TaskQueue => "task_queue",
            Self::ResultStorage => "result_storage",
            Self::EventStorage => "event_storage",
            Self::ScheduleStorage => "schedule_storage",
            Self::Blobs => "blobs",
        }
    }

    /// What its backend must serve.
    #[must_use]
    pub const fn needs(self) -> Surfaces {
        Surfaces {
            records: !matches!(self, Self::Blobs | Self::TaskQueue),
            queue: matches!(self, Self::TaskQueue),
            blobs: matches!(self, Self::Blobs),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// Which backend a component uses, and how.
#[derive(Clone, PartialEq)]
pub struct BackendConfig {
    /// The driver's name or alias, as written. `None`: the URL's scheme says.
    pub driver: Option<String>,
    /// The address, without the query part, which is in `options`.
    pub url: Option<String>,
    /// The driver's own options. May hold secrets: `Debug` shows their names alone.
    pub options: Map<String, Value>,
    /// How many connections at most.
    pub pool_size: Option<u32>,
    /// How long one operation may take.
    pub timeout: Option<Duration>,
    /// False: what isn't there is an error, not created.
    pub auto_create: bool,
    /// How many versions of each task's row are kept: none, so many, or all.
    pub versioning: Versioning,
    /// How calls are guarded.
    pub policy: PolicySettings,
    /// `blobs`: what is put in front of the backend.
    pub transforms: Transforms,
    /// Where it was set, for messages: a file, environment variables, the program.
    pub source: String,
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            driver: None,
            url: None,
            options: Map::new(),
            pool_size: None,
            timeout: None,
            auto_create: true,
            versioning: Versioning::Off,
            policy: PolicySettings::default(),
            transforms: Transforms::default(),
            source: "the defaults".into(),
        }
    }
}

/// How many versions of records the toolkit's own tables keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versioning {
    /// The current one alone.
    #[default]
    Off,
    /// The newest so many.
    Keep(u32),
    /// All.
    All,
}

impl BackendConfig {
    /// A backend at `url`.
    #[must_use]
    pub fn at(url: &str) -> Self {
        let DriverConfig { url, options, .. } = DriverConfig::from_url(url);
        Self { url, options, ..Self::default() }
    }

    pub(crate) fn driver_config(&self) -> DriverConfig {
        DriverConfig {
            url: self.url.clone(),
            options: self.options.clone(),
            pool_size: self.pool_size,
            timeout: self.timeout,
            auto_create: self.auto_create,
            ..DriverConfig::default()
        }
    }
}

/// The whole configuration.
#[derive(Clone, Default, PartialEq)]
pub struct Config {
    /// What components use that are not set themselves.
    pub default: Option<BackendConfig>,
    /// The components that are set.
    pub components: BTreeMap<Component, BackendConfig>,
    /// Whether every call is told of. `None`: nothing is said, and so it is not.
    pub metrics: Option<MetricsConfig>,
}

impl fmt::Debug for BackendConfig {
    /// Without the values of options and the credentials of URLs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_deref().map(redacted);
        let options: Vec<_> = self.options.keys().collect();
        write!(f, "{{ type: {:?}, url: {url:?}, options: {options:?} }}", self.driver)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = self.default.iter().map(|config| ("default", config));
        f.debug_map().entries(default.chain(self.components.iter().map(|(k, c)| (k.key(), c)))).finish()
    }
}

/// A URL without its user name and password.
#[must_use]
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) => format!("{scheme}://***@{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_credentials() {
        assert_eq!(redacted("postgres://joe:secret@host/db"), "postgres://***@host/db");
        assert_eq!(redacted("postgres://joe:p@ss@host/db"), "postgres://***@host/db");
        assert_eq!(redacted("sqlite:///a@b.db"), "sqlite:///a@b.db");
        let config =
            Config { default: Some(BackendConfig::at("s3://key:secret@bucket?secret_key=hunter2")), ..Config::default() };
        let shown = format!("{config:?}");
        assert!(!shown.contains("secret@") && !shown.contains("hunter2"), "{shown}");
    }
}
