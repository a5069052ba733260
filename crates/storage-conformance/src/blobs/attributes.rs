//! Attributes beside the bytes.

use storage_core::{BlobAttributes, ErrorKind, GetOptions, PutMode, PutOptions};

use super::fixture::{Fixture, Kind, path};
use crate::check::refused;
use crate::{CaseResult, Failure, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

fn attributes() -> BlobAttributes {
    BlobAttributes {
        content_type: Some("text/csv; charset=utf-8".into()),
        cache_control: Some("max-age=60, public".into()),
        content_disposition: Some("attachment; filename=\"a b.csv\"".into()),
        content_encoding: Some("identity".into()),
        metadata: [("owner".into(), "acme inc.".into()), ("_n1".into(), "~!@#$%^&*()".into())].into(),
    }
}

/// A container. `None` where attributes are not kept, which is then checked.
async fn keeping(h: &dyn Harness) -> Result<Option<Fixture<'_>>, Failure> {
    let b = Fixture::open(h).await?;
    if b.capabilities().attributes {
        return Ok(Some(b));
    }
    let options = PutOptions { attributes: attributes(), ..PutOptions::default() };
    refused(ErrorKind::Unsupported, b.store.put_with(&path("a"), "x", &options).await);
    assert!(b.all().await?.is_empty());
    Ok(None)
}

/// Every attribute comes back, in the answer of the put, by `head` and by `get`, whatever the kind of body; the body's bytes are as they were.
pub async fn attributes_come_back(h: &dyn Harness) -> CaseResult {
    let Some(b) = keeping(h).await? else { return Ok(()) };
    let options = PutOptions { attributes: attributes(), ..PutOptions::default() };
    for kind in Kind::ALL {
        let put = b.store.put_with(&path("dir/a.csv"), kind.body(&"a,b\n".into()), &options).await?;
        assert_eq!(put.attributes, attributes(), "{kind:?}");
        assert_eq!(b.store.head(&path("dir/a.csv")).await?.attributes, attributes(), "{kind:?}");
        let read = b.store.get_with(&path("dir/a.csv"), &GetOptions::default().range(1..3)).await?;
        assert_eq!(read.meta.attributes, attributes(), "{kind:?}");
        assert_eq!(b.text("dir/a.csv").await?, "a,b\n");
    }
    assert_eq!(b.all().await?, ["dir/a.csv"], "attributes don't show as blobs");
    Ok(())
}

/// A put replaces the attributes with the bytes: nothing of the old ones stays.
pub async fn a_put_replaces_the_attributes(h: &dyn Harness) -> CaseResult {
    let Some(b) = keeping(h).await? else { return Ok(()) };
    let options = PutOptions { attributes: attributes(), ..PutOptions::default() };
    b.store.put_with(&path("a"), "x", &options).await?;
    b.store.put_with(&path("a"), "x", &PutOptions::default().content_type("text/x")).await?;
    let found = b.store.head(&path("a")).await?.attributes;
    assert_eq!((found.content_type.as_deref(), found.metadata.len(), found.cache_control), (Some("text/x"), 0, None));
    b.store.put_with(&path("a"), "x", &PutOptions::default().metadata("k", "v")).await?;
    assert_eq!(b.store.head(&path("a")).await?.attributes.metadata, [("k".to_owned(), "v".to_owned())].into());
    b.store.delete(&path("a")).await?;
    b.put("a", "again").await?;
    assert!(b.store.head(&path("a")).await?.attributes.metadata.is_empty());
    Ok(())
}

/// A put that is refused changes no attribute.
pub async fn a_refused_put_changes_no_attribute(h: &dyn Harness) -> CaseResult {
    let Some(b) = keeping(h).await? else { return Ok(()) };
    b.store.put_with(&path("a"), "x", &PutOptions::default().metadata("k", "old")).await?;
    let new = PutOptions::default().metadata("k", "new");
    if b.capabilities().create {
        refused(ErrorKind::AlreadyExists, b.store.put_with(&path("a"), "y", &new.clone().mode(PutMode::Create)).await);
    }
    let failing = super::fixture::failing_stream(&"some".into(), None);
    refused(ErrorKind::Unavailable, b.store.put_with(&path("a"), failing, &new).await);
    assert_eq!(b.store.head(&path("a")).await?.attributes.metadata["k"], "old");
    Ok(())
}

/// Attributes that some service could not keep are refused everywhere.
pub async fn bad_attributes_are_refused(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let bad = [
        PutOptions::default().metadata("Upper", "x"),
        PutOptions::default().metadata("a-b", "x"),
        PutOptions::default().metadata("", "x"),
        PutOptions::default().metadata("a", "ü"),
        PutOptions::default().metadata("a", "x\r\nInjected: y"),
        PutOptions::default().metadata("a", "x".repeat(3_000)),
        PutOptions::default().content_type(""),
        PutOptions::default().content_type(" text/x"),
    ];
    for options in bad {
        refused(ErrorKind::InvalidInput, b.store.put_with(&path("a"), "x", &options).await);
    }
    assert!(b.all().await?.is_empty());
    Ok(())
}

/// Text and JSON helpers write what they say.
pub async fn text_and_json(h: &dyn Harness) -> CaseResult {
    let b = Fixture::open(h).await?;
    let meta = b.store.put_text(&path("t"), "grüße").await?;
    assert_eq!(b.text("t").await?, "grüße");
    b.store.put_json(&path("j"), &vec![1, 2, 3]).await?;
    assert_eq!(b.store.get_json::<Vec<u32>>(&path("j")).await?, [1, 2, 3]);
    if b.capabilities().attributes {
        assert_eq!(meta.attributes.content_type.as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(b.store.head(&path("j")).await?.attributes.content_type.as_deref(), Some("application/json"));
    }
    refused(ErrorKind::InvalidInput, b.store.get_json::<Vec<String>>(&path("j")).await);
    b.store.put(&path("bytes"), vec![0xff, 0xfe]).await?;
    refused(ErrorKind::InvalidInput, b.store.get_text(&path("bytes")).await);
    Ok(())
}
