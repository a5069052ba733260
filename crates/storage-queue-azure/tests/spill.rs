//! Bodies that are too large for the service.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use storage_core::{BlobStore, Driver as _, DriverConfig, ErrorKind, MessageUpdate, NewMessage, QueueName, QueueStore, Receive};
use storage_memory::MemoryDriver;

async fn blobs() -> BlobStore {
    BlobStore::new(MemoryDriver.open(&DriverConfig::from_url("memory:")).await.unwrap().blobs.unwrap())
}

async fn paths(blobs: &BlobStore) -> Vec<String> {
    blobs.list_all(None).map_ok(|blob| blob.path.to_string()).try_collect().await.unwrap()
}

fn spilling(url: &str, blobs: &BlobStore) -> QueueStore {
    QueueStore::new(Arc::new(common::backend(url).with_spill(blobs.clone())))
}

/// A large body comes and goes with its message, through death and redrive, and in another process; small ones stay where they are.
#[tokio::test]
async fn large_bodies_go_into_blobs() {
    let Some(address) = common::address_or_skip() else { return };
    let url = common::url(&address, &common::prefix());
    let blobs = blobs().await;
    let (store, other) = (spilling(&url, &blobs), spilling(&url, &blobs));
    let queue: QueueName = "large".parse().unwrap();
    store.create_queue(&queue, &store.default_spec()).await.unwrap();
    let body: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let sent = store.send(&queue, NewMessage::new(body.clone()).attribute("tenant", "acme")).await.unwrap();
    assert_eq!(paths(&blobs).await.len(), 1);
    assert_eq!(store.peek(&queue, 1).await.unwrap()[0].body, body);

    let taken = store.receive(&queue, &Receive::default()).await.unwrap().remove(0);
    assert_eq!((&taken.message.body[..], &taken.message.id), (&body[..], &sent.id));
    let renewed = store.update(&queue, &taken.receipt, &MessageUpdate::visibility(Duration::from_secs(60))).await.unwrap();
    store.dead_letter(&queue, &renewed, "too large for me").await.unwrap();
    assert_eq!(store.peek(&queue.dead_letter().unwrap(), 1).await.unwrap()[0].body, body);
    assert_eq!(store.redrive(&queue, 1).await.unwrap(), 1);

    let taken = store.receive(&queue, &Receive::default()).await.unwrap().remove(0);
    assert_eq!((&taken.message.body[..], &taken.message.id), (&body[..], &sent.id));
    assert_eq!(taken.message.attributes, [("tenant".to_owned(), "acme".to_owned())].into());
    other.delete(&queue, &taken.receipt).await.unwrap();
    assert_eq!(paths(&blobs).await, Vec::<String>::new());

    store.send(&queue, NewMessage::new("small")).await.unwrap();
    assert_eq!(paths(&blobs).await, Vec::<String>::new());
}

/// A body that a change makes large or small takes its blob with it.
#[tokio::test]
async fn changes_move_bodies() {
    let Some(address) = common::address_or_skip() else { return };
    let blobs = blobs().await;
    let store = spilling(&common::url(&address, &common::prefix()), &blobs);
    let queue: QueueName = "large".parse().unwrap();
    store.create_queue(&queue, &store.default_spec()).await.unwrap();
    store.send(&queue, NewMessage::new("small")).await.unwrap();
    let large = vec![7; 100_000];
    let mut receipt = store.receive(&queue, &Receive::default()).await.unwrap().remove(0).receipt;
    for (body, spilled) in [(large.clone(), 1), (b"small".to_vec(), 0), (large, 1)] {
        let change = MessageUpdate::visibility(Duration::ZERO).body(body.clone());
        store.update(&queue, &receipt, &change).await.unwrap();
        assert_eq!(paths(&blobs).await.len(), spilled);
        let taken = store.receive(&queue, &Receive::default().wait(Duration::from_secs(10))).await.unwrap().remove(0);
        assert_eq!(taken.message.body, body);
        receipt = taken.receipt;
    }
    assert!(store.delete_queue(&queue).await.unwrap());
    assert_eq!(paths(&blobs).await, Vec::<String>::new());
}

/// Who has no blobs is told so, and a message whose blob is gone becomes a dead letter that says so, and keeps nobody back.
#[tokio::test]
async fn a_body_that_can_not_be_read_is_told() {
    let Some(address) = common::address_or_skip() else { return };
    let url = common::url(&address, &common::prefix());
    let blobs = blobs().await;
    let store = spilling(&url, &blobs);
    let queue: QueueName = "large".parse().unwrap();
    store.create_queue(&queue, &store.default_spec()).await.unwrap();
    store.send(&queue, NewMessage::new(vec![1; 60_000])).await.unwrap();
    let second = Receive::up_to(10).visibility(Duration::from_secs(1));
    let error = common::open(&url).receive(&queue, &second).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    let path = paths(&blobs).await.remove(0).parse().unwrap();
    blobs.delete(&path).await.unwrap();
    store.send(&queue, NewMessage::new("good")).await.unwrap();
    let mut bodies = Vec::new();
    let dead = queue.dead_letter().unwrap();
    while bodies.is_empty() || store.peek(&dead, 1).await.unwrap().is_empty() {
        let taken = store.receive(&queue, &Receive::up_to(10).wait(Duration::from_secs(2))).await.unwrap();
        bodies.extend(taken.into_iter().map(|delivery| delivery.message.body));
    }
    assert_eq!(bodies, ["good"]);
    let letter = store.peek(&dead, 1).await.unwrap().remove(0);
    assert!(letter.attributes["storage-dead-reason"].contains("gone"), "{letter:?}");
}
