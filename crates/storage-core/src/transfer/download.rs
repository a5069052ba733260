//! Down: one blob becomes a file, whole or not at all.

use std::path::Path;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use tokio::sync::SemaphorePermit;

use super::local::{blocking, file_subject};
use super::partial::{Durable, Partial, State};
use super::pool::Run;
use crate::{
    BlobContent, BlobMeta, BlobPath, BlobRead, ByteRange, ByteStream, ETag, Error, ErrorKind, GetOptions, Result, ResultExt,
};

/// How many bytes of a large blob are fetched in one request. A blob of no more is fetched in one.
const PART: u64 = 8 << 20;
/// How many bytes of a stream are written at once.
const PIECE: usize = 1 << 20;
/// How many local bytes are moved between two progress reports.
const STEP: u64 = 16 << 20;

impl Run {
    /// Downloads the blob that `listed` tells of. Where that is small, whatever state it has by now; a large one in the state that it had then.
    pub(super) async fn download(&self, listed: &BlobMeta, target: &Path, durable: Durable) -> Result<BlobMeta> {
        let down = async {
            if listed.size <= PART || !self.store.capabilities().conditional {
                return self.in_one(&listed.path, target, durable).await;
            }
            // A listing may carry no mark.
            let meta = if listed.etag.is_some() { listed.clone() } else { self.store.head(&listed.path).await? };
            match meta.etag.clone() {
                Some(etag) => self.in_parts(meta, etag, target, durable).await,
                None => self.in_one(&meta.path, target, durable).await,
            }
        };
        let meta = down.await.context("blobs.download", || format!("blob `{}`", listed.path))?;
        self.meter.finished();
        Ok(meta)
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>> {
        self.requests.acquire().await.map_err(|e| Error::internal("the transfer is over").with_source(e))
    }

    /// One request, whose bytes are all of one state. Broken off, it begins anew.
    async fn in_one(&self, path: &BlobPath, target: &Path, durable: Durable) -> Result<BlobMeta> {
        let _permit = self.permit().await?;
        let read = self.store.get_with(path, &GetOptions::default()).await?;
        let (meta, owned) = (read.meta.clone(), target.to_owned());
        let (size, modified_at) = (meta.size, meta.modified_at);
        let placed = match read.content {
            BlobContent::Stream(content) if size <= PART => {
                let bytes = BlobRead { content: BlobContent::Stream(content), ..read }.bytes().await?;
                let placed = blocking(move || {
                    let mut partial = Partial::open(&owned, None)?;
                    partial.write(&bytes)?;
                    partial.finish(size, modified_at, durable)
                });
                let placed = placed.await;
                self.meter.moved(size);
                placed
            }
            content => {
                let opened = blocking(move || Partial::open(&owned, None)).await;
                let partial = opened.context("blobs.download", || file_subject(target))?;
                let partial = match content {
                    BlobContent::File(source) => self.copy(source, partial, size).await?,
                    BlobContent::Stream(pieces) => self.write_all(pieces, partial).await?,
                };
                blocking(move || partial.finish(size, modified_at, durable)).await
            }
        };
        placed.context("blobs.download", || file_subject(target))?;
        Ok(meta)
    }

    /// Parts side by side, all pinned to one state. Broken off, it goes on where it was.
    async fn in_parts(&self, meta: BlobMeta, etag: ETag, target: &Path, durable: Durable) -> Result<BlobMeta> {
        let state = State { blob: self.store.uri(&meta.path)?, etag, size: meta.size };
        let owned = target.to_owned();
        let opened = blocking(move || Partial::open(&owned, Some(state))).await;
        let partial = opened.context("blobs.download", || file_subject(target))?;
        self.meter.moved(partial.written());
        let partial = self.fetch_rest(&meta, partial, target).await?;
        let (size, modified_at) = (meta.size, meta.modified_at);
        let placed = blocking(move || partial.finish(size, modified_at, durable)).await;
        placed.context("blobs.download", || file_subject(target))?;
        Ok(meta)
    }

    async fn fetch_rest(&self, meta: &BlobMeta, mut partial: Partial, target: &Path) -> Result<Partial> {
        let have = partial.written();
        if have == meta.size {
            return Ok(partial);
        }
        let permit = self.permit().await?;
        let first = match self.get_part(meta, have).await {
            Ok(first) => first,
            Err(error) => return Err(give_up(partial, error)),
        };
        if let BlobContent::File(_) = first.content {
            // The first request was only to see what kind of answer comes.
            let rest = GetOptions::default().range(ByteRange::From(have)).if_match(meta.etag.clone());
            let rest = match self.store.get_with(&meta.path, &rest).await {
                Ok(rest) => rest,
                Err(error) => return Err(give_up(partial, error)),
            };
            return match rest.content {
                BlobContent::File(source) => self.copy(source, partial, meta.size - have).await,
                BlobContent::Stream(pieces) => self.write_all(pieces, partial).await,
            };
        }
        partial = self.append(partial, first.bytes().await?, target).await?;
        drop(permit);
        let starts = (1..).map(|i| have + i * PART).take_while(|start| *start < meta.size);
        let parts = futures::stream::iter(starts).map(|start| async move {
            // Held until the part is written: what has come and waits for its turn takes memory as well.
            let permit = self.permit().await?;
            Ok::<_, Error>((self.get_part(meta, start).await?.bytes().await?, permit))
        });
        // In order: so the file's length says how far it is.
        let mut parts = parts.buffered(self.options.parallel);
        while let Some(part) = parts.next().await {
            match part {
                Ok((bytes, _permit)) => partial = self.append(partial, bytes, target).await?,
                Err(error) => return Err(give_up(partial, error)),
            }
        }
        Ok(partial)
    }

    async fn get_part(&self, meta: &BlobMeta, start: u64) -> Result<BlobRead> {
        let range = start..(start + PART).min(meta.size);
        self.store.get_with(&meta.path, &GetOptions::default().range(range).if_match(meta.etag.clone())).await
    }

    async fn append(&self, mut partial: Partial, bytes: Bytes, target: &Path) -> Result<Partial> {
        let len = bytes.len() as u64;
        let written = blocking(move || partial.write(&bytes).map(|()| partial)).await;
        self.meter.moved(len);
        written.context("blobs.download", || file_subject(target))
    }

    async fn write_all(&self, mut pieces: ByteStream, mut partial: Partial) -> Result<Partial> {
        let mut ended = false;
        while !ended {
            let (mut waiting, mut len) = (Vec::new(), 0);
            while len < PIECE && !ended {
                match pieces.try_next().await? {
                    Some(piece) => {
                        len += piece.len();
                        waiting.push(piece);
                    }
                    None => ended = true,
                }
            }
            partial = blocking(move || waiting.iter().try_for_each(|piece| partial.write(piece)).map(|()| partial)).await?;
            self.meter.moved(len as u64);
        }
        Ok(partial)
    }

    /// Moves bytes between two local files at the disk's speed.
    async fn copy(&self, source: std::fs::File, mut partial: Partial, len: u64) -> Result<Partial> {
        let meter = self.meter.clone();
        blocking(move || {
            let mut left = len;
            while left > 0 {
                let moved = partial.copy_from(&source, left.min(STEP))?;
                if moved == 0 {
                    return Err(Error::unavailable(format!("the blob ended {left} bytes early")));
                }
                left -= moved;
                meter.moved(moved);
            }
            Ok(partial)
        })
        .await
    }
}

/// What was fetched of a blob that has changed is of no use any more; anything else can be gone on with.
fn give_up(partial: Partial, error: Error) -> Error {
    if error.kind() != ErrorKind::Conflict {
        return error;
    }
    partial.discard();
    Error::conflict("the blob was written again while it was being read: start again").with_source(error)
}
