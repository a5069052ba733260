//! The local side: what lies below a folder, in the order in which blobs are listed.

use std::fs::{DirEntry, File, FileType, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use chrono::{DateTime, Utc};
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;

use super::options::PathFilter;
use super::partial;
use crate::{BlobPath, Error, Result, ResultExt};

/// How many files one visit to the thread that walks brings, and how many such visits it may be ahead.
const BATCH: usize = 128;
const AHEAD: usize = 4;
/// How deep folders may be nested: more segments than a blob's path can have.
const MAX_DEPTH: usize = crate::blob::MAX_PATH_LEN / 2;
/// The longest file name that any of the usual file systems holds, in bytes.
const MAX_NAME: usize = 255;

/// Does what may block on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("a thread that moves files ended").with_source(e))?
}

pub(super) fn file_subject(path: &Path) -> String {
    format!("file {}", path.display())
}

/// Writes all bytes at an offset, wherever others write at the same time.
#[cfg(unix)]
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[count..];
        offset += count as u64;
    }
    Ok(())
}

/// A file below a folder.
#[derive(Clone, Debug)]
pub(super) struct LocalFile {
    pub(super) path: PathBuf,
    /// `/`-separated.
    pub(super) relative: String,
    pub(super) size: u64,
    pub(super) modified_at: Option<DateTime<Utc>>,
}

impl LocalFile {
    pub(super) fn new(path: PathBuf, relative: String, metadata: &Metadata) -> Self {
        Self { path, relative, size: metadata.len(), modified_at: metadata.modified().ok().map(Into::into) }
    }
}

/// Checks that this is a file, without opening it: opening a pipe would wait for its other end.
pub(super) fn check_file(path: &Path) -> Result<Metadata> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(Error::invalid("it is a folder, not a file"));
    }
    if !metadata.is_file() {
        return Err(Error::invalid("it is neither a file nor a folder: pipes, sockets and devices are not transferred"));
    }
    Ok(metadata)
}

/// What a walk does with links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// They stand for what they lead to.
    Follow,
    /// A link to a file is listed as what it is; what else is no file is left out without a word. For removing.
    Keep,
}

/// Every file below `root`, in bytewise order of their relative paths, as blobs are listed. An error is of one file or folder; the others follow.
pub(super) fn walk(root: &Path, filter: Option<PathFilter>, links: Links) -> BoxStream<'static, Result<LocalFile>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let mut walk = Walk { filter, links, levels: Vec::new() };
    let root = root.to_owned();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = walk.enter(root, String::new()) {
            // Nobody may listen any more.
            let _ = sender.blocking_send(vec![Err(error)]);
            return;
        }
        loop {
            let batch: Vec<_> = std::iter::from_fn(|| walk.next()).take(BATCH).collect();
            if batch.is_empty() || sender.blocking_send(batch).is_err() {
                return;
            }
        }
    });
    let batches = futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    batches.flat_map(futures::stream::iter).boxed()
}

struct Child {
    /// The relative path, with a slash at the end of a folder's: what it sorts by.
    key: String,
    path: PathBuf,
    /// Why it can't be transferred.
    error: Option<Error>,
}

struct Walk {
    filter: Option<PathFilter>,
    links: Links,
    /// The folders that are being gone through, the deepest last.
    levels: Vec<IntoIter<Child>>,
}

impl Walk {
    fn next(&mut self) -> Option<Result<LocalFile>> {
        loop {
            let child = match self.levels.last_mut()?.next() {
                Some(child) => child,
                None => {
                    self.levels.pop();
                    continue;
                }
            };
            if let Some(error) = child.error {
                return Some(Err(error));
            }
            if child.key.ends_with('/') {
                match self.enter(child.path, child.key) {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                }
            }
            match self.file(child) {
                Ok(None) => {}
                Ok(Some(file)) => return Some(Ok(file)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn file(&self, child: Child) -> Result<Option<LocalFile>> {
        let metadata = match self.links {
            Links::Follow => check_file(&child.path),
            Links::Keep => std::fs::symlink_metadata(&child.path).map_err(Error::from),
        };
        let metadata = metadata.context("blobs.transfer", || file_subject(&child.path))?;
        Ok(Some(LocalFile::new(child.path, child.key, &metadata)))
    }

    fn enter(&mut self, folder: PathBuf, prefix: String) -> Result<()> {
        let subject = || format!("folder {}", folder.display());
        if self.levels.len() >= MAX_DEPTH {
            return Err(Error::invalid("folders are nested too deep").with_operation("blobs.transfer").with_subject(subject()));
        }
        let mut children = Vec::new();
        for entry in std::fs::read_dir(&folder).context("blobs.transfer", subject)? {
            let entry = entry.context("blobs.transfer", subject)?;
            children.extend(self.child(&entry, &prefix));
        }
        children.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.levels.push(children.into_iter());
        Ok(())
    }

    fn child(&self, entry: &DirEntry, prefix: &str) -> Option<Child> {
        let (path, name) = (entry.path(), entry.file_name());
        let fails = |key: String, error: Error| {
            let error = error.with_operation("blobs.transfer").with_subject(file_subject(&path));
            Some(Child { key, path: path.clone(), error: Some(error) })
        };
        let Some(name) = name.to_str() else {
            let key = format!("{prefix}{}", name.display());
            // What no blob can be called is left alone where blobs are the measure.
            let error = Error::invalid("the file name is not UTF-8, and can't be a blob's: rename it");
            return if self.wants(&key) && self.links == Links::Follow { fails(key, error) } else { None };
        };
        if partial::is_partial(name) {
            return None;
        }
        let key = format!("{prefix}{name}");
        let kind = match self.kind(entry) {
            Ok(kind) => kind?,
            Err(error) => return if self.wants(&key) { fails(key, error) } else { None },
        };
        let key = if kind.is_dir() { key + "/" } else { key };
        self.wants(&key).then_some(Child { key, path, error: None })
    }

    fn wants(&self, key: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter(key))
    }

    /// What the entry is, or stands for. `None`: it is left out.
    fn kind(&self, entry: &DirEntry) -> Result<Option<FileType>> {
        let kind = entry.file_type()?;
        let leads_to = || std::fs::metadata(entry.path()).map(|metadata| metadata.file_type());
        match self.links {
            Links::Follow if kind.is_symlink() => {
                let kind = leads_to().map_err(|e| Error::from(e).with_subject(format!("link {}", entry.path().display())))?;
                if kind.is_dir() && leads_back(&entry.path())? {
                    return Err(Error::invalid("the link leads back to a folder that it is in"));
                }
                Ok(Some(kind))
            }
            Links::Follow => Ok(Some(kind)),
            Links::Keep if kind.is_symlink() => Ok(leads_to().map_or(true, |kind| !kind.is_dir()).then_some(kind)),
            Links::Keep => Ok((kind.is_dir() || kind.is_file()).then_some(kind)),
        }
    }
}

/// True where a link's folder contains the link itself.
fn leads_back(link: &Path) -> Result<bool> {
    let parent = link.parent().unwrap_or(link);
    Ok(std::fs::canonicalize(parent)?.starts_with(std::fs::canonicalize(link)?))
}

/// Where the blob `relative` belongs below a folder. A blob path has no empty, `.` or `..` segment, so that it can't leave the folder.
pub(super) fn target_of(folder: &Path, relative: &BlobPath) -> Result<PathBuf> {
    let refuse = |why: &str| Err(Error::invalid(format!("a file can't be called so here: {why}")));
    let mut target = folder.to_owned();
    for segment in relative.segments() {
        if segment.len() > MAX_NAME {
            return refuse(&format!("a part of the path has {} bytes, {MAX_NAME} at most", segment.len()));
        }
        if cfg!(windows) && !fits_windows(segment) {
            return refuse("the system reserves the name, or a character in it");
        }
        if partial::is_partial(segment) {
            return refuse("names like this are those of downloads that are under way");
        }
        target.push(segment);
    }
    Ok(target)
}

/// True where Windows takes a name as it stands: `nul` is a device, and the end of `a.` would be cut.
fn fits_windows(segment: &str) -> bool {
    const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
    let stem = segment.split('.').next().unwrap_or(segment).trim_end().to_uppercase();
    let numbered = ["COM", "LPT"].iter().any(|port| {
        let number = stem.strip_prefix(port).unwrap_or_default();
        number.chars().count() == 1 && number.chars().all(|c| c.is_ascii_digit() || "¹²³".contains(c))
    });
    let reserved = DEVICES.contains(&stem.as_str()) || numbered;
    let broken = segment.contains(['<', '>', ':', '"', '\\', '|', '?', '*']) || segment.ends_with(['.', ' ']);
    !reserved && !broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_windows_takes_for_something_else() {
        for good in ["a", "console", "com", "com10", "nul-a.txt", "a b", ".hidden"] {
            assert!(fits_windows(good), "{good}");
        }
        for bad in ["nul", "NUL.txt", "con", "Com1", "lpt9.log", "a:b", "a.", "a ", "a\\b", "what?"] {
            assert!(!fits_windows(bad), "{bad}");
        }
    }

    #[test]
    fn targets_stay_in_their_folder() {
        let target = |path: &str| target_of(Path::new("/to"), &BlobPath::new(path).unwrap());
        assert_eq!(target("a/b").unwrap(), Path::new("/to/a/b"));
        assert!(target(&"x".repeat(256)).unwrap_err().to_string().contains("256 bytes"));
        assert!(target("a/.x.storage-part").is_err());
    }
}
