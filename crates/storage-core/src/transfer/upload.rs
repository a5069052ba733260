//! Up: files and folders become blobs.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};

use super::local::{Links, LocalFile, blocking, check_file, file_subject, walk};
use super::options::{FileAction, FileDone, Skip, TransferOptions, TransferReport};
use super::pairs::{Pair, Pairs, join, remotes};
use super::pool::{Pool, Run};
use crate::blob::file_stream;
use crate::{BlobBody, BlobMeta, BlobPath, BlobStore, ByteStream, Error, Result, ResultExt};

/// Files up to this go up in one piece, read in one go.
pub(super) const SMALL: u64 = 256 << 10;

impl Run {
    /// Uploads one file.
    pub(super) async fn upload(&self, local: &Path, path: &BlobPath) -> Result<BlobMeta> {
        let owned = local.to_owned();
        let opened = blocking(move || read_or_open(&owned)).await.context("blobs.upload", || file_subject(local))?;
        let (body, counted) = match opened {
            Opened::Small(bytes) => {
                self.meter.pace(bytes.len() as u64).await;
                (BlobBody::Bytes(bytes), false)
            }
            Opened::Large(file, _) if !self.meter.sees_pieces() => (BlobBody::File(file), false),
            Opened::Large(file, size) => (BlobBody::Stream { stream: self.counted(pieces_of(file, size)), size }, true),
        };
        let meta = self.store.put_with(path, body, &self.options.put).await?;
        if !counted {
            self.meter.moved(meta.size);
        }
        self.meter.finished();
        Ok(meta)
    }

    async fn upload_listed(&self, file: LocalFile, path: BlobPath, known: Option<BlobMeta>) -> Result<FileDone> {
        let done = |action, bytes| FileDone { path: file.relative.clone(), action, bytes };
        if let Some(known) = known.filter(|known| self.options.skip == Skip::SameContent && known.size == file.size)
            && self.same_as_file(&known.path, &file.path).await?
        {
            self.meter.skipped(file.size);
            return Ok(done(FileAction::Skipped, file.size));
        }
        if self.options.dry_run {
            return Ok(done(FileAction::Written, file.size));
        }
        let meta = self.upload(&file.path, &path).await?;
        Ok(done(FileAction::Written, meta.size))
    }

    /// True where neither side needs to be read to know.
    fn is_uploaded(&self, file: &LocalFile, known: &BlobMeta) -> bool {
        file.size == known.size
            && match self.options.skip {
                Skip::Nothing | Skip::SameContent => false,
                Skip::SameSize => true,
                Skip::Unchanged => file.modified_at.is_some_and(|at| at <= known.modified_at),
            }
    }
}

enum Opened {
    Small(Bytes),
    /// With its size, where that can be relied on.
    Large(File, Option<u64>),
}

/// What a file holds, up to the size that it had; one that becomes shorter while it is read is an error.
fn pieces_of(file: File, size: Option<u64>) -> ByteStream {
    let pieces = file_stream(file, size.unwrap_or(u64::MAX));
    let left = size.unwrap_or_default();
    let checked = futures::stream::try_unfold((pieces, left), |(mut pieces, left)| async move {
        match pieces.try_next().await? {
            Some(piece) => {
                let left = left.saturating_sub(piece.len() as u64);
                Ok(Some((piece, (pieces, left))))
            }
            None if left > 0 => {
                Err(Error::conflict(format!("the file became shorter while it was read, by {left} bytes: start again")))
            }
            None => Ok(None),
        }
    });
    checked.boxed()
}

fn read_or_open(path: &Path) -> Result<Opened> {
    check_file(path)?;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > SMALL {
        return Ok(Opened::Large(file, Some(size)));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    (&mut file).take(SMALL).read_to_end(&mut bytes)?;
    // A file that grows, or one like those of /proc that has no size, may be longer than it said.
    if bytes.len() as u64 == SMALL && size < SMALL {
        std::io::Seek::rewind(&mut file)?;
        return Ok(Opened::Large(file, None));
    }
    Ok(Opened::Small(bytes.into()))
}

/// Uploads what lies below a folder.
pub(super) async fn folder(
    store: &BlobStore,
    local: &Path,
    prefix: Option<&BlobPath>,
    options: &TransferOptions,
) -> Result<TransferReport> {
    let run = Run::new(store, options);
    let mut pool = Pool::new(&run);
    let files = walk(local, options.filter.clone(), Links::Follow);
    // What is there is listed, rather than asked for file by file.
    let known = match options.skip {
        Skip::Nothing => futures::stream::empty().boxed(),
        _ => remotes(store, prefix, None),
    };
    let mut pairs = Pairs::new(files, known);
    while let Some(pair) = pairs.next().await? {
        let (file, known) = match pair {
            Ok(Pair::Both(file, remote)) => (file, Some(remote.meta)),
            Ok(Pair::Left(file)) => (file, None),
            Ok(Pair::Right(_)) => continue,
            Err(error) => {
                pool.settle(Err(error))?;
                continue;
            }
        };
        run.meter.expect(1, file.size);
        let path = match join(prefix, &file.relative) {
            Ok(path) => path,
            Err(error) => {
                pool.settle(Err(error).context("blobs.upload", || file_subject(&file.path)))?;
                continue;
            }
        };
        if known.as_ref().is_some_and(|known| run.is_uploaded(&file, known)) {
            run.meter.skipped(file.size);
            pool.settle(Ok(FileDone { path: file.relative, action: FileAction::Skipped, bytes: file.size }))?;
            continue;
        }
        let run = Arc::clone(&run);
        pool.start(async move { run.upload_listed(file, path, known).await }).await?;
    }
    pool.settle_all().await?;
    if options.delete && pool.report().failed == 0 {
        let files = walk(local, options.filter.clone(), Links::Follow);
        super::remove::blobs_without(files, &run, &mut pool, store, prefix).await?;
    }
    Ok(pool.end())
}

/// Uploads files one by one named.
pub(super) async fn files(
    store: &BlobStore,
    files: impl IntoIterator<Item = (PathBuf, BlobPath)>,
    options: &TransferOptions,
) -> Result<TransferReport> {
    let run = Run::new(store, options);
    let mut pool = Pool::new(&run);
    for (local, path) in files {
        let run = Arc::clone(&run);
        let work = async move {
            let owned = local.clone();
            let found = blocking(move || check_file(&owned)).await.context("blobs.upload", || file_subject(&local))?;
            run.meter.expect(1, found.len());
            let bytes = match run.options.dry_run {
                true => found.len(),
                false => run.upload(&local, &path).await?.size,
            };
            Ok(FileDone { path: path.into(), action: FileAction::Written, bytes })
        };
        pool.start(work).await?;
    }
    pool.settle_all().await?;
    Ok(pool.end())
}
