//! One connection: its statements, and whether it may be used again.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use storage_core::{Error, Result};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use crate::row::Row;

use crate::bind::Param;
use crate::config::Settings;
use crate::error::{OrExplain as _, PgResult, explain_connecting, unreachable};
use crate::pool::Lent;
use crate::tls::Tls;

/// How many statements a connection keeps prepared.
const MAX_STATEMENTS: usize = 256;
/// How many statements are under way on a connection at most.
const WINDOW: usize = 128;
/// How long a statement that nobody waits for any longer may take to be stopped.
const CANCEL: Duration = Duration::from_secs(5);

/// A connection. What is between `begin` and the end of its transaction, or waits for an answer, makes it unfit for others.
///
/// Whoever waits for an answer also does the writing and reading, in his own task: a task of the connection's own would cost each statement two turns of
/// other threads.
pub(crate) struct Connection {
    client: Client,
    /// Until it has ended.
    io: Mutex<Option<Io>>,
    tls: Tls,
    statements: Mutex<HashMap<Arc<str>, Statement>>,
    busy: AtomicBool,
}

/// The connection's writing and reading.
type Io = BoxFuture<'static, PgResult<()>>;

/// A statement and what is bound.
pub(crate) type Step<'a> = (Statement, Vec<Param<'a>>);

impl Connection {
    /// Connects and prepares the session.
    pub(crate) async fn open(settings: &Settings, tls: &Tls) -> Result<Self> {
        let limit = settings.connect_timeout;
        let connect = async {
            let (client, io) = settings.server.connect(tls.clone()).await.map_err(explain_connecting)?;
            let io = Mutex::new(Some(Box::pin(io) as Io));
            let made = Self { client, io, tls: tls.clone(), statements: Mutex::default(), busy: AtomicBool::new(false) };
            made.batch(&settings.preparation()).await.map_err(explain_connecting)?;
            Ok::<_, Error>(made)
        };
        tokio::time::timeout(limit, connect).await.map_err(|_| unreachable(limit))?
    }

    /// Waits for an answer.
    async fn wait<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        poll_fn(|cx| {
            // What is polled first is sent; what was read then may be the answer.
            if let Poll::Ready(value) = answer.as_mut().poll(cx) {
                return Poll::Ready(value);
            }
            self.turn(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Writes and reads as much as can be now.
    fn turn(&self, cx: &mut Context<'_>) {
        let mut io = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Poll::Ready(end)) = io.as_mut().map(|io| io.as_mut().poll(cx)) else { return };
        // Those who wait learn of it, since their answers end with it.
        *io = None;
        if let Err(error) = end {
            tracing::debug!(%error, "a connection to PostgreSQL has ended");
        }
    }

    /// True where the next user finds a connection without a transaction or an answer that is still to come.
    pub(crate) fn is_fit(&self) -> bool {
        // It may have ended while nobody read.
        self.turn(&mut Context::from_waker(Waker::noop()));
        !self.client.is_closed() && !self.busy.load(Ordering::Acquire)
    }

    /// The statement, prepared once.
    pub(crate) async fn prepare(&self, sql: &Arc<str>) -> PgResult<Statement> {
        if let Some(statement) = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.wait(self.client.prepare(sql)).await?;
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if statements.len() >= MAX_STATEMENTS {
            statements.clear();
        }
        statements.insert(Arc::clone(sql), statement.clone());
        Ok(statement)
    }

    /// Forgets all statements, after a change of tables.
    pub(crate) fn forget_statements(&self) {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The rows of one statement.
    pub(crate) async fn query(&self, sql: &str, parameters: Vec<Param<'_>>) -> PgResult<Vec<Row>> {
        let statement = self.prepare(&sql.into()).await?;
        self.rows(&statement, parameters).await
    }

    /// One row, which has to be there.
    pub(crate) async fn row(&self, sql: &str, parameters: Vec<Param<'_>>) -> Result<Row> {
        let rows = self.query(sql, parameters).await.or_explain()?;
        rows.into_iter().next().ok_or_else(|| Error::internal("the server answered without a row"))
    }

    /// How many rows one statement changed.
    pub(crate) async fn execute(&self, sql: &str, parameters: Vec<Param<'_>>) -> PgResult<u64> {
        let statement = self.prepare(&sql.into()).await?;
        self.wait(self.client.execute_raw(&statement, parameters)).await
    }

    /// The rows of a statement that is prepared.
    pub(crate) async fn rows(&self, statement: &Statement, parameters: Vec<Param<'_>>) -> PgResult<Vec<Row>> {
        self.wait(self.ask(statement, parameters)).await
    }

    /// Statements without parameters.
    pub(crate) async fn batch(&self, sql: &str) -> PgResult<()> {
        self.wait(self.client.batch_execute(sql)).await
    }

    /// Copies rows in, by a statement that takes columns of these types.
    pub(crate) async fn copy(&self, sql: &Arc<str>, types: &[Type], rows: Vec<Vec<Param<'_>>>) -> PgResult<()> {
        let statement = self.prepare(sql).await?;
        let copied = async {
            let mut writer = pin!(BinaryCopyInWriter::new(self.client.copy_in(&statement).await?, types));
            for row in rows {
                writer.as_mut().write_raw(row).await?;
            }
            writer.finish().await
        };
        self.wait(copied).await.map(drop)
    }

    async fn ask(&self, statement: &Statement, parameters: Vec<Param<'_>>) -> PgResult<Vec<Row>> {
        self.client.query_raw(statement, parameters).await?.map_ok(Row).try_collect().await
    }

    /// Runs all in one trip, in order, between `before` and `after` (`BEGIN`, `COMMIT`; empty: each on its own). Answers with their rows, or with the first
    /// error and the place of its statement.
    pub(crate) async fn pipeline<'a>(
        &self,
        before: &'static str,
        steps: Vec<Step<'a>>,
        after: &'static str,
    ) -> std::result::Result<Vec<Vec<Row>>, (usize, tokio_postgres::Error)> {
        let mut answers = Answers::new(steps.len());
        answers.sent(None, start(self.simple(before)).await);
        for (place, (statement, parameters)) in steps.into_iter().enumerate() {
            let rows: BoxFuture<'_, PgResult<Vec<Row>>> = Box::pin(async move { self.ask(&statement, parameters).await });
            answers.sent(Some(place), start(rows).await);
            self.wait(answers.take_all_but(WINDOW)).await;
            if answers.failed.is_some() {
                break;
            }
        }
        // Of a transaction that has failed the server makes a rollback.
        answers.sent(None, start(self.simple(after)).await);
        self.wait(answers.take_all_but(0)).await;
        answers.failed.map_or(Ok(answers.rows), Err)
    }

    fn simple(&self, sql: &'static str) -> BoxFuture<'_, PgResult<Vec<Row>>> {
        Box::pin(async move {
            if sql.is_empty() { Ok(Vec::new()) } else { self.client.batch_execute(sql).await.map(|()| Vec::new()) }
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let io = self.io.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(io), Ok(runtime)) = (io, tokio::runtime::Handle::try_current()) {
            // It says goodbye once the client is gone, which is next.
            runtime.spawn(tokio::time::timeout(CANCEL, io));
        }
    }
}

/// The rows of a statement, once they come.
type Coming<'a> = Started<'a, PgResult<Vec<Row>>>;

/// Answers to what was sent, which come in the order of sending and have to be taken so.
struct Answers<'a> {
    waiting: VecDeque<(Option<usize>, Coming<'a>)>,
    rows: Vec<Vec<Row>>,
    failed: Option<(usize, tokio_postgres::Error)>,
}

impl<'a> Answers<'a> {
    fn new(count: usize) -> Self {
        Self { waiting: VecDeque::new(), rows: Vec::with_capacity(count), failed: None }
    }

    fn sent(&mut self, place: Option<usize>, answer: Coming<'a>) {
        self.waiting.push_back((place, answer));
    }

    async fn take_all_but(&mut self, left: usize) {
        while self.waiting.len() > left {
            let Some((place, answer)) = self.waiting.pop_front() else { return };
            match (answer.wait().await, place) {
                (Ok(rows), Some(_)) => self.rows.push(rows),
                (Ok(_), None) => {}
                // What follows fails because of this one.
                (Err(error), place) => drop(self.failed.get_or_insert((place.unwrap_or(self.rows.len()), error))),
            }
        }
    }
}

/// Something that was sent, and is answered or not yet.
enum Started<'a, T> {
    Done(T),
    Waiting(BoxFuture<'a, T>),
}

/// Polls once, which sends it.
async fn start<T>(mut future: BoxFuture<'_, T>) -> Started<'_, T> {
    match futures::poll!(&mut future) {
        Poll::Ready(value) => Started::Done(value),
        Poll::Pending => Started::Waiting(future),
    }
}

impl<T> Started<'_, T> {
    async fn wait(self) -> T {
        match self {
            Self::Done(value) => value,
            Self::Waiting(future) => future.await,
        }
    }
}

/// A connection of the pool in use. Dropped before it is done, it is not used again, and what runs on it is stopped.
pub(crate) struct Lending {
    connection: Lent,
    done: bool,
}

impl Lending {
    pub(crate) fn new(connection: Lent) -> Self {
        connection.busy.store(true, Ordering::Release);
        Self { connection, done: false }
    }

    /// The connection is as it was before: gives it back, and `answer` with it.
    pub(crate) fn done<T>(mut self, answer: T) -> T {
        self.done = true;
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
        if self.done || self.client.is_closed() {
            return;
        }
        let (token, tls) = (self.client.cancel_token(), self.tls.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Best effort: the server's own timeouts end it otherwise.
                let _ = tokio::time::timeout(CANCEL, token.cancel_query(tls)).await;
            });
        }
    }
}
