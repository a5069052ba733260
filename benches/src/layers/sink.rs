//! A store that costs nothing: it drops what it is given, and gives back one blob that was kept before.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use storage_core::{
    BackendInfo, BlobAttributes, BlobBackend, BlobBody, BlobCapabilities, BlobContent, BlobEntry, BlobMeta, BlobPath, BlobRead,
    ByteRange, Error, GetOptions, ListOptions, PutMode, PutOptions, Result,
};

/// A store to be wrapped.
pub type Store = Arc<dyn BlobBackend>;

/// Bytes in a piece that a read hands out.
pub const PIECE: usize = 1 << 20;

/// The store. A stand-in: what is in front of it is measured, and nothing else.
#[derive(Debug)]
pub struct Sink {
    info: BackendInfo,
    capabilities: BlobCapabilities,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Keep the next blob.
    keep: bool,
    kept: Bytes,
    /// What was put last, until somebody has time to free it.
    dropped: Vec<Bytes>,
    /// Copies of the kept blob's pieces for the next read from the start, which then is nobody else's.
    ready: Vec<Bytes>,
}

impl Sink {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        let capabilities = BlobCapabilities {
            create: false,
            conditional: false,
            attributes: false,
            signed_url: false,
            max_blob_bytes: 1 << 40,
            durable: false,
        };
        Arc::new(Self { info: BackendInfo::new("sink", ""), capabilities, state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is put next.
    pub fn keep(&self) {
        self.state().keep = true;
    }

    /// Makes the copies for the next read, and frees what was put.
    pub fn ready(&self) {
        let mut state = self.state();
        state.dropped.clear();
        state.ready = state.kept.chunks(PIECE).map(Bytes::copy_from_slice).collect();
    }

    fn meta(path: &BlobPath, size: usize) -> BlobMeta {
        let attributes = BlobAttributes::default();
        BlobMeta { path: path.clone(), size: size as u64, modified_at: chrono::DateTime::UNIX_EPOCH, etag: None, attributes }
    }
}

fn not_here<T>() -> Result<T> {
    Err(Error::unsupported("the stand-in store puts and gets, and nothing else"))
}

#[async_trait]
impl BlobBackend for Sink {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        &self.capabilities
    }

    async fn create_container(&self) -> Result<bool> {
        Ok(false)
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, _options: &PutOptions) -> Result<BlobMeta> {
        let mut stream = body.into_stream();
        let (mut size, mut pieces) = (0, Vec::new());
        while let Some(piece) = stream.try_next().await? {
            size += std::hint::black_box(&piece).len();
            pieces.push(piece);
        }
        let mut state = self.state();
        if std::mem::take(&mut state.keep) {
            state.kept = pieces.concat().into();
        } else {
            state.dropped = pieces;
        }
        Ok(Self::meta(path, size))
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        let mut state = self.state();
        let meta = Self::meta(path, state.kept.len());
        let range = options.range.as_ref().unwrap_or(&ByteRange::From(0)).resolve(meta.size)?;
        let index = |at: u64| usize::try_from(at).map_err(|_| Error::internal("the blob is longer than memory"));
        let pieces = if range == (0..meta.size) && !state.ready.is_empty() {
            std::mem::take(&mut state.ready)
        } else {
            vec![state.kept.slice(index(range.start)?..index(range.end)?)]
        };
        // One after the other, each let go of when the next is asked for.
        let content = BlobContent::Stream(futures::stream::iter(pieces).map(Ok).boxed());
        Ok(BlobRead { meta, range, content })
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        Ok(Self::meta(path, self.state().kept.len()))
    }

    async fn delete(&self, _path: &BlobPath, _if_match: Option<&storage_core::ETag>) -> Result<bool> {
        not_here()
    }

    async fn copy(&self, _from: &BlobPath, _to: &BlobPath, _mode: &PutMode) -> Result<BlobMeta> {
        not_here()
    }

    fn list(&self, _options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        futures::stream::empty().boxed()
    }

    fn uri(&self, path: &BlobPath) -> String {
        format!("sink:{path}")
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
