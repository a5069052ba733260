//! The files of a folder, and what is in them.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use storage_core::{Error, Key, Result};

/// How deep folders may be nested.
const MAX_DEPTH: usize = 64;
/// Folders that hold what tools make, not what people write.
const LEFT_OUT: [&str; 3] = [".git", "target", "node_modules"];

/// What was found in the folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<FoundFile>,
    pub(super) bytes: u64,
    /// Entries that can't be read, or have names that are not UTF-8.
    pub(super) skipped: u64,
    /// True where there are more files than were asked for.
    pub(super) more: bool,
}

/// A file, before it is read.
#[derive(Debug)]
pub(super) struct FoundFile {
    /// The id of its task: its path, where that can be one.
    pub(super) task: String,
    /// Its path below the folder, `/`-separated.
    pub(super) relative: String,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) lines: u64,
    pub(super) sha256: String,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<String>,
}

/// Finds the files below `folder`, but for those of the store itself.
pub(super) async fn find(folder: &Path, own: Vec<PathBuf>, max: usize) -> Result<Found> {
    let folder = folder.to_owned();
    let walk = tokio::task::spawn_blocking(move || walk(&folder, &own, max)).await;
    walk.map_err(|e| Error::internal("the thread that looks for files ended").with_source(e))?
}

fn walk(root: &Path, own: &[PathBuf], max: usize) -> Result<Found> {
    let fail = |e: std::io::Error| Error::from(e).with_operation("demo").with_subject(format!("folder {}", root.display()));
    let is_own = |path: &Path| {
        let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        // `storage.db-wal` and its like belong to `storage.db`.
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        own.iter().any(|own| {
            let own = own.canonicalize().unwrap_or_else(|_| own.clone());
            absolute == own || (absolute.parent() == own.parent() && name(&absolute).starts_with(&format!("{}-", name(&own))))
        })
    };
    let mut found = Found::default();
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    std::fs::read_dir(root).map_err(fail)?;
    while let Some((folder, prefix, depth)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            found.skipped += 1;
            continue;
        };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_unstable_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let (Some(name), Ok(metadata)) = (name.to_str(), entry.metadata()) else {
                found.skipped += 1;
                continue;
            };
            let relative = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            // Links are neither: what they lead to is counted where it is.
            if metadata.is_dir() {
                if depth < MAX_DEPTH && !LEFT_OUT.contains(&name) && !is_own(&entry.path()) {
                    folders.push((entry.path(), relative, depth + 1));
                }
            } else if metadata.is_file() && !(depth == 0 && is_own(&entry.path())) {
                if found.files.len() >= max {
                    found.more = true;
                    return Ok(found);
                }
                let is_id = Key::new(&relative).check().is_ok();
                let task = if is_id { relative.clone() } else { format!("file-{}", found.files.len()) };
                found.bytes += metadata.len();
                found.files.push(FoundFile { task, relative });
            }
        }
    }
    Ok(found)
}

/// Reads a file: its hash, its bytes, its lines.
pub(super) fn count(folder: &Path, relative: String) -> Counted {
    let path = relative.split('/').fold(folder.to_owned(), |folder, segment| folder.join(segment));
    let mut counted = Counted { path: relative, bytes: 0, lines: 0, sha256: String::new(), failure: None };
    if let Err(error) = read(&path, &mut counted) {
        counted.failure = Some(error.to_string());
    }
    counted
}

fn read(path: &Path, counted: &mut Counted) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut piece)?;
        let bytes = piece.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hash.update(bytes);
        counted.bytes += bytes.len() as u64;
        counted.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    counted.sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_there_and_leaves_out_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a.txt", "one\ntwo\n");
        write("sub/b.txt", "");
        write("store.db", "x");
        write("store.db-wal", "x");
        write("store.db-blobs/c", "x");
        write("target/d", "x");
        write(".git/e", "x");
        let own = vec![folder.path().join("store.db")];
        let found = walk(folder.path(), &own, 100).unwrap();
        let names: Vec<_> = found.files.iter().map(|f| f.relative.as_str()).collect();
        assert_eq!(names, ["a.txt", "sub/b.txt"]);
        assert_eq!((found.bytes, found.more), (8, false));
        assert!(walk(folder.path(), &own, 1).unwrap().more);
        let counted = count(folder.path(), "a.txt".into());
        assert_eq!((counted.bytes, counted.lines), (8, 2));
        assert_eq!(counted.sha256, "c3f9c8c283a2b1f2f1896f27a01cbe3cddc0c9d93f752e4639035a0f5b36f6e8");
        assert!(count(folder.path(), "gone".into()).failure.is_some());
    }
}
