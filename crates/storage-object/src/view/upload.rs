//! An upload in parts as one put of a stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};
use storage_core::{BlobBody, BlobMeta, BlobPath, BlobStore, Error, PutOptions};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::convert::error;
use super::{STORE, put_result};

/// How many parts may wait for one that comes before them.
const MAX_WAITING: usize = 256;

/// Parts on their way from the caller to the put.
#[derive(Debug, Default)]
struct Parts {
    /// Given and not taken yet, by number.
    given: BTreeMap<usize, PutPayload>,
    /// The number of the part that the put takes next.
    next: usize,
    end: End,
    /// The put is over: it takes no more.
    over: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// There are so many parts.
    After(usize),
    /// The upload was given up.
    Never,
}

#[derive(Debug, Default)]
struct Shared {
    parts: Mutex<Parts>,
    given: Notify,
    taken: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next part for the put; `None` at the end.
    async fn take(&self) -> storage_core::Result<Option<PutPayload>> {
        loop {
            let given = self.given.notified();
            {
                let mut parts = self.lock();
                let next = parts.next;
                if let Some(payload) = parts.given.remove(&next) {
                    parts.next += 1;
                    drop(parts);
                    self.taken.notify_waiters();
                    return Ok(Some(payload));
                }
                match parts.end {
                    End::After(count) if next >= count => return Ok(None),
                    End::After(_) => return Err(Error::invalid(format!("part {next} was never written"))),
                    End::Never => return Err(Error::unavailable("the upload was given up")),
                    End::Open => {}
                }
            }
            given.await;
        }
    }

    /// Hands a part over. Waits until the put has taken it, so that memory stays bounded, unless an earlier one is missing: then it must not wait.
    async fn give(&self, number: usize, payload: PutPayload) -> Result<()> {
        {
            let mut parts = self.lock();
            if parts.given.len() >= MAX_WAITING {
                return Err(failed(format!("more than {MAX_WAITING} parts wait for part {}", parts.next)));
            }
            parts.given.insert(number, payload);
        }
        self.given.notify_one();
        loop {
            let taken = self.taken.notified();
            tokio::pin!(taken);
            taken.as_mut().enable();
            {
                let parts = self.lock();
                // What went wrong is told by `complete`.
                let is_blocked = (parts.next..number).any(|earlier| !parts.given.contains_key(&earlier));
                if parts.next > number || parts.over || is_blocked {
                    return Ok(());
                }
            }
            taken.await;
        }
    }

    fn end(&self, end: End) {
        let mut parts = self.lock();
        if parts.end == End::Open {
            parts.end = end;
        }
        drop(parts);
        self.given.notify_one();
    }
}

/// One upload. Dropped before it is complete, nothing is written.
#[derive(Debug)]
pub(super) struct Upload {
    shared: Arc<Shared>,
    count: usize,
    location: Path,
    put: Option<JoinHandle<storage_core::Result<BlobMeta>>>,
}

impl Upload {
    pub(super) fn start(store: BlobStore, path: BlobPath, location: Path, options: PutOptions) -> Self {
        let shared = Arc::new(Shared::default());
        let parts = Arc::clone(&shared);
        let put = tokio::spawn(async move {
            let payloads = futures::stream::try_unfold(Arc::clone(&parts), |parts| async move {
                Ok::<_, Error>(parts.take().await?.map(|payload| (payload, parts)))
            });
            let pieces = payloads.map_ok(|payload| futures::stream::iter(payload.into_iter().map(Ok::<Bytes, Error>)));
            let body = BlobBody::Stream { stream: pieces.try_flatten().boxed(), size: None };
            let outcome = store.put_with(&path, body, &options).await;
            parts.lock().over = true;
            parts.taken.notify_waiters();
            outcome
        });
        Self { shared, count: 0, location, put: Some(put) }
    }

    async fn outcome(&mut self) -> Result<BlobMeta> {
        let put = self.put.take().ok_or_else(|| failed("the upload is over"))?;
        let outcome = put.await.map_err(|e| failed(format!("the task that wrote ended: {e}")))?;
        outcome.map_err(|e| error(e, &self.location))
    }
}

fn failed(text: impl Into<String>) -> object_store::Error {
    object_store::Error::Generic { store: STORE, source: text.into().into() }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (shared, number) = (Arc::clone(&self.shared), self.count);
        self.count += 1;
        Box::pin(async move { shared.give(number, data).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.shared.end(End::After(self.count));
        self.outcome().await.map(put_result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.shared.end(End::Never);
        // The put fails as it was told to.
        drop(self.outcome().await);
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.shared.end(End::Never);
    }
}
