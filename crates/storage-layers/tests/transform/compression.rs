//! What compression promises: less room, the published format, bounded frames.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use storage_core::{BlobBackend, BlobBody, BlobStore, ByteRange, ErrorKind, GetOptions, PutOptions, Result};
use storage_layers::transform::compression::{CompressedBlobs, CompressionOptions};

use crate::support::{Counted, memory, noise, path, refused, store};

const FRAME: usize = 1 << 20;

/// A store that compresses, and what it stores.
async fn pair() -> (BlobStore, BlobStore, Arc<Counted>) {
    let counted = Arc::new(Counted::new(memory().await));
    let inner: Arc<dyn BlobBackend> = Arc::clone(&counted) as _;
    let layer: Arc<dyn BlobBackend> = Arc::new(CompressedBlobs::new(Arc::clone(&inner), CompressionOptions::default()).unwrap());
    (store(&layer), store(&inner), counted)
}

/// Text that shrinks, other at each place.
fn text(len: usize) -> Bytes {
    (0..).flat_map(|n: u32| format!("line {n} of a text\n").into_bytes()).take(len).collect()
}

fn stream(bytes: &Bytes) -> BlobBody {
    let pieces: Vec<Result<Bytes>> = bytes.chunks(70_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    BlobBody::Stream { stream: Box::pin(futures::stream::iter(pieces)), size: None }
}

#[tokio::test]
async fn what_shrinks_takes_less_room() -> Result<()> {
    let (blobs, stored, _) = pair().await;
    for (content, most) in [(text(3 * FRAME + 5), FRAME), (noise(1, 3 * FRAME + 5), 3 * FRAME + 600), (Bytes::new(), 100)] {
        for body in [BlobBody::Bytes(content.clone()), stream(&content)] {
            let meta = blobs.put(&path("a"), body).await?;
            let size = stored.head(&path("a")).await?.size;
            assert!(size <= most as u64, "{} bytes take {size}", content.len());
            assert_eq!(meta.size, content.len() as u64);
            assert_eq!(blobs.head(&path("a")).await?.size, content.len() as u64);
            assert!(blobs.get(&path("a")).await? == content);
        }
    }
    Ok(())
}

/// `zstd -d` and every other decoder of the format makes the blob of the stored bytes.
#[tokio::test]
async fn any_zstd_decompresses_it() -> Result<()> {
    let (blobs, stored, _) = pair().await;
    let mixed = Bytes::from([text(FRAME), noise(1, FRAME), text(2 * FRAME + 1)].concat());
    for content in [Bytes::new(), text(10), mixed] {
        for body in [BlobBody::Bytes(content.clone()), stream(&content)] {
            blobs.put(&path("a"), body).await?;
            let bytes = stored.get(&path("a")).await?;
            assert!(zstd::stream::decode_all(&bytes[..])? == content);
        }
    }
    Ok(())
}

#[tokio::test]
async fn parts_cost_their_frames() -> Result<()> {
    let (blobs, stored, counted) = pair().await;
    let content = noise(1, 10 * FRAME + 5);
    blobs.put(&path("a"), stream(&content)).await?;
    for (range, reads, most) in [
        (ByteRange::From(0), 2, 10 * FRAME + 1000),
        (ByteRange::Bounded(0..5), 2, FRAME + 200),
        (ByteRange::Bounded(3 * FRAME as u64..4 * FRAME as u64), 4, FRAME + 200),
        (ByteRange::Bounded(3 * FRAME as u64 - 1..4 * FRAME as u64), 4, 2 * FRAME + 200),
        (ByteRange::Suffix(5), 4, 300),
    ] {
        counted.reset();
        let resolved = range.resolve(content.len() as u64)?;
        let expected = content.slice(usize::try_from(resolved.start).unwrap()..usize::try_from(resolved.end).unwrap());
        assert!(blobs.get_range(&path("a"), range.clone()).await? == expected, "{range:?}");
        assert!(counted.gets() == reads && counted.read() <= most as u64, "{range:?}: {} {}", counted.gets(), counted.read());
    }
    counted.reset();
    blobs.put(&path("b"), content.clone()).await?;
    assert!(blobs.get(&path("b")).await? == content);
    assert_eq!(counted.gets(), 1, "the size was known beforehand");
    assert_eq!(stored.list_all(None).try_collect::<Vec<_>>().await?.len(), 2);
    Ok(())
}

/// Blobs that were there before are read as they are, also those that are compressed by other means; what looks like one of ours and is put through
/// the compression comes back as it was.
#[tokio::test]
async fn other_blobs_are_left_alone() -> Result<()> {
    let (blobs, stored, _) = pair().await;
    let zst = Bytes::from(zstd::bulk::compress(&text(1000), 3)?);
    for content in [Bytes::new(), text(20), noise(1, 3 * FRAME), zst] {
        stored.put(&path("old"), content.clone()).await?;
        assert!(blobs.get(&path("old")).await? == content);
        assert_eq!(blobs.head(&path("old")).await?.size, content.len() as u64);
        for range in [ByteRange::Suffix(7), ByteRange::From(10), ByteRange::Bounded(2 * FRAME as u64..2 * FRAME as u64 + 9)] {
            let Ok(resolved) = range.resolve(content.len() as u64) else { continue };
            let expected = content.slice(usize::try_from(resolved.start).unwrap()..usize::try_from(resolved.end).unwrap());
            assert!(blobs.get_range(&path("old"), range).await? == expected);
        }
    }
    blobs.put(&path("a"), text(1000)).await?;
    let ours = stored.get(&path("a")).await?;
    for content in [ours.clone(), ours.slice(..16), ours.slice(..32)] {
        blobs.put(&path("b"), content.clone()).await?;
        assert_eq!(blobs.get(&path("b")).await?, content);
    }
    Ok(())
}

/// What is compressed already is not tried: the stored bytes hold it as it is.
#[tokio::test]
async fn dense_content_is_stored_as_it_is() -> Result<()> {
    let (blobs, stored, _) = pair().await;
    let content = text(1000);
    let by_type = |media: &str| PutOptions::default().content_type(media);
    let mut by_encoding = PutOptions::default();
    by_encoding.attributes.content_encoding = Some("gzip".into());
    for (options, dense) in [
        (by_type("image/jpeg"), true),
        (by_type("Video/MP4; codecs=x"), true),
        (by_encoding, true),
        (by_type("image/svg+xml"), false),
        (by_type("text/plain"), false),
    ] {
        let meta = blobs.put_with(&path("a"), content.clone(), &options).await?;
        assert_eq!(meta.attributes, options.attributes, "the attributes are the user's own");
        let bytes = stored.get(&path("a")).await?;
        assert_eq!(bytes.windows(content.len()).any(|window| window == content), dense, "{options:?}");
        assert_eq!(blobs.get(&path("a")).await?, content);
    }
    Ok(())
}

/// A frame that holds more than it should is not decompressed further than that.
#[tokio::test]
async fn bombs_do_not_go_off() -> Result<()> {
    let (blobs, stored, _) = pair().await;
    blobs.put(&path("a"), text(1000)).await?;
    let ours = stored.get(&path("a")).await?;
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3)?;
    let bombs = [
        [&ours[..32], &bomb].concat(),
        // It says that it holds a gigabyte, and has one frame.
        [&ours[..24], &(1_u64 << 30).to_le_bytes(), &ours[32..]].concat(),
        // It says that it holds less than it does.
        [&ours[..24], &10_u64.to_le_bytes(), &ours[32..]].concat(),
        [&ours[..24], &(u64::MAX - 1).to_le_bytes(), &ours[32..]].concat(),
    ];
    for (n, bomb) in bombs.into_iter().enumerate() {
        stored.put(&path("a"), bomb).await?;
        let error = blobs.get(&path("a")).await.err().unwrap_or_else(|| panic!("bomb {n} was read"));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{n}: {error}");
    }
    Ok(())
}

/// Damage is an error, or is in a byte that says nothing; it never panics.
#[tokio::test]
async fn damage_is_told_of() -> Result<()> {
    let (blobs, stored, _) = pair().await;
    let content = text(5000);
    blobs.put(&path("a"), content.clone()).await?;
    let good = stored.get(&path("a")).await?;
    for bit in 0..good.len() * 8 {
        let mut bad = BytesMut::from(&good[..]);
        bad[bit / 8] ^= 1 << (bit % 8);
        let bad = bad.freeze();
        stored.put(&path("a"), bad.clone()).await?;
        for range in [ByteRange::From(0), ByteRange::Suffix(5000)] {
            match blobs.get_range(&path("a"), range).await {
                // Without the magic it is another blob.
                Ok(read) => assert!(read == content || bad.ends_with(&read), "bit {bit} changed what is read"),
                Err(error) => drop(refused::<()>(ErrorKind::Corrupt, Err(error))),
            }
        }
    }
    Ok(())
}

/// Content that is stored as it is has a checksum too: whatever bit of it flips, no wrong byte is read, of the whole and of a part.
#[tokio::test]
async fn damage_to_what_is_stored_as_it_is_is_told_of() -> Result<()> {
    let (blobs, stored, _) = pair().await;
    let content = noise(1, 400);
    blobs.put_with(&path("a"), content.clone(), &PutOptions::default().content_type("image/png")).await?;
    let good = stored.get(&path("a")).await?;
    let at = good.windows(content.len()).position(|window| window == content).expect("it is stored as it is");
    // The content, and its checksum behind it.
    for bit in at * 8..(at + content.len() + 4) * 8 {
        let mut bad = BytesMut::from(&good[..]);
        bad[bit / 8] ^= 1 << (bit % 8);
        stored.put(&path("a"), bad.freeze()).await?;
        for range in [ByteRange::From(0), ByteRange::Bounded(0..10), ByteRange::Suffix(10)] {
            refused(ErrorKind::Corrupt, blobs.get_range(&path("a"), range).await);
        }
    }
    // In the second of three frames: what is before it is read, and nothing of it.
    let content = noise(2, 2 * FRAME + 10);
    blobs.put(&path("a"), content.clone()).await?;
    let mut bad = BytesMut::from(&stored.get(&path("a")).await?[..]);
    bad[FRAME + FRAME / 2] ^= 1;
    stored.put(&path("a"), bad.freeze()).await?;
    let mut stream = blobs.get_with(&path("a"), &GetOptions::default()).await?.into_stream();
    let mut read = BytesMut::new();
    let error = loop {
        match stream.try_next().await {
            Ok(piece) => read.extend_from_slice(&piece.expect("the damage is told of")),
            Err(error) => break error,
        }
    };
    assert!(error.kind() == ErrorKind::Corrupt && read == content.slice(..FRAME), "{error}, {} bytes", read.len());
    Ok(())
}

/// Blobs of the versions that gave frames no checksum that were stored as they are.
#[tokio::test]
async fn frames_without_a_checksum_are_read() -> Result<()> {
    let (blobs, stored, _) = pair().await;
    let content = noise(1, 1000);
    blobs.put(&path("a"), content.clone()).await?;
    let ours = stored.get(&path("a")).await?;
    let at = ours.windows(content.len()).position(|window| window == content).expect("it is stored as it is");
    let (frame, end) = (at - 12, at + content.len());
    let mut old = ours.to_vec();
    old.drain(end..end + 4);
    assert_eq!(old[frame + 4], 0b1010_0100);
    old[frame + 4] = 0b1010_0000;
    // The table's second entry: how many bytes the frame takes.
    let entry = old.len() - 17;
    let taken = u32::try_from(end - frame).unwrap();
    old[entry..entry + 4].copy_from_slice(&taken.to_le_bytes());
    stored.put(&path("a"), old).await?;
    assert_eq!(blobs.get(&path("a")).await?, content);
    assert_eq!(blobs.get_range(&path("a"), 10..20).await?, content.slice(10..20));
    Ok(())
}
