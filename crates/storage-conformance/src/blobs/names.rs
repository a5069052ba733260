//! Odd paths.

use storage_core::{Engine, ErrorKind, PutMode};

use super::fixture::{Fixture, path};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness, names};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// Every path is a blob of its own, whatever characters it has, as a file name and as a folder name. Those with characters that the service can't
/// keep are refused, for writing and reading.
pub async fn odd_paths(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let bad = |name: &String| name.contains(|c| h.refused_in_paths().contains(c));
    let (bad, odd): (Vec<String>, Vec<String>) = names::odd().into_iter().partition(bad);
    for name in bad {
        refused(ErrorKind::InvalidInput, b.put(&format!("f/{name}"), "").await);
        refused(ErrorKind::InvalidInput, b.read(&format!("d/{name}/x")).await);
    }
    let mut paths: Vec<String> =
        odd.iter().flat_map(|name| [format!("f/{name}"), format!("d/{name}/x"), format!("d/{name}/{name}")]).collect();
    for at in &paths {
        b.put(at, at).await?;
    }
    for at in &paths {
        assert_eq!(b.text(at).await?, *at);
        assert_eq!(b.store.head(&path(at)).await?.path.as_str(), at);
    }
    paths.sort_unstable();
    assert_eq!(b.all().await?, paths);
    let below = storage_core::ListOptions::below(Some(path("d"))).one_level();
    let mut folders: Vec<String> = odd.iter().map(|name| format!("d/{name}/")).collect();
    folders.sort_unstable();
    assert_eq!(b.listed(below).await?, folders);
    for at in &paths {
        assert!(b.store.delete(&path(at)).await?, "{at}");
    }
    assert!(b.all().await?.is_empty());
    Ok(())
}

/// Paths that differ in letter case alone are different blobs.
pub async fn paths_that_differ_in_case(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    for at in ["A/b", "a/B", "a/b"] {
        b.put(at, at).await?;
    }
    b.store.delete(&path("a/B")).await?;
    assert_eq!(b.all().await?, ["A/b", "a/b"]);
    assert_eq!(b.text("A/b").await?, "A/b");
    Ok(())
}

/// Paths as long as is allowed: 1,024 bytes in segments of up to 200, or in one character each.
pub async fn long_paths(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let segments = [vec!["s".repeat(200); 5].join("/"), vec!["d"; 300].join("/")];
    for at in &segments {
        b.put(at, "x").await?;
        assert_eq!(b.text(at).await?, "x");
        b.store.copy(&path(at), &path("copy"), &PutMode::Overwrite).await?;
        assert!(b.store.delete(&path(at)).await?);
    }
    assert_eq!(b.all().await?, ["copy"]);
    refused(ErrorKind::InvalidInput, b.store.with_prefix(&path(&segments[0]))?.put(&path(&segments[0]), "x").await);
    Ok(())
}

/// A blob's address holds its path and no credentials, and is its own.
pub async fn every_blob_has_an_address(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let (one, two) = (b.store.uri(&path("dir/a b#?.txt"))?, b.store.uri(&path("dir/c"))?);
    assert!(one.contains("://") && two.ends_with("dir/c"), "{one} {two}");
    assert_ne!(one, two);
    assert!(!two.contains('@'), "no user or password: {two}");
    Ok(())
}

/// Every engine is told where a blob is and how to get at it, or why it can't be: both, or neither. A secret shows in neither an address nor `Debug`.
pub async fn engines_are_told_or_refused(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    for engine in Engine::ALL {
        let below = b.store.with_prefix(&path("dir"))?;
        let (whole, shorter) = (b.store.engine_uri(&path("dir/c"), engine), below.engine_uri(&path("c"), engine));
        let options = match b.store.storage_options(engine) {
            Ok(options) => options,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                refused(ErrorKind::Unsupported, whole);
                refused(ErrorKind::Unsupported, below.storage_options(engine));
                continue;
            }
        };
        let uri = whole?;
        assert!(uri.ends_with("/dir/c"), "{uri}");
        assert_eq!(uri, shorter?);
        assert_eq!(options, below.storage_options(engine)?);
        let shown = format!("{options:?} {uri}");
        for (name, value) in &options {
            assert!(!name.is_empty() && !value.expose().is_empty(), "{name}");
            let is_secret = ["secret", "key", "token", "sas"].iter().any(|word| name.to_lowercase().contains(word));
            assert!(!(is_secret && shown.contains(value.expose())), "{name} is shown: {shown}");
        }
    }
    Ok(())
}

/// Signed URLs are made where they are declared, and refused elsewhere; never for longer than a week or no time at all.
pub async fn signed_urls(h: &dyn Harness) -> CaseResult {
    use std::time::Duration;
    use storage_core::SignedAccess;
    let b = Fixture::open(h).await?;
    b.put("a", "x").await?;
    for access in [SignedAccess::Get, SignedAccess::Put] {
        let signed = b.store.signed_url(&path("a"), access, Duration::from_secs(60)).await;
        if b.capabilities().signed_url {
            let url = signed?;
            assert!(url.expose().starts_with("http") && url.expose().contains('?'), "not a signed URL");
            assert_eq!(format!("{url:?}"), "***");
        } else {
            refused(ErrorKind::Unsupported, signed);
        }
    }
    refused(ErrorKind::InvalidInput, b.store.signed_url(&path("a"), SignedAccess::Get, Duration::ZERO).await);
    refused(ErrorKind::InvalidInput, b.store.signed_url(&path("a"), SignedAccess::Get, Duration::from_secs(8 * 86_400)).await);
    Ok(())
}
