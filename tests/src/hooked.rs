//! A queue whose sends do what a test wants.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use storage_core::{
    BackendInfo, Delivery, Error, Message, MessageUpdate, NewMessage, QueueBackend, QueueCapabilities, QueueName, QueueSpec,
    QueueStats, QueueStore, Receipt, Receive, Result, Sent,
};

/// Looks at a send and lets it pass or not.
pub type Hook = Box<dyn Fn(&QueueName, &[NewMessage]) -> Result<()> + Send + Sync>;

/// A queue in front of another. Clones share everything.
#[derive(Clone)]
pub struct Hooked {
    inner: Arc<dyn QueueBackend>,
    capabilities: QueueCapabilities,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    before: Mutex<Option<Hook>>,
    after: Mutex<Option<Hook>>,
    stalls: AtomicBool,
    calls: AtomicU64,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooked").field(&self.inner).finish()
    }
}

impl Hooked {
    /// In front of this one.
    #[must_use]
    pub fn over(inner: Arc<dyn QueueBackend>) -> Self {
        Self { capabilities: inner.capabilities().clone(), inner, state: Arc::default() }
    }

    /// Declares no more than this.
    #[must_use]
    pub fn declaring(mut self, change: impl FnOnce(&mut QueueCapabilities)) -> Self {
        change(&mut self.capabilities);
        self
    }

    /// As a store.
    #[must_use]
    pub fn store(&self) -> QueueStore {
        QueueStore::new(Arc::new(self.clone()))
    }

    /// Asked before each send, which fails with its error.
    pub fn before(&self, hook: impl Fn(&QueueName, &[NewMessage]) -> Result<()> + Send + Sync + 'static) {
        *self.state.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    /// Asked after each send, whose answer is its error then.
    pub fn after(&self, hook: impl Fn(&QueueName, &[NewMessage]) -> Result<()> + Send + Sync + 'static) {
        *self.state.after.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    /// The queue can't be reached.
    pub fn go_away(&self) {
        self.before(|_, _| Err(Error::unavailable("the queue is away")));
    }

    /// Sends go through again.
    pub fn come_back(&self) {
        *self.state.before.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.state.stalls.store(false, Ordering::SeqCst);
    }

    /// Sends are never answered.
    pub fn stall(&self) {
        self.state.stalls.store(true, Ordering::SeqCst);
    }

    /// How many sends were tried.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::SeqCst)
    }
}

fn ask(hook: &Mutex<Option<Hook>>, queue: &QueueName, messages: &[NewMessage]) -> Result<()> {
    hook.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(Ok(()), |hook| hook(queue, messages))
}

#[async_trait]
impl QueueBackend for Hooked {
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
        self.state.calls.fetch_add(1, Ordering::SeqCst);
        if self.state.stalls.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        ask(&self.state.before, queue, &messages)?;
        let sent = self.inner.send(queue, messages.clone()).await?;
        ask(&self.state.after, queue, &messages)?;
        Ok(sent)
    }
    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        self.inner.receive(queue, request).await
    }
    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        self.inner.delete(queue, receipts).await
    }
    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        self.inner.update(queue, receipt, change).await
    }
    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        self.inner.dead_letter(queue, receipt, reason).await
    }
    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        self.inner.redrive(queue, max).await
    }
    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        self.inner.peek(queue, max).await
    }
    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
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
