//! [`QueueBackend`] on MySQL and MariaDB.

use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::Value;
use storage_core::{
    BackendInfo, Delivery, ErrorKind, Message, MessageUpdate, NewMessage, QueueBackend, QueueCapabilities, QueueName, QueueSpec,
    QueueStats, Receipt, Receive, Result, Sent,
};
use storage_sql::row;
use storage_sql::server::{
    Deletion, Lease, Queue, Work, commit, lease_lost, new_lease, parse_receipt, read_message, read_stats, receipt_for, until,
};
use tokio::time::{Instant, sleep};

use crate::claim::claim;
use crate::connection::Connection;
use crate::error::{OrExplain as _, explain, is_collision};
use crate::queues::{self, Glance, glance};
use crate::shared::{Handle, Shared, transaction};
use crate::{messages, receipts};

/// How soon a waiting receiver looks again at first, and at most: what other processes have sent.
const LOOK_FIRST: Duration = Duration::from_millis(10);
const LOOK_AT_MOST: Duration = Duration::from_millis(320);
/// How often something is tried again that others are in the way of.
const ATTEMPTS: usize = 10;

/// The queues in a [`MysqlStore`](crate::MysqlStore).
#[derive(Debug)]
pub struct MysqlQueue {
    handle: Handle,
    capabilities: QueueCapabilities,
}

impl MysqlQueue {
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
            // By what the same process sends alone.
            wakes: false,
            max_body_bytes: handle.shared().found.largest(),
            durable: handle.shared().found.durable,
        };
        Self { handle, capabilities }
    }

    /// Waits until there may be something to receive. `false`: the handle was closed, or `deadline` is over.
    async fn wait(&self, name: &QueueName, deadline: Instant) -> Result<bool> {
        let Ok(shared) = self.handle.open() else { return Ok(false) };
        let mut ahead = look(shared, name).await?;
        let news = shared.lanes.of(ahead.queue.lane());
        // Enabled before looking again: news in between is not lost.
        let mut notified = pin!(news.notified());
        notified.as_mut().enable();
        ahead = look(shared, name).await?;
        let mut pause = LOOK_FIRST;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.handle.is_closed() || left.is_zero() {
                return Ok(false);
            }
            let (now, next) = (shared.time.now(), ahead.next());
            if ahead.is_ready || next.is_some_and(|at| at <= now) {
                return Ok(true);
            }
            let next = next.map_or(Duration::MAX, |at| until(at, now)).max(Duration::from_millis(1));
            tokio::select! {
                () = &mut notified => return Ok(!self.handle.is_closed()),
                () = sleep(left.min(next).min(pause)) => {}
            }
            pause = (pause * 2).min(LOOK_AT_MOST);
            if !self.handle.is_closed() && !deadline.saturating_duration_since(Instant::now()).is_zero() {
                ahead = look(shared, name).await?;
            }
        }
    }
}

fn announce(shared: &Shared, news: &[(i64, u64)]) {
    for (lane, count) in news.iter().filter(|(_, count)| *count > 0) {
        shared.lanes.wake(*lane, usize::try_from(*count).unwrap_or(usize::MAX));
    }
}

async fn look(shared: &Shared, name: &QueueName) -> Result<Glance> {
    let mut first = true;
    loop {
        let lent = shared.lend().await?;
        let seen = shared.in_time(glance(&lent, name)).await?;
        if let Some(seen) = shared.asked(lent, seen, &mut first) {
            return seen;
        }
    }
}

/// Brings a queue up to the present in a transaction, where time has changed something.
async fn settle(shared: &Shared, connection: &Connection, name: &QueueName) -> Result<Queue> {
    for attempt in 1.. {
        let (seen, now) = (glance(connection, name).await?, shared.time.now());
        if !seen.is_any_due(now) {
            return Ok(seen.queue);
        }
        let settle = async { queues::settle(connection, &seen.queue, name, now).await.or_explain() };
        match transaction(connection, settle).await {
            Ok(news) => {
                announce(shared, &news);
                return Ok(seen.queue);
            }
            // Somebody else is at it.
            Err(error) if error.kind() == ErrorKind::Conflict && attempt < ATTEMPTS => sleep(Duration::from_millis(1)).await,
            Err(error) => return Err(error),
        }
    }
    queues::find(connection, name).await
}

/// Takes what there is, without waiting.
async fn take(shared: &Shared, connection: &Connection, name: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
    for attempt in 0..ATTEMPTS {
        let (seen, now) = (glance(connection, name).await?, shared.time.now());
        if attempt == 0 && seen.is_due(now) {
            settle(shared, connection, name).await?;
            continue;
        }
        if !seen.is_ready {
            return Ok(Vec::new());
        }
        match claim(connection, &seen.queue, request, now).await {
            Ok(claimed) => {
                let claimed = claimed?;
                if claimed.len() == request.max as usize {
                    // There may be more: one receiver that is woken wakes the next.
                    shared.lanes.wake(seen.queue.lane(), 1);
                }
                return Ok(claimed);
            }
            Err(error) => undone(connection, error).await?,
        }
    }
    Ok(Vec::new())
}

/// Ends a transaction that others were in the way of.
async fn undone(connection: &Connection, error: mysql_async::Error) -> Result<()> {
    let collided = is_collision(&error);
    if connection.has_ended() {
        return Err(explain(error));
    }
    connection.batch("ROLLBACK").await.or_explain()?;
    if collided { Ok(()) } else { Err(explain(error)) }
}

/// The queue of that name, as it was found last, and whether that was just now.
async fn known(shared: &Shared, connection: &Connection, name: &QueueName) -> Result<(Queue, bool)> {
    match shared.queues.get(name) {
        Some(queue) => Ok((queue, false)),
        None => Ok((found(shared, connection, name).await?, true)),
    }
}

async fn found(shared: &Shared, connection: &Connection, name: &QueueName) -> Result<Queue> {
    let queue = queues::find(connection, name).await.inspect_err(|_| shared.queues.forget(name))?;
    Ok(shared.queues.remember(name, queue))
}

/// Another queue of that name than the one that was `known`, in which something was looked for in vain.
async fn another(shared: &Shared, connection: &Connection, name: &QueueName, known: (Queue, bool)) -> Result<Option<Queue>> {
    if known.1 {
        return Ok(None);
    }
    let queue = found(shared, connection, name).await?;
    Ok(Some(queue).filter(|queue| *queue != known.0))
}

async fn delete(shared: &Shared, connection: &Connection, name: &QueueName, deletion: Deletion) -> Result<Vec<Result<()>>> {
    let (known, now) = (known(shared, connection, name).await?, shared.time.now());
    let mut left = receipts::remove(connection, &deletion, &known.0, now).await?;
    if left.is_some()
        && let Some(queue) = another(shared, connection, name, known).await?
    {
        left = receipts::remove(connection, &deletion, &queue, now).await?;
    }
    Ok(deletion.answers(&left.unwrap_or_default()))
}

async fn update(
    shared: &Shared,
    connection: &Connection,
    name: &QueueName,
    receipt: &Receipt,
    change: &MessageUpdate,
) -> Result<(Receipt, Queue)> {
    let (known, now, renewed) = (known(shared, connection, name).await?, shared.time.now(), new_lease());
    let lease = parse(shared, connection, name, receipt).await?;
    let mut queue = known.0;
    let mut done = receipts::update(connection, &queue, (lease, renewed), change, now).await?;
    if !done && let Some(other) = another(shared, connection, name, known).await? {
        queue = other;
        done = receipts::update(connection, &queue, (lease, renewed), change, now).await?;
    }
    if done { Ok((receipt_for(lease.id, renewed), queue)) } else { Err(lease_lost()) }
}

async fn bury(shared: &Shared, connection: &Connection, name: &QueueName, receipt: &Receipt, reason: &str) -> Result<Queue> {
    let (known, now) = (known(shared, connection, name).await?, shared.time.now());
    let lease = parse(shared, connection, name, receipt).await?;
    let mut queue = known.0;
    let mut done = receipts::bury(connection, &queue, name, (lease, reason), now).await?;
    if !done && let Some(other) = another(shared, connection, name, known).await? {
        queue = other;
        done = receipts::bury(connection, &queue, name, (lease, reason), now).await?;
    }
    if done { Ok(queue) } else { Err(lease_lost()) }
}

/// Takes a receipt apart; that there is no such queue comes before that it is none.
async fn parse(shared: &Shared, connection: &Connection, name: &QueueName, receipt: &Receipt) -> Result<Lease> {
    match parse_receipt(receipt) {
        Ok(lease) => Ok(lease),
        Err(error) => found(shared, connection, name).await.and(Err(error)),
    }
}

/// What is told of a queue as it is now.
async fn peek(shared: &Shared, connection: &Connection, name: &QueueName, max: u32) -> Result<Vec<Message>> {
    let queue = settle(shared, connection, name).await?;
    let values = vec![Value::Int(queue.lane()), Value::Int(max.into())];
    let rows = connection.query(&messages::peek_sql(), values).await.or_explain()?;
    rows.iter().map(|found| read_message(found, 0)).collect()
}

async fn stats(shared: &Shared, connection: &Connection, name: &QueueName) -> Result<QueueStats> {
    let queue = settle(shared, connection, name).await?;
    read_stats(&connection.row(messages::STATS, messages::stats_values(&queue)).await?)
}

async fn names(connection: &Connection) -> Result<Vec<QueueName>> {
    let rows = connection.query("SELECT name FROM _storage_queues ORDER BY name", Vec::new()).await.or_explain()?;
    rows.iter().map(|found| QueueName::new(row::text(found, 0)?.unwrap_or_default())).collect()
}

#[async_trait]
impl QueueBackend for MysqlQueue {
    fn info(&self) -> &BackendInfo {
        self.handle.info()
    }

    fn capabilities(&self) -> &QueueCapabilities {
        &self.capabilities
    }

    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        let (name, spec) = (queue.clone(), *spec);
        let shared = self.handle.open()?;
        shared.apart(move |connection, _| Box::pin(async move { queues::create(connection, &name, &spec).await })).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        let (shared, name) = (self.handle.open()?, queue.clone());
        let removed =
            shared.transact(move |connection, _| Box::pin(async move { queues::remove(connection, &name).await })).await?;
        if let Some(removed) = removed {
            // Who waits learns that there is nothing to wait for.
            announce(shared, &[(removed.home(), u64::MAX), (removed.letters(), u64::MAX)]);
        }
        Ok(removed.is_some())
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        let shared = self.handle.open()?;
        let mut first = true;
        loop {
            let lent = shared.lend().await?;
            let names = shared.in_time(names(&lent)).await?;
            if let Some(names) = shared.asked(lent, names, &mut first) {
                return names;
            }
        }
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        let shared = self.handle.open()?;
        let mut first = true;
        loop {
            let lent = shared.lend().await?;
            let found = shared.in_time(queues::find(&lent, queue)).await?;
            if let Some(found) = shared.asked(lent, found, &mut first) {
                return Ok(found?.spec());
            }
        }
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        commit(self.handle.open()?, Work::Send(queue.clone(), messages)).await?.sent()
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + request.wait;
        loop {
            let shared = self.handle.open()?;
            let lent = shared.lend().await?;
            let taken = shared.in_time(take(shared, &lent, queue, request)).await?;
            let taken = shared.done(lent, taken)?;
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
        let lent = shared.lend().await?;
        let answers = shared.in_time(delete(shared, &lent, queue, Deletion::new(given))).await?;
        shared.done(lent, answers)
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let updated = shared.in_time(update(shared, &lent, queue, receipt, change)).await?;
        let (renewed, found) = shared.done(lent, updated)?;
        if change.visibility.is_some() {
            // Who waits learns of a new time; where it was given back, of the message itself.
            announce(shared, &[(found.lane(), 1)]);
        }
        Ok(renewed)
    }

    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        queue.dead_letter()?;
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let buried = shared.in_time(bury(shared, &lent, queue, receipt, reason)).await?;
        let found = shared.done(lent, buried)?;
        announce(shared, &[(found.letters(), 1)]);
        Ok(())
    }

    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        queue.dead_letter()?;
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let redrive = async {
            let found = settle(shared, &lent, queue).await?;
            Ok((transaction(&lent, queues::redrive(&lent, &found, max)).await?, found.home()))
        };
        let redriven = shared.in_time(redrive).await?;
        let (count, lane) = shared.done(lent, redriven)?;
        announce(shared, &[(lane, count)]);
        Ok(count)
    }

    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let messages = shared.in_time(peek(shared, &lent, queue, max)).await?;
        shared.done(lent, messages)
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let stats = shared.in_time(stats(shared, &lent, queue)).await?;
        shared.done(lent, stats)
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        let shared = self.handle.open()?;
        let lent = shared.lend().await?;
        let purge = async {
            let found = settle(shared, &lent, queue).await?;
            let delete = "DELETE FROM _storage_messages WHERE lane = ?";
            lent.execute_alone(delete, vec![Value::Int(found.lane())]).await.or_explain()
        };
        let purged = shared.in_time(purge).await?;
        shared.done(lent, purged)
    }

    async fn ping(&self) -> Result<()> {
        crate::shared::ping(self.handle.open()?).await
    }

    async fn close(&self) -> Result<()> {
        self.handle.close().await
    }
}
