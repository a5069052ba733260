//! A handle on a store: closed by itself, and at the latest when it is dropped.

use std::sync::Arc;

use storage_core::{BackendInfo, OpenFlag, Result};

use crate::shared::Shared;

/// One user of a store.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
    open: OpenFlag,
}

impl Handle {
    /// A handle that the store counts already.
    pub(crate) fn counted(shared: Arc<Shared>) -> Self {
        Self { shared, open: OpenFlag::default() }
    }

    /// One more handle on the same store.
    pub(crate) fn another(&self) -> Self {
        let another = Self { shared: Arc::clone(&self.shared), open: OpenFlag::default() };
        if self.is_closed() || !self.shared.join() {
            another.open.close();
        }
        another
    }

    pub(crate) fn info(&self) -> &BackendInfo {
        &self.shared.info
    }

    /// The store, whether or not this handle was closed.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The store, unless this handle was closed.
    pub(crate) fn open(&self) -> Result<&Arc<Shared>> {
        self.open.check()?;
        Ok(&self.shared)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.open.is_closed()
    }

    /// Closes the handle; the last one waits until everything is written, and closes the connections.
    pub(crate) async fn close(&self) -> Result<()> {
        if self.open.close() && self.shared.leave() {
            self.shared.committer.finish().await;
            self.shared.pool.close();
        }
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.open.close() {
            // What was begun is finished; the connections close with the last that uses them.
            self.shared.leave();
        }
    }
}
