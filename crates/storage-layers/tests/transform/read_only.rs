//! What is read-only stays as it is.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use storage_core::{BlobBackend, ErrorKind, PutMode, PutOptions, Result, SignedAccess};
use storage_layers::transform::ReadOnlyBlobs;

use crate::support::{memory, path, refused, store};

#[tokio::test]
async fn every_write_is_refused() -> Result<()> {
    let inner = memory().await;
    let mark = store(&inner).put(&path("a"), "x").await?.etag.unwrap();
    let layer: Arc<dyn BlobBackend> = Arc::new(ReadOnlyBlobs::new(Arc::clone(&inner)));
    let blobs = store(&layer);
    for mode in [PutMode::Overwrite, PutMode::Create, PutMode::Update(mark.clone())] {
        refused(ErrorKind::Unsupported, blobs.put_with(&path("a"), "y", &PutOptions::default().mode(mode.clone())).await);
        refused(ErrorKind::Unsupported, blobs.copy(&path("a"), &path("b"), &mode).await);
    }
    refused(ErrorKind::Unsupported, blobs.delete(&path("a")).await);
    refused(ErrorKind::Unsupported, blobs.delete_if(&path("a"), &mark).await);
    refused(ErrorKind::Unsupported, blobs.rename(&path("a"), &path("b")).await);
    refused(ErrorKind::Unsupported, blobs.create_container().await);
    refused(ErrorKind::Unsupported, blobs.signed_url(&path("a"), SignedAccess::Put, Duration::from_secs(60)).await);
    assert_eq!(blobs.get(&path("a")).await?, "x");
    assert_eq!(blobs.head(&path("a")).await?.etag, Some(mark));
    assert_eq!(blobs.list_all(None).try_collect::<Vec<_>>().await?.len(), 1);
    Ok(())
}
