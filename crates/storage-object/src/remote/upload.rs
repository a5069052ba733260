//! Chunked writes: parallel parts in bounded memory, nothing left behind.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _, TryStreamExt as _};
use http::Method;
use storage_core::backoff::Backoff;
use storage_core::{BlobBody, ETag, Error, PutMode, PutOptions, Result};

use super::pieces::{Pieces, size_of};
use super::read::{Found, quoted};
use super::service::Service;
use super::wire::{Call, Failure};

/// How often a part is tried, and the longest wait that a service can ask for in between: whoever put the blob can't send a part again.
const TRIES: u32 = 4;
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;
/// How much of a blob one request copies within a service.
const COPIED_PART: u64 = 256 * MIB;

/// How large parts are, and how many are under way at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunks {
    /// Bytes.
    pub(crate) part_size: u64,
    pub(crate) concurrency: usize,
}

impl Chunks {
    /// Parts so large that a blob of this size fits into as many as are allowed, and so many at once that they take no more memory than usual.
    fn for_size(self, size: Option<u64>, max_parts: u64, max_part: u64) -> Result<Self> {
        let Some(size) = size else { return Ok(self) };
        let needed = size.div_ceil(max_parts).div_ceil(MIB) * MIB;
        if needed > max_part {
            return Err(Error::invalid(format!(
                "a blob of {size} bytes does not fit into {max_parts} parts of {max_part} bytes"
            )));
        }
        let part_size = self.part_size.max(needed);
        let budget = self.part_size.saturating_mul(self.concurrency as u64);
        let concurrency = usize::try_from(budget / part_size).unwrap_or(self.concurrency).clamp(1, self.concurrency.max(1));
        Ok(Self { part_size, concurrency })
    }
}

/// Writes a body: with one request where it fits into one part, else in parts. Answers mark and size.
pub(crate) async fn put(
    service: &Arc<dyn Service>,
    key: &str,
    body: BlobBody,
    options: &PutOptions,
    chunks: Chunks,
) -> Result<(ETag, u64)> {
    let size = size_of(&body)?;
    let limits = service.traits();
    if let Some(size) = size.filter(|size| *size > limits.max_blob) {
        return Err(Error::invalid(format!("the blob has {size} bytes, {} at most on this service", limits.max_blob)));
    }
    let conditional = options.mode != PutMode::Overwrite;
    // What is in memory as a whole can go as a whole, where parts can't be held to the condition.
    let whole = conditional && !limits.conditional_parts;
    if let BlobBody::Bytes(bytes) = &body
        && (whole || bytes.len() as u64 <= chunks.part_size)
    {
        let (bytes, size) = (bytes.clone(), bytes.len() as u64);
        return Ok((service.put(key, bytes, options).await.map_err(|e| refused(e, &options.mode))?, size));
    }
    let chunks = chunks.for_size(size, limits.max_parts, limits.max_part)?;
    let mut pieces = Pieces::new(body.into_stream(), size);
    let first = pieces.next(chunks.part_size).await?;
    if (first.len() as u64) < chunks.part_size {
        return Ok((service.put(key, first, options).await.map_err(|e| refused(e, &options.mode))?, pieces.read()));
    }
    let second = pieces.next(chunks.part_size).await?;
    if second.is_empty() {
        return Ok((service.put(key, first, options).await.map_err(|e| refused(e, &options.mode))?, pieces.read()));
    }
    if whole {
        return Err(Error::unsupported(format!(
            "this service can't hold an upload in parts to a condition: give the blob as bytes, or no stream above {} bytes",
            chunks.part_size
        )));
    }
    in_parts(service, key, options, chunks, (first, second), pieces).await
}

async fn in_parts(
    service: &Arc<dyn Service>,
    key: &str,
    options: &PutOptions,
    chunks: Chunks,
    (first, second): (Bytes, Bytes),
    mut pieces: Pieces,
) -> Result<(ETag, u64)> {
    let upload = Upload::start(service, key, options).await?;
    let max_parts = service.traits().max_parts;
    let mut done = Vec::new();
    let mut under_way = FuturesUnordered::new();
    let mut number = 0;
    let mut next = Some(first);
    let mut after = Some(second);
    while let Some(bytes) = next.take() {
        number += 1;
        if number > max_parts {
            return Err(Error::invalid(format!(
                "the stream has more than {max_parts} parts of {} bytes: announce its size, or set a larger part_size",
                chunks.part_size
            )));
        }
        under_way.push(part(service, key, &upload.id, number, bytes));
        if under_way.len() >= chunks.concurrency
            && let Some(finished) = under_way.try_next().await?
        {
            done.push(finished);
        }
        next = match after.take() {
            Some(bytes) => Some(bytes),
            None => Some(pieces.next(chunks.part_size).await?).filter(|bytes| !bytes.is_empty()),
        };
    }
    while let Some(finished) = under_way.try_next().await? {
        done.push(finished);
    }
    drop(under_way);
    done.sort_unstable();
    let parts: Vec<String> = done.into_iter().map(|(_, part)| part).collect();
    let etag = complete(service, key, &upload.id, &parts, options).await?;
    upload.finished();
    Ok((etag, pieces.read()))
}

/// Copies a blob that was just found, where the service can't do that by itself: through here where it is small, else part by part within the service.
pub(crate) async fn copy(
    service: &Arc<dyn Service>,
    (from, found): (&str, &Found),
    to: &str,
    mode: &PutMode,
    chunks: Chunks,
) -> Result<ETag> {
    let options = PutOptions { mode: mode.clone(), attributes: found.attributes.clone() };
    if found.size <= chunks.part_size {
        let if_match = found.etag.as_ref().map(quoted);
        let call = Call::new(Method::GET, service.url(from)).header_if("if-match", if_match.as_deref());
        let body = service.wire().send(call).await.map_err(Error::from)?.into_stream();
        let body = Pieces::new(body, Some(found.size)).next(found.size + 1).await?;
        return service.put(to, body, &options).await.map_err(|e| refused(e, mode));
    }
    // Nothing passes through memory here.
    let size = found.size.div_ceil(service.traits().max_parts).max(COPIED_PART);
    let upload = Upload::start(service, to, &options).await?;
    let copies = (0..found.size.div_ceil(size)).map(|n| {
        let range = n * size..((n + 1) * size).min(found.size);
        service.copy_part((from, found), range, to, &upload.id, n + 1)
    });
    let parts: Vec<String> =
        futures::stream::iter(copies).buffered(chunks.concurrency.max(1)).try_collect().await.map_err(Error::from)?;
    let etag = complete(service, to, &upload.id, &parts, &options).await?;
    upload.finished();
    Ok(etag)
}

/// Writes one part, again where that may help: it is the same part however often it is written.
async fn part(service: &Arc<dyn Service>, key: &str, upload: &str, number: u64, body: Bytes) -> Result<(u64, String)> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    for _ in 1..TRIES {
        let error = match service.part(key, upload, number, body.clone()).await {
            Ok(part) => return Ok((number, part)),
            Err(failure) => Error::from(failure),
        };
        if !error.is_retryable() {
            return Err(error);
        }
        tracing::debug!(part = number, error = %error, "a part is sent again");
        let wait = error.retry_after().unwrap_or_default().max(backoff.next_delay()).min(LONGEST_WAIT);
        tokio::time::sleep(wait).await;
    }
    let part = service.part(key, upload, number, body).await.map_err(Error::from)?;
    Ok((number, part))
}

/// Makes the parts a blob; again where the service says that it has done nothing, never where that is not known.
async fn complete(service: &Arc<dyn Service>, key: &str, upload: &str, parts: &[String], options: &PutOptions) -> Result<ETag> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut tries = 1;
    loop {
        let failure = match service.complete(key, upload, parts, options).await {
            Ok(etag) => return Ok(etag),
            Err(failure) => failure,
        };
        let busy = failure.status().is_some_and(|status| matches!(status.as_u16(), 429 | 503));
        if !busy || tries >= TRIES {
            return Err(refused(failure, &options.mode));
        }
        tries += 1;
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// What a refusal means for a write of this mode.
pub(crate) fn refused(failure: Failure, mode: &PutMode) -> Error {
    let status = failure.status().map(|status| status.as_u16());
    // Azure forgets the blocks of all others with each write of a blob.
    if failure.code() == "InvalidBlockList" {
        return match mode {
            PutMode::Create => Error::already_exists("somebody else wrote the blob meanwhile"),
            _ => Error::conflict("somebody else wrote the blob meanwhile, and with that discarded the parts of this write"),
        };
    }
    match (mode, status) {
        (PutMode::Create, Some(304 | 412)) => Error::already_exists("there is a blob at this path already"),
        // S3 answers so where two conditional writes meet; which of them came first is not known.
        (PutMode::Create, Some(409)) if failure.code() == "ConditionalRequestConflict" => {
            Error::conflict("somebody else wrote the blob at the same moment: look again")
        }
        (PutMode::Create, Some(409)) => Error::already_exists("there is a blob at this path already"),
        (PutMode::Update(etag), Some(304 | 409 | 412)) => Error::conflict(format!("the blob no longer has the mark {etag}")),
        // The bucket may be missing as well, which is told as such.
        (PutMode::Update(etag), Some(404))
            if !matches!(failure.code(), "NoSuchBucket" | "ContainerNotFound" | "NoSuchUpload") =>
        {
            Error::conflict(format!("there is no blob with the mark {etag}"))
        }
        _ => failure.into(),
    }
}

/// An upload that is begun. Dropped before it is finished, it is aborted.
struct Upload {
    service: Arc<dyn Service>,
    key: String,
    id: String,
    open: bool,
}

impl Upload {
    /// In a task of its own: a caller that goes away meanwhile leaves an answer that is dropped, and with it the upload aborted.
    async fn start(service: &Arc<dyn Service>, key: &str, options: &PutOptions) -> Result<Self> {
        let (service, key, options) = (Arc::clone(service), key.to_owned(), options.clone());
        let start = tokio::spawn(async move {
            let id = service.start(&key, &options).await.map_err(Error::from)?;
            Ok(Self { service, key, id, open: true })
        });
        start.await.map_err(|e| Error::internal("the task that began an upload ended").with_source(e))?
    }

    fn finished(mut self) {
        self.open = false;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let (service, key, id) = (Arc::clone(&self.service), std::mem::take(&mut self.key), std::mem::take(&mut self.id));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::warn!(blob = %key, "an upload is left unfinished: there is no runtime to abort it with");
            return;
        };
        drop(runtime.spawn(async move {
            if let Err(failure) = service.abort(&key, &id).await {
                let error = Error::from(failure);
                tracing::warn!(blob = %key, error = %error, "an unfinished upload could not be aborted; the service's lifecycle rules must remove it");
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const CHUNKS: Chunks = Chunks { part_size: 8 * MIB, concurrency: 4 };

    #[test]
    fn parts_grow_with_the_blob_and_memory_does_not() {
        let of = |size| CHUNKS.for_size(Some(size), 10_000, 5 << 30).unwrap();
        assert_eq!((of(1).part_size, of(1).concurrency), (8 * MIB, 4));
        let large = of(5 << 40);
        assert!(large.part_size * 10_000 >= 5 << 40 && large.part_size % MIB == 0);
        assert_eq!(large.concurrency, 1);
        assert_eq!(of(100 << 30).concurrency, 2);
        assert!(CHUNKS.for_size(Some(60_000 << 30), 10_000, 5 << 30).is_err());
        // One byte more than a single request may carry on S3.
        assert_eq!(of((5 << 30) + 1).part_size, 8 * MIB);
    }
}
