//! The traits that a backend implements.
//!
//! They are small on purpose: no retries, no conveniences. Whatever can be written once stands in the stores
//! ([`RecordStore`](crate::RecordStore), [`QueueStore`](crate::QueueStore), [`BlobStore`](crate::BlobStore)), which also check and canonicalize all input, so that
//! a backend is given good names, canonical values and requests within its declared capabilities.
//!
//! Stores also say of an error which operation failed, on what and on which backend, so that a backend says only what went wrong, and a closer
//! subject where it knows one.
//!
//! Every method must be safe to cancel: a dropped future leaves the store as if the call had either happened or not, and holds no
//! lock, transaction or connection.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::batch::Batch;
use crate::blob::{
    BlobBody, BlobEntry, BlobMeta, BlobPath, BlobRead, ETag, GetOptions, ListOptions, PutMode, PutOptions, SignedAccess,
};
use crate::capability::{BackendInfo, BlobCapabilities, QueueCapabilities, RecordCapabilities, require};
use crate::foreign::ForeignTasks;
use crate::message::{Delivery, Message, MessageUpdate, NewMessage, QueueSpec, QueueStats, Receipt, Receive, Sent};
use crate::{Engine, Error, Key, Page, Query, QueueName, Record, Result, SchemaChange, Secret, TableName, TableSchema, Version};

/// Records in tables.
///
/// Missing tables are [`NotFound`](crate::ErrorKind::NotFound) everywhere, but for `drop_table`.
#[async_trait]
pub trait RecordBackend: Debug + Send + Sync + 'static {
    /// Which backend this is.
    fn info(&self) -> &BackendInfo;

    /// What it can do.
    fn capabilities(&self) -> &RecordCapabilities;

    /// Creates a table. `false`: it was there with the same schema. One that was there with another is
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) (letter case does not distinguish tables).
    async fn create_table(&self, schema: &TableSchema) -> Result<bool>;

    /// Changes a table and keeps its records: wholly or not at all. To be written where [`alter`](RecordCapabilities::alter) is declared.
    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        let _ = (table, change);
        require(false, self.info(), "changes of a table")
    }

    /// Removes a table with its records and their history. `false`: there was none.
    async fn drop_table(&self, table: &TableName) -> Result<bool>;

    /// All tables, by name.
    async fn tables(&self) -> Result<Vec<TableSchema>>;

    /// The records with these keys, in the keys' order: all as of one moment, so that none of them shows half of a batch. Where batches reach no
    /// further than one record ([`Atomicity::Record`](crate::Atomicity::Record)), each is as of a moment of its own during the call.
    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>>;

    /// The same, but the answer may be of a while ago, as that of any [`Query::stale`] may: still of one moment, and never older than what a replica, which
    /// follows as fast as it can, has. To be written where there is such a replica to ask.
    async fn get_stale(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.get(table, keys).await
    }

    /// One page. `query` is canonical.
    async fn scan(&self, query: &Query) -> Result<Page>;

    /// How many records match `query`'s filter; its order, limit and token don't count.
    async fn count(&self, query: &Query) -> Result<u64>;

    /// Frees what expired records take up, of those that match `query`'s filter at least, where the backend does not do so by itself. Answers how many were
    /// freed here.
    async fn sweep(&self, query: &Query) -> Result<u64> {
        let _ = query;
        Ok(0)
    }

    /// Does all writes in order, or none. Answers each with the version that is there afterwards (after a delete: that was there before),
    /// [`Version::NONE`] where there is no record. An error names the failed write.
    async fn commit(&self, batch: Batch) -> Result<Vec<Version>>;

    /// The kept versions of a record, newest first. To be written where [`history`](RecordCapabilities::history) is declared.
    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        let _ = (table, key);
        require(false, self.info(), "record history").map(|()| Vec::new())
    }

    /// Writes a consistent copy of the whole store to `to`, which must not exist, while others go on writing. To be written where
    /// [`backup`](RecordCapabilities::backup) is declared.
    async fn backup(&self, to: &Path) -> Result<()> {
        let _ = to;
        require(false, self.info(), "backups")
    }

    /// Asks for a sign of life.
    async fn ping(&self) -> Result<()>;

    /// Finishes what is under way and lets go of everything. Later calls may fail with [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn close(&self) -> Result<()>;
}

/// Queues of messages.
///
/// Missing queues are [`NotFound`](crate::ErrorKind::NotFound) everywhere, but for `delete_queue`. Where [`dead_letter`](QueueCapabilities::dead_letter) is
/// declared, each queue `q` has a companion `q-dead` ([`QueueName::dead_letter`]) that comes and goes with it: it takes part in everything but
/// `create_queue`, `delete_queue`, `send` and `queues`, its messages have neither cap nor time to live.
///
/// A message keeps its place in the order of sending, also when it comes back, is dead-lettered or redriven. What is due has happened, as far as any
/// answer tells: no count, look or purge takes a message for leased, ready or alive that is no longer.
#[async_trait]
pub trait QueueBackend: Debug + Send + Sync + 'static {
    /// Which backend this is.
    fn info(&self) -> &BackendInfo;

    /// What it can do.
    fn capabilities(&self) -> &QueueCapabilities;

    /// Creates a queue; without a delivery cap, where dead letters are not declared. `false`: it was there with the same spec; with another: [`AlreadyExists`](crate::ErrorKind::AlreadyExists).
    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool>;

    /// Removes a queue with its messages and dead letters. `false`: there was none.
    async fn delete_queue(&self, queue: &QueueName) -> Result<bool>;

    /// All queues but the dead-letter companions, by name.
    async fn queues(&self) -> Result<Vec<QueueName>>;

    /// How the queue was created. For a dead-letter companion: no cap.
    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec>;

    /// Sends all messages or none, in order. Where [`atomic_send`](QueueCapabilities::atomic_send) is not declared, a call that the service did not answer
    /// may have sent some of them: a message that can't be accepted keeps all of them back all the same.
    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>>;

    /// Leases messages: higher priorities first, then the oldest. Waits for the first one as long as asked; cancelled meanwhile, it leaves at most
    /// a lease that runs out. May answer fewer than asked for although more are there.
    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>>;

    /// Removes messages for good, each on its own: `Ok` where it was removed or was gone already, [`LeaseLost`](crate::ErrorKind::LeaseLost) where the
    /// receipt is not the message's newest (also after it became a dead letter).
    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>>;

    /// Changes a leased message and answers with its new receipt. [`LeaseLost`](crate::ErrorKind::LeaseLost) for a stale receipt and for a message that is gone.
    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt>;

    /// Makes a leased message a dead letter, for `reason`. [`LeaseLost`](crate::ErrorKind::LeaseLost) as for `update`. To be written, as
    /// `redrive`, where [`dead_letter`](QueueCapabilities::dead_letter) is declared.
    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        let _ = (queue, receipt, reason);
        require(false, self.info(), "dead letters")
    }

    /// Sends up to `max` dead letters of `queue` home, oldest first: no longer dead attributes, no deliveries, no time to live, same id. Those that
    /// somebody has leased stay. Answers how many, which may be fewer although more are there: 0 alone says that there are no more.
    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        let _ = (queue, max);
        require(false, self.info(), "dead letters").map(|()| 0)
    }

    /// Looks at up to `max` ready messages in the order in which they would be received, without taking them. To be written where
    /// [`peek`](QueueCapabilities::peek) is declared.
    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        let _ = (queue, max);
        require(false, self.info(), "a look at messages without taking them").map(|()| Vec::new())
    }

    /// How full the queue is.
    async fn stats(&self, queue: &QueueName) -> Result<QueueStats>;

    /// Removes all messages, leased and delayed ones too, not the dead letters. Answers how many.
    async fn purge(&self, queue: &QueueName) -> Result<u64>;

    /// The tasks of another system, where that is what its messages are.
    fn foreign_tasks(&self) -> Option<Arc<dyn ForeignTasks>> {
        None
    }

    /// Asks for a sign of life.
    async fn ping(&self) -> Result<()>;

    /// Finishes what is under way and lets go of everything. Waiting receives end empty.
    async fn close(&self) -> Result<()>;
}

/// Blobs in one container: a bucket, or a file system root.
///
/// Missing blobs are [`NotFound`](crate::ErrorKind::NotFound) for `get`, `head` and `copy`.
#[async_trait]
pub trait BlobBackend: Debug + Send + Sync + 'static {
    /// Which backend this is.
    fn info(&self) -> &BackendInfo;

    /// What it can do.
    fn capabilities(&self) -> &BlobCapabilities;

    /// Creates the container. `false`: it was there.
    async fn create_container(&self) -> Result<bool>;

    /// Writes a blob wholly or not at all; readers see the old or the new one, never a mixture.
    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta>;

    /// Reads a blob. The bytes are all of one state of it, whoever writes meanwhile, or the stream fails.
    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead>;

    /// Size, mark and attributes.
    async fn head(&self, path: &BlobPath) -> Result<BlobMeta>;

    /// Removes a blob. `false`: there was none. With `if_match`, a blob with another mark, or none, is a [`Conflict`](crate::ErrorKind::Conflict).
    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool>;

    /// Copies a blob within the container, attributes included.
    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta>;

    /// Lists blobs in bytewise order of their paths ([`BlobEntry::sort_key`]). What is written or removed meanwhile may or may not show.
    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>>;

    /// The blob's address for other programs, without credentials: `file:///…`, `s3://…`.
    fn uri(&self, path: &BlobPath) -> String;

    /// A URL that allows whoever has it to read or write the blob for so long. To be written where
    /// [`signed_url`](BlobCapabilities::signed_url) is declared.
    async fn signed_url(&self, path: &BlobPath, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        let _ = (path, access, expires_in);
        Err(Error::unsupported("this backend does not offer signed URLs").with_backend(self.info()))
    }

    /// What an engine needs to open the same data by itself: options by its own names, with secrets; empty where it needs none.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), with the reason, where an engine can't be given what it would need, or can't read what is here.
    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        Err(Error::unsupported(format!("{engine} can't open what is here")).with_backend(self.info()))
    }

    /// The address of a blob, or of a folder, as an engine takes it.
    ///
    /// # Errors
    /// As [`storage_options`](Self::storage_options).
    fn engine_uri(&self, path: &BlobPath, engine: Engine) -> Result<String> {
        self.storage_options(engine).map(|_| self.uri(path))
    }

    /// Asks for a sign of life.
    async fn ping(&self) -> Result<()>;

    /// Finishes what is under way and lets go of everything.
    async fn close(&self) -> Result<()>;
}
