//! Blobs on their way: from the backend, kept while they are read; and from a file, or from the backend where the file is damaged.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use storage_core::{BlobBackend, BlobMeta, ByteRange, ByteStream, Error, GetOptions, Result};

use super::files::Files;
use crate::folder::{Commit, Entry, Filling};

/// A blob that is read whole, and kept if that comes to its end.
struct Tee {
    stream: ByteStream,
    filling: Option<(Filling, Commit)>,
    left: u64,
}

impl Tee {
    async fn take(&mut self, bytes: &Bytes) {
        let Some((mut filling, commit)) = self.filling.take() else { return };
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else { return };
        self.left = left;
        if !filling.write(bytes.clone()).await {
            return;
        }
        // Before the last bytes are handed on: not everybody asks whether there are more.
        match left {
            0 => filling.finish(commit).await,
            _ => self.filling = Some((filling, commit)),
        }
    }
}

/// `stream`, of `size` bytes, which `filling` gets too.
pub(super) fn tee(stream: ByteStream, size: u64, filling: Filling, commit: Commit) -> ByteStream {
    let tee = Tee { stream, filling: Some((filling, commit)), left: size };
    futures::stream::try_unfold(tee, |mut tee| async move {
        let Some(bytes) = tee.stream.try_next().await? else { return Ok(None) };
        tee.take(&bytes).await;
        Ok(Some((bytes, tee)))
    })
    .boxed()
}

/// A read from a file, which the backend finishes where the file can't.
pub(super) struct Replay {
    files: Files,
    inner: Arc<dyn BlobBackend>,
    /// The state that is read.
    meta: BlobMeta,
    left: Range<u64>,
    /// `None`: it turned out to be damaged.
    entry: Option<Entry>,
    /// What was read of it, and is good.
    read: VecDeque<Bytes>,
    rest: Option<ByteStream>,
}

impl Replay {
    /// Reads `range` of the blob that `entry` holds, in the state `meta`.
    pub(super) fn new(files: Files, inner: Arc<dyn BlobBackend>, meta: BlobMeta, range: Range<u64>, entry: Entry) -> Self {
        Self { files, inner, meta, left: range, entry: Some(entry), read: VecDeque::new(), rest: None }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(rest) = &mut self.rest {
                return rest.try_next().await;
            }
            if let Some(bytes) = self.read.pop_front() {
                return Ok(Some(bytes));
            }
            if self.left.is_empty() {
                return Ok(None);
            }
            match self.entry.take() {
                Some(entry) => self.read_some(entry).await?,
                None => self.rest = Some(self.ask_backend().await?),
            }
        }
    }

    async fn read_some(&mut self, mut entry: Entry) -> Result<()> {
        let left = self.left.clone();
        let reading = tokio::task::spawn_blocking(move || (entry.read(&left), entry)).await;
        match reading.map_err(|e| Error::internal("a thread that read a file ended").with_source(e))? {
            (Ok(pieces), entry) => {
                self.left.start += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
                self.read = pieces.into();
                self.entry = Some(entry);
            }
            (Err(error), _) => self.files.remove_damaged(&self.meta.path, error).await,
        }
        Ok(())
    }

    // `&mut`: a stream can't be shared between threads.
    async fn ask_backend(&mut self) -> Result<ByteStream> {
        let options = GetOptions { range: Some(ByteRange::Bounded(self.left.clone())), if_match: self.meta.etag.clone() };
        let read = self.inner.get(&self.meta.path, &options).await?;
        Ok(read.into_stream())
    }

    pub(super) fn into_stream(self) -> ByteStream {
        futures::stream::try_unfold(self, |mut replay| async move {
            let bytes = replay.next().await?;
            Ok(bytes.map(|bytes| (bytes, replay)))
        })
        .boxed()
    }
}
