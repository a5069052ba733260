//! How an entry lies in its file: what it is, then its bytes in pieces, each with its checksum.
//!
//! ```text
//!  0   8  magic
//!  8   4  version: 1
//! 12   4  length of the description
//! 16      description: what it is of, and how many bytes it has, as who keeps it writes that
//!     16  checksum of what stands before
//!         up to 256 KiB of the bytes, then 16 of checksum
//!         …
//! ```
//!
//! Numbers are little-endian. Checksums are XXH3 of 128 bits; those of the pieces begin with that of the head and the piece's number, so that no piece passes for another,
//! or for one of another entry. They find damage. They don't keep out somebody who can write to the folder.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use bytes::Bytes;
use twox_hash::XxHash3_128;

/// How many bytes a piece holds; the last one what is left.
pub(super) const PIECE: usize = 256 << 10;
/// So many pieces are read at once.
const AT_ONCE: u64 = 4;
const SUM: usize = 16;

/// Starts with a byte that no text starts with.
const MAGIC: [u8; 8] = *b"\x93SLCAC\r\n";
const VERSION: u32 = 1;
/// Magic, version, length.
const FIXED: usize = 16;
/// So much is read at first.
const BEGIN: usize = 16 << 10;
/// A description is no longer than this: a path has 1 KiB, attributes little more than 2 KiB.
const MAX_DESCRIPTION: usize = 64 << 10;

/// Where the pieces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    start: u64,
    size: u64,
    seed: u64,
}

/// The checksum that a piece is given, as it grows.
pub(super) struct Sum(XxHash3_128);

impl Sum {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub(super) fn end(self) -> [u8; SUM] {
        self.0.finish_128().to_le_bytes()
    }
}

impl Layout {
    /// How many bytes the file has.
    pub(super) const fn len(self) -> u64 {
        self.start.saturating_add(self.size).saturating_add(self.size.div_ceil(PIECE as u64) * SUM as u64)
    }

    /// How many bytes there are in all pieces.
    pub(super) const fn size(self) -> u64 {
        self.size
    }

    pub(super) fn sum(self, piece: u64) -> Sum {
        Sum(XxHash3_128::with_seed(self.seed.wrapping_add(piece)))
    }

    /// How many bytes a piece holds.
    fn piece_len(self, piece: u64) -> usize {
        let left = self.size.saturating_sub(piece * PIECE as u64);
        usize::try_from(left).unwrap_or(usize::MAX).min(PIECE)
    }
}

/// The head of a new entry of `size` bytes, and where its pieces go. `None`: the description is too long.
pub(crate) fn head(description: &[u8], size: u64) -> Option<(Vec<u8>, Layout)> {
    let len = u32::try_from(description.len()).ok().filter(|_| description.len() <= MAX_DESCRIPTION)?;
    let mut head = Vec::with_capacity(FIXED + description.len() + SUM);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&len.to_le_bytes());
    head.extend_from_slice(description);
    let sum = XxHash3_128::oneshot(&head);
    head.extend_from_slice(&sum.to_le_bytes());
    let layout = Layout { start: head.len() as u64, size, seed: seed(sum) };
    Some((head, layout))
}

#[allow(clippy::cast_possible_truncation, reason = "half of it does")]
const fn seed(sum: u128) -> u64 {
    sum as u64
}

pub(crate) fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// An entry that is open: its head is good, its pieces are checked as they are read.
#[derive(Debug)]
pub(crate) struct Entry {
    file: File,
    layout: Layout,
    /// What was read together with the head: all of a small entry.
    begin: Bytes,
}

impl Entry {
    /// Reads the head, of whose description `read` makes how many bytes follow and what else is of interest, or finds that it is another's.
    pub(super) fn open<T>(mut file: File, len: u64, read: impl FnOnce(&[u8]) -> io::Result<(u64, T)>) -> io::Result<(Self, T)> {
        let mut begin = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(BEGIN)];
        file.read_exact(&mut begin)?;
        let number = |at: usize| u32::from_le_bytes([begin[at], begin[at + 1], begin[at + 2], begin[at + 3]]);
        if begin.len() < FIXED || begin[..8] != MAGIC || number(8) != VERSION {
            return Err(damaged("it is no entry, or one of another version"));
        }
        let described = usize::try_from(number(12)).ok().filter(|len| *len <= MAX_DESCRIPTION);
        let described = FIXED + described.ok_or_else(|| damaged("its head is damaged"))?;
        let head = described + SUM;
        if begin.len() < head {
            let known = begin.len();
            begin.resize(head, 0);
            file.read_exact(&mut begin[known..])?;
        }
        let sum = XxHash3_128::oneshot(&begin[..described]);
        if begin[described..head] != sum.to_le_bytes() {
            return Err(damaged("its head is damaged"));
        }
        let (size, what) = read(&begin[FIXED..described])?;
        let layout = Layout { start: head as u64, size, seed: seed(sum) };
        if len != layout.len() {
            return Err(damaged("it is cut, or longer than it should be"));
        }
        Ok((Self { file, layout, begin: begin.into() }, what))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// What `wanted` has in the next few pieces, checked; at least a byte.
    pub(crate) fn read(&mut self, wanted: &Range<u64>) -> io::Result<Vec<Bytes>> {
        let first = wanted.start / PIECE as u64;
        let end = wanted.end.div_ceil(PIECE as u64).min(first + AT_ONCE);
        let lens: Vec<usize> = (first..end).map(|piece| self.layout.piece_len(piece)).collect();
        let mut stored = vec![0; lens.iter().map(|len| len + SUM).sum()];
        self.file.seek(SeekFrom::Start(self.layout.start + first * (PIECE + SUM) as u64))?;
        self.file.read_exact(&mut stored)?;
        let mut rest = Bytes::from(stored);
        let mut pieces = Vec::with_capacity(lens.len());
        for (piece, len) in (first..end).zip(lens) {
            let mut bytes = rest.split_to(len);
            self.check(piece, &bytes, &rest.split_to(SUM))?;
            let begin = piece * PIECE as u64;
            let within = |at: u64| usize::try_from(at.saturating_sub(begin)).unwrap_or(usize::MAX).min(len);
            bytes = bytes.slice(within(wanted.start)..within(wanted.end));
            pieces.push(bytes);
        }
        Ok(pieces)
    }

    /// All of it.
    pub(crate) fn read_all(&mut self) -> io::Result<Bytes> {
        let size = usize::try_from(self.layout.size).map_err(|_| damaged("it is larger than memory"))?;
        if self.begin.len() as u64 == self.layout.len() && size <= PIECE {
            return self.begun(size);
        }
        let mut all = Vec::with_capacity(size);
        self.file.seek(SeekFrom::Start(self.layout.start))?;
        for piece in 0..self.layout.size.div_ceil(PIECE as u64) {
            let from = all.len();
            let len = self.layout.piece_len(piece);
            let read = (&mut self.file).take(len as u64).read_to_end(&mut all)?;
            let mut kept = [0; SUM];
            self.file.read_exact(&mut kept)?;
            self.check(piece, &all[from..], &kept)?;
            if read != len {
                return Err(damaged("it is cut"));
            }
        }
        Ok(all.into())
    }

    /// All of it, where it was read with the head, and is one piece at most.
    fn begun(&self, size: usize) -> io::Result<Bytes> {
        let start = self.begin.len() - size - if size == 0 { 0 } else { SUM };
        let bytes = self.begin.slice(start..start + size);
        if size > 0 {
            self.check(0, &bytes, &self.begin[start + size..])?;
        }
        Ok(bytes)
    }

    fn check(&self, piece: u64, bytes: &[u8], kept: &[u8]) -> io::Result<()> {
        // At once, which is faster than as it grows, and the same.
        let sum = XxHash3_128::oneshot_with_seed(self.layout.seed.wrapping_add(piece), bytes);
        if kept == sum.to_le_bytes() { Ok(()) } else { Err(damaged("a piece of it is damaged")) }
    }
}
