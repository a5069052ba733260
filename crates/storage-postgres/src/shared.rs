//! An open store: what its handles share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use storage_core::{BackendInfo, Error, QueueName, Result};
use tokio::sync::Notify;

use crate::catalog::SharedCatalog;
use crate::commit::Committer;
use crate::config::Settings;
use crate::connection::{Connection, Lending};
use crate::layout::{self, Found};
use crate::maintenance;
use crate::news::News;
use crate::pool::ConnectionPool;
use crate::queues::Queue;
use crate::time::Time;

/// How many queues are remembered.
const KNOWN_QUEUES: usize = 1_000;

/// What handles and tasks share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) info: BackendInfo,
    pub(crate) pool: ConnectionPool,
    pub(crate) found: Found,
    pub(crate) time: Time,
    pub(crate) catalog: SharedCatalog,
    pub(crate) committer: Committer,
    pub(crate) news: News,
    /// Queues as they were found last.
    queues: Mutex<HashMap<QueueName, Queue>>,
    /// How many handles are open. At zero the store closes, for good.
    users: Mutex<usize>,
    closed: AtomicBool,
    pub(crate) end: Notify,
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
                time.adjust(&connection).await?;
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
            committer: Committer::new(),
            news: News::default(),
            queues: Mutex::default(),
            users: Mutex::new(1),
            closed: AtomicBool::new(false),
            end: Notify::new(),
        });
        tokio::spawn(maintenance::run(Arc::downgrade(&shared)));
        Ok(shared)
    }

    /// One more user. `false`: the store is closed already.
    pub(crate) fn join(&self) -> bool {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let open = *users > 0;
        *users += usize::from(open);
        open
    }

    /// One user less. `true`: that was the last.
    pub(crate) fn leave(&self) -> bool {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        *users = users.saturating_sub(1);
        let last = *users == 0;
        drop(users);
        self.news.announce_all();
        if last {
            self.closed.store(true, Ordering::Release);
            self.news.close();
            self.end.notify_waiters();
        }
        last
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The queue of that name, or the companion, as it was found last.
    pub(crate) fn queue(&self, name: &QueueName) -> Option<Queue> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    pub(crate) fn remember(&self, name: &QueueName, queue: Queue) -> Queue {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.len() >= KNOWN_QUEUES {
            queues.clear();
        }
        queues.insert(name.clone(), queue);
        queue
    }

    pub(crate) fn forget(&self, name: &QueueName) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
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

/// No answer in time.
pub(crate) fn late(limit: std::time::Duration) -> Error {
    Error::timeout(format!("no answer from the server within {limit:?}"))
}
