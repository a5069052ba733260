//! Reading small files without ever blocking.
//!
//! A hop to a thread that may block costs more than reading a small file from the page cache. Linux can be asked to open and read only what
//! needs no disk; where it answers that it does, or on another system, the caller takes the hop.

use std::fs::File;

/// Larger files are read, and parsed, on a thread of their own.
pub(crate) const MAX: usize = 32 << 10;

#[derive(Debug)]
pub(crate) enum Found<T> {
    There(T),
    Missing,
    /// Only a look that may block can tell.
    Unknown,
}

/// Opens a file below `folder`, no link followed.
#[cfg(target_os = "linux")]
pub(crate) fn open(folder: &File, relative: &str) -> Found<File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    use rustix::io::Errno;

    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::CACHED | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(folder, relative, flags, Mode::empty(), resolve) {
        Ok(file) => Found::There(file.into()),
        Err(Errno::NOENT) => Found::Missing,
        Err(_) => Found::Unknown,
    }
}

/// So many bytes from `offset` on. `None`: they are not all in memory.
#[cfg(target_os = "linux")]
pub(crate) fn read_at(file: &File, offset: u64, len: usize) -> Option<Vec<u8>> {
    use rustix::io::{ReadWriteFlags, preadv2};

    let mut bytes = vec![0; len];
    let read = preadv2(file, &mut [std::io::IoSliceMut::new(&mut bytes)], offset, ReadWriteFlags::NOWAIT);
    (read == Ok(len)).then_some(bytes)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn open(_: &File, _: &str) -> Found<File> {
    Found::Unknown
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn read_at(_: &File, _: u64, _: usize) -> Option<Vec<u8>> {
    None
}

/// The whole of a small file below `folder`.
pub(crate) fn read(folder: &File, relative: &str) -> Found<Vec<u8>> {
    let file = match open(folder, relative) {
        Found::There(file) => file,
        Found::Missing => return Found::Missing,
        Found::Unknown => return Found::Unknown,
    };
    let size = file.metadata().ok().and_then(|found| usize::try_from(found.len()).ok()).filter(|size| *size <= MAX);
    size.and_then(|size| read_at(&file, 0, size)).map_or(Found::Unknown, Found::There)
}
