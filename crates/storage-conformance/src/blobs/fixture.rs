//! A fresh container, and short words for what cases do with it.

use std::io::{Seek as _, Write as _};

use bytes::Bytes;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use storage_core::{
    BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobStore, Error, ListOptions, PutMode, PutOptions, Result,
};

use crate::Harness;
use crate::opened::Opened;

/// A fresh container.
pub(crate) struct Fixture<'h> {
    pub(crate) opened: Opened<'h>,
    pub(crate) store: BlobStore,
}

/// A path that is good.
pub(crate) fn path(path: &str) -> BlobPath {
    BlobPath::new(path).expect("a good path")
}

/// Bytes that look random and are not all the same anywhere.
pub(crate) fn noise(len: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// The three kinds of body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bytes,
    Stream,
    SizedStream,
    File,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Bytes, Self::Stream, Self::SizedStream, Self::File];

    /// A body of this kind with these bytes; streams in uneven pieces.
    pub(crate) fn body(self, bytes: &Bytes) -> BlobBody {
        let size = (self == Self::SizedStream).then_some(bytes.len() as u64);
        match self {
            Self::Bytes => BlobBody::Bytes(bytes.clone()),
            Self::Stream | Self::SizedStream => {
                let piece = (bytes.len() / 3).max(1);
                let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
                // An empty piece in the middle is fine.
                let pieces = std::iter::once(Ok(Bytes::new())).chain(pieces);
                BlobBody::Stream { stream: futures::stream::iter(pieces.collect::<Vec<_>>()).boxed(), size }
            }
            Self::File => {
                // What lies before the file's position is not part of the body.
                let mut file = tempfile::tempfile().expect("a temporary file");
                file.write_all(b"before").and_then(|()| file.write_all(bytes)).expect("a temporary file takes bytes");
                file.seek(std::io::SeekFrom::Start(6)).expect("a temporary file seeks");
                BlobBody::File(file)
            }
        }
    }
}

/// A stream that fails after these bytes.
pub(crate) fn failing_stream(bytes: &Bytes, size: Option<u64>) -> BlobBody {
    let pieces: Vec<Result<Bytes>> = bytes.chunks(64 * 1024).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let failure = || Err(Error::unavailable("the source of the stream broke off"));
    BlobBody::Stream {
        stream: futures::stream::iter(pieces).chain(futures::stream::once(async move { failure() })).boxed(),
        size,
    }
}

impl<'h> Fixture<'h> {
    pub(crate) async fn open(harness: &'h dyn Harness) -> Result<Self> {
        let opened = Opened::fresh(harness).await?;
        let store = opened.blobs();
        store.create_container().await?;
        Ok(Self { opened, store })
    }

    pub(crate) fn capabilities(&self) -> &BlobCapabilities {
        self.store.capabilities()
    }

    pub(crate) async fn put(&self, at: &str, text: &str) -> Result<BlobMeta> {
        self.store.put(&path(at), Bytes::copy_from_slice(text.as_bytes())).await
    }

    pub(crate) async fn put_as(&self, kind: Kind, at: &str, bytes: &Bytes, mode: PutMode) -> Result<BlobMeta> {
        self.store.put_with(&path(at), kind.body(bytes), &PutOptions::default().mode(mode)).await
    }

    pub(crate) async fn read(&self, at: &str) -> Result<Bytes> {
        self.store.get(&path(at)).await
    }

    pub(crate) async fn text(&self, at: &str) -> Result<String> {
        self.store.get_text(&path(at)).await
    }

    /// What a listing shows, prefixes with a slash at their ends.
    pub(crate) async fn listed(&self, options: ListOptions) -> Result<Vec<String>> {
        let entries: Vec<BlobEntry> = self.store.list(&options).try_collect().await?;
        Ok(entries.iter().map(BlobEntry::sort_key).collect())
    }

    /// All paths.
    pub(crate) async fn all(&self) -> Result<Vec<String>> {
        self.listed(ListOptions::default()).await
    }
}
