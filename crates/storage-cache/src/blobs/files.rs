//! Blobs kept in files, which survive restarts, and may be large.
//!
//! Several processes may use one folder: whoever reads an entry asks whether the blob still has its mark.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage_core::{BlobMeta, BlobPath, ETag};

use crate::folder::{Commit, Entry, Filling, Folder, Writer, blocking, damaged, head};

/// Entries that were written by another version are in a folder of another name.
const ENTRIES: &str = "blobs-1";

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

/// What an entry says that it is of.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    source: String,
    blob: BlobMeta,
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
    max_blob_bytes: u64,
}

impl Files {
    pub(super) fn new(options: FileOptions, source: String) -> Self {
        let FileOptions { dir, max_bytes, max_blob_bytes } = options;
        Self { folder: Folder::new(dir, ENTRIES, max_bytes, source), max_blob_bytes }
    }

    /// What is kept of a blob; blobs of up to `at_once` bytes whole.
    pub(super) async fn find(&self, path: &BlobPath, at_once: u64) -> Option<Found> {
        let (folder, path) = (self.folder.opened().await, path.clone());
        blocking(move || {
            let described = |description: &[u8]| {
                let Description { source, blob } = serde_json::from_slice(description)?;
                if source != folder.source() || blob.path != path {
                    return Err(damaged("it is another blob's"));
                }
                Ok((blob.size, blob))
            };
            folder.find(folder.name(path.as_str()), path.as_str(), described, |mut entry, meta| {
                let content = if meta.size <= at_once { Content::Whole(entry.read_all()?) } else { Content::Entry(entry) };
                Ok(Found { meta, content })
            })
        })
        .await
        .flatten()
    }

    /// When the blob of the entry was last seen to have this mark.
    pub(super) fn checked(&self, path: &BlobPath, mark: &ETag) -> Option<Instant> {
        self.folder.index().checked(self.folder.name(path.as_str()), mark)
    }

    /// The blob had this mark then.
    pub(super) fn check(&self, path: &BlobPath, mark: &ETag, at: Instant) {
        self.folder.index().check(self.folder.name(path.as_str()), mark, at);
    }

    /// Removes what is kept of a blob.
    pub(super) async fn remove(&self, path: &BlobPath) {
        let (folder, path) = (Arc::clone(&self.folder), path.clone());
        blocking(move || folder.discard_or_warn(folder.name(path.as_str()))).await;
    }

    /// Removes an entry that turned out to be damaged.
    pub(super) async fn remove_damaged(&self, path: &BlobPath, error: io::Error) {
        let (folder, path) = (Arc::clone(&self.folder), path.clone());
        blocking(move || folder.damaged(folder.name(path.as_str()), path.as_str(), &error)).await;
    }

    /// True where a blob may be kept.
    fn takes(&self, blob: &BlobMeta) -> bool {
        blob.size <= self.max_blob_bytes && blob.etag.is_some() && !self.folder.is_paused()
    }

    /// Begins to keep a blob that had the mark in `blob` at `checked`. `None`: it can't be.
    pub(super) async fn fill(&self, blob: &BlobMeta, checked: Instant) -> Option<Filling> {
        if !self.takes(blob) {
            return None;
        }
        let (folder, blob) = (self.folder.opened().await, blob.clone());
        let begun = {
            let folder = Arc::clone(&folder);
            blocking(move || begin(&folder, &blob, checked)).await??
        };
        Some(Filling::new(folder, begun))
    }

    /// Keeps a blob that is in memory.
    pub(super) async fn keep(&self, blob: &BlobMeta, bytes: Bytes, checked: Instant, commit: Commit) {
        if !self.takes(blob) {
            return;
        }
        let (folder, blob) = (self.folder.opened().await, blob.clone());
        blocking(move || {
            let Some(mut writer) = begin(&folder, &blob, checked) else { return };
            let kept = writer.write(&bytes).and_then(|()| writer.finish(commit));
            kept.unwrap_or_else(|error| folder.trouble(&error));
        })
        .await;
    }
}

/// `None`: it can't be kept.
fn begin(folder: &Arc<Folder>, blob: &BlobMeta, checked: Instant) -> Option<Writer> {
    let mark = blob.etag.clone()?;
    let description = serde_json::to_vec(&Description { source: folder.source().to_owned(), blob: blob.clone() }).ok()?;
    let head = head(&description, blob.size)?;
    folder.begin(folder.name(blob.path.as_str()), head, Some((mark, checked)))
}
