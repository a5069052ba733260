//! What the source does not have goes from the target.
//!
//! Both sides are listed once more, after everything is transferred, so that what was written meanwhile is seen.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream::BoxStream;

use super::local::{Links, blocking, file_subject, walk};
use super::options::{FileAction, FileDone};
use super::pairs::{Listed, Pair, Pairs, remotes};
use super::pool::{Pool, Run};
use crate::{BlobPath, BlobStore, Result, ResultExt};

/// Removes the blobs below `prefix` in `target` that are not among the sources.
pub(super) async fn blobs_without<L: Listed>(
    sources: BoxStream<'static, Result<L>>,
    run: &Arc<Run>,
    pool: &mut Pool,
    target: &BlobStore,
    prefix: Option<&BlobPath>,
) -> Result<()> {
    let mut pairs = Pairs::new(sources, remotes(target, prefix, run.options.filter.clone()));
    while let Some(pair) = pairs.next().await? {
        // A folder that can't be read may hold everything: nothing behind it is removed.
        let Pair::Right(remote) = pair? else { continue };
        let (dry_run, target) = (run.options.dry_run, target.clone());
        let remove = async move {
            if !dry_run {
                target.delete(&remote.meta.path).await?;
            }
            Ok(FileDone { path: remote.relative.into(), action: FileAction::Removed, bytes: 0 })
        };
        pool.start(remove).await?;
    }
    pool.settle_all().await
}

/// Removes the files below `local` that are no blobs below `prefix`, and the folders that become empty. A link is removed as a link.
pub(super) async fn files_without_blob(run: &Arc<Run>, pool: &mut Pool, local: &Path, prefix: Option<&BlobPath>) -> Result<()> {
    let filter = &run.options.filter;
    let mut pairs = Pairs::new(walk(local, filter.clone(), Links::Keep), remotes(&run.store, prefix, filter.clone()));
    while let Some(pair) = pairs.next().await? {
        let Pair::Left(file) = pair? else { continue };
        let (dry_run, root) = (run.options.dry_run, local.to_owned());
        let remove = async move {
            let path = file.path.clone();
            let removed = blocking(move || if dry_run { Ok(()) } else { remove_file(&path, &root) });
            removed.await.context("blobs.sync", || file_subject(&file.path))?;
            Ok(FileDone { path: file.relative, action: FileAction::Removed, bytes: 0 })
        };
        pool.start(remove).await?;
    }
    pool.settle_all().await
}

fn remove_file(path: &Path, root: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let above = path.ancestors().skip(1).take_while(|folder| *folder != root && folder.starts_with(root));
    for folder in above.map(PathBuf::from) {
        // One that is not empty stays.
        if std::fs::remove_dir(&folder).is_err() {
            break;
        }
    }
    Ok(())
}
