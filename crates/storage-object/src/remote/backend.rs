//! [`ObjectBlobs`]: the blobs of one bucket or container.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use futures::stream::{BoxStream, StreamExt as _};
use http::{Method, StatusCode};
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobContent, BlobEntry, BlobMeta, BlobPath, BlobRead, ByteRange, ETag,
    Engine, Error, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Result, Secret, SignedAccess,
};

use super::engines::{Engines, Opening};
use super::list;
use super::service::{Found, Service, found, quoted};
use super::upload::{self, Chunks, refused};
use super::wire::{Answer, Call, Failure};

/// More than any blob has: what a range that ends behind everything is cut to.
const BEYOND: u64 = 1 << 60;

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
    pub(super) closed: AtomicBool,
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

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::unavailable("this handle is closed"));
        }
        Ok(())
    }

    fn meta(path: &BlobPath, found: Found) -> BlobMeta {
        BlobMeta {
            path: path.clone(),
            size: found.size,
            modified_at: found.modified_at,
            etag: found.etag,
            attributes: found.attributes,
        }
    }

    async fn find(&self, key: &str) -> Result<Found, Failure> {
        let answer = self.service.wire().send(Call::new(Method::HEAD, self.service.url(key))).await?;
        Ok(found(&answer.headers, self.service.traits())?)
    }

    async fn find_if_there(&self, key: &str) -> Result<Option<Found>> {
        match self.find(key).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is(StatusCode::NOT_FOUND) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Reads from the service, with a `Range` header as it is.
    async fn request(&self, key: &str, range: Option<&str>, if_match: Option<&ETag>) -> Result<Answer, Failure> {
        let if_match = if_match.map(quoted);
        let call = Call::new(Method::GET, self.service.url(key));
        self.service.wire().send(call.header_if("range", range).header_if("if-match", if_match.as_deref())).await
    }

    /// A read of a range that the service can't be asked for as it is: the blob's size decides.
    async fn resolved(&self, path: &BlobPath, range: &ByteRange, if_match: Option<&ETag>) -> Result<BlobRead> {
        let key = self.key(path)?;
        let found = self.find(&key).await.map_err(Error::from)?;
        if if_match.is_some_and(|etag| found.etag.as_ref() != Some(etag)) {
            return Err(changed());
        }
        let range = range.resolve(found.size)?;
        if range.is_empty() {
            let content = BlobContent::Stream(futures::stream::empty().boxed());
            return Ok(BlobRead { meta: Self::meta(path, found), range, content });
        }
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        let answer = self.request(&key, Some(&asked), found.etag.as_ref()).await.map_err(read_refused)?;
        self.answered(path, answer, Some(range))
    }

    /// What a read answered. `asked`: the range, where it is known.
    fn answered(&self, path: &BlobPath, answer: Answer, asked: Option<std::ops::Range<u64>>) -> Result<BlobRead> {
        let found = found(&answer.headers, self.service.traits())?;
        let range = match (answer.status, &asked) {
            // Some answer so to a range of an empty blob.
            (StatusCode::PARTIAL_CONTENT, None) if found.size == 0 => 0..0,
            (StatusCode::PARTIAL_CONTENT, _) => content_range(&answer)?,
            (_, None) => 0..found.size,
            (_, Some(asked)) if *asked == (0..found.size) => 0..found.size,
            _ => return Err(Error::unavailable("the service answers the whole blob in place of the range that was asked for")),
        };
        Ok(BlobRead { meta: Self::meta(path, found), range, content: BlobContent::Stream(answer.into_stream()) })
    }
}

/// The offsets in `Content-Range: bytes 2-9/10`.
fn content_range(answer: &Answer) -> Result<std::ops::Range<u64>> {
    let parse = || {
        let (range, _) = answer.header("content-range")?.strip_prefix("bytes ")?.split_once('/')?;
        let (from, to) = range.split_once('-')?;
        Some(from.parse().ok()?..to.parse::<u64>().ok()?.checked_add(1)?)
    };
    parse().ok_or_else(|| Error::unavailable("the service does not say which range it answers"))
}

/// The header for a range that a service understands; `None` where the blob's size has to be known first.
fn range_header(range: &ByteRange, suffixes: bool) -> Option<String> {
    match range {
        ByteRange::Bounded(range) if range.start < range.end && range.start < BEYOND => {
            Some(format!("bytes={}-{}", range.start, range.end.min(BEYOND) - 1))
        }
        ByteRange::From(from) if *from < BEYOND => Some(format!("bytes={from}-")),
        ByteRange::Suffix(count) if suffixes && (1..BEYOND).contains(count) => Some(format!("bytes=-{count}")),
        _ => None,
    }
}

fn changed() -> Error {
    Error::conflict("the blob has another mark than the one asked for")
}

fn read_refused(failure: Failure) -> Error {
    if failure.is(StatusCode::PRECONDITION_FAILED) { changed() } else { failure.into() }
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
        self.check_open()?;
        self.service.create_container().await.map_err(|e| Error::from(e).with_backend(&self.info))
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        self.check_open()?;
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
        self.check_open()?;
        let if_match = options.if_match.as_ref();
        let read = async {
            let header = match &options.range {
                None => None,
                Some(range) => match range_header(range, self.service.traits().suffix_ranges) {
                    Some(header) => Some(header),
                    None => return self.resolved(path, range, if_match).await,
                },
            };
            match (self.request(&self.key(path)?, header.as_deref(), if_match).await, &options.range) {
                // The range holds no byte of the blob: at its very end that is an empty read, behind it an error.
                (Err(failure), Some(range)) if failure.is(StatusCode::RANGE_NOT_SATISFIABLE) => {
                    self.resolved(path, range, if_match).await
                }
                // Some answer a range of an empty blob with all of it.
                (Ok(answer), Some(range)) if answer.status != StatusCode::PARTIAL_CONTENT => {
                    let asked = range.resolve(found(&answer.headers, self.service.traits())?.size)?;
                    self.answered(path, answer, Some(asked))
                }
                (answer, _) => self.answered(path, answer.map_err(read_refused)?, None),
            }
        };
        read.await.map_err(|e| e.with_backend(&self.info))
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.check_open()?;
        let found = self.find(&self.key(path)?).await.map_err(|e| Error::from(e).with_backend(&self.info))?;
        Ok(Self::meta(path, found))
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.check_open()?;
        let key = self.key(path)?;
        let delete = async {
            // Services answer alike whether there was a blob or not, and not all of them look at the mark.
            let found = self.find_if_there(&key).await?;
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
        self.check_open()?;
        let (source, target) = (self.key(from)?, self.key(to)?);
        let copy = async {
            let found = self.find(&source).await.map_err(Error::from)?;
            if source == target {
                return match mode {
                    PutMode::Create => Err(Error::already_exists("there is a blob at this path already")),
                    PutMode::Update(etag) if found.etag.as_ref() != Some(etag) => Err(changed()),
                    _ => Ok(Self::meta(to, found)),
                };
            }
            let etag = if self.service.copies(&found, mode) {
                self.service.copy(&source, &found, &target, mode).await.map_err(|e| refused(e, mode))?
            } else {
                upload::copy(&self.service, (&source, &found), &target, mode, self.chunks).await?
            };
            Ok(Self::meta(to, Found { etag: Some(etag), modified_at: Utc::now(), ..found }))
        };
        copy.await.map_err(|e: Error| e.with_backend(&self.info))
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        if let Err(error) = self.check_open() {
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
        self.check_open()?;
        self.service.signed_url(&self.key(path)?, access, expires_in).await.map_err(|e| e.with_backend(&self.info))
    }

    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        self.opening(engine).map(|opening| opening.options.clone())
    }

    fn engine_uri(&self, path: &BlobPath, engine: Engine) -> Result<String> {
        self.opening(engine).map(|opening| format!("{}/{}{path}", opening.base_uri, self.prefix))
    }

    async fn ping(&self) -> Result<()> {
        self.check_open()?;
        let listing =
            super::service::Listing { prefix: self.prefix.clone(), one_level: true, start_after: None, page_size: Some(1) };
        let page = self.service.page(&listing, None).await;
        page.map(drop).map_err(|e| Error::from(e).with_backend(&self.info))
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Creates the container where that is wanted; credentials that may write, not create, are good enough where it is there.
pub(super) async fn prepare(blobs: &ObjectBlobs, auto_create: bool) -> Result<()> {
    if !auto_create {
        return Ok(());
    }
    match blobs.ping().await {
        Err(error) if error.kind() == ErrorKind::NotFound => blobs.create_container().await.map(drop),
        // Everything else is told by the first use: a service that is away now may be back then.
        _ => Ok(()),
    }
}
