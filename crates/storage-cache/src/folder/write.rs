//! Writing an entry: beside the others, then renamed into its place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use storage_core::ETag;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::entry::{Layout, PIECE, Sum};
use super::index::Name;
use super::{Folder, blocking};

/// So many bytes are written at once.
const STRETCH: usize = 1 << 20;

/// Room in the index, given back when it is dropped.
#[derive(Debug)]
struct Reserved {
    folder: Arc<Folder>,
    name: Name,
    /// The entry has it now.
    used: bool,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.used {
            self.folder.index().release(self.name);
        }
    }
}

/// Decides whether what was written may be kept; if so it calls what it is given, and nobody else may decide otherwise meanwhile.
pub(crate) type Commit = Box<dyn FnOnce(&mut dyn FnMut()) + Send>;

/// A file that is being written; removed unless it gets into its place. Its lock tells other processes that somebody is at work on it.
pub(crate) struct Writer {
    out: BufWriter<File>,
    temporary: PathBuf,
    kept: bool,
    layout: Layout,
    /// The piece that is being written: its number, what it has so far, its checksum.
    piece: u64,
    filled: usize,
    sum: Sum,
    written: u64,
    checked: Option<(ETag, Instant)>,
    /// Dropped last: the room is free when the file is gone.
    reserved: Reserved,
}

impl Writer {
    /// `None`: there is no room, or somebody writes it already.
    pub(super) fn new(
        folder: &Arc<Folder>,
        name: Name,
        (head, layout): (Vec<u8>, Layout),
        checked: Option<(ETag, Instant)>,
    ) -> io::Result<Option<Self>> {
        if !folder.make_room(name, layout.len())? {
            return Ok(None);
        }
        let reserved = Reserved { folder: Arc::clone(folder), name, used: false };
        let temporary = folder.temporary().join(uuid::Uuid::new_v4().to_string());
        let file = create(&temporary)?;
        let out = BufWriter::new(file);
        let sum = layout.sum(0);
        let mut writer = Self { out, temporary, kept: false, layout, piece: 0, filled: 0, sum, written: 0, checked, reserved };
        writer.out.get_ref().try_lock()?;
        writer.out.write_all(&head)?;
        Ok(Some(writer))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.filled));
            self.out.write_all(now)?;
            self.sum.add(now);
            self.filled += now.len();
            self.written += now.len() as u64;
            bytes = later;
            if self.filled == PIECE {
                self.end_piece()?;
            }
        }
        Ok(())
    }

    fn end_piece(&mut self) -> io::Result<()> {
        self.piece += 1;
        self.filled = 0;
        let sum = std::mem::replace(&mut self.sum, self.layout.sum(self.piece));
        self.out.write_all(&sum.end())
    }

    /// Puts the entry into its place, where `commit` agrees.
    pub(crate) fn finish(mut self, commit: Commit) -> io::Result<()> {
        if self.filled > 0 {
            self.end_piece()?;
        }
        self.out.flush()?;
        if self.written != self.layout.size() {
            return Ok(());
        }
        let mut outcome = Ok(());
        commit(&mut || outcome = self.place());
        outcome
    }

    fn place(&mut self) -> io::Result<()> {
        let Reserved { folder, name, used } = &mut self.reserved;
        fs::rename(&self.temporary, folder.place(*name))?;
        self.kept = true;
        folder.index().written(*name, self.checked.take());
        *used = true;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Creates a file that its owner alone can read.
fn create(path: &std::path::Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Bytes that are being read, on their way to their entry. Dropped before its end, it leaves nothing.
pub(crate) struct Filling {
    folder: Arc<Folder>,
    /// Away while a thread has it.
    writer: Option<Writer>,
    busy: Option<JoinHandle<io::Result<Writer>>>,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
}

impl Filling {
    pub(crate) fn new(folder: Arc<Folder>, writer: Writer) -> Self {
        Self { folder, writer: Some(writer), busy: None, waiting: Vec::new(), waiting_bytes: 0 }
    }

    /// Takes the next bytes. `false`: it has failed, and is of no more use.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> bool {
        self.waiting_bytes += bytes.len();
        self.waiting.push(bytes);
        if self.waiting_bytes < STRETCH {
            return true;
        }
        let Some(mut writer) = self.writer().await else { return false };
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        // Written while the next bytes come in.
        self.busy = Some(tokio::task::spawn_blocking(move || {
            waiting.iter().try_for_each(|bytes| writer.write(bytes))?;
            Ok(writer)
        }));
        true
    }

    /// The writer, once it is not busy any more.
    async fn writer(&mut self) -> Option<Writer> {
        if let Some(busy) = &mut self.busy {
            let done = busy.await;
            self.busy = None;
            match done {
                Ok(Ok(writer)) => return Some(writer),
                Ok(Err(error)) => self.folder.trouble(&error),
                // It panicked: there is nothing to keep.
                Err(_) => {}
            }
            return None;
        }
        self.writer.take()
    }

    /// That was all.
    pub(crate) async fn finish(mut self, commit: Commit) {
        let Some(mut writer) = self.writer().await else { return };
        let (folder, waiting) = (Arc::clone(&self.folder), std::mem::take(&mut self.waiting));
        blocking(move || {
            let written = waiting.iter().try_for_each(|bytes| writer.write(bytes));
            written.and_then(|()| writer.finish(commit)).unwrap_or_else(|error| folder.trouble(&error));
        })
        .await;
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        // A large file takes a while to be removed.
        if let (Some(writer), Ok(runtime)) = (self.writer.take(), Handle::try_current()) {
            drop(runtime.spawn_blocking(move || drop(writer)));
        }
    }
}
