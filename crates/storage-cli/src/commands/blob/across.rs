//! `storage blob cp` and `mv` from store to store.

use std::time::Instant;

use storage_core::{BlobStore, Error, PutMode, PutOptions, Result, TransferOptions, TransferReport};

use super::many::{CopyArgs, Tally};
use super::pattern::Selection;
use super::place::Place;
use super::prefix_of;
use super::report::{each, or_say};
use super::source::{Source, join};
use crate::context::Context;
use crate::exit::Failure;
use crate::progress;

pub(crate) async fn copy(
    args: &CopyArgs,
    and_remove: bool,
    from: &[Place],
    to: &Place,
    context: &Context,
) -> Result<(), Failure> {
    let (out, started) = (&context.out, Instant::now());
    let target = to.open_target(context).await?;
    let mut sources = Vec::new();
    for place in from {
        let blobs = place.open_source(context).await?;
        let source = Source::find(&place.path, &blobs).await?;
        if let (Source::Below(path), false) = (&source, args.recursive) {
            let path = path.as_ref().map_or("/", |path| path.as_str());
            return Err(Error::not_found(format!("there is no blob `{path}`; --recursive takes what is below a path")).into());
        }
        sources.push((blobs, source));
    }
    let work = async {
        let mut report = TransferReport::default();
        for (blobs, source) in &sources {
            let next = copy_source(args, and_remove, (blobs, source), (&target, to), sources.len() == 1, context).await?;
            if next.files + next.failed == 0 {
                return Err(source.nothing());
            }
            report = report.and(next);
        }
        Ok(report)
    };
    let report = or_say("what was finished is there; the same command does the rest", out, work).await?;
    Tally::from(report).finish(if and_remove { "moved" } else { "copied" }, args.dry_run, started, out)
}

async fn copy_source(
    args: &CopyArgs,
    and_remove: bool,
    (blobs, source): (&BlobStore, &Source),
    (target, to): (&BlobStore, &Place),
    alone: bool,
    context: &Context,
) -> Result<TransferReport> {
    let bar = progress::bytes(&context.out);
    let into = prefix_of(&to.path)?;
    let glob = if let Source::Glob(glob) = source { Some(glob.clone()) } else { None };
    let options = TransferOptions {
        parallel: args.parallel,
        filter: Selection::default().filter(glob)?,
        dry_run: args.dry_run,
        keep_going: true,
        remove_source: and_remove,
        bytes_per_second: args.bwlimit,
        progress: progress::follow(&bar),
        each: each(args.dry_run, &bar, context),
        put: PutOptions::default().mode(if args.no_clobber { PutMode::Create } else { PutMode::Overwrite }),
        ..TransferOptions::default()
    };
    let report = if let Source::Blob(meta) = source {
        let named = into.clone().filter(|_| alone && !args.recursive && !to.path.ends_with('/'));
        let path = named.map_or_else(|| join(into.as_ref(), meta.path.file_name()), Ok)?;
        blobs.copy_files_to([(meta.clone(), path)], target, &options).await?
    } else {
        blobs.copy_dir_to(source.base()?.as_ref(), target, into.as_ref(), &options).await?
    };
    bar.finish_and_clear();
    Ok(report)
}
