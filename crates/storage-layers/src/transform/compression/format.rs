//! How a compressed blob is laid out.
//!
//! ```text
//! intro   32   a skippable frame: magic, version, frame size, the blob's size where it was known beforehand
//! frame        a zstd frame of 1 MiB of the blob, the last one of less
//! frame        …
//! table        a skippable frame: for each frame before it, how many bytes it takes and how many it holds
//! ```
//!
//! This is the [seekable format](https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md) of zstd, so that
//! `zstd -d` makes the blob of it. All numbers are little-endian.

use storage_core::{Error, Result};
use twox_hash::XxHash64;

/// How many bytes of the blob a frame holds; the last one what is left.
pub(super) const FRAME: usize = 1 << FRAME_LOG;
const FRAME_LOG: u8 = 20;
/// How many bytes the intro takes.
pub(super) const INTRO: usize = 32;
/// How many bytes of the table's end tell the blob's size: the last frame's entry and the footer.
pub(super) const TAIL: usize = ENTRY + FOOTER;
/// The most that a frame takes beyond what it holds: its own header, those of its blocks, and its checksum.
pub(super) const FRAME_OVERHEAD: usize = 9 + 3 * (FRAME / BLOCK) + 4;
/// The window that a frame needs at most, as a power of two.
pub(super) const WINDOW_LOG: u32 = FRAME_LOG as u32;

const MAGIC: [u8; 8] = *b"\x93SLZST\r\n";
const VERSION: u8 = 1;
const INTRO_FRAME: u32 = 0x184D_2A5D;
const TABLE_FRAME: u32 = 0x184D_2A5E;
const SEEKABLE: u32 = 0x8F92_EAB1;
const ENTRY: usize = 8;
const FOOTER: usize = 9;
/// How many frames the format allows.
const MAX_FRAMES: u64 = 0x800_0000 - 1;
/// How many bytes a block of a frame holds at most.
const BLOCK: usize = 128 << 10;

/// What the first bytes of a blob say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intro {
    frame_log: u8,
    /// The blob's size. `None`: the table tells.
    pub(super) size: Option<u64>,
}

/// A blob's size, cut into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frames {
    pub(super) size: u64,
    pub(super) frame: u64,
}

fn damaged(what: &str) -> Error {
    Error::corrupt(format!("{what} of the compressed blob is damaged: restore the blob"))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Intro {
    pub(super) const fn new(size: Option<u64>) -> Self {
        Self { frame_log: FRAME_LOG, size }
    }

    pub(super) fn encode(self) -> [u8; INTRO] {
        let mut bytes = [0; INTRO];
        bytes[..4].copy_from_slice(&INTRO_FRAME.to_le_bytes());
        bytes[4] = 24;
        bytes[8..16].copy_from_slice(&MAGIC);
        bytes[16] = VERSION;
        bytes[17] = self.frame_log;
        bytes[24..].copy_from_slice(&self.size.unwrap_or(u64::MAX).to_le_bytes());
        bytes
    }

    /// True where a blob that begins so is one of ours.
    pub(super) fn is_at_start_of(bytes: &[u8]) -> bool {
        bytes.len() >= 16 && bytes[..4] == INTRO_FRAME.to_le_bytes() && bytes[4..8] == [24, 0, 0, 0] && bytes[8..16] == MAGIC
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let Ok(bytes) = <[u8; INTRO]>::try_from(bytes) else { return Err(damaged("the beginning")) };
        if bytes[16] != VERSION {
            return Err(Error::corrupt("the blob is compressed in a way that this version does not know"));
        }
        let intro = Self { frame_log: bytes[17], size: Some(number(&bytes[24..])).filter(|size| *size != u64::MAX) };
        if intro.frame_log != FRAME_LOG || bytes[18..24] != [0; 6] {
            return Err(damaged("the beginning"));
        }
        Ok(intro)
    }

    pub(super) fn frames(self, size: u64) -> Result<Frames> {
        let frames = Frames { size, frame: 1 << self.frame_log };
        if frames.count() > MAX_FRAMES { Err(damaged("the size")) } else { Ok(frames) }
    }

    /// Reads the blob's size from the last bytes of the table.
    pub(super) fn size_of_tail(self, tail: &[u8]) -> Result<u64> {
        let Ok(tail) = <[u8; TAIL]>::try_from(tail) else { return Err(damaged("the table")) };
        let (entry, footer) = tail.split_at(ENTRY);
        let frames = number(&footer[..4]).checked_sub(1).filter(|frames| *frames <= MAX_FRAMES);
        let (last, frame) = (number(&entry[4..]), 1 << self.frame_log);
        let fits = if frames == Some(0) { last == 0 } else { (1..=frame).contains(&last) };
        match frames {
            Some(frames) if footer[4] == 0 && number(&footer[5..]) == u64::from(SEEKABLE) && fits => {
                Ok(frames.saturating_sub(1) * frame + last)
            }
            _ => Err(damaged("the table")),
        }
    }
}

impl Frames {
    pub(super) const fn count(self) -> u64 {
        self.size.div_ceil(self.frame)
    }

    /// How many bytes of the blob a frame holds.
    pub(super) fn len(self, index: u64) -> u64 {
        self.frame.min(self.size.saturating_sub(index * self.frame))
    }

    /// Where the table's entries of the first `frames` frames are, in a blob that takes `stored` bytes.
    pub(super) fn entries(self, stored: u64, frames: u64) -> Result<std::ops::Range<u64>> {
        let entry = ENTRY as u64;
        let table = entry * (self.count() + 1) + FOOTER as u64;
        let start = stored.checked_sub(table).filter(|start| *start >= (INTRO + 8) as u64).ok_or_else(|| damaged("the table"))?;
        // The first entry is the intro's.
        Ok(start + entry..start + entry * (frames + 1))
    }
}

/// Adds up entries of the table.
pub(super) struct Offsets {
    frames: Frames,
    next: u64,
    /// Where the next frame begins.
    pub(super) at: u64,
}

impl Offsets {
    pub(super) fn new(frames: Frames) -> Self {
        Self { frames, next: 0, at: INTRO as u64 }
    }

    /// Takes the next frame's entry.
    pub(super) fn add(&mut self, entry: &[u8]) -> Result<()> {
        let fits = entry.len() == ENTRY && number(&entry[4..]) == self.frames.len(self.next);
        if !fits {
            return Err(damaged("the table"));
        }
        self.at += number(&entry[..4]);
        self.next += 1;
        Ok(())
    }

    pub(super) const ENTRY: usize = ENTRY;
}

/// The table, as it grows: 8 bytes for each frame.
pub(super) struct Table {
    entries: Vec<u8>,
}

impl Table {
    pub(super) fn new() -> Self {
        let mut table = Self { entries: Vec::new() };
        table.entry(INTRO, 0);
        table
    }

    fn entry(&mut self, stored: usize, plain: usize) {
        for number in [stored, plain] {
            self.entries.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
    }

    /// Adds a frame that takes `stored` bytes and holds `plain`.
    pub(super) fn add(&mut self, stored: usize, plain: usize) -> Result<()> {
        if (self.entries.len() / ENTRY) as u64 > MAX_FRAMES {
            return Err(Error::invalid("the blob is too large to be compressed: 128 TiB at most"));
        }
        self.entry(stored, plain);
        Ok(())
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let len = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
        let count = self.entries.len() / ENTRY;
        let mut frame = Vec::with_capacity(8 + self.entries.len() + FOOTER);
        frame.extend_from_slice(&TABLE_FRAME.to_le_bytes());
        frame.extend_from_slice(&len(self.entries.len() + FOOTER));
        frame.extend_from_slice(&self.entries);
        frame.extend_from_slice(&len(count));
        frame.push(0);
        frame.extend_from_slice(&SEEKABLE.to_le_bytes());
        frame
    }
}

/// A frame that holds bytes as they are, and their checksum.
pub(super) fn raw_frame(plain: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(plain.len() + FRAME_OVERHEAD);
    // Magic; one segment, its size in four bytes, a checksum behind it.
    frame.extend_from_slice(&[0x28, 0xB5, 0x2F, 0xFD, 0b1010_0100]);
    frame.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes());
    let last = plain.len().div_ceil(BLOCK).saturating_sub(1);
    for (index, block) in plain.chunks(BLOCK).enumerate() {
        let header = u32::try_from(block.len() << 3).unwrap_or(u32::MAX) | u32::from(index == last);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    // Half of it, says the format.
    frame.extend_from_slice(&XxHash64::oneshot(0, plain).to_le_bytes()[..4]);
    frame
}

/// How many bytes a blob may have so that it takes at most `stored`, however badly it compresses.
pub(super) fn max_plain(stored: u64) -> u64 {
    let stored = stored.min(MAX_FRAMES * FRAME as u64);
    let frames = stored / FRAME as u64 + 1;
    stored.saturating_sub((INTRO + 8 + ENTRY + FOOTER) as u64 + frames * (FRAME_OVERHEAD + ENTRY) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intros_come_back() {
        for size in [None, Some(0), Some(1 << 40)] {
            let bytes = Intro::new(size).encode();
            assert!(Intro::is_at_start_of(&bytes));
            assert_eq!(Intro::parse(&bytes).unwrap(), Intro::new(size));
        }
    }

    #[test]
    fn tails_tell_the_size() {
        for size in [0, 1, FRAME - 1, FRAME, FRAME + 1, 5 * FRAME] {
            let mut table = Table::new();
            for at in (0..size).step_by(FRAME) {
                table.add(10, FRAME.min(size - at)).unwrap();
            }
            let bytes = table.encode();
            assert_eq!(Intro::new(None).size_of_tail(&bytes[bytes.len() - TAIL..]).unwrap(), size as u64);
        }
        assert!(Intro::new(None).size_of_tail(&[0; TAIL]).is_err());
    }

    #[test]
    fn raw_frames_are_frames() {
        for len in [1, 100, BLOCK, BLOCK + 1, FRAME] {
            let plain: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let frame = raw_frame(&plain);
            assert!(frame.len() <= len + FRAME_OVERHEAD);
            assert_eq!(zstd::bulk::decompress(&frame, len).unwrap(), plain);
            // The checksum is the one that zstd computes.
            let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
            compressor.include_checksum(true).unwrap();
            let theirs = compressor.compress(&plain).unwrap();
            assert_eq!(frame[frame.len() - 4..], theirs[theirs.len() - 4..]);
        }
    }
}
