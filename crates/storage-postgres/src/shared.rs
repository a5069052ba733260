//! An open store: what its handles share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use storage_core::{BackendInfo, Error, Result};
use storage_sql::server::{
    self, Committer, Group, KnownQueues, Luck, Maintained, SharedCatalog, Time, Users, Work, Written, late, maintain,
};

use crate::config::Settings;
use crate::connection::{Connection, Lending};
use crate::error::OrExplain as _;
use crate::layout::{self, Found};
use crate::news::News;
use crate::pool::ConnectionPool;
use crate::statements::Statements;
use crate::{maintenance, write};

/// One user of a store.
pub(crate) type Handle = server::Handle<Shared>;

/// What handles and tasks share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) info: BackendInfo,
    pub(crate) pool: ConnectionPool,
    pub(crate) found: Found,
    pub(crate) time: Time,
    pub(crate) catalog: SharedCatalog<Statements>,
    pub(crate) committer: Committer,
    pub(crate) luck: Luck,
    pub(crate) news: News,
    pub(crate) queues: KnownQueues,
    users: Users,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Shared {
    /// Connects, and looks at what is there. Counts the caller as a user.
    pub(crate) async fn open(settings: Settings) -> Result<Arc<Self>> {
        let (pool, time) = (ConnectionPool::new(&settings)?, Time::new(settings.clock.clone()));
        let found = {
            let connection = pool.get().await?;
            let limit = settings.timeout;
            let look = async {
                adjust(&time, &connection).await?;
                layout::ensure(&connection, &settings).await
            };
            let found = tokio::time::timeout(limit, look).await.map_err(|_| late(limit))?;
            connection.done(found)?
        };
        let shared = Arc::new(Self {
            info: settings.info(),
            settings,
            pool,
            found,
            time,
            catalog: SharedCatalog::default(),
            committer: Committer::default(),
            luck: Luck::default(),
            news: News::default(),
            queues: KnownQueues::default(),
            users: Users::default(),
        });
        tokio::spawn(maintain(Arc::downgrade(&shared)));
        Ok(shared)
    }

    /// Compares the clocks.
    pub(crate) async fn adjust(&self, connection: &Connection) -> Result<()> {
        adjust(&self.time, connection).await
    }

    /// A connection for reading, in the caller's own task: if the caller goes away, so does what runs on the server.
    pub(crate) async fn lend(&self) -> Result<Lending> {
        self.pool.get().await
    }

    /// What `work` answers, unless it takes too long.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = T> + Send) -> Result<T> {
        let limit = self.settings.timeout;
        tokio::time::timeout(limit, work).await.map_err(|_| late(limit))
    }

    /// Does something in a transaction, to its end also where the caller goes away.
    pub(crate) async fn transact<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c Connection, &'c Self) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let connection = self.pool.get().await?;
        let shared = Arc::clone(self);
        let task = tokio::spawn(async move {
            let transaction = async {
                connection.batch("BEGIN").await.map_err(crate::error::explain)?;
                let answer = work(&connection, &shared).await?;
                connection.batch("COMMIT").await.map_err(crate::error::explain)?;
                Ok(answer)
            };
            let outcome = shared.in_time(transaction).await?;
            let ended = outcome.is_ok() || connection.batch("ROLLBACK").await.is_ok();
            if ended { connection.done(outcome) } else { outcome }
        });
        task.await.map_err(|e| Error::internal(format!("a transaction was given up: {e}")).with_source(e))?
    }
}

async fn adjust(time: &Time, connection: &Connection) -> Result<()> {
    time.adjust(async { connection.row("SELECT clock_timestamp()", Vec::new()).await?.try_get(0).or_explain() }).await
}

impl server::Shared for Shared {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn users(&self) -> &Users {
        &self.users
    }

    fn left(&self, last: bool) {
        self.news.lanes.wake_all();
        if last {
            self.news.close();
        }
    }

    async fn end(&self) {
        self.committer.finish().await;
        self.pool.close();
    }
}

impl Maintained for Shared {
    async fn round(&self) -> Result<()> {
        maintenance::round(self).await
    }
}

impl Group for Shared {
    fn committer(&self) -> &Committer {
        &self.committer
    }

    fn limit(&self) -> Duration {
        self.settings.timeout
    }

    async fn once(&self, works: &[&Work], exactly: bool) -> Written {
        write::once(self, works, exactly).await
    }
}
