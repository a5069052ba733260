//! A handle on a database: closed by itself, and at the latest when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use storage_core::{BackendInfo, Error, Result};

use crate::database::Database;
use crate::jobs::closed;

/// One user of a database.
#[derive(Debug)]
pub(crate) struct Handle {
    database: Arc<Database>,
    closed: AtomicBool,
}

impl Handle {
    /// A handle that the database counts already.
    pub(crate) fn counted(database: Arc<Database>) -> Self {
        Self { database, closed: AtomicBool::new(false) }
    }

    /// One more handle on the same database.
    pub(crate) fn another(&self) -> Self {
        let closed = self.is_closed() || !self.database.join();
        Self { database: Arc::clone(&self.database), closed: AtomicBool::new(closed) }
    }

    pub(crate) fn info(&self) -> &BackendInfo {
        &self.database.info
    }

    /// The database, whether or not this handle was closed.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The database, unless this handle was closed.
    pub(crate) fn open(&self) -> Result<&Database> {
        if self.is_closed() { Err(closed()) } else { Ok(&self.database) }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes the handle; the last one closes the database and waits until everything is written.
    pub(crate) async fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let last = self.database.leave();
        // Who waits for messages through this handle looks whether it is still open.
        self.database.shared.news.announce_all();
        if last {
            let database = Arc::clone(&self.database);
            tokio::task::spawn_blocking(move || database.wait_for_end())
                .await
                .map_err(|e| Error::internal(format!("closing was given up: {e}")).with_source(e))?;
        }
        Ok(())
    }

    /// Adds to an error what was done, and where.
    pub(crate) fn locate(&self, error: Error, operation: &'static str) -> Error {
        error.with_operation(operation).with_backend(self.info())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            // The threads finish what is in and end by themselves.
            self.database.leave();
        }
    }
}
