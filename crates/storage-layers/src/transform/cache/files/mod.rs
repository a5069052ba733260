//! Blobs kept in files of a folder: they survive restarts, and may be large.
//!
//! Below the folder, `blobs-1` holds 256 folders of entries, named by a hash of whose blob they are of, and `new` with those that are being written. Each
//! [entry](entry) says what it is of and carries checksums, so what is not one, whoever put it there, is never taken for one: it is removed.
//!
//! The order of use is in the files' times of change. Several processes may use one folder: entries come into their places whole, and whoever reads one asks
//! whether the blob still has its mark. Each process keeps to the bound with what it knows of; with each entry that it writes, it looks through one of the 256 folders for what others
//! did.

mod entry;
mod index;
mod write;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use storage_core::{BlobMeta, BlobPath, ETag};
use tokio::sync::OnceCell;

pub(super) use self::entry::Entry;
use self::index::{Index, Name};
use self::write::Writer;
pub(super) use self::write::{Commit, Filling};

/// Entries that were written by another version are in a folder of another name.
const ENTRIES: &str = "blobs-1";
const NEW: &str = "new";
/// What a file takes is counted in these.
const BLOCK: u64 = 4096;
/// A use is written down where the last one was longer ago.
const USE: Duration = Duration::from_secs(1);
/// After a failure to write, nothing is written for so long: a full disk is not tried again with every read.
const PAUSE: Duration = Duration::from_secs(30);
/// One of the 256 folders has some thousand files at most; with more than this, somebody else put them there, and they are not looked at.
const MAX_LOOK: usize = 1 << 14;

/// A folder that holds blobs, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// The folder; created where it is missing. Several processes may use it.
    pub dir: PathBuf,
    /// How many bytes the files take in all.
    pub max_bytes: u64,
    /// Larger blobs are not kept.
    pub max_blob_bytes: u64,
}

impl FileOptions {
    /// 1 GiB in blobs of up to 256 MiB.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), max_bytes: 1 << 30, max_blob_bytes: 256 << 20 }
    }
}

/// What is kept of a blob.
pub(super) struct Found {
    pub(super) meta: BlobMeta,
    pub(super) content: Content,
}

pub(super) enum Content {
    Whole(Bytes),
    /// Larger than was asked for.
    Entry(Entry),
}

/// The blobs of one source that are kept in a folder. Cheap to clone. It never fails: what can't be read is not there, what can't be written is not kept.
#[derive(Clone, Debug)]
pub(super) struct Files {
    folder: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    options: FileOptions,
    /// Whose blobs these are.
    source: String,
    root: PathBuf,
    index: Mutex<Index>,
    opened: OnceCell<()>,
    warned: AtomicBool,
    paused: Mutex<Option<Instant>>,
}

/// Does something on a thread that may block; to its end, also where nobody waits. `None`: it panicked, or the runtime ends.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

impl Files {
    pub(super) fn new(options: FileOptions, source: String) -> Self {
        let root = options.dir.join(ENTRIES);
        let index = Mutex::new(Index::new(options.max_bytes));
        let (opened, warned, paused) = (OnceCell::new(), AtomicBool::new(false), Mutex::new(None));
        Self { folder: Arc::new(Folder { options, source, root, index, opened, warned, paused }) }
    }

    /// Looks through the folder before it is first used.
    async fn open(&self) -> &Arc<Folder> {
        let opening = || async {
            let folder = Arc::clone(&self.folder);
            blocking(move || folder.open()).await;
        };
        self.folder.opened.get_or_init(opening).await;
        &self.folder
    }

    /// What is kept of a blob; blobs of up to `at_once` bytes whole.
    pub(super) async fn find(&self, path: &BlobPath, at_once: u64) -> Option<Found> {
        let (folder, path) = (Arc::clone(self.open().await), path.clone());
        blocking(move || folder.find(&path, at_once)).await.flatten()
    }

    /// When the blob of the entry was last seen to have this mark.
    pub(super) fn checked(&self, path: &BlobPath, mark: &ETag) -> Option<Instant> {
        self.folder.index().checked(self.folder.name(path), mark)
    }

    /// The blob had this mark then.
    pub(super) fn check(&self, path: &BlobPath, mark: &ETag, at: Instant) {
        self.folder.index().check(self.folder.name(path), mark, at);
    }

    /// Removes what is kept of a blob.
    pub(super) async fn remove(&self, path: &BlobPath) {
        let (folder, path) = (Arc::clone(&self.folder), path.clone());
        blocking(move || folder.discard(folder.name(&path))).await;
    }

    /// Removes an entry that turned out to be damaged.
    pub(super) async fn remove_damaged(&self, path: &BlobPath, error: io::Error) {
        let (folder, path) = (Arc::clone(&self.folder), path.clone());
        blocking(move || folder.damaged(folder.name(&path), &error)).await;
    }

    /// True where a blob may be kept.
    fn takes(&self, blob: &BlobMeta) -> bool {
        blob.size <= self.folder.options.max_blob_bytes && blob.etag.is_some() && !self.folder.is_paused()
    }

    /// Begins to keep a blob that had the mark in `blob` at `checked`. `None`: it can't be.
    pub(super) async fn fill(&self, blob: &BlobMeta, checked: Instant) -> Option<Filling> {
        if !self.takes(blob) {
            return None;
        }
        let (folder, blob) = (Arc::clone(self.open().await), blob.clone());
        let begun = {
            let folder = Arc::clone(&folder);
            blocking(move || folder.begin(&blob, checked)).await??
        };
        Some(Filling::new(folder, begun))
    }

    /// Keeps a blob that is in memory.
    pub(super) async fn keep(&self, blob: &BlobMeta, bytes: Bytes, checked: Instant, commit: Commit) {
        if !self.takes(blob) {
            return;
        }
        let (folder, blob) = (Arc::clone(self.open().await), blob.clone());
        blocking(move || {
            let Some(mut writer) = folder.begin(&blob, checked) else { return };
            let kept = writer.write(&bytes).and_then(|()| writer.finish(commit));
            kept.unwrap_or_else(|error| folder.trouble(&error));
        })
        .await;
    }
}

impl Folder {
    fn index(&self) -> MutexGuard<'_, Index> {
        // It is changed by steps that don't panic.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, path: &BlobPath) -> Name {
        let mut hash = Sha256::new();
        hash.update(self.source.as_bytes());
        hash.update([0]);
        hash.update(path.as_str().as_bytes());
        let mut name = [0; 16];
        name.copy_from_slice(&hash.finalize()[..16]);
        Name(name)
    }

    fn place(&self, name: Name) -> PathBuf {
        self.folder(name.folder()).join(name.to_string())
    }

    fn folder(&self, number: u8) -> PathBuf {
        self.root.join(format!("{number:02x}"))
    }

    fn temporary(&self) -> PathBuf {
        self.root.join(NEW)
    }

    /// Finds out what is there, and removes what is too much and what a process that has ended was writing.
    fn open(&self) {
        for number in 0..=u8::MAX {
            self.look(number);
        }
        let excess = self.index().excess();
        for name in excess {
            let _ = fs::remove_file(self.place(name));
        }
        for left in fs::read_dir(self.temporary()).into_iter().flatten().flatten() {
            let path = left.path();
            if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Learns what others have done in a folder.
    fn look(&self, number: u8) {
        let began = SystemTime::now();
        let Ok(files) = fs::read_dir(self.folder(number)) else { return };
        let mut found = HashMap::new();
        for (seen, file) in files.flatten().enumerate() {
            if seen == MAX_LOOK {
                return;
            }
            let name = file.file_name().to_str().and_then(Name::parse).filter(|name| name.folder() == number);
            if let (Some(name), Ok(meta)) = (name, file.metadata()) {
                found.insert(name, (on_disk(meta.len()), meta.modified().unwrap_or(began)));
            }
        }
        self.index().looked(number, &found, began);
    }

    fn find(&self, path: &BlobPath, at_once: u64) -> Option<Found> {
        let name = self.name(path);
        let file = match File::open(self.place(name)) {
            Ok(file) => file,
            Err(error) => {
                self.index().remove(name);
                if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                    self.warn(&error);
                }
                return None;
            }
        };
        let read = || {
            let (mut entry, meta) = Entry::open(file, &self.source, path)?;
            self.use_now(name, entry.file());
            let content = if meta.size <= at_once { Content::Whole(entry.read_all()?) } else { Content::Entry(entry) };
            Ok(Found { meta, content })
        };
        read().map_err(|error| self.damaged(name, &error)).ok()
    }

    /// Notes that an entry is used: here, and for others in its file.
    fn use_now(&self, name: Name, file: &File) {
        let now = SystemTime::now();
        let Ok(meta) = file.metadata() else { return };
        self.index().used(name, on_disk(meta.len()), now);
        let last = meta.modified().ok().and_then(|last| now.duration_since(last).ok());
        if last.is_none_or(|last| last > USE) {
            // Where that can't be, others will think it was not used.
            let _ = file.set_modified(now);
        }
    }

    fn damaged(&self, name: Name, error: &io::Error) {
        let file = self.place(name);
        tracing::warn!(file = %file.display(), %error, "a cached blob is damaged: it is removed, and read from its backend");
        self.discard(name);
    }

    fn discard(&self, name: Name) {
        self.index().remove(name);
        match fs::remove_file(self.place(name)) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => self.warn(&error),
            _ => {}
        }
    }

    /// `None`: it can't be kept.
    fn begin(self: &Arc<Self>, blob: &BlobMeta, checked: Instant) -> Option<Writer> {
        Writer::new(self, blob, checked).unwrap_or_else(|error| {
            self.trouble(&error);
            None
        })
    }

    /// Makes room for an entry of so many bytes, which is the caller's from then on. `false`: there is none.
    fn make_room(&self, name: Name, bytes: u64) -> io::Result<bool> {
        create_folder(&self.folder(name.folder()))?;
        create_folder(&self.temporary())?;
        let next = self.index().next_folder();
        self.look(next);
        let room = self.index().reserve(name, on_disk(bytes));
        let Some(room) = room else { return Ok(false) };
        for victim in room.victims {
            match fs::remove_file(self.place(victim)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.index().release(name);
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(room.granted)
    }

    fn is_paused(&self) -> bool {
        let until = *self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Something can't be written: the next ones are not tried for a while.
    fn trouble(&self, error: &io::Error) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
        self.warn(error);
    }

    /// Says once that the folder is of little use.
    fn warn(&self, error: &io::Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let dir = self.options.dir.display();
            tracing::warn!(%dir, %error, "blobs can't be cached in this folder: they are read from their backend; this is said once");
        }
    }
}

/// Creates a folder that its owner alone can read, and those above it.
fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// What a file of so many bytes takes.
const fn on_disk(len: u64) -> u64 {
    len.div_ceil(BLOCK).saturating_mul(BLOCK)
}
