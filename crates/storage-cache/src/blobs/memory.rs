//! Small blobs kept in memory.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use storage_core::{BlobMeta, BlobPath};

/// What an entry takes besides its bytes and its path, about.
const ENTRY: usize = 512;

/// What is kept of a blob.
pub(super) struct Entry {
    pub(super) meta: BlobMeta,
    pub(super) bytes: Bytes,
    /// The state was this one then, or later.
    pub(super) checked: Instant,
}

/// Entries, of which those that are used least go when there are too many bytes.
pub(super) struct Memory {
    entries: moka::sync::Cache<BlobPath, Arc<Entry>>,
}

impl Memory {
    pub(super) fn new(max_bytes: u64) -> Self {
        let weigh = |path: &BlobPath, entry: &Arc<Entry>| {
            u32::try_from(entry.bytes.len() + path.as_str().len() + ENTRY).unwrap_or(u32::MAX)
        };
        Self { entries: moka::sync::Cache::builder().max_capacity(max_bytes).weigher(weigh).build() }
    }

    pub(super) fn get(&self, path: &BlobPath) -> Option<Arc<Entry>> {
        self.entries.get(path)
    }

    pub(super) fn keep(&self, entry: Entry) {
        self.entries.insert(entry.meta.path.clone(), Arc::new(entry));
    }

    pub(super) fn remove(&self, path: &BlobPath) {
        self.entries.invalidate(path);
    }

    pub(super) fn clear(&self) {
        self.entries.invalidate_all();
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}
