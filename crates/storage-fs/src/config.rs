//! Opening by configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use storage_core::{Backends, Driver, DriverConfig, Error, OptionSpec, Result, Surfaces};

use crate::FsStore;

/// How a folder is opened.
#[derive(Clone, Copy, Debug)]
pub struct FsOptions {
    /// True: what was acknowledged survives a power cut. False: the death of the process alone.
    pub fsync: bool,
    /// True: a missing folder is created.
    pub auto_create: bool,
    /// How many copies of the tables and queues are kept under `_storage/backups`. A new one is made when the store is opened and the newest is
    /// older than [`backup_every`](Self::backup_every). 0: none.
    pub backups: u32,
    /// Seconds.
    pub backup_every: u32,
    /// How long one operation on records or queues may wait, for other processes above all. `None`: as long as it takes.
    pub timeout: Option<Duration>,
}

impl Default for FsOptions {
    /// Durable, created, without backups (a day between them, should there be some).
    fn default() -> Self {
        Self { fsync: true, auto_create: true, backups: 0, backup_every: 86_400, timeout: None }
    }
}

/// Opens folders: `file:///absolute/path`, `fs://relative/path`, or a bare path.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsDriver;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    base_dir: Option<String>,
    #[serde(default = "yes")]
    fsync: bool,
    #[serde(default)]
    backups: u32,
    #[serde(default = "a_day")]
    backup_every: u32,
}

const fn yes() -> bool {
    true
}

const fn a_day() -> u32 {
    86_400
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "base_dir", help: "The folder, where no URL names it." },
    OptionSpec {
        name: "fsync",
        help: "true: what was acknowledged survives a power cut; false: the end of the process alone. Default: true.",
    },
    OptionSpec {
        name: "backups",
        help: "How many copies of tables and queues to keep under _storage/backups, made on opening. Default: 0.",
    },
    OptionSpec { name: "backup_every", help: "How many seconds lie between two of these copies at least. Default: 86400." },
];

impl FsDriver {
    /// The store that `config` speaks of.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config) for bad options or a missing path, and those of [`FsStore::open`].
    pub async fn store(&self, config: &DriverConfig) -> Result<FsStore> {
        let (root, options) = self.settings(config).map_err(|e| e.with_operation("fs.open"))?;
        FsStore::open(root, options, config.clock.clone()).await
    }

    fn settings(&self, config: &DriverConfig) -> Result<(PathBuf, FsOptions)> {
        self.check_options(config)?;
        let options: Options = config.typed_options()?;
        let from_url = path_of(config)?;
        let root = match (from_url, options.base_dir) {
            (Some(url), Some(folder)) if url != Path::new(&folder) => {
                return Err(Error::config(format!(
                    "the URL names the folder `{}` and base_dir `{folder}`: give one",
                    url.display()
                )));
            }
            (Some(folder), _) => folder,
            (None, Some(folder)) if !folder.is_empty() => PathBuf::from(folder),
            (None, _) => return Err(Error::config("no folder: give a URL such as file:///var/lib/app, or base_dir")),
        };
        let Options { fsync, backups, backup_every, .. } = options;
        Ok((root, FsOptions { fsync, auto_create: config.auto_create, backups, backup_every, timeout: config.timeout }))
    }
}

/// The folder that the URL names, with `%20` and the like resolved behind `file:`; other schemes and bare paths are taken as they are.
fn path_of(config: &DriverConfig) -> Result<Option<PathBuf>> {
    let Some(address) = config.address().filter(|address| !address.is_empty()) else { return Ok(None) };
    if config.url.as_deref().and_then(storage_core::url_scheme) != Some("file") {
        return Ok(Some(PathBuf::from(address)));
    }
    let address = address.strip_prefix("localhost/").map_or(address.to_owned(), |path| format!("/{path}"));
    let mut bytes = Vec::with_capacity(address.len());
    let mut rest = address.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let escaped = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    let path = String::from_utf8(bytes).ok().filter(|path| !path.contains('\0'));
    path.map(|path| Some(PathBuf::from(path))).ok_or_else(|| Error::config("the URL's path is not text"))
}

#[async_trait]
impl Driver for FsDriver {
    fn name(&self) -> &'static str {
        "fs"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["file"]
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["fs", "file"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { records: true, queue: true, blobs: true }
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        Ok(self.store(config).await?.backends())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(config: &DriverConfig) -> Result<PathBuf> {
        FsDriver.settings(config).map(|(root, _)| root)
    }

    #[test]
    fn urls_name_folders() {
        for (url, path) in [
            ("file:///var/lib/my%20app", "/var/lib/my app"),
            ("file://localhost/var", "/var"),
            ("fs://relative/path", "relative/path"),
            ("fs:///absolute", "/absolute"),
            ("./results", "./results"),
            ("a%20b", "a%20b"),
        ] {
            assert_eq!(root(&DriverConfig::from_url(url)).unwrap(), Path::new(path), "{url}");
        }
        assert!(root(&DriverConfig::default()).is_err());
        assert!(root(&DriverConfig::from_url("x?base_dir=y")).is_err());
        let config = DriverConfig { url: None, ..DriverConfig::from_url("?base_dir=./results") };
        assert_eq!(root(&config).unwrap(), Path::new("./results"));
    }

    #[test]
    fn options_are_typed() {
        let (_, options) = FsDriver.settings(&DriverConfig::from_url("x?fsync=false&backups=3")).unwrap();
        assert!(!options.fsync && options.backups == 3 && options.auto_create);
        let error = FsDriver.settings(&DriverConfig::from_url("x?fsyncs=false")).unwrap_err();
        assert!(error.to_string().contains("did you mean `fsync`"), "{error}");
        assert!(FsDriver.settings(&DriverConfig::from_url("x?fsync=maybe")).is_err());
    }
}
