//! Blobs as files that people look at, put there and link.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use storage_core::{BlobBackend as _, BlobBody, BlobContent, BlobEntry, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions};
use storage_fs::FsBlobs;

use crate::{Fixture, blob};

async fn put(blobs: &FsBlobs, path: &str, body: &str) {
    blobs.put(&blob(path), body.to_owned().into(), &PutOptions::default()).await.unwrap();
}

async fn read(blobs: &FsBlobs, path: &str) -> String {
    let bytes = blobs.get(&blob(path), &GetOptions::default()).await.unwrap().bytes().await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn list(blobs: &FsBlobs, options: &ListOptions) -> Vec<String> {
    blobs.list(options).map(|entry| entry.unwrap().sort_key()).collect().await
}

#[tokio::test]
async fn blobs_are_the_users_files_and_nothing_else() {
    let fixture = Fixture::new().await;
    let blobs = fixture.store.blobs();
    let options = PutOptions::default().content_type("text/plain");
    blobs.put(&blob("a/b.txt"), "hello".into(), &options).await.unwrap();
    assert_eq!(std::fs::read_to_string(fixture.path("blobs/a/b.txt")).unwrap(), "hello");
    let files = |folder: &str| std::fs::read_dir(fixture.path(folder)).unwrap().count();
    assert_eq!((files("blobs"), files("blobs/a"), files("_storage/uploads")), (1, 1, 0));
    blobs.delete(&blob("a/b.txt"), None).await.unwrap();
    assert_eq!(files("blobs"), 0, "an empty folder stays");
    let left = walk(&fixture.path("_storage/attributes"));
    assert!(left.is_empty(), "attributes of no blob: {left:?}");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn files_put_there_by_hand_are_blobs() {
    let fixture = Fixture::new().await;
    let blobs = fixture.store.blobs();
    std::fs::create_dir_all(fixture.path("blobs/by hand/empty")).unwrap();
    std::fs::write(fixture.path("blobs/by hand/100%.txt"), "x").unwrap();
    assert_eq!(read(&blobs, "by hand/100%.txt").await, "x");
    assert_eq!(list(&blobs, &ListOptions::default()).await, ["by hand/100%.txt"]);
    assert_eq!(list(&blobs, &ListOptions::default().one_level()).await, ["by hand/"]);
    assert!(list(&blobs, &ListOptions::below(Some(blob("by hand/empty")))).await.is_empty());
    // Names that would be read as escapes are none of ours.
    std::fs::write(fixture.path("blobs/a%41"), "x").unwrap();
    assert_eq!(list(&blobs, &ListOptions::default()).await.len(), 1);

    let before = blobs.head(&blob("by hand/100%.txt")).await.unwrap();
    let mark = PutOptions::default().content_type("text/plain").mode(PutMode::Update(before.etag.unwrap()));
    blobs.put(&blob("by hand/100%.txt"), "y".into(), &mark).await.unwrap();
    assert_eq!(blobs.put(&blob("by hand/100%.txt"), "z".into(), &mark).await.unwrap_err().kind(), ErrorKind::Conflict);
    // Another file in its place is another blob: the attributes were not its own.
    std::fs::write(fixture.path("blobs/by hand/100%.txt"), "by hand").unwrap();
    let after = blobs.head(&blob("by hand/100%.txt")).await.unwrap();
    assert!(after.attributes.is_empty() && after.size == 7);
}

#[tokio::test]
async fn a_path_may_be_a_blob_and_a_folder() {
    let fixture = Fixture::new().await;
    let blobs = fixture.store.blobs();
    let options = PutOptions::default().content_type("text/a");
    let before = blobs.put(&blob("a"), "a".into(), &options).await.unwrap();
    put(&blobs, "a/b/c", "abc").await;
    put(&blobs, "a-", "a-").await;
    put(&blobs, "a/b", "ab").await;
    assert_eq!(blobs.head(&blob("a")).await.unwrap(), before, "making room changed the blob");
    for (path, body) in [("a", "a"), ("a-", "a-"), ("a/b", "ab"), ("a/b/c", "abc")] {
        assert_eq!(read(&blobs, path).await, body);
    }
    assert_eq!(list(&blobs, &ListOptions::default()).await, ["a", "a-", "a/b", "a/b/c"]);
    assert_eq!(list(&blobs, &ListOptions::default().one_level()).await, ["a", "a-", "a/"]);
    assert_eq!(list(&blobs, &ListOptions::below(Some(blob("a")))).await, ["a/b", "a/b/c"]);
    assert_eq!(list(&blobs, &ListOptions::default().start_after(blob("a/b"))).await, ["a/b/c"]);
    put(&blobs, "a", "new").await;
    assert!(blobs.delete(&blob("a"), None).await.unwrap());
    assert_eq!(blobs.head(&blob("a")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(list(&blobs, &ListOptions::default().one_level()).await, ["a-", "a/"]);
    for path in ["a/b/c", "a/b", "a-"] {
        assert!(blobs.delete(&blob(path), None).await.unwrap());
    }
    assert_eq!(std::fs::read_dir(fixture.path("blobs")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_there_all_the_time_while_it_becomes_a_folder() {
    const COUNT: usize = 20;
    let fixture = Fixture::new().await;
    let blobs = Arc::new(fixture.store.blobs());
    for n in 0..COUNT {
        put(&blobs, &format!("a{n}"), "a").await;
    }
    let (stop, reader) = (Arc::new(AtomicBool::new(false)), Arc::clone(&blobs));
    let stopped = Arc::clone(&stop);
    let reading = tokio::spawn(async move {
        let mut rounds = 0;
        while !stopped.load(Ordering::Relaxed) || rounds == 0 {
            for n in 0..COUNT {
                assert_eq!(read(&reader, &format!("a{n}")).await, "a");
            }
            rounds += 1;
        }
    });
    for n in 0..COUNT {
        put(&blobs, &format!("a{n}/b"), "b").await;
    }
    stop.store(true, Ordering::Relaxed);
    reading.await.unwrap();
}

#[tokio::test]
async fn long_and_hostile_names_come_back() {
    let fixture = Fixture::new().await;
    let blobs = fixture.store.blobs();
    let (long, longer) = (format!("{}/x", "ü".repeat(400)), format!("{}ü/x", "ü".repeat(400)));
    let mut paths = vec!["%~self", "a%41", "a%2541", "aA", "CON", "a.", "a:b*?", "-rf", " ", "~", "%", "%~x", &long, &longer];
    for path in &paths {
        put(&blobs, path, path).await;
    }
    paths.sort_unstable();
    assert_eq!(list(&blobs, &ListOptions::default()).await, paths);
    for path in paths {
        assert_eq!(read(&blobs, path).await, path);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn links_are_not_followed() {
    use std::os::unix::fs::symlink;
    let fixture = Fixture::new().await;
    let blobs = fixture.store.blobs();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    put(&blobs, "x", "x").await;
    symlink(outside.path(), fixture.path("blobs/folder")).unwrap();
    symlink(outside.path().join("secret"), fixture.path("blobs/file")).unwrap();
    for path in ["folder/secret", "file"] {
        assert_eq!(blobs.get(&blob(path), &GetOptions::default()).await.unwrap_err().kind(), ErrorKind::NotFound);
        let refused = blobs.put(&blob(path), "x".into(), &PutOptions::default()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
        assert!(!blobs.delete(&blob(path), None).await.unwrap());
        assert_eq!(blobs.copy(&blob("x"), &blob(path), &PutMode::Overwrite).await.unwrap_err().kind(), ErrorKind::Unsupported);
    }
    assert_eq!(list(&blobs, &ListOptions::default()).await, ["x"]);
    assert!(list(&blobs, &ListOptions::below(Some(blob("folder")))).await.is_empty());
    assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(fixture.path("_storage/uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn marks_change_with_every_write_however_quick() {
    let fixture = Fixture::new().await;
    let blobs = fixture.store.blobs();
    let mut seen = std::collections::HashSet::new();
    for n in 0..100 {
        let meta = match n % 3 {
            0 => blobs.put(&blob("a"), "x".into(), &PutOptions::default()).await.unwrap(),
            1 => blobs.copy(&blob("a"), &blob("a"), &PutMode::Overwrite).await.unwrap(),
            _ => {
                blobs.delete(&blob("a"), None).await.unwrap();
                blobs.put(&blob("a"), "x".into(), &PutOptions::default()).await.unwrap()
            }
        };
        assert_eq!(blobs.head(&blob("a")).await.unwrap().etag, meta.etag);
        assert!(seen.insert(meta.etag.unwrap()), "the same mark again after {n} writes");
    }
}

#[tokio::test]
async fn files_are_given_and_taken_as_files() {
    let fixture = Fixture::new().await;
    let blobs = fixture.store.blobs();
    let source = fixture.path("source");
    // Large enough not to be read as it is opened.
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    std::fs::write(&source, &bytes).unwrap();
    let mut file = std::fs::File::open(&source).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(3)).unwrap();
    blobs.put(&blob("a"), BlobBody::File(file), &PutOptions::default()).await.unwrap();
    let got = blobs.get(&blob("a"), &GetOptions::default().range(2..200_000)).await.unwrap();
    assert!(matches!(got.content, BlobContent::File(_)));
    // An open blob stays what it was.
    put(&blobs, "a", "other").await;
    assert!(*got.bytes().await.unwrap() == bytes[5..200_003]);
}

#[tokio::test]
async fn folders_come_and_go_under_busy_hands() {
    let fixture = Fixture::new().await;
    let blobs = Arc::new(fixture.store.blobs());
    let hands = (0..4).map(|hand| {
        let blobs = Arc::clone(&blobs);
        tokio::spawn(async move {
            for n in 0..50 {
                let path = blob(&format!("a/b/{}/{hand}", n % 2));
                blobs.put(&path, "x".into(), &PutOptions::default()).await.unwrap();
                assert!(blobs.delete(&path, None).await.unwrap());
            }
        })
    });
    for hand in hands {
        hand.await.unwrap();
    }
    let left: Vec<BlobEntry> = blobs.list(&ListOptions::default()).map(|entry| entry.unwrap()).collect().await;
    assert!(left.is_empty() && std::fs::read_dir(fixture.path("blobs")).unwrap().count() == 0);
}
