//! The connections of a store.

use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, TimeoutType, Timeouts};
use storage_core::{Error, Result};

use crate::config::Settings;
use crate::connection::{Connection, Lending};
use crate::error::exhausted;
use crate::tls::{self, Tls};

/// How connections are made and looked at before they are used again.
pub(crate) struct Connections {
    settings: Settings,
    tls: Tls,
}

impl Manager for Connections {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection> {
        Connection::open(&self.settings, &self.tls).await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Error> {
        // One that the server has closed is found out here.
        if connection.is_fit() { Ok(()) } else { Err(RecycleError::message("left by its user")) }
    }
}

/// The connections of a store.
pub(crate) struct ConnectionPool {
    pool: Pool<Connections>,
    settings: Settings,
    tls: Tls,
}

/// A connection that is nobody else's until it is dropped.
pub(crate) type Lent = Object<Connections>;

impl ConnectionPool {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let tls = tls::make(settings)?;
        let manager = Connections { settings: settings.clone(), tls: tls.clone() };
        // Connecting has a limit of its own.
        let timeouts = Timeouts { wait: Some(settings.timeout), create: None, recycle: None };
        let pool = Pool::builder(manager).max_size(settings.connections).timeouts(timeouts).runtime(Runtime::Tokio1).build();
        let pool = pool.map_err(|e| Error::internal(format!("no pool can be made: {e}")))?;
        Ok(Self { pool, settings: settings.clone(), tls })
    }

    pub(crate) async fn get(&self) -> Result<Lending> {
        self.pool.get().await.map(Lending::new).map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait) => exhausted(self.settings.timeout),
            PoolError::Closed => Error::unavailable("the store was closed: open another").with_retryable(false),
            other => Error::internal(format!("the pool of connections failed: {other}")),
        })
    }

    /// A connection beside the pool, with whatever it tells of its own accord.
    pub(crate) fn tls(&self) -> Tls {
        self.tls.clone()
    }

    pub(crate) fn close(&self) {
        self.pool.close();
    }

    /// How many connections there are.
    pub(crate) fn size(&self) -> usize {
        self.pool.status().size
    }
}
