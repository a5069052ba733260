//! `storage blob sync`.

use clap::{Args, ValueHint};
use storage_core::{Error, PutOptions, Result, Skip, TransferOptions, TransferReport};

use super::place::{PLACES, Side};
use super::prefix_of;
use super::report::{ManyArgs, finish, or_say};
use crate::context::Context;
use crate::exit::Failure;
use crate::progress;

#[derive(Args, Debug)]
#[command(after_help = format!("\
A side is a local folder, or blobs. Files of the same size are left alone where the time says that they are the same: where blobs are written, what is not newer than the blob; down, where the file bears the blob's time, as downloaded files do.

{PLACES}

Killed in the middle and run again, it does the rest. With --delete, what is removed goes last, and not after a failure; what is not included, or excluded, stays.

Examples:
  storage blob sync ./photos blob:photos
  storage blob sync ./photos blob:photos --exclude '*.tmp' --exclude .git --dry-run
  storage blob sync blob:photos ./photos --delete       and remove what is not in blob:photos
  storage blob sync blob:photos s3://backup/photos      from store to store
  storage blob sync ./photos file:///mnt/disk#photos --bwlimit 10M"))]
pub(crate) struct SyncArgs {
    /// A folder, `blob:PATH`, or the URL of another store
    #[arg(value_hint = ValueHint::DirPath)]
    from: String,
    /// A folder, `blob:PATH`, or the URL of another store
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

pub(crate) async fn sync(args: SyncArgs, context: &Context) -> Result<(), Failure> {
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
        match (Side::parse(&args.from)?, Side::parse(&args.to)?) {
            (Side::Folder(folder), Side::Blobs(to)) => {
                to.open_target(context).await?.upload_dir(folder, prefix_of(&to.path)?.as_ref(), &options).await
            }
            (Side::Blobs(from), Side::Folder(folder)) => {
                let report =
                    from.open_source(context).await?.download_dir(prefix_of(&from.path)?.as_ref(), folder, &options).await?;
                something(report, &args.from)
            }
            (Side::Blobs(from), Side::Blobs(to)) => {
                let target = to.open_target(context).await?;
                let source = from.open_source(context).await?;
                let (from, to) = (prefix_of(&from.path)?, prefix_of(&to.path)?);
                let report = source.copy_dir_to(from.as_ref(), &target, to.as_ref(), &options).await?;
                something(report, &args.from)
            }
            (Side::Folder(_), Side::Folder(_)) => {
                Err(Error::invalid("both sides are local folders: one is written `blob:PATH`, or as the URL of a store"))
            }
        }
    };
    let report = or_say("the same command does the rest", out, work).await?;
    bar.finish_and_clear();
    if args.delete && report.failed > 0 {
        out.note("storage: nothing was removed, since some files failed");
    }
    finish(&report, args.many.dry_run, out)
}

/// There was something to look at.
fn something(report: TransferReport, from: &str) -> Result<TransferReport> {
    match report.files + report.skipped + report.failed {
        0 => Err(Error::not_found(format!("there is nothing at {}", from.split('?').next().unwrap_or(from)))),
        _ => Ok(report),
    }
}
