//! Listings whose entries need a look at each blob.

use std::future::Future;

use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use storage_core::{BlobEntry, BlobMeta, Result};

/// So many blobs are looked at at once.
pub(super) const LOOKS: usize = 16;

/// `entries` in their order, each blob as `look` describes it. `None`: it has gone meanwhile.
pub(super) fn look_at_each<F, L>(entries: BoxStream<'static, Result<BlobEntry>>, look: F) -> BoxStream<'static, Result<BlobEntry>>
where
    F: Fn(BlobMeta) -> L + Send + Sync + 'static,
    L: Future<Output = Result<Option<BlobMeta>>> + Send + 'static,
{
    let looked = entries.map(move |entry| {
        let (looking, other) = match entry {
            Ok(BlobEntry::Blob(meta)) => (Some(look(meta)), None),
            other => (None, Some(other)),
        };
        async move {
            match (looking, other) {
                (Some(looking), _) => Ok(looking.await?.map(BlobEntry::Blob)),
                (None, other) => other.transpose(),
            }
        }
    });
    looked.buffered(LOOKS).try_filter_map(|entry| std::future::ready(Ok(entry))).boxed()
}
