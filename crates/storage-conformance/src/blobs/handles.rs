//! Second handles, closed handles, broken handles.

use futures::TryStreamExt as _;
use storage_core::{BlobEntry, ListOptions};

use super::fixture::{Fixture, path};
use crate::check::{done_or_unavailable, refused_as_broken};
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A second handle sees the blobs of the first, at once, and the other way round.
pub async fn a_second_handle_sees_the_firsts_blobs(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let other = crate::opened::blobs(&b.opened.again().await?);
    for n in 0..10 {
        let put = b.put("a", &format!("{n}")).await?;
        assert_eq!(other.get_text(&path("a")).await?, format!("{n}"));
        assert_eq!(other.head(&path("a")).await?.etag, put.etag, "marks are the same for everybody");
        other.put(&path("b"), format!("{n}")).await?;
        assert_eq!(b.text("b").await?, format!("{n}"));
    }
    other.delete(&path("a")).await?;
    assert_eq!(b.all().await?, ["b"]);
    Ok(())
}

/// Blobs are there, with their marks, when the store is opened again.
pub async fn blobs_survive_close(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let put = b.put("dir/a", "x").await?;
    let again = b.opened.again().await?;
    b.store.close().await?;
    let store = if h.survives_close() {
        drop(again);
        crate::opened::blobs(&b.opened.again().await?)
    } else {
        crate::opened::blobs(&again)
    };
    assert_eq!(store.get_text(&path("dir/a")).await?, "x");
    assert_eq!(store.head(&path("dir/a")).await?.etag, put.etag);
    Ok(())
}

/// The container is created once.
pub async fn create_container_is_idempotent(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("a", "x").await?;
    assert!(!b.store.create_container().await?, "it is there already");
    assert_eq!(b.all().await?, ["a"]);
    b.store.ping().await?;
    Ok(())
}

/// A closed handle answers or says that it is `Unavailable`: it neither panics nor hangs. Others go on.
pub async fn a_closed_handle_fails_cleanly(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let other = crate::opened::blobs(&b.opened.again().await?);
    b.put("a", "x").await?;
    b.store.close().await?;
    b.store.close().await?;
    done_or_unavailable(b.read("a").await);
    done_or_unavailable(b.put("b", "x").await);
    done_or_unavailable(b.all().await);
    done_or_unavailable(b.store.ping().await);
    assert_eq!(other.get_text(&path("a")).await?, "x");
    Ok(())
}

/// A place that can't be reached or used gives errors that say so, on opening or on use; nothing panics, nothing hangs.
pub async fn a_broken_place_gives_errors(h: &dyn Harness) -> CaseResult {
    let Some((_place, backends)) = crate::opened::broken(h).await? else { return Ok(()) };
    let store = crate::opened::blobs(&backends);
    refused_as_broken(store.ping().await);
    refused_as_broken(store.put(&path("a"), "x").await);
    refused_as_broken(store.get(&path("a")).await);
    refused_as_broken(store.head(&path("a")).await);
    refused_as_broken(store.list(&ListOptions::default()).try_collect::<Vec<BlobEntry>>().await);
    Ok(())
}
