//! What configuration makes of policies: a test driver that fails on demand, over the memory backend.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{Backends, Driver, DriverConfig, NewMessage, OptionSpec, QueueSpec, Result, Surfaces};
use storage_facade::{Registry, Storage, StorageBuilder};
use storage_memory::MemoryDriver;

/// Memory, as if it were behind a network.
#[derive(Debug)]
struct RemoteDriver;

#[async_trait]
impl Driver for RemoteDriver {
    fn name(&self) -> &'static str {
        "remote"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["remote"]
    }

    fn surfaces(&self) -> Surfaces {
        MemoryDriver.surfaces()
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }

    fn is_remote(&self, _: &DriverConfig) -> bool {
        true
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        MemoryDriver.open(config).await
    }
}

fn builder() -> StorageBuilder {
    let mut registry = Registry::default();
    registry.register(Arc::new(RemoteDriver));
    Storage::builder().no_file().no_env().registry(registry)
}

/// The policy that `Debug` shows, if there is one.
async fn shown(storage: &Storage) -> String {
    format!("{:?}", storage.blobs().await.unwrap().backend())
}

#[tokio::test]
async fn remote_backends_are_guarded_and_embedded_ones_are_not() {
    let remote = shown(&builder().url("remote://x1").open().await.unwrap()).await;
    assert!(remote.contains("Guarded") && remote.contains("retry: Some") && remote.contains("timeouts: Some"), "{remote}");
    let embedded = shown(&builder().url("memory://x1").open().await.unwrap()).await;
    assert!(!embedded.contains("Guarded"), "{embedded}");
    let off = serde_json::json!({"url": "remote://x2", "retry": false, "timeouts": false});
    let off = shown(&builder().set("blobs", off).open().await.unwrap()).await;
    assert!(!off.contains("Guarded"), "{off}");
    let asked = serde_json::json!({"url": "memory://x3", "retry": {"attempts": 7}});
    let asked = shown(&builder().set("blobs", asked).open().await.unwrap()).await;
    assert!(asked.contains("attempts: 7") && asked.contains("timeouts: Some"), "{asked}");
}

/// A task's row, event and message are one batch still, through the guards of three components.
#[tokio::test]
async fn guarded_components_of_one_store_share_its_batches() {
    let storage = builder().url("remote://shared").observed().open().await.unwrap();
    let tasks = storage.tasks().await.unwrap();
    assert!(tasks.is_one_batch());
    tasks.submit("greet", "world", Default::default()).await.unwrap();
    let queues = storage.queues().await.unwrap();
    let q = "q".parse().unwrap();
    queues.create_queue(&q, &QueueSpec::default()).await.unwrap();
    let batch = storage_core::Batch::new().enqueue(&q, NewMessage::new("a"));
    storage.records().await.unwrap().commit(batch).await.unwrap();
    assert_eq!(queues.stats(&q).await.unwrap().ready.value(), Some(1));
    storage.close().await.unwrap();
}

#[tokio::test]
async fn components_with_one_url_may_have_policies_of_their_own() {
    let component = |attempts| serde_json::json!({"url": "memory://own", "retry": {"attempts": attempts}});
    let storage = builder().set("records", component(2)).set("event_storage", component(3)).open().await.unwrap();
    let events = storage.records_of(storage_facade::Component::EventStorage).await.unwrap();
    assert!(format!("{:?}", storage.records().await.unwrap().backend()).contains("attempts: 2"));
    assert!(format!("{:?}", events.backend()).contains("attempts: 3"));
    storage.close().await.unwrap();
}
