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
    BackendInfo, Delivery, Error, Message, MessageUpdate, NewMessage, QueueBackend, QueueCapabilities, QueueName, QueueSpec,
    QueueStats, Receipt, Receive, Result, Sent,
};
use tokio::sync::futures::Notified;
use tokio::time::Instant;

pub(crate) use jobs::enqueue;
pub(crate) use spec::QUEUES;

use crate::group::Group;
use crate::state::State;
use crate::store::{Core, Open, blocking};

/// How often a waiting receive looks whether another process has written, or a clock was moved by hand.
const POLL: Duration = Duration::from_millis(25);

/// The queues of an [`FsStore`](crate::FsStore).
#[derive(Debug)]
pub struct FsQueue {
    core: Arc<Core>,
    open: Arc<Open>,
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
            receipts_across_processes: true,
            wakes: true,
            max_body_bytes: 16 << 20,
            durable: core.base.durable,
        };
        Self { core, open: Arc::default(), capabilities }
    }

    fn explain<'a>(&'a self, operation: &'static str, queue: Option<&'a QueueName>) -> impl Fn(Error) -> Error + 'a {
        move |error| {
            let error = error.with_operation(operation).with_backend(&self.core.base.info);
            match queue {
                Some(queue) => error.with_subject(format_args!("queue `{queue}`")),
                None => error,
            }
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        operation: &'static str,
        queue: &QueueName,
        act: impl FnOnce(&mut Group<'_>, &QueueName) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = async {
            self.open.check()?;
            let name = queue.clone();
            self.core.write(move |group| act(group, &name)).await
        };
        done.await.map_err(self.explain(operation, Some(queue)))
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
        let create = async {
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
        };
        create.await.map_err(self.explain("queues.create", Some(queue)))
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        let delete = async {
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
        };
        delete.await.map_err(self.explain("queues.delete_queue", Some(queue)))
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        let queues = async {
            self.open.check()?;
            let base = Arc::clone(&self.core.base);
            blocking(move || spec::queues(&base)).await
        };
        queues.await.map_err(self.explain("queues.list", None))
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        let spec = async {
            self.open.check()?;
            let (base, name) = (Arc::clone(&self.core.base), queue.clone());
            blocking(move || spec::spec(&base, &name)).await
        };
        spec.await.map_err(self.explain("queues.spec", Some(queue)))
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        self.with("queues.send", queue, move |group, name| jobs::send(group, name, &messages)).await
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + request.wait;
        loop {
            let request = *request;
            // Taken note of before looking: news in between is not lost.
            let mut notified = pin!(self.core.base.news.notified());
            notified.as_mut().enable();
            let seen = self.core.base.state.read().ok();
            let receive = self.with("queues.receive", queue, move |group, name| jobs::receive(group, name, &request));
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
        const OPERATION: &str = "queues.delete";
        let wanted = receipts.to_vec();
        let results = self.with(OPERATION, queue, move |group, name| jobs::delete(group, name, &wanted)).await?;
        Ok(results.into_iter().map(|result| result.map_err(self.explain(OPERATION, Some(queue)))).collect())
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        let (receipt, change) = (receipt.clone(), change.clone());
        self.with("queues.update", queue, move |group, name| jobs::update(group, name, &receipt, &change)).await
    }

    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        let (receipt, reason) = (receipt.clone(), reason.to_owned());
        self.with("queues.dead_letter", queue, move |group, name| jobs::dead_letter(group, name, &receipt, &reason)).await
    }

    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        let mut count = 0;
        loop {
            let left = max - count;
            let sent = self.with("queues.redrive", queue, move |group, name| jobs::redrive(group, name, left)).await?;
            count += sent;
            if sent == 0 || count >= max {
                return Ok(u64::from(count));
            }
        }
    }

    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        self.with("queues.peek", queue, move |group, name| jobs::peek(group, name, max)).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.with("queues.stats", queue, jobs::stats).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.with("queues.purge", queue, jobs::purge).await
    }

    async fn ping(&self) -> Result<()> {
        let ping = async {
            self.open.check()?;
            self.core.ping().await
        };
        ping.await.map_err(self.explain("queues.ping", None))
    }

    async fn close(&self) -> Result<()> {
        if self.open.close() {
            self.core.base.news.notify_waiters();
            self.core.settle().await.map_err(self.explain("queues.close", None))?;
        }
        Ok(())
    }
}
