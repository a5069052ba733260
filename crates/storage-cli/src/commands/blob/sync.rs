//! `storage blob sync`.

use std::path::Path;

use clap::{Args, ValueHint};
use storage_core::{BlobPath, BlobStore, Error, PutOptions, Result, Skip, TransferOptions};

use super::prefix_of;
use super::report::{ManyArgs, finish, or_say};
use crate::context::Context;
use crate::exit::Failure;
use crate::progress;

#[derive(Args, Debug)]
#[command(after_help = "\
One side is a local folder, the other begins with `blob:`. Files of the same size are left alone where the time says that they are the same: up, where the file is not newer than the blob; down, where the file bears the blob's time, as downloaded files do.

Killed in the middle and run again, it does the rest. With --delete, what is removed goes last, and not after a failure; what is not included, or excluded, stays.

Examples:
  storage blob sync ./photos blob:photos
  storage blob sync ./photos blob:photos --exclude '*.tmp' --exclude .git --dry-run
  storage blob sync blob:photos ./photos --delete       and remove what is not in blob:photos")]
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
    /// Compare contents where sizes are the same, by reading both sides
    #[arg(long)]
    checksum: bool,
    /// Compare sizes alone
    #[arg(long, conflicts_with = "checksum")]
    size_only: bool,
    #[command(flatten)]
    many: ManyArgs,
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

pub(crate) async fn sync(args: SyncArgs, blobs: &BlobStore, context: &Context) -> Result<(), Failure> {
    let out = &context.out;
    let bar = progress::bytes(out);
    let skip = match (args.checksum, args.size_only) {
        (true, _) => Skip::SameContent,
        (_, true) => Skip::SameSize,
        _ => Skip::Unchanged,
    };
    let options = args.many.options(None, PutOptions::default(), &bar, context)?;
    let options = TransferOptions { skip, delete: args.delete, ..options };
    let work = async {
        match (side(&args.from)?, side(&args.to)?) {
            (Side::Folder(folder), Side::Blobs(prefix)) => blobs.upload_dir(folder, prefix.as_ref(), &options).await,
            (Side::Blobs(prefix), Side::Folder(folder)) => {
                let report = blobs.download_dir(prefix.as_ref(), folder, &options).await?;
                if report.files + report.skipped + report.failed == 0 {
                    return Err(Error::not_found(format!("there is nothing at {}", args.from)));
                }
                Ok(report)
            }
            (Side::Blobs(_), Side::Blobs(_)) => {
                Err(Error::invalid("both sides are blobs: `storage blob cp -r` copies within a store"))
            }
            _ => Err(Error::invalid("one side is a local folder, the other is written `blob:PATH`")),
        }
    };
    let report = or_say("the same command does the rest", out, work).await?;
    bar.finish_and_clear();
    if args.delete && report.failed > 0 {
        out.note("storage: nothing was removed, since some files failed");
    }
    finish(&report, args.many.dry_run, out)
}
