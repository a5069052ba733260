//! What a cache in files promises: it survives restarts and kills, keeps to its bound, and never gives what was not given to it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use storage_cache::{CacheStore, FileCache, FileCacheOptions, MemoryCache, TierOptions, TieredCache};
use storage_core::{Cache, Clock, Result, SetOptions};

const FOREVER: SetOptions = SetOptions { ttl: None, idle: None, refresh_at: None };

fn open(dir: &Path) -> FileCache {
    FileCache::new(FileCacheOptions::new(dir), Clock::system())
}

async fn get(cache: &dyn Cache, key: &str) -> Option<Bytes> {
    cache.get(key).await.unwrap().map(|cached| cached.value)
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The files in place, without those that are being written.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let files = files_below(dir).into_iter();
    files.filter(|file| file.parent().unwrap().file_name().unwrap() != "new").collect()
}

/// Whatever bit of an entry flips, it is a miss, and the entry goes.
#[tokio::test]
async fn every_flipped_bit_is_a_miss() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cache = open(folder.path());
    let options = SetOptions::ttl(Duration::from_secs(3600));
    cache.set("a key", "a small value".into(), &options).await?;
    let entry = entries(folder.path()).pop().unwrap();
    let good = fs::read(&entry)?;
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&entry, &bad)?;
        assert_eq!(get(&cache, "a key").await, None, "bit {bit} was not noticed");
        assert!(!entry.exists(), "bit {bit}: what is damaged is still there");
    }
    for len in 0..good.len() {
        fs::write(&entry, &good[..len])?;
        assert_eq!(get(&cache, "a key").await, None, "cut at {len}");
    }
    fs::write(&entry, [&good[..], b"\0"].concat())?;
    assert_eq!(get(&cache, "a key").await, None, "a byte more");
    let damaged = u64::try_from(good.len() * 9 + 1).unwrap();
    assert_eq!(cache.stats().await?.removals.damaged, damaged, "each was counted");
    fs::write(&entry, &good)?;
    assert_eq!(get(&cache, "a key").await, Some("a small value".into()), "the file itself is good");
    Ok(())
}

/// A good entry under the name of another key is not that key's.
#[tokio::test]
async fn an_entry_in_anothers_place_is_a_miss() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cache = open(folder.path());
    cache.set("a", "1".into(), &FOREVER).await?;
    let of_a = entries(folder.path()).pop().unwrap();
    cache.set("b", "2".into(), &FOREVER).await?;
    let of_b = entries(folder.path()).into_iter().find(|entry| *entry != of_a).unwrap();
    fs::copy(&of_a, &of_b)?;
    assert_eq!(get(&cache, "b").await, None);
    assert_eq!(get(&cache, "a").await, Some("1".into()));
    Ok(())
}

/// What was dropped is named in the log.
#[test]
fn what_was_dropped_is_said() {
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).set("the one with damage", "1".into(), &FOREVER).await.unwrap();
        fs::write(entries(folder.path()).pop().unwrap(), "not an entry").unwrap();
        assert_eq!(get(&open(folder.path()), "the one with damage").await, None);
    });
    let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = said.lines().filter(|line| line.contains("WARN") && line.contains("the one with damage")).collect();
    assert_eq!(lines.len(), 1, "{said}");
}

/// Those that were not used for the longest time go.
#[tokio::test]
async fn the_bound_holds() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = FileCacheOptions { max_bytes: 20 * 8192, ..FileCacheOptions::new(folder.path()) };
    let cache = FileCache::new(options.clone(), Clock::system());
    for n in 0..100_u32 {
        cache.set(&n.to_string(), vec![1; 8000].into(), &FOREVER).await?;
        assert!(get(&cache, "0").await.is_some(), "it is used all the time");
    }
    let stats = cache.stats().await?;
    assert_eq!((stats.entries, stats.bytes), (Some(20), Some(20 * 8192)));
    assert_eq!(stats.removals.evicted, 80);
    assert_eq!(entries(folder.path()).len(), 20);
    assert!(get(&cache, "99").await.is_some() && get(&cache, "1").await.is_none());
    // Larger than all of it: not kept, and the old value is gone.
    cache.set("99", vec![1; 200_000].into(), &FOREVER).await?;
    assert_eq!(get(&cache, "99").await, None);
    // With less room, what is too much goes when it is opened.
    let smaller = FileCache::new(FileCacheOptions { max_bytes: 5 * 8192, ..options }, Clock::system());
    assert_eq!(smaller.stats().await?.entries, Some(5));
    assert_eq!(entries(folder.path()).len(), 5);
    Ok(())
}

/// A value's time goes on while nobody has the cache open.
#[tokio::test]
async fn time_goes_on_between_processes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let clock = Clock::manual();
    let cache = || FileCache::new(FileCacheOptions::new(folder.path()), clock.clone());
    cache().set("a", "1".into(), &SetOptions::ttl(Duration::from_secs(60))).await?;
    clock.advance(Duration::from_secs(59));
    assert_eq!(get(&cache(), "a").await, Some("1".into()));
    clock.advance(Duration::from_secs(1));
    let last = cache();
    assert_eq!(get(&last, "a").await, None);
    assert_eq!((last.stats().await?.removals.expired, entries(folder.path()).len()), (1, 0));
    Ok(())
}

const CHILD: &str = "STORAGE_CACHE_TEST_FOLDER";

fn value(n: u64) -> Bytes {
    format!("{n}:").repeat(usize::try_from(n % 50 + 1).unwrap() * 1_000).into()
}

/// A process that is killed while it sets: all that it said was set is there, whole, and nothing is half there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_leaves_what_it_has_set() -> Result<()> {
    if let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) {
        let cache = open(&folder);
        for n in 0.. {
            cache.set(&format!("{}", n % 40), value(n), &FOREVER).await?;
            println!("SET {n}");
            std::io::stdout().flush()?;
        }
    }
    let folder = tempfile::tempdir()?;
    let mut last: Option<u64> = None;
    for kill_after in [1, 30, 75, 140] {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "a_killed_process_leaves_what_it_has_set", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while said.len() < kill_after {
            let line = lines.next().expect("the child ended too early")?;
            said.extend(line.split("SET ").nth(1).and_then(|n| n.trim().parse::<u64>().ok()));
        }
        child.kill()?;
        // What it said before it died counts too.
        said.extend(
            lines.map_while(std::result::Result::ok).filter_map(|line| line.split("SET ").nth(1)?.trim().parse::<u64>().ok()),
        );
        child.wait()?;
        let end = *said.last().unwrap();
        last = last.max(Some(end));
        let cache = open(folder.path());
        for slot in 0..40_u64 {
            let Some(found) = get(&cache, &slot.to_string()).await else {
                // The one that was being set when it died had been taken out.
                assert!(end < slot || (end + 1) % 40 == slot, "{slot} is gone, the last was {end}");
                continue;
            };
            let n: u64 = String::from_utf8_lossy(&found).split(':').next().unwrap().parse().unwrap();
            assert!(found == value(n) && n % 40 == slot, "{slot}: not what was set");
            if slot <= end {
                let acknowledged = end - (end + 40 - slot) % 40;
                assert!(n == acknowledged || n == end + 1, "{slot}: {n} is older than {acknowledged}");
            }
        }
        assert_eq!(cache.stats().await?.removals.damaged, 0);
        let unfinished: Vec<_> =
            files_below(folder.path()).into_iter().filter(|file| !entries(folder.path()).contains(file)).collect();
        assert!(unfinished.is_empty(), "{unfinished:?}");
    }
    assert!(last > Some(100));
    Ok(())
}

/// A folder that can't be: what is set is not kept, and nothing fails.
#[tokio::test]
async fn a_folder_that_cannot_be_keeps_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "")?;
    let cache = open(&file);
    cache.set("a", "1".into(), &FOREVER).await?;
    assert_eq!(get(&cache, "a").await, None);
    assert!(!cache.remove("a").await?);
    Ok(())
}

/// A value of the second tier gets into the first with the hits that it takes, and a change takes it out.
#[tokio::test]
async fn repeated_hits_promote() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files = Arc::new(open(folder.path()));
    files.set("a", "1".into(), &FOREVER).await?;
    let options = TierOptions { promote_after: 3, ..TierOptions::default() };
    let tiers = CacheStore::new(Arc::new(TieredCache::new(MemoryCache::new(1 << 20), Arc::clone(&files) as _, options)));
    for _ in 0..10 {
        assert_eq!(tiers.get("a").await?, Some("1".into()));
    }
    assert_eq!(files.stats().await?.hits, 3);
    assert_eq!(tiers.stats().await?.hits, 10);
    tiers.remove("a").await?;
    assert_eq!(tiers.get("a").await?, None);
    // What is set is in both.
    tiers.set("b", "2", &FOREVER).await?;
    let before = files.stats().await?.hits;
    assert_eq!((tiers.get("b").await?, get(&*files, "b").await), (Some("2".into()), Some("2".into())));
    assert_eq!(files.stats().await?.hits, before + 1, "the one that asked it itself");
    Ok(())
}

/// A promoted value's time ends with that of the second tier.
#[tokio::test]
async fn a_promoted_value_does_not_outlive_its_time() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files = Arc::new(open(folder.path()));
    let options = TierOptions { promote_after: 1, max_age: Duration::from_secs(3600), ..TierOptions::default() };
    let tiers = TieredCache::new(MemoryCache::new(1 << 20), Arc::clone(&files) as _, options);
    files.set("a", "1".into(), &SetOptions::ttl(Duration::from_millis(300))).await?;
    while get(&tiers, "a").await.is_none() {
        // On a machine that is very slow.
        files.set("a", "1".into(), &SetOptions::ttl(Duration::from_millis(300))).await?;
    }
    let over = async {
        while get(&tiers, "a").await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), over).await.expect("it outlives its time");
    Ok(())
}
