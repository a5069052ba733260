//! Bodies that are too large for the service, in blobs.

use bytes::Bytes;
use futures::TryStreamExt as _;
use storage_core::{BlobPath, BlobStore, Error, ErrorKind, Result};
use uuid::Uuid;

use crate::text::Spilled;

/// The largest body there: as much as one process bears of many at once.
pub(crate) const MAX_SPILLED: usize = 64 << 20;

/// Where large bodies go: `queues/NAME-ON-THE-SERVICE/UUID`.
#[derive(Clone, Debug)]
pub(crate) struct Spill(BlobStore);

impl Spill {
    pub(crate) fn to(blobs: BlobStore) -> Self {
        Self(blobs)
    }

    /// The largest body.
    pub(crate) fn max_bytes(&self) -> usize {
        usize::try_from(self.0.capabilities().max_blob_bytes).unwrap_or(usize::MAX).min(MAX_SPILLED)
    }

    fn path(queue: &str, blob: Uuid) -> Result<BlobPath> {
        BlobPath::new(format!("queues/{queue}/{}", blob.simple()))
    }

    pub(crate) async fn put(&self, queue: &str, body: Bytes) -> Result<Spilled> {
        let spilled = Spilled { blob: Uuid::now_v7(), bytes: body.len() as u64 };
        self.0.put(&Self::path(queue, spilled.blob)?, body).await?;
        Ok(spilled)
    }

    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) where the blob is gone, or is another.
    pub(crate) async fn get(&self, queue: &str, spilled: Spilled) -> Result<Bytes> {
        let path = Self::path(queue, spilled.blob)?;
        // What a message says of its blob is not to be trusted with memory.
        let found = match self.0.head(&path).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::corrupt(format!("the blob with the body of the message is gone: {path}")));
            }
            found => found?.size,
        };
        if found != spilled.bytes || found > MAX_SPILLED as u64 {
            return Err(Error::corrupt(format!("the blob with the body of the message has {found} bytes: {path}")));
        }
        self.0.get(&path).await
    }

    /// Removes a body. Where that fails it is left behind.
    pub(crate) async fn remove(&self, queue: &str, blob: Uuid) {
        let removed = match Self::path(queue, blob) {
            Ok(path) => self.0.delete(&path).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(queue, %blob, %error, "left the body of a message behind");
        }
    }

    /// Removes all bodies of a queue that is gone.
    pub(crate) async fn remove_all(&self, queue: &str) -> Result<()> {
        let prefix = BlobPath::new(format!("queues/{queue}"))?;
        let mut blobs = self.0.list_all(Some(prefix));
        while let Some(blob) = blobs.try_next().await? {
            self.0.delete(&blob.path).await?;
        }
        Ok(())
    }
}
