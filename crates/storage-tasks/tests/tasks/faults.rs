//! Backends that fail when told to, and that can do less than they could.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use storage_core::{
    BackendInfo, Batch, Delivery, Error, Key, Message, MessageUpdate, NewMessage, Page, Query, QueueBackend, QueueCapabilities,
    QueueName, QueueSpec, QueueStats, Receipt, Receive, Record, RecordBackend, RecordCapabilities, Result, SchemaChange, Sent,
    TableName, TableSchema, Version,
};
use tokio::sync::Notify;

/// When a process ends: after so many writes (commits, sends, deletes, updates) nothing works any more.
#[derive(Debug)]
pub(crate) struct Faults {
    left: AtomicI64,
    /// True: the write that is one too many takes effect, and its answer is lost.
    takes_effect: AtomicBool,
    ended: Notify,
}

impl Faults {
    pub(crate) fn none() -> Arc<Self> {
        let never = AtomicI64::new(i64::MAX);
        Arc::new(Self { left: never, takes_effect: AtomicBool::new(false), ended: Notify::new() })
    }

    /// Ends the process after `writes` more.
    pub(crate) fn end_after(&self, writes: i64, takes_effect: bool) {
        self.takes_effect.store(takes_effect, Ordering::SeqCst);
        self.left.store(writes, Ordering::SeqCst);
    }

    /// Starts it again. True where it had ended.
    pub(crate) fn restart(&self) -> bool {
        self.left.swap(i64::MAX, Ordering::SeqCst) < 0
    }

    pub(crate) async fn ended(&self) {
        let mut notified = std::pin::pin!(self.ended.notified());
        notified.as_mut().enable();
        if self.left.load(Ordering::SeqCst) < 0 {
            return;
        }
        notified.await;
    }

    /// True where the call is to be made although its answer is lost.
    fn spend(&self) -> Result<bool> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            left if left > 0 => Ok(false),
            0 if self.takes_effect.load(Ordering::SeqCst) => Ok(true),
            _ => Err(self.gone()),
        }
    }

    fn gone(&self) -> Error {
        self.ended.notify_waiters();
        Error::unavailable("this process has ended")
    }

    fn check(&self) -> Result<()> {
        if self.left.load(Ordering::SeqCst) < 0 { Err(self.gone()) } else { Ok(()) }
    }

    async fn write<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let lost = self.spend()?;
        let answer = call.await;
        if lost { Err(self.gone()) } else { answer }
    }
}

#[derive(Debug)]
pub(crate) struct FaultyRecords {
    pub(crate) inner: Arc<dyn RecordBackend>,
    pub(crate) capabilities: RecordCapabilities,
    pub(crate) faults: Arc<Faults>,
}

#[async_trait]
impl RecordBackend for FaultyRecords {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }
    fn capabilities(&self) -> &RecordCapabilities {
        &self.capabilities
    }
    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.inner.create_table(schema).await
    }
    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.inner.alter_table(table, change).await
    }
    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.inner.drop_table(table).await
    }
    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.inner.tables().await
    }
    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.faults.check()?;
        self.inner.get(table, keys).await
    }
    async fn scan(&self, query: &Query) -> Result<Page> {
        self.faults.check()?;
        self.inner.scan(query).await
    }
    async fn count(&self, query: &Query) -> Result<u64> {
        self.faults.check()?;
        self.inner.count(query).await
    }
    async fn sweep(&self, query: &Query) -> Result<u64> {
        self.faults.write(self.inner.sweep(query)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        self.faults.write(self.inner.commit(batch)).await
    }
    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        self.inner.history(table, key).await
    }
    async fn backup(&self, to: &Path) -> Result<()> {
        self.inner.backup(to).await
    }
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[derive(Debug)]
pub(crate) struct FaultyQueue {
    pub(crate) inner: Arc<dyn QueueBackend>,
    pub(crate) capabilities: QueueCapabilities,
    pub(crate) faults: Arc<Faults>,
}

#[async_trait]
impl QueueBackend for FaultyQueue {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }
    fn capabilities(&self) -> &QueueCapabilities {
        &self.capabilities
    }
    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        self.inner.create_queue(queue, spec).await
    }
    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.inner.delete_queue(queue).await
    }
    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.inner.queues().await
    }
    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.inner.queue_spec(queue).await
    }
    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        self.faults.write(self.inner.send(queue, messages)).await
    }
    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        self.faults.check()?;
        self.inner.receive(queue, request).await
    }
    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        self.faults.write(self.inner.delete(queue, receipts)).await
    }
    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        self.faults.write(self.inner.update(queue, receipt, change)).await
    }
    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        self.faults.write(self.inner.dead_letter(queue, receipt, reason)).await
    }
    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        self.inner.redrive(queue, max).await
    }
    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        self.inner.peek(queue, max).await
    }
    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.faults.check()?;
        self.inner.stats(queue).await
    }
    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.inner.purge(queue).await
    }
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
