//! Bodies and streams of bytes, cut as transforms need them.

use bytes::{Bytes, BytesMut};
use futures::stream::StreamExt as _;
use storage_core::{BlobBody, BlobRead, ByteStream, Error, Result};

/// What is to be put: its bytes, and how many there are where that is known beforehand.
pub(super) struct Plain {
    pub(super) stream: ByteStream,
    pub(super) size: Option<u64>,
}

impl Plain {
    /// The bytes of `body`. A stream of another length than was announced fails; of a file, what it holds now is taken.
    pub(super) async fn of(body: BlobBody) -> Result<Self> {
        match body {
            BlobBody::File(file) => {
                let (file, size) = sized(file).await?;
                let stream = slice(BlobBody::File(file).into_stream(), 0, size.unwrap_or(u64::MAX));
                Ok(Self { stream: of_length(stream, size), size })
            }
            body => {
                let size = body.size();
                Ok(Self { stream: of_length(body.into_stream(), size), size })
            }
        }
    }
}

/// How many bytes lie behind a file's position. `None`: it is no ordinary file.
async fn sized(file: std::fs::File) -> Result<(std::fs::File, Option<u64>)> {
    let look = move || {
        use std::io::Seek as _;
        let found = file.metadata()?;
        let at = (&file).stream_position().unwrap_or_default();
        let size = found.is_file().then(|| found.len().saturating_sub(at));
        Ok::<_, std::io::Error>((file, size))
    };
    Ok(tokio::task::spawn_blocking(look)
        .await
        .map_err(|e| Error::internal("a thread that read a file ended").with_source(e))??)
}

/// Fails where `stream` has another length than was announced: inner backends would count the stored bytes, not these.
fn of_length(stream: ByteStream, size: Option<u64>) -> ByteStream {
    let Some(size) = size else { return stream };
    let checked = futures::stream::try_unfold((stream, 0_u64), move |(mut stream, seen)| async move {
        let Some(piece) = stream.next().await.transpose()? else {
            return if seen == size { Ok(None) } else { Err(other_length(size, &seen.to_string())) };
        };
        let seen = seen + piece.len() as u64;
        if seen > size {
            return Err(other_length(size, "more"));
        }
        Ok(Some((piece, (stream, seen))))
    });
    checked.boxed()
}

fn other_length(announced: u64, found: &str) -> Error {
    Error::invalid(format!("the stream was announced with {announced} bytes and has {found}"))
}

/// A piece that came in.
pub(super) enum Piece {
    /// Nobody else holds it: it may be changed where it is.
    Own(BytesMut),
    Shared(Bytes),
}

impl Piece {
    fn split_to(&mut self, len: usize) -> Bytes {
        match self {
            Self::Own(bytes) => bytes.split_to(len).freeze(),
            Self::Shared(bytes) => bytes.split_to(len),
        }
    }

    #[cfg(feature = "encryption")]
    fn split(&mut self, len: usize) -> Self {
        match self {
            Self::Own(bytes) => Self::Own(bytes.split_to(len)),
            Self::Shared(bytes) => Self::Shared(bytes.split_to(len)),
        }
    }
}

impl std::ops::Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Bytes that come in, taken in portions of the reader's choice.
pub(super) struct Incoming {
    stream: ByteStream,
    piece: Piece,
    /// How many bytes of what was promised have not come yet.
    missing: u64,
}

impl Incoming {
    pub(super) fn new(stream: ByteStream) -> Self {
        Self { stream, piece: Piece::Shared(Bytes::new()), missing: 0 }
    }

    /// The bytes of a read.
    pub(super) fn of(read: BlobRead) -> Self {
        let missing = read.range.end - read.range.start;
        Self { missing, ..Self::new(read.into_stream()) }
    }

    /// Why there are no more bytes where there should be: they were lost on the way, or are not stored.
    pub(super) fn ended(&self) -> Error {
        if self.missing > 0 {
            return Error::unavailable(format!("the blob ended {} bytes early: read it again", self.missing));
        }
        Error::corrupt("the stored blob is shorter than it says: restore it")
    }

    /// Waits until there is a byte. `false`: there are no more.
    pub(super) async fn fill(&mut self) -> Result<bool> {
        while self.piece.is_empty() {
            match self.stream.next().await.transpose()? {
                Some(piece) => {
                    self.missing = self.missing.saturating_sub(piece.len() as u64);
                    self.piece = piece.try_into_mut().map_or_else(Piece::Shared, Piece::Own);
                }
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Up to `max` bytes, without waiting for more than a piece. `None`: that was all.
    pub(super) async fn some(&mut self, max: usize) -> Result<Option<Bytes>> {
        let there = self.fill().await?;
        let len = max.min(self.piece.len());
        Ok(there.then(|| self.piece.split_to(len)))
    }

    /// The next `len` bytes where they came in one piece that nobody else holds, so that they need not be copied to be changed.
    #[cfg(feature = "encryption")]
    pub(super) async fn own(&mut self, len: usize) -> Result<Option<BytesMut>> {
        self.fill().await?;
        Ok(match &mut self.piece {
            Piece::Own(bytes) if bytes.len() >= len => Some(bytes.split_to(len)),
            _ => None,
        })
    }

    /// The next `len` bytes in the pieces that they came in. Fewer: there are no more.
    #[cfg(feature = "encryption")]
    pub(super) async fn portion(&mut self, len: usize) -> Result<Vec<Piece>> {
        let (mut parts, mut left) = (Vec::new(), len);
        while left > 0 && self.fill().await? {
            let part = self.piece.split(left.min(self.piece.len()));
            left -= part.len();
            parts.push(part);
        }
        Ok(parts)
    }

    /// The next `count` bytes; fewer where there are no more.
    pub(super) async fn up_to(&mut self, count: usize) -> Result<Bytes> {
        let Some(first) = self.some(count).await? else { return Ok(Bytes::new()) };
        if first.len() == count {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(count);
        all.extend_from_slice(&first);
        while all.len() < count
            && let Some(more) = self.some(count - all.len()).await?
        {
            all.extend_from_slice(&more);
        }
        Ok(all.freeze())
    }

    /// What is left, behind `first`.
    pub(super) fn into_stream(mut self, first: Bytes) -> ByteStream {
        let rest = self.piece.split_to(self.piece.len());
        let held = [first, rest].into_iter().filter(|piece| !piece.is_empty()).map(Ok);
        futures::stream::iter(held).chain(self.stream).boxed()
    }
}

/// The `len` bytes of `stream` behind the first `skip`.
pub(super) fn slice(stream: ByteStream, skip: u64, len: u64) -> ByteStream {
    let cut = futures::stream::try_unfold((stream, skip, len), |(mut stream, mut skip, len)| async move {
        if len == 0 {
            return Ok(None);
        }
        while let Some(mut piece) = stream.next().await.transpose()? {
            let drop = clamp(skip, piece.len());
            skip -= drop as u64;
            bytes::Buf::advance(&mut piece, drop);
            piece.truncate(clamp(len, piece.len()));
            if !piece.is_empty() {
                let left = len - piece.len() as u64;
                return Ok(Some((piece, (stream, skip, left))));
            }
        }
        Ok(None)
    });
    cut.boxed()
}

/// `count`, at most `max`.
fn clamp(count: u64, max: usize) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX).min(max)
}

/// A stream without bytes.
pub(super) fn empty() -> ByteStream {
    futures::stream::empty().boxed()
}
