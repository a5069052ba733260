//! What a path on the command line stands for.

use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use storage_core::{BlobEntry, BlobMeta, BlobPath, BlobStore, Error, ErrorKind, ListOptions, Result};

use super::pattern::{Glob, is_pattern};
use super::prefix_of;

/// What a path on the command line stands for.
#[derive(Debug)]
pub(crate) enum Source {
    /// One blob.
    Blob(BlobMeta),
    /// What lies below a path; `None`: everything. Whether there is anything is not known.
    Below(Option<BlobPath>),
    /// What matches a pattern.
    Glob(Glob),
}

impl Source {
    /// A blob of that very name, whatever characters are in it; else a pattern, or what is below the path.
    pub(crate) async fn find(text: &str, blobs: &BlobStore) -> Result<Self> {
        let folder = text.ends_with('/');
        let path = match prefix_of(text) {
            Ok(Some(path)) => path,
            Ok(None) => return Ok(Self::Below(None)),
            Err(error) => return Err(error),
        };
        if !folder && let Some(meta) = head(&path, blobs).await? {
            return Ok(Self::Blob(meta));
        }
        if is_pattern(path.as_str()) {
            return Glob::new(path.as_str()).map(Self::Glob);
        }
        Ok(Self::Below(Some(path)))
    }

    /// What paths are taken from, when they go elsewhere: a blob keeps its name, what is below a path its path below that.
    pub(crate) fn base(&self) -> Result<Option<BlobPath>> {
        match self {
            Self::Blob(meta) => prefix_of(meta.path.as_str().rsplit_once('/').map_or("", |(folder, _)| folder)),
            Self::Below(prefix) => Ok(prefix.clone()),
            Self::Glob(glob) => glob.prefix(),
        }
    }

    /// The blobs.
    pub(crate) fn blobs(&self, blobs: &BlobStore) -> Result<BoxStream<'static, Result<BlobMeta>>> {
        let all = match self {
            Self::Blob(meta) => futures::stream::iter([Ok(meta.clone())]).boxed(),
            Self::Below(prefix) => blobs.list_all(prefix.clone()),
            Self::Glob(glob) => {
                let (glob, prefix) = (glob.clone(), glob.prefix()?);
                let listed = match glob.is_one_level() {
                    // What lies deeper does not match anyway.
                    true => blobs.list(&ListOptions::below(prefix.clone()).one_level()),
                    false => blobs.list(&ListOptions::below(prefix.clone())),
                };
                let matching = listed.try_filter_map(move |entry| {
                    let matching = match entry {
                        BlobEntry::Blob(meta) if glob.matches(below(&meta.path, prefix.as_ref())) => Some(meta),
                        _ => None,
                    };
                    std::future::ready(Ok(matching))
                });
                matching.boxed()
            }
        };
        Ok(all)
    }

    /// The error where there is nothing.
    pub(crate) fn nothing(&self) -> Error {
        Error::not_found(match self {
            Self::Below(None) => "there are no blobs yet".to_owned(),
            Self::Below(Some(path)) => format!("there is no blob `{path}`, and none below it"),
            Self::Blob(meta) => format!("there is no blob `{}`", meta.path),
            Self::Glob(glob) => format!("no blob matches {glob}"),
        })
    }
}

/// What is known of a blob, if there is one.
pub(crate) async fn head(path: &BlobPath, blobs: &BlobStore) -> Result<Option<BlobMeta>> {
    match blobs.head(path).await {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path behind `prefix` and its slash.
pub(crate) fn below<'a>(path: &'a BlobPath, prefix: Option<&BlobPath>) -> &'a str {
    prefix.and_then(|prefix| path.as_str().strip_prefix(prefix.as_str())?.strip_prefix('/')).unwrap_or(path.as_str())
}

/// Where `name` belongs in a folder; `None`: at the top.
pub(crate) fn join(folder: Option<&BlobPath>, name: &str) -> Result<BlobPath> {
    folder.map_or_else(|| BlobPath::new(name), |folder| folder.join(name))
}
