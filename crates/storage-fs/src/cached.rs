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

/// So many bytes from `offset` on. `None`: they are not all in memory. `in_memory`: see [`is_in_memory`].
#[cfg(target_os = "linux")]
pub(crate) fn read_at(file: &File, offset: u64, len: usize, in_memory: bool) -> Option<Vec<u8>> {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    let mut bytes = vec![0; len];
    let read = match preadv2(file, &mut [std::io::IoSliceMut::new(&mut bytes)], offset, ReadWriteFlags::NOWAIT) {
        Err(Errno::OPNOTSUPP) if in_memory => crate::file::read_at(file, &mut bytes, offset).ok(),
        read => read.ok(),
    };
    (read == Some(len)).then_some(bytes)
}

/// True where files are in memory, or on layers of local disks, so that one whose name is at hand is hardly ever waited for. These file
/// systems can't be asked.
#[cfg(target_os = "linux")]
pub(crate) fn is_in_memory(folder: &File) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    const OVERLAY: u64 = 0x794c_7630;
    let kind = rustix::fs::fstatfs(folder).ok().and_then(|found| u64::try_from(found.f_type).ok());
    matches!(kind, Some(TMPFS | RAMFS | OVERLAY))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_in_memory(_: &File) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn open(_: &File, _: &str) -> Found<File> {
    Found::Unknown
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn read_at(_: &File, _: u64, _: usize, _: bool) -> Option<Vec<u8>> {
    None
}

/// The whole of a small file below `folder`.
pub(crate) fn read(folder: &File, relative: &str, in_memory: bool) -> Found<Vec<u8>> {
    let file = match open(folder, relative) {
        Found::There(file) => file,
        Found::Missing => return Found::Missing,
        Found::Unknown => return Found::Unknown,
    };
    let size = file.metadata().ok().and_then(|found| usize::try_from(found.len()).ok()).filter(|size| *size <= MAX);
    size.and_then(|size| read_at(&file, 0, size, in_memory)).map_or(Found::Unknown, Found::There)
}
