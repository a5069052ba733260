//! [`QueueBackend`] on SQLite.

use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use storage_core::{
    BackendInfo, Delivery, Message, MessageUpdate, NewMessage, QueueBackend, QueueCapabilities, QueueName, QueueSpec, QueueStats,
    Receipt, Receive, Result, Sent,
};
use tokio::time::{Instant, sleep};

use crate::claim::{self, Outlook, claim, until};
use crate::config::Synchronous;
use crate::database::Database;
use crate::handle::Handle;
use crate::reader::Snapshot;
use crate::session::Session;
use crate::writer::Size;
use crate::{messages, queues, receipts};

/// How often a waiting receiver looks whether another process has sent something.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// The queues in a [`SqliteStore`](crate::SqliteStore).
#[derive(Debug)]
pub struct SqliteQueue {
    handle: Handle,
    capabilities: QueueCapabilities,
}

impl SqliteQueue {
    pub(crate) fn new(handle: Handle) -> Self {
        let durable = handle.database().shared.settings.synchronous != Synchronous::Off;
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
            durable,
        };
        Self { handle, capabilities }
    }

    async fn write<T, F>(&self, queue: &QueueName, size: Size, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Session<'_>, &QueueName) -> Result<T> + Send + 'static,
    {
        let name = queue.clone();
        self.handle.open()?.write(size, move |session| work(session, &name)).await
    }

    /// Takes what there is, without waiting.
    async fn take(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let request = *request;
        let size = Size { kib: 1, items: request.max as usize, atomic: true };
        self.write(queue, size, move |session, queue| claim(session, queue, &request)).await
    }

    /// What there is and what is to come.
    async fn outlook(&self, database: &Database, queue: &QueueName) -> Result<Outlook> {
        let clock = &database.shared.settings.clock;
        let now = clock.now().timestamp_micros();
        if let Some(outlook) = database.read_here(|snapshot| claim::outlook(snapshot.connection, queue, now)) {
            return outlook;
        }
        let queue = queue.clone();
        database.read(move |snapshot| claim::outlook(snapshot.connection, &queue, now)).await
    }

    /// Waits until there may be something to receive. `false`: the handle was closed, or `deadline` is over.
    async fn wait(&self, queue: &QueueName, deadline: Instant) -> Result<bool> {
        let Ok(database) = self.handle.open() else { return Ok(false) };
        let shared = &database.shared;
        let lane = self.outlook(database, queue).await?.lane;
        let news = shared.news.of(lane);
        // Enabled before looking again: news in between is not lost.
        let mut notified = pin!(news.notified());
        notified.as_mut().enable();
        let mut seen = shared.news.generation(&shared.settings)?;
        let mut outlook = self.outlook(database, queue).await?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.handle.is_closed() || left.is_zero() {
                return Ok(false);
            }
            let now = shared.settings.clock.now();
            if outlook.hopeful || outlook.next.is_some_and(|at| at <= now.timestamp_micros()) {
                return Ok(true);
            }
            let next = until(outlook.next, now)?.unwrap_or(Duration::MAX).max(Duration::from_millis(1));
            tokio::select! {
                () = &mut notified => return Ok(!self.handle.is_closed()),
                () = sleep(left.min(next).min(LOOK_EVERY)) => {}
            }
            let generation = shared.news.generation(&shared.settings)?;
            if generation != seen {
                seen = generation;
                outlook = self.outlook(database, queue).await?;
            }
        }
    }
}

fn kib(messages: &[NewMessage]) -> u32 {
    let bytes: usize = messages.iter().map(|m| 128 + m.body.len()).sum();
    u32::try_from(bytes / 1_024).unwrap_or(u32::MAX)
}

#[async_trait]
impl QueueBackend for SqliteQueue {
    fn info(&self) -> &BackendInfo {
        self.handle.info()
    }

    fn capabilities(&self) -> &QueueCapabilities {
        &self.capabilities
    }

    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        let spec = *spec;
        self.write(queue, Size::LARGE, move |session, queue| queues::create(session, queue, &spec)).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.write(queue, Size::LARGE, queues::remove).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.handle.open()?.read(|snapshot| queues::names(snapshot.connection)).await
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        let name = queue.clone();
        let found = self.handle.open()?.read(move |snapshot| queues::find(snapshot.connection, &name)).await?;
        Ok(if found.dead { found.spec.max_deliveries(None) } else { found.spec })
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        let size = Size { kib: kib(&messages), items: messages.len(), atomic: true };
        self.write(queue, size, move |session, queue| messages::send(session, queue, &messages)).await
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + request.wait;
        loop {
            let taken = self.take(queue, request).await?;
            if !taken.is_empty() || request.wait.is_zero() {
                return Ok(taken);
            }
            if !self.wait(queue, deadline).await? {
                return Ok(taken);
            }
        }
    }

    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        let receipts = receipts.to_vec();
        let size = Size { kib: 1, items: receipts.len(), atomic: true };
        let delete = move |session: &mut Session<'_>, queue: &QueueName| receipts::delete(session, queue, &receipts);
        self.write(queue, size, delete).await
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        let kib = u32::try_from(change.body.as_ref().map_or(0, |b| b.len() / 1_024)).unwrap_or(u32::MAX);
        let (receipt, change) = (receipt.clone(), change.clone());
        let size = Size { kib, items: 1, atomic: false };
        self.write(queue, size, move |session, queue| receipts::update(session, queue, &receipt, &change)).await
    }

    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        let (receipt, reason) = (receipt.clone(), reason.to_owned());
        let bury = move |session: &mut Session<'_>, queue: &QueueName| receipts::dead_letter(session, queue, &receipt, &reason);
        self.write(queue, Size::items(1), bury).await
    }

    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        self.write(queue, Size::LARGE, move |session, queue| queues::redrive(session, queue, max)).await
    }

    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        self.look(queue, move |connection, found| messages::peek(connection, found.lane(), max)).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.look(queue, messages::stats).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        let purge = |session: &mut Session<'_>, name: &QueueName| {
            let found = queues::find(session.connection, name)?;
            queues::settle(session, &found, name)?;
            queues::clear(session, found.lane())
        };
        self.write(queue, Size::LARGE, purge).await
    }

    async fn ping(&self) -> Result<()> {
        self.handle.open()?.read(|_| Ok(())).await
    }

    async fn close(&self) -> Result<()> {
        self.handle.close().await
    }
}

impl SqliteQueue {
    /// Looks at a queue as it is now: where time has changed something that is not yet written down, the writer does that first.
    async fn look<T, F>(&self, queue: &QueueName, look: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&rusqlite::Connection, &queues::Queue) -> Result<T> + Send + Sync + Clone + 'static,
    {
        let (name, read) = (queue.clone(), look.clone());
        let now = self.handle.database().shared.settings.clock.now().timestamp_micros();
        let look_now = move |snapshot: &Snapshot<'_>| {
            let found = queues::find(snapshot.connection, &name)?;
            if queues::is_settled(snapshot.connection, &found, now)? {
                return read(snapshot.connection, &found).map(Some);
            }
            Ok(None)
        };
        if let Some(answer) = self.handle.open()?.read(look_now).await? {
            return Ok(answer);
        }
        let settle = move |session: &mut Session<'_>, name: &QueueName| {
            let found = queues::find(session.connection, name)?;
            queues::settle(session, &found, name)?;
            look(session.connection, &found)
        };
        self.write(queue, Size::LARGE, settle).await
    }
}
