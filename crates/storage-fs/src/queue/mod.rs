//! Queues as files.
//!
//! ```text
//! queues/<queue>/_spec.json          how the queue behaves
//! queues/<queue>/ready/<name>.msg    a message that nobody has received yet
//! queues/<queue>/leased/<name>.msg   one that somebody has received; its name says until when
//! queues/<queue>/dead/…              the dead letters, likewise
//! queues/<queue>/dedup/<hash>.json   a dedup id that is remembered
//! ```
//!
//! The [`lane`](crate::lane) says what is in a name. A message's file holds one line of JSON about it, then its body.

mod jobs;
mod message;
mod spec;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use storage_core::{
    BackendInfo, Delivery, Message, MessageUpdate, NewMessage, OpenFlag, QueueBackend, QueueCapabilities, QueueName, QueueSpec,
    QueueStats, Receipt, Receive, Result, Sent,
};
use tokio::sync::futures::Notified;
use tokio::time::Instant;

pub(crate) use jobs::enqueue;
pub(crate) use spec::QUEUES;

use crate::group::Group;
use crate::state::State;
use crate::store::{Core, blocking};

/// How often a waiting receive looks whether another process has written, or a clock was moved by hand.
const POLL: Duration = Duration::from_millis(25);

/// The queues of an [`FsStore`](crate::FsStore).
#[derive(Debug)]
pub struct FsQueue {
    core: Arc<Core>,
    open: OpenFlag,
    capabilities: QueueCapabilities,
}

impl FsQueue {
    pub(crate) fn new(core: Arc<Core>) -> Self {
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
            max_body_bytes: 16 << 20,
            durable: core.base.durable,
        };
        Self { core, open: OpenFlag::default(), capabilities }
    }

    async fn with<T: Send + 'static>(
        &self,
        queue: &QueueName,
        act: impl FnOnce(&mut Group<'_>, &QueueName) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.open.check()?;
        let name = queue.clone();
        self.core.write(move |group| act(group, &name)).await
    }

    /// Waits until something may have become visible since `seen`: news in this process, changes by another, or the time `next`.
    async fn news(&self, mut notified: Pin<&mut Notified<'_>>, seen: Option<State>, next: Option<i64>, deadline: Instant) {
        let base = &self.core.base;
        while Instant::now() < deadline && !self.open.is_closed() {
            let due = next.is_some_and(|at| at <= base.clock.now().timestamp_micros());
            if due || base.state.read().ok() != seen {
                return;
            }
            let nap = POLL.min(deadline.saturating_duration_since(Instant::now()));
            if tokio::time::timeout(nap, notified.as_mut()).await.is_ok() {
                return;
            }
        }
    }
}

#[async_trait]
impl QueueBackend for FsQueue {
    fn info(&self) -> &BackendInfo {
        &self.core.base.info
    }

    fn capabilities(&self) -> &QueueCapabilities {
        &self.capabilities
    }

    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        self.open.check()?;
        queue.dead_letter()?;
        spec.check()?;
        let (name, wanted) = (queue.clone(), *spec);
        let base = Arc::clone(&self.core.base);
        // Nothing stops for a queue that is there.
        if blocking(move || spec::is_there(&base, &name, &wanted)).await? {
            return Ok(false);
        }
        let (name, wanted) = (queue.clone(), *spec);
        self.core.alone(move |alone| spec::create(alone.base, &name, &wanted)).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.open.check()?;
        queue.dead_letter()?;
        let name = queue.clone();
        let deleted = self
            .core
            .alone(move |alone| {
                alone.lanes.forget();
                spec::delete_queue(alone.base, &name)
            })
            .await?;
        self.core.empty_trash().await;
        Ok(deleted)
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.open.check()?;
        let base = Arc::clone(&self.core.base);
        blocking(move || spec::queues(&base)).await
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.open.check()?;
        let (base, name) = (Arc::clone(&self.core.base), queue.clone());
        blocking(move || spec::spec(&base, &name)).await
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        self.with(queue, move |group, name| jobs::send(group, name, &messages)).await
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + request.wait;
        loop {
            let request = *request;
            // Taken note of before looking: news in between is not lost.
            let mut notified = pin!(self.core.base.news.notified());
            notified.as_mut().enable();
            let seen = self.core.base.state.read().ok();
            let receive = self.with(queue, move |group, name| jobs::receive(group, name, &request));
            let (taken, next) = match receive.await {
                Err(_) if self.open.is_closed() && !request.wait.is_zero() => return Ok(Vec::new()),
                outcome => outcome?,
            };
            if !taken.is_empty() || Instant::now() >= deadline {
                return Ok(taken);
            }
            self.news(notified, seen, next, deadline).await;
        }
    }

    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        let wanted = receipts.to_vec();
        self.with(queue, move |group, name| jobs::delete(group, name, &wanted)).await
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        let (receipt, change) = (receipt.clone(), change.clone());
        self.with(queue, move |group, name| jobs::update(group, name, &receipt, &change)).await
    }

    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        let (receipt, reason) = (receipt.clone(), reason.to_owned());
        self.with(queue, move |group, name| jobs::dead_letter(group, name, &receipt, &reason)).await
    }

    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        let mut count = 0;
        loop {
            let left = max - count;
            let sent = self.with(queue, move |group, name| jobs::redrive(group, name, left)).await?;
            count += sent;
            if sent == 0 || count >= max {
                return Ok(u64::from(count));
            }
        }
    }

    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        self.with(queue, move |group, name| jobs::peek(group, name, max)).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.with(queue, jobs::stats).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.with(queue, jobs::purge).await
    }

    async fn ping(&self) -> Result<()> {
        self.open.check()?;
        self.core.ping().await
    }

    async fn close(&self) -> Result<()> {
        if self.open.close() {
            self.core.base.news.notify_waiters();
            self.core.settle().await?;
        }
        Ok(())
    }
}
