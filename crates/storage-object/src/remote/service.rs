//! What the services have in common, and what each has its own way of doing.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::HeaderMap;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LAST_MODIFIED,
};
use storage_core::{BlobAttributes, ETag, Error, PutMode, PutOptions, Result, Secret, SignedAccess};

use super::wire::{Failure, Wire};

/// What a service allows, and how it names things.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    /// Before the names of metadata in headers.
    pub(crate) metadata_prefix: &'static str,
    /// How many parts an upload may have.
    pub(crate) max_parts: u64,
    /// How many bytes a part may have.
    pub(crate) max_part: u64,
    /// How many bytes a blob may have.
    pub(crate) max_blob: u64,
    /// A chunked upload can be held to a condition.
    pub(crate) conditional_parts: bool,
    /// `Range: bytes=-n` is understood.
    pub(crate) suffix_ranges: bool,
}

/// A blob as a service describes it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) size: u64,
    pub(crate) modified_at: DateTime<Utc>,
    pub(crate) etag: Option<ETag>,
    pub(crate) attributes: BlobAttributes,
}

/// What to list: keys that start with `prefix` and lie behind `start_after`.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) prefix: String,
    pub(crate) one_level: bool,
    pub(crate) start_after: Option<String>,
}

/// One page of a listing, in the service's order.
#[derive(Debug, Default)]
pub(crate) struct ListPage {
    pub(crate) blobs: Vec<Listed>,
    /// With the slash at the end.
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins. `None`: this is the last.
    pub(crate) next: Option<String>,
}

/// A blob in a listing.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) modified_at: DateTime<Utc>,
    pub(crate) etag: Option<ETag>,
}

/// One container of one service. Keys are whole: they include the store's prefix.
#[async_trait]
pub(crate) trait Service: Debug + Send + Sync + 'static {
    fn wire(&self) -> &Wire;

    fn traits(&self) -> &Traits;

    /// The address of a blob, encoded.
    fn url(&self, key: &str) -> String;

    /// `false`: it was there.
    async fn create_container(&self) -> Result<bool, Failure>;

    /// Writes with one request.
    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag, Failure>;

    /// Begins a chunked write and answers its id.
    async fn start(&self, key: &str, options: &PutOptions) -> Result<String, Failure>;

    /// Writes part `number`, from 1, and answers what `complete` wants to know of it. Writing it again replaces it.
    async fn part(&self, key: &str, upload: &str, number: u64, body: Bytes) -> Result<String, Failure>;

    /// Makes the parts a blob.
    async fn complete(&self, key: &str, upload: &str, parts: &[String], options: &PutOptions) -> Result<ETag, Failure>;

    /// Forgets the parts.
    async fn abort(&self, key: &str, upload: &str) -> Result<(), Failure>;

    /// Removes; answers nothing of whether there was one.
    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<(), Failure>;

    /// True where [`copy`](Self::copy) can copy this blob in this mode.
    fn copies(&self, _found: &Found, _mode: &PutMode) -> bool {
        true
    }

    /// Copies a part of a blob, as [`part`](Self::part) writes one.
    async fn copy_part(
        &self,
        _from: (&str, &Found),
        _range: std::ops::Range<u64>,
        _to: &str,
        _upload: &str,
        _number: u64,
    ) -> Result<String, Failure> {
        Err(Error::unsupported("this service copies no parts").into())
    }

    /// Copies a blob that was just found, and is to be in that state still.
    async fn copy(&self, from: &str, found: &Found, to: &str, mode: &PutMode) -> Result<ETag, Failure>;

    async fn page(&self, listing: &Listing, token: Option<&str>) -> Result<ListPage, Failure>;

    async fn signed_url(&self, key: &str, access: SignedAccess, expires_in: std::time::Duration) -> Result<Secret>;
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
pub(crate) fn found(headers: &HeaderMap, traits: &Traits) -> Result<Found> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let own = |name: http::HeaderName| text(name.as_str()).map(str::to_owned);
    let ranged = text(CONTENT_RANGE.as_str()).and_then(|range| range.rsplit('/').next()).and_then(|size| size.parse().ok());
    let size = ranged.or_else(|| text(CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok()));
    let metadata = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(traits.metadata_prefix)?;
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
