//! What a cache promises: it saves reads, and never serves what was before a write.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use storage_core::{BlobBackend, BlobBody, BlobStore, ErrorKind, GetOptions, PutMode, Result};
use storage_layers::transform::{CacheOptions, CachedBlobs};

use crate::support::{Counted, memory, noise, path, refused, store};

const LONG: Option<Duration> = Some(Duration::from_secs(3600));

fn cached(options: CacheOptions, inner: Arc<dyn BlobBackend>) -> (BlobStore, Arc<Counted>) {
    let counted = Arc::new(Counted::new(inner));
    let layer: Arc<dyn BlobBackend> = Arc::new(CachedBlobs::new(Arc::clone(&counted) as _, options));
    (store(&layer), counted)
}

#[tokio::test]
async fn what_was_read_is_kept_and_checked() -> Result<()> {
    let inner = memory().await;
    let (blobs, counted) = cached(CacheOptions::default(), Arc::clone(&inner));
    blobs.put(&path("a"), "0123456789").await?;
    for _ in 0..3 {
        assert_eq!(blobs.get(&path("a")).await?, "0123456789");
        assert_eq!(blobs.get_range(&path("a"), 2..4).await?, "23");
    }
    assert_eq!((counted.gets(), counted.heads()), (1, 5));
    // Somebody else writes, and removes.
    store(&inner).put(&path("a"), "other").await?;
    assert_eq!(blobs.get(&path("a")).await?, "other");
    store(&inner).delete(&path("a")).await?;
    refused(ErrorKind::NotFound, blobs.get(&path("a")).await);
    Ok(())
}

#[tokio::test]
async fn within_its_age_it_asks_nobody() -> Result<()> {
    let (blobs, counted) = cached(CacheOptions { max_age: LONG, ..CacheOptions::default() }, memory().await);
    let mark = blobs.put(&path("a"), "1").await?.etag;
    for _ in 0..3 {
        assert_eq!(blobs.get(&path("a")).await?, "1");
    }
    assert_eq!((counted.gets(), counted.heads()), (1, 0));
    // One's own writes show at once, of every kind.
    blobs.put(&path("a"), "2").await?;
    assert_eq!(blobs.get(&path("a")).await?, "2");
    let options = GetOptions::default().if_match(mark);
    refused(ErrorKind::Conflict, blobs.get_with(&path("a"), &options).await);
    blobs.put(&path("b"), "3").await?;
    blobs.copy(&path("b"), &path("a"), &PutMode::Overwrite).await?;
    assert_eq!(blobs.get(&path("a")).await?, "3");
    blobs.delete(&path("a")).await?;
    refused(ErrorKind::NotFound, blobs.get(&path("a")).await);
    Ok(())
}

#[tokio::test]
async fn memory_is_bounded() -> Result<()> {
    let options = CacheOptions { max_bytes: 100_000, max_blob_bytes: 20_000, max_age: LONG };
    let (blobs, counted) = cached(options, memory().await);
    blobs.put(&path("large"), noise(1, 20_001)).await?;
    for _ in 0..2 {
        blobs.get(&path("large")).await?;
    }
    assert_eq!(counted.gets(), 2, "too large to be kept");
    for round in 0..2 {
        for n in 0..100 {
            let at = path(&format!("{n}"));
            if round == 0 {
                blobs.put(&at, noise(n, 10_000)).await?;
            }
            assert_eq!(blobs.get(&at).await?, noise(n, 10_000));
        }
    }
    // At most 9 fit, and moka may run a little behind.
    assert!(counted.gets() > 150, "{} reads for 200: more is kept than was allowed", counted.gets());
    Ok(())
}

/// A load that began before a write and ends behind it is not kept.
#[tokio::test]
async fn a_load_that_raced_a_write_is_not_kept() -> Result<()> {
    let (blobs, _) = cached(CacheOptions { max_age: LONG, ..CacheOptions::default() }, memory().await);
    blobs.put(&path("a"), "old").await?;
    // The put has begun, and waits for its bytes; the load is done meanwhile.
    let (send, bytes) = tokio::sync::oneshot::channel::<Bytes>();
    let stream = futures::stream::once(async move { Ok(bytes.await.unwrap_or_default()) });
    let body = BlobBody::Stream { stream: Box::pin(stream), size: None };
    let writer = tokio::spawn({
        let blobs = blobs.clone();
        async move { blobs.put(&path("a"), body).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(blobs.get(&path("a")).await?, "old");
    send.send(Bytes::from_static(b"new")).unwrap();
    writer.await.unwrap()?;
    assert_eq!(blobs.get(&path("a")).await?, "new");
    Ok(())
}

/// Whoever has been told that a write is done reads it, or a later one, however many write and read at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_go_back() -> Result<()> {
    let (blobs, _) = cached(CacheOptions { max_age: LONG, ..CacheOptions::default() }, memory().await);
    blobs.put(&path("a"), "0").await?;
    let read = async |blobs: &BlobStore| -> Result<u64> { Ok(blobs.get_text(&path("a")).await?.parse().unwrap()) };
    let reader = tokio::spawn({
        let blobs = blobs.clone();
        async move {
            let mut last = 0;
            while last < 2_000 {
                let now = blobs.get_text(&path("a")).await?.parse::<u64>().unwrap();
                assert!(now >= last, "{now} after {last}");
                last = now;
                tokio::task::yield_now().await;
            }
            Ok::<_, storage_core::Error>(())
        }
    });
    for n in 1..=2_000_u64 {
        blobs.put(&path("a"), n.to_string()).await?;
        assert_eq!(read(&blobs).await?, n);
    }
    reader.await.unwrap()
}
