//! What a mirror promises: all copies alike, one copy enough to read, repair.

use std::sync::Arc;

use futures::TryStreamExt as _;
use storage_core::{BlobBackend, BlobBody, BlobStore, ETag, ErrorKind, GetOptions, PutMode, PutOptions, Result};
use storage_layers::transform::mirror::{Mirror, RepairOptions, RepairReport, Require};

use crate::support::{fs, memory, named, noise, path, refused, store};

/// A mirror, its two places, and a handle on each that can be closed so that the mirror reaches it no more.
struct Fixture {
    mirror: Mirror,
    blobs: BlobStore,
    places: [BlobStore; 2],
    handles: [Arc<dyn BlobBackend>; 2],
}

async fn fixture(name: &str, require: Require) -> Fixture {
    let names = [format!("{name}-one"), format!("{name}-two")];
    let open = async || [store(&named(&names[0]).await), store(&named(&names[1]).await)];
    let handles = [named(&names[0]).await, named(&names[1]).await];
    let mirror = Mirror::new(Arc::clone(&handles[0]), vec![Arc::clone(&handles[1])], require).unwrap();
    let layer: Arc<dyn BlobBackend> = Arc::new(mirror.clone());
    Fixture { blobs: store(&layer), mirror, places: open().await, handles }
}

#[tokio::test]
async fn writes_reach_all_copies() -> Result<()> {
    let f = fixture("reach", Require::All).await;
    let large = noise(1, 3 << 20);
    let pieces: Vec<_> = large.chunks(100_000).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
    let stream = BlobBody::Stream { stream: Box::pin(futures::stream::iter(pieces)), size: None };
    f.blobs.put_with(&path("a"), "x", &PutOptions::default().metadata("k", "v")).await?;
    f.blobs.put(&path("large"), stream).await?;
    f.blobs.copy(&path("a"), &path("b"), &PutMode::Create).await?;
    f.blobs.put(&path("gone"), "x").await?;
    f.blobs.delete(&path("gone")).await?;
    for place in &f.places {
        assert_eq!(place.get(&path("a")).await?, "x");
        assert_eq!(place.head(&path("b")).await?.attributes.metadata["k"], "v");
        assert!(place.get(&path("large")).await? == large);
        assert!(!place.exists(&path("gone")).await?);
    }
    Ok(())
}

#[tokio::test]
async fn one_copy_is_enough_to_read() -> Result<()> {
    let f = fixture("read", Require::All).await;
    f.blobs.put(&path("a"), "0123456789").await?;
    let mark = f.blobs.head(&path("a")).await?.etag;
    // Lost on the primary, then the primary lost.
    f.places[0].delete(&path("a")).await?;
    for _ in 0..2 {
        assert_eq!(f.blobs.get(&path("a")).await?, "0123456789");
        let head = f.blobs.head(&path("a")).await?;
        assert_ne!(head.etag, mark, "a mark of the other copy");
        let listed: Vec<_> = f.blobs.list_all(None).try_collect().await?;
        assert_eq!((listed.len(), &listed[0].etag), (1, &head.etag));
        let again = GetOptions::default().range(2..4).if_match(head.etag.clone());
        assert_eq!(f.blobs.get_with(&path("a"), &again).await?.bytes().await?, "23");
        let update = PutOptions::default().mode(PutMode::Update(head.etag.unwrap()));
        refused(ErrorKind::Conflict, f.blobs.put_with(&path("a"), "new", &update).await);
        f.handles[0].close().await?;
    }
    refused(ErrorKind::Unavailable, f.blobs.get(&path("missing")).await);
    refused(ErrorKind::Unavailable, f.blobs.put(&path("b"), "x").await);
    let foreign = GetOptions::default().if_match(Some(ETag("mirror-7:x".into())));
    refused(ErrorKind::Conflict, f.blobs.get_with(&path("a"), &foreign).await);
    Ok(())
}

#[tokio::test]
async fn a_copy_that_lacks_a_write_is_named() -> Result<()> {
    let strict = fixture("strict", Require::All).await;
    strict.handles[1].close().await?;
    let error = refused(ErrorKind::Unavailable, strict.blobs.put(&path("a"), "x").await);
    assert!(error.message().contains("copy 1 of the mirror (memory strict-two)"), "{error}");
    assert_eq!(strict.blobs.get(&path("a")).await?, "x", "it is on the primary");
    // A delete would leave it on the other.
    refused(ErrorKind::Unavailable, strict.blobs.delete(&path("a")).await);
    assert!(strict.places[0].exists(&path("a")).await?);

    let lenient = fixture("lenient", Require::Primary).await;
    lenient.handles[1].close().await?;
    lenient.blobs.put(&path("a"), "x").await?;
    refused(ErrorKind::NotFound, lenient.blobs.get(&path("missing")).await);
    refused(ErrorKind::Unavailable, lenient.blobs.delete(&path("a")).await);
    lenient.blobs.ping().await?;
    refused(ErrorKind::Unavailable, strict.blobs.ping().await);
    Ok(())
}

#[tokio::test]
async fn repair_makes_copies_alike() -> Result<()> {
    let f = fixture("repair", Require::All).await;
    for at in ["d/damaged", "d/lost", "d/same", "d/shorter", "e/new_there", "e/type"] {
        f.blobs.put_with(&path(at), "content", &PutOptions::default().content_type("text/x")).await?;
    }
    let [one, two] = &f.places;
    two.put_with(&path("d/damaged"), "c0ntent", &PutOptions::default().content_type("text/x")).await?;
    two.delete(&path("d/lost")).await?;
    two.put(&path("d/shorter"), "cont").await?;
    two.put_with(&path("e/type"), "content", &PutOptions::default().content_type("text/y")).await?;
    one.delete(&path("e/new_there")).await?;

    let below = RepairOptions { prefix: Some(path("d")), start_after: Some(path("d/damaged")), ..RepairOptions::default() };
    let report = f.mirror.repair(&below).await?;
    let expected = RepairReport {
        checked: 3,
        missing: 1,
        different: 1,
        bytes: 14,
        last: Some(path("d/shorter")),
        ..RepairReport::default()
    };
    assert_eq!(report, expected);
    let sizes = RepairOptions { sizes_only: true, ..RepairOptions::default() };
    let report = f.mirror.repair(&sizes).await?;
    assert_eq!((report.checked, report.missing, report.different), (6, 1, 0));
    let report = f.mirror.repair(&RepairOptions::default()).await?;
    assert_eq!((report.checked, report.missing, report.different, report.failed), (6, 0, 2, 0));
    let report = f.mirror.repair(&RepairOptions::default()).await?;
    assert_eq!((report.missing, report.different), (0, 0));
    for place in &f.places {
        for meta in place.list_all(None).try_collect::<Vec<_>>().await? {
            assert_eq!(place.get(&meta.path).await?, "content", "{}", meta.path);
            assert_eq!(place.head(&meta.path).await?.attributes.content_type.as_deref(), Some("text/x"));
        }
        assert_eq!(place.list_all(None).try_collect::<Vec<_>>().await?.len(), 6);
    }
    Ok(())
}

/// Writers of one blob within one mirror leave the copies alike, whatever kinds of body they put.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_leave_the_copies_alike() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let other = fs(folder.path()).await;
    let primary = memory().await;
    let mirror: Arc<dyn BlobBackend> = Arc::new(Mirror::new(Arc::clone(&primary), vec![Arc::clone(&other)], Require::All)?);
    for round in 0..20 {
        let writers = (0..8_u64).map(|n| {
            let blobs = store(&mirror);
            tokio::spawn(async move {
                let bytes = noise(round * 8 + n, 20_000);
                let body = if n % 2 == 0 {
                    BlobBody::Bytes(bytes)
                } else {
                    BlobBody::Stream { stream: Box::pin(futures::stream::once(async { Ok(bytes) })), size: None }
                };
                blobs.put(&path("a"), body).await
            })
        });
        for written in futures::future::join_all(writers).await {
            written.unwrap()?;
        }
        let (one, two) = (store(&primary).get(&path("a")).await?, store(&other).get(&path("a")).await?);
        assert!(one == two, "round {round}: the copies differ");
    }
    Ok(())
}

#[tokio::test]
async fn bad_mirrors_are_refused() {
    let (one, two) = (memory().await, memory().await);
    refused(ErrorKind::Config, Mirror::new(Arc::clone(&one), vec![], Require::All));
    refused(ErrorKind::Config, Mirror::new(Arc::clone(&one), vec![Arc::clone(&one)], Require::All));
    refused(ErrorKind::Config, Mirror::new(Arc::clone(&one), vec![Arc::clone(&two)], Require::Copies(3)));
    refused(ErrorKind::Config, Mirror::new(one, vec![two], Require::Copies(0)));
}
