//! Drivers: how a backend crate is opened from configuration.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{BlobBackend, BlobStore, Clock, Error, QueueBackend, RecordBackend, Result, nearest};

/// What a driver can open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surfaces {
    /// Tables of records.
    pub records: bool,
    /// Queues.
    pub queue: bool,
    /// Blobs.
    pub blobs: bool,
}

/// One option that a driver understands, for messages and documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// Its name.
    pub name: &'static str,
    /// What it does, its unit and its default, in a sentence.
    pub help: &'static str,
}

/// What a driver is opened with.
#[derive(Clone, Default)]
pub struct DriverConfig {
    /// The address, without the query part, which is in `options`. `None`: the driver's default.
    pub url: Option<String>,
    /// The driver's own options. Names outside [`Driver::options`] are refused before `open` is called. May hold secrets: `Debug` shows their names alone.
    pub options: Map<String, Value>,
    /// How many connections at most. `None`: the driver's default.
    pub pool_size: Option<u32>,
    /// How long one operation may take. `None`: the driver's default.
    pub timeout: Option<Duration>,
    /// False: what isn't there (file, folder, bucket) is an error, not created.
    pub auto_create: bool,
    /// Where expiry and leases take the time from, for backends that have no clock of their own.
    pub clock: Clock,
    /// The program's blobs, for drivers that [want](Driver::wants_blobs) them.
    pub blobs: Option<BlobStore>,
}

impl Debug for DriverConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without user name and password, which stand between `//` and `@`.
        let url = self.url.as_deref().map(|url| match url.split_once("://") {
            Some((scheme, rest)) => {
                let authority = rest.find('/').unwrap_or(rest.len());
                let host = rest[..authority].rfind('@').map_or(0, |at| at + 1);
                format!("{scheme}://{}", &rest[host..])
            }
            None => url.to_owned(),
        });
        let options: Vec<_> = self.options.keys().collect();
        let mut shown = f.debug_struct("DriverConfig");
        shown.field("url", &url).field("options", &options).field("pool_size", &self.pool_size).field("timeout", &self.timeout);
        shown.field("auto_create", &self.auto_create).field("clock", &self.clock).finish()
    }
}

impl DriverConfig {
    /// From a URL. Its query part (`?synchronous=normal`) becomes options: `true`, `false` and integers as such, the rest as text.
    #[must_use]
    pub fn from_url(url: &str) -> Self {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let options = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, text) = pair.split_once('=').unwrap_or((pair, "true"));
            let value = match text {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                text => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
            };
            (name.to_owned(), value)
        });
        Self { url: Some(address.to_owned()), options: options.collect(), auto_create: true, ..Self::default() }
    }

    /// The URL behind its scheme: `data/x` of `fs://data/x`, and a URL without a scheme whole. `None` without a URL.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        let url = self.url.as_deref()?;
        Some(match url.split_once("://") {
            Some((_, rest)) => rest,
            None => url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).map_or(url, |(_, rest)| rest),
        })
    }

    /// The options as the driver's own type.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) where a value is of the wrong type or out of range.
    pub fn typed_options<T: DeserializeOwned>(&self) -> Result<T> {
        let read = |options: Map<String, Value>| serde_json::from_value::<T>(Value::Object(options)).map_err(|e| e.to_string());
        read(self.options.clone()).map_err(|error| {
            // serde does not say which field: it is the one that fails alike by itself.
            let fails = |(name, value): &(&String, &Value)| {
                read(Map::from_iter([((*name).clone(), (*value).clone())])).is_err_and(|alone| alone == error)
            };
            match self.options.iter().find(fails) {
                Some((name, _)) => Error::config(format!("option `{name}`: {error}")),
                None => Error::config(format!("options: {error}")),
            }
        })
    }
}

fn is_scheme(text: &str) -> bool {
    // One letter is a Windows drive.
    text.len() > 1 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// The scheme of a URL: `sqlite` of `sqlite:///app.db`. `None` for a bare path.
#[must_use]
pub fn url_scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once(':')?;
    is_scheme(scheme).then_some(scheme)
}

/// The stores that one `open` answered with. Records and queue of one store can take part in one batch where
/// [`enqueue`](crate::RecordCapabilities::enqueue) is declared.
#[derive(Clone, Debug, Default)]
pub struct Backends {
    /// Its tables.
    pub records: Option<Arc<dyn RecordBackend>>,
    /// Its queues.
    pub queue: Option<Arc<dyn QueueBackend>>,
    /// Its blobs.
    pub blobs: Option<Arc<dyn BlobBackend>>,
}

/// How a backend crate is opened from configuration. Each crate exports one.
#[async_trait]
pub trait Driver: Debug + Send + Sync + 'static {
    /// The name used in configuration: `sqlite`.
    fn name(&self) -> &'static str;

    /// Other names that configuration may use: `file` for `fs`.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// URL schemes that mean this driver: `sqlite`.
    fn schemes(&self) -> &'static [&'static str];

    /// What it can open.
    fn surfaces(&self) -> Surfaces;

    /// The options that it understands.
    fn options(&self) -> &'static [OptionSpec];

    /// True where calls to what `config` names go over a network: configuration then guards them with timeouts and retries unless it is told otherwise.
    fn is_remote(&self, config: &DriverConfig) -> bool {
        let _ = config;
        false
    }

    /// True where the queues that it opens hold another system's tasks ([`QueueBackend::foreign_tasks`]).
    fn has_foreign_tasks(&self) -> bool {
        false
    }

    /// True where what `config` names is opened with the program's blobs in [`DriverConfig::blobs`], as a place for what is too large for itself.
    fn wants_blobs(&self, config: &DriverConfig) -> bool {
        let _ = config;
        false
    }

    /// Opens the store.
    async fn open(&self, config: &DriverConfig) -> Result<Backends>;

    /// Checks the names of the options.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a name outside [`options`](Self::options), with the nearest that there is.
    fn check_options(&self, config: &DriverConfig) -> Result<()> {
        let known = || self.options().iter().map(|o| o.name);
        let Some(unknown) = config.options.keys().find(|name| known().all(|k| k != *name)) else { return Ok(()) };
        let hint = match nearest(unknown, known()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.options().is_empty() => "it has none".into(),
            None => format!("it has: {}", known().collect::<Vec<_>>().join(", ")),
        };
        Err(Error::config(format!("driver `{}` has no option `{unknown}`; {hint}", self.name())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn urls_split_into_address_and_options() {
        let config = DriverConfig::from_url("sqlite:///a.db?synchronous=normal&pool=4&wal");
        assert_eq!(config.address(), Some("/a.db"));
        assert_eq!(Value::Object(config.options), json!({"synchronous": "normal", "pool": 4, "wal": true}));
        assert_eq!(DriverConfig::from_url("./results").address(), Some("./results"));
        assert_eq!(DriverConfig::from_url("C:\\data").address(), Some("C:\\data"));
        assert_eq!(DriverConfig::from_url("memory:").address(), Some(""));
        assert_eq!(url_scheme("memory:"), Some("memory"));
        assert_eq!(url_scheme("./a:b"), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = DriverConfig::from_url("s3://joe:hunter2@bucket/prefix?secret_key=hunter2");
        assert!(format!("{config:?}").contains("bucket/prefix") && format!("{config:?}").contains("secret_key"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_bad_option_is_named() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Options {
            #[serde(default)]
            _size: u8,
            #[serde(default)]
            _fsync: bool,
        }
        let read = |url: &str| DriverConfig::from_url(url).typed_options::<Options>();
        assert!(read("x:?_size=5&_fsync=false").is_ok());
        assert!(read("x:?_fsync=true&_size=500").unwrap_err().message().starts_with("option `_size`: "));
        assert!(read("x:?_fsync=maybe&_size=5").unwrap_err().message().starts_with("option `_fsync`: "));
    }
}
