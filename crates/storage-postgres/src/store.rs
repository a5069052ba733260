//! An open database.

use std::sync::Arc;

use storage_core::{Backends, Driver as _, DriverConfig, Result};

use crate::config::Settings;
use crate::shared::{Handle, Shared};
use crate::{PostgresDriver, PostgresQueue, PostgresRecords};

/// A PostgreSQL database with records and queues.
#[derive(Debug)]
pub struct PostgresStore {
    handle: Handle,
}

impl PostgresStore {
    /// Connects to the database that `config` names, and makes the toolkit's own tables where they are missing and may be made.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config): a bad address or option. [`Unauthorized`](storage_core::ErrorKind::Unauthorized): wrong user or password, or
    /// lacking rights. [`NotFound`](storage_core::ErrorKind::NotFound): there is no such database, or nothing in it and nothing may be made.
    /// [`Unavailable`](storage_core::ErrorKind::Unavailable): the server does not answer.
    /// [`Unsupported`](storage_core::ErrorKind::Unsupported): an old server, or tables of a later version.
    pub async fn open(config: &DriverConfig) -> Result<Self> {
        let open = async {
            PostgresDriver.check_options(config)?;
            let settings = Settings::new(config)?;
            let info = settings.info();
            Shared::open(settings).await.map_err(|e| e.with_backend(info))
        };
        let shared = open.await.map_err(|e| e.with_operation("postgres.open"))?;
        Ok(Self { handle: Handle::counted(shared) })
    }

    /// A handle on the tables, to be closed by itself.
    #[must_use]
    pub fn records(&self) -> PostgresRecords {
        PostgresRecords::new(self.handle.another())
    }

    /// A handle on the queues, to be closed by itself.
    #[must_use]
    pub fn queue(&self) -> PostgresQueue {
        PostgresQueue::new(self.handle.another())
    }

    /// Handles on everything.
    #[must_use]
    pub fn backends(&self) -> Backends {
        Backends { records: Some(Arc::new(self.records())), queue: Some(Arc::new(self.queue())), blobs: None }
    }

    /// How many connections to the primary there are, besides the one for news of messages.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.handle.shared().pool.size()
    }

    /// Closes this handle; those that were made from it stay open.
    ///
    /// # Errors
    /// None at present.
    pub async fn close(&self) -> Result<()> {
        self.handle.close().await
    }
}
