//! `_storage/journal`: every change of records and queues, as it will be, before it is made.
//!
//! One entry is one group of batches; its checksum says whether it is whole, so writing and syncing it is the moment at which the
//! group happened. The files themselves are written behind it, unsynced, by plain renames. Once the file is long enough or nobody
//! writes, a checkpoint brings everything to the disk and the journal starts over, as a new *era*, in the same blocks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use storage_core::{Error, Result, fnv1a};

use crate::file::{at, open_control, read_at, write_at};

/// Beyond this a checkpoint is due.
pub(crate) const CHECKPOINT_BYTES: u64 = 4 << 20;
/// Beyond this a checkpoint waits for nothing.
pub(crate) const URGENT_BYTES: u64 = 64 << 20;
/// What a new journal takes of the disk at once: appends then change no sizes, which is quicker to sync, and a full disk can be cleared.
const TAKEN_BYTES: usize = 256 << 10;
/// A file longer than this is cut at a checkpoint.
const KEPT_BYTES: u64 = 16 << 20;
/// The most that one batch writes; a group has one large batch at most.
pub(crate) const MAX_BATCH_BYTES: usize = 256 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"jrn1");
const HEADER: usize = 24;
/// Where the first entry of an era goes: behind the empty one that opens it.
pub(crate) const EMPTY: u64 = HEADER as u64;

/// One change of one file. Paths are relative to the root.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Write { path: String, bytes: Bytes },
    Remove { path: String },
    Rename { from: String, to: String },
}

impl Op {
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Write { path, bytes } => path.len() + bytes.len() + 7,
            Self::Remove { path } => path.len() + 3,
            Self::Rename { from, to } => from.len() + to.len() + 5,
        }
    }

    /// The files that it is about.
    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "one call syncs all files there"))]
    pub(crate) fn paths(&self) -> Vec<&str> {
        match self {
            Self::Write { path, .. } | Self::Remove { path } => vec![path],
            Self::Rename { from, to } => vec![from, to],
        }
    }

    fn write(&self, into: &mut Vec<u8>) {
        let text = |into: &mut Vec<u8>, text: &str| {
            // Paths of ours are below 1 KiB.
            into.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
            into.extend_from_slice(text.as_bytes());
        };
        match self {
            Self::Write { path, bytes } => {
                into.push(1);
                text(into, path);
                into.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
                into.extend_from_slice(bytes);
            }
            Self::Remove { path } => {
                into.push(2);
                text(into, path);
            }
            Self::Rename { from, to } => {
                into.push(3);
                text(into, from);
                text(into, to);
            }
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<String> {
        let len = u16::from_le_bytes(self.take(2)?.try_into().ok()?);
        String::from_utf8(self.take(usize::from(len))?.to_vec()).ok()
    }

    fn op(&mut self) -> Option<Op> {
        match self.take(1)?[0] {
            1 => {
                let path = self.text()?;
                let len = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
                Some(Op::Write { path, bytes: Bytes::copy_from_slice(self.take(usize::try_from(len).ok()?)?) })
            }
            2 => Some(Op::Remove { path: self.text()? }),
            3 => Some(Op::Rename { from: self.text()?, to: self.text()? }),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: open_control(path)?, path: path.to_path_buf() })
    }

    /// Writes an entry at `offset` and answers where it ends.
    pub(crate) fn append(&self, era: u64, offset: u64, ops: &[Op], durable: bool) -> Result<u64> {
        let mut entry = vec![0; HEADER];
        ops.iter().for_each(|op| op.write(&mut entry));
        let len = u32::try_from(entry.len() - HEADER).map_err(|_| Error::internal("an entry of the journal is beyond 4 GiB"))?;
        entry[..4].copy_from_slice(&MAGIC.to_le_bytes());
        entry[4..8].copy_from_slice(&len.to_le_bytes());
        entry[8..16].copy_from_slice(&era.to_le_bytes());
        let sum = fnv1a(&[&entry[4..16], &offset.to_le_bytes(), &entry[HEADER..]]);
        entry[16..HEADER].copy_from_slice(&sum.to_le_bytes());
        let written = write_at(&self.file, &entry, offset).and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        written.map_err(|error| {
            // Else a later recovery might take for whole what the caller is told has failed.
            let _ = write_at(&self.file, &[0; HEADER], offset);
            at(&self.path)(error)
        })?;
        Ok(offset + entry.len() as u64)
    }

    /// Makes the entry at `offset` no entry.
    pub(crate) fn revoke(&self, offset: u64, durable: bool) -> Result<()> {
        let revoked =
            write_at(&self.file, &[0; HEADER], offset).and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        revoked.map_err(at(&self.path))
    }

    /// True where the journal's present run is `era`.
    pub(crate) fn is_of(&self, era: u64) -> Result<bool> {
        Ok(self.read(era, 0)?.is_some())
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(at(&self.path))
    }

    /// The whole entry at `offset` and where it ends; `None` where there is none of that era.
    pub(crate) fn read(&self, era: u64, offset: u64) -> Result<Option<(Vec<Op>, u64)>> {
        self.entry(Some(era), offset).map_err(at(&self.path)).map(|found| found.map(|(_, ops, end)| (ops, end)))
    }

    fn entry(&self, era: Option<u64>, offset: u64) -> io::Result<Option<(u64, Vec<Op>, u64)>> {
        let mut header = [0; HEADER];
        if read_at(&self.file, &mut header, offset)? < HEADER {
            return Ok(None);
        }
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | (u64::from(word(at + 4)) << 32);
        let (len, found_era) = (u64::from(word(4)), long(8));
        let left = self.file.metadata()?.len().saturating_sub(offset + HEADER as u64);
        if word(0) != MAGIC || len > left || era.is_some_and(|era| era != found_era) {
            return Ok(None);
        }
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        let mut payload = vec![0; len];
        let read = read_at(&self.file, &mut payload, offset + HEADER as u64)?;
        if read < payload.len() || fnv1a(&[&header[4..16], &offset.to_le_bytes(), &payload]) != long(16) {
            return Ok(None);
        }
        let (mut reader, mut ops) = (Reader(&payload), Vec::new());
        while !reader.0.is_empty() {
            let Some(op) = reader.op() else { return Ok(None) };
            ops.push(op);
        }
        Ok(Some((found_era, ops, offset + (HEADER + len) as u64)))
    }

    /// Everything in the journal from its start: its era, its changes, where they end. `None` for an empty journal.
    pub(crate) fn read_all(&self) -> Result<Option<(u64, Vec<Op>, u64)>> {
        let Some((era, mut all, mut end)) = self.entry(None, 0).map_err(at(&self.path))? else { return Ok(None) };
        while let Some((_, ops, next)) = self.entry(Some(era), end).map_err(at(&self.path))? {
            all.extend(ops);
            end = next;
        }
        Ok(Some((era, all, end)))
    }

    /// Starts over as `era`, with nothing in it, and answers where the first entry goes.
    pub(crate) fn restart(&self, era: u64, durable: bool) -> Result<u64> {
        let len = self.file.metadata().map_err(at(&self.path))?.len();
        if len == 0 {
            write_at(&self.file, &vec![0; TAKEN_BYTES], 0).map_err(at(&self.path))?;
        }
        let end = self.append(era, 0, &[], durable)?;
        if len > KEPT_BYTES {
            self.file.set_len(CHECKPOINT_BYTES).map_err(at(&self.path))?;
        }
        Ok(end)
    }
}

/// What the changes come to in the end, file by file.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) files: BTreeMap<String, Option<Bytes>>,
    /// Files that were renamed but not written in this era: where each belongs, and the names that it may still have.
    pub(crate) moved: BTreeMap<String, Vec<String>>,
}

/// Replays the changes in thought: doing them one after another to newer files would show old states to readers.
pub(crate) fn outcome(ops: Vec<Op>) -> Outcome {
    let mut out = Outcome::default();
    for op in ops {
        match op {
            Op::Write { path, bytes } => {
                out.moved.remove(&path);
                out.files.insert(path, Some(bytes));
            }
            Op::Remove { path } => {
                out.moved.remove(&path);
                out.files.insert(path, None);
            }
            Op::Rename { from, to } => match out.files.insert(from.clone(), None) {
                Some(Some(bytes)) => drop(out.files.insert(to, Some(bytes))),
                _ => {
                    let mut names = out.moved.remove(&from).unwrap_or_default();
                    names.push(from);
                    out.files.remove(&to);
                    out.moved.insert(to, names);
                }
            },
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &str) -> Op {
        Op::Write { path: path.into(), bytes: Bytes::from_static(b"x") }
    }

    fn rename(from: &str, to: &str) -> Op {
        Op::Rename { from: from.into(), to: to.into() }
    }

    #[test]
    fn entries_come_back_until_the_first_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        assert!(journal.read_all().unwrap().is_none());
        let start = journal.restart(7, false).unwrap();
        let first = journal.append(7, start, &[write("a"), rename("a", "b")], true).unwrap();
        let second = journal.append(7, first, &[Op::Remove { path: "b".into() }], true).unwrap();
        let (era, ops, end) = journal.read_all().unwrap().unwrap();
        assert_eq!((era, ops.len(), end), (7, 3, second));
        assert_eq!(journal.read(7, start).unwrap().unwrap().0, [write("a"), rename("a", "b")]);
        assert!(journal.read(8, start).unwrap().is_none());
        for torn in first..second {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[usize::try_from(torn).unwrap()] ^= 1;
            let other = folder.path().join("torn");
            std::fs::write(&other, bytes).unwrap();
            assert_eq!(Journal::open(&other).unwrap().read_all().unwrap().unwrap().2, first, "{torn}");
        }
    }

    #[test]
    fn an_era_does_not_see_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("journal")).unwrap();
        let start = journal.restart(1, false).unwrap();
        let end = journal.append(1, start, &[write("a")], false).unwrap();
        journal.append(1, end, &[write("b")], false).unwrap();
        assert_eq!(journal.restart(2, false).unwrap(), start);
        journal.append(2, start, &[write("c")], false).unwrap();
        assert_eq!(journal.read_all().unwrap().unwrap(), (2, vec![write("c")], end));
    }

    #[test]
    fn outcomes_follow_renames() {
        let out = outcome(vec![
            write("a"),
            rename("a", "b"),
            rename("p", "q"),
            rename("q", "r"),
            rename("s", "t"),
            Op::Remove { path: "t".into() },
        ]);
        assert_eq!(out.files["b"], Some(Bytes::from_static(b"x")));
        assert!(["a", "p", "q", "s", "t"].iter().all(|gone| out.files[*gone].is_none()));
        assert_eq!(out.moved, BTreeMap::from([("r".to_owned(), vec!["p".to_owned(), "q".to_owned()])]));
    }
}
