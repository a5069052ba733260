//! [`QueueBackend`] on PostgreSQL.

use std::pin::pin;
use std::time::Duration;

use crate::row::Row;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use storage_core::{
    BackendInfo, Delivery, Message, MessageUpdate, NewMessage, QueueBackend, QueueCapabilities, QueueName, QueueSpec, QueueStats,
    Receipt, Receive, Result, Sent,
};
use storage_sql::server::{Deletion, Queue, Work, commit, home, read_message, read_stats, until};
use tokio::time::{Instant, sleep};

use crate::claim::{Claim, Claimed, Outlook, outlook};
use crate::connection::{Connection, Step};
use crate::error::{OrExplain as _, explain};
use crate::messages;
use crate::queues::{self, FIND};
use crate::receipts::{self, Update, bury};
use crate::shared::{Handle, Shared};

/// How often a waiting receiver looks by itself: what a program has sent that died before it told anybody.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same while news don't arrive.
const LOOK_ALONE: Duration = Duration::from_millis(100);

/// The queues in a [`PostgresStore`](crate::PostgresStore).
#[derive(Debug)]
pub struct PostgresQueue {
    handle: Handle,
    capabilities: QueueCapabilities,
}

impl PostgresQueue {
    pub(crate) fn new(handle: Handle) -> Self {
        let capabilities = QueueCapabilities {
            delay: true,
            ttl: true,
            priority: true,
            dedup: true,
            fifo: true,
            peek: true,
            update_body: true,
            dead_letter: true,
            atomic_send: true,
            receipts_across_processes: true,
            wakes: true,
            max_body_bytes: 64 << 20,
            durable: handle.shared().found.durable,
        };
        Self { handle, capabilities }
    }

    /// Waits until there may be something to receive. `false`: the handle was closed, or `deadline` is over.
    async fn wait(&self, name: &QueueName, deadline: Instant) -> Result<bool> {
        let Ok(shared) = self.handle.open() else { return Ok(false) };
        shared.news.start(shared);
        let (queue, _) = look_ahead(shared, name).await?;
        let news = shared.news.lanes.of(queue.lane());
        // Enabled before looking again: news in between is not lost.
        let mut notified = pin!(news.notified());
        notified.as_mut().enable();
        let (_, mut ahead) = look_ahead(shared, name).await?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.handle.is_closed() || left.is_zero() {
                return Ok(false);
            }
            let now = shared.time.now();
            if ahead.hopeful || ahead.next.is_some_and(|at| at <= now) {
                return Ok(true);
            }
            let next = ahead.next.map_or(Duration::MAX, |at| until(at, now)).max(Duration::from_millis(1));
            let every = if shared.news.is_connected() { LOOK_EVERY } else { LOOK_ALONE };
            tokio::select! {
                () = &mut notified => return Ok(!self.handle.is_closed()),
                () = sleep(left.min(next).min(every)) => {}
            }
            if !self.handle.is_closed() && !deadline.saturating_duration_since(Instant::now()).is_zero() {
                ahead = look_ahead(shared, name).await?.1;
            }
        }
    }

    /// Does something with a queue as it is now, in one transaction: what time has changed is written down first.
    async fn settled<T, F>(&self, name: &QueueName, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c Connection, Queue, DateTime<Utc>) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let (shared, name) = (self.handle.open()?, name.clone());
        let (answer, news) = shared
            .transact(move |connection, shared| {
                Box::pin(async move {
                    let (queue, now) = (queues::find(connection, &name).await?, shared.time.now());
                    let news = settle(connection, &queue, &name, now).await?;
                    Ok((work(connection, queue, now).await?, news))
                })
            })
            .await?;
        announce(shared, &news);
        Ok(answer)
    }
}

fn announce(shared: &Shared, news: &[(i64, usize)]) {
    news.iter().filter(|(_, count)| *count > 0).for_each(|(lane, count)| shared.news.announce(*lane, *count));
}

/// Brings a queue up to the present. Answers in which lanes how many messages have become ready.
async fn settle(connection: &Connection, queue: &Queue, name: &QueueName, now: DateTime<Utc>) -> Result<Vec<(i64, usize)>> {
    let home = home(name);
    let steps = queues::settle(connection, queue, home.as_str(), now).await.or_explain()?;
    let lanes = [queue.home(), queue.letters(), queue.letters(), queue.letters()];
    let rows = connection.pipeline(queues::PLAN_ANEW, steps, "").await.map_err(|(_, error)| explain(error))?;
    Ok(lanes.into_iter().zip(rows.iter().map(Vec::len)).collect())
}

async fn look_ahead(shared: &Shared, name: &QueueName) -> Result<(Queue, Outlook)> {
    let lent = shared.lend().await?;
    let look = async {
        let queue = queues::find(&lent, name).await?;
        Ok((queue, outlook(&lent, &queue, shared.time.now()).await?))
    };
    let seen = shared.in_time(look).await?;
    lent.done(seen)
}

/// A statement about one queue, as of now.
enum About<'a> {
    Claim(&'a Claim, &'a Receive, bool),
    Delete(&'a Deletion),
    Update(&'a Update, &'a MessageUpdate),
    Bury(&'a Receipt, &'a str),
}

impl<'a> About<'a> {
    async fn step(&self, connection: &Connection, queue: &Queue, name: &QueueName, now: DateTime<Utc>) -> Result<Step<'a>> {
        match self {
            Self::Claim(claim, request, anyway) => claim.step(connection, queue, request, now, *anyway).await.or_explain(),
            Self::Delete(deletion) => receipts::remove(deletion, connection, queue, now).await.or_explain(),
            Self::Update(update, change) => update.step(connection, queue, change, now).await,
            Self::Bury(receipt, reason) => bury(connection, queue, name, receipt, reason, now).await,
        }
    }
}

/// Runs a statement about a queue that is known, and in the same trip asks whether it is still that queue: of another the statement would have touched nothing.
async fn about(
    shared: &Shared,
    connection: &Connection,
    name: &QueueName,
    what: About<'_>,
    now: DateTime<Utc>,
) -> Result<(Queue, Vec<Row>)> {
    let home = home(name);
    let mut known = shared.queues.get(name);
    loop {
        let queue = match known {
            Some(queue) => queue,
            None => shared.queues.remember(name, queues::find(connection, name).await?),
        };
        let find = (connection.prepare(&FIND.into()).await.or_explain()?, vec![home.as_str().into()]);
        let steps = vec![what.step(connection, &queue, name, now).await?, find];
        let mut answers = connection.pipeline("", steps, "").await.map_err(|(_, error)| explain(error))?;
        let found = queues::found(name, &answers.pop().unwrap_or_default()).inspect_err(|_| shared.queues.forget(name))?;
        if found == queue {
            return Ok((queue, answers.pop().unwrap_or_default()));
        }
        known = Some(shared.queues.remember(name, found));
    }
}

/// The same on a connection of its own.
async fn about_now(shared: &Shared, name: &QueueName, what: About<'_>) -> Result<(Queue, Vec<Row>)> {
    let lent = shared.lend().await?;
    let answer = shared.in_time(about(shared, &lent, name, what, shared.time.now())).await?;
    lent.done(answer)
}

/// Takes what there is, without waiting.
async fn take(shared: &Shared, connection: &Connection, name: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
    for anyway in [false, false, true] {
        let now = shared.time.now();
        let claim = Claim::new(request, now);
        let (queue, rows) = about(shared, connection, name, About::Claim(&claim, request, anyway), now).await?;
        match claim.read(&rows)? {
            Claimed::Deliveries(deliveries) => {
                if deliveries.len() == request.max as usize {
                    // There may be more: one receiver that is woken wakes the next.
                    shared.news.lanes.wake(queue.lane(), 1);
                }
                return Ok(deliveries);
            }
            Claimed::Unsettled => {
                connection.batch("BEGIN").await.or_explain()?;
                let settled = settle(connection, &queue, name, now).await;
                connection.batch(if settled.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.or_explain()?;
                match settled {
                    Ok(news) => announce(shared, &news),
                    // Somebody else is at it.
                    Err(error) if error.kind() == storage_core::ErrorKind::Conflict => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(Vec::new())
}

#[async_trait]
impl QueueBackend for PostgresQueue {
    fn info(&self) -> &BackendInfo {
        self.handle.info()
    }

    fn capabilities(&self) -> &QueueCapabilities {
        &self.capabilities
    }

    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        let (name, spec) = (queue.clone(), *spec);
        self.handle
            .open()?
            .transact(move |connection, _| Box::pin(async move { queues::create(connection, &name, &spec).await }))
            .await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        let (shared, name) = (self.handle.open()?, queue.clone());
        let removed =
            shared.transact(move |connection, _| Box::pin(async move { queues::remove(connection, &name).await })).await?;
        if let Some(removed) = removed {
            // Who waits learns that there is nothing to wait for.
            announce(shared, &[(removed.home(), usize::MAX), (removed.letters(), usize::MAX)]);
        }
        Ok(removed.is_some())
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let rows = shared.in_time(lent.query("SELECT name FROM _storage_queues ORDER BY name", Vec::new())).await?;
        lent.done(rows).or_explain()?.iter().map(|found| QueueName::new(found.try_get::<_, &str>(0).or_explain()?)).collect()
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let found = shared.in_time(queues::find(&lent, queue)).await?;
        let found = lent.done(found)?;
        Ok(found.spec())
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        let shared = self.handle.open()?;
        shared.news.start(shared);
        commit(shared, Work::Send(queue.clone(), messages)).await?.sent()
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + request.wait;
        loop {
            let shared = self.handle.open()?;
            let lent = shared.lend().await?;
            let taken = shared.in_time(take(shared, &lent, queue, request)).await?;
            let taken = lent.done(taken)?;
            if !taken.is_empty() || request.wait.is_zero() {
                return Ok(taken);
            }
            if !self.wait(queue, deadline).await? {
                return Ok(taken);
            }
        }
    }

    async fn delete(&self, queue: &QueueName, given: &[Receipt]) -> Result<Vec<Result<()>>> {
        let shared = self.handle.open()?;
        let deletion = Deletion::new(given);
        let (_, rows) = about_now(shared, queue, About::Delete(&deletion)).await?;
        Ok(deletion.answers(&receipts::left(&rows)?))
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        let shared = self.handle.open()?;
        let update = Update::new(receipt);
        let (found, rows) = about_now(shared, queue, About::Update(&update, change)).await?;
        if change.visibility.is_some() {
            // Who waits learns of a new time; where it was given back, of the message itself.
            announce(shared, &[(found.lane(), 1)]);
        }
        update.read(&rows)
    }

    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        queue.dead_letter()?;
        let shared = self.handle.open()?;
        let (found, rows) = about_now(shared, queue, About::Bury(receipt, reason)).await?;
        receipts::buried(&rows)?;
        announce(shared, &[(found.letters(), 1)]);
        Ok(())
    }

    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        queue.dead_letter()?;
        let redrive = self.settled(queue, move |connection, queue, now| {
            Box::pin(async move { Ok((queues::redrive(connection, &queue, max, now).await?, queue.home())) })
        });
        let (count, lane) = redrive.await?;
        announce(self.handle.shared(), &[(lane, usize::try_from(count).unwrap_or(usize::MAX))]);
        Ok(count)
    }

    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        let peek = self.settled(queue, move |connection, queue, _| {
            Box::pin(async move {
                let rows = connection
                    .query(&messages::peek_sql(), vec![queue.lane().into(), i64::from(max).into()])
                    .await
                    .or_explain()?;
                rows.iter().map(|found| read_message(found, 0)).collect()
            })
        });
        peek.await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let stats = self.settled(queue, |connection, queue, _| {
            Box::pin(async move { read_stats(&connection.row(messages::STATS, messages::stats_values(&queue)).await?) })
        });
        stats.await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        let purge = self.settled(queue, |connection, queue, _| {
            Box::pin(async move {
                connection.execute("DELETE FROM _storage_messages WHERE lane = $1", vec![queue.lane().into()]).await.or_explain()
            })
        });
        purge.await
    }

    async fn ping(&self) -> Result<()> {
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let answer = shared.in_time(lent.batch("")).await?;
        lent.done(answer).or_explain()
    }

    async fn close(&self) -> Result<()> {
        self.handle.close().await
    }
}
