//! Queues in memory.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use storage_core::{
    BackendInfo, Delivery, Message, MessageUpdate, NewMessage, OpenFlag, QueueBackend, QueueCapabilities, QueueName, QueueSpec,
    QueueStats, Receipt, Receive, Result, Sent,
};
use tokio::time::Instant;

use crate::queues::Queues;
use crate::store::Shared;

const CAPABILITIES: QueueCapabilities = QueueCapabilities {
    delay: true,
    ttl: true,
    priority: true,
    dedup: true,
    fifo: true,
    peek: true,
    update_body: true,
    dead_letter: true,
    atomic_send: true,
    receipts_across_processes: false,
    wakes: true,
    max_body_bytes: 64 << 20,
    durable: false,
};

/// How often a waiting receive looks at a clock that is moved by hand, since that wakes nobody.
const MANUAL_CLOCK_POLL: Duration = Duration::from_millis(10);

/// The queues of a [`MemoryStore`](crate::MemoryStore).
#[derive(Debug)]
pub struct MemoryQueue {
    shared: Arc<Shared>,
    open: OpenFlag,
}

impl MemoryQueue {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: OpenFlag::default() }
    }

    /// Does something under the lock, at one moment.
    fn with<T>(&self, act: impl FnOnce(&mut Queues, DateTime<Utc>) -> Result<T>) -> Result<T> {
        self.open.check()?;
        let mut queues = self.shared.queues();
        let now = self.shared.clock.now();
        act(&mut queues, now)
    }

    /// How long a receive may sleep before it looks again, for want of news.
    fn nap(&self, next: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Duration {
        let until_next = next.map_or(Duration::MAX, |at| (at - now).to_std().unwrap_or_default());
        if self.shared.clock.is_manual() { until_next.min(MANUAL_CLOCK_POLL) } else { until_next }
    }
}

#[async_trait]
impl QueueBackend for MemoryQueue {
    fn info(&self) -> &BackendInfo {
        &self.shared.info
    }

    fn capabilities(&self) -> &QueueCapabilities {
        &CAPABILITIES
    }

    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        self.with(|queues, _| queues.create(queue, spec))
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.with(|queues, _| queues.remove(queue))
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.with(|queues, _| Ok(queues.names()))
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.with(|queues, now| queues.spec(queue, now))
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        self.with(|queues, now| {
            queues.check_home(queue)?;
            Ok(queues.send(queue, messages, now))
        })
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let taken = self.with(|queues, now| queues.receive(queue, request, now))?;
        if !taken.is_empty() || request.wait.is_zero() {
            return Ok(taken);
        }
        let deadline = Instant::now() + request.wait;
        loop {
            let news = self.with(|queues, now| queues.news(queue, now))?;
            // Enabled before looking again: news in between is not lost.
            let mut notified = pin!(news.notified());
            notified.as_mut().enable();
            if self.open.is_closed() {
                return Ok(Vec::new());
            }
            let (taken, nap) = self.with(|queues, now| {
                let taken = queues.receive(queue, request, now)?;
                Ok((taken, self.nap(queues.pending(queue, now)?.next, now)))
            })?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !taken.is_empty() || left.is_zero() {
                return Ok(taken);
            }
            tokio::select! {
                () = notified => {}
                () = tokio::time::sleep(left.min(nap)) => {}
            }
            if self.open.is_closed() {
                return Ok(Vec::new());
            }
        }
    }

    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        self.with(|queues, now| queues.delete(queue, receipts, now))
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        self.with(|queues, now| queues.update(queue, receipt, change, now))
    }

    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        self.with(|queues, now| queues.dead_letter(queue, receipt, reason, now))
    }

    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        self.with(|queues, now| queues.redrive(queue, max, now))
    }

    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        self.with(|queues, now| queues.peek(queue, max, now))
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.with(|queues, now| queues.stats(queue, now))
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.with(|queues, now| queues.purge(queue, now))
    }

    async fn ping(&self) -> Result<()> {
        self.with(|_, _| Ok(()))
    }

    async fn close(&self) -> Result<()> {
        self.open.close();
        self.shared.queues().wake_all();
        Ok(())
    }
}
