//! What all transforms say of themselves.

use storage_core::{BackendInfo, BlobBackend, BlobPath, Error};

/// Named after the backend behind it: `fs+encryption /srv/blobs`.
pub(super) fn info(inner: &dyn BlobBackend, name: &str) -> BackendInfo {
    let inner = inner.info();
    BackendInfo::new(format!("{}+{name}", inner.driver), inner.location.clone())
}

/// Adds what was being done to an error.
pub(super) fn explain<'a>(
    info: &'a BackendInfo,
    operation: &'static str,
    path: &'a BlobPath,
) -> impl FnOnce(Error) -> Error + 'a {
    move |error| error.with_operation(operation).with_subject(format_args!("blob `{path}`")).with_backend(info)
}
