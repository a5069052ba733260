//! Blobs from store to store: whole or not at all, attributes kept, the rest done by another run, nothing held in memory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use storage_core::{
    BlobPath, BlobStore, ErrorKind, FileAction, Progress, PutMode, PutOptions, Skip, TransferOptions, TransferReport,
};
use storage_memory::MemoryStore;
use storage_tests::breaking::Breaking;
use tempfile::TempDir;

fn path(text: &str) -> BlobPath {
    BlobPath::new(text).unwrap()
}

fn memory() -> BlobStore {
    BlobStore::new(Arc::new(MemoryStore::new().blobs()))
}

async fn files() -> (BlobStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = storage_tests::open(&storage_tests::address("fs", folder.path())).await.unwrap().blobs.unwrap();
    (store, folder)
}

fn content(len: usize, seed: u8) -> Bytes {
    (0..len).map(|i| u8::try_from((i * 31 + i / 251 + usize::from(seed)) % 256).unwrap()).collect()
}

async fn listed(store: &BlobStore) -> Vec<String> {
    store.list_all(None).map_ok(|meta| meta.path.to_string()).try_collect().await.unwrap()
}

const NAMES: [&str; 5] = ["a", "a/b", "c/large", "c/odd name ü", "empty"];

async fn fill(store: &BlobStore) {
    for (seed, name) in (0..).zip(NAMES) {
        let len = match name {
            "empty" => 0,
            "c/large" => 20 << 20,
            _ => 1000 + usize::from(seed),
        };
        let options = PutOptions::default().content_type("text/x-test").metadata("name", format!("n{seed}"));
        store.put_with(&path(&format!("in/{name}")), content(len, seed), &options).await.unwrap();
    }
}

async fn copy(from: &BlobStore, to: &BlobStore, options: &TransferOptions) -> TransferReport {
    from.copy_dir_to(Some(&path("in")), to, Some(&path("out")), options).await.unwrap()
}

async fn there_and_back(one: &BlobStore, other: &BlobStore) {
    fill(one).await;
    let seen = Arc::new(Mutex::new(Progress::default()));
    let last = Arc::clone(&seen);
    let progress = Some(Arc::new(move |progress: Progress| {
        let mut last = last.lock().unwrap();
        last.bytes = last.bytes.max(progress.bytes);
        last.files = last.files.max(progress.files);
    }) as _);
    let report = copy(one, other, &TransferOptions { progress, ..TransferOptions::default() }).await;
    assert_eq!((report.files, report.failed), (5, 0));
    let seen = *seen.lock().unwrap();
    assert_eq!((seen.bytes, seen.files), (report.bytes, 5), "all bytes are told of, once");
    let report = other.copy_dir_to(Some(&path("out")), one, Some(&path("back")), &TransferOptions::default()).await.unwrap();
    assert_eq!(report.files, 5);
    for name in NAMES {
        let (from, back) = (path(&format!("in/{name}")), path(&format!("back/{name}")));
        assert!(one.get(&from).await.unwrap() == one.get(&back).await.unwrap(), "{name}");
        assert_eq!(one.head(&from).await.unwrap().attributes, one.head(&back).await.unwrap().attributes, "{name}");
    }
}

#[tokio::test]
async fn blobs_and_attributes_arrive() {
    there_and_back(&memory(), &memory()).await;
    let (files, _folder) = files().await;
    there_and_back(&memory(), &files).await;
}

#[tokio::test]
async fn files_and_memory_are_the_same_the_other_way_round() {
    let (files, _folder) = files().await;
    there_and_back(&files, &memory()).await;
}

#[tokio::test]
async fn one_backend_copies_by_itself() {
    let breaking = Breaking::memory();
    let store = breaking.store();
    let (one, other) = (store.with_prefix(&path("x")).unwrap(), store.with_prefix(&path("y")).unwrap());
    fill(&one).await;
    let report = copy(&one, &other, &TransferOptions::default()).await;
    assert_eq!((report.files, breaking.take_ranges().len()), (5, 0), "nothing was read");
    assert_eq!(other.head(&path("out/a")).await.unwrap().attributes.metadata["name"], "n0");
    for (from, to) in [("in", "in/x"), ("in/c", "in"), ("in", "in")] {
        let error = one.copy_dir_to(Some(&path(from)), &one, Some(&path(to)), &TransferOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{from} to {to}: {error}");
    }
    let error = one.copy_file_to("in/a", &one, "in/a", &TransferOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[tokio::test]
async fn what_is_there_is_left_alone() {
    let breaking = Breaking::memory();
    let (from, to) = (breaking.store(), memory());
    fill(&from).await;
    let options = TransferOptions { skip: Skip::Unchanged, delete: true, ..TransferOptions::default() };
    assert_eq!(copy(&from, &to, &options).await.files, 5);
    drop(breaking.take_ranges());
    let again = copy(&from, &to, &options).await;
    assert_eq!((again.files, again.skipped, breaking.take_ranges().len()), (0, 5, 0), "nothing was read");

    // Another of the same size at the target, which is younger: only the content tells.
    to.put(&path("out/a"), content(1000, 9)).await.unwrap();
    to.put(&path("out/old"), "not in the source").await.unwrap();
    to.put(&path("beside"), "not below the path").await.unwrap();
    let dry = TransferOptions { dry_run: true, skip: Skip::SameContent, ..options.clone() };
    let would = copy(&from, &to, &dry).await;
    assert_eq!((would.files, would.skipped, would.removed), (1, 4, 1));
    assert!(to.exists(&path("out/old")).await.unwrap() && to.get(&path("out/a")).await.unwrap() == content(1000, 9));
    let done = copy(&from, &to, &TransferOptions { dry_run: false, ..dry }).await;
    assert_eq!((done.files, done.skipped, done.removed), (1, 4, 1));
    assert!(to.get(&path("out/a")).await.unwrap() == content(1000, 0));
    assert_eq!(listed(&to).await, ["beside", "out/a", "out/a/b", "out/c/large", "out/c/odd name ü", "out/empty"]);

    let nowhere = Some(path("mistyped"));
    let error = from.copy_dir_to(nowhere.as_ref(), &to, Some(&path("out")), &options).await.unwrap_err();
    assert_eq!((error.kind(), listed(&to).await.len()), (ErrorKind::NotFound, 6), "a mistyped path empties nothing: {error}");
}

#[tokio::test]
async fn a_broken_copy_is_finished_by_the_next() {
    let breaking = Breaking::memory();
    let (from, (to, _folder)) = (breaking.store(), files().await);
    fill(&from).await;
    // The large one breaks in the middle.
    breaking.set_left(10 << 20);
    let options = TransferOptions { skip: Skip::Unchanged, keep_going: true, delete: true, ..TransferOptions::default() };
    to.put(&path("out/old"), "not in the source").await.unwrap();
    let first = copy(&from, &to, &options).await;
    assert_eq!((first.failed, first.removed), (1, 0), "nothing is removed after a failure: {first:?}");
    assert!(first.failures[0].to_string().contains("c/large"), "{}", first.failures[0]);
    assert!(!to.exists(&path("out/c/large")).await.unwrap(), "whole or not at all");
    breaking.set_left(u64::MAX);
    let second = copy(&from, &to, &options).await;
    assert_eq!((second.files, second.skipped, second.removed), (1, first.files, 1));
    assert!(to.get(&path("out/c/large")).await.unwrap() == content(20 << 20, 2));
}

#[tokio::test]
async fn a_dropped_copy_stops_and_writes_nothing() {
    let breaking = Breaking::memory();
    let (from, (to, _folder)) = (breaking.store(), files().await);
    from.put(&path("in/large"), content(20 << 20, 1)).await.unwrap();
    breaking.stall_at(Some(0));
    {
        let options = TransferOptions::default();
        let mut copying = std::pin::pin!(from.copy_dir_to(None, &to, None, &options));
        tokio::select! {
            ended = &mut copying => panic!("it never comes to its end: {ended:?}"),
            () = breaking.until_only_stalled(1) => {}
        }
    }
    breaking.readers().wait_for(|count| *count == 0).await.unwrap();
    assert_eq!(listed(&to).await, [""; 0]);
}

#[tokio::test]
async fn conditions_hold_and_moves_remove_what_was_copied() {
    let (from, to) = (memory(), memory());
    fill(&from).await;
    to.put(&path("out/a"), "theirs").await.unwrap();
    let put = PutOptions::default().mode(PutMode::Create);
    let options = TransferOptions { put, keep_going: true, remove_source: true, ..TransferOptions::default() };
    let report = copy(&from, &to, &options).await;
    assert_eq!((report.files, report.failed), (4, 1));
    assert_eq!(report.failures[0].kind(), ErrorKind::AlreadyExists);
    assert_eq!(to.get(&path("out/a")).await.unwrap(), "theirs");
    assert_eq!(listed(&from).await, ["in/a"], "what was not copied stays");
    let meta = from.head(&path("in/a")).await.unwrap();
    let each = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&each);
    let options = TransferOptions {
        remove_source: true,
        each: Some(Arc::new(move |done| seen.lock().unwrap().push((done.path.clone(), done.action)))),
        ..TransferOptions::default()
    };
    let report = from.copy_files_to([(meta, path("new"))], &to, &options).await.unwrap();
    assert_eq!((report.files, listed(&from).await.len()), (1, 0));
    assert_eq!(*each.lock().unwrap(), [("in/a".to_owned(), FileAction::Written)]);
}

#[tokio::test(start_paused = true)]
async fn bytes_do_not_move_faster_than_they_may() {
    const RATE: u64 = 1 << 20;
    let (from, to) = (Breaking::memory().store(), memory());
    let folder = tempfile::tempdir().unwrap();
    for n in 0..10 {
        from.put(&path(&format!("in/{n}")), content(1 << 20, n)).await.unwrap();
    }
    let options = TransferOptions { bytes_per_second: NonZeroU64::new(RATE), ..TransferOptions::default() };
    let took = async |what: &str, report: TransferReport, began: tokio::time::Instant| {
        let took = began.elapsed();
        assert_eq!(report.files, 10);
        // The last piece is not waited for.
        let expected = Duration::from_secs(8)..Duration::from_secs(12);
        assert!(expected.contains(&took), "{what}: 10 MiB at 1 MiB a second took {took:?}");
    };
    let began = tokio::time::Instant::now();
    took("across", copy(&from, &to, &options).await, began).await;
    let began = tokio::time::Instant::now();
    took("down", to.download_dir(Some(&path("out")), folder.path(), &options).await.unwrap(), began).await;
    let began = tokio::time::Instant::now();
    took("up", to.upload_dir(folder.path(), Some(&path("up")), &options).await.unwrap(), began).await;
}
