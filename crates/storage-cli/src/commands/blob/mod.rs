//! `storage blob`.

mod across;
mod get;
mod list;
mod many;
mod pattern;
mod place;
mod put;
mod report;
mod source;
mod sync;

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use storage_core::{BlobMeta, BlobPath, BlobStore, SignedAccess};

use self::get::GetArgs;
use self::list::LsArgs;
use self::many::{CopyArgs, RmArgs};
use self::put::PutArgs;
use self::sync::SyncArgs;
use crate::args::duration;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Out, size, time};

#[derive(Debug, Subcommand)]
pub(crate) enum BlobCommand {
    /// Write files and folders (`-`: stdin) as blobs
    Put(PutArgs),
    /// Read blobs into files and folders (`-`: stdout)
    Get(GetArgs),
    /// List blobs
    Ls(LsArgs),
    /// Remove blobs
    Rm(RmArgs),
    /// Copy blobs, within a store or from one to another
    Cp(CopyArgs),
    /// Move blobs, within a store or from one to another
    Mv(CopyArgs),
    /// Show size, time, mark and attributes of blobs
    Stat {
        /// The blobs
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<BlobPath>,
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
    /// Make one side the same as the other: a local folder and blobs, or blobs of two stores
    Sync(SyncArgs),
}

pub(crate) async fn run(command: BlobCommand, context: &Context) -> Result<(), Failure> {
    // These open what they need, which may be other stores than the configured one.
    let command = match command {
        BlobCommand::Cp(args) => return many::copy(&args, false, context).await,
        BlobCommand::Mv(args) => return many::copy(&args, true, context).await,
        BlobCommand::Sync(args) => return sync::sync(args, context).await,
        command => command,
    };
    let (out, blobs) = (&context.out, context.blobs().await?);
    match command {
        BlobCommand::Put(args) => put::put(args, &blobs, context).await,
        BlobCommand::Get(args) => get::get(args, &blobs, context).await,
        BlobCommand::Ls(args) => list::list(&args, &blobs, out).await,
        BlobCommand::Rm(args) => many::remove(&args, &blobs, context).await,
        BlobCommand::Stat { paths } => {
            for (index, path) in paths.iter().enumerate() {
                if index > 0 && !out.is_json() {
                    out.line("")?;
                }
                stat(&blobs.head(path).await?, &blobs.uri(path)?, out)?;
            }
            Ok(())
        }
        BlobCommand::Url { path, expires, put } => url(&path, expires, put, &blobs, out).await,
        BlobCommand::Cp(_) | BlobCommand::Mv(_) | BlobCommand::Sync(_) => Ok(()),
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
