//! Queues behind a policy.

use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{
    BackendInfo, Delivery, Error, ForeignTasks, Message, MessageUpdate, NewMessage, QueueBackend, QueueCapabilities, QueueName,
    QueueSpec, QueueStats, Receipt, Receive, Result, Sent,
};
use tokio::time::Instant;

use super::{Guarded, Handed};
use crate::observe::{Direction, Op};
use crate::policy::{Call, Limit, Repeat};

const fn read(op: Op) -> Call {
    Call { op, repeat: Repeat::Safe, limit: Limit::Call }
}

const fn change(op: Op) -> Call {
    Call { op, repeat: Repeat::Unsafe, limit: Limit::Call }
}

const fn long(op: Op) -> Call {
    Call { op, repeat: Repeat::Unsafe, limit: Limit::Long }
}

impl<B: QueueBackend + ?Sized> Guarded<B> {
    /// Refuses to send again what the queue may have forgotten that it has: the dedup window counts from a first try that may have been done.
    async fn check_window(&self, queue: &QueueName, began: Instant, limit: Limit) -> Result<()> {
        let window = self.inner.queue_spec(queue).await?.dedup_window;
        let longest = limit.of_try(self.policy.timeouts()).unwrap_or_default();
        if began.elapsed() + longest < window {
            return Ok(());
        }
        Err(Error::timeout(format!(
            "no answer in time, and the queue remembers dedup ids for {window:?}, too short to send again safely: whether the messages were sent is not known"
        ))
        .with_retryable(false))
    }
}

fn count(lengths: impl Iterator<Item = usize>) -> u64 {
    lengths.map(|len| len as u64).sum()
}

#[async_trait]
impl<B: QueueBackend + ?Sized> QueueBackend for Guarded<B> {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> &QueueCapabilities {
        self.inner.capabilities()
    }

    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        self.call(change(Op::CreateQueue), self.info(), Some(queue), |_| self.inner.create_queue(queue, spec)).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.call(long(Op::DeleteQueue), self.info(), Some(queue), |_| self.inner.delete_queue(queue)).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.call(read(Op::Queues), self.info(), None, |_| self.inner.queues()).await
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.call(read(Op::QueueSpec), self.info(), Some(queue), |_| self.inner.queue_spec(queue)).await
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        let bytes = count(messages.iter().map(|message| message.body.len()));
        let call = Call { op: Op::Send, repeat: Repeat::of_messages(&messages), limit: Limit::bytes(bytes) };
        let mut messages = Handed::new(messages, &self.policy);
        let mut began = None;
        let sent = self.call(call, self.info(), Some(queue), |tries| {
            let began = *began.get_or_insert_with(Instant::now);
            let (uncertain, messages) = (tries.is_uncertain(), messages.next());
            async move {
                if uncertain {
                    self.check_window(queue, began, call.limit).await?;
                }
                self.inner.send(queue, messages).await
            }
        });
        let sent = sent.await?;
        self.observer.bytes(Direction::Written, bytes);
        Ok(sent)
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let call = Call { op: Op::Receive, repeat: Repeat::Unsafe, limit: Limit::Plus(request.wait) };
        let received = self.call(call, self.info(), Some(queue), |_| self.inner.receive(queue, request)).await?;
        self.observer.bytes(Direction::Read, count(received.iter().map(|delivery| delivery.message.body.len())));
        Ok(received)
    }

    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        self.call(read(Op::DeleteMessages), self.info(), Some(queue), |_| self.inner.delete(queue, receipts)).await
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, update: &MessageUpdate) -> Result<Receipt> {
        let attempt = |_: &_| self.inner.update(queue, receipt, update);
        self.call(change(Op::UpdateMessage), self.info(), Some(queue), attempt).await
    }

    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        let attempt = |_: &_| self.inner.dead_letter(queue, receipt, reason);
        self.call(change(Op::DeadLetter), self.info(), Some(queue), attempt).await
    }

    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        self.call(long(Op::Redrive), self.info(), Some(queue), |_| self.inner.redrive(queue, max)).await
    }

    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        self.call(read(Op::Peek), self.info(), Some(queue), |_| self.inner.peek(queue, max)).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.call(read(Op::Stats), self.info(), Some(queue), |_| self.inner.stats(queue)).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.call(long(Op::Purge), self.info(), Some(queue), |_| self.inner.purge(queue)).await
    }

    fn foreign_tasks(&self) -> Option<Arc<dyn ForeignTasks>> {
        self.inner.foreign_tasks()
    }

    async fn ping(&self) -> Result<()> {
        self.ask(read(Op::QueuesPing), self.info(), |_| self.inner.ping()).await
    }

    async fn close(&self) -> Result<()> {
        self.observer.watch(Op::QueuesClose, None, self.inner.close()).await
    }
}
