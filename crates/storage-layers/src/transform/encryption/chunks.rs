//! Chunks, sealed and opened: the STREAM construction.
//!
//! The nonce of a chunk is its number (11 bytes, big-endian) and a byte that is 1 for the last chunk and 0 for the others, so that no chunk can be
//! left out, moved, doubled or made the last without its tag telling.

use bytes::{Bytes, BytesMut};
use futures::stream::StreamExt as _;
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use ring::hkdf;
use storage_core::{BlobPath, ByteStream, Error, Result};

use super::header::Header;
use super::key::Key;
use super::layout::{CHUNK, STORED_CHUNK, TAG};
use crate::transform::body::{Incoming, Piece};

/// What the derived keys are for.
const PURPOSE: &[u8] = b"storage-layers blob encryption 1";

/// The key of one blob, and what its tags vouch for besides the bytes.
pub(super) struct Cipher {
    key: LessSafeKey,
    associated: Vec<u8>,
}

impl Cipher {
    pub(super) fn new(key: &Key, header: &Header, path: &BlobPath) -> Result<Self> {
        let broken = |_| Error::internal("an encryption key could not be derived");
        let master = hkdf::Salt::new(hkdf::HKDF_SHA256, header.salt()).extract(key.bytes());
        let info = [PURPOSE, &[header.algorithm.code()]];
        let derived = master.expand(&info, header.algorithm.aead()).map_err(broken)?;
        // The header has one length, so that it and the path can't be cut otherwise.
        let associated = [&header.bytes[..], path.as_str().as_bytes()].concat();
        Ok(Self { key: LessSafeKey::new(UnboundKey::from(derived)), associated })
    }

    fn nonce(index: u64, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[3..11].copy_from_slice(&index.to_be_bytes());
        nonce[11] = u8::from(last);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts a chunk where it is.
    fn seal(&self, chunk: &mut [u8], index: u64, last: bool) -> Result<Tag> {
        let sealed = self.key.seal_in_place_separate_tag(Self::nonce(index, last), Aad::from(&self.associated), chunk);
        sealed.map_err(|_| Error::internal("a chunk could not be encrypted"))
    }

    /// Decrypts a chunk with its tag where it is, and says how long it is without.
    fn open(&self, chunk: &mut [u8], index: u64, last: bool) -> Result<usize> {
        let opened = self.key.open_in_place(Self::nonce(index, last), Aad::from(&self.associated), chunk);
        opened.map(|plain| plain.len()).map_err(|_| {
            Error::corrupt(format!(
                "chunk {index} is not what was encrypted: the blob was damaged, altered, or put here by other means than this toolkit, or the key is not the one of its id; restore it"
            ))
        })
    }
}

/// Encrypts a blob.
pub(super) struct Sealing {
    source: Incoming,
    cipher: Cipher,
    /// What is to be stored next: sealed up to `start`, then the chunk that is being filled.
    out: BytesMut,
    start: usize,
    /// A tag whose chunk was sealed where it was.
    tag: Option<Bytes>,
    index: u64,
    done: bool,
}

impl Sealing {
    pub(super) fn new(source: ByteStream, header: &Header, cipher: Cipher) -> Self {
        let out = BytesMut::from(&header.bytes[..]);
        Self { source: Incoming::new(source), cipher, start: out.len(), out, tag: None, index: 0, done: false }
    }

    /// The next bytes to store. `None`: that was all.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(tag) = self.tag.take() {
            return Ok(Some(tag));
        }
        if self.out.len() == self.start && !self.done {
            // A full chunk is sealed where it came, when it is known whether it is the last.
            if let Some(mut chunk) = self.source.own(CHUNK).await? {
                self.done = !self.source.fill().await?;
                let tag = self.cipher.seal(&mut chunk, self.index, self.done)?;
                self.index += 1;
                self.tag = Some(Bytes::copy_from_slice(tag.as_ref()));
                if self.start == 0 {
                    return Ok(Some(chunk.freeze()));
                }
                // The header goes first.
                self.out.extend_from_slice(&chunk);
                self.start = 0;
                return Ok(Some(self.out.split().freeze()));
            }
        }
        if !self.done {
            // No more than it takes: a larger allocation costs as much as encrypting what goes there.
            self.out.reserve(STORED_CHUNK);
        }
        self.copied(CHUNK).await
    }

    /// The next bytes to store, copied, `piece` or a little more of them. `None`: that was all.
    async fn copied(&mut self, piece: usize) -> Result<Option<Bytes>> {
        if self.done {
            return Ok(None);
        }
        loop {
            let room = CHUNK - (self.out.len() - self.start);
            if room > 0 {
                match self.source.some(room).await? {
                    Some(some) => self.out.extend_from_slice(&some),
                    None => return self.finish().map(Some),
                }
                continue;
            }
            // A full chunk is sealed when it is known whether it is the last.
            if !self.source.fill().await? {
                return self.finish().map(Some);
            }
            self.seal(false)?;
            self.start = self.out.len();
            if self.out.len() >= piece {
                self.start = 0;
                return Ok(Some(self.out.split().freeze()));
            }
        }
    }

    fn finish(&mut self) -> Result<Bytes> {
        self.done = true;
        self.seal(true)?;
        Ok(self.out.split().freeze())
    }

    fn seal(&mut self, last: bool) -> Result<()> {
        let tag = self.cipher.seal(&mut self.out[self.start..], self.index, last)?;
        self.out.extend_from_slice(tag.as_ref());
        self.index += 1;
        Ok(())
    }

    /// All of it, in memory: `size` bytes.
    pub(super) async fn collect(mut self, size: usize) -> Result<Bytes> {
        self.out.reserve(size.saturating_sub(self.out.len()));
        Ok(self.copied(size).await?.unwrap_or_default())
    }

    pub(super) fn into_stream(self) -> ByteStream {
        let pieces = futures::stream::try_unfold(self, |mut sealing| async move {
            let piece = sealing.next().await?;
            Ok(piece.map(|piece| (piece, sealing)))
        });
        pieces.boxed()
    }
}

/// Decrypts chunks of a blob.
pub(super) struct Opening {
    source: Incoming,
    cipher: Cipher,
    /// Where chunks are put together.
    out: BytesMut,
    /// The second part of a chunk whose first was handed out.
    ready: Option<Bytes>,
    /// The next chunk, the one to end before, and the blob's last one.
    index: u64,
    end: u64,
    last: u64,
    /// How many bytes the last chunk takes.
    last_len: usize,
}

impl Opening {
    /// Opens the chunks `from..to` that `source` brings, of a blob of `size` bytes.
    pub(super) fn new(source: Incoming, cipher: Cipher, size: u64, chunks: std::ops::Range<u64>) -> Self {
        let last = super::layout::chunks(size) - 1;
        let last_len = usize::try_from(size - last * CHUNK as u64).unwrap_or_default() + TAG;
        Self { source, cipher, out: BytesMut::new(), ready: None, index: chunks.start, end: chunks.end, last, last_len }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(ready) = self.ready.take() {
            return Ok(Some(ready));
        }
        if self.index == self.end {
            return Ok(None);
        }
        let is_last = self.index == self.last;
        let len = if is_last { self.last_len } else { STORED_CHUNK };
        let plain = match self.source.own(len).await? {
            Some(mut chunk) => {
                let plain = self.cipher.open(&mut chunk, self.index, is_last)?;
                chunk.truncate(plain);
                chunk.freeze()
            }
            None => self.scattered(len, is_last).await?,
        };
        self.index += 1;
        Ok(Some(plain))
    }

    /// Opens a chunk that lies in several pieces, or in one that somebody else holds too.
    async fn scattered(&mut self, len: usize, is_last: bool) -> Result<Bytes> {
        let mut parts = self.source.portion(len).await?;
        self.out.clear();
        self.out.reserve(len);
        for part in &parts {
            self.out.extend_from_slice(part);
        }
        if self.out.len() < len {
            return Err(self.source.ended());
        }
        let plain = self.cipher.open(&mut self.out, self.index, is_last)?;
        self.out.truncate(plain);
        if let [Piece::Own(one), Piece::Own(two)] = &mut parts[..] {
            // Back to where it came from: that costs less than new memory for each.
            let (first, second) = self.out.split_at(one.len().min(plain));
            let (mut one, mut two) = (std::mem::take(one), std::mem::take(two));
            for (part, bytes) in [(&mut one, first), (&mut two, second)] {
                part[..bytes.len()].copy_from_slice(bytes);
                part.truncate(bytes.len());
            }
            self.ready = Some(two.freeze()).filter(|two| !two.is_empty());
            return Ok(one.freeze());
        }
        Ok(self.out.split().freeze())
    }

    pub(super) fn into_stream(self) -> ByteStream {
        let pieces = futures::stream::try_unfold(self, |mut opening| async move {
            let piece = opening.next().await?;
            Ok(piece.map(|piece| (piece, opening)))
        });
        pieces.boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream::TryStreamExt as _;

    use super::*;
    use crate::transform::encryption::Algorithm;
    use crate::transform::encryption::layout::{self, HEADER};

    fn blob() -> (Key, Header, BlobPath) {
        let key = Key::new([7; 32]);
        let header = Header::new(&key, Algorithm::Aes256Gcm).unwrap();
        (key, header, BlobPath::new("a").unwrap())
    }

    /// `bytes` in pieces of `size`, which somebody else may hold too.
    fn pieces(bytes: &[u8], size: usize, shared: bool) -> (Vec<Bytes>, ByteStream) {
        let pieces: Vec<Bytes> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
        let held = if shared { pieces.clone() } else { Vec::new() };
        (held, futures::stream::iter(pieces).map(Ok).boxed())
    }

    async fn open(sealed: &[u8], size: usize, shared: bool, plain: usize) -> Result<Vec<u8>> {
        let (key, _, path) = blob();
        let header = Header::parse(&Bytes::copy_from_slice(&sealed[..HEADER])).unwrap();
        let (_held, stream) = pieces(&sealed[HEADER..], size, shared);
        let opening = Opening::new(
            Incoming::new(stream),
            Cipher::new(&key, &header, &path)?,
            plain as u64,
            0..layout::chunks(plain as u64),
        );
        Ok(opening.into_stream().try_collect::<Vec<Bytes>>().await?.concat())
    }

    #[tokio::test]
    async fn chunks_are_opened_however_they_are_cut() {
        let (key, header, path) = blob();
        let plain: Vec<u8> = (0..3 * CHUNK + 100).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let (_held, stream) = pieces(&plain, 1000, false);
        let sealing = Sealing::new(stream, &header, Cipher::new(&key, &header, &path).unwrap());
        let sealed: Vec<u8> = sealing.into_stream().try_collect::<Vec<Bytes>>().await.unwrap().concat();
        // Of one piece; of two, with the tag in either and cut in the middle; of many.
        for size in
            [sealed.len(), STORED_CHUNK, STORED_CHUNK - 1, STORED_CHUNK - TAG, STORED_CHUNK + 1, CHUNK, 50_000, 1 << 17, 999]
        {
            for shared in [false, true] {
                assert!(open(&sealed, size, shared, plain.len()).await.unwrap() == plain, "pieces of {size}");
            }
            for at in [HEADER, HEADER + STORED_CHUNK + size % CHUNK, sealed.len() - 1] {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1;
                let error = open(&flipped, size, false, plain.len()).await.unwrap_err();
                assert_eq!(error.kind(), storage_core::ErrorKind::Corrupt, "pieces of {size}: {error}");
            }
            let cut = open(&sealed[..sealed.len() - 50], size, false, plain.len()).await;
            assert_eq!(cut.unwrap_err().kind(), storage_core::ErrorKind::Corrupt, "pieces of {size}");
        }
    }
}
