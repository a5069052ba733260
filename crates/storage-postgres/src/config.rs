//! Opening by configuration.

use std::str::FromStr as _;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use storage_core::{BackendInfo, Backends, Clock, Driver, DriverConfig, Error, OptionSpec, Result, Secret, Surfaces};
use storage_sql::server::{
    CONNECT_TIMEOUT, ROOT_CERTIFICATES, check_connect_timeout, check_pool_size, check_root_certificates, check_timeout, option,
};
use tokio_postgres::config::Host;

use crate::PostgresStore;

/// How long a connection without traffic lives before the system asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// PostgreSQL cuts longer names.
const MAX_NAME: usize = 63;

/// Opens PostgreSQL: `postgres://user:password@host:5432/database`, also written `postgresql://`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresDriver;

#[async_trait]
impl Driver for PostgresDriver {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["postgresql"]
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["postgres", "postgresql"]
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
        Ok(PostgresStore::open(config).await?.backends())
    }
}

const OPTIONS: &[OptionSpec] = &[
    option("user", "The user. Default: that of the URL, or the program's user in the operating system."),
    option("password", "The password. Default: that of the URL."),
    option(
        "schema",
        "The schema within the database that holds the tables; it is created where it is missing and may be. Default: the first of the \
         user's search_path, which is public unless somebody has changed it.",
    ),
    option(
        "sslmode",
        "TLS, as libpq has it: disable, prefer (where the server offers it, its certificate unchecked), require (unchecked too), verify-full \
         (its certificate and name are checked). All but disable need the cargo feature postgres-tls. Default: prefer where TLS is compiled in, \
         verify-full with sslrootcert, else disable.",
    ),
    ROOT_CERTIFICATES,
    CONNECT_TIMEOUT,
    option(
        "read_url",
        "The address of a replica, written as url is, which is asked for what may be of a while ago. The database is the primary's where it \
         names none, and so are user and password where it names no other user; all options hold for both. Default: none, and the primary is asked.",
    ),
    option(
        "synchronous_commit",
        "When a commit is answered: on (once it is on the disk), remote_apply, remote_write, local, or off (some time before: a crash of the \
         server may undo the last commits, and durability is not declared). Default: the server's setting.",
    ),
    option("application_name", "What the server calls the connections in pg_stat_activity. Default: storage."),
];

/// How TLS is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsMode {
    Disable,
    Prefer,
    Require,
    VerifyFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SynchronousCommit {
    On,
    RemoteApply,
    RemoteWrite,
    Local,
    Off,
}

impl SynchronousCommit {
    const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::RemoteApply => "remote_apply",
            Self::RemoteWrite => "remote_write",
            Self::Local => "local",
            Self::Off => "off",
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    user: Option<String>,
    password: Option<Secret>,
    schema: Option<String>,
    sslmode: Option<TlsMode>,
    sslrootcert: Option<String>,
    connect_timeout: Option<u64>,
    read_url: Option<Secret>,
    synchronous_commit: Option<SynchronousCommit>,
    application_name: Option<String>,
}

/// How a store is opened.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Address and login.
    pub(crate) server: tokio_postgres::Config,
    /// Those of the replica.
    read: Option<tokio_postgres::Config>,
    pub(crate) schema: Option<String>,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "read where TLS is compiled in"))]
    pub(crate) tls: TlsMode,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "read where TLS is compiled in"))]
    pub(crate) root_certificates: Option<String>,
    pub(crate) connections: usize,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    synchronous_commit: Option<SynchronousCommit>,
    pub(crate) auto_create: bool,
    pub(crate) clock: Clock,
}

impl Settings {
    pub(crate) fn new(config: &DriverConfig) -> Result<Self> {
        let options: Options = config.typed_options()?;
        let mut server = server(config.url.as_deref())?;
        if let Some(user) = &options.user {
            server.user(user);
        }
        if let Some(password) = &options.password {
            server.password(password.expose());
        }
        let (connections, timeout) = (check_pool_size(config)?, check_timeout(config)?);
        if let Some(schema) = options.schema.as_ref().filter(|s| s.is_empty() || s.len() > MAX_NAME || s.contains('\0')) {
            return Err(Error::config(format!("schema = {schema:?}: a name of 1 to {MAX_NAME} bytes")));
        }
        let (tls, connect_timeout) = (tls_mode(&options)?, check_connect_timeout(options.connect_timeout)?);
        let mut read = options.read_url.as_ref().map(|url| replica(url.expose(), &server)).transpose()?;
        for server in [Some(&mut server), read.as_mut()].into_iter().flatten() {
            server.application_name(options.application_name.as_deref().unwrap_or("storage"));
            server.connect_timeout(connect_timeout).keepalives(true).keepalives_idle(KEEPALIVE);
            server.tcp_user_timeout(timeout.max(Duration::from_secs(1)));
            server.ssl_mode(match tls {
                TlsMode::Disable => tokio_postgres::config::SslMode::Disable,
                TlsMode::Prefer => tokio_postgres::config::SslMode::Prefer,
                TlsMode::Require | TlsMode::VerifyFull => tokio_postgres::config::SslMode::Require,
            });
        }
        Ok(Self {
            server,
            read,
            schema: options.schema,
            tls,
            root_certificates: options.sslrootcert,
            connections,
            timeout,
            connect_timeout,
            synchronous_commit: options.synchronous_commit,
            auto_create: config.auto_create,
            clock: config.clock.clone(),
        })
    }

    /// How the replica is reached. It has half the time: the primary may have to be asked behind it.
    pub(crate) fn replica(&self) -> Option<Self> {
        let server = self.read.clone()?;
        Some(Self { server, read: None, timeout: self.timeout / 2, ..self.clone() })
    }

    /// The store, without secrets.
    pub(crate) fn info(&self) -> BackendInfo {
        let ports = self.server.get_ports();
        let host = |(n, host): (usize, &Host)| {
            let port = ports.get(n).or_else(|| ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
                Host::Tcp(name) => format!("{name}:{port}"),
                #[cfg(unix)]
                Host::Unix(path) => path.display().to_string(),
            }
        };
        let hosts: Vec<String> = self.server.get_hosts().iter().enumerate().map(host).collect();
        let database = self.server.get_dbname().or(self.server.get_user()).unwrap_or_default();
        let schema = self.schema.as_ref().map_or_else(String::new, |schema| format!("?schema={schema}"));
        BackendInfo::new("postgres", format!("postgres://{}/{database}{schema}", hosts.join(",")))
    }

    /// What each connection is set to first.
    pub(crate) fn preparation(&self) -> String {
        use std::fmt::Write as _;
        // The server gives up by itself a little before we do, so that its answer is the one that is told.
        let millis = (self.timeout.as_millis() * 9 / 10).clamp(1, 1_000_000_000);
        let mut sql = format!(
            "SET statement_timeout = {millis}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; SET TimeZone = 'UTC'; \
             SET bytea_output = 'hex'; SET client_encoding = 'UTF8'; SET default_transaction_isolation = 'read committed'",
            (millis * 9 / 10).max(1),
            (millis * 2).max(1_000),
        );
        // Writing to a String can't fail.
        if let Some(mode) = self.synchronous_commit {
            let _ = write!(sql, "; SET synchronous_commit = {}", mode.as_str());
        }
        if let Some(schema) = &self.schema {
            let _ = write!(sql, "; SET search_path = {}", storage_sql::Dialect::Postgres.quote(schema));
        }
        sql
    }
}

fn server(url: Option<&str>) -> Result<tokio_postgres::Config> {
    let url = match url {
        None => "postgres://localhost",
        Some(url) if url.contains("://") => url,
        Some(_) => return Err(Error::config("write the address as postgres://user:password@host:5432/database")),
    };
    let mut server = parse(url)?;
    if server.get_hosts().len() > 1 {
        // Whichever of them is the primary.
        server.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
    }
    Ok(server)
}

fn parse(url: &str) -> Result<tokio_postgres::Config> {
    // Not the driver's words: they may repeat a part of the URL, which may be a password's.
    let mut server = tokio_postgres::Config::from_str(url).map_err(|_| {
        Error::config("the address can't be read: postgres://user:password@host:5432/database, with special characters as %XX")
    })?;
    if server.get_hosts().is_empty() {
        server.host("localhost");
    }
    Ok(server)
}

/// The address of a replica, with what it leaves to the primary's. Of several hosts, any.
fn replica(url: &str, primary: &tokio_postgres::Config) -> Result<tokio_postgres::Config> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") || url.contains('?') {
        return Err(Error::config("option `read_url`: write it as postgres://user:password@host:5432/database, without options"));
    }
    let mut server = parse(url).map_err(|e| Error::config(format!("option `read_url`: {}", e.message())))?;
    if let (None, Some(user)) = (server.get_user(), primary.get_user()) {
        server.user(user);
    }
    // The password of one user is not for the login of another.
    if server.get_user() == primary.get_user()
        && let (None, Some(password)) = (server.get_password(), primary.get_password())
    {
        server.password(password);
    }
    if let (None, Some(database)) = (server.get_dbname(), primary.get_dbname()) {
        server.dbname(database);
    }
    server.load_balance_hosts(tokio_postgres::config::LoadBalanceHosts::Random);
    Ok(server)
}

fn tls_mode(options: &Options) -> Result<TlsMode> {
    let compiled = cfg!(feature = "tls");
    let mode = options.sslmode.unwrap_or(match (&options.sslrootcert, compiled) {
        (Some(_), _) => TlsMode::VerifyFull,
        (None, true) => TlsMode::Prefer,
        (None, false) => TlsMode::Disable,
    });
    check_root_certificates(options.sslrootcert.as_deref(), mode == TlsMode::VerifyFull)?;
    if !compiled && mode != TlsMode::Disable {
        return Err(Error::config(
            "TLS to PostgreSQL is not compiled in: build with the cargo feature `postgres-tls` (`tls` of storage-postgres)",
        ));
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Settings> {
        Settings::new(&DriverConfig::from_url(url))
    }

    #[test]
    fn addresses_say_where_and_never_the_password() {
        for (url, location) in [
            ("postgres://joe:hunter2@db:5433/shop", "postgres://db:5433/shop"),
            ("postgresql://joe:hunter2@a,b/shop?schema=x", "postgres://a:5432,b:5432/shop?schema=x"),
            ("postgres://joe@[::1]/shop?password=hunter2", "postgres://[::1]:5432/shop"),
            ("postgres://joe@%2Fvar%2Frun/shop", "/var/run/shop"),
        ] {
            let info = read(url).unwrap().info();
            assert!(info.location.ends_with(location), "{url}: {info}");
            assert!(!info.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused_without_its_password() {
        for bad in [
            "postgres:shop",
            "postgres://joe:hunter2@db:port/shop",
            "postgres://joe:hunter2@db/shop?sslmode=maybe",
            "postgres://joe:hunter2@db/shop?sslmode=prefer&sslrootcert=x",
            "postgres://joe:hunter2@db/shop?connect_timeout=0",
            "postgres://joe:hunter2@db/shop?schema=",
            "postgres://joe:hunter2@db/shop?read_url=replica",
            "postgres://joe:hunter2@db/shop?read_url=postgres://joe:hunter2@replica:port/shop",
            "postgres://joe:hunter2@db/shop?synchronous_commit=maybe",
        ] {
            let error = read(bad).err().unwrap();
            assert_eq!(error.kind(), storage_core::ErrorKind::Config, "{bad}: {error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_replica_takes_from_the_primary_what_it_leaves_out() {
        let replica = |read_url: &str| {
            read(&format!("postgres://joe:hunter2@db:5433/shop?read_url={read_url}")).unwrap().replica().unwrap()
        };
        assert!(read("postgres://joe:hunter2@db:5433/shop").unwrap().replica().is_none());
        let left_out = replica("postgres://r:5434");
        assert_eq!((left_out.server.get_user(), left_out.server.get_password()), (Some("joe"), Some(&b"hunter2"[..])));
        assert!(left_out.info().location.ends_with("postgres://r:5434/shop"), "{}", left_out.info());
        let named = replica("postgres://ann:secret@a,b/other");
        assert_eq!((named.server.get_user(), named.server.get_password()), (Some("ann"), Some(&b"secret"[..])));
        assert!(named.info().location.ends_with("postgres://a:5432,b:5432/other"), "{}", named.info());
        assert_eq!(replica("postgres://ann@a").server.get_password(), None, "not another user's");
    }

    #[test]
    fn names_are_quoted() {
        let settings = read("postgres://db/shop?schema=a\"; DROP TABLE x; --").unwrap();
        assert!(settings.preparation().ends_with(r#"SET search_path = "a""; DROP TABLE x; --""#), "{}", settings.preparation());
    }
}
