//! [`PrefixedBlobs`]: the blobs below a path, as a backend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobRead, ETag, Engine, GetOptions,
    ListOptions, PutMode, PutOptions, Result, Secret, SignedAccess,
};

/// The blobs of another backend below a path, under paths without it.
///
/// [`BlobStore::with_prefix`](storage_core::BlobStore::with_prefix) does the same for a program; this is for what stands between a store and a backend.
#[derive(Clone, Debug)]
pub struct PrefixedBlobs {
    inner: Arc<dyn BlobBackend>,
    prefix: BlobPath,
    info: BackendInfo,
}

impl PrefixedBlobs {
    /// The blobs of `inner` below `prefix`.
    pub fn new(inner: Arc<dyn BlobBackend>, prefix: BlobPath) -> Self {
        let BackendInfo { driver, location } = inner.info();
        let info = BackendInfo::new(format!("{driver}+prefix"), format!("{location}/{prefix}"));
        Self { inner, prefix, info }
    }

    fn full(&self, path: &BlobPath) -> Result<BlobPath> {
        self.prefix.join(path).map_err(|e| e.with_backend(&self.info))
    }
}

fn local(prefix: &BlobPath, mut meta: BlobMeta) -> BlobMeta {
    if let Some(local) = meta.path.below(prefix) {
        meta.path = local;
    }
    meta
}

#[async_trait]
impl BlobBackend for PrefixedBlobs {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        self.inner.capabilities()
    }

    async fn create_container(&self) -> Result<bool> {
        self.inner.create_container().await
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        Ok(local(&self.prefix, self.inner.put(&self.full(path)?, body, options).await?))
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        let mut read = self.inner.get(&self.full(path)?, options).await?;
        read.meta = local(&self.prefix, read.meta);
        Ok(read)
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        Ok(local(&self.prefix, self.inner.head(&self.full(path)?).await?))
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.inner.delete(&self.full(path)?, if_match).await
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        Ok(local(&self.prefix, self.inner.copy(&self.full(from)?, &self.full(to)?, mode).await?))
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        let start_after = options.start_after.as_ref().map(|key| format!("{}/{key}", self.prefix));
        let options = match options.prefix.as_ref().map(|below| self.full(below)).transpose() {
            Ok(below) => {
                let prefix = Some(below.unwrap_or_else(|| self.prefix.clone()));
                ListOptions { prefix, one_level: options.one_level, start_after }
            }
            Err(error) => return futures::stream::once(async { Err(error.with_operation("blobs.list")) }).boxed(),
        };
        let prefix = self.prefix.clone();
        let entries = self.inner.list(&options).map_ok(move |entry| match entry {
            BlobEntry::Blob(meta) => BlobEntry::Blob(local(&prefix, meta)),
            BlobEntry::Prefix(path) => BlobEntry::Prefix(path.below(&prefix).unwrap_or(path)),
        });
        entries.boxed()
    }

    fn uri(&self, path: &BlobPath) -> String {
        // A path too long to be a blob's has the address that it would have.
        self.full(path).map_or_else(|_| format!("{}/{path}", self.inner.uri(&self.prefix)), |full| self.inner.uri(&full))
    }

    async fn signed_url(&self, path: &BlobPath, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        self.inner.signed_url(&self.full(path)?, access, expires_in).await
    }

    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        self.inner.storage_options(engine)
    }

    fn engine_uri(&self, path: &BlobPath, engine: Engine) -> Result<String> {
        self.inner.engine_uri(&self.full(path)?, engine)
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
