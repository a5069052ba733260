//! An open store: what its handles share.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use futures::future::BoxFuture;
use storage_core::{Error, Result};
use storage_sql::server::{self, Common, Group, Luck, Maintained, Question, Time, Work, Written, maintain, read};

use crate::config::Settings;
use crate::connection::{Connection, Lending};
use crate::error::OrExplain as _;
use crate::layout::{self, Found};
use crate::news::News;
use crate::pool::ConnectionPool;
use crate::read::Reading;
use crate::replica::Replica;
use crate::statements::Statements;
use crate::{maintenance, write};

/// One user of a store.
pub(crate) type Handle = server::Handle<Shared>;

/// What handles and tasks share.
pub(crate) struct Shared {
    common: Common<Statements>,
    pub(crate) settings: Settings,
    pub(crate) pool: ConnectionPool,
    pub(crate) found: Found,
    pub(crate) luck: Luck,
    pub(crate) news: News,
    replica: Option<Replica>,
}

impl Deref for Shared {
    type Target = Common<Statements>;

    fn deref(&self) -> &Self::Target {
        &self.common
    }
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
        let replica = settings.replica().map(|settings| Replica::new(&settings)).transpose()?;
        let common = Common::new(settings.info(), settings.timeout, time);
        let found = {
            let connection = pool.get().await?;
            let look = async {
                adjust(&common.time, &connection).await?;
                layout::ensure(&connection, &settings).await
            };
            let found = common.in_time(look).await?;
            connection.done(found)?
        };
        let shared = Arc::new(Self { common, settings, pool, found, luck: Luck::default(), news: News::default(), replica });
        tokio::spawn(maintain(Arc::downgrade(&shared)));
        Ok(shared)
    }

    /// Compares the clocks.
    pub(crate) async fn adjust(&self, connection: &Connection) -> Result<()> {
        adjust(&self.time, connection).await
    }

    /// Asks on a connection of the caller's own task: if the caller goes away, so does what runs on the server.
    pub(crate) async fn read<Q: Question>(&self, question: &Q) -> Result<Q::Answer> {
        if question.may_be_stale()
            && let Some(replica) = &self.replica
            && let Some(answer) = replica.ask(self, question).await
        {
            return Ok(answer);
        }
        let lent = self.lend().await?;
        let answer = self.in_time(read(&Reading { shared: self, connection: &lent }, question)).await?;
        lent.done(answer)
    }

    /// A connection for reading, in the caller's own task: if the caller goes away, so does what runs on the server.
    pub(crate) async fn lend(&self) -> Result<Lending> {
        self.pool.get().await
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
    type Statements = Statements;

    fn common(&self) -> &Common<Statements> {
        &self.common
    }

    fn left(&self, last: bool) {
        self.news.lanes.wake_all();
        if last {
            self.news.close();
        }
    }

    fn disconnect(&self) {
        self.pool.close();
        if let Some(replica) = &self.replica {
            replica.close();
        }
    }
}

impl Maintained for Shared {
    async fn round(&self) -> Result<()> {
        maintenance::round(self).await
    }
}

impl Group for Shared {
    async fn once(&self, works: &[&Work], exactly: bool) -> Written {
        write::once(self, works, exactly).await
    }
}
