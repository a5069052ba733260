//! The header of an encrypted blob: what it takes to find the key and derive the blob's own.
//!
//! ```text
//!  0   8  magic
//!  8   1  version: 1
//!  9   1  algorithm: 1 AES-256-GCM, 2 ChaCha20-Poly1305
//! 10   1  chunk size, as a power of two: 16
//! 11   1  length of the key id
//! 12  32  key id, then zeros
//! 44  32  salt: random for each write
//! 76   4  check: the first bytes of the SHA-256 of what stands before
//! ```
//!
//! The check tells damage from a key that is missing. It protects nothing: that is done by the tags, whose associated data the whole header is.

use ring::digest;
use storage_core::{Error, Result};

use super::Algorithm;
use super::key::{Key, MAX_ID, is_id, random};
use super::layout::{CHUNK, HEADER};

/// Starts with a byte that no text starts with; has one that transfers as text would change.
pub(super) const MAGIC: [u8; 8] = *b"\x93SLENC\r\n";
const VERSION: u8 = 1;
#[allow(clippy::cast_possible_truncation, reason = "16")]
const CHUNK_LOG: u8 = CHUNK.trailing_zeros() as u8;
const ID: usize = 12;
const SALT: usize = ID + MAX_ID;
const CHECK: usize = SALT + 32;

/// A header, as it stands in the blob and as it is read.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) bytes: [u8; HEADER],
    pub(super) algorithm: Algorithm,
}

fn check(bytes: &[u8; HEADER]) -> [u8; HEADER - CHECK] {
    let hash = digest::digest(&digest::SHA256, &bytes[..CHECK]);
    let mut check = [0; HEADER - CHECK];
    check.copy_from_slice(&hash.as_ref()[..HEADER - CHECK]);
    check
}

impl Header {
    /// The header of a new blob.
    pub(super) fn new(key: &Key, algorithm: Algorithm) -> Result<Self> {
        let id = key.id().as_bytes();
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..ID].copy_from_slice(&[VERSION, algorithm.code(), CHUNK_LOG, u8::try_from(id.len()).unwrap_or_default()]);
        bytes[ID..ID + id.len()].copy_from_slice(id);
        random(&mut bytes[SALT..CHECK])?;
        let check = check(&bytes);
        bytes[CHECK..].copy_from_slice(&check);
        Ok(Self { bytes, algorithm })
    }

    /// True where these bytes begin as an encrypted blob does.
    pub(super) fn is_at_start_of(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Reads a header.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        if !Self::is_at_start_of(bytes) {
            return Err(Error::corrupt(
                "the blob is not encrypted: it was not written through this encryption (to read such blobs all the same: plain = \"allow\")",
            ));
        }
        let damaged = || Error::corrupt("the header of the encrypted blob is damaged: restore the blob");
        let bytes = <[u8; HEADER]>::try_from(bytes).map_err(|_| damaged())?;
        if bytes[CHECK..] != check(&bytes) {
            return Err(damaged());
        }
        let algorithm = Algorithm::of_code(bytes[9]).filter(|_| bytes[8] == VERSION && bytes[10] == CHUNK_LOG);
        let algorithm =
            algorithm.ok_or_else(|| Error::corrupt("the blob is encrypted in a way that this version does not know"))?;
        let id_end = ID + usize::from(bytes[11]);
        let id_ok = id_end <= SALT && is_id(&bytes[ID..id_end]) && bytes[id_end..SALT].iter().all(|b| *b == 0);
        if id_ok { Ok(Self { bytes, algorithm }) } else { Err(damaged()) }
    }

    /// The id of the key.
    pub(super) fn key_id(&self) -> &str {
        std::str::from_utf8(&self.bytes[ID..ID + usize::from(self.bytes[11])]).unwrap_or_default()
    }

    pub(super) fn salt(&self) -> &[u8] {
        &self.bytes[SALT..CHECK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back() {
        for (id, algorithm) in [("k", Algorithm::Aes256Gcm), (&*"x".repeat(32), Algorithm::ChaCha20Poly1305)] {
            let key = Key::new([1; 32]).with_id(id).unwrap();
            let header = Header::new(&key, algorithm).unwrap();
            let read = Header::parse(&header.bytes).unwrap();
            assert_eq!((read.key_id(), read.algorithm, read.salt()), (id, algorithm, header.salt()));
            assert_ne!(Header::new(&key, algorithm).unwrap().salt(), header.salt());
        }
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let header = Header::new(&Key::new([1; 32]), Algorithm::default()).unwrap();
        for bit in 0..HEADER * 8 {
            let mut bytes = header.bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&bytes).unwrap_err().kind(), storage_core::ErrorKind::Corrupt, "bit {bit}");
        }
    }
}
