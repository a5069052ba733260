//! Copies and renames.

use storage_core::{ErrorKind, PutMode, PutOptions};

use super::fixture::{Fixture, Kind, noise, path};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A copy has the same bytes and attributes and goes its own way from then on; what is at its place is replaced.
pub async fn a_copy_is_a_blob_of_its_own(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let bytes = noise(300_000);
    let options = if b.capabilities().attributes { PutOptions::default().metadata("k", "v") } else { PutOptions::default() };
    b.store.put_with(&path("from"), bytes.clone(), &options).await?;
    b.put("deep/to", "is replaced").await?;
    let meta = b.store.copy(&path("from"), &path("deep/to"), &PutMode::Overwrite).await?;
    assert_eq!((meta.path.as_str(), meta.size), ("deep/to", bytes.len() as u64));
    assert_eq!(b.store.head(&path("deep/to")).await?.attributes.metadata, options.attributes.metadata);
    b.put("from", "changed").await?;
    assert!(b.read("deep/to").await? == bytes, "the copy changed with the original");
    b.store.delete(&path("from")).await?;
    assert!(b.read("deep/to").await? == bytes);
    assert_eq!(b.all().await?, ["deep/to"]);
    Ok(())
}

/// Modes hold for copies as for puts.
pub async fn copies_have_modes(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    b.put("from", "new").await?;
    let old = b.put("to", "old").await?.etag;
    let kind = if b.capabilities().create { ErrorKind::AlreadyExists } else { ErrorKind::Unsupported };
    refused(kind, b.store.copy(&path("from"), &path("to"), &PutMode::Create).await);
    assert_eq!(b.text("to").await?, "old");
    if b.capabilities().create {
        b.store.copy(&path("from"), &path("created"), &PutMode::Create).await?;
        assert_eq!(b.text("created").await?, "new");
    }
    let Some(old) = old else { return Ok(()) };
    b.put("to", "other").await?;
    refused(ErrorKind::Conflict, b.store.copy(&path("from"), &path("to"), &PutMode::Update(old)).await);
    let now = b.store.head(&path("to")).await?.etag.expect("a mark");
    b.store.copy(&path("from"), &path("to"), &PutMode::Update(now.clone())).await?;
    assert_eq!(b.text("to").await?, "new");
    refused(ErrorKind::Conflict, b.store.copy(&path("from"), &path("gone"), &PutMode::Update(now)).await);
    assert!(!b.store.exists(&path("gone")).await?);
    Ok(())
}

/// A blob copied onto itself is as it was.
pub async fn a_copy_onto_itself(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let bytes = noise(50_000);
    b.put_as(Kind::Bytes, "a", &bytes, PutMode::Overwrite).await?;
    match b.store.copy(&path("a"), &path("a"), &PutMode::Overwrite).await {
        Ok(meta) => assert_eq!(meta.size, bytes.len() as u64),
        // S3 refuses it; what counts is that nothing is lost.
        Err(error) => drop(refused::<()>(ErrorKind::InvalidInput, Err(error))),
    }
    assert!(b.read("a").await? == bytes, "other bytes");
    assert_eq!(b.all().await?, ["a"]);
    Ok(())
}

/// A rename moves the blob with its attributes; onto itself it changes nothing.
pub async fn a_rename_moves(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let options = if b.capabilities().attributes { PutOptions::default().metadata("k", "v") } else { PutOptions::default() };
    b.store.put_with(&path("a/b/from"), "x", &options).await?;
    let meta = b.store.rename(&path("a/b/from"), &path("c/to")).await?;
    assert_eq!((meta.path.as_str(), meta.attributes.metadata), ("c/to", options.attributes.metadata));
    assert_eq!((b.all().await?, b.text("c/to").await?), (vec!["c/to".to_owned()], "x".to_owned()));
    b.store.rename(&path("c/to"), &path("c/to")).await?;
    assert_eq!(b.text("c/to").await?, "x");
    refused(ErrorKind::NotFound, b.store.rename(&path("a/b/from"), &path("d")).await);
    Ok(())
}
