//! Entries in files of a folder: they survive restarts, and may be large.
//!
//! Below the folder, one of a name that says what they are of holds 256 folders of entries, named by a hash of what each is of, and `new` those that are being written. Each
//! [entry](entry) says what it is of and carries checksums, so what is not one, whoever put it there, is never taken for one: it is removed.
//!
//! The order of use is in the files' times of change. Several processes may use one folder: entries come into their places whole. Each process keeps to the bound with what it knows of;
//! with each entry that it writes, it looks through one of the 256 folders for what others did.

mod entry;
mod index;
mod write;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest as _, Sha256};
use storage_core::ETag;
use tokio::sync::OnceCell;

pub(crate) use self::entry::{Entry, Layout, damaged, head};
use self::index::Index;
pub(crate) use self::index::Name;
pub(crate) use self::write::{Commit, Filling, Writer};

const NEW: &str = "new";
/// What a file takes is counted in these.
const BLOCK: u64 = 4096;
/// A use is written down where the last one was longer ago.
const USE: Duration = Duration::from_secs(1);
/// After a failure to write, nothing is written for so long: a full disk is not tried again with every read.
const PAUSE: Duration = Duration::from_secs(30);
/// One of the 256 folders has some thousand files at most; with more than this, somebody else put them there, and they are not looked at.
const MAX_LOOK: usize = 1 << 14;

/// What entries went for, but for calls.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    pub(crate) evicted: AtomicU64,
    pub(crate) replaced: AtomicU64,
    pub(crate) damaged: AtomicU64,
}

/// The entries of one kind and one source that are kept in a folder.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    /// Whose entries these are.
    source: String,
    root: PathBuf,
    index: Mutex<Index>,
    opened: OnceCell<()>,
    warned: AtomicBool,
    paused: Mutex<Option<Instant>>,
    pub(crate) losses: Losses,
}

/// Does something on a thread that may block; to its end, also where nobody waits. `None`: it panicked, or the runtime ends.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

impl Folder {
    /// The folder `dir`, which is opened when it is first used.
    pub(crate) fn new(dir: PathBuf, kind: &str, max_bytes: u64, source: String) -> Arc<Self> {
        Arc::new(Self {
            root: dir.join(kind),
            dir,
            source,
            index: Mutex::new(Index::new(max_bytes)),
            opened: OnceCell::new(),
            warned: AtomicBool::new(false),
            paused: Mutex::default(),
            losses: Losses::default(),
        })
    }

    /// Looks through the folder before it is first used.
    pub(crate) async fn opened(self: &Arc<Self>) -> Arc<Self> {
        let opening = || async {
            let folder = Arc::clone(self);
            blocking(move || folder.open()).await;
        };
        self.opened.get_or_init(opening).await;
        Arc::clone(self)
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        // It is changed by steps that don't panic.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the entry of something is called.
    pub(crate) fn name(&self, of: &str) -> Name {
        let mut hash = Sha256::new();
        hash.update(self.source.as_bytes());
        hash.update([0]);
        hash.update(of.as_bytes());
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
                tracing::debug!(file = %path.display(), "a cached entry was not written to its end: it is removed");
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

    /// What is kept of something: `described` says how many bytes its entry has, `then` reads it. What is not that is removed.
    pub(crate) fn find<D, T>(
        &self,
        name: Name,
        of: &str,
        described: impl FnOnce(&[u8]) -> io::Result<(u64, D)>,
        then: impl FnOnce(Entry, D) -> io::Result<T>,
    ) -> Option<T> {
        let file = match File::open(self.place(name)) {
            Ok(file) => file,
            Err(error) => {
                self.index().remove(name);
                if !is_missing(&error) {
                    self.warn(&error);
                }
                return None;
            }
        };
        let read = || {
            let meta = file.metadata()?;
            let (entry, described) = Entry::open(file, meta.len(), described)?;
            self.use_now(name, entry.file(), &meta);
            then(entry, described)
        };
        read().map_err(|error| self.damaged(name, of, &error)).ok()
    }

    /// Notes that an entry is used: here, and for others in its file.
    fn use_now(&self, name: Name, file: &File, meta: &fs::Metadata) {
        let now = SystemTime::now();
        self.index().used(name, on_disk(meta.len()), now);
        let last = meta.modified().ok().and_then(|last| now.duration_since(last).ok());
        if last.is_none_or(|last| last > USE) {
            // Where that can't be, others will think it was not used.
            let _ = file.set_modified(now);
        }
    }

    /// Removes an entry that turned out to be damaged.
    pub(crate) fn damaged(&self, name: Name, of: &str, error: &io::Error) {
        let file = self.place(name);
        tracing::warn!(of, file = %file.display(), %error, "a cached entry is damaged: it is removed, and as if it had not been kept");
        self.losses.damaged.fetch_add(1, Ordering::Relaxed);
        self.discard_or_warn(name);
    }

    pub(crate) fn discard_or_warn(&self, name: Name) {
        if let Err(error) = self.discard(name) {
            self.warn(&error);
        }
    }

    /// Removes an entry. `false`: there was none.
    pub(crate) fn discard(&self, name: Name) -> io::Result<bool> {
        self.index().remove(name);
        match fs::remove_file(self.place(name)) {
            Ok(()) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes all entries that are in place.
    pub(crate) fn discard_all(&self) -> io::Result<()> {
        for number in 0..=u8::MAX {
            let files = match fs::read_dir(self.folder(number)) {
                Ok(files) => files,
                Err(error) if is_missing(&error) => continue,
                Err(error) => return Err(error),
            };
            for file in files {
                if let Some(name) = file?.file_name().to_str().and_then(Name::parse) {
                    self.discard(name)?;
                }
            }
        }
        Ok(())
    }

    /// Begins an entry. `None`: it can't be kept, or is being written already.
    pub(crate) fn begin(
        self: &Arc<Self>,
        name: Name,
        head: (Vec<u8>, Layout),
        checked: Option<(ETag, Instant)>,
    ) -> Option<Writer> {
        Writer::new(self, name, head, checked).unwrap_or_else(|error| {
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
        let evicted = room.victims.len() - usize::from(room.replaces);
        self.losses.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
        self.losses.replaced.fetch_add(u64::from(room.replaces), Ordering::Relaxed);
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

    pub(crate) fn is_paused(&self) -> bool {
        let until = *self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Something can't be written: the next ones are not tried for a while.
    pub(crate) fn trouble(&self, error: &io::Error) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
        self.warn(error);
    }

    /// Says once that the folder is of little use.
    pub(crate) fn warn(&self, error: &io::Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let dir = self.dir.display();
            tracing::warn!(%dir, %error, "entries can't be cached in this folder: what is not there is fetched again; this is said once");
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
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
