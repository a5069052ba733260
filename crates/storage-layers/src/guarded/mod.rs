//! [`Guarded`]: a backend behind a [`Policy`], observed.

mod blobs;
mod body;
mod listing;
mod queues;
mod reading;
mod records;

use std::fmt::{self, Display};
use std::sync::Arc;

use storage_core::{BackendInfo, BlobBackend, QueueBackend, RecordBackend, Result};

use crate::observe::Observer;
use crate::policy::{Call, Policy, Tries};

/// A backend behind a policy: itself a backend, with the same capabilities and the same answers.
///
/// Needs tokio's timer, as does everything that waits.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use std::sync::Arc;
/// use storage_core::{BlobBackend, BlobStore};
/// use storage_layers::guarded::Guarded;
/// use storage_layers::observe::Observer;
/// use storage_layers::policy::{Concurrency, Policy};
/// use storage_memory::MemoryStore;
///
/// let backend = Arc::new(MemoryStore::new().blobs());
/// let observer = Observer::new("uploads", backend.info());
/// let policy = Policy::builder().concurrency(Concurrency::at_most(8)).build()?;
/// let blobs = BlobStore::new(Arc::new(Guarded::new(backend, policy, observer)));
/// blobs.put_text(&"a".parse()?, "hello").await?;
/// # Ok::<(), storage_core::Error>(()) })?;
/// # Ok::<(), storage_core::Error>(())
/// ```
pub struct Guarded<B: ?Sized> {
    inner: Arc<B>,
    policy: Policy,
    observer: Observer,
}

impl<B: ?Sized> Guarded<B> {
    /// `inner` behind `policy`. Guards of one backend should share one policy.
    pub fn new(inner: Arc<B>, policy: Policy, observer: Observer) -> Self {
        Self { inner, policy, observer }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Makes a call through the policy.
    async fn call<T, F, Fut>(
        &self,
        call: Call,
        info: &BackendInfo,
        subject: Option<&(dyn Display + Sync)>,
        attempt: F,
    ) -> Result<T>
    where
        F: FnMut(&Tries) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let outcome = self.observer.watch(call.op, subject, self.policy.run(call, &self.observer, || true, attempt)).await;
        outcome.map_err(|e| e.with_operation(call.op.name()).with_backend(info))
    }

    /// Makes a call that finds out whether the service is there: with timeout and retry, but neither behind other calls nor held back by the breaker.
    async fn ask<T, F, Fut>(&self, call: Call, info: &BackendInfo, attempt: F) -> Result<T>
    where
        F: FnMut(&Tries) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let outcome = self.observer.watch(call.op, None, self.policy.ask(call, &self.observer, attempt)).await;
        outcome.map_err(|e| e.with_operation(call.op.name()).with_backend(info))
    }
}

impl<B: ?Sized> Clone for Guarded<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), policy: self.policy.clone(), observer: self.observer.clone() }
    }
}

impl<B: fmt::Debug + ?Sized> fmt::Debug for Guarded<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("inner", &&*self.inner).field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// What is handed to each try: a copy where there may be another try, the thing itself where not.
struct Handed<T> {
    value: Option<T>,
    keep: bool,
}

impl<T: Clone + Default> Handed<T> {
    fn new(value: T, policy: &Policy) -> Self {
        Self { value: Some(value), keep: policy.retries() }
    }

    fn next(&mut self) -> T {
        let value = if self.keep { self.value.clone() } else { self.value.take() };
        value.unwrap_or_default()
    }
}

/// All the stores of one `open` behind one policy; observed as `component` where one is named.
///
/// Messages within a batch go on working: the backend behind the records is the one behind the queue, as before.
#[must_use]
pub fn guard(backends: storage_core::Backends, policy: &Policy, component: Option<&str>) -> storage_core::Backends {
    let observer = |info: &BackendInfo| component.map_or_else(Observer::default, |component| Observer::new(component, info));
    let records = backends.records.map(|records| {
        let observer = observer(records.info());
        Arc::new(Guarded::new(records, policy.clone(), observer)) as Arc<dyn RecordBackend>
    });
    let queue = backends.queue.map(|queue| {
        let observer = observer(queue.info());
        Arc::new(Guarded::new(queue, policy.clone(), observer)) as Arc<dyn QueueBackend>
    });
    let blobs = backends.blobs.map(|blobs| {
        let observer = observer(blobs.info());
        Arc::new(Guarded::new(blobs, policy.clone(), observer)) as Arc<dyn BlobBackend>
    });
    storage_core::Backends { records, queue, blobs }
}
