//! Reading small files without ever blocking.
//!
//! A hop to a thread that may block costs more than reading a small file from the page cache. Linux can be asked to read only what needs
//! no disk; where it answers that it does, or on another system, the caller takes the hop.

use std::fs::File;

/// Larger files are read, and parsed, on a thread of their own.
pub(crate) const MAX: usize = 32 << 10;

#[derive(Debug)]
pub(crate) enum Found {
    Bytes(Vec<u8>),
    Missing,
    /// Only a read that may block can tell.
    Unknown,
}

#[cfg(target_os = "linux")]
pub(crate) fn read(folder: &File, relative: &str) -> Found {
    use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    use std::io::IoSliceMut;

    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match openat2(folder, relative, flags, Mode::empty(), ResolveFlags::CACHED | ResolveFlags::BENEATH) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Found::Missing,
        Err(_) => return Found::Unknown,
    };
    let size = fstat(&file).ok().and_then(|stat| usize::try_from(stat.st_size).ok());
    let Some(size) = size.filter(|size| *size <= MAX) else { return Found::Unknown };
    let mut bytes = vec![0; size];
    let read = preadv2(&file, &mut [IoSliceMut::new(&mut bytes)], 0, ReadWriteFlags::NOWAIT);
    // Less than all of it: the rest is on the disk.
    if read == Ok(size) { Found::Bytes(bytes) } else { Found::Unknown }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn read(_: &File, _: &str) -> Found {
    Found::Unknown
}
