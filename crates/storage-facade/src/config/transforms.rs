//! What is put in front of blobs: `[blobs.compression]`, `[blobs.encryption]`, `[blobs.mirror]`, `[blobs.cache]`, `read_only`, `prefix`.

use figment::value::{Dict, Value};
use storage_core::{BlobPath, Error, Result};
use storage_layers::transform::TransformConfig;
#[cfg(feature = "cache")]
use storage_layers::transform::config::CacheConfig;
#[cfg(feature = "zstd")]
use storage_layers::transform::config::CompressionConfig;
#[cfg(feature = "encryption")]
use storage_layers::transform::config::{EncryptionConfig, KeyConfig};
use storage_layers::transform::config::{MirrorConfig, Section};

use super::BackendConfig;
use super::layer::{self, from_variable, unknown};
use super::read::Reader;

/// Keys of `blobs` beside those of every component.
pub(super) const KEYS: [&str; 6] = ["cache", "compression", "encryption", "mirror", "prefix", "read_only"];
/// What messages call the copies of a mirror.
pub(crate) const COPIES: &str = "blobs.mirror.to";
/// Where the copies are.
const TO: &str = "to";

/// What is put in front of a backend's blobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transforms {
    /// The transforms.
    pub stack: TransformConfig,
    /// The copies of the mirror, without the primary, which is the backend itself.
    pub copies: Vec<BackendConfig>,
}

/// The key of this name.
pub(super) fn key(name: &str) -> Option<&'static str> {
    KEYS.into_iter().find(|key| *key == name)
}

/// The part of a backend's table that is about transforms.
pub(super) fn of(backend: &Dict) -> Dict {
    backend.iter().filter(|(name, _)| key(name).is_some()).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The names of a section's keys. `Err`: the cargo feature that brings the section.
fn names(section: &str) -> Result<Vec<&'static str>, &'static str> {
    fn of<S: Section>() -> Vec<&'static str> {
        S::KEYS.iter().map(|spec| spec.name).collect()
    }
    match section {
        #[cfg(feature = "cache")]
        "cache" => Ok(of::<CacheConfig>()),
        #[cfg(not(feature = "cache"))]
        "cache" => Err("cache"),
        #[cfg(feature = "zstd")]
        "compression" => Ok(of::<CompressionConfig>()),
        #[cfg(not(feature = "zstd"))]
        "compression" => Err("zstd"),
        #[cfg(feature = "encryption")]
        "encryption" => Ok(of::<EncryptionConfig>()),
        #[cfg(feature = "encryption")]
        "previous" => Ok(of::<KeyConfig>()),
        #[cfg(not(feature = "encryption"))]
        "encryption" => Err("encryption"),
        _ => Ok([TO].into_iter().chain(of::<MirrorConfig>()).collect()),
    }
}

/// Brings a value into canonical form: names are checked, variables read. `at` is its key as written.
pub(super) fn canonical(source: &str, at: &str, name: &str, value: Value) -> Result<Value> {
    if matches!(name, "prefix" | "read_only") {
        return Ok(value);
    }
    let known = names(name).map_err(|feature| {
        Error::config(format!("{source}: `{at}` is not compiled in: build with the cargo feature `{feature}`"))
    })?;
    let Value::Dict(tag, dict) = value else {
        return Err(Error::config(format!("{source}: `{at}` is a table with: {}", known.join(", "))));
    };
    let mut read = Dict::new();
    for (written, value) in dict {
        let key = written.strip_suffix("_env").unwrap_or(&written);
        let full = format!("{at}.{written}");
        if !known.contains(&key) {
            return Err(unknown(source, &full, "no such key", known.iter().copied()));
        }
        let value = if key == written { value } else { from_variable(source, &full, &value)? };
        let value = match key {
            "previous" => each(value, |key| canonical(source, &full, "previous", key))?,
            TO => each(value, |copy| copy_of(source, &full, copy))?,
            _ => value,
        };
        if read.insert(key.to_owned(), value).is_some() {
            return Err(Error::config(format!("{source}: `{at}.{key}` is set both as it is and by `{key}_env`: keep one")));
        }
    }
    Ok(Value::Dict(tag, read))
}

/// Each of a list; one alone is a list of one.
fn each(value: Value, read: impl Fn(Value) -> Result<Value>) -> Result<Value> {
    match value {
        Value::Array(tag, items) => Ok(Value::Array(tag, items.into_iter().map(read).collect::<Result<_>>()?)),
        one => Ok(Value::Array(one.tag(), vec![read(one)?])),
    }
}

fn copy_of(source: &str, at: &str, value: Value) -> Result<Value> {
    match value {
        Value::Dict(tag, dict) => Ok(Value::Dict(tag, layer::backend(source, at, false, dict)?)),
        url @ Value::String(..) => Ok(Value::Dict(url.tag(), Dict::from([("url".to_owned(), url)]))),
        _ => Err(Error::config(format!("{source}: `{at}` is a URL, a table with `type`, `url`, …, or a list of these"))),
    }
}

/// Reads one key.
pub(super) fn apply(reader: &Reader<'_>, into: &mut Transforms, component: &str, key: &str, value: &Value) -> Result<()> {
    let fail = |what: &str| reader.fail(component, key, value, what);
    match key {
        "read_only" => into.stack.read_only = value.to_bool().ok_or_else(|| fail("is true or false"))?,
        "prefix" => {
            let text = value.as_str().ok_or_else(|| fail("is the path that blobs lie below, in quotes"))?;
            let path = BlobPath::new(text.trim_end_matches('/')).map_err(|e| fail(&format!("is no path: {}", e.message())))?;
            into.stack.prefix = Some(path);
        }
        #[cfg(feature = "cache")]
        "cache" => into.stack.cache = Some(section(reader, component, key, value)?),
        #[cfg(feature = "zstd")]
        "compression" => into.stack.compression = Some(section(reader, component, key, value)?),
        #[cfg(feature = "encryption")]
        "encryption" => into.stack.encryption = Some(section(reader, component, key, value)?),
        _ => {
            let mut own = value.as_dict().cloned().unwrap_or_default();
            let copies = own.remove(TO);
            let copies = copies.as_ref().and_then(Value::as_array).unwrap_or_default();
            if copies.is_empty() {
                return Err(fail("has no `to`: set where the copies are, like to = \"fs:./copy\""));
            }
            for copy in copies {
                let dict = copy.as_dict().ok_or_else(|| fail("has a `to` that is no backend"))?;
                into.copies.push(reader.backend_of(COPIES, dict, copy)?);
            }
            into.stack.mirror = Some(section(reader, component, key, &Value::from(own))?);
        }
    }
    Ok(())
}

/// Reads a table. An error names the key that is wrong, and says what it should be; never the value, which may be a secret.
fn section<S: Section>(reader: &Reader<'_>, component: &str, key: &str, value: &Value) -> Result<S> {
    let json = serde_json::to_value(value)?;
    if let Ok(section) = serde_json::from_value(json) {
        return Ok(section);
    }
    for (name, value) in value.as_dict().into_iter().flatten() {
        let alone = serde_json::json!({ name.as_str(): serde_json::to_value(value)? });
        if serde_json::from_value::<S>(alone).is_err() {
            let help = S::KEYS.iter().find(|spec| spec.name == name).map_or("is not a key", |spec| spec.help);
            return Err(reader.fail(component, &format!("{key}.{name}"), value, help));
        }
    }
    Err(reader.fail(component, key, value, "is not such a table"))
}
