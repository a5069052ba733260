//! Bodies, cut into pieces of another size.

use bytes::{Bytes, BytesMut};
use futures::stream::TryStreamExt as _;
use storage_core::{BlobBody, ByteStream, Error, Result};

/// How many bytes a body has. For a file: from its position to its end.
pub(crate) fn size_of(body: &BlobBody) -> Result<Option<u64>> {
    use std::io::Seek as _;
    let BlobBody::File(file) = body else { return Ok(body.size()) };
    let mut file = file;
    Ok(Some(file.metadata()?.len().saturating_sub(file.stream_position()?)))
}

/// A stream, cut anew and held to its length.
pub(crate) struct Pieces {
    stream: ByteStream,
    rest: Bytes,
    announced: Option<u64>,
    read: u64,
}

impl Pieces {
    /// `announced`: how many bytes there are to be, where that is known.
    pub(crate) fn new(stream: ByteStream, announced: Option<u64>) -> Self {
        Self { stream, rest: Bytes::new(), announced, read: 0 }
    }

    /// How many bytes were read.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// The next piece of `size` bytes: shorter only at the end, where it may be empty.
    pub(crate) async fn next(&mut self, size: u64) -> Result<Bytes> {
        let size = usize::try_from(size).map_err(|_| Error::config("part_size is larger than this machine's memory"))?;
        // A piece that is large enough is not copied.
        if self.rest.len() >= size {
            return Ok(self.rest.split_to(size));
        }
        let mut piece = BytesMut::new();
        piece.extend_from_slice(&std::mem::take(&mut self.rest));
        while piece.len() < size {
            let Some(mut bytes) = self.stream.try_next().await? else {
                self.check(true)?;
                break;
            };
            self.read += bytes.len() as u64;
            self.check(false)?;
            if piece.is_empty() && bytes.len() >= size {
                let whole = bytes.split_to(size);
                self.rest = bytes;
                return Ok(whole);
            }
            let take = bytes.len().min(size - piece.len());
            piece.extend_from_slice(&bytes.split_to(take));
            self.rest = bytes;
        }
        Ok(piece.freeze())
    }

    fn check(&self, ended: bool) -> Result<()> {
        let Some(announced) = self.announced else { return Ok(()) };
        if self.read > announced || (ended && self.read != announced) {
            let relation = if ended { "" } else { " at least" };
            return Err(Error::invalid(format!("the stream has {}{relation} bytes, {announced} were announced", self.read)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn pieces_are_cut_anew() {
        for sizes in [vec![10], vec![3, 3, 3, 1], vec![1; 10], vec![0, 4, 0, 6], vec![5, 5]] {
            let total: Vec<u8> = (0..10).collect();
            let mut at = 0;
            let pieces: Vec<_> = sizes
                .iter()
                .map(|size| {
                    at += size;
                    Ok(Bytes::copy_from_slice(&total[at - size..at]))
                })
                .collect();
            let stream = futures::stream::iter(pieces).boxed();
            let mut pieces = Pieces::new(stream, Some(10));
            let mut cut = Vec::new();
            loop {
                let piece = pieces.next(4).await.unwrap();
                if piece.is_empty() {
                    break;
                }
                cut.push(piece);
            }
            assert_eq!(cut.iter().map(Bytes::len).collect::<Vec<_>>(), [4, 4, 2], "{sizes:?}");
            assert_eq!(cut.concat(), total);
        }
    }
}
