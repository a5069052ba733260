//! Backends to stand behind transforms, and short words.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use storage_conformance::{DriverHarness, Harness, Place};
use storage_core::{
    BackendInfo, Backends, BlobBackend, BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobRead, BlobStore, Clock,
    Driver as _, DriverConfig, ETag, Error, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Result,
};
use storage_fs::FsDriver;
use storage_layers::transform::mirror::{Mirror, Require};
use storage_memory::MemoryDriver;
use tokio::sync::Mutex;

/// Puts a transform in front of a backend; called once for each handle.
pub(crate) type Wrap = fn(Arc<dyn BlobBackend>) -> Arc<dyn BlobBackend>;

/// A backend's harness with a transform in front of its blobs.
pub(crate) struct Layered<H> {
    inner: H,
    wrap: Wrap,
}

#[async_trait]
impl<H: Harness> Harness for Layered<H> {
    async fn place(&self) -> Result<Place> {
        self.inner.place().await
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let backends = self.inner.open(config).await?;
        Ok(Backends { blobs: backends.blobs.map(self.wrap), ..backends })
    }

    fn takes_manual_clock(&self) -> bool {
        self.inner.takes_manual_clock()
    }

    fn survives_close(&self) -> bool {
        self.inner.survives_close()
    }

    async fn broken_place(&self) -> Result<Option<Place>> {
        self.inner.broken_place().await
    }
}

pub(crate) fn on_memory(wrap: Wrap) -> impl Harness {
    let broken = || Ok(Place::url("memory://#1"));
    let inner =
        DriverHarness::new(MemoryDriver, || Ok(Place::unique_name("memory://"))).manual_clock().ephemeral().broken(broken);
    Layered { inner, wrap }
}

pub(crate) fn on_fs(wrap: Wrap) -> impl Harness {
    let place = || Place::in_folder(|folder| format!("fs://{}", folder.join("store").display()));
    let broken = || {
        Place::in_folder(|folder| {
            let file = folder.join("file");
            // Where this fails, there is no folder to open either, and the case finds what it looks for.
            let _ = std::fs::write(&file, "not a folder");
            format!("fs://{}", file.display())
        })
    };
    Layered { inner: DriverHarness::new(FsDriver, place).manual_clock().broken(broken), wrap }
}

/// A mirror of two stores of one kind.
pub(crate) struct Mirrored<H> {
    primary: H,
    require: Require,
    seconds: Mutex<HashMap<String, Place>>,
}

#[async_trait]
impl<H: Harness> Harness for Mirrored<H> {
    async fn place(&self) -> Result<Place> {
        let (place, second) = (self.primary.place().await?, self.primary.place().await?);
        self.seconds.lock().await.insert(place.config.url.clone().unwrap(), second);
        Ok(place)
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let primary = self.primary.open(config).await?;
        let seconds = self.seconds.lock().await;
        let Some(second) = seconds.get(config.url.as_deref().unwrap()) else { return Ok(primary) };
        let second = self.primary.open(&DriverConfig { clock: config.clock.clone(), ..second.config.clone() }).await?;
        let mirror = Mirror::new(primary.blobs.clone().unwrap(), vec![second.blobs.unwrap()], self.require)?;
        Ok(Backends { blobs: Some(Arc::new(mirror)), ..primary })
    }

    fn takes_manual_clock(&self) -> bool {
        self.primary.takes_manual_clock()
    }

    fn survives_close(&self) -> bool {
        self.primary.survives_close()
    }

    async fn broken_place(&self) -> Result<Option<Place>> {
        self.primary.broken_place().await
    }
}

pub(crate) fn mirrored<H: Harness>(on: fn(Wrap) -> H, require: Require) -> impl Harness {
    Mirrored { primary: on(|inner| inner), require, seconds: Mutex::default() }
}

/// A mirror of two stores of one kind, with transforms in front.
pub(crate) fn mirrored_below<H: Harness>(on: fn(Wrap) -> H, wrap: Wrap) -> impl Harness {
    Layered { inner: mirrored(on, Require::All), wrap }
}

/// The blobs of a fresh store in memory.
pub(crate) async fn memory() -> Arc<dyn BlobBackend> {
    MemoryDriver.open(&DriverConfig::from_url("memory:")).await.unwrap().blobs.unwrap()
}

/// Another handle on the blobs of the store of this name.
pub(crate) async fn named(name: &str) -> Arc<dyn BlobBackend> {
    MemoryDriver.open(&DriverConfig::from_url(&format!("memory://{name}"))).await.unwrap().blobs.unwrap()
}

/// The blobs of a store of files in `folder`.
pub(crate) async fn fs(folder: &std::path::Path) -> Arc<dyn BlobBackend> {
    let options = storage_fs::FsOptions::default();
    Arc::new(storage_fs::FsStore::open(folder, options, Clock::system()).await.unwrap().blobs())
}

pub(crate) fn store(backend: &Arc<dyn BlobBackend>) -> BlobStore {
    BlobStore::new(Arc::clone(backend))
}

pub(crate) fn path(path: &str) -> BlobPath {
    BlobPath::new(path).unwrap()
}

/// Bytes that look random, others for each seed.
pub(crate) fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (seed << 1 | 1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(len).collect()
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(kind: ErrorKind, outcome: Result<T>) -> Error {
    match outcome {
        Err(error) if error.kind() == kind => error,
        other => panic!("expected {kind}, got: {other:?}"),
    }
}

/// A backend that counts what is read of it.
#[derive(Debug)]
pub(crate) struct Counted {
    inner: Arc<dyn BlobBackend>,
    gets: AtomicU64,
    heads: AtomicU64,
    read: AtomicU64,
    /// A folder that is there for as long.
    _folder: Option<tempfile::TempDir>,
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn BlobBackend>) -> Self {
        Self { inner, gets: AtomicU64::new(0), heads: AtomicU64::new(0), read: AtomicU64::new(0), _folder: None }
    }

    /// What `wrap` makes of a folder of its own, which goes when the backend does.
    pub(crate) fn in_folder(wrap: impl FnOnce(&std::path::Path) -> Arc<dyn BlobBackend>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inner = wrap(folder.path());
        Self { _folder: Some(folder), ..Self::new(inner) }
    }

    /// How many reads there were.
    pub(crate) fn gets(&self) -> u64 {
        self.gets.load(Ordering::SeqCst)
    }

    /// How often a size was asked for.
    pub(crate) fn heads(&self) -> u64 {
        self.heads.load(Ordering::SeqCst)
    }

    /// How many bytes were asked for.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }

    pub(crate) fn reset(&self) {
        for count in [&self.gets, &self.heads, &self.read] {
            count.store(0, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl BlobBackend for Counted {
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
        let read = self.inner.get(path, options).await?;
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.read.fetch_add(read.range.end - read.range.start, Ordering::SeqCst);
        Ok(read)
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.heads.fetch_add(1, Ordering::SeqCst);
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
