//! Opening by configuration.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use storage_core::{Backends, Clock, Driver, DriverConfig, Error, OptionSpec, Result, Secret, Surfaces, url_scheme};

use crate::NatsStore;

/// How long an operation may take, where the configuration does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens queues, records and blobs on NATS: `nats://host:4222`, or `tls://host:4222`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NatsDriver;

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "prefix",
        help: "What the names of our streams, subjects and buckets begin with, and what the object store of our blobs is called: letters, digits and `_`, 1 to 32. Default: storage.",
    },
    OptionSpec {
        name: "replicas",
        help: "How many servers of a cluster keep each new queue, each new table, and our blobs, 1 to 5. Default: 1.",
    },
    OptionSpec {
        name: "storage",
        help: "Where the server keeps new queues, new tables, and our blobs: `file` or `memory`. Default: file.",
    },
    OptionSpec {
        name: "max_bytes",
        help: "How many bytes a new queue may hold, dead letters included; more are refused as throttled. Default: what the account may have.",
    },
    OptionSpec {
        name: "max_messages",
        help: "How many messages a new queue may hold that were sent without a delay, and how many delayed ones; more are refused as throttled. Default: no limit.",
    },
    OptionSpec { name: "user", help: "The user, with password. Default: that of the URL." },
    OptionSpec { name: "password", help: "The user's password." },
    OptionSpec { name: "token", help: "A token, for servers that ask for one." },
    OptionSpec { name: "credentials", help: "A credentials file (`.creds`): its path, or what is in it." },
    OptionSpec { name: "nkey", help: "The seed of a user's nkey." },
    OptionSpec { name: "tls_ca", help: "A file with root certificates in PEM, beside those of the system." },
    OptionSpec { name: "domain", help: "The JetStream domain. Default: that of the server." },
];

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    prefix: Option<String>,
    replicas: Option<u8>,
    storage: Kept,
    max_bytes: Option<u64>,
    max_messages: Option<u64>,
    user: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
    credentials: Option<Secret>,
    nkey: Option<Secret>,
    tls_ca: Option<PathBuf>,
    domain: Option<String>,
}

/// Where the server keeps what it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kept {
    #[default]
    File,
    Memory,
}

/// Who we are.
#[derive(Clone, Debug)]
enum Login {
    Nobody,
    User(String, Secret),
    Token(Secret),
    Credentials(Secret),
    Nkey(Secret),
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) servers: Vec<ServerAddr>,
    /// Without credentials.
    pub(crate) location: String,
    pub(crate) timeout: Duration,
    pub(crate) domain: Option<String>,
    pub(crate) prefix: String,
    pub(crate) replicas: u8,
    pub(crate) kept: Kept,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_messages: Option<u64>,
    pub(crate) clock: Clock,
    pub(crate) auto_create: bool,
    login: Login,
    tls: bool,
    tls_ca: Option<PathBuf>,
}

impl Settings {
    pub(crate) fn new(config: &DriverConfig) -> Result<Self> {
        let options: Options = config.typed_options()?;
        let url = config.url.as_deref().unwrap_or_default();
        let scheme = url_scheme(url).unwrap_or("nats");
        let address = config.address().unwrap_or_default().trim_start_matches('/').trim_end_matches('/');
        let (user_info, hosts) = address.rsplit_once('@').map_or((None, address), |(info, hosts)| (Some(info), hosts));
        let hosts: Vec<&str> = hosts.split(',').collect();
        if hosts.iter().any(|host| host.is_empty() || host.contains(['/', ' '])) {
            return Err(Error::config("the address names no server: use nats://host:4222, or several: nats://a:4222,b:4222"));
        }
        let servers = hosts.iter().map(|host| format!("{scheme}://{host}").parse::<ServerAddr>());
        let servers = servers.collect::<std::io::Result<Vec<_>>>();
        let servers = servers.map_err(|_| Error::config("the address is not one of a NATS server: use nats://host:4222"))?;
        let prefix = options.prefix.clone().unwrap_or_else(|| "storage".to_owned());
        if !is_plain(&prefix) || prefix.len() > 32 {
            return Err(Error::config("option `prefix`: use letters, digits and `_`, 1 to 32 of them"));
        }
        let replicas = options.replicas.unwrap_or(1);
        if !(1..=5).contains(&replicas) {
            return Err(Error::config(format!("option `replicas`: {replicas} is out of range: 1 to 5")));
        }
        for (name, value) in [("max_bytes", options.max_bytes), ("max_messages", options.max_messages)] {
            if value.is_some_and(|value| value == 0 || i64::try_from(value).is_err()) {
                return Err(Error::config(format!("option `{name}`: use 1 or more, or leave it out for no limit")));
            }
        }
        if options.domain.as_deref().is_some_and(|domain| domain.is_empty() || domain.contains([' ', '.', '*', '>'])) {
            return Err(Error::config("option `domain`: not the name of a JetStream domain"));
        }
        if let Some(file) = options.tls_ca.as_ref().filter(|file| !file.is_file()) {
            return Err(Error::config(format!("option `tls_ca`: there is no file {}", file.display())));
        }
        let timeout = config.timeout.unwrap_or(DEFAULT_TIMEOUT);
        if timeout.is_zero() {
            return Err(Error::config("a timeout of zero: no call could ever be answered"));
        }
        let authority = hosts.join(",");
        let domain = options.domain.as_deref().map(|domain| format!("/{domain}")).unwrap_or_default();
        Ok(Self {
            servers,
            location: format!("{scheme}://{authority}{domain} {prefix}"),
            timeout,
            domain: options.domain.clone(),
            prefix,
            replicas,
            kept: options.storage,
            max_bytes: options.max_bytes,
            max_messages: options.max_messages,
            clock: config.clock.clone(),
            auto_create: config.auto_create,
            tls: scheme == "tls",
            tls_ca: options.tls_ca.clone(),
            login: login(&options, user_info)?,
        })
    }

    /// What the client is given to log in.
    pub(crate) async fn credentials(&self) -> Result<ConnectOptions> {
        let mut options = ConnectOptions::new().require_tls(self.tls);
        if let Some(file) = &self.tls_ca {
            options = options.add_root_certificates(file.clone());
        }
        Ok(match &self.login {
            Login::Nobody => options,
            Login::User(user, password) => options.user_and_password(user.clone(), password.expose().to_owned()),
            Login::Token(token) => options.token(token.expose().to_owned()),
            Login::Nkey(seed) => options.nkey(seed.expose().to_owned()),
            // What the client says of a file that it can't read may hold a part of it.
            Login::Credentials(text) if text.expose().contains("-----BEGIN") => options
                .credentials(text.expose())
                .map_err(|_| Error::config("option `credentials`: not what a credentials file holds"))?,
            Login::Credentials(path) => options.credentials_file(path.expose()).await.map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Error::config("option `credentials`: there is no such file"),
                _ => Error::config("option `credentials`: the file can't be read, or is no credentials file"),
            })?,
        })
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn login(options: &Options, user_info: Option<&str>) -> Result<Login> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
    let by_url = match user_info {
        None => Login::Nobody,
        Some(info) => {
            let malformed = |_| Error::config("user and password of the URL are not UTF-8");
            match info.split_once(':') {
                Some((user, password)) => {
                    Login::User(decode(user).map_err(malformed)?, Secret::new(decode(password).map_err(malformed)?))
                }
                None => Login::Token(Secret::new(decode(info).map_err(malformed)?)),
            }
        }
    };
    let mut ways = Vec::new();
    match (&options.user, &options.password) {
        (Some(user), Some(password)) => ways.push(Login::User(user.clone(), password.clone())),
        (None, None) => {}
        (Some(_), None) => return Err(Error::config("option `password` is missing: it goes with `user`")),
        (None, Some(_)) => return Err(Error::config("option `user` is missing: it goes with `password`")),
    }
    ways.extend(options.token.clone().map(Login::Token));
    ways.extend(options.credentials.clone().map(Login::Credentials));
    if let Some(seed) = &options.nkey {
        let (text, plain) = (seed.expose(), seed.expose().bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
        if !(text.starts_with("SU") && text.len() == 58 && plain) {
            return Err(Error::config("option `nkey`: not the seed of a user's nkey (58 characters that begin with SU)"));
        }
        ways.push(Login::Nkey(seed.clone()));
    }
    if !matches!(by_url, Login::Nobody) {
        ways.push(by_url);
    }
    if ways.len() > 1 {
        return Err(Error::config("several ways to log in: keep one of user and password, token, credentials, nkey"));
    }
    Ok(ways.pop().unwrap_or(Login::Nobody))
}

#[async_trait]
impl Driver for NatsDriver {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["nats", "tls"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { records: true, queue: true, blobs: true }
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn is_remote(&self, _: &DriverConfig) -> bool {
        true
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        Ok(NatsStore::open(config).await?.backends())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<Settings> {
        Settings::new(&DriverConfig::from_url(url))
    }

    #[test]
    fn addresses_are_read() {
        let plain = settings("nats://127.0.0.1:4333").unwrap();
        assert_eq!((plain.location.as_str(), plain.servers.len()), ("nats://127.0.0.1:4333 storage", 1));
        let several = settings("tls://a:1,b:2?prefix=app&replicas=3&domain=hub").unwrap();
        assert_eq!((several.location.as_str(), several.servers.len()), ("tls://a:1,b:2/hub app", 2));
        assert!(several.tls && several.replicas == 3);
        for bad in [
            "nats:",
            "nats://",
            "nats://a,,b",
            "nats://a/b",
            "nats://a?prefix=a-b",
            "nats://a?prefix=",
            "nats://a?replicas=6",
            "nats://a?max_bytes=0",
            "nats://a?storage=tape",
            "nats://a?user=x",
            "nats://a?password=x",
            "nats://a?token=x&user=y&password=z",
            "nats://x:y@a?token=x",
            "nats://a?nkey=SUX",
            "nats://a?tls_ca=/nowhere/ca.pem",
            "nats://a?domain=a.b",
        ] {
            assert_eq!(settings(bad).unwrap_err().kind(), storage_core::ErrorKind::Config, "{bad}");
        }
    }

    #[test]
    fn a_timeout_of_zero_is_refused() {
        let config = DriverConfig { timeout: Some(Duration::ZERO), ..DriverConfig::from_url("nats://a") };
        assert_eq!(Settings::new(&config).unwrap_err().kind(), storage_core::ErrorKind::Config);
    }

    #[test]
    fn credentials_are_not_shown() {
        let error = settings("nats://a:1?user=joe&password=12345678").unwrap_err();
        assert!(!format!("{error:?}").contains("5678"), "{error:?}");
        for url in ["nats://joe:hunt%3Aer2@a:1", "nats://hunter2@a:1", "nats://a:1?token=hunter2"] {
            let settings = settings(url).unwrap();
            assert!(!format!("{settings:?}").contains("hunt"), "{settings:?}");
            assert!(!settings.location.contains("hunt"));
        }
        let Login::User(user, password) = settings("nats://joe:hunt%3Aer2@a:1").unwrap().login else { panic!("a user") };
        assert_eq!((user.as_str(), password.expose()), ("joe", "hunt:er2"));
    }
}
