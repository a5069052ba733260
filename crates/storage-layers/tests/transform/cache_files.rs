//! What a cache in files promises: it survives restarts, keeps to its bound, and never gives what the backend would not.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use storage_core::{BlobBackend, BlobBody, BlobStore, ErrorKind, GetOptions, PutMode, PutOptions, Result};
use storage_layers::transform::config::{CacheConfig, CompressionConfig, EncryptionConfig};
use storage_layers::transform::{CacheOptions, CachedBlobs, FileOptions, TransformConfig, stack};

use crate::support::{Counted, fs as store_in, memory, noise, path, refused, store};

const LONG: Option<Duration> = Some(Duration::from_secs(3600));
const MIB: usize = 1 << 20;

/// A store of files, and a folder for a cache.
struct World {
    folder: tempfile::TempDir,
    source: BlobStore,
    counted: Arc<Counted>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inner = store_in(&folder.path().join("store")).await;
        Self { source: store(&inner), counted: Arc::new(Counted::new(inner)), folder }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// A new handle, which knows nothing but what the folder holds.
    fn cached(&self, options: CacheOptions) -> BlobStore {
        self.cached_at_most(options, FileOptions::new(self.dir()))
    }

    fn cached_at_most(&self, options: CacheOptions, files: FileOptions) -> BlobStore {
        let layer: Arc<dyn BlobBackend> = Arc::new(CachedBlobs::with_files(Arc::clone(&self.counted) as _, options, files));
        store(&layer)
    }

    /// A handle whose every hit is the files'.
    fn files_alone(&self) -> BlobStore {
        self.cached(CacheOptions { max_bytes: 0, ..CacheOptions::default() })
    }

    fn entries(&self) -> Vec<PathBuf> {
        files_below(&self.dir()).into_iter().filter(|file| file.parent().unwrap().file_name().unwrap() != "new").collect()
    }

    /// The one entry that there is.
    #[track_caller]
    fn entry(&self) -> PathBuf {
        let entries = self.entries();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.into_iter().next().unwrap()
    }

    fn unfinished(&self) -> Vec<PathBuf> {
        files_below(&self.dir().join("blobs-1/new"))
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    found.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn bytes_below(folder: &Path) -> u64 {
    files_below(folder).iter().filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum()
}

#[tokio::test]
async fn what_was_read_is_there_after_a_restart() -> Result<()> {
    let world = World::new().await;
    let blobs = [("empty", Bytes::new()), ("small", noise(1, 1000)), ("large", noise(2, 3 * MIB + 7))];
    for (name, bytes) in &blobs {
        let options = PutOptions::default().content_type("text/plain").metadata("name", *name);
        world.source.put_with(&path(name), bytes.clone(), &options).await?;
    }
    for round in 0..3 {
        let cached = world.cached(CacheOptions::default());
        for (name, bytes) in &blobs {
            let read = cached.get_with(&path(name), &GetOptions::default()).await?;
            assert_eq!(read.meta, world.source.head(&path(name)).await?);
            assert!(read.bytes().await? == *bytes, "{name}");
            let middle = bytes.len() as u64 / 2;
            assert!(
                cached.get_range(&path(name), middle..middle + 99).await?
                    == bytes.slice(bytes.len() / 2..(bytes.len() / 2 + 99).min(bytes.len()))
            );
        }
        assert_eq!(world.counted.gets(), 3, "round {round}");
    }
    assert!(world.unfinished().is_empty());
    Ok(())
}

#[tokio::test]
async fn parts_of_a_large_blob_are_read_from_its_pieces() -> Result<()> {
    let world = World::new().await;
    let bytes = noise(1, 3 * MIB + 7);
    world.source.put(&path("a"), bytes.clone()).await?;
    let cached = world.cached(CacheOptions::default());
    cached.get(&path("a")).await?;
    let piece = 256 << 10;
    for start in [0, 1, piece - 1, piece, piece + 1, 5 * piece + 3, bytes.len() - 1, bytes.len()] {
        for len in [0, 1, piece - 1, piece, piece + 1, 4 * piece, 4 * piece + 1, bytes.len()] {
            let range = start..(start + len).min(bytes.len());
            let read = cached.get_range(&path("a"), range.start as u64..(start + len) as u64).await?;
            assert!(read == bytes.slice(range.clone()), "{range:?}");
        }
    }
    assert_eq!(world.counted.gets(), 1);
    Ok(())
}

/// Whatever bit of an entry flips, its blob is read from the backend, and the entry is gone or good again.
#[tokio::test]
async fn every_flipped_bit_is_a_miss() -> Result<()> {
    let world = World::new().await;
    let bytes = noise(1, 60);
    world.source.put_with(&path("a"), bytes.clone(), &PutOptions::default().content_type("a/b")).await?;
    // Read whole at once, or piece by piece.
    for max_blob_bytes in [1000, 10] {
        let cached = world.cached(CacheOptions { max_bytes: 0, max_blob_bytes, max_age: None });
        cached.get(&path("a")).await?;
        let entry = world.entry();
        let good = fs::read(&entry)?;
        world.counted.reset();
        assert!(cached.get(&path("a")).await? == bytes && world.counted.gets() == 0);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&entry, &bad)?;
            world.counted.reset();
            assert!(cached.get(&path("a")).await? == bytes, "bit {bit}");
            assert_eq!(world.counted.gets(), 1, "bit {bit} was not noticed");
            assert!(fs::read(&entry).map_or(true, |now| now == good), "bit {bit}: what is damaged is still there");
        }
    }
    Ok(())
}

/// What was handed on before the damage was checked; what is behind it comes from the backend.
#[tokio::test]
async fn damage_in_the_middle_of_a_read_costs_only_the_rest() -> Result<()> {
    let world = World::new().await;
    let bytes = noise(1, 5 * MIB);
    world.source.put(&path("a"), bytes.clone()).await?;
    let cached = world.cached(CacheOptions::default());
    cached.get(&path("a")).await?;
    let entry = world.entry();
    let mut bad = fs::read(&entry)?;
    let at = bad.len() - 5 * MIB / 2;
    bad[at] ^= 1;
    fs::write(&entry, &bad)?;
    world.counted.reset();
    assert!(cached.get(&path("a")).await? == bytes);
    assert_eq!(world.counted.gets(), 1);
    assert!(world.counted.read() <= 3 * MIB as u64, "{} bytes were read again", world.counted.read());
    assert!(world.entries().is_empty(), "it was removed");
    Ok(())
}

#[tokio::test]
async fn what_is_no_entry_is_a_miss_and_goes() -> Result<()> {
    let world = World::new().await;
    let bytes = noise(1, 700_000);
    for name in ["a", "b"] {
        world.source.put(&path(name), bytes.clone()).await?;
    }
    let cached = world.files_alone();
    cached.get(&path("b")).await?;
    let other = fs::read(world.entry())?;
    cached.get(&path("a")).await?;
    let entry = world.entries().into_iter().find(|entry| fs::read(entry).unwrap() != other).unwrap();
    let good = fs::read(&entry)?;
    let cuts = [0, 1, 15, 16, 17, 300, 262_144, good.len() - 17, good.len() - 1].map(|len| good[..len].to_vec());
    let foreign = [b"a letter".to_vec(), vec![0; 1000], other, [&good[..], b"x"].concat(), [&good[..12], &[0xff; 4]].concat()];
    for bad in cuts.into_iter().chain(foreign) {
        fs::write(&entry, &bad)?;
        world.counted.reset();
        assert!(cached.get(&path("a")).await? == bytes, "{} bytes", bad.len());
        assert_eq!(world.counted.gets(), 1, "{} bytes", bad.len());
        assert!(fs::read(&entry)? == good, "it was written anew");
    }
    // A folder can't be removed like a file. It is in the way, and no more.
    fs::remove_file(&entry)?;
    fs::create_dir(&entry)?;
    assert!(cached.get(&path("a")).await? == bytes);
    Ok(())
}

#[tokio::test]
async fn two_handles_on_one_folder_share_it_and_see_each_others_writes() -> Result<()> {
    let world = World::new().await;
    let (one, other) = (world.cached(CacheOptions::default()), world.cached(CacheOptions::default()));
    for (name, len) in [("small", 1000), ("large", 2 * MIB)] {
        let at = path(name);
        world.counted.reset();
        one.put(&at, noise(1, len)).await?;
        assert!(one.get(&at).await? == noise(1, len));
        assert!(other.get(&at).await? == noise(1, len));
        assert_eq!(world.counted.gets(), 1, "one filled it for both");
        other.put(&at, noise(2, len)).await?;
        for handle in [&one, &other, &one] {
            assert!(handle.get(&at).await? == noise(2, len));
        }
        assert_eq!(world.counted.gets(), 2);
        // Somebody who knows of no cache.
        world.source.put(&at, noise(3, len)).await?;
        for handle in [&other, &one] {
            assert!(handle.get(&at).await? == noise(3, len));
        }
        one.delete(&at).await?;
        for handle in [&one, &other] {
            refused(ErrorKind::NotFound, handle.get(&at).await);
        }
    }
    assert!(world.entries().is_empty());
    Ok(())
}

#[tokio::test]
async fn within_its_age_it_asks_nobody_but_after_a_restart_it_does() -> Result<()> {
    let world = World::new().await;
    let options = CacheOptions { max_bytes: 0, max_age: LONG, ..CacheOptions::default() };
    world.source.put(&path("a"), "1").await?;
    let cached = world.cached(options);
    for _ in 0..3 {
        assert_eq!(cached.get(&path("a")).await?, "1");
    }
    assert_eq!((world.counted.gets(), world.counted.heads()), (1, 0));
    // How old an entry is that another process left, nobody knows.
    let cached = world.cached(options);
    for _ in 0..3 {
        assert_eq!(cached.get(&path("a")).await?, "1");
    }
    assert_eq!((world.counted.gets(), world.counted.heads()), (1, 1));
    // One's own writes show at once, of every kind.
    let mark = cached.head(&path("a")).await?.etag;
    cached.put(&path("a"), "2").await?;
    assert_eq!(cached.get(&path("a")).await?, "2");
    refused(ErrorKind::Conflict, cached.get_with(&path("a"), &GetOptions::default().if_match(mark)).await);
    cached.put(&path("b"), "3").await?;
    cached.copy(&path("b"), &path("a"), &PutMode::Overwrite).await?;
    assert_eq!(cached.get(&path("a")).await?, "3");
    cached.delete(&path("a")).await?;
    refused(ErrorKind::NotFound, cached.get(&path("a")).await);
    Ok(())
}

/// A load that began before a write and ends behind it is not kept, of small blobs and of large ones.
#[tokio::test]
async fn a_load_that_raced_a_write_is_not_kept() -> Result<()> {
    let world = World::new().await;
    for len in [1000, 3 * MIB] {
        let cached = world.cached(CacheOptions { max_bytes: 0, max_age: LONG, ..CacheOptions::default() });
        world.source.put(&path("a"), noise(1, len)).await?;
        // The put has begun, and waits for its bytes; the load is done meanwhile.
        let (send, bytes) = tokio::sync::oneshot::channel::<Bytes>();
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let stream = futures::stream::once(async move {
            began.send(()).unwrap();
            Ok(bytes.await.unwrap_or_default())
        });
        let body = BlobBody::Stream { stream: Box::pin(stream), size: None };
        let reading = cached.get_with(&path("a"), &GetOptions::default()).await?;
        let writer = tokio::spawn({
            let cached = cached.clone();
            async move { cached.put(&path("a"), body).await }
        });
        has_begun.await.unwrap();
        assert!(cached.get(&path("a")).await? == noise(1, len));
        assert!(reading.bytes().await? == noise(1, len), "a read that was begun before goes on");
        assert!(world.entries().is_empty());
        send.send(noise(2, len)).unwrap();
        writer.await.unwrap()?;
        assert!(world.entries().is_empty());
        assert!(cached.get(&path("a")).await? == noise(2, len));
        assert!(world.cached(CacheOptions::default()).get(&path("a")).await? == noise(2, len));
    }
    Ok(())
}

#[tokio::test]
async fn a_read_that_is_not_finished_keeps_nothing() -> Result<()> {
    let world = World::new().await;
    world.source.put(&path("a"), noise(1, 5 * MIB)).await?;
    let cached = world.cached(CacheOptions::default());
    let mut stream = cached.get_with(&path("a"), &GetOptions::default()).await?.into_stream();
    for _ in 0..4 {
        stream.next().await.unwrap()?;
    }
    assert_eq!(world.unfinished().len(), 1, "it is kept while it is read");
    drop(stream);
    // It ends on a thread of its own.
    while !world.unfinished().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(world.entries().is_empty());
    // Its room is given back a moment after its file is gone.
    while world.entries().is_empty() {
        assert!(cached.get(&path("a")).await? == noise(1, 5 * MIB));
    }
    Ok(())
}

#[tokio::test]
async fn blobs_that_are_too_large_are_not_kept() -> Result<()> {
    let world = World::new().await;
    let files = FileOptions { max_blob_bytes: 2 * MIB as u64, ..FileOptions::new(world.dir()) };
    let cached = world.cached_at_most(CacheOptions::default(), files);
    for (len, kept) in [(2 * MIB, 1), (2 * MIB + 1, 0)] {
        world.source.put(&path("a"), noise(1, len)).await?;
        cached.get(&path("a")).await?;
        assert_eq!(world.entries().len(), kept, "{len}");
    }
    Ok(())
}

/// However many read at once, the files take no more than they may, those that are being written included.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_bound_holds_under_concurrent_readers() -> Result<()> {
    const MAX: u64 = 4 << 20;
    let world = World::new().await;
    let lens = [3_000, 70_000, 300_000, 1_300_000];
    let len = move |n: usize| lens[n % lens.len()] + n;
    for n in 0..60 {
        world.source.put(&path(&n.to_string()), noise(n as u64, len(n))).await?;
    }
    let options = CacheOptions { max_bytes: 0, max_blob_bytes: 100_000, max_age: None };
    let files = FileOptions { max_bytes: MAX, ..FileOptions::new(world.dir()) };
    let cached = world.cached_at_most(options, files);
    let readers = (0..8_usize).map(|reader| {
        let (cached, dir) = (cached.clone(), world.dir());
        tokio::spawn(async move {
            let mut most = 0;
            for turn in 0..60 {
                let n = (turn * (2 * reader + 1) + 7 * reader) % 60;
                assert!(cached.get(&path(&n.to_string())).await? == noise(n as u64, len(n)), "{n}");
                most = most.max(bytes_below(&dir));
            }
            Ok::<_, storage_core::Error>(most)
        })
    });
    let mut most = 0;
    for reader in readers.collect::<Vec<_>>() {
        most = most.max(reader.await.unwrap()?);
    }
    assert!(most <= MAX, "{most} bytes");
    assert!(most > MAX / 2, "{most} bytes: little is kept");
    assert!(world.unfinished().is_empty());
    // A handle with a smaller bound removes what is too much for it.
    let files = FileOptions { max_bytes: MAX / 4, ..FileOptions::new(world.dir()) };
    world.cached_at_most(options, files).get(&path("0")).await?;
    assert!(bytes_below(&world.dir()) <= MAX / 4);
    Ok(())
}

/// What is used stays, also when the handle that used it is gone.
#[tokio::test]
async fn what_is_used_stays() -> Result<()> {
    let world = World::new().await;
    for n in 0..30 {
        world.source.put(&path(&n.to_string()), noise(n, 100_000)).await?;
    }
    let files = FileOptions { max_bytes: 1 << 20, ..FileOptions::new(world.dir()) };
    let options = CacheOptions { max_bytes: 0, ..CacheOptions::default() };
    let cached = world.cached_at_most(options, files.clone());
    for n in 1..9 {
        cached.get(&path("0")).await?;
        cached.get(&path(&n.to_string())).await?;
    }
    // As if that had been some time ago.
    let now = std::time::SystemTime::now();
    for entry in world.entries() {
        let file = fs::File::options().append(true).open(&entry)?;
        file.set_modified(now - Duration::from_secs(100))?;
    }
    let cached = world.cached_at_most(options, files.clone());
    cached.get(&path("0")).await?;
    let cached = world.cached_at_most(options, files);
    // Ten fit.
    for n in 10..19 {
        cached.get(&path(&n.to_string())).await?;
    }
    world.counted.reset();
    cached.get(&path("0")).await?;
    assert_eq!(world.counted.gets(), 0, "it was used last but for 9 others");
    cached.get(&path("1")).await?;
    assert_eq!(world.counted.gets(), 1, "it was not used for long");
    Ok(())
}

const CHILD: &str = "STORAGE_LAYERS_TEST_CACHE";

/// A process that is killed while it keeps a blob leaves no entry, and what it leaves is removed by the next.
#[tokio::test]
async fn a_killed_process_leaves_no_half_entry() -> Result<()> {
    if let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) {
        let inner = store_in(&folder.join("store")).await;
        let files = FileOptions::new(folder.join("cache"));
        let layer: Arc<dyn BlobBackend> = Arc::new(CachedBlobs::with_files(inner, CacheOptions::default(), files));
        let mut stream = store(&layer).get_with(&path("a"), &GetOptions::default()).await?.into_stream();
        for _ in 0..5 {
            stream.next().await.unwrap()?;
        }
        println!("half");
        std::io::stdout().flush()?;
        return std::future::pending().await;
    }
    let world = World::new().await;
    world.source.put(&path("a"), noise(1, 8 * MIB)).await?;
    world.source.put(&path("b"), noise(2, 10)).await?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "cache_files::a_killed_process_leaves_no_half_entry", "--nocapture"])
        .env(CHILD, world.folder.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(child.stdout.take().unwrap()).lines().any(|line| line.is_ok_and(|line| line.contains("half")));
    assert!(said, "the child ended too early");
    assert!(!world.unfinished().is_empty());
    // A handle that comes while the other is at work leaves that alone.
    world.cached(CacheOptions::default()).get(&path("b")).await?;
    assert!(!world.unfinished().is_empty());
    child.kill()?;
    child.wait()?;
    assert_eq!(world.entries().len(), 1, "that of b alone");
    let cached = world.cached(CacheOptions::default());
    assert_eq!(cached.get(&path("b")).await?, noise(2, 10));
    assert!(world.unfinished().is_empty());
    assert!(cached.get(&path("a")).await? == noise(1, 8 * MIB));
    assert_eq!(world.entries().len(), 2);
    Ok(())
}

/// No plain byte of an encrypted blob gets onto the cache's disk, and what does is compressed.
#[tokio::test]
async fn files_hold_what_is_stored() -> Result<()> {
    let world = World::new().await;
    let text = Bytes::from("a letter that nobody else shall read; ".repeat(10_000));
    let config = TransformConfig {
        cache: Some(CacheConfig { dir: Some(world.dir()), ..CacheConfig::default() }),
        compression: Some(CompressionConfig::default()),
        encryption: Some(EncryptionConfig { key: Some("07".repeat(32).into()), ..EncryptionConfig::default() }),
        ..TransformConfig::default()
    };
    for _ in 0..2 {
        let blobs = store(&stack(Arc::clone(&world.counted) as _, Vec::new(), &config)?);
        blobs.put(&path("a"), text.clone()).await?;
        world.counted.reset();
        assert!(blobs.get(&path("a")).await? == text);
        assert!(blobs.get(&path("a")).await? == text);
        assert_eq!(world.counted.gets(), 1);
        let kept = fs::read(world.entry())?;
        assert!(kept.len() < 10_000 && !kept.windows(6).any(|bytes| bytes == b"letter"));
    }
    let blobs = store(&stack(Arc::clone(&world.counted) as _, Vec::new(), &config)?);
    world.counted.reset();
    assert!(blobs.get(&path("a")).await? == text && world.counted.gets() == 0, "after a restart");
    Ok(())
}

/// Marks of a store that ends with its process mean nothing to the next.
#[tokio::test]
async fn marks_that_come_again_are_not_taken_for_the_same() -> Result<()> {
    let world = World::new().await;
    for text in ["first", "other"] {
        let inner = memory().await;
        let files = FileOptions::new(world.dir());
        let layer: Arc<dyn BlobBackend> =
            Arc::new(CachedBlobs::with_files(inner, CacheOptions { max_bytes: 0, ..CacheOptions::default() }, files));
        store(&layer).put(&path("a"), text).await?;
        for _ in 0..2 {
            assert_eq!(store(&layer).get(&path("a")).await?, text);
        }
    }
    Ok(())
}
