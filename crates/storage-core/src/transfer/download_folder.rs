//! Down: all blobs below a path, or some that are named, become files.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, SubsecRound as _, Timelike as _, Utc};
use futures::stream::TryStreamExt;

use super::local::{blocking, target_of};
use super::options::{FileAction, FileDone, Skip, TransferOptions, TransferReport};
use super::pairs::{Remote, remotes};
use super::partial::{Durable, sync_all};
use super::pool::{Pool, Run};
use crate::{BlobMeta, BlobPath, BlobStore, Error, Result, ResultExt};

/// For so many blobs at once it is looked what is at their targets.
const BATCH: usize = 128;

/// A blob, where it belongs, and what is there.
struct Wanted {
    remote: Remote,
    target: Result<PathBuf>,
    found: Option<Metadata>,
}

/// Downloads what lies below a path.
pub(super) async fn folder(
    store: &BlobStore,
    prefix: Option<&BlobPath>,
    local: &Path,
    options: &TransferOptions,
) -> Result<TransferReport> {
    let run = Run::new(store, options);
    let mut pool = Pool::new(&run);
    let mut clashes = Clashes::default();
    let mut batches = remotes(store, prefix, options.filter.clone()).try_ready_chunks(BATCH);
    while let Some(batch) = batches.try_next().await.map_err(|error| error.1)? {
        let wanted = batch.into_iter().map(|remote| {
            let target = clashes.check(&remote.relative).and_then(|()| target_of(local, &remote.relative));
            Wanted { remote, target, found: None }
        });
        for wanted in look(wanted.collect(), options.skip).await? {
            start(&run, &mut pool, wanted).await?;
        }
    }
    pool.settle_all().await?;
    if options.delete && pool.report().failed == 0 {
        if pool.report().files + pool.report().skipped == 0 {
            // A mistyped path must not empty a folder.
            let path = prefix.map_or_else(|| "in the store".to_owned(), |prefix| format!("below `{prefix}`"));
            return Err(Error::not_found(format!("there is no blob {path}, and so nothing is removed")));
        }
        super::remove::files_without_blob(&run, &mut pool, local, prefix).await?;
    }
    ended(pool, local, options).await
}

/// Downloads blobs one by one named.
pub(super) async fn files(
    store: &BlobStore,
    files: impl IntoIterator<Item = (BlobMeta, PathBuf)>,
    options: &TransferOptions,
) -> Result<TransferReport> {
    let run = Run::new(store, options);
    let mut pool = Pool::new(&run);
    for (meta, target) in files {
        run.meter.expect(1, meta.size);
        let run = Arc::clone(&run);
        let remote = Remote { relative: meta.path.clone(), meta };
        // They may belong to several file systems.
        pool.start(async move { run.download_listed(remote, &target, false, Durable::Now).await }).await?;
    }
    pool.settle_all().await?;
    Ok(pool.end())
}

/// What has been written is on the disk when the transfer is done.
async fn ended(pool: Pool, local: &Path, options: &TransferOptions) -> Result<TransferReport> {
    if pool.report().files > 0 && !options.dry_run {
        let folder = local.to_owned();
        let synced = blocking(move || sync_all(&folder)).await;
        synced.context("blobs.download", || format!("folder {}", local.display()))?;
    }
    Ok(pool.end())
}

async fn look(mut wanted: Vec<Wanted>, skip: Skip) -> Result<Vec<Wanted>> {
    if skip == Skip::Nothing {
        return Ok(wanted);
    }
    blocking(move || {
        for wanted in &mut wanted {
            let Ok(target) = &wanted.target else { continue };
            wanted.found = std::fs::metadata(target).ok().filter(Metadata::is_file);
        }
        Ok(wanted)
    })
    .await
}

async fn start(run: &Arc<Run>, pool: &mut Pool, wanted: Wanted) -> Result<()> {
    let Wanted { remote, target, found } = wanted;
    run.meter.expect(1, remote.meta.size);
    let target = match target {
        Ok(target) => target,
        Err(error) => return pool.settle(Err(error).context("blobs.download", || format!("blob `{}`", remote.meta.path))),
    };
    if found.as_ref().is_some_and(|found| is_downloaded(found, &remote.meta, run.options.skip)) {
        run.meter.skipped(remote.meta.size);
        return pool.settle(Ok(done(remote, FileAction::Skipped)));
    }
    let run = Arc::clone(run);
    let compare = run.options.skip == Skip::SameContent && found.is_some_and(|found| found.len() == remote.meta.size);
    pool.start(async move { run.download_listed(remote, &target, compare, Durable::AtEnd).await }).await
}

fn done(remote: Remote, action: FileAction) -> FileDone {
    FileDone { path: remote.relative.into(), action, bytes: remote.meta.size }
}

impl Run {
    async fn download_listed(
        self: &Arc<Self>,
        remote: Remote,
        target: &Path,
        compare: bool,
        durable: Durable,
    ) -> Result<FileDone> {
        if compare && self.same_as_file(&remote.meta.path, target).await? {
            self.meter.skipped(remote.meta.size);
            return Ok(done(remote, FileAction::Skipped));
        }
        if self.options.dry_run {
            return Ok(done(remote, FileAction::Written));
        }
        let meta = self.download(&remote.meta, target, durable).await?;
        Ok(FileDone { path: remote.relative.into(), action: FileAction::Written, bytes: meta.size })
    }
}

/// True where neither side needs to be read to know.
fn is_downloaded(found: &Metadata, meta: &BlobMeta, skip: Skip) -> bool {
    found.len() == meta.size
        && match skip {
            Skip::Nothing | Skip::SameContent => false,
            Skip::SameSize => true,
            Skip::Unchanged => found.modified().is_ok_and(|at| is_time_of(at.into(), meta.modified_at)),
        }
}

/// True where a file bears this time: to the microsecond, which every blob's time has at most, or as exactly as its file system can.
fn is_time_of(file: DateTime<Utc>, blob: DateTime<Utc>) -> bool {
    match file.nanosecond() {
        0 => file == blob.trunc_subsecs(0),
        _ => file.trunc_subsecs(6) == blob.trunc_subsecs(6),
    }
}

/// Finds blobs that can't be files beside each other: `a` is a file, so `a/b` can't be below it. In the order of the listing `a` comes first.
#[derive(Default)]
struct Clashes {
    /// Paths that the one after may begin with, each the beginning of the next.
    beginnings: Vec<BlobPath>,
}

impl Clashes {
    fn check(&mut self, path: &BlobPath) -> Result<()> {
        while self.beginnings.last().is_some_and(|last| !path.as_str().starts_with(last.as_str())) {
            self.beginnings.pop();
        }
        if let Some(above) = self.beginnings.iter().find(|above| path.below(above).is_some()) {
            return Err(Error::already_exists(format!(
                "the blob `{above}` is a file here, and can't be a folder too: download one of them to another place"
            )));
        }
        self.beginnings.push(path.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_file_and_folder_is_found() {
        let mut clashes = Clashes::default();
        let outcome: Vec<_> = ["a", "a-x", "a.b", "a.b.c", "a/b", "a/c/d", "ab/c", "b", "b0/c"]
            .map(|path| clashes.check(&BlobPath::new(path).unwrap()).is_ok())
            .into();
        assert_eq!(outcome, [true, true, true, true, false, false, true, true, true]);
    }

    #[test]
    fn times_are_compared_as_exactly_as_they_are_kept() {
        let at = |nanos| DateTime::from_timestamp(1_700_000_000, nanos).unwrap();
        assert!(is_time_of(at(123_456_000), at(123_456_000)) && is_time_of(at(123_456_789), at(123_456_000)));
        assert!(is_time_of(at(0), at(123_456_000)), "the file system keeps whole seconds");
        assert!(!is_time_of(at(123_457_000), at(123_456_000)) && !is_time_of(at(123_000_000), at(0)));
    }
}
