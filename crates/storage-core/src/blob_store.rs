//! [`BlobStore`]: what an application holds of a blob backend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::capability::require;
use crate::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobRead, ByteRange, ETag, Engine,
    Error, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Result, ResultExt, Secret, SignedAccess,
};

/// The longest time that a signed URL is good for: what S3 allows.
const MAX_SIGNED: Duration = Duration::from_secs(7 * 86_400);

/// Blobs of one container, on any backend; with a prefix, those below it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BlobStore {
    backend: Arc<dyn BlobBackend>,
    prefix: Option<BlobPath>,
}

impl BlobStore {
    /// A store over `backend`.
    pub fn new(backend: Arc<dyn BlobBackend>) -> Self {
        Self { backend, prefix: None }
    }

    /// The blobs below `prefix` alone, under paths without it.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the prefixes together are too long.
    pub fn with_prefix(&self, prefix: &BlobPath) -> Result<Self> {
        let prefix = self.full(prefix)?;
        Ok(Self { backend: Arc::clone(&self.backend), prefix: Some(prefix) })
    }

    /// The backend itself, which knows nothing of this store's prefix.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn BlobBackend> {
        &self.backend
    }

    /// Which backend this is.
    #[must_use]
    pub fn info(&self) -> &BackendInfo {
        self.backend.info()
    }

    /// What the backend can do.
    #[must_use]
    pub fn capabilities(&self) -> &BlobCapabilities {
        self.backend.capabilities()
    }

    /// The path that the backend knows a blob by.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where it is too long with the prefix.
    pub fn full(&self, path: &BlobPath) -> Result<BlobPath> {
        self.prefix.as_ref().map_or_else(|| Ok(path.clone()), |prefix| prefix.join(path))
    }

    /// True where the other store is of the very same backend, below another prefix perhaps.
    #[must_use]
    pub fn shares_backend(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.backend, &other.backend)
    }

    /// The path that the backend knows everything below `prefix` by. `None`: all that it has.
    pub(crate) fn place(&self, prefix: Option<&BlobPath>) -> Result<Option<BlobPath>> {
        prefix.map_or_else(|| Ok(self.prefix.clone()), |prefix| self.full(prefix).map(Some))
    }

    fn local(&self, mut meta: BlobMeta) -> BlobMeta {
        if let Some(local) = self.prefix.as_ref().and_then(|prefix| meta.path.below(prefix)) {
            meta.path = local;
        }
        meta
    }

    /// Creates the container. `false`: it was there.
    ///
    /// # Errors
    /// The backend's.
    pub async fn create_container(&self) -> Result<bool> {
        self.backend.create_container().await.explain(self.info(), "blobs.create_container", || "the container".into())
    }

    /// Writes a blob, replacing one that is there.
    ///
    /// # Errors
    /// See [`put_with`](Self::put_with).
    pub async fn put(&self, path: &BlobPath, body: impl Into<BlobBody>) -> Result<BlobMeta> {
        self.put_with(path, body, &PutOptions::default()).await
    }

    /// Writes a blob: wholly or not at all, whatever the kind of body.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) and [`Conflict`](ErrorKind::Conflict) by [`PutMode`]; [`Unsupported`](ErrorKind::Unsupported) where the backend can't
    /// promise the mode or keep the attributes; [`InvalidInput`](ErrorKind::InvalidInput) for attributes that not every service can keep, or a blob too large.
    pub async fn put_with(&self, path: &BlobPath, body: impl Into<BlobBody>, options: &PutOptions) -> Result<BlobMeta> {
        let body = body.into();
        let put = async {
            self.check_mode(&options.mode)?;
            options.attributes.check()?;
            require(self.capabilities().attributes || options.attributes.is_empty(), self.info(), "attributes of blobs")?;
            let max = self.capabilities().max_blob_bytes;
            if let Some(size) = body.size().filter(|size| *size > max) {
                return Err(Error::invalid(format!("the blob has {size} bytes, {max} at most on this backend")));
            }
            self.backend.put(&self.full(path)?, body, options).await
        };
        put.await.map(|meta| self.local(meta)).explain(self.info(), "blobs.put", || subject(path))
    }

    fn check_mode(&self, mode: &PutMode) -> Result<()> {
        let (capabilities, info) = (self.capabilities(), self.info());
        match mode {
            PutMode::Overwrite => Ok(()),
            PutMode::Create => require(capabilities.create, info, "create-only writes"),
            PutMode::Update(_) => require(capabilities.conditional, info, "conditional writes"),
        }
    }

    /// Writes text.
    ///
    /// # Errors
    /// See [`put_with`](Self::put_with).
    pub async fn put_text(&self, path: &BlobPath, text: &str) -> Result<BlobMeta> {
        let options = self.options_of_type("text/plain; charset=utf-8");
        self.put_with(path, Bytes::copy_from_slice(text.as_bytes()), &options).await
    }

    /// Writes `value` as JSON.
    ///
    /// # Errors
    /// See [`put_with`](Self::put_with).
    pub async fn put_json<T: Serialize + Sync>(&self, path: &BlobPath, value: &T) -> Result<BlobMeta> {
        let body = serde_json::to_vec(value).explain(self.info(), "blobs.put", || subject(path))?;
        self.put_with(path, body, &self.options_of_type("application/json")).await
    }

    fn options_of_type(&self, content_type: &str) -> PutOptions {
        match self.capabilities().attributes {
            true => PutOptions::default().content_type(content_type),
            false => PutOptions::default(),
        }
    }

    /// Starts reading a blob, or a part of it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`Conflict`](ErrorKind::Conflict): it has another mark than `if_match`; [`InvalidInput`](ErrorKind::InvalidInput): the range
    /// starts behind its end.
    pub async fn get_with(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        let get = async {
            require(self.capabilities().conditional || options.if_match.is_none(), self.info(), "conditional reads")?;
            self.backend.get(&self.full(path)?, options).await
        };
        let mut read = get.await.explain(self.info(), "blobs.get", || subject(path))?;
        read.meta = self.local(read.meta);
        Ok(read)
    }

    /// A whole blob, in memory.
    ///
    /// # Errors
    /// See [`get_with`](Self::get_with).
    pub async fn get(&self, path: &BlobPath) -> Result<Bytes> {
        self.get_with(path, &GetOptions::default()).await?.bytes().await.explain(self.info(), "blobs.get", || subject(path))
    }

    /// A part of a blob, in memory.
    ///
    /// # Errors
    /// See [`get_with`](Self::get_with).
    pub async fn get_range(&self, path: &BlobPath, range: impl Into<ByteRange>) -> Result<Bytes> {
        let options = GetOptions::default().range(range);
        self.get_with(path, &options).await?.bytes().await.explain(self.info(), "blobs.get", || subject(path))
    }

    /// A blob as text.
    ///
    /// # Errors
    /// See [`get_with`](Self::get_with); [`InvalidInput`](ErrorKind::InvalidInput) where it is not UTF-8.
    pub async fn get_text(&self, path: &BlobPath) -> Result<String> {
        let bytes = self.get(path).await?;
        String::from_utf8(bytes.into()).map_err(|e| {
            Error::invalid(format!("the blob is not UTF-8 text: {e}")).with_operation("blobs.get").with_subject(subject(path))
        })
    }

    /// A blob as `T`, read from JSON.
    ///
    /// # Errors
    /// See [`get_with`](Self::get_with); [`InvalidInput`](ErrorKind::InvalidInput) where it is not that.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &BlobPath) -> Result<T> {
        serde_json::from_slice(&self.get(path).await?).explain(self.info(), "blobs.get", || subject(path))
    }

    /// Size, mark and attributes.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound).
    pub async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        let head = async { self.backend.head(&self.full(path)?).await };
        head.await.map(|meta| self.local(meta)).explain(self.info(), "blobs.head", || subject(path))
    }

    /// True where there is such a blob.
    ///
    /// # Errors
    /// The backend's.
    pub async fn exists(&self, path: &BlobPath) -> Result<bool> {
        match self.head(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a blob. `false`: there was none.
    ///
    /// # Errors
    /// The backend's.
    pub async fn delete(&self, path: &BlobPath) -> Result<bool> {
        let delete = async { self.backend.delete(&self.full(path)?, None).await };
        delete.await.explain(self.info(), "blobs.delete", || subject(path))
    }

    /// Removes a blob that has this mark.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict): it has another mark, or is gone. [`Unsupported`](ErrorKind::Unsupported).
    pub async fn delete_if(&self, path: &BlobPath, etag: &ETag) -> Result<()> {
        let delete = async {
            require(self.capabilities().conditional, self.info(), "conditional deletes")?;
            self.backend.delete(&self.full(path)?, Some(etag)).await
        };
        delete.await.map(drop).explain(self.info(), "blobs.delete", || subject(path))
    }

    /// Copies a blob, attributes included.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); those of the mode, see [`put_with`](Self::put_with).
    pub async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        self.copy_within(from, self, to, mode).await
    }

    /// Copies a blob to a store that [shares](Self::shares_backend) the backend.
    pub(crate) async fn copy_within(&self, from: &BlobPath, target: &Self, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        let copy = async {
            self.check_mode(mode)?;
            self.backend.copy(&self.full(from)?, &target.full(to)?, mode).await
        };
        copy.await.map(|meta| target.local(meta)).explain(self.info(), "blobs.copy", || format!("blob `{from}` to `{to}`"))
    }

    /// Copies a blob, then removes it at its old path; broken off between the two, it is at both. What is at the new path is replaced.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`Conflict`](ErrorKind::Conflict): it was written again meanwhile, and both are there.
    pub async fn rename(&self, from: &BlobPath, to: &BlobPath) -> Result<BlobMeta> {
        if from == to {
            return self.head(from).await;
        }
        let before = self.head(from).await?;
        let copied = self.copy(from, to, &PutMode::Overwrite).await?;
        match before.etag.filter(|_| self.capabilities().conditional) {
            Some(etag) => self.delete_if(from, &etag).await?,
            None => drop(self.delete(from).await?),
        }
        Ok(copied)
    }

    /// Lists blobs in bytewise order of their paths.
    pub fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        let start_after = options.start_after.clone();
        let start_after = start_after.map(|key| self.prefix.as_ref().map_or(key.clone(), |prefix| format!("{prefix}/{key}")));
        let options = match options.prefix.as_ref().map(|prefix| self.full(prefix)).transpose() {
            Ok(prefix) => {
                ListOptions { prefix: prefix.or_else(|| self.prefix.clone()), one_level: options.one_level, start_after }
            }
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        let (store, info) = (self.clone(), self.info().clone());
        let entries = self.backend.list(&options).map_ok(move |entry| match entry {
            BlobEntry::Blob(meta) => BlobEntry::Blob(store.local(meta)),
            BlobEntry::Prefix(path) => {
                BlobEntry::Prefix(store.prefix.as_ref().and_then(|prefix| path.below(prefix)).unwrap_or(path))
            }
        });
        entries.map_err(move |e| e.with_operation("blobs.list").with_backend(&info)).boxed()
    }

    /// All blobs below `prefix` (`None`: all), in bytewise order of their paths.
    pub fn list_all(&self, prefix: Option<BlobPath>) -> BoxStream<'static, Result<BlobMeta>> {
        let entries = self.list(&ListOptions::below(prefix));
        entries
            .try_filter_map(|entry| async move {
                Ok(match entry {
                    BlobEntry::Blob(meta) => Some(meta),
                    BlobEntry::Prefix(_) => None,
                })
            })
            .boxed()
    }

    /// The blob's address for other programs, without credentials.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the path is too long with the prefix.
    pub fn uri(&self, path: &BlobPath) -> Result<String> {
        Ok(self.backend.uri(&self.full(path)?))
    }

    /// A URL that lets whoever has it read or write the blob for so long, 7 days at most.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported); [`InvalidInput`](ErrorKind::InvalidInput) for a time of zero or too long.
    pub async fn signed_url(&self, path: &BlobPath, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        let sign = async {
            if expires_in.is_zero() || expires_in > MAX_SIGNED {
                return Err(Error::invalid(format!("a signed URL is good for 1 second to 7 days, not {expires_in:?}")));
            }
            require(self.capabilities().signed_url, self.info(), "signed URLs")?;
            self.backend.signed_url(&self.full(path)?, access, expires_in).await
        };
        sign.await.explain(self.info(), "blobs.signed_url", || subject(path))
    }

    /// What an engine needs to open the same data by itself: options by its own names, with secrets; empty where it needs none.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported), with what stands in the way: this engine can't be given what it would need, or can't read what is here.
    pub fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        self.backend.storage_options(engine).explain(self.info(), "blobs.storage_options", || "the container".into())
    }

    /// The address of a blob, or of a folder of blobs, as an engine takes it: `s3a://…` for Spark. Without credentials.
    ///
    /// # Errors
    /// As [`storage_options`](Self::storage_options); [`InvalidInput`](ErrorKind::InvalidInput) where the path is too long with the prefix.
    pub fn engine_uri(&self, path: &BlobPath, engine: Engine) -> Result<String> {
        let uri = self.full(path).and_then(|path| self.backend.engine_uri(&path, engine));
        uri.explain(self.info(), "blobs.engine_uri", || subject(path))
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// The backend's.
    pub async fn ping(&self) -> Result<()> {
        self.backend.ping().await.explain(self.info(), "blobs.ping", || "the container".into())
    }

    /// Finishes what is under way and lets go of everything.
    ///
    /// # Errors
    /// The backend's.
    pub async fn close(&self) -> Result<()> {
        self.backend.close().await.explain(self.info(), "blobs.close", || "the container".into())
    }
}

fn subject(path: &BlobPath) -> String {
    format!("blob `{path}`")
}
