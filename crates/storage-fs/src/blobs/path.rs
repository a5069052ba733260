//! Where a blob's file is.
//!
//! `blobs/<path>`, as it stands, nearly always. Three cases need a mark, `%~`:
//!
//! - Where both `a` and `a/b` are blobs, `a` is a folder, and the blob `a` is the file `a/%~self` in it.
//! - A segment longer than a file name may be is cut, and ends with `%~` and a hash; `_storage/names/<hash>` holds it whole.
//! - `%`, where the name would otherwise be read as one of these or as an escape, is `%25` (and what Windows can't hold is escaped there).
//!
//! Files that a person puts there under names that come out otherwise, or that are no text, are left alone and not shown. Symbolic links are not
//! followed, wherever they lead.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use storage_core::{BlobPath, Error, Result};

use crate::base::Base;
use crate::crash::step;
use crate::file::{self, at};
use crate::names;

pub(super) const BLOBS: &str = "blobs";
/// Long segments, by their hashes.
pub(super) const LONG: &str = "_storage/names";
/// The file of a blob whose path is a folder too.
pub(super) const SELF: &str = "%~self";

/// What a file name holds on every file system.
const MAX_NAME: usize = 255;
/// How much of a long name stays readable.
const KEPT: usize = 180;

fn must_escape(segment: &str, at: usize, byte: u8) -> bool {
    if byte == b'%' {
        let rest = &segment.as_bytes()[at + 1..];
        return rest.first() == Some(&b'~') || rest.len() > 1 && rest[0].is_ascii_hexdigit() && rest[1].is_ascii_hexdigit();
    }
    cfg!(windows)
        && (matches!(byte, b'<' | b'>' | b':' | b'"' | b'\\' | b'|' | b'?' | b'*')
            || at + 1 == segment.len() && matches!(byte, b'.' | b' '))
}

/// A segment of a path as a file name.
pub(super) fn encode(segment: &str) -> Cow<'_, str> {
    let escapes = segment.bytes().enumerate().any(|(at, byte)| must_escape(segment, at, byte));
    let name = if escapes {
        let mut name = String::with_capacity(segment.len() + 8);
        for (at, c) in segment.char_indices() {
            match u8::try_from(c) {
                Ok(byte) if must_escape(segment, at, byte) => name.push_str(&format!("%{byte:02X}")),
                _ => name.push(c),
            }
        }
        Cow::Owned(name)
    } else {
        Cow::Borrowed(segment)
    };
    if name.len() <= MAX_NAME {
        return name;
    }
    let kept = (0..=KEPT).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    Cow::Owned(format!("{}%~{}", &name[..kept], names::hash(segment.as_bytes())))
}

/// The segment that a file name stands for. `None`: it is none of ours.
pub(super) fn decode(base: &Base, name: &str) -> Result<Option<String>> {
    if let Some((_, hash)) = name.rsplit_once("%~").filter(|(_, hash)| hash.len() == 32) {
        let whole = base.read(&format!("{LONG}/{hash}"))?.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        return Ok(whole.filter(|whole| encode(whole) == name));
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    Ok(String::from_utf8(bytes).ok().filter(|segment| encode(segment) == name))
}

/// Where the file, or folder, of a path is when nothing is in its way.
pub(super) fn plain(base: &Base, path: &BlobPath) -> PathBuf {
    let mut plain = base.path(BLOBS);
    path.segments().for_each(|segment| plain.push(&*encode(segment)));
    plain
}

/// The same below the root, as text.
pub(super) fn plain_relative(path: &BlobPath) -> String {
    path.segments().fold(BLOBS.to_owned(), |plain, segment| plain + "/" + &encode(segment))
}

/// Writes down the long segments of a path that is about to be used.
pub(super) fn remember_long(base: &Base, path: &BlobPath) -> Result<()> {
    for segment in path.segments().filter(|segment| segment.len() > MAX_NAME / 3) {
        let Cow::Owned(name) = encode(segment) else { continue };
        let Some((_, hash)) = name.rsplit_once("%~") else { continue };
        let known = base.path(LONG).join(hash);
        if !known.exists() {
            file::create_folders(&base.path(LONG), base.durable)?;
            let scratch = base.path(LONG).join(format!(".{}", uuid::Uuid::new_v4()));
            file::replace(&scratch, &known, segment.as_bytes(), base.durable)?;
        }
    }
    Ok(())
}

/// What stands at a place, links not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    File,
    Folder,
    /// A link, a device, a socket.
    Other,
}

pub(super) fn look(path: &Path) -> Result<There> {
    let found = file::if_there(fs::symlink_metadata(path)).map_err(at(path))?;
    Ok(match found.map(|found| found.file_type()) {
        None => There::Nothing,
        Some(kind) if kind.is_file() => There::File,
        Some(kind) if kind.is_dir() => There::Folder,
        Some(_) => There::Other,
    })
}

/// The folders above a place, from below the blobs' own folder downwards.
pub(super) fn folders_above<'p>(base: &Base, place: &'p Path) -> Vec<&'p Path> {
    let top = base.path(BLOBS);
    let mut above: Vec<&Path> =
        place.ancestors().skip(1).take_while(|folder| folder.starts_with(&top) && *folder != top).collect();
    above.reverse();
    above
}

/// The blob's file as it stands now. `None`: there is none.
pub(super) fn find(base: &Base, path: &BlobPath) -> Result<Option<PathBuf>> {
    let place = plain(base, path);
    for folder in folders_above(base, &place) {
        if look(folder)? != There::Folder {
            return Ok(None);
        }
    }
    Ok(match look(&place)? {
        There::File => Some(place),
        There::Folder => Some(place.join(SELF)).filter(|inner| look(inner).is_ok_and(|there| there == There::File)),
        There::Nothing | There::Other => None,
    })
}

/// The file that a blob is to be renamed to, its folders created. Under the blobs' lock.
pub(super) fn make_room(base: &Base, path: &BlobPath) -> Result<PathBuf> {
    let place = plain(base, path);
    file::create_folders(&base.path(BLOBS), base.durable)?;
    for folder in folders_above(base, &place) {
        match look(folder)? {
            There::Folder => {}
            There::Nothing => file::create_folders(folder, base.durable)?,
            There::File => into_folder(base, folder)?,
            There::Other => return Err(in_the_way(folder)),
        }
    }
    match look(&place)? {
        There::Nothing | There::File => Ok(place),
        There::Other => Err(in_the_way(&place)),
        // An empty one makes way.
        There::Folder => Ok(if fs::remove_dir(&place).is_ok() { place } else { place.join(SELF) }),
    }
}

fn in_the_way(path: &Path) -> Error {
    Error::unsupported(format!("`{}` is a link or a device, which blobs are not: move it away", path.display()))
}

/// Turns the file of a blob into a folder with that file in it, so that other blobs may be below it.
fn into_folder(base: &Base, place: &Path) -> Result<()> {
    let made = super::uploads(base)?.join(uuid::Uuid::new_v4().to_string());
    fs::create_dir(&made).map_err(at(&made))?;
    step();
    let swapped = || {
        fs::hard_link(place, made.join(SELF)).map_err(at(place))?;
        if base.durable {
            file::sync_folder(&made)?;
        }
        step();
        swap(&made, place)
    };
    swapped().inspect_err(|_| drop(file::remove_tree(&made)))?;
    step();
    file::remove(&made)?;
    if base.durable { file::sync_folder(crate::base::parent(place)) } else { Ok(()) }
}

#[cfg(target_os = "linux")]
fn swap(a: &Path, b: &Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(|error| no_swap(b, error.into()))
}

#[cfg(not(target_os = "linux"))]
fn swap(_: &Path, b: &Path) -> Result<()> {
    Err(no_swap(b, std::io::ErrorKind::Unsupported.into()))
}

fn no_swap(place: &Path, error: std::io::Error) -> Error {
    Error::unsupported(format!(
        "`{}` is a blob, and this file system can't make room for others below it without a moment in which it is gone",
        place.display()
    ))
    .with_source(error)
}

/// Removes folders that have become empty.
pub(super) fn prune(base: &Base, place: &Path) {
    for folder in folders_above(base, place).into_iter().rev() {
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_as_they_are_but_where_they_can_not() {
        for same in ["a", "100%.txt", "a%zz", "%", "ü b.txt", ".hidden", "a%2"] {
            assert_eq!(encode(same), same);
        }
        assert_eq!(encode("a%41"), "a%2541");
        assert_eq!(encode(SELF), "%25~self");
        let long = "ü".repeat(200);
        assert!(encode(&long).len() <= MAX_NAME && encode(&long) != encode(&format!("{long}x")));
    }
}
