//! Blobs in an object store.

mod get;
mod info;
mod list;
mod put;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobRead, ETag, Error, GetOptions,
    ListOptions, PutMode, PutOptions, Result,
};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use self::info::{Names, ObjectInfo};
use crate::error::Fault;
use crate::store::{Inner, Part};
use crate::stream;

/// What the description of a stream of ours says.
const DESCRIPTION: &str = "blobs of the storage toolkit";
/// How many removals are under way at once.
const AT_ONCE: usize = 16;
/// What an address has as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Blobs on NATS: objects of one object store. See the [crate](crate#blobs).
#[derive(Clone, Debug)]
pub struct NatsBlobs {
    bucket: Bucket,
    capabilities: BlobCapabilities,
}

/// An object store.
#[derive(Clone, Debug)]
struct Bucket {
    inner: Arc<Inner>,
    names: Arc<Names>,
    /// Set once it was there.
    made: Arc<OnceCell<()>>,
}

fn no_blob() -> Error {
    Error::not_found("there is no such blob")
}

impl Bucket {
    fn check_open(&self) -> Result<()> {
        self.inner.check_open(Part::Blobs)
    }

    /// Open, and there: where it may, the first use creates it.
    async fn ready(&self) -> Result<()> {
        self.check_open()?;
        if self.inner.settings.auto_create {
            self.made.get_or_try_init(|| async { self.create().await.map(drop) }).await?;
        }
        Ok(())
    }

    /// False: it was there.
    async fn create(&self) -> Result<bool> {
        let (inner, names) = (&self.inner, &self.names);
        match inner.client.call(&format!("STREAM.INFO.{}", names.stream), &Value::Null).await? {
            Ok(_) => return Ok(false),
            Err(refusal) if refusal.is_missing_stream() => {}
            Err(refusal) => return Err(refusal.into_error()),
        }
        let config = stream::config(inner, &names.stream, DESCRIPTION, &names.subjects());
        stream::create(inner, &config).await.map(|()| true)
    }

    /// The place to write over, and the object that is there.
    async fn find(&self, path: &BlobPath) -> Result<(u64, Option<ObjectInfo>)> {
        let held = match stream::last(&self.inner.client, &self.names.stream, &self.names.info(path)).await {
            Ok(held) => held,
            Err(fault) => return Err(self.explain(fault).await),
        };
        let Some(held) = held else { return Ok((0, None)) };
        Ok((held.sequence, Some(ObjectInfo::read(&held)?).filter(|info| !info.deleted)))
    }

    /// The object, and when it was written.
    async fn describe(&self, path: &BlobPath) -> Result<(ObjectInfo, DateTime<Utc>)> {
        let held = match stream::last(&self.inner.client, &self.names.stream, &self.names.info(path)).await {
            Ok(held) => held.ok_or_else(no_blob)?,
            Err(fault) => return Err(self.explain(fault).await),
        };
        let info = ObjectInfo::read(&held)?;
        if info.deleted { Err(no_blob()) } else { Ok((info, held.stored)) }
    }

    /// Whether it is the container that is not there, or the server that does not answer yet.
    async fn explain(&self, fault: Fault) -> Error {
        let Fault::NoStream = fault else { return fault.into_error() };
        match self.inner.client.call(&format!("STREAM.INFO.{}", self.names.stream), &Value::Null).await {
            Ok(Err(refusal)) if refusal.is_missing_stream() => {
                Error::not_found(format!("there is no object store `{}`: create the container first", self.names.bucket))
            }
            Ok(Err(refusal)) => refusal.into_error(),
            Ok(Ok(_)) => crate::error::no_responders(),
            Err(error) => error,
        }
    }

    /// Removes chunks that are nobody's. It goes on in the background where the call is given up.
    async fn remove_chunks(&self, nuid: String) {
        if let Some(removal) = self.forget_chunks(nuid) {
            // That a task of ours panicked is no reason to say of a blob that it was not written.
            drop(removal.await);
        }
    }

    /// The same, where nobody can wait for it.
    fn forget_chunks(&self, nuid: String) -> Option<JoinHandle<()>> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let bucket = self.clone();
        Some(runtime.spawn(async move {
            let (call, filter) = (format!("STREAM.PURGE.{}", bucket.names.stream), bucket.names.chunks(&nuid));
            let purged = bucket.inner.client.call(&call, &put::purge(&filter)).await;
            if let Err(error) = purged.and_then(|purged| purged.map_err(crate::error::Refusal::into_error)) {
                tracing::warn!(%error, "the chunks `{filter}` are nobody's, and stay");
            }
        }))
    }

    /// Removes traces of what was removed.
    async fn tidy(&self, traces: Vec<u64>) {
        let remove = |sequence| stream::remove(&self.inner.client, &self.names.stream, sequence);
        let removals: Vec<_> = traces.into_iter().map(remove).collect();
        let mut removals = futures::stream::iter(removals).buffer_unordered(AT_ONCE);
        while let Some(removed) = removals.next().await {
            // Whoever reads may not be allowed to write.
            if let Err(fault) = removed {
                tracing::debug!(error = %fault.into_error(), "traces of removed blobs stay");
                return;
            }
        }
    }
}

impl NatsBlobs {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let names = Arc::new(Names::new(&inner.settings.prefix));
        let capabilities = BlobCapabilities {
            create: true,
            conditional: true,
            attributes: true,
            signed_url: false,
            max_blob_bytes: i64::MAX.unsigned_abs(),
            // The server syncs files every two minutes.
            durable: false,
        };
        Self { bucket: Bucket { inner, names, made: Arc::default() }, capabilities }
    }
}

#[async_trait]
impl BlobBackend for NatsBlobs {
    fn info(&self) -> &BackendInfo {
        &self.bucket.inner.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        &self.capabilities
    }

    async fn create_container(&self) -> Result<bool> {
        self.bucket.check_open()?;
        self.bucket.create().await
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        self.bucket.ready().await?;
        put::put(&self.bucket, path, body, options).await
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.bucket.ready().await?;
        get::get(&self.bucket, path, options).await
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.bucket.ready().await?;
        let (info, modified_at) = self.bucket.describe(path).await?;
        Ok(info.meta(path.clone(), modified_at))
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.bucket.ready().await?;
        put::delete(&self.bucket, path, if_match).await
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        self.bucket.ready().await?;
        put::copy(&self.bucket, from, to, mode).await
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        list::list(self.bucket.clone(), options.clone())
    }

    fn uri(&self, path: &BlobPath) -> String {
        let server = self.bucket.inner.client.location();
        let server = server.split_once(' ').map_or(server, |(server, _)| server);
        format!("{server}/{}/{}", self.bucket.names.bucket, utf8_percent_encode(path.as_str(), PLAIN))
    }

    async fn ping(&self) -> Result<()> {
        self.bucket.inner.ping(Part::Blobs).await
    }

    async fn close(&self) -> Result<()> {
        self.bucket.inner.close(Part::Blobs).await;
        Ok(())
    }
}
