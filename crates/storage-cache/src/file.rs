//! [`FileCache`]: values in files.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use storage_core::{
    BackendInfo, Cache, CacheCapabilities, CacheStats, Cached, Clock, Error, OpenFlag, RemovalCause, Result, SetOptions, clock,
};

use crate::counters::Counters;
use crate::folder::{Folder, blocking, damaged, head};
use crate::order::{Order, Turn};

/// Entries that were written by another version are in a folder of another name.
const ENTRIES: &str = "values-1";

const CAPABILITIES: CacheCapabilities = CacheCapabilities { idle: false, persistent: true, shared: true };

/// A folder that holds values, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCacheOptions {
    /// The folder; created where it is missing, for its owner alone. Several processes may use it.
    pub dir: PathBuf,
    /// How many bytes the files take in all.
    pub max_bytes: u64,
}

impl FileCacheOptions {
    /// 1 GiB in a folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), max_bytes: 1 << 30 }
    }
}

/// Values in the files of a folder, which survive restarts: those that were not used for the longest time go when they take too much.
///
/// Each value is a file of its own, written beside the others and renamed into its place. It says what it is of, and has checksums: one that is damaged, cut or
/// another's is removed, logged and counted, and read as if it had not been kept; it is never given as a value. Nothing is synced: a process that is killed loses nothing, a power cut may
/// damage what was written last. The checksums find damage; they don't keep out somebody who can write to the folder.
///
/// A disk that is full or read-only makes a cache that doesn't keep. What was there is removed all the same; where not even that can be done, that is an error.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let dir = folder.path().join("cache");
/// use storage_cache::{FileCache, FileCacheOptions};
/// use storage_core::{Cache, Clock, SetOptions};
///
/// let cache = FileCache::new(FileCacheOptions::new(&dir), Clock::system());
/// cache.set("greeting", "hello".into(), &SetOptions::default()).await?;
/// cache.close().await?;
/// let again = FileCache::new(FileCacheOptions::new(&dir), Clock::system());
/// assert_eq!(again.get("greeting").await?.map(|cached| cached.value), Some("hello".into()));
/// # Ok::<(), storage_core::Error>(()) })?;
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone)]
pub struct FileCache {
    shared: Arc<Shared>,
}

struct Shared {
    folder: Arc<Folder>,
    order: Arc<Order>,
    counters: Counters,
    clock: Clock,
    info: BackendInfo,
    open: OpenFlag,
}

/// What an entry says that it is of.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    key: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_at: Option<DateTime<Utc>>,
}

/// What is in an entry's file.
enum Found {
    Value(Cached),
    /// Its time is over.
    Over,
}

impl FileCache {
    /// The values in a folder, which is opened when it is first used. `clock` says whose time is over.
    #[must_use]
    pub fn new(options: FileCacheOptions, clock: Clock) -> Self {
        let info = BackendInfo::new("file", options.dir.display().to_string());
        let folder = Folder::new(options.dir, ENTRIES, options.max_bytes, String::new());
        let (order, counters, open) = (Order::new(), Counters::new(None), OpenFlag::default());
        Self { shared: Arc::new(Shared { folder, order, counters, clock, info, open }) }
    }

    /// Does something on a thread that may block, once the folder is open; to its end, also where nobody waits.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> T + Send + 'static) -> Result<T> {
        self.shared.open.check()?;
        let shared = Arc::clone(&self.shared);
        shared.folder.opened().await;
        blocking(move || work(&shared)).await.ok_or_else(|| Error::internal("a thread that worked on cached files ended"))
    }

    fn begin(&self, key: &str) -> Turn {
        self.shared.order.begin(self.shared.folder.name(key))
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::from(error).with_backend(&self.shared.info)
    }
}

impl Shared {
    fn find(&self, key: &str) -> Option<Cached> {
        let name = self.folder.name(key);
        let described = |description: &[u8]| {
            let description: Description = serde_json::from_slice(description)?;
            if description.key == key { Ok((description.size, description)) } else { Err(damaged("it is another key's")) }
        };
        let found = self.folder.find(name, key, described, |mut entry, description| {
            let now = self.clock.now();
            if description.expires_at.is_some_and(|at| at <= now) {
                return Ok(Found::Over);
            }
            let left = description.expires_at.and_then(|at| (at - now).to_std().ok());
            Ok(Found::Value(Cached { value: entry.read_all()?, refresh_at: description.refresh_at, left }))
        });
        match found? {
            Found::Value(cached) => Some(cached),
            Found::Over => {
                // A value that came meanwhile goes too: that costs a hit.
                self.order.if_idle(name, || match self.folder.discard(name) {
                    Ok(true) => self.counters.gone(key, RemovalCause::Expired),
                    Ok(false) => {}
                    Err(error) => self.folder.warn(&error),
                });
                None
            }
        }
    }

    /// Writes an entry, if no later change has begun when it is done. What was there is gone in any case, or that is an error.
    fn set(&self, key: &str, value: &[u8], options: &SetOptions, turn: Turn) -> io::Result<()> {
        let name = self.folder.name(key);
        let description = Description {
            key: key.to_owned(),
            size: value.len() as u64,
            expires_at: options.ttl.map(|ttl| clock::add(self.clock.now(), ttl)),
            refresh_at: options.refresh_at,
        };
        let head = serde_json::to_vec(&description).ok().and_then(|description| head(&description, value.len() as u64));
        let writer =
            head.filter(|_| !options.is_over() && !self.folder.is_paused()).and_then(|head| self.folder.begin(name, head, None));
        let turn = Arc::new(turn);
        if let Some(mut writer) = writer {
            let order = Arc::clone(&turn);
            let commit = Box::new(move |keep: &mut dyn FnMut()| order.commit(keep));
            if let Err(error) = writer.write(value).and_then(|()| writer.finish(commit)) {
                self.folder.trouble(&error);
                return self.folder.discard(name).map(|_| ());
            }
        }
        // Where it was not kept, what was there before is not what it is now.
        let mut gone = Ok(());
        turn.settle(|| gone = self.folder.discard(name).map(|_| ()));
        gone
    }
}

impl fmt::Debug for FileCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileCache").field("info", &self.shared.info).finish_non_exhaustive()
    }
}

#[async_trait]
impl Cache for FileCache {
    fn info(&self) -> &BackendInfo {
        &self.shared.info
    }

    fn capabilities(&self) -> &CacheCapabilities {
        &CAPABILITIES
    }

    async fn get(&self, key: &str) -> Result<Option<Cached>> {
        let key = Box::<str>::from(key);
        self.run(move |shared| {
            let found = shared.find(&key);
            shared.counters.read(found.is_some());
            found
        })
        .await
    }

    async fn set(&self, key: &str, value: Bytes, options: &SetOptions) -> Result<()> {
        // Taken before anything is waited for: the order is that of the calls.
        let turn = self.begin(key);
        let (key, options) = (Box::<str>::from(key), *options);
        let set = self.run(move |shared| {
            shared.counters.set();
            shared.set(&key, &value, &options, turn)
        });
        set.await?.map_err(|error| self.failed(error))
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        let turn = self.begin(key);
        let key = Box::<str>::from(key);
        let removed = self.run(move |shared| {
            let mut removed = Ok(false);
            turn.settle(|| removed = shared.folder.discard(shared.folder.name(&key)));
            if matches!(removed, Ok(true)) {
                shared.counters.gone(&key, RemovalCause::Removed);
            }
            removed
        });
        removed.await?.map_err(|error| self.failed(error))
    }

    async fn clear(&self) -> Result<()> {
        self.shared.order.clear();
        self.run(|shared| shared.folder.discard_all()).await?.map_err(|error| self.failed(error))
    }

    async fn stats(&self) -> Result<CacheStats> {
        self.run(|shared| {
            let (entries, bytes) = shared.folder.index().totals();
            let mut stats = shared.counters.stats(Some(entries), Some(bytes));
            let losses = &shared.folder.losses;
            stats.removals.evicted = losses.evicted.load(Ordering::Relaxed);
            stats.removals.replaced = losses.replaced.load(Ordering::Relaxed);
            stats.removals.damaged = losses.damaged.load(Ordering::Relaxed);
            stats
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        self.shared.open.check()
    }

    async fn close(&self) -> Result<()> {
        self.shared.open.close();
        Ok(())
    }
}
