//! Reading blobs and parts of them.

use bytes::Bytes;
use futures::TryStreamExt as _;
use storage_core::{ByteRange, ErrorKind, GetOptions, PutMode};

use super::fixture::{Fixture, Kind, noise, path};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

async fn range(b: &Fixture<'_>, at: &str, range: ByteRange) -> storage_core::Result<String> {
    let bytes = b.store.get_range(&path(at), range).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Ranges: from, to, within, at the very ends; what lies behind the blob's end is left out.
pub async fn ranges(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("a", "0123456789").await?;
    for (asked, expected) in [
        (ByteRange::Bounded(0..10), "0123456789"),
        (ByteRange::Bounded(0..1), "0"),
        (ByteRange::Bounded(9..10), "9"),
        (ByteRange::Bounded(3..6), "345"),
        (ByteRange::Bounded(8..100), "89"),
        (ByteRange::Bounded(5..u64::MAX), "56789"),
        (ByteRange::From(0), "0123456789"),
        (ByteRange::From(7), "789"),
        (ByteRange::Suffix(3), "789"),
        (ByteRange::Suffix(10), "0123456789"),
    ] {
        assert_eq!(range(&b, "a", asked.clone()).await?, expected, "{asked:?}");
    }
    Ok(())
}

/// A suffix longer than the blob is the whole blob.
pub async fn a_suffix_longer_than_the_blob(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("a", "0123456789").await?;
    b.put("empty", "").await?;
    for count in [11, 1_000_000, u64::MAX] {
        assert_eq!(range(&b, "a", ByteRange::Suffix(count)).await?, "0123456789", "the last {count}");
        assert_eq!(range(&b, "empty", ByteRange::Suffix(count)).await?, "", "the last {count} of nothing");
    }
    Ok(())
}

/// Ranges without bytes, within the blob, at its end and of an empty blob, are empty and no error.
pub async fn ranges_of_zero_length(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("a", "0123456789").await?;
    b.put("empty", "").await?;
    for (at, asked) in [
        ("a", ByteRange::Bounded(0..0)),
        ("a", ByteRange::Bounded(4..4)),
        ("a", ByteRange::Bounded(10..10)),
        ("a", ByteRange::Bounded(10..20)),
        ("a", ByteRange::From(10)),
        ("a", ByteRange::Suffix(0)),
        ("empty", ByteRange::Bounded(0..0)),
        ("empty", ByteRange::Bounded(0..5)),
        ("empty", ByteRange::From(0)),
        ("empty", ByteRange::Suffix(0)),
    ] {
        assert_eq!(range(&b, at, asked.clone()).await?, "", "{asked:?} of {at}");
    }
    Ok(())
}

/// A range that starts behind the blob's end, or ends before it starts, is `InvalidInput`.
pub async fn bad_ranges_are_refused(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("a", "0123456789").await?;
    #[expect(clippy::reversed_empty_ranges, reason = "the case under test")]
    let reversed = ByteRange::Bounded(5..2);
    for bad in [ByteRange::From(11), ByteRange::Bounded(11..12), ByteRange::From(u64::MAX), reversed] {
        refused(ErrorKind::InvalidInput, range(&b, "a", bad).await);
    }
    Ok(())
}

/// The answer describes the whole blob and the range that is read.
pub async fn a_read_describes_the_whole_blob(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let put = b.put("dir/a", "0123456789").await?;
    let read = b.store.get_with(&path("dir/a"), &GetOptions::default().range(2..50)).await?;
    assert_eq!((&read.meta.path, read.meta.size, &read.meta.etag), (&put.path, 10, &put.etag));
    assert_eq!(read.range, 2..10);
    let pieces: Vec<Bytes> = read.into_stream().try_collect().await?;
    assert_eq!(pieces.concat(), b"23456789");
    let whole = b.store.get_with(&path("dir/a"), &GetOptions::default()).await?;
    assert_eq!((whole.range.clone(), whole.bytes().await?), (0..10, Bytes::from_static(b"0123456789")));
    Ok(())
}

/// Ranges of a large blob, across whatever pieces the backend keeps or sends it in.
pub async fn ranges_of_a_large_blob(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let bytes = noise(5 * 1024 * 1024 + 3);
    b.put_as(Kind::Stream, "large", &bytes, PutMode::Overwrite).await?;
    let size = bytes.len() as u64;
    let edge = 1 << 20;
    for (from, to) in
        [(edge - 1, edge + 1), (edge, 2 * edge), (0, edge + 7), (3 * edge + 5, size), (size - 1, size), (17, size - 17)]
    {
        let part = b.store.get_range(&path("large"), from..to).await?;
        let (from, to) = (usize::try_from(from)?, usize::try_from(to)?);
        assert!(part == bytes.slice(from..to), "the bytes {from}..{to} are others");
    }
    Ok(())
}

/// What is not there is `NotFound`, for every way to read it; so is a folder.
pub async fn missing_blobs_are_not_found(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("dir/a", "x").await?;
    for at in ["nothing", "dir", "dir/a/b", "dir/b"] {
        refused(ErrorKind::NotFound, b.read(at).await);
        refused(ErrorKind::NotFound, b.store.head(&path(at)).await);
        refused(ErrorKind::NotFound, b.store.get_range(&path(at), 0..1).await);
        refused(ErrorKind::NotFound, b.store.copy(&path(at), &path("to"), &PutMode::Overwrite).await);
        assert!(!b.store.exists(&path(at)).await?);
        assert!(!b.store.delete(&path(at)).await?);
    }
    assert_eq!(b.all().await?, ["dir/a"]);
    Ok(())
}

/// A blob that is being read while it is replaced and removed comes whole, as the old or as the new one, or the read fails; never as a mixture.
pub async fn a_read_is_of_one_state(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let (old, new) = (Bytes::from(vec![b'o'; 3 << 20]), Bytes::from(vec![b'n'; 3 << 20]));
    b.put_as(Kind::Bytes, "a", &old, PutMode::Overwrite).await?;
    let read = b.store.get_with(&path("a"), &GetOptions::default()).await?;
    let mut stream = read.into_stream();
    let mut got = stream.try_next().await?.expect("a first piece").to_vec();
    b.put_as(Kind::Bytes, "a", &new, PutMode::Overwrite).await?;
    loop {
        match stream.try_next().await {
            Ok(Some(piece)) => got.extend_from_slice(&piece),
            Ok(None) => break assert!(got == old, "a mixture, or cut short: {} bytes", got.len()),
            Err(error) => break assert!(got.iter().all(|byte| *byte == b'o'), "failed, but after a mixture: {error}"),
        }
    }
    assert!(b.read("a").await? == new, "the new blob is there");
    Ok(())
}
