//! Whether every call is told of, and where its numbers can be read: the top-level key `metrics`.

use std::net::SocketAddr;

use figment::value::{Dict, Value};
use storage_core::{Error, Result};

use super::layer::{from_variable, unknown};
use super::read::Reader;

/// The top-level key.
pub(super) const KEY: &str = "metrics";
/// The keys of its table.
const KEYS: [&str; 2] = ["enabled", "listen"];

/// Whether every call is told of, and where its numbers can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Each call has a `tracing` span, and is counted.
    pub enabled: bool,
    /// Where `GET /metrics` answers in Prometheus' text format.
    pub listen: Option<SocketAddr>,
    /// Where it was set, for messages.
    pub source: String,
}

/// Brings the value of the key into canonical form: a table.
pub(super) fn canonical(source: &str, value: Value) -> Result<Dict> {
    let dict = match value {
        Value::Dict(_, dict) => dict,
        on @ Value::Bool(..) => return Ok(Dict::from([("enabled".to_owned(), on)])),
        _ => return Err(Error::config(format!("{source}: `{KEY}` is true, false, or a table with: {}", KEYS.join(", ")))),
    };
    let mut read = Dict::new();
    for (written, value) in dict {
        let key = written.strip_suffix("_env").unwrap_or(&written);
        let full = format!("{KEY}.{written}");
        if !KEYS.contains(&key) {
            return Err(unknown(source, &full, "no such key", KEYS.into_iter()));
        }
        let value = if key == written { value } else { from_variable(source, &full, &value)? };
        if read.insert(key.to_owned(), value).is_some() {
            return Err(Error::config(format!("{source}: `{KEY}.{key}` is set both as it is and by `{key}_env`: keep one")));
        }
    }
    Ok(read)
}

/// Reads the table. That it is there turns it on.
pub(super) fn read(reader: &Reader<'_>, own: &Value, dict: &Dict) -> Result<MetricsConfig> {
    let mut metrics = MetricsConfig { enabled: true, listen: None, source: reader.source(own) };
    for (key, value) in dict {
        let fail = |what: &str| reader.fail(KEY, key, value, what);
        match &**key {
            "enabled" => metrics.enabled = value.to_bool().ok_or_else(|| fail("is true or false"))?,
            _ => {
                let address = value.as_str().and_then(|text| text.parse().ok());
                let what = "is an IP address and a port to listen on, in quotes: \"127.0.0.1:9000\"";
                metrics.listen = Some(address.ok_or_else(|| fail(what))?);
            }
        }
        metrics.source = reader.source(value);
    }
    if let Some(listen) = dict.get("listen") {
        metrics.source = reader.source(listen);
    }
    Ok(metrics)
}
