//! What the handles share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use storage_core::{BackendInfo, Backends, Clock, TableName};

use crate::blobs::BlobMap;
use crate::queues::Queues;
use crate::table::Table;
use crate::{MemoryBlobs, MemoryQueue, MemoryRecords};

/// A store in memory: tables, queues and blobs. Clones are the same store.
#[derive(Clone, Debug)]
pub struct MemoryStore(pub(crate) Arc<Shared>);

impl MemoryStore {
    /// An empty store on the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Clock::system())
    }

    /// An empty store on `clock`.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        static UNNAMED: AtomicU64 = AtomicU64::new(1);
        Self::named(format!("#{}", UNNAMED.fetch_add(1, Ordering::Relaxed)), clock)
    }

    pub(crate) fn named(name: String, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            info: BackendInfo::new("memory", name),
            clock,
            tables: RwLock::default(),
            queues: Mutex::default(),
            blobs: RwLock::default(),
        }))
    }

    /// A handle on the tables, to be closed by itself.
    #[must_use]
    pub fn records(&self) -> MemoryRecords {
        MemoryRecords::new(Arc::clone(&self.0))
    }

    /// A handle on the queues, to be closed by itself.
    #[must_use]
    pub fn queue(&self) -> MemoryQueue {
        MemoryQueue::new(Arc::clone(&self.0))
    }

    /// A handle on the blobs, to be closed by itself.
    #[must_use]
    pub fn blobs(&self) -> MemoryBlobs {
        MemoryBlobs::new(Arc::clone(&self.0))
    }

    /// Handles on everything.
    #[must_use]
    pub fn backends(&self) -> Backends {
        Backends {
            records: Some(Arc::new(self.records())),
            queue: Some(Arc::new(self.queue())),
            blobs: Some(Arc::new(self.blobs())),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

/// The data. Where two locks are taken, `tables` comes before `queues`; none is held over an await.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) info: BackendInfo,
    pub(crate) clock: Clock,
    tables: RwLock<BTreeMap<TableName, Table>>,
    queues: Mutex<Queues>,
    blobs: RwLock<BlobMap>,
}

// A panic under a lock would be a bug of this crate; going on with what is there beats failing every caller from then on.
impl Shared {
    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, BTreeMap<TableName, Table>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tables_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<TableName, Table>> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn blobs(&self) -> RwLockReadGuard<'_, BlobMap> {
        self.blobs.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn blobs_mut(&self) -> RwLockWriteGuard<'_, BlobMap> {
        self.blobs.write().unwrap_or_else(PoisonError::into_inner)
    }
}
