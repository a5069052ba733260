//! Opening by configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use storage_core::{Backends, Clock, Driver, DriverConfig, Error, OptionSpec, Result, Surfaces, url_scheme};

use crate::SqliteStore;

/// How long to wait for other processes, where the configuration does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many reads run at once, where the configuration does not say.
const DEFAULT_READERS: u32 = 4;
const MAX_READERS: u32 = 64;

/// Opens SQLite files: `sqlite:///tasks.db` in the working directory, `sqlite:////var/lib/tasks.db`, or a bare path.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqliteDriver;

#[async_trait]
impl Driver for SqliteDriver {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["sqlite"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { records: true, queue: true, blobs: false }
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[
            OptionSpec {
                name: "synchronous",
                help: "When a commit is on the disk: `full` at once (default), `normal` some time later (a power cut may undo the last \
                       commits), `off` never mind (a power cut may damage the file)",
            },
            OptionSpec {
                name: "cache_mib",
                help: "How much memory each connection uses to cache pages, in MiB, 1 to 4096 (default 8)",
            },
        ]
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        Ok(SqliteStore::open(config).await?.backends())
    }
}

/// When what was committed is safe from a power cut. A crash of the program alone undoes nothing in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// At once.
    #[default]
    Full,
    /// Some time later; the file stays sound.
    Normal,
    /// Never mind: a power cut may damage the file.
    Off,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    synchronous: Synchronous,
    cache_mib: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { synchronous: Synchronous::Full, cache_mib: 8 }
    }
}

/// How a database is opened.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Absolute.
    pub(crate) path: PathBuf,
    pub(crate) synchronous: Synchronous,
    pub(crate) cache_mib: u16,
    pub(crate) readers: u32,
    /// How long to wait for other processes.
    pub(crate) timeout: Duration,
    pub(crate) auto_create: bool,
    pub(crate) clock: Clock,
}

impl Settings {
    pub(crate) fn new(config: &DriverConfig) -> Result<Self> {
        let options: Options = config.typed_options()?;
        if !(1..=4096).contains(&options.cache_mib) {
            return Err(Error::config(format!("cache_mib = {}: use 1 to 4096", options.cache_mib)));
        }
        let readers = config.pool_size.unwrap_or(DEFAULT_READERS);
        if !(1..=MAX_READERS).contains(&readers) {
            return Err(Error::config(format!("pool_size = {readers}: use 1 to {MAX_READERS}")));
        }
        Ok(Self {
            path: absolute(&path(config)?)?,
            synchronous: options.synchronous,
            cache_mib: options.cache_mib,
            readers,
            timeout: config.timeout.unwrap_or(DEFAULT_TIMEOUT),
            auto_create: config.auto_create,
            clock: config.clock.clone(),
        })
    }

    /// True where a commit waits for no disk, so that a small one can be done on the caller's thread.
    pub(crate) fn writes_here(&self) -> bool {
        self.synchronous != Synchronous::Full
    }
}

/// The path in the address, as SQLAlchemy reads it: three slashes and a relative path, or four and an absolute one.
fn path(config: &DriverConfig) -> Result<PathBuf> {
    let url = config.url.as_deref().unwrap_or_default();
    let address = config.address().unwrap_or_default();
    let path = match url_scheme(url) {
        Some(_) if url.contains("://") => address.strip_prefix('/').unwrap_or(address),
        _ => address,
    };
    if path.contains(":memory:") {
        return Err(Error::config("a database in memory alone would be gone with its connection: use the backend `memory:`"));
    }
    if path.is_empty() || path.ends_with('/') {
        return Err(Error::config(format!(
            "`{url}` names no file: use sqlite:///tasks.db (in the working directory) or sqlite:////var/lib/tasks.db"
        )));
    }
    if path.contains('\0') {
        return Err(Error::config("the path of the database holds the character U+0000"));
    }
    Ok(PathBuf::from(path))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::from(e).with_subject(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<PathBuf> {
        path(&DriverConfig::from_url(url))
    }

    #[test]
    fn addresses_are_read_as_sqlalchemy_does() {
        for (url, expected) in [
            ("sqlite:///tasks.db", "tasks.db"),
            ("sqlite:////var/lib/tasks.db", "/var/lib/tasks.db"),
            ("sqlite://x.db", "x.db"),
            ("sqlite://data/x.db", "data/x.db"),
            ("sqlite:x.db", "x.db"),
            ("./x.db", "./x.db"),
            ("/var/x.db?synchronous=normal", "/var/x.db"),
        ] {
            assert_eq!(read(url).unwrap(), Path::new(expected), "{url}");
        }
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for url in [
            "sqlite:",
            "sqlite://",
            "sqlite:///",
            "data/",
            "sqlite::memory:",
            ":memory:",
            "sqlite://:memory:",
            "sqlite:///:memory:",
        ] {
            assert_eq!(read(url).unwrap_err().kind(), storage_core::ErrorKind::Config, "{url}");
        }
        assert!(read(":memory:").unwrap_err().message().contains("memory:"));
    }

    #[test]
    fn options_are_checked() {
        let settings = |url: &str| Settings::new(&DriverConfig::from_url(url));
        assert_eq!(settings("x.db?synchronous=off").unwrap().synchronous, Synchronous::Off);
        assert!(settings("x.db?synchronous=maybe").is_err());
        assert!(settings("x.db?cache_mib=0").is_err());
        assert!(settings("x.db?cash_mib=1").is_err());
    }
}
