//! Two sides, path by path: both come in the same order, so that neither has to be in memory.

use std::cmp::Ordering;
use std::pin::Pin;

use futures::stream::{BoxStream, Peekable, StreamExt, TryStreamExt};

use super::local::LocalFile;
use super::options::PathFilter;
use crate::{BlobMeta, BlobPath, BlobStore, Result};

/// A blob, and its path below the prefix.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) relative: BlobPath,
    pub(super) meta: BlobMeta,
}

/// The blobs below `prefix` that take part.
pub(super) fn remotes(
    store: &BlobStore,
    prefix: Option<&BlobPath>,
    filter: Option<PathFilter>,
) -> BoxStream<'static, Result<Remote>> {
    let prefix = prefix.cloned();
    let all = store.list_all(prefix.clone()).map_ok(move |meta| Remote { relative: relative(&meta.path, prefix.as_ref()), meta });
    all.try_filter(move |remote| std::future::ready(takes_part(&remote.relative, filter.as_ref()))).boxed()
}

fn relative(path: &BlobPath, prefix: Option<&BlobPath>) -> BlobPath {
    prefix.and_then(|prefix| path.below(prefix)).unwrap_or_else(|| path.clone())
}

/// Asks for the folders above as well, as they are asked for on the local side.
fn takes_part(path: &BlobPath, filter: Option<&PathFilter>) -> bool {
    let Some(filter) = filter else { return true };
    let path = path.as_str();
    path.match_indices('/').all(|(at, _)| filter(&path[..=at])) && filter(path)
}

/// Where `relative` belongs below a path; `None`: at the top.
pub(super) fn join(prefix: Option<&BlobPath>, relative: &str) -> Result<BlobPath> {
    prefix.map_or_else(|| BlobPath::new(relative), |prefix| prefix.join(relative))
}

/// What is listed in bytewise order of its path below a folder or prefix.
pub(super) trait Listed {
    /// This path.
    fn relative(&self) -> &str;
}

impl Listed for LocalFile {
    fn relative(&self) -> &str {
        &self.relative
    }
}

impl Listed for Remote {
    fn relative(&self) -> &str {
        self.relative.as_str()
    }
}

/// What there is under one path: on the left side, files or blobs; on the right side, blobs.
#[derive(Debug)]
pub(super) enum Pair<L> {
    Both(L, Remote),
    Left(L),
    Right(Remote),
}

type Side<T> = Pin<Box<Peekable<BoxStream<'static, Result<T>>>>>;

pub(super) struct Pairs<L> {
    left: Side<L>,
    right: Side<Remote>,
}

impl<L: Listed> Pairs<L> {
    pub(super) fn new(left: BoxStream<'static, Result<L>>, right: BoxStream<'static, Result<Remote>>) -> Self {
        Self { left: Box::pin(left.peekable()), right: Box::pin(right.peekable()) }
    }

    /// The next path. The outer error is of the right side's listing, which can't go on; the inner one of the left side: where that is a folder, of one file,
    /// and others follow.
    pub(super) async fn next(&mut self) -> Result<Option<Result<Pair<L>>>> {
        let order = match (self.left.as_mut().peek().await, self.right.as_mut().peek().await) {
            (None, None) => return Ok(None),
            (_, None) | (Some(Err(_)), _) => Ordering::Less,
            (None, _) | (_, Some(Err(_))) => Ordering::Greater,
            (Some(Ok(left)), Some(Ok(right))) => left.relative().cmp(right.relative()),
        };
        let left = if order.is_le() { self.left.next().await } else { None };
        let right = if order.is_ge() { self.right.next().await.transpose()? } else { None };
        Ok(match (left, right) {
            (Some(Err(error)), _) => Some(Err(error)),
            (Some(Ok(left)), Some(right)) => Some(Ok(Pair::Both(left, right))),
            (Some(Ok(left)), None) => Some(Ok(Pair::Left(left))),
            (None, right) => right.map(|right| Ok(Pair::Right(right))),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::Error;

    fn local(path: &str) -> Result<LocalFile> {
        Ok(LocalFile { path: PathBuf::from(path), relative: path.into(), size: 0, modified_at: None })
    }

    fn remote(path: &str) -> Result<Remote> {
        let path = BlobPath::new(path)?;
        let meta = BlobMeta {
            path: path.clone(),
            size: 0,
            modified_at: chrono::DateTime::UNIX_EPOCH,
            etag: None,
            attributes: Default::default(),
        };
        Ok(Remote { relative: path, meta })
    }

    #[tokio::test]
    async fn paths_meet() {
        let locals = ["a-b", "a.txt", "a/b", "c"].map(local).into_iter().chain([Err(Error::invalid("x"))]).chain([local("z")]);
        let remotes = ["a", "a.txt", "a/b", "b", "z"].map(remote);
        let mut pairs = Pairs::new(futures::stream::iter(locals).boxed(), futures::stream::iter(remotes).boxed());
        let mut seen = Vec::new();
        while let Some(next) = pairs.next().await.unwrap() {
            seen.push(match next {
                Ok(Pair::Both(left, _)) => format!("={}", left.relative),
                Ok(Pair::Left(left)) => format!("<{}", left.relative),
                Ok(Pair::Right(right)) => format!(">{}", right.relative),
                Err(_) => "!".to_owned(),
            });
        }
        assert_eq!(seen, [">a", "<a-b", "=a.txt", "=a/b", ">b", "<c", "!", "=z"]);
    }

    #[test]
    fn a_folder_that_is_left_out_takes_everything_below_with_it() {
        let filter: PathFilter = std::sync::Arc::new(|path| path != "a/b/");
        let takes = |path: &str| takes_part(&BlobPath::new(path).unwrap(), Some(&filter));
        assert!(takes("a/c") && takes("a/b") && !takes("a/b/c/d"));
    }
}
