//! Listings of several copies as one.

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use storage_core::{BlobBackend, BlobEntry, BlobMeta, Error, ListOptions, Result};

use super::{is_elsewhere, of_copy};

/// One path, and what each copy has there.
pub(super) struct Row {
    pub(super) key: String,
    pub(super) entries: Vec<Option<BlobEntry>>,
}

/// The listings of several copies side by side, in order of their keys.
pub(super) struct Rows {
    listings: Vec<Option<BoxStream<'static, Result<BlobEntry>>>>,
    heads: Vec<Option<(String, BlobEntry)>>,
    /// True: a copy that can't be reached is left out, as long as there is another.
    lenient: bool,
}

impl Rows {
    pub(super) fn new(copies: &[Arc<dyn BlobBackend>], options: &ListOptions, lenient: bool) -> Self {
        let listings: Vec<_> = copies.iter().map(|copy| Some(copy.list(options))).collect();
        let heads = copies.iter().map(|_| None).collect();
        Self { listings, heads, lenient }
    }

    /// Has the next entry of each copy at hand.
    async fn fill(&mut self) -> Result<()> {
        for index in 0..self.listings.len() {
            if self.heads[index].is_some() {
                continue;
            }
            let Some(listing) = &mut self.listings[index] else { continue };
            match listing.try_next().await {
                Ok(entry) => self.heads[index] = entry.map(|entry| (entry.sort_key(), entry)),
                Err(error) => self.give_up(index, error)?,
            }
        }
        Ok(())
    }

    fn give_up(&mut self, index: usize, error: Error) -> Result<()> {
        self.listings[index] = None;
        if !self.lenient || !is_elsewhere(&error) || self.listings.iter().all(Option::is_none) {
            return Err(error);
        }
        tracing::warn!(copy = index, %error, "a listing of the mirror goes on without a copy");
        Ok(())
    }

    pub(super) async fn next(&mut self) -> Result<Option<Row>> {
        self.fill().await?;
        let Some(key) = self.heads.iter().flatten().map(|(key, _)| key).min().cloned() else { return Ok(None) };
        let take = |head: &mut Option<(String, BlobEntry)>| head.take_if(|(at, _)| *at == key).map(|(_, entry)| entry);
        let entries = self.heads.iter_mut().map(take).collect();
        Ok(Some(Row { key, entries }))
    }
}

/// What any copy has, as the first says that has it.
pub(super) fn merged(copies: &[Arc<dyn BlobBackend>], options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
    let rows = Rows::new(copies, options, true);
    let entries = futures::stream::try_unfold(rows, |mut rows| async move {
        let Some(row) = rows.next().await? else { return Ok(None) };
        let first = row.entries.into_iter().enumerate().find_map(|(index, entry)| Some((index, entry?)));
        let entry = first.map(|(index, entry)| match entry {
            BlobEntry::Blob(meta) => BlobEntry::Blob(of_copy(index, meta)),
            prefix @ BlobEntry::Prefix(_) => prefix,
        });
        Ok::<_, Error>(entry.map(|entry| (entry, rows)))
    });
    entries.boxed()
}

/// The blob of an entry.
pub(super) fn blob(entry: Option<BlobEntry>) -> Option<BlobMeta> {
    match entry {
        Some(BlobEntry::Blob(meta)) => Some(meta),
        _ => None,
    }
}
