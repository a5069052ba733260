//! Writing blobs.

use bytes::Bytes;
use futures::StreamExt as _;
use storage_core::{BlobBody, ErrorKind, PutMode, PutOptions};

use super::fixture::{Fixture, Kind, failing_stream, noise, path};
use crate::check::{refused, refused_as};
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// What was put is what is read, whether it was given as bytes, as a stream or as a file.
pub async fn put_then_get(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    for (n, kind) in Kind::ALL.into_iter().enumerate() {
        let (at, bytes) = (format!("dir/{n}.bin"), noise(100_000 + n));
        let meta = b.put_as(kind, &at, &bytes, PutMode::Overwrite).await?;
        assert_eq!((meta.path.as_str(), meta.size), (at.as_str(), bytes.len() as u64), "{kind:?}");
        assert!(b.read(&at).await? == bytes, "{kind:?}: other bytes came back");
    }
    assert_eq!(b.all().await?.len(), Kind::ALL.len());
    Ok(())
}

/// A blob without bytes is a blob, of every kind of body.
pub async fn empty_blobs(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    for (n, kind) in Kind::ALL.into_iter().enumerate() {
        let at = format!("empty{n}");
        assert_eq!(b.put_as(kind, &at, &Bytes::new(), PutMode::Overwrite).await?.size, 0, "{kind:?}");
        assert_eq!(b.store.head(&path(&at)).await?.size, 0);
        assert!(b.read(&at).await?.is_empty());
    }
    Ok(())
}

/// Blobs of several megabytes, which backends write in parts, come back byte for byte.
pub async fn large_blobs(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let bytes = noise(11 * 1024 * 1024 + 17);
    let bytes = bytes.slice(..bytes.len().min(usize::try_from(b.capabilities().max_blob_bytes).unwrap_or(usize::MAX)));
    for kind in [Kind::Stream, Kind::File] {
        let meta = b.put_as(kind, "large", &bytes, PutMode::Overwrite).await?;
        assert_eq!(meta.size, bytes.len() as u64, "{kind:?}");
        assert!(b.read("large").await? == bytes, "{kind:?}: other bytes came back");
    }
    Ok(())
}

/// A put replaces what is there as a whole, also where the new blob is shorter.
pub async fn a_put_replaces(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("a", "a long text").await?;
    for kind in Kind::ALL {
        b.put_as(kind, "a", &Bytes::from(format!("{kind:?}")), PutMode::Overwrite).await?;
        assert_eq!(b.text("a").await?, format!("{kind:?}"));
        b.put("a", "a much longer text than that of any kind").await?;
    }
    assert_eq!(b.all().await?, ["a"]);
    Ok(())
}

/// A stream that fails midway writes nothing, whether there was a blob or not, and leaves nothing behind that shows.
pub async fn a_stream_that_fails_writes_nothing(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("there", "before").await?;
    // Small ones, and ones so large that parts of them are written before the failure.
    for bytes in [Bytes::new(), noise(1000), noise(9 * 1024 * 1024)] {
        for size in [None, Some(bytes.len() as u64 + 1000)] {
            for at in ["there", "new"] {
                let body = failing_stream(&bytes, size);
                refused(ErrorKind::Unavailable, b.store.put(&path(at), body).await);
            }
        }
    }
    assert_eq!(b.text("there").await?, "before");
    refused(ErrorKind::NotFound, b.read("new").await);
    assert_eq!(b.all().await?, ["there"]);
    Ok(())
}

/// A stream of another length than was announced, shorter or longer, is refused and writes nothing.
pub async fn a_stream_of_another_length_is_refused(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("there", "before").await?;
    for announced in [0, 9, 11, 20_000_000] {
        for at in ["there", "new"] {
            let pieces = [Ok(Bytes::from_static(b"01234")), Ok(Bytes::from_static(b"56789"))];
            let body = BlobBody::Stream { stream: futures::stream::iter(pieces).boxed(), size: Some(announced) };
            refused(ErrorKind::InvalidInput, b.store.put(&path(at), body).await);
        }
    }
    assert_eq!(b.text("there").await?, "before");
    assert_eq!(b.all().await?, ["there"]);
    Ok(())
}

/// A put that is given up midway (its future dropped) writes nothing, and the store goes on working.
pub async fn a_cancelled_put_writes_nothing(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("there", "before").await?;
    for at in ["there", "new"] {
        let (sent, reached) = tokio::sync::oneshot::channel();
        let first = futures::stream::once(async { Ok(noise(6 * 1024 * 1024)) });
        let stuck = futures::stream::once(async move {
            sent.send(()).expect("somebody waits for it");
            futures::future::pending().await
        });
        let body = BlobBody::Stream { stream: first.chain(stuck).boxed(), size: None };
        let at = path(at);
        let put = b.store.put(&at, body);
        tokio::select! {
            outcome = put => panic!("the stream never ends, but: {outcome:?}"),
            reached = reached => reached.expect("the stream is read"),
        }
    }
    assert_eq!(b.text("there").await?, "before");
    assert_eq!(b.all().await?, ["there"]);
    b.put("new", "after").await?;
    assert_eq!(b.text("new").await?, "after");
    Ok(())
}

/// A blob larger than is declared is refused.
pub async fn a_blob_that_is_too_large_is_refused(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let Some(size) = b.capabilities().max_blob_bytes.checked_add(1) else { return Ok(()) };
    // Announced alone: the refusal must not wait for the bytes.
    let body = BlobBody::Stream { stream: futures::stream::pending().boxed(), size: Some(size) };
    refused(ErrorKind::InvalidInput, b.store.put(&path("a"), body).await);
    assert!(b.all().await?.is_empty());
    Ok(())
}

/// `head` and the answer of the put agree, and the time of the write is there.
pub async fn head_agrees_with_the_put(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let put = b.put("a/b", "12345").await?;
    let head = b.store.head(&path("a/b")).await?;
    assert_eq!((&head.path, head.size, &head.etag), (&put.path, put.size, &put.etag));
    assert_eq!(head.etag.is_some(), b.capabilities().conditional);
    let off = (b.opened.clock.now() - head.modified_at).num_seconds().abs();
    assert!(off < 300, "written at {}, which is {off} s from now", head.modified_at);
    Ok(())
}

/// A delete says whether there was a blob.
pub async fn a_delete_says_whether_there_was_one(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("a", "x").await?;
    b.put("a.b", "y").await?;
    assert!(b.store.delete(&path("a")).await?);
    assert!(!b.store.delete(&path("a")).await?);
    refused(ErrorKind::NotFound, b.read("a").await);
    refused(ErrorKind::NotFound, b.store.head(&path("a")).await);
    assert!(!b.store.exists(&path("a")).await?);
    assert_eq!(b.text("a.b").await?, "y");
    Ok(())
}

/// A path can be used again after a delete, also as a folder where there was a blob and as a blob where there was a folder.
pub async fn blobs_and_folders_change_places(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("a", "blob").await?;
    assert!(b.store.delete(&path("a")).await?);
    b.put("a/b/c", "below").await?;
    assert!(b.store.delete(&path("a/b/c")).await?);
    b.put("a", "blob again").await?;
    assert_eq!((b.all().await?, b.text("a").await?), (vec!["a".to_owned()], "blob again".to_owned()));
    // Both at once: kept as two blobs, or refused without harm to the first.
    match b.put("a/b", "below").await {
        Ok(_) => assert_eq!((b.text("a").await?, b.text("a/b").await?), ("blob again".to_owned(), "below".to_owned())),
        Err(error) => {
            refused_as::<()>(&[ErrorKind::InvalidInput, ErrorKind::Unsupported, ErrorKind::AlreadyExists], Err(error));
            assert_eq!(b.all().await?, ["a"]);
        }
    }
    Ok(())
}

/// Attributes are given with the put, whatever the mode; the default writes none.
pub async fn a_put_without_options_overwrites(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.store.put_with(&path("a"), "1", &PutOptions::default()).await?;
    b.store.put_with(&path("a"), "2", &PutOptions::default()).await?;
    assert_eq!(b.text("a").await?, "2");
    assert!(b.store.head(&path("a")).await?.attributes.content_type.as_deref() != Some("text/x"));
    Ok(())
}
