//! A cache whose disk is full, or can't be written: it keeps less, and no read fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use storage_core::{BlobBackend, BlobStore, Clock};
use storage_fs::{FsOptions, FsStore};
use storage_layers::transform::{CacheOptions, CachedBlobs, FileOptions};
use storage_tests::mount::SmallDisk;

/// What the log says.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.bytes()).lines().map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A runtime whose every thread logs there.
fn logged(test: impl Future<Output = ()>) -> Vec<String> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let dispatch = tracing::Dispatch::new(subscriber);
    let of_thread = dispatch.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&of_thread)))
        .build()
        .unwrap();
    tracing::dispatcher::with_default(&dispatch, || runtime.block_on(test));
    drop(runtime);
    log.lines()
}

async fn source(folder: &Path) -> Arc<dyn BlobBackend> {
    Arc::new(FsStore::open(folder, FsOptions::default(), Clock::system()).await.unwrap().blobs())
}

fn cached(inner: &Arc<dyn BlobBackend>, dir: &Path) -> BlobStore {
    let options = CacheOptions { max_bytes: 0, max_blob_bytes: 100_000, max_age: None };
    BlobStore::new(Arc::new(CachedBlobs::with_files(Arc::clone(inner), options, FileOptions::new(dir))))
}

fn bytes(n: usize, len: usize) -> Bytes {
    (0..len).map(|at| u8::try_from((at * (n + 7) + n) % 251).unwrap()).collect()
}

fn path(n: usize) -> storage_core::BlobPath {
    n.to_string().parse().unwrap()
}

/// Puts blobs, small and large, and reads each twice through the cache in `dir`.
async fn read_through(inner: &Arc<dyn BlobBackend>, dir: &Path) {
    let (source, cache) = (BlobStore::new(Arc::clone(inner)), cached(inner, dir));
    for n in 0..12 {
        let content = bytes(n, if n % 2 == 0 { 10_000 } else { 600_000 });
        source.put(&path(n), content.clone()).await.unwrap();
        for _ in 0..2 {
            assert!(cache.get(&path(n)).await.unwrap() == content, "{n}");
        }
    }
    for n in 0..12 {
        assert_eq!(cache.get_range(&path(n), 5..9).await.unwrap(), bytes(n, 9).slice(5..9));
    }
    // What is gone is gone.
    cache.delete(&path(0)).await.unwrap();
    assert!(cache.get(&path(0)).await.is_err());
}

fn warnings(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.contains("WARN")).collect()
}

#[test]
fn a_full_disk_keeps_nothing_more_and_is_told_of_once() {
    let Some(disk) = SmallDisk::mount(2 << 10) else { return };
    let store = tempfile::tempdir().unwrap();
    let lines = logged(async { read_through(&source(store.path()).await, disk.path()).await });
    let warned = warnings(&lines);
    assert!(warned.len() == 1 && warned[0].contains("can't be cached"), "{warned:?}");
    let unfinished = std::fs::read_dir(disk.path().join("blobs-1/new")).unwrap().count();
    assert_eq!(unfinished, 0, "half entries are left");
}

#[test]
fn a_read_only_disk_keeps_nothing_and_gives_what_it_has() {
    let Some(disk) = SmallDisk::mount(8 << 10) else { return };
    let store = tempfile::tempdir().unwrap();
    let lines = logged(async {
        let inner = source(store.path()).await;
        BlobStore::new(Arc::clone(&inner)).put(&path(100), bytes(100, 10_000)).await.unwrap();
        cached(&inner, disk.path()).get(&path(100)).await.unwrap();
    });
    assert!(warnings(&lines).is_empty(), "{lines:?}");
    disk.set_read_only(true);
    let lines = logged(async {
        let inner = source(store.path()).await;
        assert!(cached(&inner, disk.path()).get(&path(100)).await.unwrap() == bytes(100, 10_000));
        read_through(&inner, disk.path()).await;
        // An entry that can't be removed is not read once its blob has changed.
        let cache = cached(&inner, disk.path());
        cache.put(&path(100), "new").await.unwrap();
        assert_eq!(cache.get(&path(100)).await.unwrap(), "new");
        assert_eq!(cached(&inner, disk.path()).get(&path(100)).await.unwrap(), "new");
    });
    disk.set_read_only(false);
    let warned = warnings(&lines);
    assert!(!warned.is_empty() && warned.len() <= 4, "one for each handle: {warned:?}");
}

#[test]
fn a_folder_that_cannot_be_is_told_of_once() {
    let store = tempfile::tempdir().unwrap();
    let file = store.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let lines = logged(async { read_through(&source(&store.path().join("store")).await, &file.join("cache")).await });
    let warned = warnings(&lines);
    assert!(warned.len() == 1 && warned[0].contains("can't be cached"), "{warned:?}");
}
