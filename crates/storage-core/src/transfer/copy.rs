//! Across: blobs of one store become blobs of another.
//!
//! Bytes stream from one to the other, and attributes go with them. Where both stores are of one backend, it copies by itself.

use std::sync::Arc;

use futures::stream::{StreamExt, TryStreamExt};

use super::options::{FileAction, FileDone, Skip, TransferOptions, TransferReport};
use super::pairs::{Pair, Pairs, Remote, join, remotes};
use super::pool::{Pool, Run};
use super::upload::SMALL;
use crate::{BlobBody, BlobContent, BlobMeta, BlobPath, BlobRead, BlobStore, ByteStream, Error, GetOptions, Result, ResultExt};

impl BlobStore {
    /// Copies one blob to another store, attributes included: wholly or not at all. Where [attributes](TransferOptions::put) are given, these replace them.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`Unsupported`](crate::ErrorKind::Unsupported) where the blob has attributes, and the target keeps none; see
    /// [`put_with`](Self::put_with).
    pub async fn copy_file_to(
        &self,
        path: impl TryInto<BlobPath, Error: Into<Error>>,
        target: &Self,
        to: impl TryInto<BlobPath, Error: Into<Error>>,
        options: &TransferOptions,
    ) -> Result<BlobMeta> {
        let (path, to) = (path.try_into().map_err(Into::into)?, to.try_into().map_err(Into::into)?);
        let meta = self.head(&path).await?;
        let run = Run::new(self, options);
        run.meter.expect(1, meta.size);
        run.copy(&meta, target, &to).await
    }

    /// Copies these blobs, as [`head`](Self::head) or a listing told of them, to another store, each to its path.
    ///
    /// # Errors
    /// Those of the first blob that fails, unless [`keep_going`](TransferOptions::keep_going).
    pub async fn copy_files_to(
        &self,
        blobs: impl IntoIterator<Item = (BlobMeta, BlobPath)>,
        target: &Self,
        options: &TransferOptions,
    ) -> Result<TransferReport> {
        let run = Run::new(self, options);
        let mut pool = Pool::new(&run);
        for (meta, to) in blobs {
            run.meter.expect(1, meta.size);
            let (run, target) = (Arc::clone(&run), target.clone());
            let remote = Remote { relative: meta.path.clone(), meta };
            pool.start(async move { run.copy_listed(remote, &target, &to, false).await }).await?;
        }
        pool.settle_all().await?;
        Ok(pool.end())
    }

    /// Copies every blob below `prefix` to the same relative path below `to` in another store. Where it has to go on after it was broken off, it is run
    /// again with a [`Skip`]: what is there is listed, not asked for blob by blob.
    ///
    /// # Errors
    /// Those of the first blob that fails, unless [`keep_going`](TransferOptions::keep_going). [`NotFound`](crate::ErrorKind::NotFound) where there is no
    /// blob at all, and blobs should be [removed](TransferOptions::delete) that are not in this store. [`InvalidInput`](crate::ErrorKind::InvalidInput) where one
    /// place is a part of the other.
    pub async fn copy_dir_to(
        &self,
        prefix: Option<&BlobPath>,
        target: &Self,
        to: Option<&BlobPath>,
        options: &TransferOptions,
    ) -> Result<TransferReport> {
        folder(self, prefix, target, to, options).await
    }
}

async fn folder(
    source: &BlobStore,
    prefix: Option<&BlobPath>,
    target: &BlobStore,
    to: Option<&BlobPath>,
    options: &TransferOptions,
) -> Result<TransferReport> {
    if source.shares_backend(target) {
        check_apart(source.place(prefix)?.as_ref(), target.place(to)?.as_ref())?;
    }
    let run = Run::new(source, options);
    let mut pool = Pool::new(&run);
    let known = match options.skip {
        Skip::Nothing => futures::stream::empty().boxed(),
        _ => remotes(target, to, None),
    };
    let mut pairs = Pairs::new(remotes(source, prefix, options.filter.clone()), known);
    while let Some(pair) = pairs.next().await? {
        let (remote, known) = match pair? {
            Pair::Both(remote, known) => (remote, Some(known.meta)),
            Pair::Left(remote) => (remote, None),
            Pair::Right(_) => continue,
        };
        start(&run, &mut pool, remote, known, target, to).await?;
    }
    pool.settle_all().await?;
    if options.delete && pool.report().failed == 0 {
        if pool.report().files + pool.report().skipped == 0 {
            // A mistyped path must not empty a store.
            let path = prefix.map_or_else(|| "in the store".to_owned(), |prefix| format!("below `{prefix}`"));
            return Err(Error::not_found(format!("there is no blob {path}, and so nothing is removed")));
        }
        let sources = remotes(source, prefix, options.filter.clone());
        super::remove::blobs_without(sources, &run, &mut pool, target, to).await?;
    }
    Ok(pool.end())
}

/// Neither place may be a part of the other: what is copied would be listed again, or removed as something that the source does not have.
fn check_apart(from: Option<&BlobPath>, to: Option<&BlobPath>) -> Result<()> {
    let inside = |inner: Option<&BlobPath>, outer: Option<&BlobPath>| match (inner, outer) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(inner), Some(outer)) => inner == outer || inner.below(outer).is_some(),
    };
    match inside(from, to) || inside(to, from) {
        true => Err(Error::invalid("both sides are in one store, and one is a part of the other").with_operation("blobs.copy")),
        false => Ok(()),
    }
}

async fn start(
    run: &Arc<Run>,
    pool: &mut Pool,
    remote: Remote,
    known: Option<BlobMeta>,
    target: &BlobStore,
    to: Option<&BlobPath>,
) -> Result<()> {
    run.meter.expect(1, remote.meta.size);
    let path = match join(to, remote.relative.as_str()) {
        Ok(path) => path,
        Err(error) => return pool.settle(Err(error).context("blobs.copy", || format!("blob `{}`", remote.meta.path))),
    };
    if known.as_ref().is_some_and(|known| is_copied(&remote.meta, known, run.options.skip)) {
        run.meter.skipped(remote.meta.size);
        return pool.settle(Ok(done(&remote, FileAction::Skipped)));
    }
    let compare = run.options.skip == Skip::SameContent && known.is_some_and(|known| known.size == remote.meta.size);
    let (run, target) = (Arc::clone(run), target.clone());
    pool.start(async move { run.copy_listed(remote, &target, &path, compare).await }).await
}

/// True where neither side needs to be read to know.
fn is_copied(from: &BlobMeta, known: &BlobMeta, skip: Skip) -> bool {
    from.size == known.size
        && match skip {
            Skip::Nothing | Skip::SameContent => false,
            Skip::SameSize => true,
            Skip::Unchanged => from.modified_at <= known.modified_at,
        }
}

fn done(remote: &Remote, action: FileAction) -> FileDone {
    FileDone { path: remote.relative.to_string(), action, bytes: remote.meta.size }
}

impl Run {
    async fn copy_listed(&self, remote: Remote, target: &BlobStore, to: &BlobPath, compare: bool) -> Result<FileDone> {
        if compare && self.same_as_blob(&remote.meta.path, target, to).await? {
            self.meter.skipped(remote.meta.size);
            return Ok(done(&remote, FileAction::Skipped));
        }
        if self.options.dry_run {
            return Ok(done(&remote, FileAction::Written));
        }
        let meta = self.copy(&remote.meta, target, to).await?;
        Ok(FileDone { bytes: meta.size, ..done(&remote, FileAction::Written) })
    }

    /// Copies one blob, in whatever state it is by now.
    async fn copy(&self, from: &BlobMeta, target: &BlobStore, to: &BlobPath) -> Result<BlobMeta> {
        let copy = async {
            let _permit = self.permit().await?;
            let within = self.store.shares_backend(target) && self.options.put.attributes.is_empty();
            let (state, copied) = match within {
                true => self.within(&from.path, target, to).await?,
                false => self.across(&from.path, target, to).await?,
            };
            if self.options.remove_source {
                self.remove_copied(&state).await?;
            }
            Ok::<_, Error>(copied)
        };
        let copied = copy.await.context("blobs.copy", || format!("blob `{}` to `{to}`", from.path))?;
        self.meter.finished();
        Ok(copied)
    }

    /// By the backend itself. Answers the state of the source as well.
    async fn within(&self, from: &BlobPath, target: &BlobStore, to: &BlobPath) -> Result<(BlobMeta, BlobMeta)> {
        if self.store.full(from)? == target.full(to)? {
            return Err(Error::invalid("it can't be copied to itself"));
        }
        let state = self.store.head(from).await?;
        let copied = self.store.copy_within(from, target, to, &self.options.put.mode).await?;
        self.meter.moved(copied.size);
        Ok((state, copied))
    }

    async fn across(&self, from: &BlobPath, target: &BlobStore, to: &BlobPath) -> Result<(BlobMeta, BlobMeta)> {
        // All bytes of one answer are of one state.
        let read = self.store.get_with(from, &GetOptions::default()).await?;
        let state = read.meta.clone();
        let mut put = self.options.put.clone();
        if put.attributes.is_empty() {
            put.attributes = state.attributes.clone();
        }
        let body = match read.content {
            _ if state.size <= SMALL => {
                let bytes = read.bytes().await?;
                self.meter.pace(state.size).await;
                self.meter.moved(state.size);
                BlobBody::Bytes(bytes)
            }
            BlobContent::File(file) if !self.meter.sees_pieces() => BlobBody::File(file),
            content => {
                let pieces = self.counted(BlobRead { content, ..read }.into_stream());
                BlobBody::Stream { stream: pieces, size: Some(state.size) }
            }
        };
        let by_itself = matches!(body, BlobBody::File(_));
        let copied = target.put_with(to, body, &put).await?;
        if by_itself {
            self.meter.moved(copied.size);
        }
        Ok((state, copied))
    }

    /// The pieces of a stream, at the pace and in the count of this transfer.
    pub(super) fn counted(&self, pieces: ByteStream) -> ByteStream {
        let meter = self.meter.clone();
        let counted = pieces.and_then(move |piece| {
            let meter = meter.clone();
            async move {
                meter.pace(piece.len() as u64).await;
                meter.moved(piece.len() as u64);
                Ok(piece)
            }
        });
        counted.boxed()
    }

    /// Removes a blob that was copied, if nobody has written it meanwhile.
    async fn remove_copied(&self, state: &BlobMeta) -> Result<()> {
        match state.etag.as_ref().filter(|_| self.store.capabilities().conditional) {
            Some(etag) => self.store.delete_if(&state.path, etag).await,
            None => self.store.delete(&state.path).await.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_apart() {
        let path = |text: &str| if text.is_empty() { None } else { Some(BlobPath::new(text).unwrap()) };
        let apart = |from: &str, to: &str| check_apart(path(from).as_ref(), path(to).as_ref()).is_ok();
        assert!(apart("a", "b") && apart("a", "ab") && apart("a/b", "a/c"));
        assert!(
            !apart("", "") && !apart("", "a") && !apart("a", "") && !apart("a", "a") && !apart("a/b", "a") && !apart("a", "a/b")
        );
    }
}
