//! Create-only and ETag-guarded writes, for every kind of body; conditional reads and deletes.

use bytes::Bytes;
use storage_core::{ETag, ErrorKind, GetOptions, PutMode};

use super::fixture::{Fixture, Kind, noise, path};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

/// A create-only put writes where nothing is, and is `AlreadyExists` where something is, whatever the kind of body.
pub async fn create_only(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    for (n, kind) in Kind::ALL.into_iter().enumerate() {
        let (at, first, second) = (format!("a{n}"), Bytes::from_static(b"first"), Bytes::from_static(b"second"));
        if !b.capabilities().create {
            refused(ErrorKind::Unsupported, b.put_as(kind, &at, &first, PutMode::Create).await);
            assert!(!b.store.exists(&path(&at)).await?);
            continue;
        }
        b.put_as(kind, &at, &first, PutMode::Create).await?;
        refused(ErrorKind::AlreadyExists, b.put_as(kind, &at, &second, PutMode::Create).await);
        assert_eq!(b.read(&at).await?, first, "{kind:?}");
        b.store.delete(&path(&at)).await?;
        b.put_as(kind, &at, &second, PutMode::Create).await?;
        assert_eq!(b.read(&at).await?, second, "{kind:?}");
    }
    Ok(())
}

/// A guarded put writes over the state that it names, and is a `Conflict` over any other and where nothing is, whatever the kind of body.
pub async fn guarded_puts(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    for (n, kind) in Kind::ALL.into_iter().enumerate() {
        let (at, bytes) = (format!("a{n}"), |text: &str| Bytes::copy_from_slice(text.as_bytes()));
        let Some(first) = b.put(&at, "first").await?.etag else {
            assert!(!b.capabilities().conditional, "a conditional backend answers with marks");
            let update = PutMode::Update(ETag("x".into()));
            refused(ErrorKind::Unsupported, b.put_as(kind, &at, &bytes("second"), update).await);
            assert_eq!(b.text(&at).await?, "first");
            continue;
        };
        let update = PutMode::Update(first.clone());
        let second = b.put_as(kind, &at, &bytes("second"), update.clone()).await?.etag.expect("a mark");
        assert_ne!(first, second, "{kind:?}: a write of other bytes makes a new mark");
        refused(ErrorKind::Conflict, b.put_as(kind, &at, &bytes("third"), update).await);
        assert_eq!(b.text(&at).await?, "second", "{kind:?}");
        refused(ErrorKind::Conflict, b.put_as(kind, "missing", &bytes("third"), PutMode::Update(second.clone())).await);
        assert!(!b.store.exists(&path("missing")).await?);
        b.put_as(kind, &at, &bytes("third"), PutMode::Update(second)).await?;
        assert_eq!(b.text(&at).await?, "third", "{kind:?}");
    }
    Ok(())
}

/// The condition of a put is held against the blob when the last byte is in, not when the first is: who comes in between wins.
pub async fn conditions_are_decided_at_the_end(h: &dyn Harness) -> CaseResult {
    use futures::StreamExt as _;
    use storage_core::{BlobBody, PutOptions};
    let b = Fixture::open(h).await?;
    let mut modes = Vec::new();
    if b.capabilities().create {
        modes.push(("created", PutMode::Create, ErrorKind::AlreadyExists));
    }
    if let Some(etag) = b.put("updated", "before").await?.etag {
        modes.push(("updated", PutMode::Update(etag), ErrorKind::Conflict));
    }
    for (at, mode, kind) in modes {
        // A stream that has somebody else write the blob before it ends.
        let (store, meddled) = (b.store.clone(), path(at));
        let meddling = futures::stream::once(async move {
            store.put(&meddled, "meanwhile").await?;
            Ok(Bytes::from_static(b"tail"))
        });
        let stream = futures::stream::once(async { Ok(noise(6 << 20)) }).chain(meddling).boxed();
        let options = PutOptions::default().mode(mode);
        refused(kind, b.store.put_with(&path(at), BlobBody::Stream { stream, size: None }, &options).await);
        assert_eq!(b.text(at).await?, "meanwhile", "{at}");
    }
    Ok(())
}

/// Of many who create the same blob at once, one succeeds; its bytes are there.
pub async fn one_of_many_creators_succeeds(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    if !b.capabilities().create {
        refused(ErrorKind::Unsupported, b.put_as(Kind::Bytes, "a", &Bytes::new(), PutMode::Create).await);
        return Ok(());
    }
    let put = |n: usize| {
        let (store, kind) = (b.store.clone(), Kind::ALL[n % 4]);
        tokio::spawn(async move {
            let options = storage_core::PutOptions::default().mode(PutMode::Create);
            (n, store.put_with(&path("a"), kind.body(&Bytes::from(n.to_string())), &options).await)
        })
    };
    let outcomes = futures::future::try_join_all((0..8).map(put)).await?;
    let (winners, losers): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, outcome)| outcome.is_ok());
    assert_eq!(winners.len(), 1, "{winners:?}");
    for (_, loser) in losers {
        refused(ErrorKind::AlreadyExists, loser);
    }
    assert_eq!(b.text("a").await?, winners[0].0.to_string());
    Ok(())
}

/// Concurrent read-change-write cycles guarded by marks lose no update.
pub async fn guarded_updates_lose_nothing(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    if !b.capabilities().conditional {
        refused(ErrorKind::Unsupported, b.store.delete_if(&path("a"), &ETag("x".into())).await);
        return Ok(());
    }
    b.put("counter", "0").await?;
    let increment = || {
        let store = b.store.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                loop {
                    let read = store.get_with(&path("counter"), &GetOptions::default()).await?;
                    let etag = read.meta.etag.clone().expect("a mark");
                    let bytes = read.bytes().await?;
                    let count: u64 = std::str::from_utf8(&bytes).expect("digits").parse().expect("a number");
                    let options = storage_core::PutOptions::default().mode(PutMode::Update(etag));
                    match store.put_with(&path("counter"), (count + 1).to_string(), &options).await {
                        Ok(_) => break,
                        Err(error) if error.kind() == ErrorKind::Conflict => tokio::task::yield_now().await,
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(())
        })
    };
    for outcome in futures::future::try_join_all((0..4).map(|_| increment())).await? {
        outcome?;
    }
    assert_eq!(b.text("counter").await?, "20");
    Ok(())
}

/// A mark speaks of one state of a blob: reading does not change it, and the mark of an earlier state is not good for a later one with other bytes,
/// also where the blob was removed in between. (Of equal bytes some services make equal marks.)
pub async fn marks_are_not_used_twice(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    if !b.capabilities().conditional {
        assert_eq!(b.put("a", "same").await?.etag, None);
        return Ok(());
    }
    let first = b.put("a", "same").await?.etag.expect("a mark");
    assert_eq!(b.store.head(&path("a")).await?.etag.as_ref(), Some(&first), "reading changes no mark");
    b.put("a", "other").await?;
    b.store.delete(&path("a")).await?;
    b.put("a", "other, and longer").await?;
    refused(ErrorKind::Conflict, b.put_as(Kind::Bytes, "a", &Bytes::new(), PutMode::Update(first)).await);
    assert_eq!(b.text("a").await?, "other, and longer");
    Ok(())
}

/// A read with `if_match` answers that state of the blob, or `Conflict`.
pub async fn conditional_reads(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let etag = b.put("a", "first").await?.etag;
    let with = |etag: &Option<ETag>| GetOptions::default().if_match(etag.clone());
    if etag.is_none() {
        let options = with(&Some(ETag("x".into())));
        refused(ErrorKind::Unsupported, b.store.get_with(&path("a"), &options).await.map(drop));
        return Ok(());
    }
    assert_eq!(b.store.get_with(&path("a"), &with(&etag)).await?.bytes().await?, "first");
    assert_eq!(b.store.get_with(&path("a"), &with(&etag).range(1..3)).await?.bytes().await?, "ir");
    b.put("a", "second").await?;
    refused(ErrorKind::Conflict, b.store.get_with(&path("a"), &with(&etag)).await.map(drop));
    refused(ErrorKind::Conflict, b.store.get_with(&path("a"), &with(&etag).range(1..3)).await.map(drop));
    Ok(())
}

/// A delete with a mark removes that state of the blob, or is a `Conflict`: also where there is none.
pub async fn conditional_deletes(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let Some(first) = b.put("a", "first").await?.etag else {
        refused(ErrorKind::Unsupported, b.store.delete_if(&path("a"), &ETag("x".into())).await);
        assert_eq!(b.text("a").await?, "first");
        return Ok(());
    };
    let second = b.put("a", "second").await?.etag.expect("a mark");
    refused(ErrorKind::Conflict, b.store.delete_if(&path("a"), &first).await);
    assert_eq!(b.text("a").await?, "second");
    b.store.delete_if(&path("a"), &second).await?;
    refused(ErrorKind::Conflict, b.store.delete_if(&path("a"), &second).await);
    assert!(b.all().await?.is_empty());
    Ok(())
}
