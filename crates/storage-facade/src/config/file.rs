//! Configuration from a file.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Json, Toml};
use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};
use storage_core::{Error, Result};

/// The names that are looked for in the working directory, in this order.
pub(crate) const NAMES: [&str; 4] = ["storage.toml", "storage.yaml", "storage.yml", "storage.json"];

/// The largest configuration file that is read, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// A configuration file: TOML, YAML or JSON, by its ending.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    dict: Dict,
}

/// YAML through a maintained parser (figment's own `yaml` feature depends on an archived one).
struct Yaml;

impl Format for Yaml {
    type Error = serde_saphyr::Error;
    const NAME: &'static str = "YAML";

    fn from_str<T: serde::de::DeserializeOwned>(text: &str) -> std::result::Result<T, Self::Error> {
        serde_saphyr::from_str(text)
    }
}

impl ConfigFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config) naming the file: it can't be read, its ending is none of the above, or it is not what the ending says.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let fail = |why: String| Error::config(format!("file {}: {why}", path.display()));
        let len = std::fs::metadata(&path).map_err(|e| fail(format!("can't be read: {e}")))?.len();
        if len > MAX_LEN {
            return Err(fail(format!("it has {len} bytes, which no configuration has")));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| fail(format!("can't be read: {e}")))?;
        let dict = parse(&path, &text).map_err(fail)?;
        Ok(Self { path, dict })
    }

    /// The file in `folder` with one of the usual names (`storage.toml`, `storage.yaml`, `storage.yml`, `storage.json`), if there is one.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config): there are two, or see [`read`](Self::read).
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        let mut found = NAMES.iter().map(|name| folder.join(name)).filter(|path| path.is_file());
        let Some(path) = found.next() else { return Ok(None) };
        if let Some(second) = found.next() {
            return Err(Error::config(format!(
                "there are two configuration files, {} and {}: remove one, or name the one that counts",
                path.display(),
                second.display()
            )));
        }
        Self::read(path).map(Some)
    }

    pub(crate) fn dict(&self) -> &Dict {
        &self.dict
    }
}

fn parse(path: &Path, text: &str) -> std::result::Result<Dict, String> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    if text.trim().is_empty() {
        return Ok(Dict::new());
    }
    match ending.as_str() {
        "toml" => Toml::from_str(text).map_err(|e| {
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or(text);
            let (line, column) = (before.lines().count().max(1), before.lines().next_back().map_or(1, |l| l.chars().count() + 1));
            let what = if e.message().is_empty() { "something is missing here" } else { e.message() };
            format!("not TOML: line {line} column {column}: {}", what.replace('\n', ", "))
        }),
        // Without the picture that follows.
        "yaml" | "yml" => Yaml::from_str(text).map_err(|e| {
            let text = e.to_string();
            format!("not YAML: {}", text.lines().next().unwrap_or_default().trim_start_matches("error: "))
        }),
        "json" => Json::from_str(text).map_err(|e| format!("not JSON: {e}")),
        _ => Err("the ending says neither TOML (.toml) nor YAML (.yaml, .yml) nor JSON (.json)".into()),
    }
}

impl Provider for ConfigFile {
    fn metadata(&self) -> Metadata {
        Metadata::from("configuration file", self.path.as_path())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}
