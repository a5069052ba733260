//! One layer of configuration in canonical form, and the layers put together.

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use storage_core::{Error, Result, nearest};

use super::{Component, metrics, transforms};

/// Keys of a component, with the names that are accepted for them.
const BACKEND_KEYS: [(&str, &[&str]); 14] = [
    ("type", &["backend_type"]),
    ("url", &[]),
    ("options", &["config"]),
    ("pool_size", &[]),
    ("timeout", &[]),
    ("auto_create", &[]),
    ("backup", &[]),
    ("versioning", &[]),
    ("timeouts", &[]),
    ("deadline", &[]),
    ("retry", &[]),
    ("breaker", &[]),
    ("rate_limit", &[]),
    ("concurrency", &[]),
];

/// Keys that DESIGN names for components of later releases: a clear word instead of "unknown".
const NOT_YET: [(&str, &str); 2] = [
    (
        "cache",
        "this version does not open caches by configuration: make one in code (`storage-cache`), or leave it out until it does",
    ),
    ("datasets", "datasets come with `storage-dataset`, which this version does not have: leave it out until then"),
];

/// A provider's data with canonical keys.
pub(crate) struct Layer {
    /// Layers of one level (environment variables) complete each other; a higher level may choose anew.
    level: usize,
    metadata: Metadata,
    dict: Dict,
}

impl Layer {
    /// Reads a provider and brings its keys into canonical form.
    fn of(provider: &dyn Provider, level: usize) -> Result<Self> {
        let metadata = provider.metadata();
        let source = source_of(&metadata);
        let mut data = provider.data().map_err(|e| Error::config(format!("{source}: {e}")))?;
        let dict = data.remove(&Profile::Default).unwrap_or_default();
        let mut layer = Self { level, metadata, dict: Dict::new() };
        for (key, value) in dict {
            layer.add(&source, &key, value)?;
        }
        Ok(layer)
    }

    fn add(&mut self, source: &str, key: &str, value: Value) -> Result<()> {
        if key == "url" {
            let default = Dict::from([("url".to_owned(), value)]);
            return self.insert(source, key, "default", default);
        }
        if key == metrics::KEY {
            self.dict.insert(key.to_owned(), Value::from(metrics::canonical(source, value)?));
            return Ok(());
        }
        let components = || Component::ALL.map(Component::key).into_iter().chain(["default"]);
        let known = || components().chain([metrics::KEY]);
        let canonical = components().find(|k| *k == key || key.strip_suffix("_backend") == Some(*k));
        let Some(canonical) = canonical else {
            return Err(match NOT_YET.iter().find(|(name, _)| *name == key) {
                Some((_, why)) => Error::config(format!("{source}: `{key}`: {why}")),
                None => unknown(source, key, "there is no component of this name", known()),
            });
        };
        let dict = match value {
            Value::Dict(_, dict) => dict,
            url @ Value::String(..) => Dict::from([("url".to_owned(), url)]),
            _ => return Err(Error::config(format!("{source}: `{key}` is a URL or a table with `type`, `url`, …"))),
        };
        self.insert(source, key, canonical, dict)
    }

    fn insert(&mut self, source: &str, written: &str, canonical: &str, dict: Dict) -> Result<()> {
        let backend = backend(source, written, canonical == Component::Blobs.key(), dict)?;
        if self.dict.contains_key(canonical) {
            return Err(Error::config(format!(
                "{source}: `{canonical}` is set twice, under two names (`{written}` is one): keep one"
            )));
        }
        self.dict.insert(canonical.to_owned(), Value::from(backend));
        Ok(())
    }

    fn backend(&self, key: &str) -> Option<&Dict> {
        self.dict.get(key)?.as_dict()
    }
}

/// Brings the keys of a backend's table into canonical form.
pub(super) fn backend(source: &str, written: &str, takes_transforms: bool, dict: Dict) -> Result<Dict> {
    let mut backend = Dict::new();
    for (key, value) in dict {
        let bare = key.strip_suffix("_env").unwrap_or(&key);
        if let Some(name) = transforms::key(bare).filter(|_| takes_transforms || bare != "cache") {
            if !takes_transforms {
                return Err(Error::config(format!("{source}: `{written}.{key}`: this is for `blobs`")));
            }
            let value = if bare == key { value } else { from_variable(source, &format!("{written}.{key}"), &value)? };
            let value = transforms::canonical(source, &format!("{written}.{name}"), name, value)?;
            if backend.insert(name.to_owned(), value).is_some() {
                return Err(Error::config(format!("{source}: `{written}` has `{name}` twice, under two names: keep one")));
            }
            continue;
        }
        let entry = BACKEND_KEYS.iter().find(|(name, aliases)| *name == bare || aliases.contains(&bare));
        let Some((name, _)) = entry else {
            return Err(match NOT_YET.iter().find(|(name, _)| *name == key) {
                Some((_, why)) => Error::config(format!("{source}: `{written}.{key}`: {why}")),
                None => {
                    let known =
                        BACKEND_KEYS.iter().flat_map(|(name, aliases)| std::iter::once(*name).chain(aliases.iter().copied()));
                    let more = if takes_transforms { &transforms::KEYS[..] } else { &[] };
                    let known = known.chain(more.iter().copied());
                    let hint = "no such key; a driver's own options go into `options`";
                    unknown(source, &format!("{written}.{key}"), hint, known)
                }
            });
        };
        let value = match (bare == key, value) {
            (true, value) => value,
            (false, value) => from_variable(source, &format!("{written}.{key}"), &value)?,
        };
        let value = if *name == "options" { options(source, written, value)? } else { value };
        if backend.insert((*name).to_owned(), value).is_some() {
            return Err(Error::config(format!("{source}: `{written}` has `{name}` twice, under two names: keep one")));
        }
    }
    Ok(backend)
}

/// Reads `…_env` keys of a driver's options.
fn options(source: &str, component: &str, value: Value) -> Result<Value> {
    let Value::Dict(tag, dict) = value else {
        return Err(Error::config(format!("{source}: `{component}.options` is a table")));
    };
    let mut read = Dict::new();
    for (key, value) in dict {
        let (name, value) = match key.strip_suffix("_env") {
            Some(name) => (name.to_owned(), from_variable(source, &format!("{component}.options.{key}"), &value)?),
            None => (key, value),
        };
        if read.contains_key(&name) {
            return Err(Error::config(format!(
                "{source}: `{component}.options.{name}` is set both as it is and by `{name}_env`: keep one"
            )));
        }
        read.insert(name, value);
    }
    Ok(Value::Dict(tag, read))
}

pub(super) fn from_variable(source: &str, key: &str, variable: &Value) -> Result<Value> {
    let Some(variable) = variable.as_str() else {
        return Err(Error::config(format!("{source}: `{key}` is the name of an environment variable, in quotes")));
    };
    match std::env::var(variable) {
        Ok(value) => Ok(Value::from(value)),
        Err(std::env::VarError::NotPresent) => Err(Error::config(format!(
            "{source}: `{key}` names the environment variable {variable}, which is not set: set it, or write the value itself"
        ))),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Error::config(format!("{source}: the environment variable {variable}, named by `{key}`, is not UTF-8")))
        }
    }
}

pub(super) fn unknown<'a>(source: &str, key: &str, what: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
    let last = key.rsplit('.').next().unwrap_or(key);
    let hint = match nearest(last.trim_end_matches("_backend"), known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", known.collect::<Vec<_>>().join(", ")),
    };
    Error::config(format!("{source}: `{key}`: {what}; {hint}"))
}

pub(crate) fn source_of(metadata: &Metadata) -> String {
    match &metadata.source {
        Some(figment::Source::File(path)) => format!("file {}", path.display()),
        _ => metadata.name.to_string(),
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

/// Layers, the later over the earlier.
#[derive(Default)]
pub(crate) struct Layers {
    layers: Vec<Layer>,
    level: usize,
}

impl Layers {
    /// Adds a layer above those there are.
    pub(crate) fn push(&mut self, provider: &dyn Provider) -> Result<()> {
        self.level += 1;
        self.push_beside(provider)
    }

    /// Adds a layer on the level of the one added last.
    pub(crate) fn push_beside(&mut self, provider: &dyn Provider) -> Result<()> {
        self.layers.push(Layer::of(provider, self.level)?);
        Ok(())
    }

    /// One figment of all layers.
    ///
    /// A level that chooses another backend for a component (a `type`, or a `url` of another scheme) does not inherit the address and options of the
    /// one that lower levels had chosen: they belong to the other backend. Transforms of blobs stay.
    pub(crate) fn merged(mut self) -> Figment {
        for upper in 1..self.layers.len() {
            let (lower, upper) = self.layers.split_at_mut(upper);
            let Some(upper) = upper.first() else { continue };
            for (key, value) in &upper.dict {
                let Some(chosen) = value.as_dict() else { continue };
                for layer in lower.iter_mut().filter(|layer| layer.level < upper.level) {
                    let Some(inherited) = layer.backend(key).filter(|inherited| is_other_backend(chosen, inherited)) else {
                        continue;
                    };
                    // Blobs that were to be encrypted are, wherever they go.
                    let kept = transforms::of(inherited);
                    layer.dict.remove(key);
                    if !kept.is_empty() {
                        layer.dict.insert(key.clone(), Value::from(kept));
                    }
                }
            }
        }
        self.layers.into_iter().fold(Figment::new(), Figment::merge)
    }
}

fn is_other_backend(chosen: &Dict, inherited: &Dict) -> bool {
    let text = |dict: &Dict, key: &str| dict.get(key).and_then(|v| v.as_str().map(str::to_owned));
    let driver = |dict: &Dict| {
        text(dict, "type").or_else(|| text(dict, "url").and_then(|url| storage_core::url_scheme(&url).map(str::to_owned)))
    };
    match (driver(chosen), driver(inherited)) {
        (Some(chosen), Some(inherited)) => chosen != inherited,
        _ => false,
    }
}
