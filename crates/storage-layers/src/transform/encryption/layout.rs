//! How an encrypted blob is laid out, in bytes.
//!
//! ```text
//! header   80   see [`header`](super::header)
//! chunk    65,536 of the blob, encrypted, then 16 of tag; the last one shorter
//! chunk    …
//! ```
//!
//! Each blob has at least one chunk; the last one is empty for an empty blob alone. So the blob's size follows from the stored size, and one
//! stored size has one meaning.

/// How many bytes the header has.
pub(super) const HEADER: usize = 80;
/// How many bytes of the blob a chunk holds.
pub(super) const CHUNK: usize = 64 << 10;
/// How many bytes a tag has.
pub(super) const TAG: usize = 16;
/// How many bytes a full chunk takes.
pub(super) const STORED_CHUNK: usize = CHUNK + TAG;
/// How many chunks a blob has at most.
const MAX_CHUNKS: u64 = 1 << 32;

/// How many chunks a blob of `size` bytes has.
pub(super) const fn chunks(size: u64) -> u64 {
    let full = size.div_ceil(CHUNK as u64);
    if full == 0 { 1 } else { full }
}

/// How many bytes a blob of `size` bytes takes.
pub(super) const fn stored_size(size: u64) -> u64 {
    size.saturating_add(HEADER as u64 + chunks(size) * TAG as u64)
}

/// How many bytes a blob has that takes `stored`. `None`: no blob takes that many.
pub(super) fn plain_size(stored: u64) -> Option<u64> {
    let body = stored.checked_sub(HEADER as u64)?;
    let chunks = body.div_ceil(STORED_CHUNK as u64);
    let plain = body.checked_sub(chunks * TAG as u64)?;
    (chunks > 0 && stored_size(plain) == stored).then_some(plain)
}

/// How many bytes a blob may have so that it takes at most `stored`.
pub(super) fn max_plain(stored: u64) -> u64 {
    let stored = stored.min(HEADER as u64 + MAX_CHUNKS * STORED_CHUNK as u64);
    let Some(body) = stored.checked_sub(HEADER as u64) else { return 0 };
    let (full, rest) = (body / STORED_CHUNK as u64, body % STORED_CHUNK as u64);
    full * CHUNK as u64 + rest.saturating_sub(TAG as u64)
}

/// Where a chunk begins.
pub(super) const fn chunk_start(index: u64) -> u64 {
    (HEADER as u64).saturating_add(index.saturating_mul(STORED_CHUNK as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_convert_both_ways() {
        let edge = CHUNK as u64;
        for size in [0, 1, 15, 16, 17, edge - 1, edge, edge + 1, 5 * edge - 1, 5 * edge, 5 * edge + 1, 1 << 40] {
            let stored = stored_size(size);
            assert_eq!(plain_size(stored), Some(size));
            assert_eq!(max_plain(stored), size);
            assert!(stored_size(max_plain(stored + 1)) <= stored + 1);
        }
        assert_eq!(stored_size(0), 96);
    }

    #[test]
    fn sizes_that_nothing_has_are_none() {
        let edge = (HEADER + STORED_CHUNK) as u64;
        // No header, no tag, and a last chunk that is empty though there is one before it.
        for stored in (0..96).chain(edge + 1..=edge + 16) {
            assert_eq!(plain_size(stored), None, "{stored}");
        }
        assert_eq!(plain_size(u64::MAX), plain_size(u64::MAX).filter(|plain| stored_size(*plain) == u64::MAX));
        assert_eq!(max_plain(u64::MAX), MAX_CHUNKS * CHUNK as u64);
        assert_eq!(max_plain(10), 0);
    }
}
