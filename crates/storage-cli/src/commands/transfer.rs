//! `storage blob put`, `get` and `sync`: files and folders in and out.

use std::collections::HashSet;
use std::path::Path;

use clap::{Args, ValueHint};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use storage_core::{
    BlobBody, BlobMeta, BlobPath, BlobStore, ByteStream, ETag, Error, ErrorKind, PutMode, PutOptions, Result, TransferOptions,
    TransferReport,
};
use tokio::io::AsyncReadExt as _;

use super::blob::{LOCAL, Local, json_meta, prefix_of};
use crate::args::pair;
use crate::exit::Failure;
use crate::output::{Out, count, size};
use crate::progress;

/// How many bytes of stdin are taken at once.
const PIECE: usize = 1 << 18;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  storage blob put report.pdf reports/2026/report.pdf
  storage blob put ./site site/                         a folder, with everything in it
  pg_dump app | storage blob put - backups/app.sql --no-clobber")]
pub(crate) struct PutArgs {
    /// A file, a folder, or `-` for stdin
    #[arg(value_hint = LOCAL)]
    local: Local,
    /// The blob's path; with a slash at its end: below it, under the file's own name
    path: String,
    /// Fail if there is a blob already
    #[arg(long)]
    no_clobber: bool,
    /// Replace the blob with this mark only (see stat)
    #[arg(long, value_name = "ETAG", conflicts_with = "no_clobber")]
    if_match: Option<String>,
    /// What kind of data it is: application/pdf
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// A name and a value kept beside the bytes; can be given several times
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// So many files at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parallel)]
    parallel: usize,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  storage blob get reports/2026/report.pdf .
  storage blob get backups/app.sql - | psql app
  storage blob get site ./site                          a folder, with everything in it")]
pub(crate) struct GetArgs {
    /// The blob, or the path above the blobs
    path: String,
    /// A file, a folder, or `-` for stdout
    #[arg(value_hint = LOCAL)]
    local: Local,
    /// So many parts or files at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parallel)]
    parallel: usize,
}

#[derive(Args, Debug)]
#[command(after_help = "\
One side is a local folder, the other begins with `blob:`. What is there with the same size and a later time is left alone.

Examples:
  storage blob sync ./photos blob:photos
  storage blob sync blob:photos ./photos --delete       also remove files that are not below blob:photos")]
pub(crate) struct SyncArgs {
    /// A folder, or `blob:PATH`
    #[arg(value_hint = ValueHint::DirPath)]
    from: String,
    /// A folder, or `blob:PATH`
    #[arg(value_hint = ValueHint::DirPath)]
    to: String,
    /// Remove what the first side does not have
    #[arg(long)]
    delete: bool,
    /// So many files at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parallel)]
    parallel: usize,
}

fn parallel(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|n| (1..=256).contains(n)).ok_or_else(|| "a number from 1 to 256".into())
}

fn put_options(args: &PutArgs) -> PutOptions {
    let mut options = PutOptions::default();
    options.mode = match &args.if_match {
        Some(etag) => PutMode::Update(ETag(etag.clone())),
        None if args.no_clobber => PutMode::Create,
        None => PutMode::Overwrite,
    };
    options.attributes.content_type = args.content_type.clone();
    options.attributes.metadata = args.metadata.iter().cloned().collect();
    options
}

pub(crate) async fn put(args: PutArgs, blobs: &BlobStore, out: &Out) -> Result<(), Failure> {
    let put = put_options(&args);
    if args.local == Path::new("-") {
        let path = BlobPath::new(&*args.path)?;
        let body = BlobBody::Stream { stream: stdin_stream(), size: None };
        return uploaded(&blobs.put_with(&path, body, &put).await?, out);
    }
    let metadata = tokio::fs::metadata(&args.local).await;
    let metadata = metadata.map_err(|e| Error::from(e).with_operation("blobs.upload").with_subject(args.local.display()))?;
    let bar = progress::bytes(out);
    let options =
        TransferOptions { parallel: args.parallel, progress: progress::follow(&bar), put, ..TransferOptions::default() };
    if metadata.is_dir() {
        if args.if_match.is_some() {
            return Err(Error::invalid("--if-match is of one blob, and this is a folder").into());
        }
        let report = blobs.upload_dir(&args.local, prefix_of(&args.path)?.as_ref(), &options).await?;
        bar.finish_and_clear();
        return moved("wrote", &report, out);
    }
    let path = match args.path.is_empty() || args.path.ends_with('/') {
        true => below(prefix_of(&args.path)?.as_ref(), &file_name(&args.local)?)?,
        false => BlobPath::new(&*args.path)?,
    };
    let meta = blobs.upload_file(&args.local, &path, &options).await?;
    bar.finish_and_clear();
    uploaded(&meta, out)
}

fn file_name(local: &Path) -> Result<String> {
    let name = local.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| Error::invalid(format!("{} has no name that a blob can have: name the blob", local.display())))
}

fn below(prefix: Option<&BlobPath>, name: &str) -> Result<BlobPath> {
    prefix.map_or_else(|| BlobPath::new(name), |prefix| prefix.join(name))
}

fn uploaded(meta: &BlobMeta, out: &Out) -> Result<(), Failure> {
    out.done(&json_meta(meta), || format!("wrote `{}` ({})", meta.path, size(meta.size)))
}

fn moved(verb: &str, report: &TransferReport, out: &Out) -> Result<(), Failure> {
    let TransferReport { files, bytes, skipped } = *report;
    out.done(&json!({"files": files, "bytes": bytes, "skipped": skipped}), || {
        let skipped = if skipped > 0 { format!(", {} there already", count(skipped, "was", "were")) } else { String::new() };
        format!("{verb} {} ({}){skipped}", count(files, "file", "files"), size(bytes))
    })
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

pub(crate) async fn get(args: GetArgs, blobs: &BlobStore, out: &Out) -> Result<(), Failure> {
    let prefix = prefix_of(&args.path)?;
    if args.local == Path::new("-") {
        let path = prefix.ok_or_else(|| Error::invalid("name one blob to write to stdout"))?;
        let mut pieces = blobs.get_with(&path, &storage_core::GetOptions::default()).await?.into_stream();
        while let Some(piece) = pieces.try_next().await? {
            out.bytes(&piece)?;
        }
        return out.flush();
    }
    let bar = progress::bytes(out);
    let options = TransferOptions { parallel: args.parallel, progress: progress::follow(&bar), ..TransferOptions::default() };
    let found = match &prefix {
        Some(path) if !args.path.ends_with('/') => match blobs.head(path).await {
            Ok(_) => Some(path),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        },
        _ => None,
    };
    if let Some(path) = found {
        let into_folder = args.local.is_dir() || args.local.as_os_str().as_encoded_bytes().ends_with(b"/");
        let target = if into_folder { args.local.join(path.file_name()) } else { args.local.clone() };
        let meta = blobs.download_file(path, &target, &options).await?;
        bar.finish_and_clear();
        return out.done(&json_meta(&meta), || format!("wrote {} ({})", target.display(), size(meta.size)));
    }
    let report = blobs.download_dir(prefix.as_ref(), &args.local, &options).await?;
    bar.finish_and_clear();
    if report.files == 0 {
        return Err(Error::not_found(format!("there is no blob `{}`, and none below it", args.path)).into());
    }
    moved("wrote", &report, out)
}

enum Side<'a> {
    Folder(&'a Path),
    Blobs(Option<BlobPath>),
}

fn side(text: &str) -> Result<Side<'_>> {
    match text.strip_prefix("blob:") {
        Some(path) => prefix_of(path).map(Side::Blobs),
        None => Ok(Side::Folder(Path::new(text))),
    }
}

pub(crate) async fn sync(args: SyncArgs, blobs: &BlobStore, out: &Out) -> Result<(), Failure> {
    let bar = progress::bytes(out);
    let options = TransferOptions {
        parallel: args.parallel,
        skip_unchanged: true,
        progress: progress::follow(&bar),
        ..TransferOptions::default()
    };
    let (report, removed) = match (side(&args.from)?, side(&args.to)?) {
        (Side::Folder(folder), Side::Blobs(prefix)) => {
            let report = blobs.upload_dir(folder, prefix.as_ref(), &options).await?;
            (report, if args.delete { remove_blobs(folder, prefix, blobs).await? } else { 0 })
        }
        (Side::Blobs(prefix), Side::Folder(folder)) => {
            let report = blobs.download_dir(prefix.as_ref(), folder, &options).await?;
            if report.files + report.skipped == 0 {
                // A mistyped path must not empty a folder.
                return Err(Error::not_found(format!("there is nothing at {}", args.from)).into());
            }
            (report, if args.delete { remove_files(folder, prefix, blobs).await? } else { 0 })
        }
        _ => return Err(Error::invalid("one side is a local folder, the other is written `blob:PATH`").into()),
    };
    bar.finish_and_clear();
    let TransferReport { files, bytes, skipped } = report;
    out.done(&json!({"files": files, "bytes": bytes, "skipped": skipped, "removed": removed}), || {
        let removed = if removed > 0 { format!(", {removed} removed") } else { String::new() };
        format!("{} written ({}), {skipped} there already{removed}", count(files, "file", "files"), size(bytes))
    })
}

fn local_path(folder: &Path, relative: &BlobPath) -> Local {
    relative.segments().fold(folder.to_owned(), |folder, segment| folder.join(segment))
}

fn relative(meta: &BlobMeta, prefix: Option<&BlobPath>) -> BlobPath {
    prefix.and_then(|prefix| meta.path.below(prefix)).unwrap_or_else(|| meta.path.clone())
}

/// Removes the blobs that the folder does not have.
async fn remove_blobs(folder: &Path, prefix: Option<BlobPath>, blobs: &BlobStore) -> Result<u64> {
    let mut all = blobs.list_all(prefix.clone());
    let mut removed = 0;
    while let Some(meta) = all.try_next().await? {
        let file = tokio::fs::metadata(local_path(folder, &relative(&meta, prefix.as_ref()))).await;
        let gone = match file {
            Ok(file) => !file.is_file(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(error.into()),
        };
        if gone {
            removed += u64::from(blobs.delete(&meta.path).await?);
        }
    }
    Ok(removed)
}

/// Removes the files that are no blobs.
async fn remove_files(folder: &Path, prefix: Option<BlobPath>, blobs: &BlobStore) -> Result<u64> {
    let mut wanted = HashSet::new();
    let mut all = blobs.list_all(prefix.clone());
    while let Some(meta) = all.try_next().await? {
        wanted.insert(local_path(folder, &relative(&meta, prefix.as_ref())));
    }
    let (mut folders, mut removed) = (vec![folder.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        let mut entries = tokio::fs::read_dir(&folder).await.map_err(|e| Error::from(e).with_subject(folder.display()))?;
        while let Some(entry) = entries.next_entry().await? {
            // A link is removed as a link, and never followed: what it leads to is not ours.
            if entry.file_type().await?.is_dir() {
                folders.push(entry.path());
            } else if !wanted.contains(&entry.path()) {
                tokio::fs::remove_file(entry.path()).await.map_err(|e| Error::from(e).with_subject(entry.path().display()))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
