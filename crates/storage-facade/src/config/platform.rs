//! The layout of an existing landing-zone configuration (`platform.bronze`, `platform.s3_connection`).

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use storage_core::{Error, Result, nearest};

use super::file::ConfigFile;
use super::layer::{from_variable, source_of};

/// Reads a landing zone as the `blobs` component.
///
/// ```yaml
/// platform:
///   bronze:
///     storage_backend: "s3"        # the default; or "azure", or "local"
///     s3_bucket: "analytics-bronze"
///     s3_prefix: "bronze"
///   s3_connection:
///     endpoint_url_env: "BRONZE_S3_ENDPOINT"
///     access_key_env: "BRONZE_S3_ACCESS_KEY"
///     secret_key_env: "BRONZE_S3_SECRET_KEY"
/// ```
///
/// With `azure`: `azure_storage_account`, `azure_container`, `azure_prefix` and `platform.azure_connection.connection_string_env`; with `local`: `local_path`.
#[derive(Debug)]
pub struct PlatformLayout {
    metadata: Metadata,
    dict: Dict,
}

const ZONE_KEYS: [&str; 7] =
    ["storage_backend", "s3_bucket", "s3_prefix", "azure_storage_account", "azure_container", "azure_prefix", "local_path"];
const S3_KEYS: [&str; 5] = ["endpoint_url", "access_key", "secret_key", "region", "session_token"];
const AZURE_KEYS: [&str; 1] = ["connection_string"];

impl PlatformLayout {
    /// Reads the layout from a file.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config) naming the file and the key, or the environment variable that is not set.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let metadata = file.metadata();
        let reader = Reader { source: source_of(&metadata) };
        let platform = reader.only_table(file.dict(), "platform")?;
        reader.check_keys("platform", platform, &["bronze", "s3_connection", "azure_connection"])?;
        let zone = reader.table(platform, "platform", "bronze")?.ok_or_else(|| reader.missing("platform.bronze"))?;
        reader.check_keys("platform.bronze", zone, &ZONE_KEYS)?;
        let backend = reader.text(zone, "platform.bronze", "storage_backend")?.unwrap_or("s3");
        let blobs = match backend {
            "s3" => reader.s3(platform, zone)?,
            "azure" => reader.azure(platform, zone)?,
            "local" => {
                let path = reader.required(zone, "platform.bronze", "local_path")?;
                Dict::from([("type".into(), Value::from("fs")), ("url".into(), Value::from(path))])
            }
            other => {
                return Err(reader.fail(&format!("`platform.bronze.storage_backend` is `s3`, `azure` or `local`, not `{other}`")));
            }
        };
        Ok(Self { metadata, dict: Dict::from([("blobs".into(), Value::from(blobs))]) })
    }

    /// True where the file has this layout.
    #[must_use]
    pub fn fits(file: &ConfigFile) -> bool {
        file.dict().contains_key("platform")
    }
}

struct Reader {
    source: String,
}

impl Reader {
    fn fail(&self, what: &str) -> Error {
        Error::config(format!("{}: {what}", self.source))
    }

    fn missing(&self, key: &str) -> Error {
        self.fail(&format!("`{key}` is missing"))
    }

    fn only_table<'a>(&self, dict: &'a Dict, key: &str) -> Result<&'a Dict> {
        if let Some(other) = dict.keys().find(|k| *k != key) {
            return Err(self.fail(&format!("`{other}` can't stand beside `{key}`: this layout has `{key}` alone")));
        }
        self.table(dict, "", key)?.ok_or_else(|| self.missing(key))
    }

    fn table<'a>(&self, dict: &'a Dict, parent: &str, key: &str) -> Result<Option<&'a Dict>> {
        let path = if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") };
        let Some(value) = dict.get(key) else { return Ok(None) };
        value.as_dict().map(Some).ok_or_else(|| self.fail(&format!("`{path}` is a table")))
    }

    fn check_keys(&self, parent: &str, dict: &Dict, known: &[&str]) -> Result<()> {
        let Some(unknown) = dict.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
        let hint = match nearest(unknown, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are: {}", known.join(", ")),
        };
        Err(self.fail(&format!("`{parent}.{unknown}`: no such key; {hint}")))
    }

    fn text<'a>(&self, dict: &'a Dict, parent: &str, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = dict.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.fail(&format!("`{parent}.{key}` is text, in quotes")))
    }

    fn required<'a>(&self, dict: &'a Dict, parent: &str, key: &str) -> Result<&'a str> {
        self.text(dict, parent, key)?.filter(|text| !text.is_empty()).ok_or_else(|| self.missing(&format!("{parent}.{key}")))
    }

    fn s3(&self, platform: &Dict, zone: &Dict) -> Result<Dict> {
        let bucket = self.required(zone, "platform.bronze", "s3_bucket")?;
        let prefix = self.text(zone, "platform.bronze", "s3_prefix")?.unwrap_or_default();
        let options = self.connection(platform, "s3_connection", &S3_KEYS)?;
        Ok(backend("s3", &format!("s3://{bucket}/{prefix}"), options))
    }

    fn azure(&self, platform: &Dict, zone: &Dict) -> Result<Dict> {
        let account = self.required(zone, "platform.bronze", "azure_storage_account")?;
        let container = self.required(zone, "platform.bronze", "azure_container")?;
        let prefix = self.text(zone, "platform.bronze", "azure_prefix")?.unwrap_or_default();
        let mut options = self.connection(platform, "azure_connection", &AZURE_KEYS)?;
        options.insert("account".into(), Value::from(account));
        Ok(backend("azure", &format!("az://{container}/{prefix}"), options))
    }

    /// The options of a connection, each given as it is or by the name of a variable.
    fn connection(&self, platform: &Dict, name: &str, known: &[&str]) -> Result<Dict> {
        let path = format!("platform.{name}");
        let Some(connection) = self.table(platform, "platform", name)? else { return Ok(Dict::new()) };
        let with_env: Vec<String> = known.iter().flat_map(|key| [(*key).to_owned(), format!("{key}_env")]).collect();
        self.check_keys(&path, connection, &with_env.iter().map(String::as_str).collect::<Vec<_>>())?;
        let mut options = Dict::new();
        for (key, value) in connection {
            let (key, value) = match key.strip_suffix("_env") {
                Some(bare) => (bare, from_variable(&self.source, &format!("{path}.{key}"), value)?),
                None => (key.as_str(), value.clone()),
            };
            options.insert(key.to_owned(), value);
        }
        Ok(options)
    }
}

fn backend(driver: &str, url: &str, options: Dict) -> Dict {
    let url = url.trim_end_matches('/');
    Dict::from([("type".into(), Value::from(driver)), ("url".into(), Value::from(url)), ("options".into(), Value::from(options))])
}

impl Provider for PlatformLayout {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}
