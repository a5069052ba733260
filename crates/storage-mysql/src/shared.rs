//! An open store: what its handles share.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use storage_core::{Error, Result, TableName};
use storage_sql::row;
use storage_sql::server::{self, Common, Group, Lanes, Maintained, Question, Time, Work, Written, maintain, read};

use crate::catalog::{self, Catalog};
use crate::config::Settings;
use crate::connection::{Connection, Lending};
use crate::error::{OrExplain as _, explain, is_missing_database};
use crate::layout::{self, Found};
use crate::pool::ConnectionPool;
use crate::read::Reading;
use crate::replica::Replica;
use crate::statements::Statements;
use crate::{maintenance, tables, write};

/// How long is waited for somebody who changes a table before it is looked at again.
const CHANGING: Duration = Duration::from_millis(20);

/// One user of a store.
pub(crate) type Handle = server::Handle<Shared>;

/// What handles and tasks share.
pub(crate) struct Shared {
    common: Common<Statements>,
    pub(crate) settings: Settings,
    pub(crate) pool: ConnectionPool,
    pub(crate) found: Found,
    /// Who waits for messages in this process.
    pub(crate) lanes: Lanes,
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
            let connection = match pool.get().await {
                Err(error) if is_missing_database(&error) && settings.auto_create => {
                    settings.create_database().await?;
                    pool.get().await?
                }
                connection => connection?,
            };
            let look = async {
                adjust(&common.time, &connection).await?;
                layout::ensure(&connection, &settings).await
            };
            let found = common.in_time(look).await?;
            connection.done(found)?
        };
        let shared = Arc::new(Self { common, settings, pool, found, lanes: Lanes::default(), replica });
        tokio::spawn(maintain(Arc::downgrade(&shared)));
        Ok(shared)
    }

    /// Compares the clocks.
    pub(crate) async fn adjust(&self, connection: &Connection) -> Result<()> {
        adjust(&self.time, connection).await
    }

    /// A connection for the caller's own task: if the caller goes away, it is closed.
    pub(crate) async fn lend(&self) -> Result<Lending> {
        self.pool.get().await
    }

    /// Asks on a connection for the caller's own task.
    pub(crate) async fn read<Q: Question>(&self, question: &Q) -> Result<Q::Answer> {
        if question.may_be_stale()
            && let Some(replica) = &self.replica
            && let Some(answer) = replica.ask(self, question).await
        {
            return Ok(answer);
        }
        let mut first = true;
        loop {
            let lent = self.lend().await?;
            let answer = self.in_time(read(&Reading { shared: self, connection: &lent }, question)).await?;
            if let Some(answer) = self.asked(lent, answer, &mut first) {
                return answer;
            }
        }
    }

    /// See [`ConnectionPool::asked`].
    pub(crate) fn asked<T>(&self, lent: Lending, answer: Result<T>, first: &mut bool) -> Option<Result<T>> {
        self.pool.asked(lent, answer, first)
    }

    /// Gives back the connection of something that may have changed something.
    pub(crate) fn done<T>(&self, lent: Lending, answer: Result<T>) -> Result<T> {
        if lent.has_ended() {
            self.pool.lost_one();
            return answer;
        }
        lent.done(answer)
    }

    /// The tables, none of these in the middle of a change: waits for who is at it, or finishes what was left.
    pub(crate) async fn still(&self, connection: &Connection, names: Vec<&TableName>) -> Result<Arc<Catalog>> {
        let mut tables = catalog::get(&self.catalog, connection).await?;
        loop {
            if !names.iter().any(|name| tables.is_changing(name)) {
                return Ok(tables);
            }
            tables::finish_left(self, connection).await?;
            tables = catalog::reload(&self.catalog, connection).await?;
            if names.iter().any(|name| tables.is_changing(name)) {
                tokio::time::sleep(CHANGING).await;
                tables = catalog::reload(&self.catalog, connection).await?;
            }
        }
    }

    /// Does something on a connection, to its end also where the caller goes away.
    pub(crate) async fn apart<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c Connection, &'c Self) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let connection = self.pool.get().await?;
        let shared = Arc::clone(self);
        let task = tokio::spawn(async move {
            let outcome = shared.in_time(work(&connection, &shared)).await?;
            shared.done(connection, outcome)
        });
        task.await.map_err(|e| Error::internal(format!("a call was given up: {e}")).with_source(e))?
    }

    /// The same in a transaction.
    pub(crate) async fn transact<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c Connection, &'c Self) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        self.apart(move |connection, shared| Box::pin(transaction(connection, work(connection, shared)))).await
    }
}

/// Does something in a transaction.
pub(crate) async fn transaction<T>(connection: &Connection, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    connection.batch("START TRANSACTION").await.map_err(explain)?;
    let done = async {
        let answer = work.await?;
        connection.batch("COMMIT").await.map_err(explain)?;
        Ok(answer)
    };
    let done = done.await;
    if done.is_err() && !connection.has_ended() {
        connection.batch("ROLLBACK").await.or_explain()?;
    }
    done
}

/// Asks the server whether it is there.
pub(crate) async fn ping(shared: &Shared) -> Result<()> {
    let mut first = true;
    loop {
        let lent = shared.lend().await?;
        let answer = shared.in_time(lent.ping()).await?.or_explain();
        if let Some(answer) = shared.asked(lent, answer, &mut first) {
            return answer;
        }
    }
}

async fn adjust(time: &Time, connection: &Connection) -> Result<()> {
    let ask = async {
        let found = connection.row("SELECT UTC_TIMESTAMP(6)", Vec::new()).await?;
        row::time(&found, 0)?.ok_or_else(|| Error::internal("the server does not know the time"))
    };
    time.adjust(ask).await
}

impl server::Shared for Shared {
    type Statements = Statements;

    fn common(&self) -> &Common<Statements> {
        &self.common
    }

    fn left(&self, _last: bool) {
        self.lanes.wake_all();
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
