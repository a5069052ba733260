//! Listing blobs in the order of their paths, one folder in memory for each level.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec::IntoIter;

use storage_core::{BlobAttributes, BlobEntry, BlobPath, ListOptions, Result};

use super::attributes::meta;
use super::path::{BLOBS, SELF, There, decode, folders_above, look, plain};
use crate::base::Base;
use crate::file::{self, at};

/// How many entries one visit to a thread that may block brings.
const PAGE: usize = 256;

#[derive(Debug)]
struct Child {
    /// The whole path, with a slash at the end of a folder's: what it sorts by.
    key: String,
    place: PathBuf,
    folder: bool,
}

#[derive(Debug)]
pub(super) struct Walk {
    base: Arc<Base>,
    one_level: bool,
    start_after: Option<String>,
    /// The folders that are being gone through, the deepest last.
    levels: Vec<IntoIter<Child>>,
}

impl Walk {
    pub(super) fn new(base: Arc<Base>, options: &ListOptions) -> Result<Self> {
        let (top, prefix) = match &options.prefix {
            None => (base.path(BLOBS), String::new()),
            Some(prefix) => (plain(&base, prefix), format!("{prefix}/")),
        };
        let mut walk = Self { one_level: options.one_level, start_after: options.start_after.clone(), levels: Vec::new(), base };
        let mut above = folders_above(&walk.base, &top);
        above.push(&top);
        let folders = above.into_iter().map(look).collect::<Result<Vec<_>>>()?;
        if folders.iter().all(|there| *there == There::Folder) {
            walk.enter(&top, &prefix)?;
        }
        Ok(walk)
    }

    fn enter(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        let mut children = Vec::new();
        let Some(entries) = file::if_there(fs::read_dir(folder)).map_err(at(folder))? else { return Ok(()) };
        for entry in entries {
            let entry = entry.map_err(at(folder))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type().map_err(at(folder))?;
            if name == SELF || !(kind.is_file() || kind.is_dir()) {
                continue;
            }
            let Some(path) = decode(&self.base, &name)?.map(|segment| format!("{prefix}{segment}")) else { continue };
            // What a person has put there under a name that blobs can't have.
            if BlobPath::new(path.as_str()).is_err() {
                continue;
            }
            let place = entry.path();
            if kind.is_file() {
                children.push(Child { key: path, place, folder: false });
                continue;
            }
            let inner = place.join(SELF);
            if look(&inner)? == There::File {
                children.push(Child { key: path.clone(), place: inner, folder: false });
            }
            children.push(Child { key: format!("{path}/"), place, folder: true });
        }
        children.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.levels.push(children.into_iter());
        Ok(())
    }

    fn is_behind_start(&self, key: &str) -> bool {
        self.start_after.as_deref().is_none_or(|start| key > start)
    }

    /// The next entries; none at the end.
    pub(super) fn page(&mut self) -> Result<VecDeque<BlobEntry>> {
        let mut page = VecDeque::new();
        while page.len() < PAGE {
            let Some(level) = self.levels.last_mut() else { break };
            match level.next() {
                None => drop(self.levels.pop()),
                Some(child) => page.extend(self.visit(&child)?),
            }
        }
        Ok(page)
    }

    fn visit(&mut self, child: &Child) -> Result<Option<BlobEntry>> {
        let Ok(path) = BlobPath::new(child.key.trim_end_matches('/')) else { return Ok(None) };
        if !child.folder {
            if !self.is_behind_start(&child.key) {
                return Ok(None);
            }
            let found = file::if_there(fs::symlink_metadata(&child.place)).map_err(at(&child.place))?;
            // It may have become a folder since its folder was read.
            let found = found.filter(fs::Metadata::is_file);
            return Ok(found.map(|found| BlobEntry::Blob(meta(&path, &found, BlobAttributes::default()))));
        }
        if self.one_level {
            let shown = self.is_behind_start(&child.key) && has_blob(&child.place)?;
            return Ok(shown.then_some(BlobEntry::Prefix(path)));
        }
        let inside = self.start_after.as_deref().is_some_and(|start| start.starts_with(&child.key));
        if inside || self.is_behind_start(&child.key) {
            self.enter(&child.place, &child.key)?;
        }
        Ok(None)
    }
}

/// True where there is a blob somewhere below, beside the folder's own.
fn has_blob(folder: &Path) -> Result<bool> {
    let mut left = vec![folder.to_path_buf()];
    while let Some(here) = left.pop() {
        let Some(entries) = file::if_there(fs::read_dir(&here)).map_err(at(&here))? else { continue };
        for entry in entries {
            let entry = entry.map_err(at(&here))?;
            let kind = entry.file_type().map_err(at(&here))?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() && (here != folder || entry.file_name() != SELF) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
