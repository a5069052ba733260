//! `storage blob put`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueHint};
use futures::{StreamExt as _, TryStreamExt as _};
use storage_core::{
    BlobBody, BlobMeta, BlobPath, BlobStore, ByteStream, ETag, Error, PutMode, PutOptions, Result, TransferReport,
};
use tokio::io::AsyncReadExt as _;

use super::pattern::{Glob, is_pattern};
use super::report::{ManyArgs, finish, or_say, pace, seconds};
use super::source::join;
use super::{json_meta, prefix_of};
use crate::args::pair;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Out, size};
use crate::progress;

/// How many bytes of stdin are taken at once.
const PIECE: usize = 1 << 18;

#[derive(Args, Debug)]
#[command(after_help = "\
A blob is written wholly or not at all: what is broken off begins anew, file by file. Files that fail don't keep the others from it. Links are followed; pipes, sockets and devices are errors.

Examples:
  storage blob put report.pdf reports/2026/report.pdf
  storage blob put *.csv in/                            several files, under their own names
  storage blob put ./site site                          what is in a folder, with everything below
  storage blob put 'data/**/*.csv' in                   what matches, with the folders below data
  pg_dump app | storage blob put - backups/app.sql --no-clobber")]
pub(crate) struct PutArgs {
    /// Files, folders, patterns in quotes, or `-` for stdin
    #[arg(required = true, value_hint = ValueHint::AnyPath)]
    local: Vec<PathBuf>,
    /// The blob's path; with a slash at its end, or for several files: the path above them
    path: String,
    /// Fail where there is a blob already
    #[arg(long)]
    no_clobber: bool,
    /// Replace the blob with this mark only (see stat)
    #[arg(long, value_name = "ETAG", conflicts_with = "no_clobber")]
    if_match: Option<String>,
    /// What kind of data it is: application/pdf
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// How long caches may keep it: max-age=3600
    #[arg(long, value_name = "RULE")]
    cache_control: Option<String>,
    /// A name and a value kept beside the bytes; can be given several times
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    #[command(flatten)]
    many: ManyArgs,
}

impl PutArgs {
    fn options(&self) -> PutOptions {
        let mode = match &self.if_match {
            Some(etag) => PutMode::Update(ETag(etag.clone())),
            None if self.no_clobber => PutMode::Create,
            None => PutMode::Overwrite,
        };
        let mut options = PutOptions::default().mode(mode);
        options.attributes.content_type = self.content_type.clone();
        options.attributes.cache_control = self.cache_control.clone();
        options.attributes.metadata = self.metadata.iter().cloned().collect();
        options
    }
}

/// What an argument stands for.
enum Local {
    File(PathBuf),
    Folder(PathBuf),
    Glob(Glob),
}

pub(crate) async fn put(args: PutArgs, blobs: &BlobStore, context: &Context) -> Result<(), Failure> {
    let out = &context.out;
    if args.local.iter().any(|local| local == Path::new("-")) {
        if args.local.len() > 1 {
            return Err(Error::invalid("`-` is stdin, and stands alone").into());
        }
        return or_say("nothing was written", out, put_stdin(&args, blobs, out)).await;
    }
    let mut sources = Vec::new();
    for local in &args.local {
        // A mistyped name is noticed before anything is written.
        sources.push(look_at(local).await?);
    }
    let into = prefix_of(&args.path)?;
    let named = !args.path.is_empty() && !args.path.ends_with('/');
    match &sources[..] {
        [Local::File(file)] if named => put_one(&args, file, BlobPath::new(&*args.path)?, blobs, context).await,
        [Local::File(file)] => put_one(&args, file, join(into.as_ref(), &file_name(file)?)?, blobs, context).await,
        _ if args.if_match.is_some() => Err(Error::invalid("--if-match is of one blob, and these are several").into()),
        _ => {
            let work = put_many(&args, sources, into, blobs, context);
            let hint = "what was finished is there; `storage blob sync` leaves that alone and does the rest";
            finish(&or_say(hint, out, work).await?, args.many.dry_run, out)
        }
    }
}

async fn look_at(local: &Path) -> Result<Local> {
    let error = match tokio::fs::metadata(local).await {
        Ok(found) if found.is_dir() => return Ok(Local::Folder(local.to_owned())),
        Ok(_) => return Ok(Local::File(local.to_owned())),
        Err(error) => error,
    };
    match local.to_str() {
        Some(text) if is_pattern(text) => Glob::new(text).map(Local::Glob),
        _ => Err(Error::from(error).with_operation("blobs.upload").with_subject(format!("file {}", local.display()))),
    }
}

async fn put_one(args: &PutArgs, file: &Path, path: BlobPath, blobs: &BlobStore, context: &Context) -> Result<(), Failure> {
    let (out, started) = (&context.out, Instant::now());
    let bar = progress::bytes(out);
    let options = args.many.options(None, args.options(), &bar, context)?;
    if options.dry_run {
        let report = blobs.upload_files([(file.to_owned(), path)], &options).await?;
        return finish(&report, true, out);
    }
    let meta = or_say("nothing was written; begin again", out, blobs.upload_file_with(file, &path, &options)).await?;
    bar.finish_and_clear();
    uploaded(&meta, started, out)
}

fn uploaded(meta: &BlobMeta, started: Instant, out: &Out) -> Result<(), Failure> {
    let mut object = json_meta(meta);
    object["seconds"] = seconds(started.elapsed());
    out.done(&object, || format!("wrote `{}` ({}){}", meta.path, size(meta.size), pace(meta.size, started.elapsed())))
}

async fn put_many(
    args: &PutArgs,
    sources: Vec<Local>,
    into: Option<BlobPath>,
    blobs: &BlobStore,
    context: &Context,
) -> Result<TransferReport> {
    let alone = sources.len() == 1;
    let (mut files, mut folders, mut taken) = (Vec::new(), Vec::new(), HashSet::new());
    for source in sources {
        let (local, prefix, glob) = match source {
            Local::Folder(folder) if alone => (folder, into.clone(), None),
            Local::Glob(glob) => {
                let base = if glob.base.is_empty() { "." } else { &glob.base };
                (PathBuf::from(base), into.clone(), Some(glob))
            }
            Local::File(local) | Local::Folder(local) => {
                let path = join(into.as_ref(), &file_name(&local)?)?;
                if !taken.insert(path.clone()) {
                    return Err(Error::invalid(format!(
                        "two of the files would be `{path}`: put their folder, or one at a time"
                    )));
                }
                if local.is_dir() {
                    (local, Some(path), None)
                } else {
                    files.push((local, path));
                    continue;
                }
            }
        };
        folders.push((local, prefix, glob));
    }
    let mut report = TransferReport::default();
    if !files.is_empty() {
        let bar = progress::bytes(&context.out);
        let options = args.many.options(None, args.options(), &bar, context)?;
        report = report.and(blobs.upload_files(files, &options).await?);
        bar.finish_and_clear();
    }
    for (local, prefix, glob) in folders {
        let bar = progress::bytes(&context.out);
        let matched = glob.is_some();
        let options = args.many.options(glob, args.options(), &bar, context)?;
        let next = blobs.upload_dir(&local, prefix.as_ref(), &options).await?;
        bar.finish_and_clear();
        if matched && next.files + next.failed == 0 {
            return Err(Error::not_found(format!("no file below {} matches the pattern", local.display())));
        }
        report = report.and(next);
    }
    Ok(report)
}

fn file_name(local: &Path) -> Result<String> {
    // `..` and `.` have the name of the folder that they are.
    let whole = if local.file_name().is_some() { local.to_owned() } else { local.canonicalize().unwrap_or_default() };
    let name = whole.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| Error::invalid(format!("{} has no name that a blob can have: name the blob", local.display())))
}

async fn put_stdin(args: &PutArgs, blobs: &BlobStore, out: &Out) -> Result<(), Failure> {
    if args.many.dry_run {
        return Err(Error::invalid("--dry-run is of files: what stdin holds is known when it has been read").into());
    }
    if args.many.bwlimit.is_some() {
        return Err(Error::invalid("--bwlimit is of files, not of stdin").into());
    }
    let (path, started) = (BlobPath::new(&*args.path)?, Instant::now());
    let bar = progress::flow(out);
    let counted = bar.clone();
    let stream = stdin_stream().inspect_ok(move |piece| counted.inc(piece.len() as u64)).boxed();
    let meta = blobs.put_with(&path, BlobBody::Stream { stream, size: None }, &args.options()).await?;
    bar.finish_and_clear();
    uploaded(&meta, started, out)
}

fn stdin_stream() -> ByteStream {
    futures::stream::try_unfold(tokio::io::stdin(), async |mut stdin| {
        let mut piece = bytes::BytesMut::with_capacity(PIECE);
        // Small reads of a slow pipe are put together, so that pieces are of a size worth storing.
        while piece.len() < PIECE {
            if stdin.read_buf(&mut piece).await.map_err(|e| Error::from(e).with_subject("stdin"))? == 0 {
                break;
            }
        }
        Ok((!piece.is_empty()).then(|| (piece.freeze(), stdin)))
    })
    .boxed()
}
