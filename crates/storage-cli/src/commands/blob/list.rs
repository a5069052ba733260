//! `storage blob ls`.

use clap::Args;
use futures::TryStreamExt as _;
use serde_json::json;
use storage_core::{BlobEntry, BlobStore, ListOptions, Result};

use super::json_meta;
use super::source::Source;
use crate::exit::Failure;
use crate::output::{Listing, Out, count, size, time};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  storage blob ls reports
  storage blob ls 'data/**/*.csv' --summarize
  storage blob ls -r --json | jq -r .path               paths alone")]
pub(crate) struct LsArgs {
    /// Those below these paths, or patterns in quotes; without: all
    paths: Vec<String>,
    /// Everything below, not one level alone
    #[arg(long, short)]
    recursive: bool,
    /// And how many there are, and how large together
    #[arg(long)]
    summarize: bool,
}

#[derive(Default)]
struct Sum {
    blobs: u64,
    bytes: u64,
}

pub(crate) async fn list(args: &LsArgs, blobs: &BlobStore, out: &Out) -> Result<(), Failure> {
    let (mut listing, mut sum) = (out.listing([">SIZE", "MODIFIED", "PATH"]), Sum::default());
    let everything = ["".to_owned()];
    let paths = if args.paths.is_empty() { &everything[..] } else { &args.paths[..] };
    let mut shown = 0;
    for text in paths {
        let source = Source::find(text, blobs).await?;
        let before = shown;
        // A path may be a blob and have blobs below it.
        if let Source::Blob(_) | Source::Glob(_) = &source {
            let mut matching = source.blobs(blobs)?;
            while let Some(meta) = matching.try_next().await? {
                shown += 1;
                add(&mut listing, &mut sum, &BlobEntry::Blob(meta))?;
            }
        }
        let below = match &source {
            Source::Blob(meta) => Some(Some(meta.path.clone())),
            Source::Below(prefix) => Some(prefix.clone()),
            Source::Glob(_) => None,
        };
        if let Some(prefix) = below {
            let mut entries = blobs.list(&ListOptions { prefix, one_level: !args.recursive, start_after: None });
            while let Some(entry) = entries.try_next().await? {
                shown += 1;
                add(&mut listing, &mut sum, &entry)?;
            }
        }
        if shown == before && !matches!(source, Source::Below(None)) {
            return Err(source.nothing().into());
        }
    }
    if listing.end()? == 0 && !out.is_json() {
        out.note("no blobs yet: `storage blob put FILE PATH` writes one");
    }
    if !args.summarize {
        return Ok(());
    }
    let Sum { blobs, bytes } = sum;
    match out.is_json() {
        true => out.json(&json!({"blobs": blobs, "bytes": bytes})),
        false => out.line(format!("{}, {} ({bytes} bytes)", count(blobs, "blob", "blobs"), size(bytes))),
    }
}

fn add(listing: &mut Listing<'_>, sum: &mut Sum, entry: &BlobEntry) -> Result<(), Failure> {
    match entry {
        BlobEntry::Blob(meta) => {
            sum.blobs += 1;
            sum.bytes += meta.size;
            listing.row(&json_meta(meta), || vec![size(meta.size), time(meta.modified_at), meta.path.to_string()])
        }
        BlobEntry::Prefix(path) => {
            listing.row(&json!({"prefix": path}), || vec![String::new(), String::new(), format!("{path}/")])
        }
    }
}
