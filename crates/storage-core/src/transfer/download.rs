//! Down: one blob becomes a file, whole or not at all.

use std::path::Path;
use std::sync::Arc;

use super::local::{blocking, file_subject};
use super::note::{PART, State, has_parts, range_of};
use super::partial::{Durable, Partial};
use super::parts::Parts;
use super::pool::Run;
use super::whole::{self, Whole};
use crate::{
    BlobContent, BlobMeta, BlobPath, BlobRead, ByteRange, ByteStream, ETag, Error, ErrorKind, GetOptions, Result, ResultExt,
};

/// How many local bytes are moved between two progress reports: whole parts.
const STEP: u64 = 2 * PART;

impl Run {
    /// Downloads the blob that `listed` tells of. Where that is small, whatever state it has by now; a large one in the state that it had then.
    pub(super) async fn download(self: &Arc<Self>, listed: &BlobMeta, target: &Path, durable: Durable) -> Result<BlobMeta> {
        let down = async {
            if !has_parts(listed.size) || !self.store.capabilities().conditional {
                return self.in_one(&listed.path, target, durable).await;
            }
            // A listing may carry no mark.
            let meta = if listed.etag.is_some() { listed.clone() } else { self.store.head(&listed.path).await? };
            match meta.etag.clone() {
                Some(etag) if has_parts(meta.size) => self.in_parts(meta, etag, target, durable).await,
                _ => self.in_one(&meta.path, target, durable).await,
            }
        };
        let meta = down.await.context("blobs.download", || format!("blob `{}`", listed.path))?;
        self.meter.finished();
        Ok(meta)
    }

    /// One request, whose bytes are all of one state. Broken off, it begins anew.
    async fn in_one(&self, path: &BlobPath, target: &Path, durable: Durable) -> Result<BlobMeta> {
        let _permit = self.permit().await?;
        let read = self.store.get_with(path, &GetOptions::default()).await?;
        let meta = read.meta.clone();
        match read.content {
            BlobContent::Stream(content) if meta.size <= PART => {
                let bytes = BlobRead { content: BlobContent::Stream(content), ..read }.bytes().await?;
                self.write_whole(Whole::Bytes(bytes), &meta, target, durable).await?;
            }
            BlobContent::File(source) if self.meter.piece(STEP) >= meta.size => {
                self.write_whole(Whole::File(source), &meta, target, durable).await?;
            }
            content => self.write_pieces(content, &meta, target, durable).await?,
        }
        Ok(meta)
    }

    /// In one visit to a thread that may block: a second would cost more than a small file.
    async fn write_whole(&self, whole: Whole, meta: &BlobMeta, target: &Path, durable: Durable) -> Result<()> {
        self.meter.pace(meta.size).await;
        let (owned, of) = (target.to_owned(), meta.clone());
        let written = blocking(move || whole::write(&owned, &whole, &of, durable)).await;
        written.context("blobs.download", || file_subject(target))?;
        self.meter.moved(meta.size);
        Ok(())
    }

    async fn write_pieces(&self, content: BlobContent, meta: &BlobMeta, target: &Path, durable: Durable) -> Result<()> {
        let owned = target.to_owned();
        let opened = blocking(move || Partial::open(&owned)).await;
        let partial = opened.context("blobs.download", || file_subject(target))?;
        let partial = match content {
            BlobContent::File(source) => self.copy_file(source, partial, 0, meta.size).await?,
            BlobContent::Stream(pieces) => self.write_all(pieces, partial).await?,
        };
        let (size, modified_at) = (meta.size, meta.modified_at);
        let placed = blocking(move || partial.finish(size, modified_at, durable)).await;
        placed.context("blobs.download", || file_subject(target))
    }

    /// Parts side by side, all pinned to one state. Broken off, it goes on with those that are not there.
    async fn in_parts(self: &Arc<Self>, meta: BlobMeta, etag: ETag, target: &Path, durable: Durable) -> Result<BlobMeta> {
        let state = State { blob: self.store.uri(&meta.path)?, etag, size: meta.size };
        let owned = target.to_owned();
        let opened = blocking(move || Partial::open_parts(&owned, state)).await;
        let partial = opened.context("blobs.download", || file_subject(target))?;
        self.meter.moved(partial.written());
        let partial = self.fetch_missing(&meta, partial).await?;
        let (size, modified_at) = (meta.size, meta.modified_at);
        let placed = blocking(move || partial.finish(size, modified_at, durable)).await;
        placed.context("blobs.download", || file_subject(target))?;
        Ok(meta)
    }

    async fn fetch_missing(self: &Arc<Self>, meta: &BlobMeta, partial: Partial) -> Result<Partial> {
        let missing = partial.missing();
        let [first, others @ ..] = &missing[..] else { return Ok(partial) };
        let permit = self.permit().await?;
        let read = match self.get_part(meta, *first).await {
            Ok(read) => read,
            Err(error) => return Err(give_up(partial, error)),
        };
        if let BlobContent::File(_) = read.content {
            // The first request was only to see what kind of answer comes.
            return self.copy_rest(meta, partial, range_of(*first, meta.size).start).await;
        }
        let mut parts = Parts::new(self, meta, partial);
        parts.start(*first, Some((permit, read))).await?;
        for part in others {
            parts.start(*part, None).await?;
            if parts.has_failed() {
                break;
            }
        }
        match parts.end().await? {
            (partial, None) => Ok(partial),
            (partial, Some(error)) => Err(give_up(partial, error)),
        }
    }

    /// Everything from an offset on, of a blob that is a local file.
    async fn copy_rest(&self, meta: &BlobMeta, partial: Partial, offset: u64) -> Result<Partial> {
        let rest = GetOptions::default().range(ByteRange::From(offset)).if_match(meta.etag.clone());
        let content = match self.store.get_with(&meta.path, &rest).await {
            Ok(rest) => rest.content,
            Err(error) => return Err(give_up(partial, error)),
        };
        match content {
            BlobContent::File(source) => self.copy_file(source, partial, offset, meta.size - offset).await,
            BlobContent::Stream(_) => Err(Error::internal("the backend answered first with a file, then with a stream")),
        }
    }

    async fn write_all(&self, mut pieces: ByteStream, mut partial: Partial) -> Result<Partial> {
        loop {
            let (taken, len) = self.next_pieces(&mut pieces).await?;
            if taken.is_empty() {
                return Ok(partial);
            }
            partial = blocking(move || partial.append(&taken).map(|()| partial)).await?;
            self.meter.moved(len);
        }
    }

    /// Moves bytes between two local files at the disk's speed.
    async fn copy_file(&self, source: std::fs::File, mut partial: Partial, mut offset: u64, len: u64) -> Result<Partial> {
        let (source, end, mut noted) = (Arc::new(source), offset + len, offset);
        while offset < end {
            let (source, len) = (Arc::clone(&source), self.meter.piece(STEP).min(end - offset));
            self.meter.pace(len).await;
            let step = move || {
                let moved = partial.copy_from(&source, offset, len)?;
                partial.bytes_are_written(noted..offset + moved)?;
                Ok((partial, moved))
            };
            let moved;
            (partial, moved) = blocking(step).await?;
            if moved == 0 {
                return Err(Error::unavailable(format!("the blob ended {} bytes early", end - offset)));
            }
            offset += moved;
            noted = offset / PART * PART;
            self.meter.moved(moved);
        }
        Ok(partial)
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
