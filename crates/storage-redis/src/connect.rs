//! Making connections: to one server, to the primary that sentinels name, to a Cluster.

use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, cmd};
use storage_core::{Error, Result};
use tokio::time::timeout;

use crate::address::{Credentials, Host};
use crate::config::{Settings, Topology};
use crate::error::{explain, unreachable};

/// How long a connection without traffic lives before the system asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How many sentinels are asked at once.
const ASKED_AT_ONCE: usize = 16;

/// A connection that commands of many callers share.
#[derive(Clone)]
pub(crate) enum Link {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Makes connections by the settings.
pub(crate) struct Connector {
    settings: Settings,
    tls: Option<Tls>,
    cluster: Option<ClusterClient>,
}

#[cfg(feature = "tls")]
type Tls = redis::TlsCertificates;
#[cfg(not(feature = "tls"))]
#[derive(Clone)]
struct Tls;

impl Connector {
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let tls = settings.tls.as_ref().map(tls).transpose()?;
        let mut connector = Self { settings, tls, cluster: None };
        if let Topology::Cluster(hosts) = &connector.settings.topology {
            connector.cluster = Some(connector.cluster_client(hosts)?);
        }
        Ok(connector)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Connects. Each step has its time: there are four of them where sentinels are asked, else one.
    pub(crate) async fn link(&self) -> Result<Link> {
        match &self.cluster {
            Some(client) => {
                let connection = self.in_time(Box::pin(client.get_async_connection())).await?;
                Ok(Link::Cluster(connection))
            }
            None => {
                let host = self.primary().await?;
                let link = self.connect(self.info(&host, &self.settings.credentials, self.settings.database)?).await?;
                self.check_role(link).await.map(Link::Single)
            }
        }
    }

    /// A connection for news, from any server that has them.
    pub(crate) async fn subscriber(&self) -> Result<PubSub> {
        let hosts = match &self.settings.topology {
            // News of a Cluster go to all its nodes.
            Topology::Cluster(hosts) => hosts.clone(),
            _ => vec![self.primary().await?],
        };
        let mut failure = None;
        for host in hosts {
            let info = self.info(&host, &self.settings.credentials, self.settings.database)?;
            let client = redis::Client::open(info).map_err(explain)?;
            match self.in_time(Box::pin(client.get_async_pubsub())).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::unavailable("there is no server to listen to")))
    }

    /// Where the primary is, by the first sentinel that answers and knows it: those that don't answer keep nobody.
    async fn primary(&self) -> Result<Host> {
        let (sentinels, master, credentials) = match &self.settings.topology {
            Topology::Single(host) => return Ok(host.clone()),
            Topology::Sentinel { sentinels, master, credentials } => (sentinels, master, credentials),
            Topology::Cluster(_) => return Err(Error::internal("a Cluster has many primaries")),
        };
        let asked: Vec<_> = sentinels.iter().map(|sentinel| self.ask(sentinel, master, credentials)).collect();
        let mut answers = futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
        let mut failure: Option<Error> = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(host) => return Ok(host),
                // One that is away may know what another doesn't.
                Err(error) if failure.as_ref().is_none_or(|known| !known.is_retryable()) => failure = Some(error),
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| Error::unavailable("no sentinel answers")))
    }

    async fn ask(&self, sentinel: &Host, master: &str, credentials: &Credentials) -> Result<Host> {
        let mut link = self.connect(self.info(sentinel, credentials, 0)?).await?;
        let mut command = cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let answer: Option<(String, u16)> = self.in_time(Box::pin(command.query_async(&mut link))).await?;
        let (name, port) = answer.ok_or_else(|| Error::config(format!("the sentinel {sentinel} knows no primary `{master}`")))?;
        Ok(Host { name, port })
    }

    /// Sentinels may name a server that is the primary no longer.
    async fn check_role(&self, mut link: MultiplexedConnection) -> Result<MultiplexedConnection> {
        if !matches!(self.settings.topology, Topology::Sentinel { .. }) {
            return Ok(link);
        }
        let role: Vec<redis::Value> = self.in_time(Box::pin(cmd("ROLE").query_async(&mut link))).await?;
        match role.first() {
            Some(redis::Value::BulkString(name)) if name == b"master" => Ok(link),
            _ => Err(Error::unavailable("the sentinels name a server that is no primary: they are about to choose another")),
        }
    }

    async fn connect(&self, info: ConnectionInfo) -> Result<MultiplexedConnection> {
        let limit = self.settings.connect_timeout;
        // Answers are waited for by whoever sends.
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(None);
        let client = redis::Client::open(info).map_err(explain)?;
        let connect = client.get_multiplexed_async_connection_with_config(&config);
        self.in_time(Box::pin(connect)).await
    }

    async fn in_time<T>(&self, work: BoxFuture<'_, redis::RedisResult<T>>) -> Result<T> {
        let limit = self.settings.connect_timeout;
        match timeout(limit, work).await {
            Ok(outcome) => outcome.map_err(|error| {
                // While connecting nothing can have taken effect.
                if error.is_timeout() { unreachable(limit) } else { explain(error) }
            }),
            Err(_) => Err(unreachable(limit)),
        }
    }

    fn info(&self, host: &Host, credentials: &Credentials, database: u32) -> Result<ConnectionInfo> {
        let mut redis =
            RedisConnectionInfo::default().set_db(i64::from(database)).set_lib_name("storage", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &credentials.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &credentials.password {
            redis = redis.set_password(password.expose());
        }
        let info = self.address(host)?;
        Ok(info.set_tcp_settings(tcp()).set_redis_settings(redis))
    }

    #[cfg(feature = "tls")]
    fn address(&self, host: &Host) -> Result<ConnectionInfo> {
        let Some(certificates) = &self.tls else { return plain(host) };
        let address = ConnectionAddr::TcpTls { host: host.name.clone(), port: host.port, insecure: false, tls_params: None };
        let client = redis::Client::build_with_tls(address, certificates.clone()).map_err(explain)?;
        Ok(client.get_connection_info().clone())
    }

    #[cfg(not(feature = "tls"))]
    fn address(&self, host: &Host) -> Result<ConnectionInfo> {
        match self.tls {
            Some(Tls) => Err(Error::config("TLS is not compiled in")),
            None => plain(host),
        }
    }

    fn cluster_client(&self, hosts: &[Host]) -> Result<ClusterClient> {
        let nodes = hosts.iter().map(|host| self.info(host, &self.settings.credentials, 0)).collect::<Result<Vec<_>>>()?;
        let builder = ClusterClientBuilder::new(nodes)
            .connection_timeout(self.settings.connect_timeout)
            .response_timeout(self.settings.timeout)
            .tcp_settings(tcp())
            // A command whose answer was lost may have taken effect: it is for the caller to say whether it may be repeated. What a node
            // refuses because the slot is another's is sent on by `Client`.
            .retries(0);
        #[cfg(feature = "tls")]
        let builder = match &self.tls {
            Some(certificates) => builder.certs(certificates.clone()),
            None => builder,
        };
        builder.build().map_err(explain)
    }
}

fn plain(host: &Host) -> Result<ConnectionInfo> {
    ConnectionAddr::Tcp(host.name.clone(), host.port).into_connection_info().map_err(explain)
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true).set_keepalive(redis::io::tcp::socket2::TcpKeepalive::new().with_time(KEEPALIVE))
}

#[cfg(feature = "tls")]
fn tls(files: &crate::config::TlsFiles) -> Result<Tls> {
    use storage_core::ResultExt as _;
    // Only the first one counts: a program that has chosen another keeps it.
    drop(rustls::crypto::ring::default_provider().install_default());
    let read = |path: &String| std::fs::read(path).context("redis.open", || format!("file `{path}`"));
    let client_tls = match &files.own {
        Some((cert, key)) => Some(redis::ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        None => None,
    };
    Ok(redis::TlsCertificates { client_tls, root_cert: files.ca.as_ref().map(read).transpose()? })
}

#[cfg(not(feature = "tls"))]
fn tls(_files: &crate::config::TlsFiles) -> Result<Tls> {
    Err(Error::config("TLS is not compiled in"))
}
