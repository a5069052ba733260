//! [`ObjectBlobs`]: the blobs of one bucket or container.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use futures::stream::{BoxStream, StreamExt as _};
use http::StatusCode;
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobRead, ETag, Engine, Error,
    ErrorKind, GetOptions, ListOptions, OpenFlag, PutMode, PutOptions, Result, Secret, SignedAccess,
};
use tokio::sync::OnceCell;

use super::engines::{Engines, Opening};
use super::list;
use super::read::{self, Found, changed, find_if_there};
use super::service::{Listing, Service};
use super::upload::{self, Chunks, refused};

/// Blobs of one bucket or container, below an optional prefix, on any of the services. Made by the drivers.
pub struct ObjectBlobs {
    pub(super) service: Arc<dyn Service>,
    pub(super) info: BackendInfo,
    pub(super) capabilities: BlobCapabilities,
    /// Empty, or with a slash at its end.
    pub(super) prefix: String,
    /// What `uri` begins with: `s3://bucket`.
    pub(super) base_uri: String,
    pub(super) chunks: Chunks,
    pub(super) engines: Engines,
    pub(super) open: OpenFlag,
    pub(super) container: Container,
}

/// Whether the container is known to be there.
#[derive(Debug)]
pub(super) enum Container {
    /// Nobody wants to know: it is not ours to create.
    NotOurs,
    /// Seen, or created, once this is set.
    Wanted(OnceCell<()>),
}

impl fmt::Debug for ObjectBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectBlobs").field("info", &self.info).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl ObjectBlobs {
    fn key(&self, path: &BlobPath) -> Result<String> {
        let refused = self.service.traits().refused;
        if let Some(bad) = path.as_str().chars().find(|c| refused.contains(*c)) {
            return Err(Error::invalid(format!("this service turns the character {bad:?} of a path into another"))
                .with_backend(&self.info));
        }
        Ok(format!("{}{path}", self.prefix))
    }

    fn opening(&self, engine: Engine) -> Result<&Opening> {
        self.engines.way(engine).as_ref().map_err(|reason| Error::unsupported(*reason).with_backend(&self.info))
    }

    /// Before every use: a service that could not be asked for the container when this was opened is asked now.
    async fn ready(&self) -> Result<()> {
        self.open.check()?;
        match &self.container {
            Container::NotOurs => Ok(()),
            Container::Wanted(there) => there.get_or_try_init(|| self.prepare()).await.map(drop),
        }
    }

    /// Creates the container if it is missing.
    async fn prepare(&self) -> Result<()> {
        match self.page_of_one().await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => self.create_container().await.map(drop),
            Err(error) if error.is_retryable() => Err(error),
            // Credentials that may write, not list, are good enough where it is there.
            Err(_) => Ok(()),
        }
    }

    async fn page_of_one(&self) -> Result<()> {
        let listing = Listing { prefix: self.prefix.clone(), one_level: true, start_after: None, page_size: Some(1) };
        let page = self.service.page(&listing, None).await;
        page.map(drop).map_err(|e| Error::from(e).with_backend(&self.info))
    }

    /// Creates the container now, if that is wanted and the service can be reached; a service that is away may be back at the first use.
    pub(super) async fn opened(self) -> Result<Self> {
        match self.ready().await {
            Err(error) if error.is_retryable() => {
                tracing::debug!(error = %error, "the container could not be looked for yet");
                Ok(self)
            }
            ready => ready.map(|()| self),
        }
    }
}

#[async_trait]
impl BlobBackend for ObjectBlobs {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        &self.capabilities
    }

    async fn create_container(&self) -> Result<bool> {
        self.open.check()?;
        self.service.create_container().await.map_err(|e| Error::from(e).with_backend(&self.info))
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        self.ready().await?;
        let put = upload::put(&self.service, &self.key(path)?, body, options, self.chunks).await;
        let (etag, size) = put.map_err(|e| e.with_backend(&self.info))?;
        Ok(BlobMeta {
            path: path.clone(),
            size,
            // Services tell the time of a write only when asked again; `head` has the exact one.
            modified_at: Utc::now(),
            etag: Some(etag),
            attributes: options.attributes.clone(),
        })
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.ready().await?;
        let get = async { read::get(&*self.service, (path, &self.key(path)?), options).await };
        get.await.map_err(|e| e.with_backend(&self.info))
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.ready().await?;
        let found = self.service.find(&self.key(path)?).await.map_err(|e| Error::from(e).with_backend(&self.info))?;
        Ok(found.into_meta(path))
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.ready().await?;
        let key = self.key(path)?;
        let delete = async {
            // Services answer alike whether there was a blob or not, and not all of them look at the mark.
            let found = find_if_there(&*self.service, &key).await?;
            match (found, if_match) {
                (None, None) => return Ok(false),
                (None, Some(_)) => return Err(changed()),
                (Some(found), Some(etag)) if found.etag.as_ref() != Some(etag) => return Err(changed()),
                _ => {}
            }
            match self.service.delete(&key, if_match).await {
                Ok(()) => Ok(true),
                Err(failure) if failure.is(StatusCode::PRECONDITION_FAILED) => Err(changed()),
                Err(failure) if failure.is(StatusCode::NOT_FOUND) => if_match.map_or(Ok(false), |_| Err(changed())),
                Err(failure) => Err(failure.into()),
            }
        };
        delete.await.map_err(|e: Error| e.with_backend(&self.info))
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        self.ready().await?;
        let (source, target) = (self.key(from)?, self.key(to)?);
        let copy = async {
            let found = self.service.find(&source).await.map_err(Error::from)?;
            if source == target {
                return match mode {
                    PutMode::Create => Err(Error::already_exists("there is a blob at this path already")),
                    PutMode::Update(etag) if found.etag.as_ref() != Some(etag) => Err(changed()),
                    _ => Ok(found.into_meta(to)),
                };
            }
            let etag = if self.service.copies(&found, mode) {
                self.service.copy(&source, &found, &target, mode).await.map_err(|e| refused(e, mode))?
            } else {
                upload::copy(&self.service, (&source, &found), &target, mode, self.chunks).await?
            };
            Ok(Found { etag: Some(etag), modified_at: Utc::now(), ..found }.into_meta(to))
        };
        copy.await.map_err(|e: Error| e.with_backend(&self.info))
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        if let Err(error) = self.open.check() {
            return futures::stream::once(async { Err(error) }).boxed();
        }
        let info = self.info.clone();
        let entries = list::entries(Arc::clone(&self.service), self.prefix.clone(), options.clone());
        entries.map(move |entry| entry.map_err(|e| e.with_backend(&info))).boxed()
    }

    fn uri(&self, path: &BlobPath) -> String {
        format!("{}/{}{path}", self.base_uri, self.prefix)
    }

    async fn signed_url(&self, path: &BlobPath, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        self.ready().await?;
        self.service.signed_url(&self.key(path)?, access, expires_in).await.map_err(|e| e.with_backend(&self.info))
    }

    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        self.opening(engine).map(|opening| opening.options.clone())
    }

    fn engine_uri(&self, path: &BlobPath, engine: Engine) -> Result<String> {
        self.opening(engine).map(|opening| format!("{}/{}{path}", opening.base_uri, self.prefix))
    }

    async fn ping(&self) -> Result<()> {
        self.open.check()?;
        self.page_of_one().await
    }

    async fn close(&self) -> Result<()> {
        self.open.close();
        Ok(())
    }
}
