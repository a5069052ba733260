//! Files and folders up and down: whole or not at all, resumed where they broke, pinned to one state of the blob.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use storage_core::{BlobPath, ErrorKind, FileAction, FileDone, GetOptions, Progress, Skip, TransferOptions};
use storage_tests::breaking::Breaking;
use storage_tests::mount::SmallDisk;

fn path(text: &str) -> BlobPath {
    BlobPath::new(text).unwrap()
}

/// Bytes in which every position can be told from its neighbours.
fn content(len: usize, seed: u8) -> Bytes {
    (0..len).map(|i| u8::try_from((i * 31 + i / 251 + usize::from(seed)) % 256).unwrap()).collect()
}

const LARGE: usize = 50 << 20;
/// Bytes in a part.
const PART: u64 = 8 << 20;
/// The second part.
const SECOND: std::ops::Range<u64> = PART..2 * PART;

#[tokio::test]
async fn a_broken_download_goes_on_where_it_was() {
    let (store, left, sent) = Breaking::in_memory();
    let folder = tempfile::tempdir().unwrap();
    let (blob, local) = (path("big"), folder.path().join("big.bin"));
    let bytes = content(LARGE, 1);
    store.put(&blob, bytes.clone()).await.unwrap();

    left.store(30 << 20, Ordering::SeqCst);
    let error = store.download_file(&blob, &local).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!local.exists(), "the target appears when it is whole");

    left.store(u64::MAX, Ordering::SeqCst);
    let sent_before = sent.swap(0, Ordering::SeqCst);
    store.download_file(&blob, &local).await.unwrap();
    assert!(std::fs::read(&local).unwrap() == bytes, "the parts fit together");
    let sent_after = sent.load(Ordering::SeqCst);
    assert!(sent_after < LARGE as u64, "went on, rather than beginning again: {sent_before} then {sent_after} bytes");
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(files, ["big.bin"], "nothing is left behind");
}

#[tokio::test]
async fn a_part_that_breaks_is_all_that_is_fetched_again() {
    let breaking = Breaking::memory();
    let store = breaking.store();
    let folder = tempfile::tempdir().unwrap();
    let (blob, local, bytes) = (path("big"), folder.path().join("big.bin"), content(LARGE, 1));
    store.put(&blob, bytes.clone()).await.unwrap();
    breaking.break_at(Some(PART));
    let error = store.download_file(&blob, &local).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    breaking.break_at(None);
    let begun = breaking.take_ranges();
    assert!(begun.len() > 2 && begun.contains(&(0..PART)), "the parts beside it were under way: {begun:?}");
    store.download_file(&blob, &local).await.unwrap();
    assert!(std::fs::read(&local).unwrap() == bytes, "the parts fit together");
    let mut again = breaking.take_ranges();
    again.retain(|range| begun.contains(range));
    assert_eq!(again, [SECOND], "what was under way beside it was finished");
}

/// How the note of a download ends: a byte a part.
fn marks(target: &Path) -> String {
    let note = target.with_file_name(format!(".{}.storage-part.json", target.file_name().unwrap().to_str().unwrap()));
    std::fs::read_to_string(note).unwrap_or_default().lines().nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_killed_download_fetches_no_part_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (url, local) = (storage_tests::address("fs", folder.path()), folder.path().join("big.bin"));
    let inner = storage_tests::open(&url).await.unwrap().blobs.unwrap();
    let bytes = content(LARGE, 1);
    inner.put(&path("big"), bytes.clone()).await.unwrap();
    // The second part never ends, all others come.
    let mut child = Command::new(env!("CARGO_BIN_EXE_storage-test-child"))
        .args(["download", &url, "big", local.to_str().unwrap(), &PART.to_string()])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let missing = |marks: &str| marks.bytes().filter(|mark| *mark == b'.').count();
    let began = std::time::Instant::now();
    while marks(&local).is_empty() || missing(&marks(&local)) > 1 {
        assert!(child.try_wait().unwrap().is_none(), "it can't end by itself");
        assert!(began.elapsed().as_secs() < 60, "waited too long: {}", marks(&local));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(marks(&local).bytes().position(|mark| mark == b'.'), Some(1), "{}", marks(&local));
    assert!(!local.exists());

    let breaking = Breaking::over(Arc::clone(inner.backend()));
    breaking.store().download_file("big", &local).await.unwrap();
    assert!(std::fs::read(&local).unwrap() == bytes, "the parts fit together");
    assert_eq!(breaking.take_ranges(), [SECOND], "all others were there");
}

#[tokio::test]
async fn a_download_that_is_dropped_reads_no_further() {
    let breaking = Breaking::memory();
    let store = breaking.store();
    let folder = tempfile::tempdir().unwrap();
    store.put(&path("big"), content(LARGE, 1)).await.unwrap();
    breaking.stall_at(Some(PART));
    let mut readers = breaking.readers();
    let local = folder.path().join("big.bin");
    {
        let mut download = std::pin::pin!(store.download_file("big", &local));
        tokio::select! {
            ended = &mut download => panic!("one part never comes: {ended:?}"),
            () = breaking.until_only_stalled(7) => {}
        }
        assert_eq!(*readers.borrow(), 1, "the part that never comes is being read");
    }
    readers.wait_for(|count| *count == 0).await.unwrap();
    drop(breaking.take_ranges());
    breaking.stall_at(None);
    store.download_file("big", &local).await.unwrap();
    assert_eq!(breaking.take_ranges(), [SECOND], "what had come is kept");
}

#[tokio::test]
async fn a_blob_that_changed_meanwhile_is_not_mixed() {
    let (store, left, _) = Breaking::in_memory();
    let folder = tempfile::tempdir().unwrap();
    let (blob, local) = (path("big"), folder.path().join("big.bin"));
    store.put(&blob, content(LARGE, 1)).await.unwrap();
    left.store(30 << 20, Ordering::SeqCst);
    store.download_file(&blob, &local).await.unwrap_err();

    let second = content(LARGE, 2);
    store.put(&blob, second.clone()).await.unwrap();
    left.store(u64::MAX, Ordering::SeqCst);
    store.download_file(&blob, &local).await.unwrap();
    assert!(std::fs::read(&local).unwrap() == second, "the second state, with nothing of the first in it");
}

#[tokio::test]
async fn a_range_of_a_changed_blob_is_a_conflict() {
    let (store, _, _) = Breaking::in_memory();
    let blob = path("b");
    let before = store.put(&blob, "first").await.unwrap();
    store.put(&blob, "second").await.unwrap();
    let pinned = GetOptions::default().range(0..3).if_match(before.etag);
    assert_eq!(store.get_with(&blob, &pinned).await.unwrap_err().kind(), ErrorKind::Conflict);
}

fn write_tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = [
        ("a.txt", b"a".to_vec()),
        ("empty", Vec::new()),
        ("sub/b.bin", content(300_000, 3).to_vec()),
        ("sub/deep/ü and spaces.txt", b"text".to_vec()),
        ("sub-2/c", b"c".to_vec()),
    ];
    for (name, bytes) in &files {
        let file = root.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

fn read_tree(root: &Path, below: &str, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read_tree(&entry.path(), &format!("{name}/"), into);
        } else {
            into.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

#[tokio::test]
async fn folders_go_up_and_come_down_the_same() {
    let (store, _, _) = Breaking::in_memory();
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = write_tree(from.path());
    let seen = Arc::new(Mutex::new(Vec::<Progress>::new()));
    let options = TransferOptions {
        progress: Some(Arc::new({
            let seen = Arc::clone(&seen);
            move |progress| seen.lock().unwrap().push(progress)
        })),
        ..TransferOptions::default()
    };
    let up = store.upload_dir(from.path(), Some(&path("backup/today")), &options).await.unwrap();
    let total: u64 = files.values().map(|f| f.len() as u64).sum();
    assert_eq!((up.files, up.bytes, up.skipped), (files.len() as u64, total, 0));
    let most = seen.lock().unwrap().iter().map(|p| (p.bytes, p.total_bytes, p.files, p.total_files)).max().unwrap();
    assert_eq!(most, (total, total, files.len() as u64, files.len() as u64), "the progress ends at the whole");

    let down = store.download_dir(Some(&path("backup/today")), to.path(), &TransferOptions::default()).await.unwrap();
    assert_eq!(down.files, files.len() as u64);
    let mut found = BTreeMap::new();
    read_tree(to.path(), "", &mut found);
    assert!(found == files, "{:?}", found.keys());
}

#[tokio::test]
async fn what_is_there_already_can_be_left_out() {
    let (store, _, sent) = Breaking::in_memory();
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = write_tree(from.path());
    let options = TransferOptions { skip: Skip::Unchanged, ..TransferOptions::default() };
    let _ = store.upload_dir(from.path(), None, &options).await.unwrap();
    let again = store.upload_dir(from.path(), None, &options).await.unwrap();
    assert_eq!((again.files, again.skipped), (0, files.len() as u64));
    let _ = store.download_dir(None, to.path(), &options).await.unwrap();
    sent.store(0, Ordering::SeqCst);
    let again = store.download_dir(None, to.path(), &options).await.unwrap();
    assert_eq!((again.files, again.skipped, sent.load(Ordering::SeqCst)), (0, files.len() as u64, 0));
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let (store, _, _) = Breaking::in_memory();
    let folder = tempfile::tempdir().unwrap();
    let missing = store.upload_file(folder.path().join("no such file"), "x").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("no such file"), "{missing}");
    let not_a_file = store.upload_file(folder.path(), "x").await.unwrap_err();
    assert_eq!(not_a_file.kind(), ErrorKind::InvalidInput);
    assert!(!store.exists(&path("x")).await.unwrap());
    let file = folder.path().join("a file");
    std::fs::write(&file, "x").unwrap();
    let not_a_folder = store.upload_dir(&file, None, &TransferOptions::default()).await.unwrap_err();
    assert_eq!(not_a_folder.kind(), ErrorKind::InvalidInput, "{not_a_folder}");
    std::fs::remove_file(&file).unwrap();
    let gone = store.download_file("x", folder.path().join("x")).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn a_file_that_is_cut_while_it_goes_up_is_an_error() {
    let (store, _, _) = Breaking::in_memory();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    std::fs::write(&file, content(3 << 20, 1)).unwrap();
    let cut = std::fs::File::options().write(true).open(&file).unwrap();
    let progress = move |progress: Progress| {
        if progress.bytes > 0 {
            cut.set_len(1 << 20).unwrap();
        }
    };
    let options = TransferOptions { progress: Some(Arc::new(progress)), ..TransferOptions::default() };
    let error = store.upload_file_with(&file, "log", &options).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("shorter"), "{error}");
    assert!(!store.exists(&path("log")).await.unwrap());
}

#[tokio::test]
async fn a_prefix_is_a_store_of_its_own() {
    let (store, _, _) = Breaking::in_memory();
    let inner = store.with_prefix(&path("tenant/acme")).unwrap();
    inner.put(&path("a/b"), "x").await.unwrap();
    store.put(&path("tenant/acmeX/a"), "not ours").await.unwrap();
    let listed: Vec<_> = inner.list_all(None).map(|meta| meta.unwrap().path.to_string()).collect().await;
    assert_eq!(listed, ["a/b"]);
    assert_eq!(inner.rename(&path("a/b"), &path("c")).await.unwrap().path, path("c"));
    assert_eq!(store.get_text(&path("tenant/acme/c")).await.unwrap(), "x");
}

#[tokio::test]
async fn files_by_plain_paths_are_one_call_each() {
    let (store, _, _) = Breaking::in_memory();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "1,2").unwrap();
    store.upload_file(folder.path().join("a.csv"), "in/a.csv").await.unwrap();
    store.upload_file(folder.path().join("a.csv"), format!("in/{}.csv", "b")).await.unwrap();
    store.download_file("in/a.csv", folder.path().join("new/folder/a.csv")).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("new/folder/a.csv")).unwrap(), b"1,2");
    let listed: Vec<_> = store.list_files("in/").await.unwrap().into_iter().map(|meta| meta.path.to_string()).collect();
    assert_eq!(listed, ["in/a.csv", "in/b.csv"]);
    assert_eq!((store.list_files("").await.unwrap().len(), store.list_files("in/a.csv").await.unwrap().len()), (2, 1));
    assert!(store.delete_file("in/a.csv").await.unwrap() && !store.delete_file("in/a.csv").await.unwrap());
    assert_eq!(store.backend_type(), "memory");
    let error = store.upload_file(folder.path().join("a.csv"), "../a.csv").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_blob_that_changes_while_it_is_read_is_an_error() {
    for change_before in [2, 4] {
        let (store, _, _) = Breaking::changing(change_before);
        let folder = tempfile::tempdir().unwrap();
        let local = folder.path().join("big.bin");
        std::fs::write(&local, "the old file").unwrap();
        store.put(&path("big"), content(LARGE, 1)).await.unwrap();
        let error = store.download_file("big", &local).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(std::fs::read(&local).unwrap(), b"the old file", "it stays as it was");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "what was fetched is of no use any more");
        store.download_file("big", &local).await.unwrap();
        assert_eq!(std::fs::read(&local).unwrap(), b"changed");
    }
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_noticed_before_the_first_byte() {
    let Some(disk) = SmallDisk::mount(4 << 10) else { return };
    let (store, _, sent) = Breaking::in_memory();
    store.put(&path("big"), content(20 << 20, 1)).await.unwrap();
    let error = store.download_file("big", disk.path().join("big")).await.unwrap_err();
    assert!(error.to_string().contains("disk is full"), "{error}");
    assert_eq!((sent.load(Ordering::SeqCst), std::fs::read_dir(disk.path()).unwrap().count()), (0, 0));
    // Where it fills up with many small files, those that fit are whole.
    for n in 0..10 {
        store.put(&path(&format!("many/{n}")), content(1 << 20, n)).await.unwrap();
    }
    let options = TransferOptions { keep_going: true, ..TransferOptions::default() };
    let report = store.download_dir(Some(&path("many")), disk.path().join("many"), &options).await.unwrap();
    assert!(report.files > 0 && report.failed > 0 && report.files + report.failed == 10, "{report:?}");
    let mut found = BTreeMap::new();
    read_tree(&disk.path().join("many"), "", &mut found);
    assert_eq!(found.len() as u64, report.files, "no half file: {:?}", found.keys());
    assert!(found.values().all(|bytes| bytes.len() == 1 << 20));
}

#[cfg(unix)]
#[tokio::test]
async fn what_cannot_go_up_does_not_keep_the_rest_from_it() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;
    let (store, _, _) = Breaking::in_memory();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let files = write_tree(root);
    std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"not-\xff-utf8")), "x").unwrap();
    std::fs::write(root.join("line\nbreak"), "x").unwrap();
    symlink("no such file", root.join("dangling")).unwrap();
    symlink("..", root.join("sub/circle")).unwrap();
    symlink("sub/b.bin", root.join("link")).unwrap();
    symlink(root.join("sub-2"), root.join("linked")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
    std::fs::write(root.join(".x.storage-part"), "of a download").unwrap();

    let error = store.upload_dir(root, None, &TransferOptions::default()).await.unwrap_err();
    assert!(error.subject().is_some(), "the first one is named: {error}");
    let options = TransferOptions { keep_going: true, ..TransferOptions::default() };
    let report = store.upload_dir(root, Some(&path("up")), &options).await.unwrap();
    let mut subjects: Vec<_> = report.failures.iter().map(|error| error.subject().unwrap().to_owned()).collect();
    subjects.sort();
    let named = ["sub/circle", "dangling", "line\nbreak", "not-", "pipe"];
    assert_eq!((report.failed, report.files), (named.len() as u64, files.len() as u64 + 2), "{subjects:?}");
    for name in named {
        assert!(subjects.iter().any(|subject| subject.contains(name)), "{name}: {subjects:?}");
    }
    assert_eq!(store.get(&path("up/link")).await.unwrap(), files["sub/b.bin"], "a link is what it leads to");
    assert!(store.exists(&path("up/linked/c")).await.unwrap());
}

#[tokio::test]
async fn what_cannot_come_down_does_not_keep_the_rest_from_it() {
    let (store, _, _) = Breaking::in_memory();
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(256);
    for name in ["a", "a-b", "a/b", "a/c/d", long.as_str(), ".y.storage-part", "folder", "z/z"] {
        store.put(&path(name), name.to_owned()).await.unwrap();
    }
    std::fs::create_dir_all(folder.path().join("folder")).unwrap();
    std::fs::write(folder.path().join("z"), "a file in the way").unwrap();
    let options = TransferOptions { keep_going: true, ..TransferOptions::default() };
    let report = store.download_dir(None, folder.path(), &options).await.unwrap();
    assert_eq!((report.files, report.failed), (2, 6), "{report:?}");
    assert!(report.failures.iter().all(|error| matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::InvalidInput)));
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"a");
    assert_eq!(std::fs::read(folder.path().join("a-b")).unwrap(), b"a-b");
    assert_eq!(std::fs::read(folder.path().join("z")).unwrap(), b"a file in the way");
}

#[tokio::test]
async fn sides_become_the_same_but_for_what_is_left_out() {
    let (store, _, _) = Breaking::in_memory();
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_tree(from.path());
    let done = Arc::new(Mutex::new(Vec::<FileDone>::new()));
    let seen = Arc::clone(&done);
    let options = TransferOptions {
        skip: Skip::Unchanged,
        delete: true,
        filter: Some(Arc::new(|path: &str| path != "sub/" && !path.ends_with(".keep"))),
        each: Some(Arc::new(move |file: &FileDone| seen.lock().unwrap().push(file.clone()))),
        ..TransferOptions::default()
    };
    for name in ["old", "mine.keep", "sub/mine"] {
        store.put(&path(name), "x").await.unwrap();
    }
    let dry = TransferOptions { dry_run: true, ..options.clone() };
    let would = store.upload_dir(from.path(), None, &dry).await.unwrap();
    assert_eq!(store.list_files("").await.unwrap().len(), 3, "nothing was done");
    let up = store.upload_dir(from.path(), None, &options).await.unwrap();
    assert_eq!((would.files, would.removed), (up.files, up.removed));
    assert_eq!((up.files, up.removed), (3, 1));
    let removed: Vec<_> =
        done.lock().unwrap().iter().filter(|f| f.action == FileAction::Removed).map(|f| f.path.clone()).collect();
    assert_eq!(removed, ["old", "old"], "once dry, once wet");
    let listed: Vec<_> = store.list_files("").await.unwrap().into_iter().map(|meta| meta.path.to_string()).collect();
    assert_eq!(listed, ["a.txt", "empty", "mine.keep", "sub-2/c", "sub/mine"]);

    for name in ["gone/deep/x", "x.keep", "sub/y"] {
        std::fs::create_dir_all(to.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(to.path().join(name), "x").unwrap();
    }
    let down = store.download_dir(None, to.path(), &options).await.unwrap();
    assert_eq!((down.files, down.removed), (3, 1));
    assert!(!to.path().join("gone").exists(), "an emptied folder goes too");
    assert!(to.path().join("x.keep").exists() && to.path().join("sub/y").exists());
    assert_eq!(store.download_dir(None, to.path(), &options).await.unwrap().skipped, 3);
}

#[tokio::test]
async fn contents_are_compared_where_that_is_asked_for() {
    let (store, _, _) = Breaking::in_memory();
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(from.path().join("same"), content(3 << 20, 1)).unwrap();
    std::fs::write(from.path().join("other"), content(3 << 20, 1)).unwrap();
    let options = TransferOptions { skip: Skip::SameContent, ..TransferOptions::default() };
    assert_eq!(store.upload_dir(from.path(), None, &options).await.unwrap().files, 2);
    assert_eq!(store.download_dir(None, to.path(), &options).await.unwrap().files, 2);
    let mut other = content(3 << 20, 1).to_vec();
    other[2 << 20] ^= 1;
    std::fs::write(from.path().join("other"), &other).unwrap();
    let up = store.upload_dir(from.path(), None, &options).await.unwrap();
    assert_eq!((up.files, up.skipped), (1, 1));
    let down = store.download_dir(None, to.path(), &options).await.unwrap();
    assert_eq!((down.files, down.skipped), (1, 1));
    assert!(std::fs::read(to.path().join("other")).unwrap() == other);
}
