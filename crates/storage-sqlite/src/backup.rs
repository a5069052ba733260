//! Copies of the whole database while others write.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use storage_core::{Error, Result};

use crate::config::Settings;
use crate::connection::{open_reader, patient};
use crate::error::OrExplain;

/// Writes a consistent copy to `to`, which must not exist. Blocks.
///
/// The copy is made under another name, synced, and then given its own, so that a file of that name is always whole.
pub(crate) fn back_up(settings: &Settings, to: &Path) -> Result<()> {
    let subject = |error: Error| error.with_subject(format_args!("`{}`", to.display()));
    let to = std::path::absolute(to).map_err(|e| subject(e.into()))?;
    if fs::symlink_metadata(&to).is_ok() {
        return Err(subject(taken()));
    }
    let partial = Partial(partial_name(&to)?);
    copy(settings, &partial.0).map_err(subject)?;
    partial.finish(&to).map_err(subject)
}

fn taken() -> Error {
    Error::already_exists("the target of a backup must not be there: choose another name, or remove it")
}

fn partial_name(to: &Path) -> Result<PathBuf> {
    let name = to.file_name().ok_or_else(|| Error::invalid(format!("`{}` names no file", to.display())))?;
    let mut partial = OsString::from(".");
    partial.push(name);
    partial.push(format!(".{}.partial", std::process::id()));
    Ok(to.with_file_name(partial))
}

fn copy(settings: &Settings, partial: &Path) -> Result<()> {
    let Some(name) = partial.to_str() else {
        return Err(Error::invalid(format!("the path `{}` is not UTF-8", partial.display())));
    };
    // Left behind by a process of the same number that was killed.
    match fs::remove_file(partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // A connection of its own: what it reads is one state of the database, and nobody waits for it.
    let connection = open_reader(settings)?;
    // To SQLite, writing another file is writing.
    connection.pragma_update(None, "query_only", false).or_explain()?;
    patient(settings.timeout, || connection.execute("VACUUM INTO ?1", [name])).or_explain()?;
    Ok(())
}

/// A file that is removed unless it is finished.
struct Partial(PathBuf);

impl Partial {
    fn finish(&self, to: &Path) -> Result<()> {
        File::open(&self.0)?.sync_all()?;
        // Unlike a rename, a link does not replace a file that somebody else has made meanwhile.
        match fs::hard_link(&self.0, to) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(taken()),
            // Not every file system has links.
            Err(_) => fs::rename(&self.0, to)?,
        }
        match to.parent() {
            Some(folder) if cfg!(unix) => Ok(File::open(folder)?.sync_all()?),
            _ => Ok(()),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = fs::remove_file(&self.0);
    }
}
