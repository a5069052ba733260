//! Writing blobs: beside their place first, then renamed into it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use storage_core::{BlobAttributes, BlobBody, BlobMeta, BlobPath, ETag, Error, PutMode, Result};

use super::attributes::{self, Stamp};
use super::path::{self, find, make_room};
use crate::base::{Base, parent};
use crate::crash::step;
use crate::file::{self, at};
use crate::store::blocking;

/// Streams are written in pieces of at least this.
const PIECE: usize = 1 << 20;
/// After so many bytes the disk gets to work on them, and it is looked whether anybody still waits.
const STRETCH: u64 = 32 << 20;

/// A file that is being written; removed again unless it is kept. Its lock tells other processes that somebody is at work on it.
pub(super) struct Upload {
    file: Arc<File>,
    path: PathBuf,
    kept: bool,
    durable: bool,
    /// Bytes that the disk has not been told of.
    unflushed: u64,
    /// Brings bytes to the disk while more are coming.
    flushing: Option<JoinHandle<io::Result<()>>>,
}

impl Upload {
    fn new(base: &Base) -> Result<Self> {
        let path = super::uploads(base)?.join(uuid::Uuid::new_v4().to_string());
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(at(&path))?;
        file.try_lock().map_err(|error| at(&path)(error.into()))?;
        Ok(Self { file: Arc::new(file), path, kept: false, durable: base.durable, unflushed: 0, flushing: None })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        (&*self.file).write_all(bytes).map_err(at(&self.path))?;
        self.wrote(bytes.len() as u64)
    }

    /// Sets the disk to work, so that little is left to wait for at the end.
    fn wrote(&mut self, bytes: u64) -> Result<()> {
        self.unflushed += bytes;
        if !self.durable || self.unflushed < STRETCH || self.flushing.as_ref().is_some_and(|flushing| !flushing.is_finished()) {
            return Ok(());
        }
        self.flushed()?;
        self.unflushed = 0;
        let file = Arc::clone(&self.file);
        let flushing = std::thread::Builder::new().name("storage-fs-blob".into()).spawn(move || file.sync_data());
        // Without a thread, all is flushed at the end.
        self.flushing = flushing.ok();
        Ok(())
    }

    /// Waits for the disk. An error is reported once, to whoever flushes: it must not get lost.
    fn flushed(&mut self) -> Result<()> {
        let Some(flushing) = self.flushing.take() else { return Ok(()) };
        flushing.join().map_err(|_| Error::internal("a thread that flushed a file ended"))?.map_err(at(&self.path))
    }

    /// Brings everything to the disk.
    fn seal(&mut self) -> Result<Metadata> {
        self.flushed()?;
        let sealed = || {
            attributes::mark(&self.file)?;
            if self.durable {
                self.file.sync_all()?;
            }
            self.file.metadata()
        };
        sealed().map_err(at(&self.path))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Sets a flag when it is dropped: the caller has gone away.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Where and how a blob is to be put.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) base: Arc<Base>,
    pub(super) path: BlobPath,
    pub(super) mode: PutMode,
    pub(super) attributes: BlobAttributes,
}

pub(super) async fn put(target: Target, body: BlobBody) -> Result<BlobMeta> {
    match body {
        BlobBody::Bytes(bytes) => {
            blocking(move || {
                let mut upload = Upload::new(&target.base)?;
                upload.write(&bytes)?;
                finish(&target, upload)
            })
            .await
        }
        BlobBody::File(from) => put_file(target, from).await,
        BlobBody::Stream { stream, size } => put_stream(target, stream, size).await,
    }
}

pub(super) async fn put_file(target: Target, from: File) -> Result<BlobMeta> {
    let gone = Gone(Arc::default());
    let flag = Arc::clone(&gone.0);
    let written = blocking(move || {
        let mut upload = Upload::new(&target.base)?;
        copy_all(&from, &mut upload, &flag)?;
        finish(&target, upload)
    });
    let meta = written.await;
    drop(gone);
    meta
}

/// Copies to the end of the file, by the operating system's own means where it has some.
fn copy_all(mut from: &File, upload: &mut Upload, gone: &AtomicBool) -> Result<()> {
    loop {
        let copied = io::copy(&mut (&mut from).take(STRETCH), &mut &*upload.file).map_err(at(&upload.path))?;
        if copied == 0 {
            return Ok(());
        }
        upload.wrote(copied)?;
        if gone.load(Ordering::Acquire) {
            return Err(Error::internal("nobody waits for the blob any more"));
        }
    }
}

async fn put_stream(target: Target, mut stream: storage_core::ByteStream, size: Option<u64>) -> Result<BlobMeta> {
    let base = Arc::clone(&target.base);
    let mut upload = blocking(move || Upload::new(&base)).await?;
    let (mut total, mut piece) = (0_u64, BytesMut::new());
    while let Some(next) = stream.next().await {
        let next = next?;
        total += next.len() as u64;
        if size.is_some_and(|size| total > size) {
            return Err(other_length(size, "more"));
        }
        if piece.is_empty() && next.len() >= PIECE {
            upload = write_piece(upload, next).await?;
            continue;
        }
        piece.extend_from_slice(&next);
        if piece.len() >= PIECE {
            upload = write_piece(upload, piece.split().freeze()).await?;
        }
    }
    if size.is_some_and(|size| total < size) {
        return Err(other_length(size, &total.to_string()));
    }
    blocking(move || {
        upload.write(&piece)?;
        finish(&target, upload)
    })
    .await
}

async fn write_piece(mut upload: Upload, piece: Bytes) -> Result<Upload> {
    blocking(move || upload.write(&piece).map(|()| upload)).await
}

fn other_length(announced: Option<u64>, found: &str) -> Error {
    Error::invalid(format!("the stream was announced with {} bytes and has {found}", announced.unwrap_or_default()))
}

/// Brings the file to the disk and, where the mode allows, into its place.
fn finish(target: &Target, mut upload: Upload) -> Result<BlobMeta> {
    let base = &target.base;
    let found = upload.seal()?;
    step();
    path::remember_long(base, &target.path)?;
    let stamp = Stamp::of(&found);
    let place = {
        let _held = super::lock(base)?;
        let current = current(base, &target.path)?;
        check(&target.path, &target.mode, current.as_ref())?;
        // Behind the check: a put that is refused makes no folders.
        let place = make_room(base, &target.path)?;
        let upload = attributes::announce(base, &target.path, &stamp, &target.attributes, current.as_ref()).map(|()| upload);
        let placed = upload.and_then(|mut upload| {
            step();
            fs::rename(&upload.path, &place).map_err(at(&place))?;
            step();
            upload.kept = true;
            Ok(())
        });
        placed.inspect_err(|_| path::prune(base, &place))?;
        if target.attributes.is_empty() && current.is_some() {
            attributes::forget(base, &target.path);
        }
        place
    };
    if base.durable {
        // Unless somebody has removed the blob and its folders since, which then was the last word.
        file::if_there(File::open(parent(&place)).and_then(|folder| folder.sync_all())).map_err(at(&place))?;
    }
    Ok(attributes::meta(&target.path, &found, target.attributes.clone()))
}

/// The blob as it stands now. Under the lock.
fn current(base: &Base, path: &BlobPath) -> Result<Option<Stamp>> {
    let Some(place) = find(base, path)? else { return Ok(None) };
    Ok(file::if_there(fs::symlink_metadata(&place)).map_err(at(&place))?.map(|found| Stamp::of(&found)))
}

fn check(path: &BlobPath, mode: &PutMode, current: Option<&Stamp>) -> Result<()> {
    match mode {
        PutMode::Overwrite => Ok(()),
        PutMode::Create if current.is_some() => Err(Error::already_exists(format!("there is a blob `{path}`"))),
        PutMode::Create => Ok(()),
        PutMode::Update(expected) => check_mark(expected, current),
    }
}

pub(super) fn check_mark(expected: &ETag, current: Option<&Stamp>) -> Result<()> {
    match current.map(Stamp::etag) {
        Some(found) if found == *expected => Ok(()),
        Some(found) => Err(Error::conflict(format!("expected mark {expected}, found {found}: somebody else wrote it"))),
        None => Err(Error::conflict(format!("expected mark {expected}, but the blob is gone"))),
    }
}

pub(super) fn delete(base: &Base, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
    let folder = {
        let _held = super::lock(base)?;
        let current = current(base, path)?;
        if let Some(expected) = if_match {
            check_mark(expected, current.as_ref())?;
        }
        let Some(place) = find(base, path)? else { return Ok(false) };
        if !file::remove(&place)? {
            return Ok(false);
        }
        step();
        attributes::forget(base, path);
        step();
        path::prune(base, &place);
        // The nearest folder that is still there knows of everything that went.
        place.ancestors().skip(1).find(|folder| folder.is_dir()).map(PathBuf::from)
    };
    if let Some(folder) = folder.filter(|_| base.durable) {
        file::if_there(File::open(&folder).and_then(|folder| folder.sync_all())).map_err(at(&folder))?;
    }
    Ok(true)
}
