//! Listings, page by page.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt as _};
use storage_core::{BlobAttributes, BlobEntry, BlobMeta, BlobPath, Error, ListOptions, Result};

use super::service::{ListPage, Listed, Listing, Service};

struct Walk {
    service: Arc<dyn Service>,
    prefix: String,
    listing: Listing,
    start_after: Option<String>,
    ready: VecDeque<BlobEntry>,
    token: Option<String>,
    ended: bool,
}

/// The entries below `prefix` (the store's, empty or with a slash at its end) that `options` asks for.
pub(super) fn entries(service: Arc<dyn Service>, prefix: String, options: ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
    let below = options.prefix.map_or_else(String::new, |below| format!("{below}/"));
    let start_after = options.start_after.map(String::from);
    let listing = Listing {
        prefix: format!("{prefix}{below}"),
        one_level: options.one_level,
        start_after: start_after.as_ref().map(|after| format!("{prefix}{after}")),
    };
    let walk = Walk { service, prefix, listing, start_after, ready: VecDeque::new(), token: None, ended: false };
    futures::stream::try_unfold(walk, |mut walk| async move {
        loop {
            if let Some(entry) = walk.ready.pop_front() {
                return Ok(Some((entry, walk)));
            }
            if walk.ended {
                return Ok(None);
            }
            walk.turn().await?;
        }
    })
    .boxed()
}

impl Walk {
    async fn turn(&mut self) -> Result<()> {
        let page = self.service.page(&self.listing, self.token.as_deref()).await.map_err(Error::from)?;
        let ListPage { blobs, prefixes, next } = page;
        if next.is_some() && next == self.token {
            return Err(Error::unavailable("the service answers the same page of the listing again"));
        }
        self.ended = next.is_none();
        self.token = next;
        let mut entries: Vec<(String, BlobEntry)> = Vec::with_capacity(blobs.len() + prefixes.len());
        entries.extend(blobs.into_iter().filter_map(|blob| self.blob(blob)));
        entries.extend(prefixes.into_iter().filter_map(|prefix| self.folder(&prefix)));
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries.dedup_by(|(a, _), (b, _)| a == b);
        let after = self.start_after.as_deref();
        self.ready =
            entries.into_iter().filter(|(key, _)| after.is_none_or(|after| key.as_str() > after)).map(|(_, e)| e).collect();
        Ok(())
    }

    /// A path of ours. Keys that others wrote and that are no paths (`a//b`, `folder/`) are left out: they can't be named here.
    fn path(&self, key: &str) -> Option<BlobPath> {
        let path = BlobPath::new(key.strip_prefix(&self.prefix)?).ok();
        if path.is_none() {
            tracing::debug!(key, "a key that is no path is left out of the listing");
        }
        path
    }

    fn blob(&self, blob: Listed) -> Option<(String, BlobEntry)> {
        let path = self.path(&blob.key)?;
        let meta = BlobMeta {
            path,
            size: blob.size,
            modified_at: blob.modified_at,
            etag: blob.etag,
            attributes: BlobAttributes::default(),
        };
        Some((meta.path.as_str().to_owned(), BlobEntry::Blob(meta)))
    }

    fn folder(&self, prefix: &str) -> Option<(String, BlobEntry)> {
        let path = self.path(prefix.strip_suffix('/')?)?;
        Some((format!("{path}/"), BlobEntry::Prefix(path)))
    }
}
