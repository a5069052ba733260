//! Compressing: frames made one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::stream::StreamExt as _;
use storage_core::{BlobAttributes, ByteStream, Error, Result};
use zstd::bulk::Compressor;

use super::format::{FRAME, Intro, Table, raw_frame};
use crate::transform::body::Incoming;

/// Frames from this size on are compressed on a thread that may block.
const LONG: usize = 32 << 10;
/// After a frame that does not shrink, so many are stored as they are before it is tried again.
const PATIENCE: u32 = 15;

/// Media types whose content is compressed already, or hides behind a cipher.
const DENSE: [&str; 9] = [
    "application/gzip",
    "application/pgp-encrypted",
    "application/x-7z-compressed",
    "application/x-bzip2",
    "application/x-xz",
    "application/zip",
    "application/zstd",
    "font/woff",
    "font/woff2",
];
const DENSE_IMAGES: [&str; 6] = ["avif", "gif", "heic", "jpeg", "png", "webp"];

/// True where the attributes say that compressing is of no use.
pub(super) fn is_dense(attributes: &BlobAttributes) -> bool {
    if attributes.content_encoding.as_deref().is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return true;
    }
    let Some(media) = &attributes.content_type else { return false };
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let image = media.strip_prefix("image/").is_some_and(|image| DENSE_IMAGES.contains(&image));
    image || media.starts_with("video/") || media.starts_with("audio/") || DENSE.contains(&media.as_str())
}

/// Makes frames.
struct Packer {
    level: i32,
    compressor: Option<Compressor<'static>>,
    /// So many frames are stored as they are.
    skip: u32,
}

impl Packer {
    fn pack(&mut self, plain: &[u8]) -> Result<Vec<u8>> {
        if self.skip > 0 {
            self.skip = self.skip.saturating_sub(1);
            return Ok(raw_frame(plain));
        }
        let broken = |e: std::io::Error| Error::internal("zstd could not compress a frame").with_source(e);
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => {
                let mut compressor = Compressor::new(self.level).map_err(broken)?;
                compressor.include_checksum(true).map_err(broken)?;
                none.insert(compressor)
            }
        };
        let packed = compressor.compress(plain).map_err(broken)?;
        if packed.len() + plain.len() / 32 <= plain.len() {
            return Ok(packed);
        }
        self.skip = PATIENCE;
        Ok(raw_frame(plain))
    }
}

/// Compresses a blob.
pub(super) struct Packing {
    source: Incoming,
    /// Away while a thread has it.
    packer: Option<Packer>,
    /// What was taken of the source already.
    first: Bytes,
    /// How large the blob is, where that is known.
    pub(super) size: Option<u64>,
    table: Option<Table>,
    began: bool,
    /// How many bytes of the blob have been compressed.
    taken: u64,
}

impl Packing {
    /// Takes the first frame's bytes, which often are all there are.
    pub(super) async fn new(stream: ByteStream, size: Option<u64>, level: i32, dense: bool) -> Result<Self> {
        let mut source = Incoming::new(stream);
        let first = source.up_to(FRAME).await?;
        let size = match size {
            None if !source.fill().await? => Some(first.len() as u64),
            size => size,
        };
        let packer = Packer { level, compressor: None, skip: if dense { u32::MAX } else { 0 } };
        Ok(Self { source, packer: Some(packer), first, size, table: Some(Table::new()), began: false, taken: 0 })
    }

    /// The next bytes to store. `None`: that was all.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if !self.began {
            self.began = true;
            return Ok(Some(Bytes::copy_from_slice(&Intro::new(self.size).encode())));
        }
        let mut plain = std::mem::take(&mut self.first);
        if plain.is_empty() {
            plain = self.source.up_to(FRAME).await?;
        }
        if plain.is_empty() {
            return Ok(self.table.take().map(|table| table.encode().into()));
        }
        let len = plain.len();
        self.taken += len as u64;
        let frame = self.pack(plain).await?;
        if let Some(table) = &mut self.table {
            table.add(frame.len(), len)?;
        }
        Ok(Some(frame.into()))
    }

    async fn pack(&mut self, plain: Bytes) -> Result<Vec<u8>> {
        let mut packer = self.packer.take().ok_or_else(|| Error::internal("a frame was lost"))?;
        let work = move || (packer.pack(&plain), packer);
        let (frame, packer) = if self.size.is_some_and(|size| size < LONG as u64) {
            work()
        } else {
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|e| Error::internal("a thread that compressed ended").with_source(e))?
        };
        self.packer = Some(packer);
        frame
    }

    /// All of it, in memory.
    pub(super) async fn collect(mut self) -> Result<Bytes> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// All of it as a stream, which adds up in `plain` how many bytes of the blob it has taken in.
    pub(super) fn into_counted_stream(self, plain: Arc<AtomicU64>) -> ByteStream {
        let pieces = futures::stream::try_unfold((self, plain), |(mut packing, plain)| async move {
            let piece = packing.next().await?;
            plain.store(packing.taken, Ordering::Release);
            Ok(piece.map(|piece| (piece, (packing, plain))))
        });
        pieces.boxed()
    }
}
