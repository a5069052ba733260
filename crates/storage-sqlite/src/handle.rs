//! A handle on a database: closed by itself, and at the latest when it is dropped.

use std::sync::Arc;

use storage_core::{BackendInfo, Error, OpenFlag, Result};

use crate::database::Database;

/// One user of a database.
#[derive(Debug)]
pub(crate) struct Handle {
    database: Arc<Database>,
    open: OpenFlag,
}

impl Handle {
    /// A handle that the database counts already.
    pub(crate) fn counted(database: Arc<Database>) -> Self {
        Self { database, open: OpenFlag::default() }
    }

    /// One more handle on the same database.
    pub(crate) fn another(&self) -> Self {
        let another = Self { database: Arc::clone(&self.database), open: OpenFlag::default() };
        if self.is_closed() || !self.database.join() {
            another.open.close();
        }
        another
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
        self.open.check()?;
        Ok(&self.database)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.open.is_closed()
    }

    /// Closes the handle; the last one closes the database and waits until everything is written.
    pub(crate) async fn close(&self) -> Result<()> {
        if !self.open.close() {
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
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.open.close() {
            // The threads finish what is in and end by themselves.
            self.database.leave();
        }
    }
}
