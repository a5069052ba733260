//! Files and folders, up and down, and from store to store.
//!
//! One pipeline serves all ways: the source is listed while its files are already being moved, a bounded number at once. What is at the target is listed as
//! well, where it matters, in the same order: so a folder costs one request per file that moves, and none per file that does not.

mod copy;
mod download;
mod download_folder;
mod local;
mod meter;
mod note;
mod options;
mod pace;
mod pairs;
mod partial;
mod parts;
mod pool;
mod remove;
mod same;
mod upload;
mod whole;

use std::path::{Path, PathBuf};

use futures::stream::TryStreamExt;

use self::local::{blocking, check_file, file_subject};
pub use self::meter::{Progress, ProgressFn};
pub use self::options::{EachFn, FileAction, FileDone, PathFilter, Skip, TransferOptions, TransferReport};
use self::partial::Durable;
use self::pool::Run;
use crate::{BlobMeta, BlobPath, BlobStore, Error, ErrorKind, Result, ResultExt};

impl BlobStore {
    /// Writes a local file as a blob: wholly or not at all. Broken off, it begins anew.
    ///
    /// ```
    /// # async fn example(blobs: storage_core::BlobStore) -> storage_core::Result<()> {
    /// blobs.upload_file("report.pdf", "reports/2026/report.pdf").await?;
    /// blobs.download_file("reports/2026/report.pdf", "/tmp/report.pdf").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): no such file; [`InvalidInput`](ErrorKind::InvalidInput): it is no file, or `path` is no path of a blob; see
    /// [`put_with`](Self::put_with).
    pub async fn upload_file(
        &self,
        local: impl AsRef<Path>,
        path: impl TryInto<BlobPath, Error: Into<Error>>,
    ) -> Result<BlobMeta> {
        self.upload_file_with(local, path, &TransferOptions::default()).await
    }

    /// Like [`upload_file`](Self::upload_file), with mode, attributes and progress.
    ///
    /// # Errors
    /// See [`upload_file`](Self::upload_file).
    pub async fn upload_file_with(
        &self,
        local: impl AsRef<Path>,
        path: impl TryInto<BlobPath, Error: Into<Error>>,
        options: &TransferOptions,
    ) -> Result<BlobMeta> {
        let (local, path) = (local.as_ref(), path.try_into().map_err(Into::into)?);
        let run = Run::new(self, options);
        let owned = local.to_owned();
        let found = blocking(move || check_file(&owned)).await.context("blobs.upload", || file_subject(local))?;
        run.meter.expect(1, found.len());
        run.upload(local, &path).await
    }

    /// Reads a blob into a local file, which appears when it is whole and on the disk, with the blob's time. Broken off and called again, a large one goes on
    /// where it was, if the blob is still the same.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): no such blob; [`Conflict`](ErrorKind::Conflict): it was written again while it was read, or another download is
    /// writing the same file.
    pub async fn download_file(
        &self,
        path: impl TryInto<BlobPath, Error: Into<Error>>,
        local: impl AsRef<Path>,
    ) -> Result<BlobMeta> {
        self.download_file_with(path, local, &TransferOptions::default()).await
    }

    /// Like [`download_file`](Self::download_file), with progress.
    ///
    /// # Errors
    /// See [`download_file`](Self::download_file).
    pub async fn download_file_with(
        &self,
        path: impl TryInto<BlobPath, Error: Into<Error>>,
        local: impl AsRef<Path>,
        options: &TransferOptions,
    ) -> Result<BlobMeta> {
        let meta = self.head(&path.try_into().map_err(Into::into)?).await?;
        let run = Run::new(self, options);
        run.meter.expect(1, meta.size);
        run.download(&meta, local.as_ref(), Durable::Now).await
    }

    /// What is at or below a path given as text, in bytewise order; `""` is everything. For many blobs there is [`list_all`](Self::list_all), which is a
    /// stream.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what is no path; the backend's.
    pub async fn list_files(&self, path: &str) -> Result<Vec<BlobMeta>> {
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return self.list_all(None).try_collect().await;
        }
        let path = BlobPath::new(path)?;
        let itself = match self.head(&path).await {
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut files: Vec<_> = itself.into_iter().collect();
        let mut below = self.list_all(Some(path));
        while let Some(meta) = below.try_next().await? {
            files.push(meta);
        }
        Ok(files)
    }

    /// [`delete`](Self::delete), for a path given as text. `false`: there was no such blob.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what is no path; the backend's.
    pub async fn delete_file(&self, path: impl TryInto<BlobPath, Error: Into<Error>>) -> Result<bool> {
        self.delete(&path.try_into().map_err(Into::into)?).await
    }

    /// The name of the backend's driver: `fs`, `memory`, …
    #[must_use]
    pub fn backend_type(&self) -> &str {
        &self.backend().info().driver
    }

    /// Uploads every file below `local`, under the same relative paths below `prefix`. Links are followed; one that leads back to a folder that it is in, a
    /// pipe, a socket or a device is an error of this file, and so is a name that is not UTF-8 or can't be part of a blob path.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): no such folder; [`InvalidInput`](ErrorKind::InvalidInput): it is a file; those of the first file that fails, unless
    /// [`keep_going`](TransferOptions::keep_going).
    pub async fn upload_dir(
        &self,
        local: impl AsRef<Path>,
        prefix: Option<&BlobPath>,
        options: &TransferOptions,
    ) -> Result<TransferReport> {
        let local = local.as_ref();
        let owned = local.to_owned();
        let opened = blocking(move || match std::fs::read_dir(&owned) {
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                Err(Error::invalid("it is a file, not a folder").with_source(error))
            }
            opened => Ok(opened.map(drop)?),
        });
        opened.await.context("blobs.upload", || format!("folder {}", local.display()))?;
        upload::folder(self, local, prefix, options).await
    }

    /// Downloads every blob below `prefix` to the same relative path below `local`, folders created as needed. When it is done, all of it is on the disk.
    /// A path that can't be a file's is an error of this blob: of the blobs `a` and `a/b`, `a` becomes a file.
    ///
    /// # Errors
    /// Those of the first blob that fails, unless [`keep_going`](TransferOptions::keep_going). [`NotFound`](ErrorKind::NotFound) where there is no blob at
    /// all, and files should be [removed](TransferOptions::delete) that are no blobs.
    pub async fn download_dir(
        &self,
        prefix: Option<&BlobPath>,
        local: impl AsRef<Path>,
        options: &TransferOptions,
    ) -> Result<TransferReport> {
        download_folder::folder(self, prefix, local.as_ref(), options).await
    }

    /// Uploads these files, each under its path.
    ///
    /// # Errors
    /// Those of the first file that fails, unless [`keep_going`](TransferOptions::keep_going).
    pub async fn upload_files(
        &self,
        files: impl IntoIterator<Item = (PathBuf, BlobPath)>,
        options: &TransferOptions,
    ) -> Result<TransferReport> {
        upload::files(self, files, options).await
    }

    /// Downloads these blobs, as [`head`](Self::head) or a listing told of them, each to its file.
    ///
    /// # Errors
    /// Those of the first blob that fails, unless [`keep_going`](TransferOptions::keep_going).
    pub async fn download_files(
        &self,
        files: impl IntoIterator<Item = (BlobMeta, PathBuf)>,
        options: &TransferOptions,
    ) -> Result<TransferReport> {
        download_folder::files(self, files, options).await
    }
}
