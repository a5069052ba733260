//! The connections of a store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, TimeoutType, Timeouts};
use storage_core::{Error, Result};

use crate::config::Settings;
use crate::connection::{Connection, Lending};
use crate::error::exhausted;

/// A connection that was used this long ago is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(2);
/// How long that may take.
const PING: Duration = Duration::from_secs(2);

/// How connections are made and looked at before they are used again.
pub(crate) struct Connections {
    settings: Settings,
    /// How often a connection was found ended. Those that are older are asked.
    losses: AtomicU64,
}

impl Manager for Connections {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection> {
        let connection = Connection::open(&self.settings).await?;
        connection.trust(self.losses.load(Ordering::Acquire));
        Ok(connection)
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Error> {
        if !connection.is_fit() {
            return Err(RecycleError::message("left by its user"));
        }
        let losses = self.losses.load(Ordering::Acquire);
        if connection.is_trusted(losses, IDLE) {
            return Ok(());
        }
        match tokio::time::timeout(PING, connection.ping()).await {
            Ok(Ok(())) => {
                connection.trust(losses);
                Ok(())
            }
            _ => Err(RecycleError::message("ended by the server")),
        }
    }
}

/// The connections of a store.
pub(crate) struct ConnectionPool {
    pool: Pool<Connections>,
    timeout: Duration,
}

/// A connection that is nobody else's until it is dropped.
pub(crate) type Lent = Object<Connections>;

impl ConnectionPool {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let manager = Connections { settings: settings.clone(), losses: AtomicU64::new(0) };
        // Connecting and asking have limits of their own.
        let timeouts = Timeouts { wait: Some(settings.timeout), create: None, recycle: None };
        let pool = Pool::builder(manager).max_size(settings.connections).timeouts(timeouts).runtime(Runtime::Tokio1).build();
        let pool = pool.map_err(|e| Error::internal(format!("no pool can be made: {e}")))?;
        Ok(Self { pool, timeout: settings.timeout })
    }

    pub(crate) async fn get(&self) -> Result<Lending> {
        self.pool.get().await.map(Lending::new).map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait) => exhausted(self.timeout),
            PoolError::Closed => Error::unavailable("the store was closed: open another").with_retryable(false),
            other => Error::internal(format!("the pool of connections failed: {other}")),
        })
    }

    /// A connection was found ended: others may be too.
    pub(crate) fn lost_one(&self) {
        self.pool.manager().losses.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives back the connection of something that changed nothing. `None`: it had ended, and another may do better; but not for ever.
    pub(crate) fn asked<T>(&self, lent: Lending, answer: Result<T>, first: &mut bool) -> Option<Result<T>> {
        if !lent.has_ended() {
            return Some(lent.done(answer));
        }
        self.lost_one();
        let again = std::mem::take(first) && answer.is_err();
        if again { None } else { Some(answer) }
    }

    pub(crate) fn close(&self) {
        self.pool.close();
    }

    /// How many connections there are.
    pub(crate) fn size(&self) -> usize {
        self.pool.status().size
    }
}
