//! Consistent copies of a store.
//!
//! Files are replaced, never changed, so hard links to all of them, made while nobody writes, are a snapshot that costs next to nothing.
//! The copy is made from the links while others go on writing.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime, Utc};
use storage_core::{Error, Result};

use crate::base::{Base, CONTROL, parent};
use crate::config::FsOptions;
use crate::file::{self, at, create_folders};
use crate::lock::is_abandoned;
use crate::store::{Core, blocking};
use crate::{blobs, queue, records};

/// Snapshots that are being copied, each locked by the process that copies.
const SNAPSHOTS: &str = "_storage/snapshots";
/// Where the store's own backups are.
const BACKUPS: &str = "_storage/backups";
/// The name of a backup of the store's own says when it was made.
const NAMED: &str = "%Y%m%dT%H%M%SZ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Tables and queues.
    Records,
    /// Blobs too.
    Everything,
}

/// A snapshot, removed when it is dropped.
struct Snapshot {
    folder: PathBuf,
    _lock: File,
}

impl Snapshot {
    fn new(base: &Base) -> Result<Self> {
        let all = base.path(SNAPSHOTS);
        create_folders(&all, false)?;
        let name = uuid::Uuid::new_v4();
        let lock = file::open_control(&all.join(format!("{name}.lock")))?;
        lock.lock().map_err(at(&all))?;
        let folder = all.join(name.to_string());
        create_folders(&folder, false)?;
        Ok(Self { folder, _lock: lock })
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

fn remove(folder: &Path) {
    let removed = file::remove_tree(folder).and_then(|()| file::remove(&folder.with_extension("lock")));
    removed.map_or_else(|error| tracing::debug!(%error, "a snapshot was not removed"), drop);
}

/// Removes the snapshots of processes that died.
pub(crate) fn clean_up(base: &Base) -> Result<()> {
    let all = base.path(SNAPSHOTS);
    for name in file::names(&all)?.iter().filter(|name| name.ends_with(".lock")) {
        let path = all.join(name);
        let old = fs::metadata(&path).and_then(|m| m.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 60));
        if old && File::open(&path).is_ok_and(|lock| is_abandoned(&lock)) {
            remove(&path.with_extension(""));
        }
    }
    Ok(())
}

/// Copies the store to `to`, which must not exist.
pub(crate) async fn backup(core: &Core, to: &Path, extent: Extent) -> Result<()> {
    let there = || Error::already_exists(format!("`{}` is there already: a backup needs a new folder", to.display()));
    if fs::symlink_metadata(to).is_ok() {
        return Err(there());
    }
    let snapshot = core
        .alone(move |alone| {
            let snapshot = Snapshot::new(alone.base)?;
            take(alone.base, &snapshot.folder, extent)?;
            Ok(snapshot)
        })
        .await?;
    let (to, durable) = (to.to_path_buf(), core.base.durable);
    blocking(move || {
        let made = PathBuf::from(format!("{}.{}.part", to.display(), uuid::Uuid::new_v4()));
        create_folders(parent(&made), durable)?;
        let copied = copy_tree(&snapshot.folder, &made, durable).and_then(|()| fs::rename(&made, &to).map_err(at(&to)));
        copied.inspect_err(|_| drop(file::remove_tree(&made)))?;
        if durable { file::sync_folder(parent(&to)) } else { Ok(()) }
    })
    .await
}

/// Links everything that a copy needs below `folder`.
fn take(base: &Base, folder: &Path, extent: Extent) -> Result<()> {
    let link_below = |relative: &str| link_tree(&base.path(relative), &file::below(folder, relative));
    create_folders(&folder.join(CONTROL), false)?;
    copy(&base.path("_storage/format.json"), &folder.join(CONTROL).join("format.json"), false)?;
    [records::TABLES, queue::QUEUES, "_storage/expiry"].into_iter().try_for_each(link_below)?;
    if extent == Extent::Everything {
        let _held = blobs::lock(base)?;
        blobs::FOLDERS.into_iter().try_for_each(link_below)?;
    }
    Ok(())
}

fn link_tree(from: &Path, to: &Path) -> Result<()> {
    let Some(entries) = file::if_there(fs::read_dir(from)).map_err(at(from))? else { return Ok(()) };
    create_folders(to, false)?;
    for entry in entries {
        let entry = entry.map_err(at(from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(at(&from))?;
        if kind.is_dir() {
            link_tree(&from, &to)?;
        } else if kind.is_file() {
            match fs::hard_link(&from, &to) {
                Ok(()) => {}
                // Taken away by hand meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // This file system has no links.
                Err(_) => copy(&from, &to, false)?,
            }
        }
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path, durable: bool) -> Result<()> {
    create_folders(to, false)?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(at(&from))?.is_dir() {
            copy_tree(&from, &to, durable)?;
        } else {
            copy(&from, &to, durable)?;
        }
    }
    if durable { file::sync_folder(to) } else { Ok(()) }
}

/// Copies one file, with the time of its last change, by which blobs' attributes are found.
fn copy(from: &Path, to: &Path, durable: bool) -> Result<()> {
    let copied = || {
        fs::copy(from, to)?;
        let file = File::options().write(true).open(to)?;
        file.set_modified(fs::metadata(from)?.modified()?)?;
        if durable { file.sync_all() } else { Ok(()) }
    };
    copied().map_err(at(to))
}

/// Makes a backup of the store's own where one is due, and removes those that are too many.
pub(crate) async fn rotate(core: &Core, options: &FsOptions) -> Result<()> {
    if options.backups == 0 {
        return Ok(());
    }
    let base = &core.base;
    let all = base.path(BACKUPS);
    let mut times: Vec<DateTime<Utc>> = file::names(&all)?
        .iter()
        .filter_map(|name| NaiveDateTime::parse_from_str(name, NAMED).ok())
        .map(|time| time.and_utc())
        .collect();
    times.sort_unstable();
    let now = Utc::now();
    let due = times.last().is_none_or(|last| (now - *last).num_seconds() >= i64::from(options.backup_every));
    if !due {
        return Ok(());
    }
    let to = all.join(now.format(NAMED).to_string());
    match backup(core, &to, Extent::Records).await {
        // Another process was faster.
        Err(error) if error.kind() == storage_core::ErrorKind::AlreadyExists => return Ok(()),
        outcome => outcome?,
    }
    let keep = usize::try_from(options.backups).unwrap_or(usize::MAX);
    let old: Vec<PathBuf> =
        times.iter().rev().skip(keep.saturating_sub(1)).map(|time| all.join(time.format(NAMED).to_string())).collect();
    blocking(move || old.iter().try_for_each(|old| file::remove_tree(old))).await
}
