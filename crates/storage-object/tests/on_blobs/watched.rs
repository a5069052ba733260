//! Blobs in memory that count their requests, and fail when told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobRead, ETag, Error, GetOptions,
    ListOptions, PutMode, PutOptions, Result,
};
use storage_memory::{MemoryBlobs, MemoryStore};

/// What goes wrong, once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// A put takes effect, and nobody hears of it.
    LostAnswer,
    /// The same, and a layer in between tries again.
    Repeated,
    /// Unconditional deletes are refused.
    NoDeletes,
}

#[derive(Debug)]
pub(crate) struct Watched {
    inner: MemoryBlobs,
    /// Leaked, so that they can be changed behind a reference: these are tests.
    pub(crate) capabilities: Mutex<&'static BlobCapabilities>,
    counts: Arc<Mutex<BTreeMap<&'static str, u32>>>,
    fault: Mutex<Option<Fault>>,
}

impl Watched {
    pub(crate) fn new(store: &MemoryStore) -> Arc<Self> {
        let inner = store.blobs();
        let capabilities = Box::leak(Box::new(inner.capabilities().clone()));
        Arc::new(Self { inner, capabilities: Mutex::new(capabilities), counts: Arc::default(), fault: Mutex::default() })
    }

    /// The requests since it was asked last, `listed` the names among the answers.
    pub(crate) fn taken(&self) -> BTreeMap<&'static str, u32> {
        std::mem::take(&mut self.counts.lock().unwrap())
    }

    pub(crate) fn fail(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    fn fails(&self, fault: Fault) -> bool {
        self.fault.lock().unwrap().take_if(|next| *next == fault).is_some()
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }
}

#[async_trait]
impl BlobBackend for Watched {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> &BlobCapabilities {
        *self.capabilities.lock().unwrap()
    }

    async fn create_container(&self) -> Result<bool> {
        self.inner.create_container().await
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        self.count("put");
        let BlobBody::Bytes(bytes) = body else { panic!("an object is put as bytes") };
        if self.fails(Fault::LostAnswer) {
            self.inner.put(path, bytes.into(), options).await?;
            return Err(Error::timeout("no answer in time"));
        }
        if self.fails(Fault::Repeated) {
            self.inner.put(path, bytes.clone().into(), options).await?;
        }
        self.inner.put(path, bytes.into(), options).await
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.count("get");
        self.inner.get(path, options).await
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.count("head");
        self.inner.head(path).await
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.count("delete");
        if if_match.is_none() && self.fails(Fault::NoDeletes) {
            return Err(Error::unavailable("no answer"));
        }
        self.inner.delete(path, if_match).await
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        self.inner.copy(from, to, mode).await
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        self.count("list");
        let counts = Arc::clone(&self.counts);
        let counted = move |_: &Result<BlobEntry>| *counts.lock().unwrap().entry("listed").or_default() += 1;
        self.inner.list(options).inspect(counted).boxed()
    }

    fn uri(&self, path: &BlobPath) -> String {
        self.inner.uri(path)
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
