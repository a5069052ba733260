//! The note beside a partial file: which state of which blob its bytes are, and which of its parts are there.
//!
//! ```text
//! {"blob":…,"etag":…,"size":…,"part":8388608,"boot":…}     one line
//! ss.w..                                                   a byte a part
//! ```
//!
//! Parts come in any order. A part is marked when all its bytes are written, `w`, and once more when they are on the disk, `s`: so the note never claims bytes
//! that are not there, whenever the process is killed. What was only written is lost with the power; the note bears the id of the system's start, and after
//! another start it is the `s` that count.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::local::write_all_at;
use crate::{ETag, Result};

/// How many bytes of a large blob are fetched in one request. A blob of no more is fetched in one.
pub(super) const PART: u64 = 8 << 20;
/// A blob of more parts than that, 128 TiB, is fetched in one request as well: the marks are held in memory.
const MAX_PARTS: u64 = 1 << 24;

/// The longest first line: paths and marks are far shorter.
const MAX_LINE: u64 = 64 << 10;

const MISSING: u8 = b'.';
const WRITTEN: u8 = b'w';
const SYNCED: u8 = b's';

/// Which state of which blob the bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) blob: String,
    pub(super) etag: ETag,
    pub(super) size: u64,
}

/// True where a blob of this size is fetched in parts.
pub(super) fn has_parts(size: u64) -> bool {
    size > PART && size.div_ceil(PART) <= MAX_PARTS
}

/// The bytes of a part.
pub(super) fn range_of(part: u64, size: u64) -> Range<u64> {
    part * PART..((part + 1) * PART).min(size)
}

impl State {
    fn parts(&self) -> usize {
        usize::try_from(self.size.div_ceil(PART)).unwrap_or(usize::MAX)
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    #[serde(flatten)]
    state: State,
    /// Bytes in a part.
    part: u64,
    /// Which start of the system the written parts are of. `None`: it can't be told.
    boot: Option<String>,
}

impl Header {
    fn of(state: &State) -> Self {
        Self { state: state.clone(), part: PART, boot: boot() }
    }

    fn line(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

#[cfg(target_os = "linux")]
fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(not(target_os = "linux"))]
fn boot() -> Option<String> {
    None
}

/// The note, open. Its marks are written one by one, as parts are there.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) state: State,
    file: File,
    marks_at: u64,
    marks: Mutex<Vec<u8>>,
}

impl Note {
    /// Notes what a file of `have` bytes holds of this state: the parts that an older note tells of, if that is of the same state; else none. The file must be
    /// the caller's alone.
    pub(super) fn open(path: &Path, state: State, have: u64) -> Result<Self> {
        let header = Header::of(&state);
        let found = read(path, &state).ok();
        let marks = found.as_deref().and_then(|found| marks_of(found, &header, have));
        let line = header.line()?;
        let go_on = marks.is_some() && found.is_some_and(|found| found.starts_with(&line));
        let marks = marks.unwrap_or_else(|| vec![MISSING; state.parts()]);
        let file = if go_on { File::options().write(true).open(path)? } else { create(path, &line, &marks, have > 0)? };
        Ok(Self { state, file, marks_at: line.len() as u64, marks: Mutex::new(marks) })
    }

    fn marks(&self) -> MutexGuard<'_, Vec<u8>> {
        // Bytes are always whole.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, marks: &mut [u8], part: usize, mark: u8) -> io::Result<()> {
        write_all_at(&self.file, &[mark], self.marks_at + part as u64)?;
        marks[part] = mark;
        Ok(())
    }

    /// Marks a part whose bytes are all written.
    pub(super) fn written(&self, part: u64) -> Result<()> {
        let mut marks = self.marks();
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        if part < marks.len() && marks[part] == MISSING {
            self.mark(&mut marks, part, WRITTEN)?;
        }
        Ok(())
    }

    /// Marks what `sync` brings to the disk.
    pub(super) fn synced(&self, sync: impl FnOnce() -> io::Result<()>) -> Result<()> {
        let is_written = |(part, mark): (usize, &u8)| (*mark == WRITTEN).then_some(part);
        let written: Vec<_> = self.marks().iter().enumerate().filter_map(is_written).collect();
        sync()?;
        let mut marks = self.marks();
        Ok(written.into_iter().try_for_each(|part| self.mark(&mut marks, part, SYNCED))?)
    }

    /// The parts that are not there.
    pub(super) fn missing(&self) -> Vec<u64> {
        (0..).zip(self.marks().iter()).filter_map(|(part, mark)| (*mark == MISSING).then_some(part)).collect()
    }

    /// How many bytes are in parts that are there.
    pub(super) fn bytes(&self) -> u64 {
        bytes_in(&self.state, &self.marks()).map(|range| range.end - range.start).sum()
    }
}

/// A note, and no more of another file than shows that it is none.
fn read(path: &Path, state: &State) -> io::Result<Vec<u8>> {
    let mut found = Vec::new();
    File::open(path)?.take(MAX_LINE + state.parts() as u64 + 1).read_to_end(&mut found)?;
    Ok(found)
}

fn bytes_in(state: &State, marks: &[u8]) -> impl DoubleEndedIterator<Item = Range<u64>> {
    let there = marks.iter().enumerate().filter(|(_, mark)| **mark != MISSING);
    there.map(|(part, _)| range_of(part as u64, state.size))
}

/// The marks of a note that is about what `header` says. `None`: it is not, or it is damaged.
fn marks_of(found: &[u8], header: &Header, have: u64) -> Option<Vec<u8>> {
    let end = found.iter().position(|byte| *byte == b'\n')?;
    let noted: Header = serde_json::from_slice(&found[..end]).ok()?;
    let mut marks = found[end + 1..].to_vec();
    let known = marks.iter().all(|mark| matches!(*mark, MISSING | WRITTEN | SYNCED));
    if (&noted.state, noted.part) != (&header.state, header.part) || marks.len() != header.state.parts() || !known {
        return None;
    }
    if noted.boot.is_none() || noted.boot != header.boot {
        marks.iter_mut().filter(|mark| **mark == WRITTEN).for_each(|mark| *mark = MISSING);
    }
    let reaches = bytes_in(&header.state, &marks).next_back().map_or(0, |last| last.end);
    (reaches > 0 && reaches <= have).then_some(marks)
}

/// Writes a new note. `over`: the file that it is about holds bytes that an older note may have told of.
fn create(path: &Path, line: &[u8], marks: &[u8], over: bool) -> Result<File> {
    // Killed in the middle, there is none, or one that is too short: either way nothing is claimed.
    super::partial::if_there(fs::remove_file(path))?;
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(&[line, marks].concat())?;
    if over {
        // After a power cut the older note must not be back, beside newer bytes.
        file.sync_all()?;
        super::partial::sync_folder_of(path)?;
    }
    Ok(file)
}

/// Where the note of a partial file is.
pub(super) fn note_of(path: &Path) -> PathBuf {
    let mut note = path.as_os_str().to_owned();
    note.push(NOTE);
    note.into()
}

/// How a note's name ends, behind the partial file's.
pub(super) const NOTE: &str = ".json";

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 3 * PART + 5;

    fn state(etag: &str) -> State {
        State { blob: "memory:/x".into(), etag: ETag(etag.into()), size: SIZE }
    }

    #[test]
    fn parts_are_noted_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        let note = Note::open(&path, state("a"), 0).unwrap();
        assert_eq!((note.missing(), note.bytes()), (vec![0, 1, 2, 3], 0));
        note.written(3).unwrap();
        note.written(1).unwrap();
        drop(note);
        let note = Note::open(&path, state("a"), SIZE).unwrap();
        assert_eq!((note.missing(), note.bytes()), (vec![0, 2], PART + 5));
        assert_eq!(range_of(3, SIZE), 3 * PART..SIZE);
        drop(note);
        let shorter = Note::open(&path, state("a"), SIZE - 1).unwrap();
        assert_eq!(shorter.missing().len(), 4, "the file does not hold what the note claims");
        shorter.written(0).unwrap();
        assert_eq!(Note::open(&path, state("b"), SIZE).unwrap().missing().len(), 4, "another state");
        assert_eq!(Note::open(&path, state("a"), SIZE).unwrap().missing().len(), 4, "which is noted now");
    }

    #[test]
    fn what_was_only_written_counts_until_the_system_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        let note = Note::open(&path, state("a"), 0).unwrap();
        note.written(2).unwrap();
        note.synced(|| Ok(())).unwrap();
        note.written(1).unwrap();
        assert!(note.synced(|| Err(io::ErrorKind::Other.into())).is_err());
        drop(note);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("\n.ws."), "{text}");
        let missing = || Note::open(&path, state("a"), SIZE).unwrap().missing();
        if let Some(boot) = boot() {
            assert_eq!(missing(), [0, 3]);
            fs::write(&path, text.replace(&boot, "another")).unwrap();
        }
        assert_eq!(missing(), [0, 1, 3]);
        assert_eq!(missing(), [0, 1, 3], "the new note is of this start");
    }

    #[test]
    fn damaged_notes_claim_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        Note::open(&path, state("a"), 0).unwrap().written(0).unwrap();
        let whole = fs::read(&path).unwrap();
        let count = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Note::open(&path, state("a"), SIZE).unwrap().missing().len()
        };
        assert_eq!(count(&whole), 3);
        for end in 0..whole.len() {
            assert_eq!(count(&whole[..end]), 4, "cut at {end}");
        }
        assert_eq!(count(&[&whole[..], b"."].concat()), 4);
        assert_eq!(count(&String::from_utf8_lossy(&whole).replace("w...", "x...").into_bytes()), 4);
    }
}
