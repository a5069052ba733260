//! Down: a file whose bytes are all at hand, written in one go.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;

use super::partial::{Durable, Partial};
use crate::{BlobMeta, Result};

/// All bytes of a blob.
pub(super) enum Whole {
    Bytes(Bytes),
    File(File),
}

/// Writes the file, with the blob's time, and puts it into its place.
pub(super) fn write(target: &Path, whole: &Whole, meta: &BlobMeta, durable: Durable) -> Result<()> {
    let mut partial = match whole {
        Whole::Bytes(bytes) if as_new(target, bytes, meta, durable)? => return Ok(()),
        Whole::Bytes(_) | Whole::File(_) => Partial::open(target)?,
    };
    match whole {
        Whole::Bytes(bytes) => partial.append(std::slice::from_ref(bytes))?,
        Whole::File(source) => drop(partial.copy_from(source, 0, meta.size)?),
    }
    partial.finish(meta.size, meta.modified_at, durable)
}

/// Writes a file without a name, which it gets when it is whole: it replaces nothing, needs no lock, and is gone by itself when the process is killed. `false`:
/// there is something at its place, or the beginning of it beside; or the file system has no such files.
#[cfg(target_os = "linux")]
fn as_new(target: &Path, bytes: &[u8], meta: &BlobMeta, durable: Durable) -> Result<bool> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{AtFlags, CWD, linkat};

    use super::partial::{path_of, sync_folder_of};

    if is_there(target) || is_there(&path_of(target)) {
        return Ok(false);
    }
    let Some(file) = nameless(target)? else { return Ok(false) };
    if bytes.len() as u64 != meta.size {
        return Err(crate::Error::unavailable(format!("the blob ended after {} of {} bytes", bytes.len(), meta.size)));
    }
    super::local::write_all_at(&file, bytes, 0)?;
    // As for every download: a file system that can't hold it keeps its own.
    let _ = file.set_modified(meta.modified_at.into());
    if durable == Durable::Now {
        file.sync_all()?;
    }
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    if linkat(CWD, &nameless, CWD, target, AtFlags::SYMLINK_FOLLOW).is_err() {
        return Ok(false);
    }
    if durable == Durable::Now {
        sync_folder_of(target)?;
    }
    Ok(true)
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
fn as_new(_: &Path, _: &[u8], _: &BlobMeta, _: Durable) -> Result<bool> {
    Ok(false)
}

#[cfg(target_os = "linux")]
fn is_there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// A file without a name in the folder of `target`, which is created where it is missing.
#[cfg(target_os = "linux")]
fn nameless(target: &Path) -> Result<Option<File>> {
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::partial::{create_folder_of, folder_of};

    let flags = i32::try_from(rustix::fs::OFlags::TMPFILE.bits()).unwrap_or_default();
    let open = || File::options().write(true).custom_flags(flags).open(folder_of(target));
    match open() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            create_folder_of(target)?;
            Ok(open().ok())
        }
        // Whatever is wrong with the folder is told where a file with a name is opened in it.
        opened => Ok(opened.ok()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use chrono::DateTime;

    use super::*;
    use crate::transfer::partial::path_of;
    use crate::{BlobPath, ErrorKind};

    fn meta(size: u64) -> BlobMeta {
        let modified_at = DateTime::from_timestamp(1_700_000_000, 123_456_000).unwrap();
        BlobMeta { path: BlobPath::new("x").unwrap(), size, modified_at, etag: None, attributes: Default::default() }
    }

    fn write_text(target: &Path, text: &'static str, size: usize) -> Result<()> {
        write(target, &Whole::Bytes(Bytes::from_static(text.as_bytes())), &meta(size as u64), Durable::AtEnd)
    }

    #[test]
    fn new_and_old_files_are_written_alike() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/er/x");
        for text in ["one", "and two"] {
            write_text(&target, text, text.len()).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
            let written: DateTime<chrono::Utc> = fs::metadata(&target).unwrap().modified().unwrap().into();
            assert_eq!(written, meta(0).modified_at);
        }
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1, "nothing is left beside");
        // What an earlier download has begun goes with it.
        let other = target.with_file_name("y");
        fs::write(path_of(&other), "half").unwrap();
        write_text(&other, "whole", 5).unwrap();
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_not_whole_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        assert_eq!(write_text(&target, "on", 3).unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::create_dir(&target).unwrap();
        assert_eq!(write_text(&target, "one", 3).unwrap_err().kind(), ErrorKind::AlreadyExists);
        fs::write(folder.path().join("file"), "in the way").unwrap();
        assert_eq!(write_text(&folder.path().join("file/x"), "one", 3).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
}
