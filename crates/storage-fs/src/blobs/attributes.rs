//! Marks of blobs, and what is kept beside their bytes.
//!
//! A blob's mark is made of its file's number, size and time of change, which every write sets anew to the nanosecond. Attributes are in
//! `_storage/attributes/<xx>/<hash>.json`, with the size and time of the file that they belong to: so that they count from the very moment
//! at which the file is renamed into place, and no longer when somebody puts another file there by hand.

use std::fs::{File, Metadata};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SubsecRound as _, Utc};
use serde::{Deserialize, Serialize};
use storage_core::{BlobAttributes, BlobMeta, BlobPath, ETag, Result};

use crate::base::Base;
use crate::cached::Found;
use crate::file;
use crate::names;

pub(super) const ATTRIBUTES: &str = "_storage/attributes";

/// One state of a blob's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    nanos: i128,
    size: u64,
    number: u64,
}

impl Stamp {
    pub(super) fn of(found: &Metadata) -> Self {
        let modified = found.modified().unwrap_or(UNIX_EPOCH);
        let nanos = match modified.duration_since(UNIX_EPOCH) {
            Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => i128::try_from(before.duration().as_nanos()).map_or(i128::MIN, |n| -n),
        };
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(found);
        #[cfg(not(unix))]
        let number = 0;
        Self { nanos, size: found.len(), number }
    }

    pub(super) fn etag(&self) -> ETag {
        ETag(format!("\"{:x}-{:x}-{:x}\"", self.nanos, self.size, self.number))
    }
}

/// Gives a file that was just written a time of change of its own: the file system's clock may tick slowly.
pub(super) fn mark(file: &File) -> std::io::Result<()> {
    file.set_modified(SystemTime::now())
}

pub(super) fn meta(path: &BlobPath, found: &Metadata, attributes: BlobAttributes) -> BlobMeta {
    let modified_at =
        found.modified().map_or_else(|_| DateTime::<Utc>::default(), |at| DateTime::<Utc>::from(at).trunc_subsecs(6));
    BlobMeta { path: path.clone(), size: found.len(), modified_at, etag: Some(Stamp::of(found).etag()), attributes }
}

#[derive(Debug, Serialize, Deserialize)]
struct Sidecar {
    /// For a person who looks.
    path: String,
    /// The newest state, and the one that it replaces.
    states: Vec<State>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    modified_nanos: i128,
    size: u64,
    attributes: BlobAttributes,
}

impl State {
    fn is_of(&self, stamp: &Stamp) -> bool {
        (self.modified_nanos, self.size) == (stamp.nanos, stamp.size)
    }
}

fn sidecar(path: &BlobPath) -> String {
    let hash = names::hash(path.as_str().as_bytes());
    format!("{ATTRIBUTES}/{}/{hash}.json", &hash[..2])
}

fn read(base: &Base, path: &BlobPath) -> Result<Vec<State>> {
    let relative = sidecar(path);
    base.read(&relative)?.map_or_else(|| Ok(Vec::new()), |bytes| parse(base, &relative, &bytes))
}

fn parse(base: &Base, relative: &str, bytes: &[u8]) -> Result<Vec<State>> {
    let sidecar: Sidecar = serde_json::from_slice(bytes)
        .map_err(|e| base.corrupt(relative, format_args!("these are not a blob's attributes: {e}")))?;
    Ok(sidecar.states)
}

/// Like [`of`], from what is in memory alone. The outer `None`: only a read that may block can tell.
pub(super) fn of_cached(base: &Base, path: &BlobPath, stamp: &Stamp) -> Option<Option<BlobAttributes>> {
    let relative = sidecar(path);
    let states = match base.read_cached(&relative) {
        Found::There(bytes) => parse(base, &relative, &bytes).ok()?,
        Found::Missing => Vec::new(),
        Found::Unknown => return None,
    };
    Some(states.into_iter().find(|state| state.is_of(stamp)).map(|state| state.attributes))
}

/// The attributes of that state of the blob. `None`: they are not known, since there are none or the blob has been written meanwhile.
pub(super) fn of(base: &Base, path: &BlobPath, stamp: &Stamp) -> Result<Option<BlobAttributes>> {
    Ok(read(base, path)?.into_iter().find(|state| state.is_of(stamp)).map(|state| state.attributes))
}

/// Writes down the attributes of the state that is about to take the place of `current`. Under the blobs' lock.
pub(super) fn announce(
    base: &Base,
    path: &BlobPath,
    next: &Stamp,
    attributes: &BlobAttributes,
    current: Option<&Stamp>,
) -> Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    let mut states = vec![State { modified_nanos: next.nanos, size: next.size, attributes: attributes.clone() }];
    if let Some(current) = current {
        states.extend(read(base, path).unwrap_or_default().into_iter().find(|state| state.is_of(current)));
    }
    let to = base.path(&sidecar(path));
    file::create_folders(crate::base::parent(&to), base.durable)?;
    let text = serde_json::to_vec_pretty(&Sidecar { path: path.to_string(), states })?;
    file::replace(&super::uploads(base)?.join(uuid::Uuid::new_v4().to_string()), &to, &text, base.durable)
}

/// Removes what is no longer needed; what is left belongs to no state and does no harm.
pub(super) fn forget(base: &Base, path: &BlobPath) {
    let _ = std::fs::remove_file(base.path(&sidecar(path)));
}
