//! Blobs in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use storage_core::{
    BackendInfo, BlobAttributes, BlobBackend, BlobBody, BlobCapabilities, BlobContent, BlobEntry, BlobMeta, BlobPath, BlobRead,
    ByteRange, ETag, Engine, Error, GetOptions, ListOptions, OpenFlag, PutMode, PutOptions, Result, Secret,
};

use crate::store::Shared;

const MAX_BLOB: u64 = 4 << 30;

const CAPABILITIES: BlobCapabilities = BlobCapabilities {
    create: true,
    conditional: true,
    attributes: true,
    signed_url: false,
    max_blob_bytes: MAX_BLOB,
    durable: false,
};

/// How many entries of a listing are taken under one lock.
const LIST_PAGE: usize = 1_000;

#[derive(Debug)]
struct Blob {
    bytes: Bytes,
    meta: BlobMeta,
}

#[derive(Debug, Default)]
pub(crate) struct BlobMap {
    /// By path, in bytewise order.
    blobs: BTreeMap<String, Blob>,
    /// Counts writes, so that no two states of a store have the same mark.
    writes: u64,
}

/// The blobs of a [`MemoryStore`](crate::MemoryStore).
#[derive(Debug)]
pub struct MemoryBlobs {
    shared: Arc<Shared>,
    open: Arc<OpenFlag>,
}

impl BlobMap {
    fn get(&self, path: &BlobPath) -> Result<&Blob> {
        self.blobs.get(path.as_str()).ok_or_else(|| Error::not_found("there is no such blob"))
    }

    fn etag(&self, path: &BlobPath) -> Option<&ETag> {
        self.blobs.get(path.as_str()).and_then(|blob| blob.meta.etag.as_ref())
    }

    fn check_mark(&self, path: &BlobPath, expected: &ETag) -> Result<()> {
        match self.etag(path) {
            Some(found) if found == expected => Ok(()),
            Some(found) => Err(Error::conflict(format!("expected mark {expected}, found {found}: somebody else wrote it"))),
            None => Err(Error::conflict(format!("expected mark {expected}, but the blob is gone"))),
        }
    }

    fn put(
        &mut self,
        path: &BlobPath,
        bytes: Bytes,
        attributes: BlobAttributes,
        mode: &PutMode,
        shared: &Shared,
    ) -> Result<BlobMeta> {
        match mode {
            PutMode::Overwrite => {}
            PutMode::Create if self.blobs.contains_key(path.as_str()) => {
                return Err(Error::already_exists("there is a blob of that path"));
            }
            PutMode::Create => {}
            PutMode::Update(expected) => self.check_mark(path, expected)?,
        }
        self.writes += 1;
        let meta = BlobMeta {
            path: path.clone(),
            size: bytes.len() as u64,
            modified_at: shared.clock.now(),
            etag: Some(ETag(format!("\"{:x}\"", self.writes))),
            attributes,
        };
        self.blobs.insert(path.as_str().to_owned(), Blob { bytes, meta: meta.clone() });
        Ok(meta)
    }

    /// The next entries behind `after`, and where to go on.
    fn list(&self, options: &ListOptions, after: Option<&str>) -> (Vec<BlobEntry>, Option<String>) {
        let prefix = options.prefix.as_ref().map_or_else(String::new, |prefix| format!("{prefix}/"));
        let mut entries = Vec::new();
        // What lies below a prefix that was shown already sorts behind it without a gap.
        let mut from = match after {
            Some(after) if *after >= *prefix => Bound::Excluded(after.to_owned()),
            _ => Bound::Included(prefix.clone()),
        };
        while entries.len() < LIST_PAGE {
            let mut rest = self.blobs.range::<str, _>((from.as_ref().map(String::as_str), Bound::Unbounded));
            let Some((path, blob)) = rest.next().filter(|(path, _)| path.starts_with(&prefix)) else { return (entries, None) };
            let deeper = path[prefix.len()..].find('/').filter(|_| options.one_level).map(|slash| prefix.len() + slash);
            let shown = match deeper.and_then(|slash| BlobPath::new(&path[..slash]).ok()) {
                Some(below) => BlobEntry::Prefix(below),
                None => BlobEntry::Blob(BlobMeta { attributes: BlobAttributes::default(), ..blob.meta.clone() }),
            };
            let key = shown.sort_key();
            from = match &shown {
                // `0` is the byte behind `/`: everything below the prefix lies before it.
                BlobEntry::Prefix(below) => Bound::Included(format!("{below}0")),
                BlobEntry::Blob(_) => Bound::Excluded(key.clone()),
            };
            if after.is_none_or(|after| key.as_str() > after) {
                entries.push(shown);
            }
        }
        let last = entries.last().map(BlobEntry::sort_key);
        (entries, last)
    }
}

impl MemoryBlobs {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: Arc::default() }
    }

    fn read(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.open.check()?;
        let (bytes, meta) = {
            let blobs = self.shared.blobs();
            if let Some(expected) = &options.if_match {
                // A missing blob is not found rather than changed.
                blobs.get(path)?;
                blobs.check_mark(path, expected)?;
            }
            let blob = blobs.get(path)?;
            (blob.bytes.clone(), blob.meta.clone())
        };
        let range = options.range.as_ref().unwrap_or(&ByteRange::From(0)).resolve(meta.size)?;
        let offset = |at: u64| usize::try_from(at).map_err(|_| Error::internal("a blob in memory is longer than memory"));
        let bytes = bytes.slice(offset(range.start)?..offset(range.end)?);
        let content = BlobContent::Stream(futures::stream::once(async { Ok(bytes) }).boxed());
        Ok(BlobRead { meta, range, content })
    }
}

/// All bytes of `body`.
async fn collect(body: BlobBody) -> Result<Bytes> {
    let size = body.size();
    let too_large = || Error::invalid(format!("the blob is too large for this backend: {MAX_BLOB} bytes at most"));
    if size.is_some_and(|size| size > MAX_BLOB) {
        return Err(too_large());
    }
    let mut stream = match body {
        BlobBody::Bytes(bytes) => return Ok(bytes),
        body => body.into_stream(),
    };
    let mut all = BytesMut::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
        if all.len() as u64 > size.unwrap_or(MAX_BLOB) {
            return Err(size.map_or_else(too_large, |size| other_length(size, "more")));
        }
    }
    match size {
        Some(size) if all.len() as u64 != size => Err(other_length(size, &all.len().to_string())),
        _ => Ok(all.freeze()),
    }
}

fn other_length(announced: u64, found: &str) -> Error {
    Error::invalid(format!("the stream was announced with {announced} bytes and has {found}"))
}

#[async_trait]
impl BlobBackend for MemoryBlobs {
    fn info(&self) -> &BackendInfo {
        &self.shared.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        &CAPABILITIES
    }

    async fn create_container(&self) -> Result<bool> {
        self.ping().await.map(|()| false)
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        self.open.check()?;
        let bytes = collect(body).await?;
        self.shared.blobs_mut().put(path, bytes, options.attributes.clone(), &options.mode, &self.shared)
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.read(path, options)
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.open.check()?;
        Ok(self.shared.blobs().get(path)?.meta.clone())
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.open.check()?;
        let mut blobs = self.shared.blobs_mut();
        if let Some(expected) = if_match {
            blobs.check_mark(path, expected)?;
        }
        Ok(blobs.blobs.remove(path.as_str()).is_some())
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        self.open.check()?;
        let mut blobs = self.shared.blobs_mut();
        let source = blobs.get(from)?;
        let (bytes, attributes) = (source.bytes.clone(), source.meta.attributes.clone());
        blobs.put(to, bytes, attributes, mode, &self.shared)
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        let (shared, open, options) = (Arc::clone(&self.shared), Arc::clone(&self.open), options.clone());
        let start = options.start_after.clone();
        let pages = futures::stream::try_unfold(Some(start), move |from| {
            let page = from.map(|after| {
                open.check()?;
                let (entries, next) = shared.blobs().list(&options, after.as_deref());
                Ok::<_, Error>((futures::stream::iter(entries).map(Ok), next.map(Some)))
            });
            futures::future::ready(page.transpose())
        });
        pages.try_flatten().boxed()
    }

    fn uri(&self, path: &BlobPath) -> String {
        format!("memory://{}/{path}", self.shared.info.location)
    }

    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        Err(Error::unsupported(format!("{engine} can't see into the memory of this process: use a folder or a bucket")))
    }

    async fn ping(&self) -> Result<()> {
        self.open.check()
    }

    async fn close(&self) -> Result<()> {
        self.open.close();
        Ok(())
    }
}
