//! [`CachedBlobs`]: blobs kept in memory, and in files.

mod files;
mod memory;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobContent, BlobEntry, BlobMeta, BlobPath, BlobRead, ByteRange, ETag,
    Engine, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Result, Secret, SignedAccess,
};

pub use self::files::FileOptions;
use self::files::{Content, Files, Found};
use self::memory::{Entry, Memory};
use self::stream::{Replay, tee};
use crate::epochs::{DOUBT, Epochs, is_final};
use crate::folder::Commit;

/// What is kept in memory, and how what is kept is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// How many bytes are kept in memory in all.
    pub max_bytes: u64,
    /// Larger blobs are not kept in memory.
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

/// The blobs of another backend, of which those that were read whole are kept: small ones in memory, and small and large ones in files, where there is a
/// [folder](Self::with_files) for them.
///
/// A blob that is kept is read, whole or in part, after a `head` has said that its mark is still the same: what others write is seen at once, and a hit saves the bytes' way, not the
/// question. With a [`max_age`](CacheOptions::max_age) it saves both. What is written through this handle is never read as it was before, whatever the age: a write takes the blob out
/// before and after, and a load that raced it is not kept. Backends without marks are not cached.
///
/// Files hold the bytes that `inner` gives, as they are. What is wrong with them or with their folder costs hits, and never a read: a damaged file is removed, and
/// its blob read from `inner`; where the disk is full or read-only, nothing more is kept.
#[derive(Clone, Debug)]
pub struct CachedBlobs {
    core: Arc<Core>,
}

struct Core {
    inner: Arc<dyn BlobBackend>,
    options: CacheOptions,
    info: BackendInfo,
    memory: Memory,
    files: Option<Files>,
    epochs: Epochs,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Core");
        shown.field("inner", &self.inner).field("options", &self.options).field("files", &self.files).finish_non_exhaustive()
    }
}

/// What the backend said of a blob, so that one read asks once.
#[derive(Default)]
struct Asked(Option<(Instant, Option<BlobMeta>)>);

/// A state that a blob has, and when it was seen to.
struct Fresh {
    meta: BlobMeta,
    checked: Instant,
}

impl CachedBlobs {
    /// Keeps small blobs of `inner` in memory.
    pub fn new(inner: Arc<dyn BlobBackend>, options: CacheOptions) -> Self {
        Self::build(inner, options, None)
    }

    /// Keeps blobs of `inner` in files too, which survive restarts. Where `inner` is not [durable](BlobCapabilities::durable), its marks say nothing of what it had in
    /// an earlier life, so its blobs are kept for this handle alone.
    pub fn with_files(inner: Arc<dyn BlobBackend>, options: CacheOptions, files: FileOptions) -> Self {
        let mut source = inner.info().to_string();
        if !inner.capabilities().durable {
            source = format!("{source} {}", uuid::Uuid::new_v4());
        }
        Self::build(inner, options, Some(Files::new(files, source)))
    }

    fn build(inner: Arc<dyn BlobBackend>, options: CacheOptions, files: Option<Files>) -> Self {
        let info = BackendInfo::new(format!("{}+cache", inner.info().driver), inner.info().location.clone());
        let memory = Memory::new(options.max_bytes);
        Self { core: Arc::new(Core { inner, options, info, memory, files, epochs: Epochs::new(DOUBT) }) }
    }
}

impl Core {
    /// Keeps what was read since there had been `writes`, unless somebody has begun to write.
    fn keep(&self, path: &BlobPath, writes: u64, keep: impl FnOnce()) {
        self.epochs.keep(path, writes, keep);
    }

    /// [`keep`](Self::keep), for later.
    fn commit(self: &Arc<Self>, path: &BlobPath, writes: u64) -> Commit {
        let (core, path) = (Arc::clone(self), path.clone());
        Box::new(move |keep| core.keep(&path, writes, keep))
    }

    async fn get(self: &Arc<Self>, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        let writes = self.epochs.seen(path).filter(|_| self.inner.capabilities().conditional);
        let Some(writes) = writes else { return self.inner.get(path, options).await };
        let mut asked = Asked::default();
        if let Some(read) = self.get_from_memory(path, options, writes, &mut asked).await? {
            return Ok(read);
        }
        if let Some(files) = &self.files
            && let Some(read) = self.get_from_files(files, path, options, writes, &mut asked).await?
        {
            return Ok(read);
        }
        if options.range.is_some() {
            return self.inner.get(path, options).await;
        }
        let checked = Instant::now();
        let read = self.inner.get(path, options).await?;
        if read.meta.etag.is_none() {
            return Ok(read);
        }
        self.load(read, checked, writes).await
    }

    /// Reads all of a blob, and keeps it.
    async fn load(self: &Arc<Self>, read: BlobRead, checked: Instant, writes: u64) -> Result<BlobRead> {
        let meta = read.meta.clone();
        if meta.size <= self.options.max_blob_bytes {
            let bytes = read.bytes().await?;
            if let Some(files) = &self.files {
                files.keep(&meta, bytes.clone(), checked, self.commit(&meta.path, writes)).await;
            }
            self.keep_in_memory(&meta, &bytes, checked, writes);
            let range = 0..meta.size;
            return Ok(in_memory(meta, range, &bytes));
        }
        let Some(files) = &self.files else { return Ok(read) };
        let Some(filling) = files.fill(&meta, checked).await else { return Ok(read) };
        let commit = self.commit(&meta.path, writes);
        let (range, size) = (read.range.clone(), meta.size);
        Ok(BlobRead { meta, range, content: BlobContent::Stream(tee(read.into_stream(), size, filling, commit)) })
    }

    fn keep_in_memory(&self, meta: &BlobMeta, bytes: &Bytes, checked: Instant, writes: u64) {
        let entry = Entry { meta: meta.clone(), bytes: bytes.clone(), checked };
        self.keep(&meta.path, writes, || self.memory.keep(entry));
    }

    async fn get_from_memory(
        &self,
        path: &BlobPath,
        options: &GetOptions,
        writes: u64,
        asked: &mut Asked,
    ) -> Result<Option<BlobRead>> {
        let Some(entry) = self.memory.get(path) else { return Ok(None) };
        let Some(fresh) = self.fresh(&entry.meta, Some(entry.checked), asked).await? else {
            self.memory.remove(path);
            return Ok(None);
        };
        if self.options.max_age.is_some() && fresh.checked != entry.checked {
            self.keep_in_memory(&fresh.meta, &entry.bytes, fresh.checked, writes);
        }
        if !is_wanted(&fresh.meta, options) {
            return Ok(None);
        }
        let range = range_of(&fresh.meta, options)?;
        Ok(Some(in_memory(fresh.meta, range, &entry.bytes)))
    }

    async fn get_from_files(
        &self,
        files: &Files,
        path: &BlobPath,
        options: &GetOptions,
        writes: u64,
        asked: &mut Asked,
    ) -> Result<Option<BlobRead>> {
        let Some(Found { meta, content }) = files.find(path, self.options.max_blob_bytes).await else { return Ok(None) };
        let Some(mark) = meta.etag.clone() else { return Ok(None) };
        let Some(Fresh { meta, checked }) = self.fresh(&meta, files.checked(path, &mark), asked).await? else {
            files.remove(path).await;
            return Ok(None);
        };
        self.keep(path, writes, || files.check(path, &mark, checked));
        if !is_wanted(&meta, options) {
            return Ok(None);
        }
        let range = range_of(&meta, options)?;
        Ok(Some(match content {
            Content::Whole(bytes) => {
                self.keep_in_memory(&meta, &bytes, checked, writes);
                in_memory(meta, range, &bytes)
            }
            Content::Entry(entry) => {
                let replay = Replay::new(files.clone(), Arc::clone(&self.inner), meta.clone(), range.clone(), entry);
                BlobRead { meta, range, content: BlobContent::Stream(replay.into_stream()) }
            }
        }))
    }

    /// What the blob is now, if it is still in the state `kept`, which it was seen to be in at `checked`.
    async fn fresh(&self, kept: &BlobMeta, checked: Option<Instant>, asked: &mut Asked) -> Result<Option<Fresh>> {
        if let (Some(age), Some(checked)) = (self.options.max_age, checked)
            && checked.elapsed() < age
        {
            return Ok(Some(Fresh { meta: kept.clone(), checked }));
        }
        let (checked, now) = match asked.0.take() {
            Some(asked) => asked,
            None => (Instant::now(), self.look(&kept.path).await?),
        };
        asked.0 = Some((checked, now.clone()));
        let same = now.filter(|now| now.etag == kept.etag && now.size == kept.size);
        Ok(same.map(|meta| Fresh { meta, checked }))
    }

    async fn look(&self, path: &BlobPath) -> Result<Option<BlobMeta>> {
        match self.inner.head(path).await {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a blob that is in neither tier meanwhile.
    async fn writing<T>(&self, path: &BlobPath, write: impl Future<Output = Result<T>>) -> Result<T> {
        let mut changing = self.epochs.begin([path]);
        self.memory.remove(path);
        if let Some(files) = &self.files {
            files.remove(path).await;
        }
        let outcome = write.await;
        if let Some(files) = &self.files {
            files.remove(path).await;
        }
        if outcome.as_ref().err().is_none_or(is_final) {
            changing.known();
        }
        outcome
    }
}

fn is_wanted(meta: &BlobMeta, options: &GetOptions) -> bool {
    options.if_match.as_ref().is_none_or(|mark| meta.etag.as_ref() == Some(mark))
}

fn range_of(meta: &BlobMeta, options: &GetOptions) -> Result<Range<u64>> {
    options.range.as_ref().unwrap_or(&ByteRange::From(0)).resolve(meta.size)
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
        self.core.writing(path, self.core.inner.put(path, body, options)).await
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        let read = self.core.get(path, options).await;
        read.map_err(|e| e.with_operation("blobs.get").with_subject(format_args!("blob `{path}`")).with_backend(&self.core.info))
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.core.inner.head(path).await
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.core.writing(path, self.core.inner.delete(path, if_match)).await
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        self.core.writing(to, self.core.inner.copy(from, to, mode)).await
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
        self.core.memory.clear();
        self.core.inner.close().await
    }
}
