//! Which drivers there are.

use std::fmt;
use std::sync::Arc;

use storage_core::{Driver, Error, Result, Surfaces, nearest, url_scheme};

use crate::config::{BackendConfig, Component, redacted};

/// The drivers that configuration may name. Starts with those compiled in; a program may add its own.
#[derive(Clone)]
pub struct Registry {
    drivers: Vec<Arc<dyn Driver>>,
}

/// Drivers of this toolkit that this build may lack: names and schemes, and the cargo feature that brings them, or `None` where no version does yet.
const KNOWN: [(&[&str], Option<&str>); 15] = [
    (&["sqlite"], Some("sqlite")),
    (&["fs", "file"], Some("fs")),
    (&["memory"], Some("memory")),
    (&["postgres", "postgresql"], Some("postgres")),
    (&["mysql", "mariadb"], Some("mysql")),
    (&["s3", "s3a"], Some("s3")),
    (&["az", "azure", "abfs", "abfss"], Some("azure")),
    (&["gs", "gcs"], Some("gcp")),
    (&["http", "https", "webdav", "webdavs", "dav", "davs"], Some("http")),
    (&["redis", "rediss", "valkey", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"], Some("redis")),
    (&["nats", "tls"], Some("nats")),
    (&["amqp", "amqps", "rabbitmq"], Some("amqp")),
    (&["celery", "celery+amqp", "celery+amqps"], Some("amqp")),
    (&["azure-queue"], Some("azure-queue")),
    (&["azure-table"], Some("azure-table")),
];

impl Default for Registry {
    /// The drivers compiled in.
    fn default() -> Self {
        let mut registry = Self::empty();
        #[cfg(feature = "sqlite")]
        registry.register(Arc::new(storage_sqlite::SqliteDriver));
        #[cfg(feature = "fs")]
        registry.register(Arc::new(storage_fs::FsDriver));
        #[cfg(feature = "memory")]
        registry.register(Arc::new(storage_memory::MemoryDriver));
        #[cfg(feature = "s3")]
        registry.register(Arc::new(storage_object::S3Driver));
        #[cfg(feature = "azure")]
        registry.register(Arc::new(storage_object::AzureDriver));
        #[cfg(feature = "gcp")]
        registry.register(Arc::new(storage_object::GcsDriver));
        #[cfg(feature = "http")]
        registry.register(Arc::new(storage_object::HttpDriver));
        #[cfg(feature = "nats")]
        registry.register(Arc::new(storage_nats::NatsDriver));
        #[cfg(feature = "amqp")]
        registry.register(Arc::new(storage_queue_amqp::AmqpDriver));
        #[cfg(feature = "amqp")]
        registry.register(Arc::new(celery()));
        #[cfg(feature = "azure-queue")]
        registry.register(Arc::new(storage_queue_azure::AzureQueueDriver));
        #[cfg(feature = "azure-table")]
        registry.register(Arc::new(storage_table_azure::AzureTableDriver));
        #[cfg(feature = "redis")]
        registry.register(Arc::new(storage_redis::RedisDriver));
        #[cfg(feature = "postgres")]
        registry.register(Arc::new(storage_postgres::PostgresDriver));
        #[cfg(feature = "mysql")]
        registry.register(Arc::new(storage_mysql::MysqlDriver));
        registry
    }
}

/// Celery apps, whose results may be in Redis: backends don't know each other.
#[cfg(feature = "amqp")]
fn celery() -> storage_queue_amqp::celery::CeleryDriver {
    let driver = storage_queue_amqp::celery::CeleryDriver::default();
    #[cfg(feature = "redis")]
    let driver = driver.with_results(Arc::new(storage_redis::RedisDriver));
    driver
}

impl Registry {
    /// Without any driver.
    #[must_use]
    pub const fn empty() -> Self {
        Self { drivers: Vec::new() }
    }

    /// Adds a driver; one that was there with the same name is replaced.
    pub fn register(&mut self, driver: Arc<dyn Driver>) {
        self.drivers.retain(|d| d.name() != driver.name());
        self.drivers.push(driver);
    }

    /// The drivers, in the order in which they were added.
    pub fn drivers(&self) -> impl Iterator<Item = &Arc<dyn Driver>> {
        self.drivers.iter()
    }

    fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.drivers.iter().flat_map(|d| std::iter::once(d.name()).chain(d.aliases().iter().copied()))
    }

    fn by_name(&self, name: &str) -> Option<&Arc<dyn Driver>> {
        self.drivers.iter().find(|d| d.name() == name || d.aliases().contains(&name))
    }

    fn by_scheme(&self, scheme: &str) -> Option<&Arc<dyn Driver>> {
        self.drivers.iter().find(|d| d.schemes().contains(&scheme))
    }

    /// The driver that a component's configuration means, which serves what the component needs.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config): no such driver (with the cargo feature or the nearest name); `type` and `url` speak of different ones; it does not serve
    /// what is needed; an unknown option.
    pub fn resolve(&self, config: &BackendConfig, component: &str, needs: Surfaces) -> Result<Arc<dyn Driver>> {
        let driver = self.named(config, component)?;
        self.check_serves(&**driver, needs, &format!("{}: `{component}`", config.source))?;
        driver
            .check_options(&config.driver_config())
            .map_err(|e| Error::config(format!("{}: `{component}`: {}", config.source, e.message())))?;
        Ok(Arc::clone(driver))
    }

    fn named(&self, config: &BackendConfig, component: &str) -> Result<&Arc<dyn Driver>> {
        let scheme = config.url.as_deref().and_then(url_scheme);
        let key = |key: &str| format!("{}: `{component}.{key}`", config.source);
        let by_type = match &config.driver {
            Some(name) => Some(self.by_name(name).ok_or_else(|| Self::unknown(&key("type"), "driver", name, self.names()))?),
            None => None,
        };
        let by_url = match scheme {
            Some(scheme) => Some(self.by_scheme(scheme).ok_or_else(|| {
                Self::unknown(&key("url"), "URL scheme", scheme, self.drivers.iter().flat_map(|d| d.schemes().iter().copied()))
            })?),
            None => None,
        };
        match (by_type, by_url) {
            (Some(by_type), Some(by_url)) if by_type.name() != by_url.name() => Err(Error::config(format!(
                "{}: `{component}`: the type is `{}`, but the URL is one of `{}`: leave out the one that is not meant",
                config.source,
                by_type.name(),
                by_url.name()
            ))),
            (Some(driver), _) | (None, Some(driver)) => Ok(driver),
            (None, None) => Err(Error::config(format!(
                "{}: {} has no scheme that says which backend is meant: write one ({}) or set `type`",
                config.source,
                config
                    .url
                    .as_deref()
                    .map_or_else(|| format!("`{component}`"), |url| format!("`{component}.url` {:?}", redacted(url))),
                self.drivers.iter().filter_map(|d| d.schemes().first().map(|s| format!("{s}:"))).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    fn check_serves(&self, driver: &dyn Driver, needs: Surfaces, what: &str) -> Result<()> {
        let has = driver.surfaces();
        if serves(has, needs) {
            return Ok(());
        }
        let kinds = |s: Surfaces| {
            let kinds = [(s.records, "records"), (s.queue, "queues"), (s.blobs, "blobs")];
            kinds.into_iter().filter(|(on, _)| *on).map(|(_, kind)| kind).collect::<Vec<_>>().join(" and ")
        };
        let others = self.drivers.iter().filter(|d| serves(d.surfaces(), needs)).map(|d| d.name());
        let name = driver.name();
        Err(Error::config(format!(
            "{what} needs {}, but `{name}` serves {} alone: use one of {}",
            kinds(needs),
            kinds(has),
            list(others)
        )))
    }

    fn unknown<'a>(key: &str, what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
        Error::config(match KNOWN.iter().find(|(names, _)| names.contains(&name)) {
            Some((_, Some(feature))) => {
                format!("{key}: the {what} `{name}` is not compiled in: build with the cargo feature `{feature}`")
            }
            Some((_, None)) => format!("{key}: the {what} `{name}` comes with a later version; this one has: {}", list(known)),
            None => match nearest(name, known.clone()) {
                Some(near) => format!("{key}: there is no {what} `{name}`; did you mean `{near}`?"),
                None => format!("{key}: there is no {what} `{name}`; there are: {}", list(known)),
            },
        })
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// True where a driver that serves `has` can serve `needs`.
pub(crate) fn serves(has: Surfaces, needs: Surfaces) -> bool {
    (has.records || !needs.records) && (has.queue || !needs.queue) && (has.blobs || !needs.blobs)
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.drivers.iter().map(|d| d.name())).finish()
    }
}

impl Component {
    /// True where a driver can serve the component.
    pub(crate) fn is_served_by(self, driver: &dyn Driver) -> bool {
        serves(driver.surfaces(), self.needs())
    }
}
