//! Opening by configuration.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use storage_core::{BackendInfo, Backends, Driver, DriverConfig, Error, OptionSpec, Result, ResultExt as _, Secret, Surfaces};

use crate::AmqpQueue;

/// How long one call may take, where the configuration does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How many calls send at once, where the configuration does not say.
const DEFAULT_SENDERS: u32 = 16;
const MAX_SENDERS: u32 = 256;
/// The most that is asked of the broker ahead.
const MAX_PREFETCH: u16 = 10_000;
/// What a broker ends by itself ends 30 minutes after the delivery, by its default.
const MAX_LEASE: u64 = 25 * 60;

/// Opens RabbitMQ: `amqp://user:password@host:5672/vhost`, with the feature `tls` also `amqps://`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AmqpDriver;

#[async_trait]
impl Driver for AmqpDriver {
    fn name(&self) -> &'static str {
        "amqp"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["rabbitmq"]
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["amqp", "amqps"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { records: false, queue: true, blobs: false }
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[
            OptionSpec { name: "username", help: "The user (default: that of the URL, else `guest`)" },
            OptionSpec { name: "password", help: "The user's password (default: that of the URL, else `guest`)" },
            OptionSpec {
                name: "tls_ca",
                help: "With amqps://: the path of a file with certificates (PEM) that may sign the broker's, beside Mozilla's",
            },
            OptionSpec {
                name: "tls_cert",
                help: "The path of a file with the client's own certificate (PEM), for brokers that ask for one",
            },
            OptionSpec { name: "tls_key", help: "The path of a file with the key (PEM, PKCS#8) of `tls_cert`" },
            OptionSpec {
                name: "queue_type",
                help: "What queues are created as: `quorum` (default; replicated, counts deliveries), or `classic` (has priorities; a \
                       message that comes back goes to the end)",
            },
            OptionSpec {
                name: "prefix",
                help: "What the broker's names of queues begin with: letters, digits, `_`, `-`, `.`, 64 at most (default: nothing)",
            },
            OptionSpec {
                name: "prefetch",
                help: "How many messages of a queue are fetched ahead of those that are asked for, 0 to 10000 (default 0). Faster, but \
                       what was fetched in vain counts as delivered once, and others don't get it meanwhile",
            },
            OptionSpec {
                name: "heartbeat",
                help: "After how many seconds of silence a connection counts as broken, 1 to 3600 (default 30)",
            },
            OptionSpec {
                name: "max_lease",
                help: "How many seconds a message may stay with a consumer, renewals included, 1 to 86400 (default 1500): less than \
                       the broker's `consumer_timeout`, which would end all leases of the queue",
            },
        ]
    }

    fn is_remote(&self, _config: &DriverConfig) -> bool {
        true
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let queue = AmqpQueue::new(Settings::new(config)?);
        Ok(Backends { queue: Some(Arc::new(queue)), ..Backends::default() })
    }
}

/// What queues are created as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    /// Replicated, and counts deliveries.
    #[default]
    Quorum,
    /// Has priorities.
    Classic,
}

impl QueueType {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    username: Option<String>,
    password: Option<Secret>,
    tls_ca: Option<String>,
    tls_cert: Option<String>,
    tls_key: Option<String>,
    queue_type: QueueType,
    prefix: String,
    prefetch: u16,
    heartbeat: u16,
    max_lease: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            username: None,
            password: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            queue_type: QueueType::default(),
            prefix: String::new(),
            prefetch: 0,
            heartbeat: 30,
            max_lease: MAX_LEASE,
        }
    }
}

/// How a broker is opened.
#[derive(Clone)]
pub(crate) struct Settings {
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    pub(crate) info: BackendInfo,
    pub(crate) queue_type: QueueType,
    pub(crate) prefix: String,
    pub(crate) prefetch: u16,
    pub(crate) senders: usize,
    /// How long one call may take.
    pub(crate) timeout: Duration,
    pub(crate) max_lease: Duration,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("info", &self.info).finish_non_exhaustive()
    }
}

fn within<T: PartialOrd + std::fmt::Display + Copy>(name: &str, value: T, low: T, high: T) -> Result<T> {
    if value < low || value > high {
        return Err(Error::config(format!("{name} = {value}: use {low} to {high}")));
    }
    Ok(value)
}

impl Settings {
    pub(crate) fn new(config: &DriverConfig) -> Result<Self> {
        let options: Options = config.typed_options()?;
        within("heartbeat", options.heartbeat, 1, 3_600)?;
        within("prefetch", options.prefetch, 0, MAX_PREFETCH)?;
        within("max_lease", options.max_lease, 1, 86_400)?;
        let senders = within("pool_size", config.pool_size.unwrap_or(DEFAULT_SENDERS), 1, MAX_SENDERS)?;
        let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
        if options.prefix.len() > 64 || !options.prefix.bytes().all(fits) {
            return Err(Error::config("prefix: use letters, digits, `_`, `-` and `.`, 64 at most"));
        }
        let mut uri = parse(config.url.as_deref().unwrap_or("amqp://127.0.0.1"))?;
        if let Some(username) = options.username {
            uri.authority.userinfo.username = username;
        }
        if let Some(password) = options.password {
            password.expose().clone_into(&mut uri.authority.userinfo.password);
        }
        let tls = tls(&options.tls_ca, &options.tls_cert, &options.tls_key, uri.scheme == AMQPScheme::AMQPS)?;
        uri.query.heartbeat = Some(options.heartbeat);
        let prefix = if options.prefix.is_empty() { String::new() } else { format!("#{}", options.prefix) };
        let AMQPAuthority { host, port, .. } = &uri.authority;
        let vhost = uri.vhost.trim_start_matches('/');
        // Two kinds of queues with different capabilities.
        let driver = if options.queue_type == QueueType::Classic { "amqp-classic" } else { "amqp" };
        let location = format!("{}://{host}:{port}/{vhost}{prefix}", uri.scheme);
        Ok(Self {
            info: BackendInfo::new(driver, location),
            uri,
            tls,
            queue_type: options.queue_type,
            prefix: options.prefix,
            prefetch: options.prefetch,
            senders: senders as usize,
            timeout: config.timeout.unwrap_or(DEFAULT_TIMEOUT),
            max_lease: Duration::from_secs(options.max_lease),
        })
    }

    /// How a broker proves that it is the one, and the client that it is itself.
    pub(crate) fn tls(&self) -> OwnedTLSConfig {
        self.tls.clone()
    }

    /// The address with its secrets.
    pub(crate) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }
}

/// Reads the files of TLS.
fn tls(ca: &Option<String>, cert: &Option<String>, key: &Option<String>, is_tls: bool) -> Result<OwnedTLSConfig> {
    if !is_tls && [ca, cert, key].into_iter().any(Option::is_some) {
        return Err(Error::config("`tls_ca`, `tls_cert` and `tls_key` need TLS: use amqps://"));
    }
    let read = |path: &String| std::fs::read(path).context("amqp.open", || format!("file `{path}`"));
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some(OwnedIdentity::PKCS8 { pem: read(cert)?, key: read(key)? }),
        (None, None) => None,
        _ => return Err(Error::config("`tls_cert` and `tls_key` go together")),
    };
    let cert_chain = match ca {
        Some(path) => {
            let text = String::from_utf8(read(path)?).ok().filter(|text| text.contains("-----BEGIN CERTIFICATE-----"));
            Some(text.ok_or_else(|| Error::config(format!("tls_ca: the file `{path}` holds no certificate (PEM)")))?)
        }
        None => None,
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}

/// Reads the address. Never puts it into an error, for its password.
fn parse(url: &str) -> Result<AMQPUri> {
    let bad = |what: &str| Error::config(format!("the URL {what}: use amqp://user:password@host:5672/vhost"));
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("has no host"))?;
    let scheme = match scheme {
        "amqp" => AMQPScheme::AMQP,
        "amqps" if cfg!(feature = "tls") => AMQPScheme::AMQPS,
        "amqps" => return Err(Error::config("amqps:// is not compiled in: build with the cargo feature `tls`")),
        _ => return Err(bad("has another scheme")),
    };
    let decode = |text: &str| {
        percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| bad("holds what is not UTF-8"))
    };
    let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
    let (username, password) = user.split_once(':').unwrap_or((user, ""));
    let (host, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad("has a port that is none"))?),
        _ => (host, if scheme == AMQPScheme::AMQPS { 5671 } else { 5672 }),
    };
    let host = decode(host.trim_start_matches('[').trim_end_matches(']'))?;
    if host.is_empty() {
        return Err(bad("has no host"));
    }
    let vhost = if vhost.is_empty() { "/".to_owned() } else { decode(vhost)? };
    Ok(AMQPUri {
        scheme,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: decode(username)?, password: decode(password)? },
            host,
            port,
        },
        vhost,
        query: AMQPQueryString::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<Settings> {
        Settings::new(&DriverConfig::from_url(url))
    }

    #[cfg(feature = "tls")]
    #[test]
    fn files_of_tls_are_looked_at() {
        let refused = |options: &str| settings(&format!("amqps://h?{options}")).unwrap_err();
        assert!(refused("tls_ca=/no/such/file").to_string().contains("/no/such/file"));
        assert!(refused("tls_ca=/dev/null").message().contains("no certificate"));
        assert!(refused("tls_cert=/dev/null").message().contains("together"));
    }

    #[test]
    fn addresses_are_read() {
        for (url, location, user, vhost) in [
            ("amqp://localhost", "amqp://localhost:5672/", "guest", "/"),
            ("amqp://u:p%40ss@h:99/", "amqp://h:99/", "u", "/"),
            ("amqp://h/%2f", "amqp://h:5672/", "guest", "/"),
            ("amqp://u@[::1]:7/jobs?prefix=a.", "amqp://::1:7/jobs#a.", "u", "jobs"),
        ] {
            let settings = settings(url).unwrap();
            assert_eq!(settings.info.location, location, "{url}");
            assert_eq!((&settings.uri.authority.userinfo.username[..], &settings.uri.vhost[..]), (user, vhost), "{url}");
        }
        assert_eq!(settings("amqp://u:p%40ss@h:99/").unwrap().uri.authority.userinfo.password, "p@ss");
        assert_eq!(settings("amqp://u:x@h?password=y").unwrap().uri.authority.userinfo.password, "y");
    }

    #[test]
    fn bad_settings_are_refused_without_the_password() {
        for url in [
            "amqp://",
            "http://u:hunter2@h",
            "amqp://u:hunter2@h:port/",
            "amqp://h?queue_type=stream",
            "amqp://h?prefetch=20000",
            "amqp://h?prefix=a/b",
            "amqp://h?heartbeat=0",
            "amqp://h?max_lease=0",
            "amqp://h?tls_ca=/etc/hosts",
        ] {
            let error = settings(url).unwrap_err();
            assert_eq!(error.kind(), storage_core::ErrorKind::Config, "{url}: {error}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        assert!(!format!("{:?}", settings("amqp://u:hunter2@h").unwrap()).contains("hunter2"));
        #[cfg(not(feature = "tls"))]
        assert!(settings("amqps://h").unwrap_err().message().contains("`tls`"));
        #[cfg(feature = "tls")]
        assert_eq!(settings("amqps://h").unwrap().info.location, "amqps://h:5671/");
    }
}
