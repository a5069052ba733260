//! JSON objects in blobs, each with the mark that guards its next write.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use serde::de::DeserializeOwned;
use storage_core::{
    BlobBackend, BlobEntry, BlobPath, ETag, Error, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Result,
};

/// How many requests one call has under way.
pub(super) const AT_ONCE: usize = 16;

/// Below one folder of a blob backend.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) blobs: Arc<dyn BlobBackend>,
    pub(super) root: BlobPath,
    /// Larger objects are not ours.
    pub(super) max_bytes: u64,
}

/// One state of an object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) bytes: Bytes,
    pub(super) etag: ETag,
}

/// Says of an error which object it is about: closer than the table that the caller knows.
fn about(path: &BlobPath) -> impl Fn(Error) -> Error + '_ {
    move |error| error.with_subject(format_args!("blob `{path}`"))
}

impl Objects {
    pub(super) async fn get(&self, path: &str) -> Result<Option<Object>> {
        let at = self.root.join(path)?;
        let read = match self.blobs.get(&at, &GetOptions::default()).await {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(about(&at)(error)),
        };
        if read.meta.size > self.max_bytes {
            return Err(self.corrupt(path, format_args!("it has {} bytes, more than this toolkit writes", read.meta.size)));
        }
        let Some(etag) = read.meta.etag.clone() else {
            return Err(Error::internal(format!("blob `{at}` came without the mark that guards its next write")));
        };
        Ok(Some(Object { bytes: read.bytes().await.map_err(about(&at))?, etag }))
    }

    /// Writes an object that takes the place of the state `over`, or of none. `false`: there is another by now.
    pub(super) async fn put(&self, path: &str, bytes: Vec<u8>, over: Option<&ETag>) -> Result<bool> {
        if bytes.len() as u64 > self.max_bytes {
            return Err(Error::invalid(format!(
                "the record would be an object of {} bytes, {} at most on this backend: put large data into a blob",
                bytes.len(),
                self.max_bytes
            )));
        }
        let mode = over.map_or(PutMode::Create, |etag| PutMode::Update(etag.clone()));
        let mut options = PutOptions::default().mode(mode);
        if self.blobs.capabilities().attributes {
            options = options.content_type("application/json");
        }
        let at = self.root.join(path)?;
        match self.blobs.put(&at, bytes.into(), &options).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Conflict) => Ok(false),
            Err(error) => Err(about(&at)(error)),
        }
    }

    /// Removes the state `etag` of an object. `false`: there is another by now, or none.
    pub(super) async fn delete(&self, path: &str, etag: &ETag) -> Result<bool> {
        let at = self.root.join(path)?;
        match self.blobs.delete(&at, Some(etag)).await {
            Ok(deleted) => Ok(deleted),
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(false),
            Err(error) => Err(about(&at)(error)),
        }
    }

    /// Removes whatever is below a folder that nobody uses any more.
    pub(super) async fn purge(&self, folder: &str) -> Result<()> {
        let names = self.list(folder, None)?;
        let delete = |name: String| async move {
            let path = self.root.join(format!("{folder}/{name}"))?;
            self.blobs.delete(&path, None).await.map_err(about(&path))
        };
        names.map_ok(delete).try_buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await
    }

    /// The names of what is below a folder, at any depth and without it, in bytewise order, those behind `after` alone.
    pub(super) fn list(&self, folder: &str, after: Option<&str>) -> Result<BoxStream<'static, Result<String>>> {
        let below = self.root.join(folder)?;
        let start_after = after.map(|after| below.join(after)).transpose()?;
        let listed = self.blobs.list(&ListOptions {
            prefix: Some(below.clone()),
            one_level: false,
            start_after: start_after.map(String::from),
        });
        let named = move |entry| match entry {
            BlobEntry::Blob(meta) => meta.path.below(&below).map(String::from),
            BlobEntry::Prefix(_) => None,
        };
        Ok(listed.try_filter_map(move |entry| futures::future::ready(Ok(named(entry)))).boxed())
    }

    pub(super) fn corrupt(&self, path: &str, what: impl std::fmt::Display) -> Error {
        Error::corrupt(format!("blob `{}/{path}`: {what}", self.root))
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, path: &str, bytes: &[u8], what: &str) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|e| self.corrupt(path, format_args!("this is not {what}: {e}")))
    }
}
