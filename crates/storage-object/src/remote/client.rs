//! The HTTP client, and how a backend is put together out of configuration.

use std::sync::Arc;
use std::time::Duration;

use object_store::client::{HttpClient, HttpConnector as _, ReqwestConnector};
use object_store::{ClientOptions, RetryConfig};
use serde::Deserialize;
use storage_core::{BackendInfo, Backends, BlobCapabilities, BlobPath, DriverConfig, Error, OpenFlag, OptionSpec, Result};
use tokio::sync::OnceCell;

use super::backend::{Container, ObjectBlobs};
use super::engines::Engines;
use super::errors::from_store;
use super::service::Service;
use super::upload::Chunks;
use crate::records;

/// Without a `timeout`: how long a service may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// Within that: how long connecting may take.
const CONNECTING: Duration = Duration::from_secs(5);
/// How long a connection that nobody uses is kept. Servers close theirs after 5 seconds and more, and a request that goes out at that moment is lost;
/// nobody here sends it again.
const IDLE: Duration = Duration::from_secs(4);
const DEFAULT_PART_MIB: u64 = 8;
/// S3's smallest part.
const SMALLEST_PART_MIB: u64 = 5;
const LARGEST_PART_MIB: u64 = 4_000;
const DEFAULT_CONCURRENCY: usize = 4;
const MIB: u64 = 1 << 20;

/// Options that all services have.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Shared {
    pub(crate) allow_http: Option<bool>,
    pub(crate) anonymous: bool,
    pub(crate) part_mib: Option<u64>,
    pub(crate) concurrency: Option<usize>,
}

/// What these are, for messages and documentation.
pub(crate) const ALLOW_HTTP: OptionSpec = OptionSpec {
    name: "allow_http",
    help: "false: an endpoint without TLS is refused. Default: an endpoint is taken as it is written, `http://` or `https://`.",
};
pub(crate) const ANONYMOUS: OptionSpec =
    OptionSpec { name: "anonymous", help: "true: requests are not signed, for public data. Default: false." };
pub(crate) const PART_MIB: OptionSpec = OptionSpec {
    name: "part_mib",
    help: "How many MiB the parts of a chunked upload have, 5 to 4000; what fits into one part is written with one request. Default: 8.",
};
pub(crate) const CONCURRENCY: OptionSpec =
    OptionSpec { name: "concurrency", help: "How many parts of one upload are under way at once, 1 to 64. Default: 4." };

impl Shared {
    pub(crate) fn chunks(&self) -> Result<Chunks> {
        let part = self.part_mib.unwrap_or(DEFAULT_PART_MIB);
        if !(SMALLEST_PART_MIB..=LARGEST_PART_MIB).contains(&part) {
            return Err(Error::config(format!("option `part_mib`: {SMALLEST_PART_MIB} to {LARGEST_PART_MIB}, not {part}")));
        }
        let concurrency = self.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
        if !(1..=64).contains(&concurrency) {
            return Err(Error::config(format!("option `concurrency`: 1 to 64, not {concurrency}")));
        }
        Ok(Chunks { part_size: part * MIB, concurrency })
    }

    /// The client's options. `endpoint`: what the configuration says.
    pub(crate) fn client_options(&self, config: &DriverConfig, endpoint: Option<&str>) -> Result<ClientOptions> {
        let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        if plain && self.allow_http == Some(false) {
            return Err(Error::config("option `endpoint`: an address without TLS, and `allow_http` is false"));
        }
        let silence = config.timeout.unwrap_or(SILENCE);
        let mut options = ClientOptions::new()
            .with_allow_http(self.allow_http.unwrap_or(plain))
            // A limit on the whole request would cut off large downloads; silence is what tells a dead connection.
            .with_timeout_disabled()
            .with_read_timeout(silence)
            .with_pool_idle_timeout(IDLE)
            .with_connect_timeout(silence.min(CONNECTING));
        if let Some(idle) = config.pool_size {
            options = options.with_pool_max_idle_per_host(usize::try_from(idle).unwrap_or(usize::MAX));
        }
        Ok(options)
    }
}

/// How often credentials are asked for again. Requests for data are never repeated here: that is the business of a layer above.
pub(crate) fn retry_for_credentials() -> RetryConfig {
    RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() }
}

pub(crate) fn connect(options: &ClientOptions) -> Result<HttpClient> {
    ReqwestConnector::default().connect(options).map_err(|e| Error::config(from_store(&e).message()))
}

/// Splits `bucket/some/prefix`. The prefix comes back empty, or with a slash at its end.
pub(crate) fn split_address<'a>(address: &'a str, what: &str) -> Result<(&'a str, String)> {
    let (container, prefix) = address.split_once('/').unwrap_or((address, ""));
    if container.is_empty() {
        return Err(Error::config(format!("the URL names no {what}")));
    }
    Ok((container, checked_prefix(prefix)?))
}

/// A prefix, empty or with a slash at its end.
pub(crate) fn checked_prefix(prefix: &str) -> Result<String> {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() {
        return Ok(String::new());
    }
    let prefix = BlobPath::new(prefix).map_err(|e| Error::config(format!("the URL's path is no prefix: {}", e.message())))?;
    Ok(format!("{prefix}/"))
}

/// An endpoint as it is used: no slash at its end.
pub(crate) fn checked_endpoint(endpoint: &str) -> Result<String> {
    let good = endpoint.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    });
    if !good || endpoint.contains('@') {
        return Err(Error::config("option `endpoint`: an address such as https://host:port, without credentials, is needed"));
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

/// What a driver found out.
pub(crate) struct Parts {
    pub(crate) service: Arc<dyn Service>,
    pub(crate) driver: &'static str,
    /// `s3://bucket`.
    pub(crate) base_uri: String,
    /// Where the service is, if not at its usual place.
    pub(crate) endpoint: Option<String>,
    pub(crate) prefix: String,
    pub(crate) chunks: Chunks,
    pub(crate) signed_url: bool,
    pub(crate) engines: Engines,
}

/// Puts a backend together, with records on its blobs, and creates the container where that is wanted.
pub(crate) async fn open(parts: Parts, config: &DriverConfig) -> Result<Backends> {
    let prefix = parts.prefix.trim_end_matches('/');
    let place = if prefix.is_empty() { parts.base_uri.clone() } else { format!("{}/{prefix}", parts.base_uri) };
    let location = match &parts.endpoint {
        Some(endpoint) => format!("{place} at {endpoint}"),
        None => place,
    };
    let blobs = ObjectBlobs {
        capabilities: BlobCapabilities {
            create: true,
            conditional: true,
            attributes: true,
            signed_url: parts.signed_url,
            max_blob_bytes: parts.service.traits().max_blob,
            durable: true,
        },
        service: parts.service,
        info: BackendInfo::new(parts.driver, location),
        prefix: parts.prefix,
        base_uri: parts.base_uri,
        chunks: parts.chunks,
        engines: parts.engines,
        open: OpenFlag::default(),
        container: if config.auto_create { Container::Wanted(OnceCell::new()) } else { Container::NotOurs },
    };
    records::serve(Arc::new(blobs.opened().await?), config)
}
