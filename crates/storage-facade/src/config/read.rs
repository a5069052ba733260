//! From the merged layers to [`Config`].

use std::time::Duration;

use figment::Figment;
use figment::value::{Dict, Value};
use storage_core::{DriverConfig, Error, Result};
use storage_layers::policy::Settings;

use super::layer::source_of;
use super::{BackendConfig, Component, Config, Part, Versioning, metrics, transforms};

/// The longest timeout.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// The largest pool.
const MAX_POOL: u64 = 1000;

/// Reads the configuration; keys are canonical, values are not yet checked.
pub(crate) fn read(figment: &Figment) -> Result<Config> {
    let reader = Reader { figment };
    let mut config = Config::default();
    for component in Component::ALL {
        if let Some(backend) = reader.backend(component.key())? {
            config.components.insert(component, backend);
        }
    }
    config.default = reader.backend("default")?;
    if let Ok(own) = figment.find_value(metrics::KEY)
        && let Some(dict) = own.as_dict()
    {
        config.metrics = Some(metrics::read(&reader, &own, dict)?);
    }
    Ok(config)
}

pub(super) struct Reader<'a> {
    figment: &'a Figment,
}

impl Reader<'_> {
    pub(super) fn source(&self, value: &Value) -> String {
        self.figment.get_metadata(value.tag()).map_or_else(|| "the program".into(), source_of)
    }

    pub(super) fn fail(&self, component: &str, key: &str, value: &Value, what: &str) -> Error {
        Error::config(format!("{}: `{component}.{key}` {what}", self.source(value)))
    }

    fn backend(&self, component: &str) -> Result<Option<BackendConfig>> {
        let Ok(value) = self.figment.find_value(component) else { return Ok(None) };
        let Some(dict) = value.as_dict() else { return Ok(None) };
        self.backend_of(component, dict, &value).map(Some)
    }

    /// The backend that a table in canonical form describes.
    pub(super) fn backend_of(&self, component: &str, dict: &Dict, own: &Value) -> Result<BackendConfig> {
        let mut backend = BackendConfig::default();
        for (key, value) in dict {
            self.apply(&mut backend, component, key, value)?;
        }
        let own = dict.is_empty().then_some(own);
        let mut sources: Vec<String> = dict.values().chain(own).map(|value| self.source(deepest(value))).collect();
        sources.sort_unstable();
        sources.dedup();
        backend.source = sources.join(", ");
        if backend.driver.is_none() && backend.url.is_none() {
            return Err(Error::config(format!(
                "{}: `{component}` has neither `type` nor `url`: set one, like url = \"sqlite:///app.db\"",
                backend.source
            )));
        }
        Ok(backend)
    }

    fn apply(&self, backend: &mut BackendConfig, component: &str, key: &str, value: &Value) -> Result<()> {
        let fail = |what: &str| self.fail(component, key, value, what);
        match key {
            "type" => {
                backend.driver = Some(
                    value
                        .as_str()
                        .filter(|t| !t.is_empty())
                        .ok_or_else(|| fail("is the name of a driver, in quotes: \"sqlite\""))?
                        .into(),
                );
            }
            "url" => {
                let url =
                    value.as_str().filter(|u| !u.is_empty()).ok_or_else(|| fail("is a URL, in quotes: \"sqlite:///app.db\""))?;
                let parsed = DriverConfig::from_url(url);
                backend.url = parsed.url;
                for (name, option) in parsed.options {
                    if backend.options.insert(name.clone(), option).is_some() {
                        return Err(fail(&format!("sets `{name}`, which `options` sets too: keep one")));
                    }
                }
            }
            "options" => {
                let dict = value.as_dict().ok_or_else(|| fail("is a table"))?;
                for (name, option) in json(dict)? {
                    if backend.options.insert(name.clone(), option).is_some() {
                        return Err(fail(&format!("sets `{name}`, which the URL sets too: keep one")));
                    }
                }
            }
            "pool_size" => {
                let size = whole(value).and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=MAX_POOL).contains(&u64::from(*n)));
                backend.pool_size = Some(size.ok_or_else(|| fail("is a number of connections, 1 to 1000"))?);
            }
            "timeout" => {
                backend.timeout = Some(duration(value).ok_or_else(|| fail("is a time like \"30s\" (or seconds), up to 1h"))?);
            }
            "auto_create" => backend.auto_create = value.to_bool().ok_or_else(|| fail("is true or false"))?,
            "versioning" if matches!(component, "records" | "blobs" | "event_storage" | transforms::COPIES) => {
                return Err(fail(
                    "is for `task_queue`, `result_storage` and `schedule_storage`: events are not changed, and a program's own tables say themselves how many versions they keep",
                ));
            }
            "versioning" => {
                backend.versioning = versioning(value).ok_or_else(|| fail("is true, false, or how many versions to keep"))?;
            }
            "backup" => {
                // A driver that keeps rotating backups by itself has an option `backups`; others refuse it.
                let keep = value.to_bool().map(i128::from).or_else(|| whole(value)).filter(|n| (0..=1000).contains(n));
                let keep = keep
                    .and_then(|n| u32::try_from(n).ok())
                    .ok_or_else(|| fail("is true, false, or how many backups to keep"))?;
                if backend.options.insert("backups".into(), keep.into()).is_some() {
                    return Err(fail("and the option `backups` are the same: set one"));
                }
            }
            "deadline" => {
                backend.policy.deadline =
                    Some(duration(value).ok_or_else(|| fail("is a time like \"1m\" (or seconds), up to 1h"))?);
            }
            "timeouts" => backend.policy.timeouts = Some(self.part(component, key, value)?),
            "retry" => backend.policy.retry = Some(self.part(component, key, value)?),
            "breaker" => backend.policy.breaker = Some(self.part(component, key, value)?),
            "rate_limit" => backend.policy.rate_limit = Some(self.part(component, key, value)?),
            "concurrency" => backend.policy.concurrency = Some(self.part(component, key, value)?),
            _ if transforms::key(key).is_some() => transforms::apply(self, &mut backend.transforms, component, key, value)?,
            _ => return Err(fail("is not a key")),
        }
        Ok(())
    }
}

impl Reader<'_> {
    /// A part of a policy: `true`, `false`, or a table.
    fn part<T: Settings>(&self, component: &str, key: &str, value: &Value) -> Result<Part<T>> {
        if let Some(on) = value.to_bool() {
            return Ok(on.then(T::default));
        }
        let Some(dict) = value.as_dict() else {
            return Err(self.fail(component, key, value, "is true, false, or a table"));
        };
        let settings = T::read(&json(dict)?).map_err(|(wrong, what)| {
            let value = dict.get(&wrong).unwrap_or(deepest(value));
            let key = if wrong.is_empty() { key.to_owned() } else { format!("{key}.{wrong}") };
            self.fail(component, &key, value, &what)
        })?;
        Ok(Some(settings))
    }
}

/// A whole number: of TOML and variables it comes signed, of JSON and YAML unsigned.
fn whole(value: &Value) -> Option<i128> {
    value.to_i128().or_else(|| value.to_u128().and_then(|n| i128::try_from(n).ok()))
}

/// A table's own tag says nothing once layers are merged: a value in it does.
fn deepest(value: &Value) -> &Value {
    value.as_dict().and_then(|dict| dict.values().next()).map_or(value, deepest)
}

fn json(dict: &Dict) -> Result<serde_json::Map<String, serde_json::Value>> {
    match serde_json::to_value(dict)? {
        serde_json::Value::Object(map) => Ok(map),
        _ => Err(Error::internal("a table did not become a JSON object")),
    }
}

fn duration(value: &Value) -> Option<Duration> {
    let parsed = match value {
        Value::String(_, text) => humantime::parse_duration(text).ok()?,
        value => Duration::from_secs(u64::try_from(whole(value)?).ok()?),
    };
    (parsed > Duration::ZERO && parsed <= MAX_TIMEOUT).then_some(parsed)
}

fn versioning(value: &Value) -> Option<Versioning> {
    if let Some(on) = value.to_bool() {
        return Some(if on { Versioning::All } else { Versioning::Off });
    }
    let keep = whole(value).and_then(|n| u32::try_from(n).ok())?;
    (keep > 0).then_some(Versioning::Keep(keep))
}
