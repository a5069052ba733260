//! What all parts of an open store share.

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use storage_core::{BackendInfo, Clock, Error, Result};
use tokio::sync::Notify;

use crate::cached;
use crate::file::{self, at, below};
use crate::journal::Journal;
use crate::lock::{Held, LockFile};
use crate::records::{Listings, Schemas};
use crate::state::{State, StateFile};

/// Our own files: everything that is not the user's.
pub(crate) const CONTROL: &str = "_storage";
/// Where files are written before they are renamed into place.
pub(crate) const SCRATCH: &str = "_storage/tmp";
/// What was dropped and is being removed.
pub(crate) const TRASH: &str = "_storage/trash";

#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) root: PathBuf,
    /// The open root folder, for reads relative to it.
    folder: File,
    /// See [`cached::is_in_memory`].
    in_memory: bool,
    pub(crate) info: BackendInfo,
    pub(crate) clock: Clock,
    pub(crate) durable: bool,
    pub(crate) state: StateFile,
    pub(crate) lock: LockFile,
    /// Rings when messages may have become visible.
    pub(crate) news: Notify,
    pub(crate) schemas: Schemas,
    pub(crate) listings: Listings,
}

impl Base {
    pub(crate) fn open(root: PathBuf, clock: Clock, durable: bool) -> Result<Self> {
        let control = root.join(CONTROL);
        let folder = File::open(&root).map_err(at(&root))?;
        Ok(Self {
            in_memory: cached::is_in_memory(&folder),
            folder,
            info: BackendInfo::new("fs", root.display().to_string()),
            clock,
            durable,
            state: StateFile::open(&control.join("state"))?,
            lock: LockFile::new(&control, "lock"),
            news: Notify::new(),
            schemas: Schemas::default(),
            listings: Listings::default(),
            root,
        })
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        below(&self.root, relative)
    }

    pub(crate) fn read(&self, relative: &str) -> Result<Option<Bytes>> {
        Ok(file::read(&self.path(relative))?.map(Bytes::from))
    }

    /// A small file that is in memory already, without ever waiting for the disk.
    pub(crate) fn read_cached(&self, relative: &str) -> cached::Found<Vec<u8>> {
        cached::read(&self.folder, relative, self.in_memory)
    }

    /// Opens a file whose place is in memory already, without ever waiting for the disk.
    pub(crate) fn open_cached(&self, relative: &str) -> cached::Found<File> {
        cached::open(&self.folder, relative)
    }

    /// Some bytes of an open file, where they are in memory already.
    pub(crate) fn read_cached_at(&self, file: &File, offset: u64, len: usize) -> Option<Vec<u8>> {
        cached::read_at(file, offset, len, self.in_memory)
    }

    /// Makes everything that is in the journal survive a power cut where it belongs.
    pub(crate) fn sync_all(&self, journal: &Journal) -> Result<()> {
        #[cfg(target_os = "linux")]
        {
            let _ = journal;
            rustix::fs::syncfs(&self.folder).map_err(|error| at(&self.root)(error.into()))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let mut folders = std::collections::BTreeSet::new();
            let ops = journal.read_all()?.map(|(_, ops, _)| ops).unwrap_or_default();
            for path in ops.iter().flat_map(crate::journal::Op::paths).map(|relative| self.path(relative)) {
                if let Some(file) = file::if_there(File::open(&path)).map_err(at(&path))? {
                    file.sync_all().map_err(at(&path))?;
                }
                folders.extend(path.parent().map(Path::to_path_buf));
            }
            folders.iter().filter(|folder| folder.is_dir()).try_for_each(|folder| file::sync_folder(folder))
        }
    }

    /// Makes a folder of small files survive a power cut.
    pub(crate) fn sync_folder_tree(&self, relative: &str) -> Result<()> {
        #[cfg(target_os = "linux")]
        {
            let _ = relative;
            rustix::fs::syncfs(&self.folder).map_err(|error| at(&self.root)(error.into()))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let mut left = vec![self.path(relative)];
            while let Some(folder) = left.pop() {
                for entry in std::fs::read_dir(&folder).map_err(at(&folder))? {
                    let path = entry.map_err(at(&folder))?.path();
                    if path.is_dir() {
                        left.push(path);
                    } else {
                        File::open(&path).and_then(|file| file.sync_all()).map_err(at(&path))?;
                    }
                }
                file::sync_folder(&folder)?;
            }
            Ok(())
        }
    }

    /// A lock under which nothing changes and no batch is half done. `None`: a process died in the middle of one, which whoever
    /// holds the lock exclusively next finishes.
    pub(crate) fn still(&self) -> Result<Option<(Held, State)>> {
        let held = self.lock.shared()?;
        let state = self.state.read()?;
        Ok(state.is_settled().then_some((held, state)))
    }

    pub(crate) fn corrupt(&self, relative: &str, what: impl std::fmt::Display) -> Error {
        Error::corrupt(format!("{what}; mend the file or move it away"))
            .with_subject(format_args!("`{}`", self.path(relative).display()))
    }
}

/// The folder of a relative path.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
