//! [`ReadOnlyBlobs`]: blobs that a program can't change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobRead, ETag, Engine, Error,
    GetOptions, ListOptions, PutMode, PutOptions, Result, Secret, SignedAccess,
};

use super::wrap;

/// The blobs of another backend, to be read alone: every write is [`Unsupported`](storage_core::ErrorKind::Unsupported), as what a backend does not offer.
///
/// It keeps a program from mistakes. It is no protection from somebody who has the credentials, which [`storage_options`](BlobBackend::storage_options) still hands to engines that
/// are to read the data.
#[derive(Clone, Debug)]
pub struct ReadOnlyBlobs {
    inner: Arc<dyn BlobBackend>,
    info: BackendInfo,
    capabilities: BlobCapabilities,
}

impl ReadOnlyBlobs {
    /// The blobs of `inner`, to be read alone.
    pub fn new(inner: Arc<dyn BlobBackend>) -> Self {
        let info = wrap::info(&*inner, "read_only");
        let capabilities = BlobCapabilities { create: false, ..inner.capabilities().clone() };
        Self { inner, info, capabilities }
    }

    fn refuse<T>(&self, operation: &'static str, path: Option<&BlobPath>) -> Result<T> {
        let error = Error::unsupported("these blobs are configured to be read alone (`read_only`)").with_operation(operation);
        let error = match path {
            Some(path) => error.with_subject(format_args!("blob `{path}`")),
            None => error,
        };
        Err(error.with_backend(&self.info))
    }
}

#[async_trait]
impl BlobBackend for ReadOnlyBlobs {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        &self.capabilities
    }

    async fn create_container(&self) -> Result<bool> {
        self.refuse("blobs.create_container", None)
    }

    async fn put(&self, path: &BlobPath, _: BlobBody, _: &PutOptions) -> Result<BlobMeta> {
        self.refuse("blobs.put", Some(path))
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.inner.get(path, options).await
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.inner.head(path).await
    }

    async fn delete(&self, path: &BlobPath, _: Option<&ETag>) -> Result<bool> {
        self.refuse("blobs.delete", Some(path))
    }

    async fn copy(&self, _: &BlobPath, to: &BlobPath, _: &PutMode) -> Result<BlobMeta> {
        self.refuse("blobs.copy", Some(to))
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        self.inner.list(options)
    }

    fn uri(&self, path: &BlobPath) -> String {
        self.inner.uri(path)
    }

    async fn signed_url(&self, path: &BlobPath, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        match access {
            SignedAccess::Get => self.inner.signed_url(path, access, expires_in).await,
            SignedAccess::Put => self.refuse("blobs.signed_url", Some(path)),
        }
    }

    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        self.inner.storage_options(engine)
    }

    fn engine_uri(&self, path: &BlobPath, engine: Engine) -> Result<String> {
        self.inner.engine_uri(path, engine)
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
