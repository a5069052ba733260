//! Small steps with files that every part of the crate takes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use storage_core::{Error, Result};

/// An input/output error with the file that it is about.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |error| Error::from(error).with_subject(format_args!("`{}`", path.display()))
}

/// The outcome, `None` where the file is not there.
pub(crate) fn if_there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All bytes of a file, `None` where it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    if_there(fs::read(path)).map_err(at(path))
}

/// The entries of a folder by name, none where it is not there. Names that are not UTF-8 are not ours and left out.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let Some(entries) = if_there(fs::read_dir(path)).map_err(at(path))? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(at(path))?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Makes what was done in a folder (files created, renamed, removed) survive a power cut.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    // Windows has no such call, and journals its directories.
    #[cfg(unix)]
    File::open(path).and_then(|folder| folder.sync_all()).map_err(at(path))?;
    let _ = path;
    Ok(())
}

/// Creates a folder and those above it that are missing.
pub(crate) fn create_folders(path: &Path, durable: bool) -> Result<()> {
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let Some(parent) = path.parent() else { return Err(at(path)(error)) };
            create_folders(parent, durable)?;
            match fs::create_dir(path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(at(path)(error)),
                _ => {}
            }
        }
        Err(error) => return Err(at(path)(error)),
    }
    match path.parent() {
        Some(parent) if durable && !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => Ok(()),
    }
}

/// Writes a new file; half a file is taken away again.
pub(crate) fn write_new(path: &Path, bytes: &[u8], durable: bool) -> Result<()> {
    let written = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        file.write_all(bytes)?;
        if durable { file.sync_all() } else { Ok(()) }
    };
    written().map_err(|error| {
        let _ = fs::remove_file(path);
        at(path)(error)
    })
}

/// Puts a whole file in the place of another, by way of `scratch`.
pub(crate) fn replace(scratch: &Path, path: &Path, bytes: &[u8], durable: bool) -> Result<()> {
    write_new(scratch, bytes, durable)?;
    fs::rename(scratch, path).map_err(|error| {
        let _ = fs::remove_file(scratch);
        at(path)(error)
    })?;
    match path.parent() {
        Some(parent) if durable => sync_folder(parent),
        _ => Ok(()),
    }
}

/// Removes a file. `false`: it was not there.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    if_there(fs::remove_file(path)).map(|removed| removed.is_some()).map_err(at(path))
}

/// Removes a folder with everything in it, where it is.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    if_there(fs::remove_dir_all(path)).map(drop).map_err(at(path))
}

/// Opens a file for reading and writing, created where it is missing.
pub(crate) fn open_control(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(at(path))
}

/// Writes at an offset without moving anybody's position.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            done += std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], offset + done as u64)?;
        }
        Ok(())
    }
}

/// Reads at an offset, up to the file's end.
pub(crate) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(file, &mut into[done..], offset + done as u64);
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(file, &mut into[done..], offset + done as u64);
        match read {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A relative path of ours, which has `/` between its parts, below `root`.
pub(crate) fn below(root: &Path, relative: &str) -> PathBuf {
    let mut path = root.to_path_buf();
    if cfg!(windows) {
        path.extend(relative.split('/'));
    } else {
        path.push(relative);
    }
    path
}
