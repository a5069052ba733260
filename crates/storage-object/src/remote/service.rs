//! What the services have in common, and what each has its own way of doing.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use storage_core::{ETag, Error, PutMode, PutOptions, Result, Secret, SignedAccess};

use super::read::{Found, Source};
use super::wire::Failure;

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
    /// Characters that the service turns into others: paths with them are refused, lest they be other blobs' paths.
    pub(crate) refused: &'static str,
    /// Folders show in listings of one level for a while after their last blob is gone: they are looked into.
    pub(crate) folders_linger: bool,
}

/// What to list: keys that start with `prefix` and lie behind `start_after`.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) prefix: String,
    pub(crate) one_level: bool,
    #[cfg_attr(not(any(feature = "aws", feature = "gcp")), expect(dead_code, reason = "Azure can't be asked for it"))]
    pub(crate) start_after: Option<String>,
    /// How many entries one page may have. `None`: the service's own limit.
    pub(crate) page_size: Option<u32>,
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
pub(crate) trait Service: Source {
    fn traits(&self) -> &Traits;

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
