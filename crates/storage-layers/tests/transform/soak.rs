//! Large blobs in bounded memory.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use storage_core::{BlobBody, BlobStore, GetOptions, Result};
use storage_layers::transform::compression::{CompressedBlobs, CompressionOptions};
use storage_layers::transform::encryption::{EncryptedBlobs, EncryptionOptions, Key, Keyring};

use crate::support::{Wrap, fs, noise, path};

const PIECES: u64 = 1 << 10;
const PIECE: usize = 1 << 20;
/// What a gigabyte may add to the memory of the process.
const ALLOWED_MIB: u64 = 64;

/// The most memory that the process has had, in MiB.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? >> 10)
}

async fn hash(blobs: &BlobStore) -> Result<[u8; 32]> {
    let mut stream = blobs.get_with(&path("a"), &GetOptions::default()).await?.into_stream();
    let mut hash = Sha256::new();
    while let Some(piece) = stream.try_next().await? {
        hash.update(&piece);
    }
    Ok(hash.finalize().into())
}

/// `cargo nextest run --release -p storage-layers --all-features --run-ignored only soak_a_gigabyte`
#[tokio::test]
#[ignore = "soak: writes and reads 1 GiB for each of two transforms"]
async fn soak_a_gigabyte_in_bounded_memory() -> Result<()> {
    let piece = |n: u64| if n.is_multiple_of(2) { noise(n, PIECE) } else { Bytes::from(format!("line {n}\n").repeat(PIECE / 8)) };
    let wraps: [Wrap; 2] = [
        |inner| Arc::new(EncryptedBlobs::new(inner, Keyring::new(Key::new([1; 32])), EncryptionOptions::default())),
        |inner| Arc::new(CompressedBlobs::new(inner, CompressionOptions::default()).unwrap()),
    ];
    for wrap in wraps {
        let folder = tempfile::tempdir()?;
        let blobs = BlobStore::new(wrap(fs(folder.path()).await));
        let before = peak();
        let mut expected = Sha256::new();
        (0..PIECES).for_each(|n| expected.update(piece(n)));
        let stream = Box::pin(futures::stream::iter((0..PIECES).map(move |n| Ok(piece(n)))));
        blobs.put(&path("a"), BlobBody::Stream { stream, size: None }).await?;
        assert!(hash(&blobs).await? == <[u8; 32]>::from(expected.finalize()));
        if let (Some(before), Some(after)) = (before, peak()) {
            let name = &blobs.backend().info().driver;
            println!("{name}: {before} MiB before, {after} MiB at most");
            assert!(after - before < ALLOWED_MIB, "{name} took {} MiB", after - before);
        }
    }
    Ok(())
}
