//! The suites against queues and blobs that declare as little as they may: what is not declared must be refused, and the rest still holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use storage_conformance::{DriverHarness, Harness, Place};
use storage_core::{
    BackendInfo, Backends, BlobBackend, BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobRead, Delivery, Driver,
    DriverConfig, ETag, GetOptions, ListOptions, MessageUpdate, NewMessage, OptionSpec, PutMode, PutOptions, QueueBackend,
    QueueCapabilities, QueueName, QueueSpec, QueueStats, Receipt, Receive, Result, Sent, Surfaces,
};
use storage_memory::MemoryDriver;

const QUEUE: QueueCapabilities = QueueCapabilities {
    delay: false,
    ttl: false,
    priority: false,
    dedup: false,
    fifo: false,
    peek: false,
    update_body: false,
    dead_letter: false,
    atomic_send: false,
    receipts_across_processes: false,
    wakes: false,
    max_body_bytes: 64 << 10,
    durable: false,
};

const BLOBS: BlobCapabilities = BlobCapabilities {
    create: false,
    conditional: false,
    attributes: false,
    signed_url: false,
    max_blob_bytes: 64 << 20,
    durable: false,
};

/// Queues in memory, without what only a capability calls for.
#[derive(Debug)]
struct BareQueue(Arc<dyn QueueBackend>);

#[async_trait]
impl QueueBackend for BareQueue {
    fn info(&self) -> &BackendInfo {
        self.0.info()
    }
    fn capabilities(&self) -> &QueueCapabilities {
        &QUEUE
    }
    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        assert_eq!(spec.max_deliveries, None, "a cap is not declared");
        self.0.create_queue(queue, spec).await
    }
    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.0.delete_queue(queue).await
    }
    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.0.queues().await
    }
    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.0.queue_spec(queue).await
    }
    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        self.0.send(queue, messages).await
    }
    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        self.0.receive(queue, request).await
    }
    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        self.0.delete(queue, receipts).await
    }
    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        assert!(change.body.is_none() && change.attributes.is_none(), "not declared");
        self.0.update(queue, receipt, change).await
    }
    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.0.stats(queue).await
    }
    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.0.purge(queue).await
    }
    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }
    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

/// Blobs in memory, without marks, attributes and conditions.
#[derive(Debug)]
struct BareBlobs(Arc<dyn BlobBackend>);

fn without_mark(meta: BlobMeta) -> BlobMeta {
    BlobMeta { etag: None, ..meta }
}

#[async_trait]
impl BlobBackend for BareBlobs {
    fn info(&self) -> &BackendInfo {
        self.0.info()
    }
    fn capabilities(&self) -> &BlobCapabilities {
        &BLOBS
    }
    async fn create_container(&self) -> Result<bool> {
        self.0.create_container().await
    }
    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        assert_eq!(*options, PutOptions::default(), "neither modes nor attributes are declared");
        self.0.put(path, body, options).await.map(without_mark)
    }
    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        assert_eq!(options.if_match, None, "not declared");
        let read = self.0.get(path, options).await?;
        Ok(BlobRead { meta: without_mark(read.meta), ..read })
    }
    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.0.head(path).await.map(without_mark)
    }
    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        assert_eq!(if_match, None, "not declared");
        self.0.delete(path, None).await
    }
    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        assert_eq!(*mode, PutMode::Overwrite, "not declared");
        self.0.copy(from, to, mode).await.map(without_mark)
    }
    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        use futures::{StreamExt as _, TryStreamExt as _};
        let bare = |entry| match entry {
            BlobEntry::Blob(meta) => BlobEntry::Blob(without_mark(meta)),
            prefix => prefix,
        };
        self.0.list(options).map_ok(bare).boxed()
    }
    fn uri(&self, path: &BlobPath) -> String {
        self.0.uri(path)
    }
    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }
    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

#[derive(Debug, Default)]
struct BareDriver(MemoryDriver);

#[async_trait]
impl Driver for BareDriver {
    fn name(&self) -> &'static str {
        "bare"
    }
    fn schemes(&self) -> &'static [&'static str] {
        &["memory"]
    }
    fn surfaces(&self) -> Surfaces {
        Surfaces { queue: true, blobs: true, ..Surfaces::default() }
    }
    fn options(&self) -> &'static [OptionSpec] {
        self.0.options()
    }
    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let opened = self.0.open(config).await?;
        Ok(Backends {
            records: None,
            queue: opened.queue.map(|queue| Arc::new(BareQueue(queue)) as _),
            blobs: opened.blobs.map(|blobs| Arc::new(BareBlobs(blobs)) as _),
        })
    }
}

fn harness() -> impl Harness {
    let broken = || Ok(Place::url("memory://#1"));
    DriverHarness::new(BareDriver::default(), || Ok(Place::unique_name("memory://"))).manual_clock().ephemeral().broken(broken)
}

storage_conformance::test_queues!(harness());
storage_conformance::test_blobs!(harness());
