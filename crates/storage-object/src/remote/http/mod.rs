//! Files on a WebDAV server (RFC 4918), as blobs.

mod blobs;
mod dav;
mod list;
mod multistatus;
mod put;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::HeaderValue;
use object_store::client::HttpClient;
use serde::Deserialize;
use storage_core::{
    BackendInfo, Backends, BlobCapabilities, BlobPath, Driver, DriverConfig, Error, ErrorKind, OpenFlag, OptionSpec, Result,
    Secret, Surfaces,
};

pub use blobs::HttpBlobs;
use dav::{Dav, Login};

use super::wire::Wire;

/// Without a `timeout`: how long a server may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// Within that: how long connecting may take.
const CONNECTING: Duration = Duration::from_secs(5);
/// How long a connection that nobody uses is kept: Apache closes its own after 5 seconds.
const IDLE: Duration = Duration::from_secs(4);

/// Opens a folder on a WebDAV server: `https://host/folder`, `webdavs://host/folder`.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpDriver;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    username: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
    allow_http: Option<bool>,
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "username", help: "Who logs in (HTTP's basic authentication)." },
    OptionSpec { name: "password", help: "The password that belongs to username." },
    OptionSpec { name: "token", help: "A bearer token, in place of username and password." },
    OptionSpec {
        name: "allow_http",
        help: "false: an address without TLS is refused. true: credentials may go over an address without TLS. Default: without TLS, but then no credentials, except to this machine.",
    },
];

impl Options {
    fn login(&self) -> Result<Option<Login>> {
        let text = match (&self.username, &self.password, &self.token) {
            (None, None, None) => return Ok(None),
            (Some(name), Some(password), None) if name.contains(':') => {
                _ = password;
                return Err(Error::config("option `username`: a colon can't be part of it"));
            }
            (Some(name), Some(password), None) => {
                format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{}", password.expose())))
            }
            (None, None, Some(token)) => format!("Bearer {}", token.expose()),
            (_, _, Some(_)) => return Err(Error::config("options `token` and `username`: give one")),
            (Some(_), None, None) => return Err(Error::config("option `username` needs `password`")),
            (None, Some(_), None) => return Err(Error::config("option `password` needs `username`")),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| Error::config("the credentials do not fit into a header"))?;
        value.set_sensitive(true);
        Ok(Some(Login(value)))
    }
}

/// Where the folder is: no slash at its end, and nothing that a URL may not hold.
fn checked_address(config: &DriverConfig) -> Result<String> {
    let none = || Error::config("no server: give a URL such as https://host/folder");
    let url = config.url.as_deref().ok_or_else(none)?;
    let (scheme, rest) = url.split_once("://").ok_or_else(none)?;
    let scheme = match scheme {
        "https" | "webdavs" | "davs" => "https",
        "http" | "webdav" | "dav" => "http",
        other => return Err(Error::config(format!("the scheme `{other}` is not one of WebDAV's"))),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err(Error::config("the URL holds a user: give the options `username` and `password`"));
    }
    let address = match path.trim_matches('/') {
        "" => format!("{scheme}://{host}"),
        path => {
            let path = BlobPath::new(path).map_err(|e| Error::config(format!("the URL's path: {}", e.message())))?;
            format!("{scheme}://{host}/{}", super::wire::encoded_path(path.as_str()))
        }
    };
    let good = address.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    if good { Ok(address) } else { Err(none()) }
}

fn is_here(address: &str) -> bool {
    let host = address.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn client(config: &DriverConfig, silence: Option<Duration>) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        // A redirect would send the body elsewhere, or the credentials.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(config.timeout.unwrap_or(SILENCE).min(CONNECTING))
        .pool_idle_timeout(IDLE)
        .http1_only();
    if let Some(silence) = silence {
        builder = builder.read_timeout(silence);
    }
    if let Some(idle) = config.pool_size {
        builder = builder.pool_max_idle_per_host(usize::try_from(idle).unwrap_or(usize::MAX));
    }
    builder.build().map_err(|e| Error::config("the HTTP client can't be set up").with_source(e))
}

impl HttpDriver {
    fn blobs(&self, config: &DriverConfig) -> Result<HttpBlobs> {
        self.check_options(config)?;
        let options: Options = config.typed_options()?;
        let address = checked_address(config)?;
        let login = options.login()?;
        let plain = address.starts_with("http://");
        if plain && options.allow_http == Some(false) {
            return Err(Error::config("an address without TLS, and `allow_http` is false"));
        }
        if plain && login.is_some() && options.allow_http != Some(true) && !is_here(&address) {
            return Err(Error::config(
                "credentials would go over an address without TLS: use https://, or set `allow_http` to true",
            ));
        }
        let silence = config.timeout.unwrap_or(SILENCE);
        let wire = Wire::new(HttpClient::new(client(config, Some(silence))?), Box::new(login.clone()));
        Ok(HttpBlobs {
            info: BackendInfo::new(self.name(), address.clone()),
            capabilities: BlobCapabilities {
                create: false,
                conditional: false,
                attributes: false,
                signed_url: false,
                max_blob_bytes: i64::MAX.unsigned_abs(),
                durable: false,
            },
            dav: Arc::new(Dav { wire, uploads: client(config, None)?, login, address, silence }),
            open: OpenFlag::default(),
        })
    }
}

#[async_trait]
impl Driver for HttpDriver {
    fn name(&self) -> &'static str {
        "http"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["webdav"]
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["http", "https", "webdav", "webdavs", "dav", "davs"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { blobs: true, ..Surfaces::default() }
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn is_remote(&self, _config: &DriverConfig) -> bool {
        true
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let blobs = self.blobs(config).map_err(|e| e.with_operation("http.open"))?;
        if config.auto_create {
            match blobs.dav.make_folders("").await.map_err(Error::from) {
                Ok(_) => {}
                // Told by the first use: a server that is away now may be back then, and one that lets nobody make folders may have this one.
                Err(error) if error.is_retryable() || error.kind() == ErrorKind::Unauthorized => {
                    tracing::debug!(error = %error, "the folder could not be looked for yet");
                }
                Err(error) => return Err(error.with_operation("http.open").with_backend(&blobs.info)),
            }
        }
        Ok(Backends { blobs: Some(Arc::new(blobs)), ..Backends::default() })
    }
}
