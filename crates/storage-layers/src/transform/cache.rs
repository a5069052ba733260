//! [`CachedBlobs`]: small blobs kept in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobContent, BlobEntry, BlobMeta, BlobPath, BlobRead, ByteRange, ETag,
    Engine, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Result, Secret, SignedAccess,
};

use super::wrap;

/// What an entry takes besides its bytes and its path, about.
const ENTRY: usize = 512;
/// Writes and loads of blobs whose paths fall together look out for each other.
const STRIPES: usize = 64;

/// What is kept, and how it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// How many bytes are kept in all.
    pub max_bytes: u64,
    /// Larger blobs are not kept.
    pub max_blob_bytes: u64,
    /// For so long after it was last checked, a blob is read without asking whether it has changed: changes made by others show so much later. `None`: each
    /// read asks.
    pub max_age: Option<Duration>,
}

impl Default for CacheOptions {
    /// 64 MiB in blobs of up to 1 MiB; each read asks.
    fn default() -> Self {
        Self { max_bytes: 64 << 20, max_blob_bytes: 1 << 20, max_age: None }
    }
}

/// The blobs of another backend, of which small ones that were read whole are kept in memory.
///
/// A blob that is kept is read, whole or in part, after a `head` has said that its mark is still the same: what others write is seen at once, and a hit saves the bytes' way, not the
/// question. With a [`max_age`](CacheOptions::max_age) it saves both. What is written through this handle is never read as it was before, whatever the age: a write takes the blob out
/// before and after, and a load that raced it is not kept. Backends without marks are not cached.
#[derive(Clone, Debug)]
pub struct CachedBlobs {
    core: Arc<Core>,
}

struct Core {
    inner: Arc<dyn BlobBackend>,
    options: CacheOptions,
    info: BackendInfo,
    entries: moka::sync::Cache<BlobPath, Arc<Entry>>,
    stripes: Vec<Mutex<Stripe>>,
    hasher: RandomState,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("inner", &self.inner).field("options", &self.options).finish_non_exhaustive()
    }
}

struct Entry {
    meta: BlobMeta,
    bytes: Bytes,
    /// The state was this one then, or later.
    checked: Instant,
}

/// Who is at work on some blobs.
#[derive(Default)]
struct Stripe {
    /// Counts the beginnings and ends of writes.
    writes: u64,
    /// Writes that are under way.
    writing: usize,
}

/// A write that is under way: nothing of the blob is read from the cache, or kept, until it is over.
struct Writing<'a> {
    core: &'a Core,
    path: &'a BlobPath,
}

impl<'a> Writing<'a> {
    fn new(core: &'a Core, path: &'a BlobPath) -> Self {
        let mut stripe = core.stripe(path);
        stripe.writes += 1;
        stripe.writing += 1;
        core.entries.invalidate(path);
        drop(stripe);
        Self { core, path }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut stripe = self.core.stripe(self.path);
        stripe.writes += 1;
        stripe.writing -= 1;
        self.core.entries.invalidate(self.path);
    }
}

impl CachedBlobs {
    /// Keeps small blobs of `inner`.
    pub fn new(inner: Arc<dyn BlobBackend>, options: CacheOptions) -> Self {
        let info = wrap::info(&*inner, "cache");
        let weigh = |path: &BlobPath, entry: &Arc<Entry>| {
            u32::try_from(entry.bytes.len() + path.as_str().len() + ENTRY).unwrap_or(u32::MAX)
        };
        let entries = moka::sync::Cache::builder().max_capacity(options.max_bytes).weigher(weigh).build();
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self { core: Arc::new(Core { inner, options, info, entries, stripes, hasher: RandomState::new() }) }
    }
}

impl Core {
    fn stripe(&self, path: &BlobPath) -> MutexGuard<'_, Stripe> {
        let index = usize::try_from(self.hasher.hash_one(path) % STRIPES as u64).unwrap_or_default();
        // Counters are right whoever panicked.
        self.stripes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of a blob, if nobody is writing it, and how many writes there have been.
    fn kept(&self, path: &BlobPath) -> (Option<Arc<Entry>>, u64) {
        let stripe = self.stripe(path);
        let entry = if stripe.writing == 0 { self.entries.get(path) } else { None };
        (entry, stripe.writes)
    }

    /// Keeps what was read since there had been `writes`, unless somebody has begun to write.
    fn keep(&self, path: &BlobPath, entry: Entry, writes: u64) {
        let stripe = self.stripe(path);
        if stripe.writing == 0 && stripe.writes == writes {
            self.entries.insert(path.clone(), Arc::new(entry));
        }
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        if !self.inner.capabilities().conditional {
            return self.inner.get(path, options).await;
        }
        let (entry, writes) = self.kept(path);
        if let Some(entry) = entry
            && let Some(meta) = self.checked(path, &entry, writes).await?
            && options.if_match.as_ref().is_none_or(|mark| meta.etag.as_ref() == Some(mark))
        {
            let range = options.range.as_ref().unwrap_or(&ByteRange::From(0)).resolve(meta.size)?;
            return Ok(in_memory(meta, range, &entry.bytes));
        }
        if options.range.is_some() {
            return self.inner.get(path, options).await;
        }
        let checked = Instant::now();
        let read = self.inner.get(path, options).await?;
        if read.meta.size > self.options.max_blob_bytes || read.meta.etag.is_none() {
            return Ok(read);
        }
        let meta = read.meta.clone();
        let bytes = read.bytes().await?;
        self.keep(path, Entry { meta: meta.clone(), bytes: bytes.clone(), checked }, writes);
        let range = 0..meta.size;
        Ok(in_memory(meta, range, &bytes))
    }

    /// What the blob is now, if it is still what is kept.
    async fn checked(&self, path: &BlobPath, entry: &Entry, writes: u64) -> Result<Option<BlobMeta>> {
        if self.options.max_age.is_some_and(|age| entry.checked.elapsed() < age) {
            return Ok(Some(entry.meta.clone()));
        }
        let checked = Instant::now();
        let now = match self.inner.head(path).await {
            Ok(meta) => Some(meta).filter(|meta| meta.etag == entry.meta.etag),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match &now {
            Some(meta) if self.options.max_age.is_some() => {
                self.keep(path, Entry { meta: meta.clone(), bytes: entry.bytes.clone(), checked }, writes);
            }
            Some(_) => {}
            None => self.entries.invalidate(path),
        }
        Ok(now)
    }
}

fn in_memory(meta: BlobMeta, range: Range<u64>, bytes: &Bytes) -> BlobRead {
    let offset = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    let part = bytes.slice(offset(range.start)..offset(range.end));
    BlobRead { meta, range, content: BlobContent::Stream(futures::stream::once(std::future::ready(Ok(part))).boxed()) }
}

#[async_trait]
impl BlobBackend for CachedBlobs {
    fn info(&self) -> &BackendInfo {
        &self.core.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        self.core.inner.capabilities()
    }

    async fn create_container(&self) -> Result<bool> {
        self.core.inner.create_container().await
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        let _writing = Writing::new(&self.core, path);
        self.core.inner.put(path, body, options).await
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.core.get(path, options).await.map_err(wrap::explain(&self.core.info, "blobs.get", path))
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.core.inner.head(path).await
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        let _writing = Writing::new(&self.core, path);
        self.core.inner.delete(path, if_match).await
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        let _writing = Writing::new(&self.core, to);
        self.core.inner.copy(from, to, mode).await
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        self.core.inner.list(options)
    }

    fn uri(&self, path: &BlobPath) -> String {
        self.core.inner.uri(path)
    }

    async fn signed_url(&self, path: &BlobPath, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        self.core.inner.signed_url(path, access, expires_in).await
    }

    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        self.core.inner.storage_options(engine)
    }

    fn engine_uri(&self, path: &BlobPath, engine: Engine) -> Result<String> {
        self.core.inner.engine_uri(path, engine)
    }

    async fn ping(&self) -> Result<()> {
        self.core.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.core.entries.invalidate_all();
        self.core.inner.close().await
    }
}
