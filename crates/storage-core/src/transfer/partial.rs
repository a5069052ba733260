//! A file that is being downloaded: beside its target, so that the rename stays within one file system.
//!
//! ```text
//! .<name>.storage-part        the bytes so far, locked by whoever writes them
//! .<name>.storage-part.json   of a large blob: which state of which blob they are, and which parts are there (see [`note`](super::note))
//! ```

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::local::write_all_at;
use super::note::{NOTE, Note, PART, State, note_of};
use crate::{Error, Result};

const SUFFIX: &str = ".storage-part";
/// How much of the target's name the partial file's name bears.
const KEPT: usize = 180;
/// How often the partial file is opened anew where another download has just finished with it.
const ATTEMPTS: usize = 10;

/// When the bytes must be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// When the file takes its place.
    Now,
    /// When the whole transfer is done ([`sync_all`]), unless the file takes another's place: that must not be lost before.
    AtEnd,
}

/// True for the names of partial files and their notes.
pub(super) fn is_partial(name: &str) -> bool {
    name.starts_with('.') && name.strip_suffix(NOTE).unwrap_or(name).ends_with(SUFFIX)
}

/// Where the bytes of a file are while it is being downloaded.
pub(super) fn path_of(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or(OsStr::new("file")).to_string_lossy();
    if name.len() <= KEPT {
        return target.with_file_name(format!(".{name}{SUFFIX}"));
    }
    let cut = (0..=KEPT).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    let hash = crate::fnv1a(&[name.as_bytes()]);
    target.with_file_name(format!(".{}.{hash:016x}{SUFFIX}", &name[..cut]))
}

/// A file that is being downloaded. Dropped before it is finished, it is kept if it can be gone on with, else removed.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    /// Set where the bytes can be gone on with.
    note: Option<Note>,
    /// Without a note: how many bytes were written.
    written: u64,
    finished: bool,
}

impl Partial {
    /// Opens the partial file of `target`, creating folders as needed, for bytes that come in order and can't be gone on with.
    pub(super) fn open(target: &Path) -> Result<Self> {
        let (partial, have) = Self::locked(target)?;
        if have > 0 {
            // The note goes first: it must not tell of bytes that are gone.
            if_there(fs::remove_file(note_of(&partial.path)))?;
            partial.file.set_len(0)?;
        }
        Ok(partial)
    }

    /// Opens it for the parts of a large blob; those of this very state that are there already are kept.
    pub(super) fn open_parts(target: &Path, state: State) -> Result<Self> {
        let (mut partial, have) = Self::locked(target)?;
        let note = Note::open(&note_of(&partial.path), state, have)?;
        if have > 0 && note.bytes() == 0 {
            partial.file.set_len(0)?;
        }
        let size = note.state.size;
        // From here on, what is there is kept: a full disk is no reason to lose it.
        partial.note = Some(note);
        partial.reserve(size)?;
        Ok(partial)
    }

    fn locked(target: &Path) -> Result<(Self, u64)> {
        if fs::symlink_metadata(target).is_ok_and(|found| found.is_dir()) {
            return Err(Error::already_exists("there is a folder where the file belongs"));
        }
        let path = path_of(target);
        let file = lock(&path)?;
        let have = file.metadata()?.len();
        Ok((Self { file, path, target: target.to_owned(), note: None, written: 0, finished: false }, have))
    }

    /// Takes the room on the disk, so that a full one is noticed before the first byte rather than in the middle.
    #[cfg(target_os = "linux")]
    fn reserve(&self, size: u64) -> Result<()> {
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, size) {
            Err(rustix::io::Errno::NOSPC) => Err(Error::from(io::Error::from(io::ErrorKind::StorageFull))),
            // Not every file system can; it will be noticed later then.
            _ => Ok(()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Linux")]
    fn reserve(&self, _: u64) -> Result<()> {
        Ok(())
    }

    /// Where the file belongs.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// How many bytes are there.
    pub(super) fn written(&self) -> u64 {
        self.note.as_ref().map_or(self.written, Note::bytes)
    }

    /// The parts that are not there.
    pub(super) fn missing(&self) -> Vec<u64> {
        self.note.as_ref().map_or_else(Vec::new, Note::missing)
    }

    /// Writes the bytes that come next.
    pub(super) fn append(&mut self, pieces: &[Bytes]) -> Result<()> {
        self.write_at(self.written, pieces)?;
        self.written += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        Ok(())
    }

    /// Writes bytes of a part. It is there when that is [said](Self::part_is_written).
    pub(super) fn write_at(&self, mut offset: u64, pieces: &[Bytes]) -> Result<()> {
        for piece in pieces {
            write_all_at(&self.file, piece, offset)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Notes that all bytes of a part are written.
    pub(super) fn part_is_written(&self, part: u64) -> Result<()> {
        self.note.as_ref().map_or(Ok(()), |note| note.written(part))
    }

    /// Notes that these bytes are written, of which only whole parts count.
    pub(super) fn bytes_are_written(&self, bytes: Range<u64>) -> Result<()> {
        let Some(note) = &self.note else { return Ok(()) };
        let end = if bytes.end == note.state.size { bytes.end.div_ceil(PART) } else { bytes.end / PART };
        (bytes.start.div_ceil(PART)..end).try_for_each(|part| note.written(part))
    }

    /// Brings the parts that are there to the disk, and notes it.
    pub(super) fn sync_parts(&self) -> Result<()> {
        self.note.as_ref().map_or(Ok(()), |note| note.synced(|| self.file.sync_data()))
    }

    /// Copies up to `len` bytes to `offset` by the operating system's own means, where it has some; answers how many there were.
    pub(super) fn copy_from(&mut self, source: &File, offset: u64, len: u64) -> Result<u64> {
        self.file.seek(SeekFrom::Start(offset))?;
        // On Linux this is `copy_file_range`.
        let copied = io::copy(&mut io::Read::take(source, len), &mut self.file)?;
        self.written += copied;
        Ok(copied)
    }

    /// Puts the file into its place, with the blob's time.
    pub(super) fn finish(mut self, size: u64, modified_at: DateTime<Utc>, durable: Durable) -> Result<()> {
        let written = self.written();
        if written != size {
            return Err(Error::unavailable(format!("the blob ended after {written} of {size} bytes")));
        }
        // So that a later transfer can tell what has changed; a file system that can't hold it keeps its own.
        let _ = self.file.set_modified(modified_at.into());
        let replaces = fs::symlink_metadata(&self.target).is_ok();
        if durable == Durable::Now || replaces || !cfg!(target_os = "linux") {
            self.file.sync_all()?;
        }
        if self.note.is_some() {
            if_there(fs::remove_file(note_of(&self.path)))?;
        }
        fs::rename(&self.path, &self.target)?;
        self.finished = true;
        if durable == Durable::Now {
            sync_folder_of(&self.target)?;
        }
        Ok(())
    }

    /// Throws the bytes away.
    pub(super) fn discard(mut self) {
        self.note = None;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.finished || self.note.as_ref().is_some_and(|note| note.bytes() > 0) {
            return;
        }
        // While it is still locked: nobody else can be at work on it.
        let _ = fs::remove_file(note_of(&self.path));
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens and locks the file; creates it and the folders above where they are missing.
fn lock(path: &Path) -> Result<File> {
    for _ in 0..ATTEMPTS {
        let file = open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::conflict("another download is writing this file: wait for it, or stop it"));
            }
            Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => return Err(error.into()),
            _ => {}
        }
        // Whoever had the lock may have renamed the file into its place.
        if is_still_at(&file, path) {
            return Ok(file);
        }
    }
    Err(Error::conflict("other downloads are writing this file"))
}

fn open(path: &Path) -> Result<File> {
    let open = || File::options().create(true).truncate(false).read(true).write(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_folder_of(path)?;
            Ok(open()?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(in_the_way(error)),
        opened => Ok(opened?),
    }
}

pub(super) fn create_folder_of(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => in_the_way(error),
        _ => error.into(),
    })
}

fn in_the_way(error: io::Error) -> Error {
    Error::already_exists("there is a file where a folder is needed").with_source(error)
}

#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let same = |a: fs::Metadata, b: fs::Metadata| (a.ino(), a.dev()) == (b.ino(), b.dev());
    file.metadata().is_ok_and(|open| fs::symlink_metadata(path).is_ok_and(|there| same(open, there)))
}

/// An open file can't be renamed there.
#[cfg(not(unix))]
fn is_still_at(_: &File, _: &Path) -> bool {
    true
}

pub(super) fn if_there(done: io::Result<()>) -> Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes a rename durable. Where a folder can't be opened as a file, the system has no such notion.
pub(super) fn sync_folder_of(path: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder_of(path))?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// The folder that a file is in.
#[cfg(unix)]
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Brings everything below `folder` to the disk: one call for all files, rather than one for each.
#[cfg(target_os = "linux")]
pub(super) fn sync_all(folder: &Path) -> Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?).map_err(io::Error::from)?)
}

/// Each file was brought there by itself.
#[cfg(not(target_os = "linux"))]
pub(super) fn sync_all(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ETag, ErrorKind};

    const SIZE: u64 = PART + 10;

    fn state(etag: &str) -> State {
        State { blob: "memory:/x".into(), etag: ETag(etag.into()), size: SIZE }
    }

    fn write(partial: &Partial, offset: u64, bytes: impl Into<Bytes>) {
        partial.write_at(offset, &[bytes.into()]).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn parts_of_the_same_state_are_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/er/x");
        let partial = Partial::open_parts(&target, state("a")).unwrap();
        assert_eq!(partial.missing(), [0, 1]);
        write(&partial, PART, "0123456789");
        partial.part_is_written(1).unwrap();
        write(&partial, 0, "a part of a part does not count");
        drop(partial);
        assert_eq!(names(target.parent().unwrap()), [".x.storage-part", ".x.storage-part.json"]);
        let partial = Partial::open_parts(&target, state("a")).unwrap();
        assert_eq!((partial.written(), partial.missing()), (10, vec![0]));
        write(&partial, 0, vec![b'x'; usize::try_from(PART).unwrap()]);
        partial.part_is_written(0).unwrap();
        partial.sync_parts().unwrap();
        partial.finish(SIZE, Utc::now(), Durable::Now).unwrap();
        assert!(fs::read(&target).unwrap().ends_with(b"xxx0123456789"));
        assert_eq!(names(target.parent().unwrap()), ["x"]);
    }

    #[test]
    fn parts_of_another_state_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let next: [fn(&Path) -> Partial; 2] =
            [|target| Partial::open_parts(target, state("b")).unwrap(), |target| Partial::open(target).unwrap()];
        for next in next {
            let partial = Partial::open_parts(&target, state("a")).unwrap();
            write(&partial, PART, "0123456789");
            partial.part_is_written(1).unwrap();
            drop(partial);
            let partial = next(&target);
            assert_eq!((partial.written(), partial.file.metadata().unwrap().len()), (0, 0));
            drop(partial);
            assert_eq!(names(folder.path()), [""; 0], "what is empty is not kept");
        }
    }

    #[test]
    fn two_downloads_do_not_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let first = Partial::open(&target).unwrap();
        assert_eq!(Partial::open(&target).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(Partial::open_parts(&target, state("a")).unwrap_err().kind(), ErrorKind::Conflict);
        drop(first);
        Partial::open(&target).unwrap();
    }

    #[test]
    fn long_names_stay_apart() {
        let (a, b) = (format!("{}a", "ü".repeat(125)), format!("{}b", "ü".repeat(125)));
        let part = |name: &str| path_of(&Path::new("f").join(name)).file_name().unwrap().to_str().unwrap().to_owned();
        assert_ne!(part(&a), part(&b));
        assert!(part(&a).len() + NOTE.len() <= 255 && is_partial(&part(&a)) && is_partial(&(part("x") + NOTE)));
        assert!(!is_partial("x.storage-part") && !is_partial(".x"));
    }
}
