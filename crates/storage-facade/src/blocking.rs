//! The same stores for programs without async: every call waits for its answer.
//!
//! ```
//! use storage_facade::{blocking, Storage};
//! use storage_core::NewMessage;
//!
//! let storage = blocking::Storage::open_with(Storage::builder().no_file().no_env().url("memory:"))?;
//! let mail = "mail".parse()?;
//! let queues = storage.queues()?;
//! queues.create_queue(&mail, &Default::default())?;
//! queues.send(&mail, NewMessage::new("hello"))?;
//! assert_eq!(queues.receive(&mail, &Default::default())?.len(), 1);
//! # Ok::<(), storage_core::Error>(())
//! ```

use std::path::Path;
use std::sync::Arc;

use storage_core::{
    Batch, BlobBody, BlobMeta, BlobPath, BlobStore, ByteRange, Delivery, Error, Expect, Fields, Key, Message, MessageUpdate,
    NewMessage, Page, PutOptions, Query, QueueName, QueueSpec, QueueStats, QueueStore, Receipt, Receive, Record, RecordStore,
    Result, SchemaChange, Sent, TableName, TableSchema, TransferOptions, TransferReport, Version,
};
use tokio::runtime::Runtime;

use crate::StorageBuilder;

/// [`Storage`](crate::Storage) without async.
#[derive(Clone, Debug)]
pub struct Storage(Blocking<crate::Storage>);

/// A store whose calls wait for their answers. Cheap to clone; clones share one runtime of two threads.
#[derive(Clone, Debug)]
pub struct Blocking<T> {
    runtime: Arc<Threads>,
    inner: T,
}

/// The runtime, dropped without waiting for its threads: tokio panics where that is done within async code.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl<T> Blocking<T> {
    /// Runs async code with the store and waits for it: for whatever has no method of its own here.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) where this thread runs async code already: waiting here would stop it. Those of the code.
    pub fn run<R>(&self, work: impl AsyncFnOnce(&T) -> Result<R>) -> Result<R> {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(Error::invalid("a blocking call from async code: use the async store there"));
        }
        let runtime = self.runtime.0.as_ref().ok_or_else(|| Error::internal("the blocking API has no runtime"))?;
        runtime.block_on(work(&self.inner))
    }

    /// The async store itself.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    fn with<U>(&self, inner: U) -> Blocking<U> {
        Blocking { runtime: Arc::clone(&self.runtime), inner }
    }
}

impl Storage {
    /// See [`Storage::open`](crate::Storage::open).
    ///
    /// # Errors
    /// See [`StorageBuilder::open`].
    pub fn open() -> Result<Self> {
        Self::open_with(crate::Storage::builder())
    }

    /// Opens what a builder says.
    ///
    /// # Errors
    /// See [`StorageBuilder::open`].
    pub fn open_with(builder: StorageBuilder) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("storage").enable_all().build();
        let runtime = runtime.map_err(|e| Error::internal("can't start threads for the blocking API").with_source(e))?;
        let runtime = Arc::new(Threads(Some(runtime)));
        let opening = Blocking { runtime: Arc::clone(&runtime), inner: () };
        let inner = opening.run(async |()| builder.open().await)?;
        Ok(Self(Blocking { runtime, inner }))
    }

    /// The program's own tables.
    ///
    /// # Errors
    /// See [`Storage::records`](crate::Storage::records).
    pub fn records(&self) -> Result<Blocking<RecordStore>> {
        Ok(self.0.with(self.0.run(async |storage| storage.records().await)?))
    }

    /// The queues.
    ///
    /// # Errors
    /// See [`Storage::queues`](crate::Storage::queues).
    pub fn queues(&self) -> Result<Blocking<QueueStore>> {
        Ok(self.0.with(self.0.run(async |storage| storage.queues().await)?))
    }

    /// The blobs.
    ///
    /// # Errors
    /// See [`Storage::blobs`](crate::Storage::blobs).
    pub fn blobs(&self) -> Result<Blocking<BlobStore>> {
        Ok(self.0.with(self.0.run(async |storage| storage.blobs().await)?))
    }

    /// Runs async code with the whole storage and waits for it.
    ///
    /// # Errors
    /// See [`Blocking::run`].
    pub fn run<R>(&self, work: impl AsyncFnOnce(&crate::Storage) -> Result<R>) -> Result<R> {
        self.0.run(work)
    }

    /// Closes every backend that is open.
    ///
    /// # Errors
    /// See [`Storage::close`](crate::Storage::close).
    pub fn close(&self) -> Result<()> {
        self.0.run(async |storage| storage.close().await)
    }
}

/// Methods that only wait for the async one of the same name.
macro_rules! waiting {
    ($store:ident: $($method:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        impl Blocking<$store> {
            $(
                #[doc = concat!("See [`", stringify!($store), "::", stringify!($method), "`].")]
                ///
                /// # Errors
                /// The same, and see [`run`](Self::run).
                pub fn $method(&self, $($argument: $type),*) -> Result<$answer> {
                    self.run(async |store| store.$method($($argument),*).await)
                }
            )+
        }
    };
}

waiting! { RecordStore:
    create_table(schema: &TableSchema) -> bool;
    alter_table(table: &TableName, change: &SchemaChange) -> ();
    drop_table(table: &TableName) -> bool;
    tables() -> Vec<TableSchema>;
    get(table: &TableName, key: impl Into<Key>) -> Option<Record>;
    get_many(table: &TableName, keys: &[Key]) -> Vec<Option<Record>>;
    insert(table: &TableName, key: impl Into<Key>, fields: Fields) -> Version;
    upsert(table: &TableName, key: impl Into<Key>, fields: Fields) -> Version;
    update(table: &TableName, key: impl Into<Key>, fields: Fields, expect: Expect) -> Version;
    delete(table: &TableName, key: impl Into<Key>, expect: Expect) -> bool;
    commit(batch: Batch) -> Vec<Version>;
    scan(query: &Query) -> Page;
    count(query: &Query) -> u64;
    history(table: &TableName, key: impl Into<Key>) -> Vec<Record>;
    backup(to: &Path) -> ();
}

waiting! { QueueStore:
    create_queue(queue: &QueueName, spec: &QueueSpec) -> bool;
    ensure_queue(queue: &QueueName, spec: &QueueSpec) -> ();
    delete_queue(queue: &QueueName) -> bool;
    queues() -> Vec<QueueName>;
    send(queue: &QueueName, message: NewMessage) -> Sent;
    send_all(queue: &QueueName, messages: Vec<NewMessage>) -> Vec<Sent>;
    receive(queue: &QueueName, request: &Receive) -> Vec<Delivery>;
    delete(queue: &QueueName, receipt: &Receipt) -> ();
    update(queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Receipt;
    dead_letter(queue: &QueueName, receipt: &Receipt, reason: &str) -> ();
    redrive(queue: &QueueName, max: u32) -> u64;
    peek(queue: &QueueName, max: u32) -> Vec<Message>;
    stats(queue: &QueueName) -> QueueStats;
    purge(queue: &QueueName) -> u64;
}

waiting! { BlobStore:
    put(path: &BlobPath, body: impl Into<BlobBody>) -> BlobMeta;
    put_with(path: &BlobPath, body: impl Into<BlobBody>, options: &PutOptions) -> BlobMeta;
    put_text(path: &BlobPath, text: &str) -> BlobMeta;
    get_range(path: &BlobPath, range: impl Into<ByteRange>) -> bytes::Bytes;
    get(path: &BlobPath) -> bytes::Bytes;
    get_text(path: &BlobPath) -> String;
    head(path: &BlobPath) -> BlobMeta;
    exists(path: &BlobPath) -> bool;
    delete(path: &BlobPath) -> bool;
    rename(from: &BlobPath, to: &BlobPath) -> BlobMeta;
    upload_file(local: impl AsRef<Path>, path: impl TryInto<BlobPath, Error: Into<Error>>) -> BlobMeta;
    upload_file_with(local: impl AsRef<Path>, path: impl TryInto<BlobPath, Error: Into<Error>>, options: &TransferOptions) -> BlobMeta;
    download_file(path: impl TryInto<BlobPath, Error: Into<Error>>, local: impl AsRef<Path>) -> BlobMeta;
    download_file_with(path: impl TryInto<BlobPath, Error: Into<Error>>, local: impl AsRef<Path>, options: &TransferOptions) -> BlobMeta;
    list_files(path: &str) -> Vec<BlobMeta>;
    delete_file(path: impl TryInto<BlobPath, Error: Into<Error>>) -> bool;
    upload_dir(local: impl AsRef<Path>, prefix: Option<&BlobPath>, options: &TransferOptions) -> TransferReport;
    download_dir(prefix: Option<&BlobPath>, local: impl AsRef<Path>, options: &TransferOptions) -> TransferReport;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_answer_without_async() {
        let storage = Storage::open_with(crate::Storage::builder().no_file().no_env().url("memory:")).unwrap();
        let table = TableName::new("t").unwrap();
        let records = storage.records().unwrap();
        records.create_table(&TableSchema::builder("t").keep_undeclared().build().unwrap()).unwrap();
        records.insert(&table, 1, storage_core::fields(serde_json::json!({"a": 1}))).unwrap_err();
        records.insert(&table, "1", storage_core::fields(serde_json::json!({"a": 1}))).unwrap();
        assert_eq!(records.get(&table, "1").unwrap().unwrap().fields["a"], 1);
        let moved: i64 =
            records.run(async |r| r.transaction(async |tx| Ok(i64::from(tx.delete(&table, "1").await?))).await).unwrap();
        assert_eq!(moved, 1);
        let blobs = storage.blobs().unwrap();
        let path = BlobPath::new("a/b").unwrap();
        blobs.put(&path, "text").unwrap();
        assert_eq!(blobs.get_text(&path).unwrap(), "text");
        storage.close().unwrap();
    }

    #[tokio::test]
    async fn a_blocking_call_from_async_code_is_an_error_not_a_panic() {
        let storage = Storage::open_with(crate::Storage::builder().no_file().no_env());
        assert_eq!(storage.unwrap_err().kind(), storage_core::ErrorKind::InvalidInput);
    }
}
