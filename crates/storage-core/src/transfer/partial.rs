//! A file that is being downloaded: beside its target, so that the rename stays within one file system.
//!
//! ```text
//! .<name>.storage-part        the bytes so far, locked by whoever writes them
//! .<name>.storage-part.json   of a large blob: which state of which blob they are
//! ```

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ETag, Error, Result};

const SUFFIX: &str = ".storage-part";
const NOTE: &str = ".json";
/// How much of the target's name the partial file's name bears.
const KEPT: usize = 180;
/// How often the partial file is opened anew where another download has just finished with it.
const ATTEMPTS: usize = 10;

/// Which state of which blob the bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) blob: String,
    pub(super) etag: ETag,
    pub(super) size: u64,
}

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

fn path_of(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or(OsStr::new("file")).to_string_lossy();
    if name.len() <= KEPT {
        return target.with_file_name(format!(".{name}{SUFFIX}"));
    }
    let cut = (0..=KEPT).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    target.with_file_name(format!(".{}.{hash:016x}{SUFFIX}", &name[..cut]))
}

fn note_of(path: &Path) -> PathBuf {
    let mut note = path.as_os_str().to_owned();
    note.push(NOTE);
    note.into()
}

/// A file that is being downloaded. Dropped before it is finished, it is kept if it can be gone on with, else removed.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    /// Set where the bytes can be gone on with.
    state: Option<State>,
    written: u64,
    finished: bool,
}

impl Partial {
    /// Opens the partial file of `target`, creating folders as needed. With a state, bytes of this very state that are there already are kept.
    pub(super) fn open(target: &Path, state: Option<State>) -> Result<Self> {
        if fs::symlink_metadata(target).is_ok_and(|found| found.is_dir()) {
            return Err(Error::already_exists("there is a folder where the file belongs"));
        }
        let path = path_of(target);
        let file = lock(&path)?;
        let have = file.metadata()?.len();
        let mut partial = Self { file, path, target: target.to_owned(), state, written: 0, finished: false };
        match &partial.state {
            Some(state) if have > 0 && have <= state.size && partial.noted().as_ref() == Some(state) => partial.written = have,
            _ => partial.begin(have)?,
        }
        partial.file.seek(SeekFrom::Start(partial.written))?;
        partial.reserve()?;
        Ok(partial)
    }

    fn noted(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(note_of(&self.path)).ok()?).ok()
    }

    /// The old bytes go before the note says what the new ones are.
    fn begin(&self, have: u64) -> Result<()> {
        if have > 0 {
            self.file.set_len(0)?;
        }
        match &self.state {
            Some(state) => Ok(fs::write(note_of(&self.path), serde_json::to_vec(state)?)?),
            None if have > 0 => if_there(fs::remove_file(note_of(&self.path))),
            None => Ok(()),
        }
    }

    /// Takes the room on the disk, so that a full one is noticed before the first byte rather than in the middle.
    #[cfg(target_os = "linux")]
    fn reserve(&self) -> Result<()> {
        let Some(state) = &self.state else { return Ok(()) };
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, state.size) {
            Err(rustix::io::Errno::NOSPC) => Err(Error::from(io::Error::from(io::ErrorKind::StorageFull))),
            // Not every file system can; it will be noticed later then.
            _ => Ok(()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Linux")]
    fn reserve(&self) -> Result<()> {
        Ok(())
    }

    /// How many bytes are there.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Copies up to `len` bytes by the operating system's own means, where it has some; answers how many there were.
    pub(super) fn copy_from(&mut self, source: &File, len: u64) -> Result<u64> {
        // On Linux this is `copy_file_range`.
        let copied = io::copy(&mut io::Read::take(source, len), &mut self.file)?;
        self.written += copied;
        Ok(copied)
    }

    /// Puts the file into its place, with the blob's time.
    pub(super) fn finish(mut self, size: u64, modified_at: DateTime<Utc>, durable: Durable) -> Result<()> {
        if self.written != size {
            return Err(Error::unavailable(format!("the blob ended after {} of {size} bytes", self.written)));
        }
        // So that a later transfer can tell what has changed; a file system that can't hold it keeps its own.
        let _ = self.file.set_modified(modified_at.into());
        let replaces = fs::symlink_metadata(&self.target).is_ok();
        if durable == Durable::Now || replaces || !cfg!(target_os = "linux") {
            self.file.sync_all()?;
        }
        if self.state.is_some() {
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
        self.state = None;
        self.written = 0;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.finished || (self.state.is_some() && self.written > 0) {
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

fn create_folder_of(path: &Path) -> Result<()> {
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

fn if_there(done: io::Result<()>) -> Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes a rename durable. Where a folder can't be opened as a file, the system has no such notion.
fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
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

    fn state(etag: &str) -> Option<State> {
        Some(State { blob: "memory:/x".into(), etag: ETag(etag.into()), size: 10 })
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn bytes_of_the_same_state_are_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/er/x");
        let mut partial = Partial::open(&target, state("a")).unwrap();
        partial.write(b"01234").unwrap();
        drop(partial);
        assert_eq!(names(target.parent().unwrap()), [".x.storage-part", ".x.storage-part.json"]);
        let mut partial = Partial::open(&target, state("a")).unwrap();
        assert_eq!(partial.written(), 5);
        partial.write(b"56789").unwrap();
        partial.finish(10, Utc::now(), Durable::Now).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"0123456789");
        assert_eq!(names(target.parent().unwrap()), ["x"]);
    }

    #[test]
    fn bytes_of_another_state_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        for next in [state("b"), None] {
            let mut partial = Partial::open(&target, state("a")).unwrap();
            partial.write(b"01234").unwrap();
            drop(partial);
            assert_eq!(Partial::open(&target, next).unwrap().written(), 0);
            assert_eq!(names(folder.path()), [""; 0], "what is empty is not kept");
        }
    }

    #[test]
    fn two_downloads_do_not_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let first = Partial::open(&target, None).unwrap();
        assert_eq!(Partial::open(&target, None).unwrap_err().kind(), crate::ErrorKind::Conflict);
        drop(first);
        Partial::open(&target, None).unwrap();
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
