//! A guarded, faulty store in memory.

use std::sync::Arc;
use std::time::Duration;

use storage_core::{Batch, Expect, Fields, Key, KeyType, QueueSpec, RecordBackend as _, TableName, TableSchema};
use storage_layers::guarded::Guarded;
use storage_layers::observe::Observer;
use storage_layers::policy::{Policy, PolicyBuilder, Retry, Timeouts};
use storage_memory::{MemoryBlobs, MemoryQueue, MemoryRecords, MemoryStore};

use crate::faulty::Faulty;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// 4 tries of 10 seconds each.
pub(crate) fn retrying() -> PolicyBuilder {
    Policy::builder().timeouts(Timeouts::calls(10 * SECOND)).retry(Retry::default())
}

pub(crate) struct World<B> {
    pub(crate) faulty: Arc<Faulty<B>>,
    pub(crate) guarded: Guarded<Faulty<B>>,
}

impl<B> World<B> {
    fn new(inner: B, policy: PolicyBuilder) -> Self {
        let faulty = Faulty::new(Arc::new(inner));
        let guarded = Guarded::new(Arc::clone(&faulty), policy.build().unwrap(), Observer::default());
        Self { faulty, guarded }
    }
}

pub(crate) fn table() -> TableName {
    "t".parse().unwrap()
}

/// With a table `t` that has the record 1.
pub async fn records(policy: PolicyBuilder) -> World<MemoryRecords> {
    let records = MemoryStore::new().records();
    records.create_table(&TableSchema::builder("t").key_of("id", KeyType::Integer).build().unwrap()).await.unwrap();
    records.commit(put(1, Expect::Anything)).await.unwrap();
    World::new(records, policy)
}

pub(crate) fn put(key: i64, expect: Expect) -> Batch {
    Batch::new().put(&table(), Key::from(key), Fields::new(), expect)
}

/// With a queue `q`.
pub async fn queue(policy: PolicyBuilder, spec: QueueSpec) -> World<MemoryQueue> {
    use storage_core::QueueBackend as _;
    let queue = MemoryStore::new().queue();
    queue.create_queue(&"q".parse().unwrap(), &spec).await.unwrap();
    World::new(queue, policy)
}

pub(crate) fn blobs(policy: PolicyBuilder) -> World<MemoryBlobs> {
    World::new(MemoryStore::new().blobs(), policy)
}
