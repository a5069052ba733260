//! `storage blob rm`, `cp` and `mv`.

use std::num::NonZeroU64;
use std::time::Instant;

use clap::Args;
use futures::TryStreamExt as _;
use serde_json::json;
use storage_core::{BlobMeta, BlobPath, BlobStore, Error, PutMode, Result, TransferReport};

use super::place::{PLACES, Place};
use super::report::{complain, parallel, seconds};
use super::source::{Source, below, join};
use super::{json_meta, prefix_of};
use crate::args::rate;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Out, count, printable, size};

/// How many errors are kept; the others are counted.
const MAX_FAILURES: usize = 1000;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  storage blob rm reports/old.pdf
  storage blob rm 'logs/2025-*.gz' --dry-run            what would go?
  storage blob rm -r tmp")]
pub(crate) struct RmArgs {
    /// Blobs, or patterns in quotes
    #[arg(required = true)]
    paths: Vec<String>,
    /// And everything below
    #[arg(long, short)]
    recursive: bool,
    /// Fine if it is not there
    #[arg(long)]
    missing_ok: bool,
    /// So many at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = parallel)]
    parallel: usize,
    /// Say what would be removed, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

#[derive(Args, Debug)]
#[command(after_help = format!("\
Examples:
  storage blob cp a.txt b.txt
  storage blob cp 'in/*.csv' archive/2026               several: below the path, each under its name
  storage blob mv -r drafts published                   everything below drafts
  storage blob cp -r in s3://archive/2026               to another store
  storage blob mv 's3://archive/2025/*.gz' old/         and from there

{PLACES}"))]
pub(crate) struct CopyArgs {
    /// Blobs, or patterns in quotes: paths, or URLs of other stores
    #[arg(required = true)]
    pub(crate) from: Vec<String>,
    /// The new path, or URL; with a slash at its end, or for several blobs: the path above them
    pub(crate) to: String,
    /// What is below the paths
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// Fail where there is a blob at the new path
    #[arg(long)]
    pub(crate) no_clobber: bool,
    /// So many at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = parallel)]
    pub(crate) parallel: usize,
    /// From store to store: so many bytes a second at most (512K, 10M, 1G)
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) bwlimit: Option<NonZeroU64>,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

/// What was done to many blobs.
#[derive(Default)]
pub(crate) struct Tally {
    done: u64,
    bytes: u64,
    failed: u64,
    failures: Vec<Error>,
}

impl From<TransferReport> for Tally {
    fn from(report: TransferReport) -> Self {
        Self { done: report.files, bytes: report.bytes, failed: report.failed, failures: report.failures }
    }
}

impl Tally {
    /// Counts one; `None`: there was nothing to do.
    fn count(&mut self, outcome: Result<Option<u64>>) {
        match outcome {
            Ok(Some(bytes)) => {
                self.done += 1;
                self.bytes += bytes;
            }
            Ok(None) => {}
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < MAX_FAILURES {
                    self.failures.push(error);
                }
            }
        }
    }

    /// Says how many were `verb`, under this name for programs.
    pub(crate) fn finish(&self, verb: &str, dry_run: bool, started: Instant, out: &Out) -> Result<(), Failure> {
        let mut object =
            json!({verb: self.done, "bytes": self.bytes, "failed": self.failed, "seconds": seconds(started.elapsed())});
        if dry_run {
            object["dry_run"] = json!(true);
        }
        out.done(&object, || {
            let would = if dry_run { "would be: " } else { "" };
            let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
            format!("{would}{verb} {} ({}){failed}", count(self.done, "blob", "blobs"), size(self.bytes))
        })?;
        complain(&self.failures, self.failed, out)
    }
}

fn tell(dry_run: bool, context: &Context, path: &BlobPath, to: Option<&BlobPath>) -> Result<(), Failure> {
    if !dry_run && context.verbosity() == 0 {
        return Ok(());
    }
    if context.out.is_json() {
        return context.out.json(&json!({"path": path, "to": to}));
    }
    let to = to.map_or_else(String::new, |to| format!(" to {}", printable(to.as_str())));
    context.out.line(format!("{}{to}", printable(path.as_str())))
}

pub(crate) async fn remove(args: &RmArgs, blobs: &BlobStore, context: &Context) -> Result<(), Failure> {
    let (mut tally, started) = (Tally::default(), Instant::now());
    for text in &args.paths {
        let before = tally.done + tally.failed;
        let source = Source::find(text, blobs).await?;
        match &source {
            Source::Below(None) if !args.recursive => {
                return Err(Error::invalid("`/` is everything: say --recursive to remove it").into());
            }
            Source::Below(Some(path)) if !args.recursive && !args.missing_ok => {
                return Err(
                    Error::not_found(format!("there is no blob `{path}`; --recursive removes what is below a path")).into()
                );
            }
            Source::Below(Some(_)) if !args.recursive => {}
            source => remove_all(args, source, blobs, context, &mut tally).await?,
        }
        if let (true, Source::Blob(meta)) = (args.recursive, &source) {
            remove_all(args, &Source::Below(Some(meta.path.clone())), blobs, context, &mut tally).await?;
        }
        if tally.done + tally.failed == before && !args.missing_ok {
            return Err(source.nothing().into());
        }
    }
    tally.finish("removed", args.dry_run, started, &context.out)
}

async fn remove_all(
    args: &RmArgs,
    source: &Source,
    blobs: &BlobStore,
    context: &Context,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let removals = source.blobs(blobs)?.map_err(Failure::from).map_ok(|meta| async move {
        let removed = if args.dry_run { Ok(true) } else { blobs.delete(&meta.path).await };
        Ok((removed.map(|removed| removed.then_some(meta.size)), meta.path))
    });
    let mut removals = std::pin::pin!(removals.try_buffer_unordered(args.parallel));
    while let Some((outcome, path)) = removals.try_next().await? {
        if outcome.is_ok() {
            tell(args.dry_run, context, &path, None)?;
        }
        tally.count(outcome);
    }
    Ok(())
}

pub(crate) async fn copy(args: &CopyArgs, and_remove: bool, context: &Context) -> Result<(), Failure> {
    let from = args.from.iter().map(|from| Place::parse(from)).collect::<Result<Vec<_>>>()?;
    let to = Place::parse(&args.to)?;
    if to.is_elsewhere() || from.iter().any(Place::is_elsewhere) {
        return super::across::copy(args, and_remove, &from, &to, context).await;
    }
    if args.bwlimit.is_some() {
        return Err(Error::invalid("--bwlimit is of copies from store to store: within one, the store copies by itself").into());
    }
    let blobs = &context.blobs().await?;
    let (out, started) = (&context.out, Instant::now());
    let verb = if and_remove { "moved" } else { "copied" };
    let into = prefix_of(&to.path)?;
    let mut sources = Vec::new();
    for place in &from {
        sources.push(Source::find(&place.path, blobs).await?);
    }
    let named = into.as_ref().filter(|_| !to.path.ends_with('/'));
    if let ([Source::Blob(meta)], false, Some(to), false) = (&sources[..], args.recursive, named, args.dry_run) {
        let copied = copy_one(meta, to, args.no_clobber, and_remove, blobs).await?;
        return out.done(&json_meta(&copied), || format!("{verb} `{}` to `{to}` ({})", meta.path, size(copied.size)));
    }
    let mut tally = Tally::default();
    for source in &sources {
        let before = tally.done + tally.failed;
        if let Source::Below(from) = source {
            check_folder(args, source, from.as_ref(), into.as_ref())?;
        }
        let (base, named) = (source.base()?, named.filter(|_| sources.len() == 1 && matches!(source, Source::Blob(_))));
        let copies = source.blobs(blobs)?.map_err(Failure::from).map_ok(|meta| {
            let (base, into) = (&base, &into);
            async move {
                let to = named.map_or_else(|| join(into.as_ref(), below(&meta.path, base.as_ref())), |to| Ok(to.clone()));
                let copied = match &to {
                    Ok(to) if !args.dry_run => copy_one(&meta, to, args.no_clobber, and_remove, blobs).await.map(drop),
                    Ok(_) => Ok(()),
                    Err(_) => Err(Error::invalid("the new path is too long").with_subject(format!("blob `{}`", meta.path))),
                };
                Ok((copied.map(|()| Some(meta.size)), meta.path, to.ok()))
            }
        });
        let mut copies = std::pin::pin!(copies.try_buffer_unordered(args.parallel));
        while let Some((outcome, from, to)) = copies.try_next().await? {
            if outcome.is_ok() {
                tell(args.dry_run, context, &from, to.as_ref())?;
            }
            tally.count(outcome);
        }
        if tally.done + tally.failed == before {
            return Err(source.nothing().into());
        }
    }
    tally.finish(verb, args.dry_run, started, out)
}

/// A path that is no blob is taken with what is below it when that is said, and not into itself.
fn check_folder(args: &CopyArgs, source: &Source, from: Option<&BlobPath>, into: Option<&BlobPath>) -> Result<()> {
    if !args.recursive {
        let from = from.map_or("/", BlobPath::as_str);
        return Err(Error::not_found(format!("there is no blob `{from}`; --recursive takes what is below a path")));
    }
    let inside = match (from, into) {
        (None, _) => true,
        (Some(from), Some(into)) => from == into || into.below(from).is_some(),
        (Some(_), None) => false,
    };
    match inside {
        true => Err(Error::invalid(match source {
            Source::Below(None) => "everything can't be copied to a part of itself".to_owned(),
            _ => format!("`{}` can't be copied to itself, nor below itself", args.from.join(" ")),
        })),
        false => Ok(()),
    }
}

async fn copy_one(from: &BlobMeta, to: &BlobPath, no_clobber: bool, and_remove: bool, blobs: &BlobStore) -> Result<BlobMeta> {
    if and_remove && !no_clobber {
        return blobs.rename(&from.path, to).await;
    }
    let before = if and_remove { Some(blobs.head(&from.path).await?) } else { None };
    let mode = if no_clobber { PutMode::Create } else { PutMode::Overwrite };
    let copied = blobs.copy(&from.path, to, &mode).await?;
    match before {
        Some(BlobMeta { etag: Some(etag), .. }) if blobs.capabilities().conditional => blobs.delete_if(&from.path, &etag).await?,
        Some(_) => drop(blobs.delete(&from.path).await?),
        None => {}
    }
    Ok(copied)
}
