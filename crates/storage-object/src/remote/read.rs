//! Reads: requests whose answers are held against what was asked.

use std::fmt::Debug;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::StreamExt as _;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LAST_MODIFIED,
};
use http::{Method, StatusCode};
use storage_core::{BlobAttributes, BlobContent, BlobMeta, BlobPath, BlobRead, ByteRange, ETag, Error, GetOptions, Result};

use super::wire::{Answer, Call, Failure, Wire};

/// More than any blob has: what a range that ends behind everything is cut to.
const BEYOND: u64 = 1 << 60;

/// How often a read begins anew because the blob was replaced as it was opened.
const ATTEMPTS: u32 = 16;

/// Where blobs are read from. Keys are whole: they include the store's prefix.
#[async_trait]
pub(crate) trait Source: Debug + Send + Sync + 'static {
    fn wire(&self) -> &Wire;

    /// Before the names of metadata in headers.
    fn metadata_prefix(&self) -> &'static str;

    /// `Range: bytes=-n` is understood.
    fn suffix_ranges(&self) -> bool;

    /// The address of a blob, encoded.
    fn url(&self, key: &str) -> String;

    /// What is known of a blob without reading it.
    async fn find(&self, key: &str) -> Result<Found, Failure> {
        let answer = self.wire().send(Call::new(Method::HEAD, self.url(key))).await?;
        Ok(found(&answer.headers, self.metadata_prefix())?)
    }

    /// Sees to it that what was answered to a `GET` is a blob, and all of one state. `false`: it was replaced at that moment, ask again.
    async fn check(&self, _key: &str, _answer: &Answer) -> Result<bool, Failure> {
        Ok(true)
    }
}

pub(crate) async fn find_if_there(source: &(impl Source + ?Sized), key: &str) -> Result<Option<Found>> {
    match source.find(key).await {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.is_missing() => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

/// A blob as a service describes it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) size: u64,
    pub(crate) modified_at: DateTime<Utc>,
    pub(crate) etag: Option<ETag>,
    pub(crate) attributes: BlobAttributes,
}

impl Found {
    pub(crate) fn into_meta(self, path: &BlobPath) -> BlobMeta {
        BlobMeta {
            path: path.clone(),
            size: self.size,
            modified_at: self.modified_at,
            etag: self.etag,
            attributes: self.attributes,
        }
    }
}

/// A mark without the quotes that headers put around it: listings of some services leave them out.
pub(crate) fn mark(text: &str) -> ETag {
    ETag(text.trim_matches('"').to_owned())
}

/// A mark as headers want it.
pub(crate) fn quoted(etag: &ETag) -> String {
    format!("\"{}\"", etag.0)
}

/// Reads what a `GET` or `HEAD` says of a blob.
pub(crate) fn found(headers: &HeaderMap, metadata_prefix: &str) -> Result<Found> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let own = |name: http::HeaderName| text(name.as_str()).map(str::to_owned);
    let ranged = text(CONTENT_RANGE.as_str()).and_then(|range| range.rsplit('/').next()).and_then(|size| size.parse().ok());
    let size = ranged.or_else(|| text(CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok()));
    let metadata = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(metadata_prefix)?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    });
    Ok(Found {
        size: size.ok_or_else(|| Error::unavailable("the service's answer does not say how large the blob is"))?,
        modified_at: text(LAST_MODIFIED.as_str()).and_then(http_date).unwrap_or_else(Utc::now),
        etag: text("etag").map(mark),
        attributes: BlobAttributes {
            content_type: own(CONTENT_TYPE),
            cache_control: own(CACHE_CONTROL),
            content_disposition: own(CONTENT_DISPOSITION),
            content_encoding: own(CONTENT_ENCODING),
            metadata: metadata.collect(),
        },
    })
}

/// A date of HTTP: `Wed, 25 Nov 2026 01:14:56 GMT`.
pub(crate) fn http_date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text).ok().map(|date| date.with_timezone(&Utc))
}

/// Reads a blob, or a part of it.
pub(crate) async fn get(
    source: &(impl Source + ?Sized),
    (path, key): (&BlobPath, &str),
    options: &GetOptions,
) -> Result<BlobRead> {
    Reading { source, path, key, if_match: options.if_match.as_ref() }.get(options.range.as_ref()).await
}

/// One read.
struct Reading<'a, S: ?Sized> {
    source: &'a S,
    path: &'a BlobPath,
    key: &'a str,
    if_match: Option<&'a ETag>,
}

impl<S: Source + ?Sized> Reading<'_, S> {
    async fn get(self, range: Option<&ByteRange>) -> Result<BlobRead> {
        let Some(range) = range else {
            let answer = self.request(None, self.if_match).await.map_err(refused)?;
            return self.answered(answer, None);
        };
        let Some(header) = range_header(range, self.source.suffix_ranges()) else {
            return self.resolved(range).await;
        };
        match self.request(Some(&header), self.if_match).await {
            // The range holds no byte of the blob: at its very end that is an empty read, behind it an error.
            Err(failure) if failure.is(StatusCode::RANGE_NOT_SATISFIABLE) => self.resolved(range).await,
            // Some answer a range of an empty blob with all of it.
            Ok(answer) if answer.status != StatusCode::PARTIAL_CONTENT => {
                let asked = range.resolve(found(&answer.headers, self.source.metadata_prefix())?.size)?;
                self.answered(answer, Some(asked))
            }
            answer => self.answered(answer.map_err(refused)?, None),
        }
    }

    /// Asks, with a `Range` header as it is.
    async fn request(&self, range: Option<&str>, if_match: Option<&ETag>) -> Result<Answer, Failure> {
        let if_match = if_match.map(quoted);
        for _ in 0..ATTEMPTS {
            let call = Call::new(Method::GET, self.source.url(self.key));
            let call = call.header_if("range", range).header_if("if-match", if_match.as_deref());
            let answer = self.source.wire().send(call).await?;
            if self.source.check(self.key, &answer).await? {
                return Ok(answer);
            }
        }
        Err(Error::unavailable("the blob is replaced faster than it can be opened").into())
    }

    /// A read of a range that the service can't be asked for as it is: the blob's size decides.
    async fn resolved(&self, range: &ByteRange) -> Result<BlobRead> {
        let found = self.source.find(self.key).await.map_err(Error::from)?;
        if self.if_match.is_some_and(|etag| found.etag.as_ref() != Some(etag)) {
            return Err(changed());
        }
        let range = range.resolve(found.size)?;
        if range.is_empty() {
            let content = BlobContent::Stream(futures::stream::empty().boxed());
            return Ok(BlobRead { meta: found.into_meta(self.path), range, content });
        }
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        let answer = self.request(Some(&asked), found.etag.as_ref()).await.map_err(refused)?;
        self.answered(answer, Some(range))
    }

    /// What a read answered. `asked`: the range, where it is known.
    fn answered(&self, answer: Answer, asked: Option<std::ops::Range<u64>>) -> Result<BlobRead> {
        let found = found(&answer.headers, self.source.metadata_prefix())?;
        let range = match (answer.status, &asked) {
            // Some answer so to a range of an empty blob.
            (StatusCode::PARTIAL_CONTENT, None) if found.size == 0 => 0..0,
            (StatusCode::PARTIAL_CONTENT, _) => content_range(&answer)?,
            (_, None) => 0..found.size,
            (_, Some(asked)) if *asked == (0..found.size) => 0..found.size,
            _ => return Err(Error::unavailable("the service answers the whole blob in place of the range that was asked for")),
        };
        Ok(BlobRead { meta: found.into_meta(self.path), range, content: BlobContent::Stream(answer.into_stream()) })
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

/// A condition on a mark does not hold.
pub(crate) fn changed() -> Error {
    Error::conflict("the blob has another mark than the one asked for")
}

fn refused(failure: Failure) -> Error {
    if failure.is(StatusCode::PRECONDITION_FAILED) { changed() } else { failure.into() }
}
