//! [`Outbox`]: messages within batches where records and queues are different backends.
//!
//! A batch can't reach two services. So a message within it is written as one more record, in a table of its own, in that very batch, and is sent
//! once the batch has taken effect: at once by whoever committed, and where that does not work, or the process ends, by a relay. Any number of relays may
//! run, in any number of processes.
//!
//! ```
//! # use std::sync::Arc;
//! use storage_core::{Batch, Expect, NewMessage, QueueStore, RecordBackend, RecordStore, fields};
//! use storage_core::outbox::{Outbox, OutboxOptions};
//! use serde_json::json;
//!
//! # async fn example(records: Arc<dyn RecordBackend>, queues: QueueStore) -> storage_core::Result<()> {
//! let outbox = Outbox::new(records, queues, OutboxOptions::default())?;
//! let records = RecordStore::new(Arc::new(outbox.clone()));
//! let (orders, mail) = ("orders".parse()?, "mail".parse()?);
//! let batch = Batch::new().put(&orders, 17, fields(json!({"paid": true})), Expect::Present).enqueue(&mail, NewMessage::new("thank you"));
//! records.commit(batch).await?; // both, or neither
//! # Ok(()) }
//! ```
//!
//! # What is promised
//!
//! - A message of a batch that took effect is sent, **at least once**. One of a batch that did not is never sent.
//! - A message that is sent again (its relay ended between sending and noting that) has the same dedup id: its own, or else the id of its row. A queue with
//!   [`dedup`](crate::QueueCapabilities::dedup) drops the second one within its window. On any queue the attribute [`ID_ATTRIBUTE`] says which message
//!   it is, so that a consumer can tell.
//! - Messages leave in the order of their commits, roughly: one that had to wait comes late.
//! - Delay and time to live count from the commit, however late the message leaves.
//! - What the queue can't take is refused by the commit, as far as can be known then: the queue is asked for what it offers and whether it is there. Where it
//!   can't be asked, the commit goes through. A message that is refused later is tried again, ever more rarely, and then **set aside** with the
//!   reason: it is never dropped, and keeps nothing from being sent. [`Outbox::retry`] and [`Outbox::remove`] are for whoever looks after it.

mod admin;
mod relay;
mod row;
mod send;
mod source;

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use self::relay::Background;
use self::row::{Row, schema};
use self::send::{Item, Outage};
use self::source::Source;
use crate::message::MAX_DURATION;
use crate::{
    Atomicity, BackendInfo, Batch, Clock, Error, ErrorKind, Expect, Key, NewMessage, Page, Query, QueueName, QueueStore, Record,
    RecordBackend, RecordCapabilities, RecordStore, Result, SchemaChange, TableName, TableSchema, Version, Write,
};

pub use self::admin::{OutboxEntry, OutboxPage, OutboxState};
pub use self::relay::Relayed;

/// The table, where the options name no other.
pub const TABLE: &str = "storage_outbox";

/// The attribute that tells messages of an outbox apart: one that was sent twice has the same value both times.
pub const ID_ATTRIBUTE: &str = "outbox-id";

/// How many queues are remembered to be there.
const MAX_KNOWN: usize = 10_000;

/// How an [`Outbox`] works.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    /// The table of its rows: the same for all processes. It is created when the first message is written.
    pub table: TableName,
    /// Where the time comes from.
    pub clock: Clock,
    /// How long a commit waits for its messages to be sent. Then it answers, and they are a relay's.
    pub patience: Duration,
    /// How long a relay has for what it took. Then another one takes it.
    pub lease: Duration,
    /// How long a relay waits between looks that found nothing.
    pub poll: Duration,
    /// A message that its queue has refused so often is set aside.
    pub max_refusals: u32,
    /// How soon a message that could not be sent is tried again, at first.
    pub retry_first: Duration,
    /// How soon at the latest.
    pub retry_longest: Duration,
    /// A relay runs in this process from the first message on until [`close`](RecordBackend::close).
    pub background: bool,
}

impl Default for OutboxOptions {
    /// Table `storage_outbox`, the system's clock, 5 seconds of patience, a lease of 30 seconds, a look per second, set aside after 10 refusals, tried again
    /// after 1 second to 5 minutes, with a relay in the background.
    fn default() -> Self {
        Self {
            table: default_table(),
            clock: Clock::system(),
            patience: Duration::from_secs(5),
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            max_refusals: 10,
            retry_first: Duration::from_secs(1),
            retry_longest: Duration::from_secs(300),
            background: true,
        }
    }
}

#[expect(clippy::expect_used, reason = "a literal that is a good name")]
fn default_table() -> TableName {
    TableName::new(TABLE).expect("a good name")
}

impl OutboxOptions {
    fn check(&self) -> Result<()> {
        for (name, duration) in [("lease", self.lease), ("poll", self.poll), ("retry_first", self.retry_first)] {
            if duration.is_zero() {
                return Err(Error::invalid(format!("an outbox with a {name} of zero would never rest")));
            }
        }
        if [self.patience, self.lease, self.poll, self.retry_first, self.retry_longest].iter().any(|d| *d > MAX_DURATION) {
            return Err(Error::invalid("an outbox's times are 366 days at most"));
        }
        Ok(())
    }
}

/// Records whose batches may send messages to queues elsewhere. A handle: clones are the same outbox.
///
/// It is a [`RecordBackend`] in front of another, to be held by a [`RecordStore`]; see the [module](self) for what it promises.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn RecordBackend>,
    /// The same, for the outbox's own table.
    rows: RecordStore,
    schema: TableSchema,
    capabilities: RecordCapabilities,
    queue: Source,
    options: OutboxOptions,
    /// Queues that are known to be there.
    known: Mutex<HashSet<QueueName>>,
    has_table: AtomicBool,
    outage: Outage,
    background: Mutex<Option<Background>>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("records", &self.inner.backend).field("queue", &self.inner.queue).finish_non_exhaustive()
    }
}

impl Outbox {
    /// An outbox in front of `records`, whose batches may send to `queue`.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where batches of `records` reach less than the [store](Atomicity::Store): the message's row would not be in
    /// the batch. [`InvalidInput`](ErrorKind::InvalidInput) for bad options.
    pub fn new(records: Arc<dyn RecordBackend>, queue: QueueStore, options: OutboxOptions) -> Result<Self> {
        Self::with_source(records, Source::opened(queue), options)
    }

    /// The same with a queue that is opened when it is first needed, and again where that failed: records can then be used, and messages written, while the
    /// queue's server is away.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn lazy<F>(
        records: Arc<dyn RecordBackend>,
        open: impl Fn() -> F + Send + Sync + 'static,
        options: OutboxOptions,
    ) -> Result<Self>
    where
        F: Future<Output = Result<QueueStore>> + Send + 'static,
    {
        Self::with_source(records, Source::lazy(open), options)
    }

    fn with_source(backend: Arc<dyn RecordBackend>, queue: Source, options: OutboxOptions) -> Result<Self> {
        options.check()?;
        let mut capabilities = backend.capabilities().clone();
        if capabilities.atomic < Atomicity::Store {
            return Err(Error::unsupported(format!(
                "an outbox writes a message as a record of another table in the same batch, and batches reach over one {:?} here: keep these records on \
                 another backend, or send after the commit",
                capabilities.atomic
            ))
            .with_backend(backend.info()));
        }
        capabilities.enqueue = true;
        let inner = Inner {
            rows: RecordStore::new(Arc::clone(&backend)),
            schema: schema(&options.table)?,
            backend,
            capabilities,
            queue,
            options,
            known: Mutex::default(),
            has_table: AtomicBool::new(false),
            outage: Outage::default(),
            background: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How it was opened.
    #[must_use]
    pub fn options(&self) -> &OutboxOptions {
        &self.inner.options
    }

    /// Ends the relay in the background, once what it has in hand is done. [`close`](RecordBackend::close) does so, too, and closes the records.
    pub async fn stop(&self) {
        let background = self.inner.background.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(background) = background {
            background.stop(self.inner.options.patience).await;
        }
    }

    /// Writes a batch with messages.
    async fn commit_and_send(&self, batch: Batch) -> Result<Vec<Version>> {
        let inner = &*self.inner;
        let sends_now = inner.outage.is_over();
        let queue = match sends_now {
            true => inner.open_queue().await,
            false => inner.queue.get(),
        };
        if let Some(queue) = &queue
            && queue.info() == inner.backend.info()
            && inner.backend.capabilities().enqueue
        {
            return inner.backend.commit(batch).await;
        }
        let (batch, items) = inner.rewritten(batch, queue.as_ref(), sends_now).await?;
        inner.ensure_table().await?;
        let mut versions = match inner.backend.commit(batch).await {
            Ok(versions) => versions,
            Err(error) => return Err(inner.explain(error, &items)),
        };
        for (index, _) in &items {
            if let Some(version) = versions.get_mut(*index) {
                *version = Version::NONE;
            }
        }
        if inner.options.background {
            self.relay_in_background();
        }
        if let Some(queue) = queue.filter(|_| sends_now) {
            inner.send_now(&queue, items.into_iter().map(|(_, item)| item).collect()).await;
        }
        Ok(versions)
    }
}

impl Inner {
    /// The queue, opened where it is not. `None` where that does not work now.
    async fn open_queue(&self) -> Option<QueueStore> {
        match tokio::time::timeout(self.options.patience, self.queue.open()).await {
            Ok(Ok(queue)) => return Some(queue),
            Ok(Err(error)) => tracing::warn!(%error, "can't open the queue now: messages wait in the outbox"),
            Err(_) => tracing::warn!("the queue does not open in time: messages wait in the outbox"),
        }
        self.outage.note(&self.options);
        None
    }

    /// The batch with a row for each message, and the messages with their places in it.
    async fn rewritten(&self, batch: Batch, queue: Option<&QueueStore>, sends_now: bool) -> Result<(Batch, Vec<(usize, Item)>)> {
        let mut items = Vec::new();
        let mut writes = Vec::with_capacity(batch.len());
        for (index, write) in batch.writes.into_iter().enumerate() {
            let Write::Enqueue { queue: name, message } = write else {
                writes.push(write);
                continue;
            };
            let write = async {
                self.check(&name, &message, queue).await?;
                let now = self.options.clock.now();
                let item = Item::new(name, message, now)?;
                let claimed = (queue.is_some() && sends_now).then(|| crate::clock::add(now, self.options.patience));
                let fields = self.schema.canonical_record(Row::of(&item, now, claimed).to_fields()?)?;
                self.check_size(&fields)?;
                Ok::<_, Error>((item, fields))
            };
            let (item, fields) = write.await.map_err(|error| error.with_failed_write(index))?;
            let key = Key::from(item.id.as_str());
            writes.push(Write::Put { table: self.options.table.clone(), key, fields, expect: Expect::Absent, expires_at: None });
            items.push((index, item));
        }
        Ok((writes.into(), items))
    }

    /// Refuses what the queue would refuse, as far as can be known now.
    async fn check(&self, name: &QueueName, message: &NewMessage, queue: Option<&QueueStore>) -> Result<()> {
        let Some(queue) = queue else { return Ok(()) };
        queue.check_message(message)?;
        if self.known().contains(name) {
            return Ok(());
        }
        let asked = tokio::time::timeout(self.options.patience, queue.queue_spec(name)).await;
        match asked {
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Err(error),
            Ok(Ok(_)) => {
                let mut known = self.known();
                if known.len() >= MAX_KNOWN {
                    known.clear();
                }
                known.insert(name.clone());
                Ok(())
            }
            // It does not say: the relay will see.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<QueueName>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_size(&self, fields: &crate::Fields) -> Result<()> {
        let (len, max) = (crate::record_store::json_len(fields)?, self.capabilities.max_record_bytes);
        if len > max {
            return Err(Error::invalid(format!(
                "the message has {len} bytes as a record of the outbox, {max} at most on this backend: put large data into a blob and send its path"
            )));
        }
        Ok(())
    }

    async fn ensure_table(&self) -> Result<()> {
        if !self.has_table.load(Ordering::Acquire) {
            self.rows.create_table(&self.schema).await?;
            self.has_table.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Says of an error that it is about a message's row; a table that was dropped is made again by the next commit.
    fn explain(&self, error: Error, items: &[(usize, Item)]) -> Error {
        if error.failed_write().is_some_and(|failed| items.iter().any(|(index, _)| *index == failed)) {
            self.has_table.store(false, Ordering::Release);
            return error.with_subject(format!("table `{}`, where messages wait", self.options.table));
        }
        error
    }
}

#[async_trait]
impl RecordBackend for Outbox {
    fn info(&self) -> &BackendInfo {
        self.inner.backend.info()
    }

    fn capabilities(&self) -> &RecordCapabilities {
        &self.inner.capabilities
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.inner.backend.create_table(schema).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.inner.backend.alter_table(table, change).await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.inner.backend.drop_table(table).await
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.inner.backend.tables().await
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.inner.backend.get(table, keys).await
    }

    async fn get_stale(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.inner.backend.get_stale(table, keys).await
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        self.inner.backend.scan(query).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.inner.backend.count(query).await
    }

    async fn sweep(&self, query: &Query) -> Result<u64> {
        self.inner.backend.sweep(query).await
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        match batch.enqueues() {
            true => self.commit_and_send(batch).await,
            false => self.inner.backend.commit(batch).await,
        }
    }

    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        self.inner.backend.history(table, key).await
    }

    async fn backup(&self, to: &Path) -> Result<()> {
        self.inner.backend.backup(to).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.backend.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.stop().await;
        self.inner.backend.close().await
    }
}
