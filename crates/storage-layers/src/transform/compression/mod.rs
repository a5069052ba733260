//! [`CompressedBlobs`]: blobs that take less room.
//!
//! A blob is cut into frames of 1 MiB, each compressed by itself, with a table of where they are: the seekable format of zstd. So parts of it are read by
//! decompressing the frames they lie in, and any `zstd -d` gets the blob out of the stored bytes.
//!
//! Content that does not shrink is stored as it is, in frames all the same: where the content type or content encoding says so, or where a frame was tried in vain (every sixteenth
//! is then tried again). The blob's attributes are the user's own: its `content_encoding` says nothing of this compression.
//!
//! Blobs that were not written through the compression are read as they are. What begins with the 16 bytes that only a compressed blob begins with is taken for one; a blob of such content that
//! *is* put through the compression comes back as it was, as any does.
//!
//! What it costs: the size of a blob is in its stored bytes, so `head` reads 32 bytes (and 17 more, if it was put as a stream longer than a frame whose size was not
//! announced), and a listing does so for each blob it shows, 16 at once. A part that does not begin in the first frame takes two more reads: of the table and of its frames. A
//! checksum in each frame, also of those that are stored as they are, tells damage: such a read is `Corrupt`, and no byte of a frame is handed out before its checksum was checked. (Frames
//! stored as they are by early versions have none.) The checksum finds damage; whoever wants to know of all changes encrypts.

mod format;
mod pack;
mod unpack;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobContent, BlobEntry, BlobMeta, BlobPath, BlobRead, ByteRange, ETag,
    Engine, Error, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Result, Secret,
};

use self::format::{FRAME, FRAME_OVERHEAD, Frames, INTRO, Intro, Offsets, TAIL};
use self::pack::{Packing, is_dense};
use self::unpack::Unpacking;
use super::body::{Incoming, Plain, empty, slice};
use super::peek::look_at_each;
use super::wrap;

/// How often a read begins anew where the blob was replaced between two reads of it.
const ATTEMPTS: usize = 100;
/// The levels that there are.
const LEVELS: std::ops::RangeInclusive<i32> = 1..=22;

/// How blobs are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionOptions {
    /// zstd's level, 1 (fastest) to 22 (smallest).
    pub level: i32,
}

impl Default for CompressionOptions {
    /// Level 3.
    fn default() -> Self {
        Self { level: 3 }
    }
}

/// The blobs of another backend, compressed. See the [module](self).
#[derive(Clone, Debug)]
pub struct CompressedBlobs {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    inner: Arc<dyn BlobBackend>,
    options: CompressionOptions,
    info: BackendInfo,
    capabilities: BlobCapabilities,
}

impl CompressedBlobs {
    /// Compresses the blobs of `inner`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for a level that zstd does not have.
    pub fn new(inner: Arc<dyn BlobBackend>, options: CompressionOptions) -> Result<Self> {
        check_level(options.level)?;
        let info = wrap::info(&*inner, "zstd");
        let declared = inner.capabilities().clone();
        let max_blob_bytes = format::max_plain(declared.max_blob_bytes);
        let capabilities = BlobCapabilities { signed_url: false, max_blob_bytes, ..declared };
        Ok(Self { core: Arc::new(Core { inner, options, info, capabilities }) })
    }

    fn explain<'a>(&'a self, operation: &'static str, path: &'a BlobPath) -> impl FnOnce(Error) -> Error + 'a {
        wrap::explain(&self.core.info, operation, path)
    }
}

pub(super) fn check_level(level: i32) -> Result<()> {
    if LEVELS.contains(&level) { Ok(()) } else { Err(Error::config(format!("zstd has the levels 1 to 22, not {level}"))) }
}

/// `None` where the blob was replaced since `seen` was read, unless the caller wants that state alone.
fn unless_replaced<T>(outcome: Result<T>, options: &GetOptions) -> Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::Conflict && options.if_match.is_none() => Ok(None),
        outcome => outcome.map(Some),
    }
}

fn too_often() -> Error {
    Error::unavailable("the blob is replaced faster than it can be read")
}

impl Core {
    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        let Plain { stream, size } = Plain::of(body).await?;
        let packing = Packing::new(stream, size, self.options.level, is_dense(&options.attributes)).await?;
        let known = packing.size;
        if known.is_some_and(|size| size <= FRAME as u64) {
            let meta = self.inner.put(path, BlobBody::Bytes(packing.collect().await?), options).await?;
            return Ok(BlobMeta { size: known.unwrap_or_default(), ..meta });
        }
        let written = Arc::new(AtomicU64::new(0));
        let stream = packing.into_counted_stream(Arc::clone(&written));
        let meta = self.inner.put(path, BlobBody::Stream { stream, size: None }, options).await?;
        Ok(BlobMeta { size: written.load(Ordering::Acquire), ..meta })
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        for _ in 0..ATTEMPTS {
            if let Some(read) = self.try_get(path, options).await? {
                return Ok(read);
            }
        }
        Err(too_often())
    }

    /// One attempt. `None`: the blob was replaced between two reads of it.
    async fn try_get(&self, path: &BlobPath, options: &GetOptions) -> Result<Option<BlobRead>> {
        let wanted = options.range.clone().unwrap_or(ByteRange::From(0));
        let first = first_range(&wanted);
        let asked = GetOptions { range: first.clone(), if_match: options.if_match.clone() };
        let read = self.inner.get(path, &asked).await?;
        let stored = read.meta.clone();
        let pinned = |range: ByteRange| GetOptions { range: Some(range), if_match: stored.etag.clone() };
        let mut source = Incoming::of(read);
        let intro = source.up_to(INTRO).await?;
        if !Intro::is_at_start_of(&intro) {
            let range = wanted.resolve(stored.size)?;
            if first == Some(intro_only()) {
                return unless_replaced(self.inner.get(path, &pinned(wanted)).await, options);
            }
            let content = BlobContent::Stream(slice(source.into_stream(intro), range.start, range.end - range.start));
            return Ok(Some(BlobRead { meta: stored, range, content }));
        }
        let intro = Intro::parse(&intro)?;
        let Some(size) = unless_replaced(self.size(path, intro, &stored).await, options)? else { return Ok(None) };
        let frames = intro.frames(size)?;
        let meta = BlobMeta { size, ..stored.clone() };
        let range = wanted.resolve(size)?;
        if range.is_empty() {
            return Ok(Some(BlobRead { meta, range, content: BlobContent::Stream(empty()) }));
        }
        let needed = range.start / frames.frame..range.end.div_ceil(frames.frame);
        if first == Some(intro_only()) {
            let Some(place) = unless_replaced(self.place(path, frames, &needed, &stored).await, options)? else {
                return Ok(None);
            };
            let again = self.inner.get(path, &pinned(ByteRange::Bounded(place))).await;
            let Some(read) = unless_replaced(again, options)? else { return Ok(None) };
            source = Incoming::of(read);
        }
        let skip = range.start - needed.start * frames.frame;
        let unpacked = slice(Unpacking::new(source, frames, needed)?.into_stream(), skip, range.end - range.start);
        let (info, at) = (self.info.clone(), path.clone());
        let explained = unpacked.map_err(move |error| wrap::explain(&info, "blobs.get", &at)(error));
        Ok(Some(BlobRead { meta, range, content: BlobContent::Stream(explained.boxed()) }))
    }

    /// The size of a blob that begins with `intro`, in the state `stored`.
    async fn size(&self, path: &BlobPath, intro: Intro, stored: &BlobMeta) -> Result<u64> {
        if let Some(size) = intro.size {
            return Ok(size);
        }
        let range = Some(ByteRange::Suffix(TAIL as u64));
        let read = self.inner.get(path, &GetOptions { range, if_match: stored.etag.clone() }).await?;
        let tail = Incoming::of(read).up_to(TAIL).await?;
        intro.size_of_tail(&tail)
    }

    /// Where the frames `needed` are stored, by the table.
    async fn place(&self, path: &BlobPath, frames: Frames, needed: &Range<u64>, stored: &BlobMeta) -> Result<Range<u64>> {
        let range = Some(ByteRange::Bounded(frames.entries(stored.size, needed.end)?));
        let read = self.inner.get(path, &GetOptions { range, if_match: stored.etag.clone() }).await?;
        let mut entries = Incoming::of(read);
        let mut offsets = Offsets::new(frames);
        let mut start = offsets.at;
        for frame in 0..needed.end {
            if frame == needed.start {
                start = offsets.at;
            }
            offsets.add(&entries.up_to(Offsets::ENTRY).await?)?;
        }
        Ok(start..offsets.at)
    }

    /// Size, mark and attributes: what `head` says, once the stored bytes have been looked at.
    async fn look(&self, path: &BlobPath) -> Result<BlobMeta> {
        for _ in 0..ATTEMPTS {
            let read = self.inner.get(path, &GetOptions { range: Some(intro_only()), if_match: None }).await?;
            let stored = read.meta.clone();
            let intro = Incoming::of(read).up_to(INTRO).await?;
            if !Intro::is_at_start_of(&intro) {
                return Ok(stored);
            }
            let size = self.size(path, Intro::parse(&intro)?, &stored).await;
            if let Some(size) = unless_replaced(size, &GetOptions::default())? {
                return Ok(BlobMeta { size, ..stored });
            }
        }
        Err(too_often())
    }

    async fn look_listed(&self, listed: BlobMeta) -> Result<Option<BlobMeta>> {
        match self.look(&listed.path).await {
            Ok(meta) => Ok(Some(BlobMeta { attributes: listed.attributes, ..meta })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(wrap::explain(&self.info, "blobs.list", &listed.path)(error)),
        }
    }
}

/// The range of an intro, and of nothing else.
const fn intro_only() -> ByteRange {
    ByteRange::Bounded(0..INTRO as u64)
}

/// What to read first of the stored blob: the intro, and what is wanted behind it if that begins in the first frame. Of frames whose places are not known yet, no
/// more can be needed than what they take at most.
fn first_range(wanted: &ByteRange) -> Option<ByteRange> {
    const FIRST_FRAME: Range<u64> = 0..FRAME as u64;
    match wanted {
        ByteRange::From(0) => None,
        ByteRange::Bounded(range) if FIRST_FRAME.contains(&range.start) => {
            let frames = range.end.div_ceil(FRAME as u64).max(1);
            let most = frames.saturating_mul((FRAME + FRAME_OVERHEAD) as u64);
            Some(ByteRange::Bounded(0..most.saturating_add(INTRO as u64)))
        }
        _ => Some(intro_only()),
    }
}

#[async_trait]
impl BlobBackend for CompressedBlobs {
    fn info(&self) -> &BackendInfo {
        &self.core.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        &self.core.capabilities
    }

    async fn create_container(&self) -> Result<bool> {
        self.core.inner.create_container().await
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        self.core.put(path, body, options).await.map_err(self.explain("blobs.put", path))
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.core.get(path, options).await.map_err(self.explain("blobs.get", path))
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.core.look(path).await.map_err(self.explain("blobs.head", path))
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.core.inner.delete(path, if_match).await
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        let size = self.core.look(from).await.map_err(self.explain("blobs.copy", from))?.size;
        let copied = self.core.inner.copy(from, to, mode).await?;
        // The source may have been replaced before it was copied. What is not there any more can't be asked.
        let now = self.core.look(to).await.ok().filter(|now| now.etag == copied.etag);
        Ok(BlobMeta { size: now.map_or(size, |now| now.size), ..copied })
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        let core = Arc::clone(&self.core);
        look_at_each(self.core.inner.list(options), move |meta| {
            let core = Arc::clone(&core);
            async move { core.look_listed(meta).await }
        })
    }

    fn uri(&self, path: &BlobPath) -> String {
        self.core.inner.uri(path)
    }

    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        Err(Error::unsupported(format!("{engine} would read what is compressed")))
    }

    async fn ping(&self) -> Result<()> {
        self.core.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.core.inner.close().await
    }
}
