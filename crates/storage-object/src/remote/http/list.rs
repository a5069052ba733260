//! Listings in the order of paths, one folder at a time: a folder's members come in any order, and a folder sorts by its name with a slash.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt as _};
use storage_core::{BlobEntry, BlobPath, Error, ListOptions, Result};

use super::blobs::{is_ours, shown};
use super::dav::Dav;
use super::multistatus::Entry;

struct Member {
    /// The whole path, with a slash at the end of a folder's.
    key: String,
    entry: Entry,
}

struct Walk {
    dav: Arc<Dav>,
    options: ListOptions,
    /// What is left of the folders that are being gone through, the deepest last.
    levels: Vec<VecDeque<Member>>,
    begun: bool,
}

/// What `options` asks for.
pub(super) fn entries(dav: Arc<Dav>, options: ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
    let walk = Walk { dav, options, levels: Vec::new(), begun: false };
    futures::stream::try_unfold(walk, |mut walk| async move { Ok(walk.next().await?.map(|entry| (entry, walk))) }).boxed()
}

impl Walk {
    async fn next(&mut self) -> Result<Option<BlobEntry>> {
        if !self.begun {
            self.begun = true;
            let top = self.options.prefix.as_ref().map_or_else(String::new, |prefix| format!("{prefix}/"));
            self.levels.push(members(&self.dav, &top).await?);
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(Member { key, entry }) = level.pop_front() else {
                self.levels.pop();
                continue;
            };
            if !self.is_behind(&key) {
                continue;
            }
            if !entry.is_folder {
                let path = BlobPath::new(key)?;
                let found = entry.found().map_err(|e| e.with_subject(path.as_str()))?;
                return Ok(Some(BlobEntry::Blob(shown(found.into_meta(&path)))));
            }
            if !self.options.one_level {
                let below = members(&self.dav, &key).await?;
                self.levels.push(below);
            } else if has_blobs(&self.dav, &key).await? {
                return Ok(Some(BlobEntry::Prefix(BlobPath::new(key.trim_end_matches('/'))?)));
            }
        }
        Ok(None)
    }

    /// False for what comes before the place where the listing is to go on, folders with all that is in them.
    fn is_behind(&self, key: &str) -> bool {
        let Some(after) = self.options.start_after.as_deref() else { return true };
        key > after || (!self.options.one_level && key.ends_with('/') && after.starts_with(key))
    }
}

/// The members of a folder (empty, or with a slash at its end), sorted.
async fn members(dav: &Dav, folder: &str) -> Result<VecDeque<Member>> {
    let found = dav.members(folder.trim_end_matches('/')).await.map_err(Error::from)?;
    let members = found.unwrap_or_default().into_iter().filter_map(|(name, entry)| {
        let path = format!("{folder}{name}");
        if is_ours(&name) || BlobPath::new(path.as_str()).is_err() {
            tracing::debug!(path, "a file that is no blob is left out of the listing");
            return None;
        }
        let key = if entry.is_folder { format!("{path}/") } else { path };
        Some(Member { key, entry })
    });
    let mut members: Vec<Member> = members.collect();
    members.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(members.into())
}

/// Whether there is a blob anywhere below a folder. Folders stay when their last blob is gone.
pub(super) async fn has_blobs(dav: &Dav, folder: &str) -> Result<bool> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for Member { key, entry } in members(dav, &folder).await? {
            if !entry.is_folder {
                return Ok(true);
            }
            folders.push(key);
        }
    }
    Ok(false)
}
