//! What encryption promises: whatever is done to the stored bytes is found out; keys rotate; parts cost their chunks alone.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use storage_core::{BlobBackend, BlobStore, ByteRange, ErrorKind, GetOptions, PutOptions, Result, Secret};
use storage_layers::transform::encryption::{
    Algorithm, EncryptedBlobs, EncryptionOptions, Key, Keyring, PlainBlobs, RotationOptions, RotationReport,
};

use crate::support::{Counted, memory, noise, path, refused, store};

const HEADER: usize = 80;
const CHUNK: usize = 65_536;
const STORED: usize = CHUNK + 16;

fn key(n: u8) -> Key {
    Key::new([n; 32])
}

fn encrypted(inner: &Arc<dyn BlobBackend>, keys: Keyring, plain: PlainBlobs) -> Arc<EncryptedBlobs> {
    let options = EncryptionOptions { plain, ..EncryptionOptions::default() };
    Arc::new(EncryptedBlobs::new(Arc::clone(inner), keys, options))
}

/// A store that encrypts, and what it stores.
async fn pair(algorithm: Algorithm) -> (BlobStore, BlobStore) {
    let inner = memory().await;
    let options = EncryptionOptions { algorithm, plain: PlainBlobs::Refuse };
    let layer: Arc<dyn BlobBackend> = Arc::new(EncryptedBlobs::new(Arc::clone(&inner), Keyring::new(key(1)), options));
    (store(&layer), store(&inner))
}

/// Reads `a` with these stored bytes, which must be refused.
async fn tampered(blobs: &BlobStore, stored: &BlobStore, bytes: impl Into<Bytes>, what: &str) {
    stored.put(&path("a"), bytes.into()).await.unwrap();
    let read = blobs.get(&path("a")).await;
    let error = read.err().unwrap_or_else(|| panic!("{what}: it was read"));
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
    assert_eq!(error.subject(), Some("blob `a`"), "{error}");
}

#[tokio::test]
async fn every_bit_of_a_small_blob_counts() -> Result<()> {
    for algorithm in [Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305] {
        let (blobs, stored) = pair(algorithm).await;
        for content in ["", "attack at dawn"] {
            blobs.put(&path("a"), content).await?;
            let good = stored.get(&path("a")).await?;
            assert_eq!(good.len(), HEADER + content.len() + 16);
            for bit in 0..good.len() * 8 {
                let mut bad = BytesMut::from(&good[..]);
                bad[bit / 8] ^= 1 << (bit % 8);
                tampered(&blobs, &stored, bad, &format!("bit {bit}")).await;
            }
            for len in 0..good.len() {
                tampered(&blobs, &stored, good.slice(..len), &format!("cut to {len}")).await;
            }
            tampered(&blobs, &stored, [&good[..], b"x"].concat(), "one byte more").await;
            stored.put(&path("a"), good).await?;
            assert_eq!(blobs.get_text(&path("a")).await?, content);
        }
    }
    Ok(())
}

#[tokio::test]
async fn random_bits_of_a_large_blob_count() -> Result<()> {
    let (blobs, stored) = pair(Algorithm::Aes256Gcm).await;
    blobs.put(&path("a"), noise(1, 5 * CHUNK + 77)).await?;
    let good = stored.get(&path("a")).await?;
    for random in noise(2, 8 * 200).chunks_exact(8) {
        let bit = usize::try_from(u64::from_le_bytes(random.try_into().unwrap()) % (good.len() as u64 * 8)).unwrap();
        let mut bad = BytesMut::from(&good[..]);
        bad[bit / 8] ^= 1 << (bit % 8);
        tampered(&blobs, &stored, bad, &format!("bit {bit}")).await;
    }
    Ok(())
}

#[tokio::test]
async fn chunks_hold_their_places() -> Result<()> {
    let (blobs, stored) = pair(Algorithm::Aes256Gcm).await;
    let whole = noise(1, 4 * CHUNK);
    blobs.put(&path("a"), whole.clone()).await?;
    blobs.put(&path("b"), whole.clone()).await?;
    let (a, b) = (stored.get(&path("a")).await?, stored.get(&path("b")).await?);
    let chunk = |of: &Bytes, n: usize| of.slice(HEADER + n * STORED..HEADER + (n + 1) * STORED);
    let made = |chunks: &[Bytes]| [&[a.slice(..HEADER)], chunks].concat().concat();
    let [c0, c1, c2, c3] = [0, 1, 2, 3].map(|n| chunk(&a, n));
    tampered(&blobs, &stored, made(&[c0.clone(), c1.clone(), c2.clone()]), "the last one cut off").await;
    tampered(&blobs, &stored, made(&[c0.clone(), c1.clone(), c3.clone()]), "one left out").await;
    tampered(&blobs, &stored, made(&[c1.clone(), c2.clone(), c3.clone()]), "the first left out").await;
    tampered(&blobs, &stored, made(&[c0.clone(), c2.clone(), c1.clone(), c3.clone()]), "two changed places").await;
    tampered(&blobs, &stored, made(&[c0.clone(), c1.clone(), c1.clone(), c2.clone(), c3.clone()]), "one doubled").await;
    tampered(&blobs, &stored, made(&[c0.clone(), c1.clone(), c2.clone(), c3.clone(), c3.clone()]), "the last doubled").await;
    tampered(&blobs, &stored, made(&[c0.clone(), chunk(&b, 1), c2.clone(), c3.clone()]), "one of another blob").await;
    tampered(&blobs, &stored, [b.slice(..HEADER), a.slice(HEADER..)].concat(), "the header of another blob").await;
    tampered(&blobs, &stored, b.clone(), "a whole other blob, of the same content").await;
    tampered(&blobs, &stored, made(&[]), "the header alone").await;
    stored.put(&path("a"), a).await?;
    assert!(blobs.get(&path("a")).await? == whole);
    // The toolkit's own copy is a good blob.
    stored.delete(&path("b")).await?;
    blobs.rename(&path("a"), &path("b")).await?;
    assert!(blobs.get(&path("b")).await? == whole);
    Ok(())
}

/// A part is proven as the whole is; a cut at a chunk's edge shows where the part reaches the end.
#[tokio::test]
async fn parts_are_proven_too() -> Result<()> {
    let (blobs, stored) = pair(Algorithm::Aes256Gcm).await;
    let whole = noise(1, 3 * CHUNK);
    blobs.put(&path("a"), whole.clone()).await?;
    let good = stored.get(&path("a")).await?;
    let mut bad = BytesMut::from(&good[..]);
    bad[HEADER + STORED + 5] ^= 1;
    stored.put(&path("a"), bad.freeze()).await?;
    let part = |from: usize, to: usize| ByteRange::Bounded(from as u64..to as u64);
    refused(ErrorKind::Corrupt, blobs.get_range(&path("a"), part(CHUNK - 1, CHUNK + 1)).await);
    refused(ErrorKind::Corrupt, blobs.get_range(&path("a"), part(2 * CHUNK - 1, 2 * CHUNK)).await);
    assert!(blobs.get_range(&path("a"), part(0, CHUNK)).await? == whole.slice(..CHUNK));
    assert!(blobs.get_range(&path("a"), part(2 * CHUNK, 3 * CHUNK)).await? == whole.slice(2 * CHUNK..));
    stored.put(&path("a"), good.slice(..HEADER + 2 * STORED)).await?;
    for reaching in [ByteRange::Suffix(1), ByteRange::From(CHUNK as u64 + 1), part(0, 3 * CHUNK), part(0, 2 * CHUNK)] {
        refused(ErrorKind::Corrupt, blobs.get_range(&path("a"), reaching).await);
    }
    Ok(())
}

/// Only the header and the chunks that are asked for are read.
#[tokio::test]
async fn parts_cost_their_chunks() -> Result<()> {
    let counted = Arc::new(Counted::new(memory().await));
    let inner: Arc<dyn BlobBackend> = Arc::clone(&counted) as _;
    let layer = encrypted(&inner, Keyring::new(key(1)), PlainBlobs::Refuse);
    let blobs = BlobStore::new(layer);
    let whole = noise(1, 20 * CHUNK + 5);
    blobs.put(&path("a"), whole.clone()).await?;
    let stored = (HEADER + 20 * STORED + 5 + 16) as u64;
    for (range, reads, bytes) in [
        (ByteRange::From(0), 1, stored),
        (ByteRange::Bounded(0..1), 1, (HEADER + STORED) as u64),
        (ByteRange::Bounded(5..CHUNK as u64 + 1), 1, (HEADER + 2 * STORED) as u64),
        (ByteRange::Bounded(3 * CHUNK as u64..4 * CHUNK as u64), 2, (HEADER + STORED) as u64),
        (ByteRange::Bounded(3 * CHUNK as u64 - 1..4 * CHUNK as u64 + 1), 2, (HEADER + 3 * STORED) as u64),
        (ByteRange::Suffix(5), 2, (HEADER + 5 + 16) as u64),
        (ByteRange::Suffix(0), 1, HEADER as u64),
    ] {
        counted.reset();
        let resolved = range.resolve(whole.len() as u64)?;
        let expected = whole.slice(usize::try_from(resolved.start).unwrap()..usize::try_from(resolved.end).unwrap());
        assert!(blobs.get_range(&path("a"), range.clone()).await? == expected, "{range:?}");
        assert_eq!((counted.gets(), counted.read()), (reads, bytes), "{range:?}");
    }
    counted.reset();
    assert_eq!(blobs.head(&path("a")).await?.size, whole.len() as u64);
    assert_eq!(blobs.list_all(None).try_collect::<Vec<_>>().await?[0].size, whole.len() as u64);
    assert_eq!(counted.gets(), 0, "sizes cost no reads");
    Ok(())
}

#[tokio::test]
async fn one_content_is_never_stored_alike() -> Result<()> {
    let (blobs, stored) = pair(Algorithm::Aes256Gcm).await;
    let content = Bytes::from(vec![0; 1000]);
    blobs.put(&path("a"), content.clone()).await?;
    let first = stored.get(&path("a")).await?;
    blobs.put(&path("a"), content).await?;
    let second = stored.get(&path("a")).await?;
    assert_ne!(first.slice(HEADER..), second.slice(HEADER..));
    assert!(!first.windows(8).skip(HEADER).any(|window| window == [0; 8]), "the content shows");
    Ok(())
}

#[tokio::test]
async fn plain_blobs_are_refused_unless_allowed() -> Result<()> {
    let inner = memory().await;
    let refusing = BlobStore::new(encrypted(&inner, Keyring::new(key(1)), PlainBlobs::Refuse));
    let allowing = BlobStore::new(encrypted(&inner, Keyring::new(key(1)), PlainBlobs::Allow));
    let plain = store(&inner);
    for (at, size) in [("empty", 0), ("short", 50), ("long", 3 * CHUNK)] {
        let content = noise(1, size);
        plain.put_with(&path(at), content.clone(), &PutOptions::default().metadata("k", "v")).await?;
        refused(ErrorKind::Corrupt, refusing.get(&path(at)).await);
        assert!(allowing.get(&path(at)).await? == content);
        let head = allowing.head(&path(at)).await?;
        assert_eq!((head.size, head.attributes.metadata["k"].as_str()), (size as u64, "v"));
        for range in [ByteRange::Suffix(7), ByteRange::From(10), ByteRange::Bounded(CHUNK as u64 + 3..CHUNK as u64 + 9)] {
            let Ok(resolved) = range.resolve(size as u64) else { continue };
            let expected = content.slice(usize::try_from(resolved.start).unwrap()..usize::try_from(resolved.end).unwrap());
            assert!(allowing.get_range(&path(at), range).await? == expected);
        }
    }
    allowing.put(&path("new"), "secret").await?;
    assert_eq!(refusing.get_text(&path("new")).await?, "secret");
    let sizes: Vec<_> = allowing.list_all(None).map_ok(|meta| meta.size).try_collect().await?;
    assert_eq!(sizes, [0, 3 * CHUNK as u64, 6, 50]);
    Ok(())
}

/// What looks like an encrypted blob comes back as it was, if it was put through the encryption.
#[tokio::test]
async fn an_encrypted_blob_can_be_content() -> Result<()> {
    let inner = memory().await;
    let blobs = BlobStore::new(encrypted(&inner, Keyring::new(key(1)), PlainBlobs::Allow));
    blobs.put(&path("a"), "x").await?;
    let stored = store(&inner).get(&path("a")).await?;
    for content in [stored.clone(), stored.slice(..8), stored.slice(..80)] {
        blobs.put(&path("b"), content.clone()).await?;
        assert_eq!(blobs.get(&path("b")).await?, content);
    }
    Ok(())
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_told_of() -> Result<()> {
    let inner = memory().await;
    let with = |key: Key| BlobStore::new(encrypted(&inner, Keyring::new(key), PlainBlobs::Refuse));
    with(key(1).with_id("2025")?).put(&path("a"), "x").await?;
    let error = refused(ErrorKind::Unauthorized, with(key(2).with_id("2026")?).get(&path("a")).await);
    assert!(error.message().contains("`2025`") && error.message().contains("2026"), "{error}");
    let error = refused(ErrorKind::Corrupt, with(key(2).with_id("2025")?).get(&path("a")).await);
    assert!(error.message().contains("the key is not the one of its id"), "{error}");
    assert_eq!(with(Key::parse(&Secret::new("01".repeat(32)))?.with_id("2025")?).get(&path("a")).await?, "x");
    Ok(())
}

#[tokio::test]
async fn keys_rotate() -> Result<()> {
    let inner = memory().await;
    let old = BlobStore::new(encrypted(&inner, Keyring::new(key(1)), PlainBlobs::Refuse));
    let large = noise(1, 3 << 20);
    for n in 0..5 {
        old.put_with(&path(&format!("d/{n}")), format!("{n}"), &PutOptions::default().content_type("text/x")).await?;
    }
    old.put(&path("large"), large.clone()).await?;
    let keys = Keyring::new(key(2)).with_previous(key(1))?;
    let layer = encrypted(&inner, keys, PlainBlobs::Allow);
    let new = BlobStore::new(Arc::clone(&layer) as _);
    new.put(&path("d/new"), "new").await?;
    store(&inner).put(&path("d/plain"), "plain").await?;
    assert_eq!(new.get_text(&path("d/3")).await?, "3");

    // Broken off, and gone on with.
    let below = RotationOptions { prefix: Some(path("d")), start_after: Some(path("d/2")) };
    let report = layer.rotate(&below).await?;
    assert_eq!(report, RotationReport { checked: 4, rotated: 3, were_plain: 1, changed: 0, bytes: 1 + 1 + 5 });
    let report = layer.rotate(&RotationOptions::default()).await?;
    assert_eq!((report.checked, report.rotated, report.bytes), (8, 4, 3 + large.len() as u64));
    assert_eq!(layer.rotate(&RotationOptions::default()).await?.rotated, 0);

    let only_new = BlobStore::new(encrypted(&inner, Keyring::new(key(2)), PlainBlobs::Refuse));
    for n in 0..5 {
        let read = only_new.get_with(&path(&format!("d/{n}")), &GetOptions::default()).await?;
        assert_eq!(read.meta.attributes.content_type.as_deref(), Some("text/x"));
        assert_eq!(read.bytes().await?, format!("{n}"));
    }
    assert_eq!(only_new.get_text(&path("d/plain")).await?, "plain");
    assert!(only_new.get(&path("large")).await? == large);
    Ok(())
}

/// Blobs made by another implementation of the format, `tests/data/encrypted.py`: what is stored once stays readable.
#[tokio::test]
async fn blobs_of_another_implementation_are_read() -> Result<()> {
    let inner = memory().await;
    let blobs = BlobStore::new(encrypted(
        &inner,
        Keyring::new(Key::new(std::array::from_fn(|n| u8::try_from(n).unwrap())).with_id("test-1")?),
        PlainBlobs::Refuse,
    ));
    let content: Vec<u8> = (0..CHUNK + 100).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for (at, file) in [("dir/a.bin", &include_bytes!("../data/aes.bin")[..]), ("dir/b.bin", include_bytes!("../data/chacha.bin"))]
    {
        store(&inner).put(&path(at), file).await?;
        assert!(blobs.get(&path(at)).await? == content, "{at}");
    }
    Ok(())
}
