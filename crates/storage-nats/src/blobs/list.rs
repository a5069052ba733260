//! Listing: the server keeps no order, so all that is wanted is read and sorted.

use std::collections::BTreeMap;

use chrono::{TimeDelta, Utc};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use storage_core::{BlobAttributes, BlobEntry, BlobMeta, BlobPath, ListOptions, Result};

use super::Bucket;
use super::info::ObjectInfo;
use crate::error::Fault;
use crate::stream::{Look, Walk};

/// How many traces of removed objects a listing takes away.
const TIDY: usize = 256;
/// How long such a trace stays, so that other clients that watch see it.
const SEEN: TimeDelta = TimeDelta::minutes(1);

pub(super) fn list(bucket: Bucket, options: ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
    let found = async move {
        bucket.ready().await?;
        let found = match collect(&bucket, &options).await {
            Ok(found) => found,
            Err(fault) => return Err(bucket.explain(fault).await),
        };
        Ok(stream::iter(entries(found, &options)).map(Ok))
    };
    stream::once(found)
        .flat_map(|found| match found {
            Ok(entries) => entries.boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        })
        .boxed()
}

/// The objects below the prefix, by path.
async fn collect(bucket: &Bucket, options: &ListOptions) -> Result<BTreeMap<String, BlobMeta>, Fault> {
    let infos = bucket.names.infos();
    let look = Look { filter: &infos, bodies: true, from: None };
    let mut walk = Walk::start(&bucket.inner.client, &bucket.names.stream, &look).await?;
    let (mut found, mut traces) = (BTreeMap::new(), Vec::new());
    while let Some(held) = walk.next().await? {
        let info = ObjectInfo::read(&held)?;
        // What other clients call an object may be no path: to us it is not there.
        let Ok(path) = BlobPath::new(info.name.as_str()) else { continue };
        // What is written during the walk comes again: the last one counts.
        if info.deleted {
            found.remove(path.as_str());
            if Utc::now() - held.stored > SEEN && traces.len() < TIDY {
                traces.push(held.sequence);
            }
        } else if options.prefix.as_ref().is_none_or(|prefix| path.below(prefix).is_some()) {
            let meta = info.meta(path, held.stored);
            found.insert(info.name, BlobMeta { attributes: BlobAttributes::default(), ..meta });
        }
    }
    bucket.tidy(traces).await;
    Ok(found)
}

/// What is shown of them.
fn entries(found: BTreeMap<String, BlobMeta>, options: &ListOptions) -> Vec<BlobEntry> {
    let below = options.prefix.as_ref().map_or(0, |prefix| prefix.as_str().len() + 1);
    let mut entries: Vec<BlobEntry> = Vec::new();
    for (path, meta) in found {
        let deeper = path.get(below..).and_then(|rest| rest.find('/')).filter(|_| options.one_level);
        let entry = match deeper.and_then(|slash| BlobPath::new(&path[..below + slash]).ok()) {
            Some(folder) => BlobEntry::Prefix(folder),
            None => BlobEntry::Blob(meta),
        };
        // What is in one folder comes without a gap.
        if matches!(entry, BlobEntry::Prefix(_)) && entries.last() == Some(&entry) {
            continue;
        }
        entries.push(entry);
    }
    if let Some(after) = &options.start_after {
        entries.retain(|entry| entry.sort_key() > *after);
    }
    entries
}
