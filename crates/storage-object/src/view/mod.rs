//! Any [`BlobStore`] as an [`ObjectStore`].

mod convert;
mod upload;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode, Result,
};
use storage_core::{BlobContent, BlobEntry, BlobMeta, BlobPath, BlobRead, BlobStore, ListOptions, PutMode};

use convert::{attributes_to, error, mode_from, not_implemented, object_meta, options_from, path_from, range_from};
use upload::Upload;

/// How many deletes of one stream are under way at once.
const DELETES: usize = 16;
const STORE: &str = "BlobStore";

/// Any [`BlobStore`] (layers, caches and prefix included) as an [`ObjectStore`], for Parquet and Delta engines.
///
/// Marks are the blobs' ETags; there are no versions. Reads of local files answer the file, to be read at the disk's speed; others come as they
/// arrive. An upload in parts is one
/// put: its parts go where the backend puts parts, and dropping it before `complete` writes nothing. Deleting what is not there succeeds, as on S3.
/// Tags, `ContentLanguage`, `StorageClass` and versions are [`NotImplemented`](object_store::Error::NotImplemented), and so is what the backend does not offer.
///
/// ```
/// use object_store::{ObjectStoreExt, path::Path};
/// use storage_core::{BlobStore, Driver, DriverConfig};
/// use storage_object::ObjectStoreView;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let backends = storage_memory::MemoryDriver.open(&DriverConfig::from_url("memory:")).await?;
/// let view = ObjectStoreView::new(BlobStore::new(backends.blobs.unwrap()));
/// view.put(&Path::from("a/b"), "hello".into()).await.unwrap();
/// assert_eq!(view.get(&Path::from("a/b")).await.unwrap().bytes().await.unwrap(), "hello");
/// # Ok::<(), storage_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct ObjectStoreView {
    store: BlobStore,
}

impl ObjectStoreView {
    /// A view of `store`.
    #[must_use]
    pub fn new(store: BlobStore) -> Self {
        Self { store }
    }

    async fn meta(&self, location: &Path) -> Result<BlobMeta> {
        self.store.head(&path_from(location)?).await.map_err(|e| error(e, location))
    }

    fn listed(&self, options: storage_core::Result<ListOptions>) -> BoxStream<'static, Result<BlobEntry>> {
        match options {
            Ok(options) => self.store.list(&options).map_err(|e| error(e, &Path::default())).boxed(),
            Err(bad) => futures::stream::once(async { Err(error(bad, &Path::default())) }).boxed(),
        }
    }

    fn objects(&self, options: storage_core::Result<ListOptions>) -> BoxStream<'static, Result<ObjectMeta>> {
        let entries = self.listed(options);
        entries
            .try_filter_map(|entry| async move {
                match entry {
                    BlobEntry::Blob(meta) => object_meta(meta).map(Some),
                    BlobEntry::Prefix(_) => Ok(None),
                }
            })
            .boxed()
    }
}

/// What to list below `prefix`; the root is no prefix.
fn below(prefix: Option<&Path>) -> storage_core::Result<ListOptions> {
    Ok(ListOptions::below(some_path(prefix)?))
}

fn some_path(path: Option<&Path>) -> storage_core::Result<Option<BlobPath>> {
    path.map(Path::as_ref).filter(|path| !path.is_empty()).map(BlobPath::new).transpose()
}

impl fmt::Display for ObjectStoreView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectStoreView({})", self.store.backend().info())
    }
}

#[async_trait]
impl ObjectStore for ObjectStoreView {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let PutOptions { mode, tags, attributes, extensions: _ } = options;
        if !tags.encoded().is_empty() {
            return Err(not_implemented("tags"));
        }
        let options = options_from(mode_from(mode)?, attributes)?;
        let put = self.store.put_with(&path_from(location)?, Bytes::from(payload), &options).await;
        Ok(put_result(put.map_err(|e| error(e, location))?))
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let PutMultipartOptions { tags, attributes, extensions: _ } = options;
        if !tags.encoded().is_empty() {
            return Err(not_implemented("tags"));
        }
        let options = options_from(PutMode::Overwrite, attributes)?;
        Ok(Box::new(Upload::start(self.store.clone(), path_from(location)?, location.clone(), options)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.version.is_some() {
            return Err(not_implemented("versions of objects"));
        }
        let conditional = options.if_match.is_some()
            || options.if_none_match.is_some()
            || options.if_modified_since.is_some()
            || options.if_unmodified_since.is_some();
        let mut pinned = None;
        if conditional || options.head {
            let meta = self.meta(location).await?;
            let attributes = attributes_to(&meta.attributes);
            let etag = meta.etag.clone();
            let meta = object_meta(meta)?;
            options.check_preconditions(&meta)?;
            if options.head {
                let payload = GetResultPayload::Stream(futures::stream::empty().boxed());
                return Ok(GetResult { payload, range: 0..meta.size, meta, attributes, extensions: Default::default() });
            }
            // What was looked at is what is read.
            pinned = etag.filter(|_| self.store.capabilities().conditional);
        }
        let range = options.range.as_ref().map(range_from).transpose()?;
        let asked = storage_core::GetOptions { range, if_match: pinned };
        let read = self.store.get_with(&path_from(location)?, &asked).await.map_err(|e| error(e, location))?;
        let starts_behind = matches!(options.range, Some(GetRange::Bounded(_) | GetRange::Offset(_)));
        if starts_behind && read.range.is_empty() {
            let text = format!("the range starts at {}, where the object ends", read.range.start);
            return Err(object_store::Error::Generic { store: STORE, source: text.into() });
        }
        let (range, attributes) = (read.range.clone(), attributes_to(&read.meta.attributes));
        let meta = object_meta(read.meta.clone())?;
        Ok(GetResult { payload: payload(read, location), meta, range, attributes, extensions: Default::default() })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.store.clone();
        let deletes = locations.map(move |location| {
            let store = store.clone();
            async move {
                let location = location?;
                store.delete(&path_from(&location)?).await.map_err(|e| error(e, &location))?;
                Ok(location)
            }
        });
        deletes.buffered(DELETES).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects(below(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let options = below(prefix)
            .and_then(|options| Ok(ListOptions { start_after: some_path(Some(offset))?.map(String::from), ..options }));
        self.objects(options)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut entries = self.listed(below(prefix).map(ListOptions::one_level));
        let (mut objects, mut common_prefixes) = (Vec::new(), Vec::new());
        while let Some(entry) = entries.try_next().await? {
            match entry {
                BlobEntry::Blob(meta) => objects.push(object_meta(meta)?),
                BlobEntry::Prefix(path) => common_prefixes.push(Path::parse(path.as_str())?),
            }
        }
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        let copy = self.store.copy(&path_from(from)?, &path_from(to)?, &mode).await;
        copy.map(drop).map_err(|e| error_of_two(e, from, to))
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        if matches!(options.target_mode, RenameTargetMode::Overwrite) {
            let rename = self.store.rename(&path_from(from)?, &path_from(to)?).await;
            return rename.map(drop).map_err(|e| error_of_two(e, from, to));
        }
        self.copy_opts(from, to, CopyOptions { mode: CopyMode::Create, ..CopyOptions::default() }).await?;
        self.store.delete(&path_from(from)?).await.map(drop).map_err(|e| error(e, from))
    }
}

/// The bytes of a read: a local file as such, with the range beside it, so that an engine reads what it wants in one go.
fn payload(read: BlobRead, location: &Path) -> GetResultPayload {
    match read {
        // The path is for messages: what is read is the open file, whatever is at its path by now.
        BlobRead { content: BlobContent::File(file), .. } => GetResultPayload::File(file, location.as_ref().into()),
        read => {
            let location = location.clone();
            GetResultPayload::Stream(read.into_stream().map_err(move |e| error(e, &location)).boxed())
        }
    }
}

/// What is there already is the target; all else is about the source.
fn error_of_two(e: storage_core::Error, from: &Path, to: &Path) -> object_store::Error {
    let at = if e.kind() == storage_core::ErrorKind::AlreadyExists { to } else { from };
    error(e, at)
}

fn put_result(meta: BlobMeta) -> PutResult {
    PutResult { e_tag: meta.etag.map(|etag| etag.0), version: None, extensions: Default::default() }
}

/// Attributes as they come back; for the tests of this module's parts.
#[cfg(test)]
fn round_trip(attributes: object_store::Attributes) -> Result<object_store::Attributes> {
    convert::attributes_from(attributes).map(|attributes| attributes_to(&attributes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use object_store::{Attribute, Attributes};

    use super::*;

    #[test]
    fn attributes_round_trip_or_are_refused() {
        let kept = Attributes::from_iter([
            (Attribute::CacheControl, "max-age=60"),
            (Attribute::ContentType, "text/html"),
            (Attribute::ContentDisposition, "attachment"),
            (Attribute::ContentEncoding, "gzip"),
            (Attribute::Metadata("key".into()), "value"),
        ]);
        assert_eq!(round_trip(kept.clone()).unwrap(), kept);
        for refused in [Attribute::ContentLanguage, Attribute::StorageClass] {
            assert!(matches!(
                round_trip(Attributes::from_iter([(refused, "x")])),
                Err(object_store::Error::NotImplemented { .. })
            ));
        }
    }
}
