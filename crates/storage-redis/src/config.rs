//! Opening by configuration.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use storage_core::{BackendInfo, Backends, Driver, DriverConfig, Error, OptionSpec, Result, Secret, Surfaces, url_scheme};

use crate::address::{Address, Credentials, Host, PORT, SENTINEL_PORT, read_hosts};
use crate::client::Client;
use crate::durability;
use crate::layout::Layout;
use crate::{RedisQueue, RedisRecords};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_CONNECT_TIMEOUT: u64 = 5;
const MAX_CONNECT_TIMEOUT: u64 = 300;
const MAX_CONNECTIONS: u32 = 64;
const MAX_HOSTS: usize = 1_000;
const DEFAULT_PREFIX: &str = "storage";

/// Opens Redis: `redis://host:6379/0`, `redis+sentinel://sentinel1,sentinel2/main`, `redis+cluster://node1,node2`; with `rediss` for TLS.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedisDriver;

#[async_trait]
impl Driver for RedisDriver {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["rediss", "valkey"]
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"]
    }

    fn surfaces(&self) -> Surfaces {
        Surfaces { records: true, queue: true, blobs: false }
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn is_remote(&self, _config: &DriverConfig) -> bool {
        true
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let settings = Settings::new(config).map_err(|e| e.with_operation("redis.open"))?;
        let (info, layout, declared) = (settings.info(), settings.layout.clone(), settings.durable);
        let open = async {
            let client = Arc::new(Client::new(settings)?);
            // Wrong addresses and passwords show here, and what the server promises is known from here on.
            let durable = durability::ask(&client, declared).await?;
            let records = RedisRecords::new(Arc::clone(&client), layout.clone(), config.clock.clone(), durable);
            let queue = RedisQueue::new(client, layout, durable);
            Ok(Backends { records: Some(Arc::new(records)), queue: Some(Arc::new(queue)), blobs: None })
        };
        open.await.map_err(|e: Error| e.with_operation("redis.open").with_backend(&info))
    }
}

const fn option(name: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, help }
}

const OPTIONS: &[OptionSpec] = &[
    option("prefix", "What all keys begin with; stores with different prefixes are apart. Default: storage."),
    option("username", "The user, where the server has users (ACL). Default: that of the URL."),
    option("password", "The password. Default: that of the URL."),
    option("database", "The number of the database, 0 in a Cluster. Default: that of the URL's path, or 0."),
    option("cluster", "true: the servers are a Cluster, as with redis+cluster://. Default: false."),
    option("sentinels", "Sentinels to ask for the primary, HOST:PORT, separated by commas. Default: those of redis+sentinel://."),
    option("master", "The name by which sentinels know the primary. Default: that of the URL's path."),
    option("sentinel_username", "The user at the sentinels. Default: none."),
    option("sentinel_password", "The password at the sentinels. Default: none."),
    option("tls", "true: TLS, as with rediss://. Needs the cargo feature redis-tls. Default: false."),
    option("tls_ca", "The path of a file with the certificates (PEM) that sign the server's. Default: the system's."),
    option("tls_cert", "The path of a file with the client's own certificate (PEM), for servers that ask for one."),
    option("tls_key", "The path of a file with the key (PEM) of tls_cert."),
    option("connect_timeout", "How many seconds it may take to connect, 1 to 300. Default: 5."),
    option(
        "durable",
        "Whether a record or message that was accepted is safe from a power cut, where the server does not say or you know better. Default: true \
         with appendonly yes, appendfsync always and no-appendfsync-on-rewrite no on a single server, else false.",
    ),
];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    prefix: Option<String>,
    username: Option<String>,
    password: Option<Secret>,
    database: Option<u32>,
    cluster: bool,
    sentinels: Option<String>,
    master: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<Secret>,
    tls: bool,
    tls_ca: Option<String>,
    tls_cert: Option<String>,
    tls_key: Option<String>,
    connect_timeout: Option<u64>,
    durable: Option<bool>,
}

/// How the servers stand together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    Single(Host),
    Sentinel { sentinels: Vec<Host>, master: String, credentials: Credentials },
    Cluster(Vec<Host>),
}

/// Files of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) ca: Option<String>,
    /// Certificate and key.
    pub(crate) own: Option<(String, String)>,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) topology: Topology,
    pub(crate) credentials: Credentials,
    pub(crate) database: u32,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) layout: Layout,
    pub(crate) connections: u32,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) durable: Option<bool>,
}

impl Settings {
    pub(crate) fn new(config: &DriverConfig) -> Result<Self> {
        let mut options: Options = config.typed_options()?;
        let scheme = config.url.as_deref().and_then(url_scheme).unwrap_or("redis");
        let (by_sentinels, by_cluster) = (scheme.ends_with("+sentinel"), scheme.ends_with("+cluster") || options.cluster);
        let port = if by_sentinels { SENTINEL_PORT } else { PORT };
        let mut address = Address::parse(config.address().unwrap_or_default(), port)?;
        if let Some(sentinels) = &options.sentinels {
            if !address.hosts.is_empty() {
                return Err(Error::config(
                    "both the URL and the option `sentinels` name servers: leave the URL's out (redis+sentinel://)",
                ));
            }
            address.hosts = read_hosts(sentinels, SENTINEL_PORT)?;
        }
        let asks_sentinels = by_sentinels || options.sentinels.is_some();
        if asks_sentinels && by_cluster {
            return Err(Error::config("the servers are a Cluster, or are found by sentinels: it can't be both"));
        }
        let tls = tls_files(&mut options, scheme.starts_with("rediss"))?;
        let connections = config.pool_size.unwrap_or(1);
        if !(1..=MAX_CONNECTIONS).contains(&connections) {
            return Err(Error::config(format!("pool_size = {connections}: use 1 to {MAX_CONNECTIONS}")));
        }
        let connect = options.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        if !(1..=MAX_CONNECT_TIMEOUT).contains(&connect) {
            return Err(Error::config(format!("connect_timeout = {connect}: use 1 to {MAX_CONNECT_TIMEOUT} seconds")));
        }
        let timeout = config.timeout.unwrap_or(DEFAULT_TIMEOUT);
        if timeout.is_zero() {
            return Err(Error::config("a timeout of zero: no call could ever be answered"));
        }
        let credentials = Credentials {
            username: options.username.take().or(address.credentials.username.take()),
            password: options.password.take().or(address.credentials.password.take()),
        };
        let layout = Layout::new(options.prefix.as_deref().unwrap_or(DEFAULT_PREFIX))?;
        let mut path = std::mem::take(&mut address.path).into_iter();
        let topology = topology(&mut options, address.hosts, &mut path, asks_sentinels, by_cluster)?;
        let database = database(options.database, &mut path)?;
        if database != 0 && by_cluster {
            return Err(Error::config("a Cluster has one database, 0: use `prefix` to keep stores apart"));
        }
        if path.next().is_some() {
            return Err(Error::config("the URL has a longer path than the number of a database"));
        }
        let (connect_timeout, durable) = (Duration::from_secs(connect), options.durable);
        Ok(Self { topology, credentials, database, tls, layout, connections, timeout, connect_timeout, durable })
    }

    /// The store, without secrets.
    pub(crate) fn info(&self) -> BackendInfo {
        let s = if self.tls.is_some() { "s" } else { "" };
        let list = |hosts: &[Host]| hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let servers = match &self.topology {
            Topology::Single(host) => format!("redis{s}://{host}/{}", self.database),
            Topology::Sentinel { sentinels, master, .. } => {
                format!("redis{s}+sentinel://{}/{master}/{}", list(sentinels), self.database)
            }
            Topology::Cluster(hosts) => format!("redis{s}+cluster://{}", list(hosts)),
        };
        BackendInfo::new("redis", format!("{servers}?prefix={}", self.layout.prefix()))
    }
}

fn topology(
    options: &mut Options,
    mut hosts: Vec<Host>,
    path: &mut impl Iterator<Item = String>,
    asks_sentinels: bool,
    by_cluster: bool,
) -> Result<Topology> {
    if hosts.len() > MAX_HOSTS {
        return Err(Error::config(format!("{} servers: name {MAX_HOSTS} at most", hosts.len())));
    }
    let credentials = Credentials { username: options.sentinel_username.take(), password: options.sentinel_password.take() };
    if asks_sentinels {
        if hosts.is_empty() {
            return Err(Error::config("no sentinel is named: redis+sentinel://HOST:26379/MASTER"));
        }
        let master = options.master.take().or_else(|| path.next());
        let master =
            master.ok_or_else(|| Error::config("which primary? redis+sentinel://HOST:26379/MASTER, or the option `master`"))?;
        return Ok(Topology::Sentinel { sentinels: hosts, master, credentials });
    }
    if options.master.is_some() || credentials != Credentials::default() {
        return Err(Error::config(
            "`master`, `sentinel_username` and `sentinel_password` need sentinels: redis+sentinel://, or `sentinels`",
        ));
    }
    if hosts.is_empty() {
        hosts.push(Host { name: "127.0.0.1".into(), port: PORT });
    }
    if by_cluster {
        return Ok(Topology::Cluster(hosts));
    }
    match hosts.pop() {
        Some(host) if hosts.is_empty() => Ok(Topology::Single(host)),
        _ => Err(Error::config("several servers: a Cluster (redis+cluster://), or sentinels (redis+sentinel://)?")),
    }
}

fn database(option: Option<u32>, path: &mut impl Iterator<Item = String>) -> Result<u32> {
    let Some(text) = path.next() else { return Ok(option.unwrap_or(0)) };
    let number = text.parse().map_err(|_| Error::config(format!("the URL's path is the number of a database, not `{text}`")))?;
    if option.is_some_and(|option| option != number) {
        return Err(Error::config("the URL and the option `database` name different databases"));
    }
    Ok(number)
}

fn tls_files(options: &mut Options, by_scheme: bool) -> Result<Option<TlsFiles>> {
    let ca = options.tls_ca.take();
    let own = match (options.tls_cert.take(), options.tls_key.take()) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(Error::config("`tls_cert` and `tls_key` go together")),
    };
    let files = TlsFiles { ca, own };
    if !by_scheme && !options.tls {
        let unused = files != TlsFiles::default();
        return if unused { Err(Error::config("`tls_ca`, `tls_cert` and `tls_key` need TLS: use rediss://")) } else { Ok(None) };
    }
    if !cfg!(feature = "tls") {
        return Err(Error::config(
            "TLS to Redis is not compiled in: build with the cargo feature `redis-tls` (`tls` of storage-redis)",
        ));
    }
    Ok(Some(files))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Settings> {
        Settings::new(&DriverConfig::from_url(url))
    }

    fn host(name: &str, port: u16) -> Host {
        Host { name: name.into(), port }
    }

    #[test]
    fn addresses_say_how_the_servers_stand_together() {
        let single = read("redis://joe:secret@db/3?prefix=shop").unwrap();
        assert_eq!((single.topology, single.database), (Topology::Single(host("db", 6379)), 3));
        assert_eq!(single.credentials.username.as_deref(), Some("joe"));
        assert_eq!(read("redis:").unwrap().topology, Topology::Single(host("127.0.0.1", 6379)));
        let cluster = Topology::Cluster(vec![host("a", 1), host("b", 6379)]);
        assert_eq!(read("redis+cluster://a:1,b").unwrap().topology, cluster);
        assert_eq!(read("redis://a:1,b?cluster=true").unwrap().topology, cluster);
        let by_url = read("redis+sentinel://a,b:2/main/1?sentinel_password=x").unwrap();
        let by_options = read("redis:?sentinels=a,b:2&master=main&database=1&sentinel_password=x").unwrap();
        assert_eq!((&by_url.topology, by_url.database), (&by_options.topology, by_options.database));
        assert!(matches!(by_url.topology, Topology::Sentinel { sentinels, .. } if sentinels[0] == host("a", 26379)));
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for bad in [
            "redis://a,b",
            "redis://a/x",
            "redis://a/1/2",
            "redis://a/1?database=2",
            "redis+cluster://a/1",
            "redis+sentinel://a",
            "redis+sentinel:///main",
            "redis://a?master=main",
            "redis://a?sentinels=b&master=main",
            "redis+sentinel://a/main?cluster=true",
            "redis://a?tls_ca=x",
            "rediss://a?tls_cert=x",
            "redis://a?prefix=a{b}",
            "redis://a?connect_timeout=0",
        ] {
            let error = read(bad).expect_err(bad);
            assert_eq!(error.kind(), storage_core::ErrorKind::Config, "{bad}: {error}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let settings = read("redis://joe:hunter2@db?sentinel_password=").map(|s| format!("{s:?} {}", s.info()));
        assert!(settings.is_err());
        let settings = read("redis://joe:hunter2@db").unwrap();
        assert!(!format!("{settings:?} {}", settings.info()).contains("hunter2"));
        let error = read("redis://db?password=12345678").unwrap_err();
        assert!(!error.to_string().contains("12345678") && error.to_string().contains("password"), "{error}");
        let mut config = DriverConfig::from_url("redis://db");
        config.options.insert("password".into(), "hunter2".into());
        assert_eq!(Settings::new(&config).unwrap().credentials.password.unwrap().expose(), "hunter2");
    }

    #[test]
    fn the_location_tells_stores_apart() {
        let location = |url: &str| read(url).unwrap().info().location;
        assert_eq!(location("redis://joe:x@db/3"), "redis://db:6379/3?prefix=storage");
        assert_ne!(location("redis://db?prefix=a"), location("redis://db?prefix=b"));
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn tls_names_its_feature() {
        assert!(read("rediss://a").unwrap_err().message().contains("redis-tls"));
    }
}
