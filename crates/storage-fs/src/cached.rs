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
pub(crate) fn read(folder: &File, relative: &str, in_memory: bool) -> Found {
    use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    use std::io::IoSliceMut;

    use crate::file::read_at;

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
    match read {
        Ok(read) if read == size => Found::Bytes(bytes),
        Err(Errno::OPNOTSUPP) if in_memory => match read_at(&File::from(file), &mut bytes, 0) {
            Ok(read) if read == size => Found::Bytes(bytes),
            _ => Found::Unknown,
        },
        // Less than all of it: the rest is on the disk.
        _ => Found::Unknown,
    }
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
pub(crate) fn read(_: &File, _: &str, _: bool) -> Found {
    Found::Unknown
}
