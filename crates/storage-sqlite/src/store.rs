//! An open file.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use storage_core::{BackendInfo, Backends, Driver as _, DriverConfig, Error, Result};

use crate::config::Settings;
use crate::database;
use crate::handle::Handle;
use crate::{SqliteDriver, SqliteQueue, SqliteRecords};

/// A SQLite file with records and queues.
///
/// Handles on one file in one process share one writing thread and the limits that it was first opened with, unless they differ in how durable
/// commits are or in their clock.
#[derive(Debug)]
pub struct SqliteStore {
    handle: Handle,
}

impl SqliteStore {
    /// Opens the file that `config` names, and creates it where it is missing and may be created.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config): a bad address or option. [`NotFound`](storage_core::ErrorKind::NotFound): it is not there, and must not be created.
    /// [`Corrupt`](storage_core::ErrorKind::Corrupt): not a SQLite database, or a damaged one. [`Unsupported`](storage_core::ErrorKind::Unsupported): written by a later version.
    /// [`Unauthorized`](storage_core::ErrorKind::Unauthorized): file or folder can't be written.
    pub async fn open(config: &DriverConfig) -> Result<Self> {
        let open = async {
            SqliteDriver.check_options(config)?;
            let settings = Settings::new(config)?;
            let info = BackendInfo::new("sqlite", settings.path.display().to_string());
            // The handle is made where the database is opened: if the caller goes away meanwhile, dropping it closes the database.
            let opened = tokio::task::spawn_blocking(move || database::open(settings).map(Handle::counted)).await;
            let opened = opened.map_err(|e| Error::internal(format!("opening was given up: {e}")).with_source(e))?;
            opened.map_err(|e| e.with_backend(info))
        };
        let handle = open.await.map_err(|e| e.with_operation("sqlite.open"))?;
        Ok(Self { handle })
    }

    /// A handle on the tables, to be closed by itself.
    #[must_use]
    pub fn records(&self) -> SqliteRecords {
        SqliteRecords::new(self.handle.another())
    }

    /// A handle on the queues, to be closed by itself.
    #[must_use]
    pub fn queue(&self) -> SqliteQueue {
        SqliteQueue::new(self.handle.another())
    }

    /// Handles on everything.
    #[must_use]
    pub fn backends(&self) -> Backends {
        Backends { records: Some(Arc::new(self.records())), queue: Some(Arc::new(self.queue())), blobs: None }
    }

    /// How many transactions this process has committed to the file: with many callers, far fewer than there were writes.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.handle.database().shared.commits.load(Ordering::Relaxed)
    }

    /// Closes this handle; those that were made from it stay open.
    ///
    /// # Errors
    /// None at present.
    pub async fn close(&self) -> Result<()> {
        self.handle.close().await
    }
}
