//! A fault injector over a real backend: calls fail as a script says, before or after the real one took effect.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use storage_core::*;

/// What happens to a call. With an empty script, what the real backend does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It fails, and nothing was done.
    Before(ErrorKind),
    /// It was done, and the answer is lost.
    After(ErrorKind),
    /// No answer, ever; nothing was done.
    Hang,
    /// It was done, and the answer never comes.
    HangAfter,
    /// The connection was refused.
    Refused,
    /// The service asks to wait so many seconds.
    RetryAfter(u64),
    /// The read of a blob, or a listing, breaks after so many pieces.
    BreakAt(usize),
    /// It gives nothing more after so many pieces.
    StallAt(usize),
}

#[derive(Debug)]
pub(crate) struct Faulty<B: ?Sized> {
    script: Mutex<VecDeque<Fault>>,
    calls: Mutex<Vec<&'static str>>,
    pub(crate) inner: Arc<B>,
}

impl<B: ?Sized> Faulty<B> {
    pub(crate) fn new(inner: Arc<B>) -> Arc<Self> {
        Arc::new(Self { script: Mutex::default(), calls: Mutex::default(), inner })
    }

    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.script.lock().unwrap() = faults.into_iter().collect();
        self.calls.lock().unwrap().clear();
    }

    /// The tries that reached the backend since the script was set.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }

    fn next(&self, call: &'static str) -> Fault {
        self.calls.lock().unwrap().push(call);
        self.script.lock().unwrap().pop_front().unwrap_or(Fault::None)
    }

    async fn through<T>(&self, call: &'static str, real: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = self.next(call);
        self.meet(fault, real).await
    }

    async fn meet<T>(&self, fault: Fault, real: impl Future<Output = Result<T>>) -> Result<T> {
        let injected = |kind| Error::new(kind, "injected");
        match fault {
            Fault::None | Fault::BreakAt(_) | Fault::StallAt(_) => real.await,
            Fault::Before(kind) => Err(injected(kind)),
            Fault::After(kind) => real.await.and_then(|_| Err(injected(kind))),
            Fault::Hang => pending().await,
            Fault::HangAfter => {
                real.await?;
                pending().await
            }
            Fault::Refused => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
            Fault::RetryAfter(seconds) => Err(injected(ErrorKind::Throttled).with_retry_after(Duration::from_secs(seconds))),
        }
    }
}

fn cut<T: Send + 'static>(fault: Fault, stream: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
    match fault {
        Fault::BreakAt(pieces) => {
            let broken = futures::stream::once(async { Err(Error::unavailable("injected: the connection broke")) });
            stream.take(pieces).chain(broken).boxed()
        }
        Fault::StallAt(pieces) => stream.take(pieces).chain(futures::stream::pending()).boxed(),
        _ => stream,
    }
}

#[async_trait]
impl<B: RecordBackend + ?Sized> RecordBackend for Faulty<B> {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }
    fn capabilities(&self) -> &RecordCapabilities {
        self.inner.capabilities()
    }
    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.through("create_table", self.inner.create_table(schema)).await
    }
    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.through("alter_table", self.inner.alter_table(table, change)).await
    }
    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.through("drop_table", self.inner.drop_table(table)).await
    }
    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.through("tables", self.inner.tables()).await
    }
    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.through("get", self.inner.get(table, keys)).await
    }
    async fn scan(&self, query: &Query) -> Result<Page> {
        self.through("scan", self.inner.scan(query)).await
    }
    async fn count(&self, query: &Query) -> Result<u64> {
        self.through("count", self.inner.count(query)).await
    }
    /// As if the real one left 7 expired records for it.
    async fn sweep(&self, query: &Query) -> Result<u64> {
        self.through("sweep", async { self.inner.sweep(query).await.map(|freed| freed + 7) }).await
    }
    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        self.through("commit", self.inner.commit(batch)).await
    }
    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        self.through("history", self.inner.history(table, key)).await
    }
    async fn backup(&self, to: &Path) -> Result<()> {
        self.through("backup", self.inner.backup(to)).await
    }
    async fn ping(&self) -> Result<()> {
        self.through("ping", self.inner.ping()).await
    }
    async fn close(&self) -> Result<()> {
        self.through("close", self.inner.close()).await
    }
}

#[async_trait]
impl<B: QueueBackend + ?Sized> QueueBackend for Faulty<B> {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }
    fn capabilities(&self) -> &QueueCapabilities {
        self.inner.capabilities()
    }
    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        self.through("create_queue", self.inner.create_queue(queue, spec)).await
    }
    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.through("delete_queue", self.inner.delete_queue(queue)).await
    }
    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.through("queues", self.inner.queues()).await
    }
    /// Never fails: tests script what they look at.
    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.inner.queue_spec(queue).await
    }
    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        self.through("send", self.inner.send(queue, messages)).await
    }
    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        self.through("receive", self.inner.receive(queue, request)).await
    }
    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        self.through("delete", self.inner.delete(queue, receipts)).await
    }
    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        self.through("update", self.inner.update(queue, receipt, change)).await
    }
    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        self.through("dead_letter", self.inner.dead_letter(queue, receipt, reason)).await
    }
    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        self.through("redrive", self.inner.redrive(queue, max)).await
    }
    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        self.through("peek", self.inner.peek(queue, max)).await
    }
    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.through("stats", self.inner.stats(queue)).await
    }
    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.through("purge", self.inner.purge(queue)).await
    }
    async fn ping(&self) -> Result<()> {
        self.through("ping", self.inner.ping()).await
    }
    async fn close(&self) -> Result<()> {
        self.through("close", self.inner.close()).await
    }
}

#[async_trait]
impl<B: BlobBackend + ?Sized> BlobBackend for Faulty<B> {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }
    fn capabilities(&self) -> &BlobCapabilities {
        self.inner.capabilities()
    }
    async fn create_container(&self) -> Result<bool> {
        self.through("create_container", self.inner.create_container()).await
    }
    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        self.through("put", self.inner.put(path, body, options)).await
    }
    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        let fault = self.next("get");
        let read = self.meet(fault, self.inner.get(path, options)).await?;
        let (meta, range) = (read.meta.clone(), read.range.clone());
        // In pieces of a few bytes, as a network gives them.
        let pieces = read.into_stream().flat_map(|piece| {
            let pieces = piece.map(|piece| piece.chunks(4).map(bytes::Bytes::copy_from_slice).collect::<Vec<_>>());
            match pieces {
                Ok(pieces) => futures::stream::iter(pieces).map(Ok).boxed(),
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            }
        });
        Ok(BlobRead { meta, range, content: BlobContent::Stream(cut(fault, pieces.boxed())) })
    }
    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.through("head", self.inner.head(path)).await
    }
    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.through("delete", self.inner.delete(path, if_match)).await
    }
    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        self.through("copy", self.inner.copy(from, to, mode)).await
    }
    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        let entries = self.inner.list(options);
        match self.next("list") {
            Fault::Before(kind) => futures::stream::once(async move { Err(Error::new(kind, "injected")) }).boxed(),
            fault => cut(fault, entries),
        }
    }
    fn uri(&self, path: &BlobPath) -> String {
        self.inner.uri(path)
    }
    async fn signed_url(&self, path: &BlobPath, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        self.through("signed_url", self.inner.signed_url(path, access, expires_in)).await
    }
    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        self.inner.storage_options(engine)
    }

    fn engine_uri(&self, path: &BlobPath, engine: Engine) -> Result<String> {
        self.inner.engine_uri(path, engine)
    }
    async fn ping(&self) -> Result<()> {
        self.through("ping", self.inner.ping()).await
    }
    async fn close(&self) -> Result<()> {
        self.through("close", self.inner.close()).await
    }
}
