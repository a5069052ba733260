//! Blobs that are read as a network brings them: in small pieces, which stop coming when a test wants it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobContent, BlobEntry, BlobMeta, BlobPath, BlobRead, BlobStore, ETag,
    Error, GetOptions, ListOptions, PutMode, PutOptions, Result,
};
use storage_memory::MemoryStore;
use tokio::sync::watch;

/// Bytes in a piece.
const PIECE: usize = 64 << 10;
/// No offset.
const NOWHERE: u64 = u64::MAX;

/// A backend in front of another. Clones share everything.
#[derive(Clone, Debug)]
pub struct Breaking {
    inner: Arc<dyn BlobBackend>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Reads break off after so many bytes in all.
    left: Arc<AtomicU64>,
    /// How many bytes were sent.
    sent: Arc<AtomicU64>,
    /// The blob is written anew before the read of this number.
    change_before: AtomicU64,
    /// Reads that begin here never bring more than their first piece.
    stall_at: AtomicU64,
    /// Reads that begin here break off behind their first piece.
    break_at: AtomicU64,
    /// What was asked for.
    ranges: Mutex<Vec<Range<u64>>>,
    /// How many reads are under way, and of them how many have stalled.
    reading: watch::Sender<usize>,
    stalled: watch::Sender<usize>,
}

/// Counts a read while it is held.
struct Counted(Arc<State>, bool);

impl Counted {
    fn stalls(&mut self) {
        self.1 = true;
        self.0.stalled.send_modify(|count| *count += 1);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.1 {
            self.0.stalled.send_modify(|count| *count -= 1);
        }
        self.0.reading.send_modify(|count| *count -= 1);
    }
}

impl Breaking {
    /// In front of the memory backend.
    #[must_use]
    pub fn memory() -> Self {
        Self::over(Arc::new(MemoryStore::new().blobs()))
    }

    /// In front of this one.
    #[must_use]
    pub fn over(inner: Arc<dyn BlobBackend>) -> Self {
        let state = State {
            left: Arc::new(AtomicU64::new(u64::MAX)),
            sent: Arc::default(),
            change_before: AtomicU64::new(0),
            stall_at: AtomicU64::new(NOWHERE),
            break_at: AtomicU64::new(NOWHERE),
            ranges: Mutex::default(),
            reading: watch::Sender::new(0),
            stalled: watch::Sender::new(0),
        };
        Self { inner, state: Arc::new(state) }
    }

    /// A store in memory; how many bytes may still be read of it, and how many were.
    #[must_use]
    pub fn in_memory() -> (BlobStore, Arc<AtomicU64>, Arc<AtomicU64>) {
        Self::changing(0)
    }

    /// The same, in which the blob changes before the read of this number.
    #[must_use]
    pub fn changing(change_before: u64) -> (BlobStore, Arc<AtomicU64>, Arc<AtomicU64>) {
        let breaking = Self::memory();
        breaking.state.change_before.store(change_before, Ordering::SeqCst);
        (breaking.store(), Arc::clone(&breaking.state.left), Arc::clone(&breaking.state.sent))
    }

    /// A store of it.
    #[must_use]
    pub fn store(&self) -> BlobStore {
        BlobStore::new(Arc::new(self.clone()))
    }

    /// Reads that begin at this offset never bring more than their first piece.
    pub fn stall_at(&self, offset: Option<u64>) {
        self.state.stall_at.store(offset.unwrap_or(NOWHERE), Ordering::SeqCst);
    }

    /// Reads that begin at this offset break off behind their first piece.
    pub fn break_at(&self, offset: Option<u64>) {
        self.state.break_at.store(offset.unwrap_or(NOWHERE), Ordering::SeqCst);
    }

    /// Reads break off after so many bytes in all.
    pub fn set_left(&self, bytes: u64) {
        self.state.left.store(bytes, Ordering::SeqCst);
    }

    /// What was asked for since the last call.
    #[must_use]
    pub fn take_ranges(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.state.ranges.lock().expect("ranges"))
    }

    /// How many reads are under way.
    #[must_use]
    pub fn readers(&self) -> watch::Receiver<usize> {
        self.state.reading.subscribe()
    }

    /// Ready when so many reads have begun, and all have ended but those that have stalled.
    pub async fn until_only_stalled(&self, begun: usize) {
        let (mut reading, mut stalled) = (self.state.reading.subscribe(), self.state.stalled.subscribe());
        loop {
            let (now, still) = (*reading.borrow_and_update(), *stalled.borrow_and_update());
            let reads = self.state.ranges.lock().expect("ranges").len();
            if reads == begun && now == still {
                return;
            }
            tokio::select! {
                changed = reading.changed() => changed.expect("it lives as long as this"),
                changed = stalled.changed() => changed.expect("it lives as long as this"),
            }
        }
    }
}

#[async_trait]
impl BlobBackend for Breaking {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> &BlobCapabilities {
        self.inner.capabilities()
    }

    async fn create_container(&self) -> Result<bool> {
        self.inner.create_container().await
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        self.inner.put(path, body, options).await
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        let state = Arc::clone(&self.state);
        if state.change_before.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.inner.put(path, BlobBody::from("changed"), &PutOptions::default()).await?;
        }
        let mut read = self.inner.get(path, options).await?;
        state.ranges.lock().expect("ranges").push(read.range.clone());
        let start = read.range.start;
        let (stalls, breaks) = (state.stall_at.load(Ordering::SeqCst) == start, state.break_at.load(Ordering::SeqCst) == start);
        let (meta, range) = (read.meta.clone(), read.range.clone());
        let whole = BlobRead { meta, range, content: read.content }.bytes().await?;
        state.reading.send_modify(|count| *count += 1);
        let begun = (whole, Counted(Arc::clone(&state), false), 0);
        let stream = futures::stream::try_unfold(begun, move |(mut rest, mut counted, number)| {
            let state = Arc::clone(&state);
            async move {
                if stalls && number == 1 {
                    counted.stalls();
                    std::future::pending::<()>().await;
                }
                let piece = rest.split_to(PIECE.min(rest.len()));
                let len = piece.len() as u64;
                let granted = state.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(len));
                if granted.is_err() || (breaks && number == 1) {
                    return Err(Error::unavailable("the connection broke"));
                }
                state.sent.fetch_add(len, Ordering::SeqCst);
                // Pieces come one by one, so that reads side by side take turns.
                tokio::task::yield_now().await;
                Ok::<Option<(Bytes, _)>, Error>((len > 0).then_some((piece, (rest, counted, number + 1))))
            }
        });
        read.content = BlobContent::Stream(stream.boxed());
        Ok(read)
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.inner.head(path).await
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.inner.delete(path, if_match).await
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        self.inner.copy(from, to, mode).await
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        self.inner.list(options)
    }

    fn uri(&self, path: &BlobPath) -> String {
        self.inner.uri(path)
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
