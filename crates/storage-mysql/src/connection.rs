//! One connection: its statements, and whether it may be used again.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, DriverError, Params, Value};
use storage_core::{Error, Result};
use tokio::sync::{MappedMutexGuard, MutexGuard};

use crate::config::Settings;
use crate::error::{MyResult, OrExplain as _, explain_connecting, is_collision, is_ended, unreachable};
use crate::pool::Lent;
use crate::row::Row;
use crate::statements::portion;

/// Begins a transaction and answers the number of changes of tables so far, which does not change before its end.
const BEGIN: &str = "START TRANSACTION; SELECT value FROM _storage_meta WHERE name = 'generation' LOCK IN SHARE MODE";

/// How often a statement is tried again that others are in the way of.
const ATTEMPTS: u64 = 10;

/// A connection. What is between `begin` and the end of its transaction, or waits for an answer, makes it unfit for others.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Held while a statement is under way; nobody waits for it, since a connection has one user. None: it was closed.
    client: tokio::sync::Mutex<Option<Conn>>,
    busy: AtomicBool,
    ended: AtomicBool,
    losses: AtomicU64,
    used: Mutex<Instant>,
}

impl Connection {
    /// Connects and prepares the session.
    pub(crate) async fn open(settings: &Settings) -> Result<Self> {
        let limit = settings.connect_timeout;
        let connect = async {
            let mut client = settings.connect().await?;
            let version: Option<String> = client.query_first("SELECT VERSION()").await.map_err(explain_connecting)?;
            let preparation = settings.preparation(&version.unwrap_or_default());
            client.query_drop(preparation).await.map_err(explain_connecting)?;
            Ok::<_, Error>(client)
        };
        let client = tokio::time::timeout(limit, connect).await.map_err(|_| unreachable(limit))??;
        Ok(Self {
            client: tokio::sync::Mutex::new(Some(client)),
            busy: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            losses: AtomicU64::new(0),
            used: Mutex::new(Instant::now()),
        })
    }

    /// True where the next user finds a connection without a transaction or an answer that is still to come.
    pub(crate) fn is_fit(&self) -> bool {
        !self.has_ended() && !self.busy.load(Ordering::Acquire)
    }

    /// True where the server or the network has ended it.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// It was there, when so many others had been lost.
    pub(crate) fn trust(&self, losses: u64) {
        self.losses.store(losses, Ordering::Release);
    }

    /// True where it was used a short while ago, and none was lost since it was known to be there.
    pub(crate) fn is_trusted(&self, losses: u64, idle: Duration) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.losses.load(Ordering::Acquire) == losses && used.elapsed() < idle
    }

    async fn client(&self) -> MyResult<MappedMutexGuard<'_, Conn>> {
        MutexGuard::try_map(self.client.lock().await, Option::as_mut).map_err(|_| DriverError::ConnectionClosed.into())
    }

    fn note<T>(&self, answer: MyResult<T>) -> MyResult<T> {
        match &answer {
            Ok(_) => *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now(),
            Err(error) if is_ended(error) => self.ended.store(true, Ordering::Release),
            Err(_) => {}
        }
        answer
    }

    /// The rows of one statement.
    pub(crate) async fn query(&self, sql: &str, values: Vec<Value>) -> MyResult<Vec<Row>> {
        let mut client = self.client().await?;
        let rows = client.exec::<mysql_async::Row, _, _>(sql, positional(values)).await;
        self.note(rows.map(|rows| rows.into_iter().map(Row).collect()))
    }

    /// One row, which has to be there.
    pub(crate) async fn row(&self, sql: &str, values: Vec<Value>) -> Result<Row> {
        let rows = self.query(sql, values).await.or_explain()?;
        rows.into_iter().next().ok_or_else(|| Error::internal("the server answered without a row"))
    }

    /// How many rows one statement changed.
    pub(crate) async fn execute(&self, sql: &str, values: Vec<Value>) -> MyResult<u64> {
        let mut client = self.client().await?;
        let done = client.exec_drop(sql, positional(values)).await;
        let count = client.affected_rows();
        self.note(done.map(|()| count))
    }

    /// The same outside of a transaction, again where others are in its way: then the server has undone it.
    pub(crate) async fn execute_alone(&self, sql: &str, values: Vec<Value>) -> MyResult<u64> {
        for attempt in 1.. {
            match self.execute(sql, values.clone()).await {
                Err(error) if is_collision(&error) && attempt < ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(attempt)).await;
                }
                done => return done,
            }
        }
        self.execute(sql, values).await
    }

    /// Adds rows and answers the number that the first one got.
    pub(crate) async fn insert(&self, sql: &str, values: Vec<Value>) -> MyResult<Option<u64>> {
        let mut client = self.client().await?;
        let done = client.exec_drop(sql, positional(values)).await;
        let first = client.last_insert_id();
        self.note(done.map(|()| first))
    }

    /// Adds rows, as many at once as `most` and the server's `packet` allow; each comes with about how many bytes it has. Answers the numbers that the first
    /// of each portion got, and how many rows that was.
    pub(crate) async fn in_portions(
        &self,
        rows: Vec<(usize, Vec<Value>)>,
        most: usize,
        packet: usize,
        sql: impl Fn(usize) -> String,
    ) -> MyResult<Vec<(u64, usize)>> {
        let (mut rows, mut numbers) = (VecDeque::from(rows), Vec::new());
        while !rows.is_empty() {
            let mut bytes = 0;
            let fitting = rows.iter().take(most).take_while(|(size, _)| {
                bytes += size;
                bytes <= packet / 2
            });
            let count = portion(fitting.count().max(1), most);
            let values = rows.drain(..count).flat_map(|(_, values)| values).collect();
            numbers.push((self.insert(&sql(count), values).await?.unwrap_or(0), count));
        }
        Ok(numbers)
    }

    /// Statements without parameters and without rows.
    pub(crate) async fn batch(&self, sql: &str) -> MyResult<()> {
        let done = self.client().await?.query_drop(sql).await;
        self.note(done)
    }

    /// Begins a transaction, in which the tables stay as they are. Answers their generation; zero, where it is lost.
    pub(crate) async fn begin(&self) -> MyResult<Result<i64>> {
        let mut client = self.client().await?;
        let read = async {
            let mut results = client.query_iter(BEGIN).await?;
            // The first one's answer has no rows.
            results.collect::<mysql_async::Row>().await?;
            let rows = results.collect::<mysql_async::Row>().await?;
            results.drop_result().await?;
            Ok(rows)
        };
        let rows = self.note(read.await)?;
        Ok(match rows.into_iter().next() {
            Some(row) => storage_sql::row::integer(&Row(row), 0).map(|generation| generation.unwrap_or(0)),
            None => Ok(0),
        })
    }

    pub(crate) async fn ping(&self) -> MyResult<()> {
        let done = self.client().await?.ping().await;
        self.note(done)
    }
}

/// No value at all is something else than an empty list of them.
fn positional(values: Vec<Value>) -> Params {
    if values.is_empty() { Params::Empty } else { Params::Positional(values) }
}

/// A connection of the pool in use. Dropped before it is done, it is not used again: the driver closes it, and the server undoes what was begun.
pub(crate) struct Lending {
    connection: Lent,
}

impl Lending {
    pub(crate) fn new(connection: Lent) -> Self {
        connection.busy.store(true, Ordering::Release);
        Self { connection }
    }

    /// The connection is as it was before: gives it back, and `answer` with it.
    pub(crate) fn done<T>(self, answer: T) -> T {
        self.connection.busy.store(false, Ordering::Release);
        answer
    }
}

impl Deref for Lending {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        // Nobody holds it: what used it is gone too.
        if self.connection.busy.load(Ordering::Acquire)
            && let Ok(mut client) = self.connection.client.try_lock()
        {
            drop(client.take());
        }
    }
}
