//! What is larger than one request may carry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use common::{Server, s3_options};
use futures::StreamExt as _;
use storage_conformance::Place;
use storage_core::{BlobBody, BlobPath, BlobStore, Driver as _, DriverConfig};
use storage_object::S3Driver;

const MIB: u64 = 1 << 20;
/// One byte more than one request may carry to S3.
const SIZE: u64 = 5 * (1 << 30) + 1;
/// What the upload may add to the memory of the process: parts of 8 MiB, four under way, and what is read ahead.
const ALLOWED_MIB: u64 = 96;

/// The MiB `n` of the blob, the last one shorter. No two are alike.
fn piece(n: u64) -> Bytes {
    let size = (SIZE - n * MIB).min(MIB);
    let mut bytes = vec![n.to_le_bytes()[0]; usize::try_from(size).unwrap()];
    let numbered = bytes.len().min(8);
    bytes[..numbered].copy_from_slice(&n.to_le_bytes()[..numbered]);
    bytes.into()
}

fn expected(range: Range<u64>) -> Vec<u8> {
    let first = range.start / MIB;
    let bytes: Vec<u8> = (first..range.end.div_ceil(MIB)).flat_map(piece).collect();
    let at = |offset: u64| usize::try_from(offset - first * MIB).unwrap();
    bytes[at(range.start)..at(range.end)].to_vec()
}

/// The most memory that the process has had, in MiB; 0 where the system does not say.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.split("VmHWM:").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() >> 10
}

/// `cargo nextest run -p storage-object --all-features --run-ignored only soak_one_byte`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak: writes 5 GiB to SeaweedFS, which needs as much disk"]
async fn soak_one_byte_more_than_one_request_may_carry() {
    let Some(endpoint) = Server::SeaweedFs.or_skip() else { return };
    let url = Place::unique_name("s3://soak/").config.url.unwrap();
    let config = DriverConfig::from_url(&format!("{url}?{}&dialect=seaweedfs", s3_options(&endpoint)));
    let blobs = BlobStore::new(S3Driver.open(&config).await.unwrap().blobs.unwrap());
    let path = BlobPath::new("large").unwrap();

    let (before, begin) = (most_memory(), Instant::now());
    let stream = futures::stream::iter((0..SIZE.div_ceil(MIB)).map(|n| Ok(piece(n)))).boxed();
    let put = blobs.put(&path, BlobBody::Stream { stream, size: Some(SIZE) }).await.unwrap();
    let (took, added) = (begin.elapsed(), most_memory() - before);
    println!("{SIZE} bytes in {took:.1?}, {added} MiB of memory more");
    assert!(added < ALLOWED_MIB, "the upload took {added} MiB");

    assert_eq!((put.size, blobs.head(&path).await.unwrap().size), (SIZE, SIZE));
    // S3 says behind the mark how many parts there were.
    let parts: u64 = put.etag.unwrap().0.rsplit_once('-').unwrap().1.parse().unwrap();
    assert_eq!(parts, SIZE.div_ceil(8 * MIB));
    for range in [0..100, 8 * MIB - 10..8 * MIB + 10, (4 << 30) - 10..(4 << 30) + 10, SIZE - MIB - 10..SIZE, SIZE - 1..SIZE] {
        assert!(blobs.get_range(&path, range.clone()).await.unwrap() == expected(range.clone()), "{range:?}");
    }
    assert!(blobs.delete(&path).await.unwrap());
    assert!(!blobs.exists(&path).await.unwrap());
}
