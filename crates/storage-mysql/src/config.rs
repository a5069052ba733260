//! Opening by configuration.

use std::time::Duration;

use async_trait::async_trait;
use mysql_async::{Conn, Opts, OptsBuilder};
use serde::Deserialize;
use storage_core::{BackendInfo, Backends, Clock, Driver, DriverConfig, Error, OptionSpec, Result, Secret, Surfaces};
use storage_sql::Dialect;
use storage_sql::server::{
    CONNECT_TIMEOUT, ROOT_CERTIFICATES, check_connect_timeout, check_pool_size, check_root_certificates, check_timeout, option,
};

use crate::MysqlStore;
use crate::error::explain_connecting;
use crate::tls;

/// How long a connection without traffic lives before the system asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// MySQL takes no longer names.
const MAX_NAME: usize = 64;
/// By how many bytes texts are ordered where no index has them in order: 4,096 characters.
const SORT_BYTES: u32 = 16_384;
/// How many statements a connection keeps prepared.
const STATEMENTS: usize = 256;

/// Opens MySQL or MariaDB: `mysql://user:password@host:3306/database`, also written `mariadb://`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MysqlDriver;

#[async_trait]
impl Driver for MysqlDriver {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["mariadb"]
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["mysql", "mariadb"]
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
        Ok(MysqlStore::open(config).await?.backends())
    }
}

const OPTIONS: &[OptionSpec] = &[
    option("user", "The user. Default: that of the URL, or root."),
    option("password", "The password. Default: that of the URL."),
    option("database", "The database; it is created where it is missing and may be. Default: that of the URL."),
    option("socket", "The path of the server's Unix socket, which is used instead of host and port."),
    option(
        "sslmode",
        "TLS: disable, require (the server's certificate is unchecked), verify-full (its certificate and name are checked). All but disable need the \
         cargo feature mysql-tls. Default: verify-full with sslrootcert, else disable.",
    ),
    ROOT_CERTIFICATES,
    CONNECT_TIMEOUT,
    option(
        "read_url",
        "The address of a replica, written as url is, which is asked for what may be of a while ago. The database is the primary's where it \
         names none, and so are user and password where it names no other user; all options but socket hold for both. Default: none, and the primary is asked.",
    ),
];

/// How TLS is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsMode {
    Disable,
    Require,
    VerifyFull,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    user: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    socket: Option<String>,
    sslmode: Option<TlsMode>,
    sslrootcert: Option<String>,
    connect_timeout: Option<u64>,
    read_url: Option<Secret>,
}

/// How a store is opened.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Address and login.
    server: Opts,
    /// Those of the replica.
    read: Option<Opts>,
    pub(crate) database: String,
    pub(crate) connections: usize,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) auto_create: bool,
    pub(crate) clock: Clock,
}

impl Settings {
    pub(crate) fn new(config: &DriverConfig) -> Result<Self> {
        let options: Options = config.typed_options()?;
        let url = server(config.url.as_deref())?;
        let database = options.database.clone().or_else(|| url.db_name().map(str::to_owned));
        let database = database.ok_or_else(|| Error::config("name a database: mysql://user:password@host:3306/database"))?;
        if database.is_empty() || database.len() > MAX_NAME || database.chars().any(char::is_control) {
            return Err(Error::config(format!("database = {database:?}: a name of 1 to {MAX_NAME} bytes")));
        }
        let tls = tls_mode(&options)?;
        let ssl = tls::options(tls, options.sslrootcert.as_deref())?;
        let mut server = OptsBuilder::from_opts(url.clone())
            .user(Some(options.user.as_deref().or(url.user()).unwrap_or("root")))
            .db_name(Some(database.as_str()))
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE))
            .tcp_nodelay(true)
            .stmt_cache_size(STATEMENTS)
            .ssl_opts(ssl);
        if let Some(password) = &options.password {
            server = server.pass(Some(password.expose()));
        }
        let read = options.read_url.as_ref().map(|url| replica(url.expose(), server.clone().into())).transpose()?;
        if let Some(socket) = &options.socket {
            server = server.socket(Some(socket.as_str()));
        }
        Ok(Self {
            server: server.into(),
            read,
            database,
            connections: check_pool_size(config)?,
            timeout: check_timeout(config)?,
            connect_timeout: check_connect_timeout(options.connect_timeout)?,
            auto_create: config.auto_create,
            clock: config.clock.clone(),
        })
    }

    /// How the replica is reached. It has half the time: the primary may have to be asked behind it.
    pub(crate) fn replica(&self) -> Option<Self> {
        let server = self.read.clone()?;
        let database = server.db_name()?.to_owned();
        Some(Self { server, read: None, database, timeout: self.timeout / 2, ..self.clone() })
    }

    /// The store, without secrets.
    pub(crate) fn info(&self) -> BackendInfo {
        let place = match self.server.socket() {
            Some(socket) => socket.to_owned(),
            None => {
                let host = self.server.ip_or_hostname();
                let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
                format!("{host}:{}", self.server.tcp_port())
            }
        };
        BackendInfo::new("mysql", format!("mysql://{place}/{}", self.database))
    }

    /// A connection as the server makes it.
    pub(crate) async fn connect(&self) -> Result<Conn> {
        Conn::new(self.server.clone()).await.map_err(explain_connecting)
    }

    /// Makes the database, on a connection without one.
    pub(crate) async fn create_database(&self) -> Result<()> {
        use mysql_async::prelude::Queryable as _;
        let none: Option<String> = None;
        let server: Opts = OptsBuilder::from_opts(self.server.clone()).db_name(none).into();
        let mut connection = Conn::new(server).await.map_err(explain_connecting)?;
        let create = format!("CREATE DATABASE IF NOT EXISTS {} CHARACTER SET utf8mb4", Dialect::MySql.quote(&self.database));
        connection.query_drop(create).await.map_err(explain_connecting)?;
        // Whether it says good-bye is all the same.
        let _ = connection.disconnect().await;
        Ok(())
    }

    /// What each connection is set to first.
    pub(crate) fn preparation(&self, version: &str) -> String {
        // The server gives up by itself before we do, so that its answer is the one that is told; locks in time for another attempt.
        let millis = (self.timeout.as_millis() * 9 / 10).clamp(1, 1_000_000_000);
        let locks = (self.timeout.as_secs() / 3).clamp(1, 1_000_000);
        let limit = if is_mariadb(version) {
            format!("max_statement_time = {}.{:03}", millis / 1_000, millis % 1_000)
        } else {
            format!("max_execution_time = {millis}")
        };
        format!(
            "SET NAMES utf8mb4; SET SESSION max_sort_length = {SORT_BYTES}, sort_buffer_size = {}, sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,\
             NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', autocommit = 1, innodb_lock_wait_timeout = {locks}, lock_wait_timeout = {}, {limit}; \
             SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            128 * SORT_BYTES,
            self.timeout.as_secs().clamp(1, 1_000_000)
        )
    }
}

/// True for what MariaDB says of its version.
pub(crate) fn is_mariadb(version: &str) -> bool {
    version.contains("MariaDB")
}

fn server(url: Option<&str>) -> Result<Opts> {
    let url = url.unwrap_or("mysql://localhost");
    let Some((_, place)) = url.split_once("://") else {
        return Err(Error::config("write the address as mysql://user:password@host:3306/database"));
    };
    let place = if place.is_empty() || place.starts_with('/') { format!("localhost{place}") } else { place.to_owned() };
    // Not the driver's words: they may repeat a part of the URL, which may be a password's.
    Opts::from_url(&format!("mysql://{place}")).map_err(|_| {
        Error::config("the address can't be read: mysql://user:password@host:3306/database, with special characters as %XX")
    })
}

/// The address of a replica, with what it leaves to the primary's.
fn replica(url: &str, primary: Opts) -> Result<Opts> {
    let is_ours = url.starts_with("mysql://") || url.starts_with("mariadb://");
    if !is_ours || url.contains('?') {
        return Err(Error::config("option `read_url`: write it as mysql://user:password@host:3306/database, without options"));
    }
    let there = server(Some(url)).map_err(|e| Error::config(format!("option `read_url`: {}", e.message())))?;
    let builder = OptsBuilder::from_opts(primary.clone()).ip_or_hostname(there.ip_or_hostname()).tcp_port(there.tcp_port());
    let user = there.user().filter(|user| !user.is_empty()).or(primary.user());
    // The password of one user is not for the login of another.
    let password = there.pass().or(primary.pass().filter(|_| user == primary.user()));
    let database = there.db_name().filter(|name| !name.is_empty()).or(primary.db_name());
    Ok(builder.user(user).pass(password).db_name(database).into())
}

fn tls_mode(options: &Options) -> Result<TlsMode> {
    let mode = options.sslmode.unwrap_or(if options.sslrootcert.is_some() { TlsMode::VerifyFull } else { TlsMode::Disable });
    check_root_certificates(options.sslrootcert.as_deref(), mode == TlsMode::VerifyFull)?;
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
            ("mysql://joe:hunter2@db:3307/shop", "mysql://db:3307/shop"),
            ("mariadb://joe:hunter2@db/shop", "mysql://db:3306/shop"),
            ("mysql://joe@[::1]/shop?password=hunter2", "mysql://[::1]:3306/shop"),
            ("mysql://joe:hunter2@db/?database=shop", "mysql://db:3306/shop"),
            ("mysql:///shop?socket=/run/mysqld.sock", "mysql:///run/mysqld.sock/shop"),
        ] {
            let info = read(url).unwrap().info();
            assert!(info.location.ends_with(location), "{url}: {info}");
            assert!(!info.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused_without_its_password() {
        for bad in [
            "mysql:shop",
            "mysql://joe:hunter2@db",
            "mysql://joe:hunter2@db:port/shop",
            "mysql://joe:hunter2@db/shop?sslmode=maybe",
            "mysql://joe:hunter2@db/shop?sslmode=require&sslrootcert=x",
            "mysql://joe:hunter2@db/shop?connect_timeout=0",
            "mysql://joe:hunter2@db/shop?database=",
            "mysql://joe:hunter2@db/shop?read_url=replica",
            "mysql://joe:hunter2@db/shop?read_url=mysql://joe:hunter2@replica:port/shop",
        ] {
            let error = read(bad).err().unwrap();
            assert_eq!(error.kind(), storage_core::ErrorKind::Config, "{bad}: {error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_replica_takes_from_the_primary_what_it_leaves_out() {
        let replica = |read_url: &str| {
            read(&format!("mysql://joe:hunter2@db:3307/shop?socket=/x&read_url={read_url}")).unwrap().replica().unwrap()
        };
        assert!(read("mysql://joe:hunter2@db:3307/shop").unwrap().replica().is_none());
        let left_out = replica("mysql://r:3308");
        assert_eq!((left_out.server.user(), left_out.server.pass()), (Some("joe"), Some("hunter2")));
        assert!(left_out.info().location.ends_with("mysql://r:3308/shop"), "{}", left_out.info());
        let named = replica("mariadb://ann:secret@a/other");
        assert_eq!((named.server.user(), named.server.pass()), (Some("ann"), Some("secret")));
        assert!(named.info().location.ends_with("mysql://a:3306/other"), "{}", named.info());
        assert_eq!(replica("mysql://ann@a").server.pass(), None, "not another user's");
    }
}
