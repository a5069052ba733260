//! What is special to files: how they look, what people do to them, other processes, and disks that misbehave.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "the whole of it runs inside tests")]

mod blobs;
mod disk;
mod opening;
mod records;
mod shared;

use std::path::{Path, PathBuf};

use storage_core::{BlobPath, Clock, RecordBackend as _, TableName, TableSchema};
use storage_fs::{FsOptions, FsRecords, FsStore};
use tempfile::TempDir;

/// A store in a folder of its own.
struct Fixture {
    store: FsStore,
    folder: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { store: open(folder.path()).await, folder }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    async fn notes(&self) -> (FsRecords, TableName) {
        let records = self.store.records();
        records.create_table(&TableSchema::builder("Notes").keep_undeclared().build().unwrap()).await.unwrap();
        (records, "Notes".parse().unwrap())
    }
}

async fn open(root: &Path) -> FsStore {
    FsStore::open(root, FsOptions::default(), Clock::system()).await.unwrap()
}

fn blob(path: &str) -> BlobPath {
    BlobPath::new(path).unwrap()
}
