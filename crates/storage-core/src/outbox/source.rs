//! [`Source`]: where the queue comes from.

use std::fmt;

use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use crate::{QueueStore, Result};

type Open = dyn Fn() -> BoxFuture<'static, Result<QueueStore>> + Send + Sync;

/// A queue that is there, or that is opened when it is first needed.
pub(super) struct Source {
    opened: OnceCell<QueueStore>,
    open: Option<Box<Open>>,
}

impl Source {
    pub(super) fn opened(queue: QueueStore) -> Self {
        Self { opened: OnceCell::new_with(Some(queue)), open: None }
    }

    pub(super) fn lazy<F>(open: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<QueueStore>> + Send + 'static,
    {
        let open: Box<Open> = Box::new(move || Box::pin(open()));
        Self { opened: OnceCell::new(), open: Some(open) }
    }

    /// The queue, if it is open.
    pub(super) fn get(&self) -> Option<QueueStore> {
        self.opened.get().cloned()
    }

    /// The queue; one that could not be opened is tried again by the next call.
    pub(super) async fn open(&self) -> Result<QueueStore> {
        let open = || async {
            match &self.open {
                Some(open) => open().await,
                // One or the other is there.
                None => Err(crate::Error::internal("an outbox without a queue")),
            }
        };
        self.opened.get_or_try_init(open).await.cloned()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.opened.get() {
            Some(queue) => queue.info().fmt(f),
            None => f.write_str("not opened yet"),
        }
    }
}
