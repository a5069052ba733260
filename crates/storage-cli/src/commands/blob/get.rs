//! `storage blob get`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueHint};
use futures::TryStreamExt as _;
use storage_core::{BlobMeta, BlobStore, Error, GetOptions, PutOptions, Result, TransferReport};

use super::json_meta;
use super::report::{ManyArgs, finish, or_say, pace, seconds};
use super::source::Source;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Out, size};
use crate::progress;

#[derive(Args, Debug)]
#[command(after_help = "\
A file appears when it is whole, with the blob's time. A large download that is broken off is kept beside it, hidden, and the same command goes on with it, if the blob is still the same; what changes while it is read is an error. Blobs that fail don't keep the others from it.

Examples:
  storage blob get reports/2026/report.pdf .
  storage blob get backups/app.sql - | psql app
  storage blob get site ./site                          what is below a path
  storage blob get 'data/**/*.csv' ./out                what matches, with the folders below data")]
pub(crate) struct GetArgs {
    /// Blobs, paths above blobs, or patterns in quotes
    #[arg(required = true)]
    paths: Vec<String>,
    /// A file, a folder, or `-` for stdout
    #[arg(value_hint = ValueHint::AnyPath)]
    local: PathBuf,
    #[command(flatten)]
    many: ManyArgs,
}

pub(crate) async fn get(args: GetArgs, blobs: &BlobStore, context: &Context) -> Result<(), Failure> {
    let out = &context.out;
    let mut sources = Vec::new();
    for path in &args.paths {
        sources.push(Source::find(path, blobs).await?);
    }
    if args.local == Path::new("-") {
        if args.many.bwlimit.is_some() {
            return Err(Error::invalid("--bwlimit is of files, not of stdout").into());
        }
        return to_stdout(&sources, blobs, out).await;
    }
    let hint = "what was finished is there; the same command does the rest, and goes on with a large blob where it was";
    match &sources[..] {
        [Source::Blob(meta)] => or_say(hint, out, get_one(&args, meta, blobs, context)).await,
        _ => {
            let report = or_say(hint, out, get_many(&args, sources, blobs, context)).await?;
            finish(&report, args.many.dry_run, out)
        }
    }
}

async fn to_stdout(sources: &[Source], blobs: &BlobStore, out: &Out) -> Result<(), Failure> {
    for source in sources {
        if let Source::Below(path) = source {
            let path = path.as_ref().map_or("/", |path| path.as_str());
            return Err(
                Error::not_found(format!("there is no blob `{path}`: stdout takes blobs, not what is below a path")).into()
            );
        }
    }
    let bar = if out.is_terminal() { indicatif::ProgressBar::hidden() } else { progress::flow(out) };
    for source in sources {
        let (mut all, mut found) = (source.blobs(blobs)?, false);
        while let Some(meta) = all.try_next().await? {
            found = true;
            let mut pieces = blobs.get_with(&meta.path, &GetOptions::default()).await?.into_stream();
            while let Some(piece) = pieces.try_next().await? {
                out.bytes(&piece)?;
                bar.inc(piece.len() as u64);
            }
        }
        if !found {
            return Err(source.nothing().into());
        }
    }
    bar.finish_and_clear();
    out.flush()
}

/// A file below a folder, where `local` is one or is meant to be.
fn target(local: &Path, name: &str) -> PathBuf {
    let into_folder = local.is_dir() || local.as_os_str().as_encoded_bytes().ends_with(b"/");
    if into_folder { local.join(name) } else { local.to_owned() }
}

async fn get_one(args: &GetArgs, meta: &BlobMeta, blobs: &BlobStore, context: &Context) -> Result<(), Failure> {
    let (out, started) = (&context.out, Instant::now());
    let bar = progress::bytes(out);
    let options = args.many.options(None, PutOptions::default(), &bar, context)?;
    let target = target(&args.local, meta.path.file_name());
    if options.dry_run {
        return finish(&blobs.download_files([(meta.clone(), target)], &options).await?, true, out);
    }
    let meta = blobs.download_file_with(&meta.path, &target, &options).await?;
    bar.finish_and_clear();
    let mut object = json_meta(&meta);
    object["seconds"] = seconds(started.elapsed());
    out.done(&object, || format!("wrote {} ({}){}", target.display(), size(meta.size), pace(meta.size, started.elapsed())))
}

async fn get_many(args: &GetArgs, sources: Vec<Source>, blobs: &BlobStore, context: &Context) -> Result<TransferReport> {
    let alone = sources.len() == 1;
    let (mut files, mut folders, mut taken) = (Vec::new(), Vec::new(), std::collections::HashSet::new());
    for source in sources {
        let name = match &source {
            Source::Blob(meta) => Some(meta.path.file_name().to_owned()),
            Source::Below(Some(path)) if !alone => Some(path.file_name().to_owned()),
            _ => None,
        };
        let target = name.as_ref().map_or_else(|| args.local.clone(), |name| args.local.join(name));
        if name.is_some() && !taken.insert(target.clone()) {
            return Err(Error::invalid(format!("two of the blobs would be {}: get them one at a time", target.display())));
        }
        match source {
            Source::Blob(meta) => files.push((meta, target)),
            source => folders.push((source, target)),
        }
    }
    let mut report = TransferReport::default();
    if !files.is_empty() {
        let bar = progress::bytes(&context.out);
        let options = args.many.options(None, PutOptions::default(), &bar, context)?;
        report = report.and(blobs.download_files(files, &options).await?);
        bar.finish_and_clear();
    }
    for (source, target) in folders {
        let bar = progress::bytes(&context.out);
        let glob = if let Source::Glob(glob) = &source { Some(glob.clone()) } else { None };
        let options = args.many.options(glob, PutOptions::default(), &bar, context)?;
        let next = blobs.download_dir(source.base()?.as_ref(), &target, &options).await?;
        bar.finish_and_clear();
        if next.files + next.failed == 0 {
            return Err(source.nothing());
        }
        report = report.and(next);
    }
    Ok(report)
}
