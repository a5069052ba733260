//! `storage blob`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use futures::TryStreamExt as _;
use serde_json::json;
use storage_core::{BlobEntry, BlobMeta, BlobPath, BlobStore, Error, ErrorKind, ListOptions, PutMode, SignedAccess};

use super::transfer::{self, GetArgs, PutArgs, SyncArgs};
use crate::args::duration;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Out, count, size, time};

#[derive(Debug, Subcommand)]
pub(crate) enum BlobCommand {
    /// Write a file or a folder (`-`: stdin) as a blob
    Put(PutArgs),
    /// Read a blob, or all below a path, into a file or a folder (`-`: stdout)
    Get(GetArgs),
    /// List blobs
    Ls {
        /// Those below this path; without it: all
        prefix: Option<String>,
        /// Everything below, not one level alone
        #[arg(long, short)]
        recursive: bool,
    },
    /// Remove blobs
    Rm(RmArgs),
    /// Copy a blob
    Cp(CopyArgs),
    /// Move a blob
    Mv(CopyArgs),
    /// Show size, time, mark and attributes of a blob
    Stat {
        /// The blob
        path: BlobPath,
    },
    /// Print the address of a blob for other programs; with --expires: one that works without credentials
    Url {
        /// The blob
        path: BlobPath,
        /// A signed URL that is good for so long (where the backend has them)
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires: Option<Duration>,
        /// One to write the blob with, rather than to read it
        #[arg(long, requires = "expires")]
        put: bool,
    },
    /// Make one side the same as the other: a local folder and the blobs below a path
    Sync(SyncArgs),
}

#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// The blobs
    #[arg(required = true)]
    paths: Vec<String>,
    /// And everything below
    #[arg(long, short)]
    recursive: bool,
    /// Fine if it is not there
    #[arg(long)]
    missing_ok: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// The blob
    from: BlobPath,
    /// Its new path
    to: BlobPath,
    /// Fail if there is a blob at the new path
    #[arg(long)]
    no_clobber: bool,
}

/// Local files and folders.
pub(crate) type Local = PathBuf;
pub(crate) const LOCAL: ValueHint = ValueHint::AnyPath;

pub(crate) async fn run(command: BlobCommand, context: &Context) -> Result<(), Failure> {
    let (out, blobs) = (&context.out, context.blobs().await?);
    match command {
        BlobCommand::Put(args) => transfer::put(args, &blobs, out).await,
        BlobCommand::Get(args) => transfer::get(args, &blobs, out).await,
        BlobCommand::Ls { prefix, recursive } => list(prefix.as_deref(), recursive, &blobs, out).await,
        BlobCommand::Rm(args) => remove(&args, &blobs, out).await,
        BlobCommand::Cp(args) => copy(&args, false, &blobs, out).await,
        BlobCommand::Mv(args) => copy(&args, true, &blobs, out).await,
        BlobCommand::Stat { path } => stat(&blobs.head(&path).await?, &blobs.uri(&path)?, out),
        BlobCommand::Url { path, expires, put } => url(&path, expires, put, &blobs, out).await,
        BlobCommand::Sync(args) => transfer::sync(args, &blobs, out).await,
    }
}

/// A path as people type it: slashes at its ends say nothing; nothing at all is everything.
pub(crate) fn prefix_of(text: &str) -> storage_core::Result<Option<BlobPath>> {
    let trimmed = text.trim_matches('/');
    if trimmed.is_empty() { Ok(None) } else { BlobPath::new(trimmed).map(Some) }
}

pub(crate) fn json_meta(meta: &BlobMeta) -> serde_json::Value {
    let mut object = json!({"path": meta.path, "size": meta.size, "modified_at": meta.modified_at, "etag": meta.etag});
    if !meta.attributes.is_empty() {
        object["attributes"] = json!(meta.attributes);
    }
    object
}

async fn list(prefix: Option<&str>, recursive: bool, blobs: &BlobStore, out: &Out) -> Result<(), Failure> {
    let prefix = prefix.map_or(Ok(None), prefix_of)?;
    let options = ListOptions { prefix: prefix.clone(), one_level: !recursive, start_after: None };
    let mut listing = out.listing([">SIZE", "MODIFIED", "PATH"]);
    // A path may be a blob and have blobs below it.
    if let Some(path) = &prefix {
        match blobs.head(path).await {
            Ok(meta) => add(&mut listing, &BlobEntry::Blob(meta))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut entries = blobs.list(&options);
    while let Some(entry) = entries.try_next().await? {
        add(&mut listing, &entry)?;
    }
    match (listing.end()?, prefix) {
        (0, Some(prefix)) => Err(Error::not_found(format!("there is no blob `{prefix}`, and none below it")).into()),
        (0, None) if !out.is_json() => {
            out.note("no blobs yet: `storage blob put FILE PATH` writes one");
            Ok(())
        }
        _ => Ok(()),
    }
}

fn add(listing: &mut crate::output::Listing<'_>, entry: &BlobEntry) -> Result<(), Failure> {
    match entry {
        BlobEntry::Blob(meta) => {
            listing.row(&json_meta(meta), || vec![size(meta.size), time(meta.modified_at), meta.path.to_string()])
        }
        BlobEntry::Prefix(path) => {
            listing.row(&json!({"prefix": path}), || vec![String::new(), String::new(), format!("{path}/")])
        }
    }
}

async fn remove(args: &RmArgs, blobs: &BlobStore, out: &Out) -> Result<(), Failure> {
    let mut removed = 0_u64;
    for text in &args.paths {
        let prefix = prefix_of(text)?;
        let before = removed;
        if let Some(path) = &prefix {
            removed += u64::from(blobs.delete(path).await?);
        }
        match (args.recursive, &prefix) {
            (true, prefix) => removed += remove_below(prefix.clone(), blobs).await?,
            (false, None) => return Err(Error::invalid("`/` is everything: say --recursive to remove it").into()),
            (false, Some(_)) => {}
        }
        if removed == before && !args.missing_ok {
            let hint = if args.recursive { ", and none below it" } else { "" };
            return Err(Error::not_found(format!("there is no blob `{text}`{hint}")).into());
        }
    }
    out.done(&json!({"removed": removed}), || format!("removed {}", count(removed, "blob", "blobs")))
}

async fn remove_below(prefix: Option<BlobPath>, blobs: &BlobStore) -> Result<u64, Error> {
    const PARALLEL: usize = 16;
    let removals = blobs.list_all(prefix).map_ok(|meta| async move { blobs.delete(&meta.path).await });
    removals.try_buffer_unordered(PARALLEL).try_fold(0, async |sum, removed| Ok(sum + u64::from(removed))).await
}

async fn copy(args: &CopyArgs, and_remove: bool, blobs: &BlobStore, out: &Out) -> Result<(), Failure> {
    let CopyArgs { from, to, no_clobber } = args;
    let meta = match (and_remove, no_clobber) {
        (true, false) => blobs.rename(from, to).await?,
        (_, no_clobber) => {
            let before = blobs.head(from).await?;
            let mode = if *no_clobber { PutMode::Create } else { PutMode::Overwrite };
            let copied = blobs.copy(from, to, &mode).await?;
            match before.etag.filter(|_| and_remove) {
                Some(etag) => blobs.delete_if(from, &etag).await?,
                None if and_remove => drop(blobs.delete(from).await?),
                None => {}
            }
            copied
        }
    };
    let verb = if and_remove { "moved" } else { "copied" };
    out.done(&json_meta(&meta), || format!("{verb} `{from}` to `{to}` ({})", size(meta.size)))
}

fn stat(meta: &BlobMeta, uri: &str, out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        let mut object = json_meta(meta);
        object["uri"] = json!(uri);
        return out.json(&object);
    }
    let attributes = &meta.attributes;
    let named = [
        ("content type", &attributes.content_type),
        ("cache control", &attributes.cache_control),
        ("content disposition", &attributes.content_disposition),
        ("content encoding", &attributes.content_encoding),
    ];
    let mut rows = vec![
        ("path", meta.path.to_string()),
        ("size", format!("{} ({} bytes)", size(meta.size), meta.size)),
        ("modified", time(meta.modified_at)),
        ("etag", meta.etag.as_ref().map_or_else(|| "-".into(), ToString::to_string)),
        ("uri", uri.to_owned()),
    ];
    rows.extend(named.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    rows.extend(attributes.metadata.iter().map(|(name, value)| (name.as_str(), value.clone())));
    out.details(rows)
}

async fn url(path: &BlobPath, expires: Option<Duration>, put: bool, blobs: &BlobStore, out: &Out) -> Result<(), Failure> {
    let url = match expires {
        None => blobs.uri(path)?,
        Some(expires) => {
            let access = if put { SignedAccess::Put } else { SignedAccess::Get };
            // The one place where a secret is printed: it is what was asked for.
            blobs.signed_url(path, access, expires).await?.expose().to_owned()
        }
    };
    if out.is_json() { out.json(&json!({"path": path, "url": url})) } else { out.line(url) }
}
