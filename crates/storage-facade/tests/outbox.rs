//! Records in one backend, queues in another, by configuration: batches send messages all the same.
#![cfg(all(feature = "memory", feature = "sqlite", feature = "fs"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use serde_json::json;
use storage_core::outbox::{ID_ATTRIBUTE, OutboxState};
use storage_core::{Batch, ErrorKind, Expect, NewMessage, QueueName, Receive, RecordStore, TableName, TableSchema, fields};
use storage_facade::Storage;

fn orders() -> TableName {
    "orders".parse().unwrap()
}

fn mail() -> QueueName {
    "mail".parse().unwrap()
}

async fn with_orders(storage: &Storage) -> RecordStore {
    let records = storage.records().await.unwrap();
    records.create_table(&TableSchema::builder("orders").keep_undeclared().build().unwrap()).await.unwrap();
    records
}

fn order(n: u32) -> Batch {
    let message = NewMessage::new(format!("order {n}")).attribute("n", n.to_string());
    Batch::new().put(&orders(), i64::from(n).to_string(), fields(json!({"n": n})), Expect::Absent).enqueue(&mail(), message)
}

/// A batch sends its message and one that fails does not; a transaction does as well.
async fn batches_send(storage: &Storage) {
    let (records, queues) = (with_orders(storage).await, storage.queues().await.unwrap());
    queues.create_queue(&mail(), &queues.default_spec()).await.unwrap();
    records.commit(order(1)).await.unwrap();
    assert_eq!(records.commit(order(1)).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    records
        .transaction(async |tx| {
            let seen = tx.get(&orders(), "1").await?.expect("order 1");
            tx.put(&orders(), "2", fields(json!({"after": seen.fields["n"]}))).await?;
            tx.enqueue(&mail(), NewMessage::new("order 2"))
        })
        .await
        .unwrap();
    let request = Receive::up_to(10).wait(Duration::from_secs(20));
    let mut bodies = Vec::new();
    while bodies.len() < 2 {
        for delivery in queues.receive(&mail(), &request).await.unwrap() {
            assert!(delivery.message.attributes.contains_key(ID_ATTRIBUTE));
            bodies.push(String::from_utf8(delivery.message.body.to_vec()).unwrap());
            queues.delete(&mail(), &delivery.receipt).await.unwrap();
        }
    }
    assert_eq!(bodies, ["order 1", "order 2"]);
    assert!(queues.receive(&mail(), &Receive::default()).await.unwrap().is_empty());
    let outbox = storage.outbox().await.unwrap().expect("two backends");
    assert_eq!(outbox.count(OutboxState::All).await.unwrap(), 0);
    queues.delete_queue(&mail()).await.unwrap();
}

fn builder(records: &str, queue: &str) -> storage_facade::StorageBuilder {
    Storage::builder().no_file().no_env().set("records", records).set("task_queue", queue)
}

#[tokio::test]
async fn two_backends_are_joined_by_an_outbox() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (sqlite, files) = (format!("sqlite:///{}", path("app.db")), format!("file://{}", path("queue")));
    let storage = builder(&sqlite, &files).open().await.unwrap();
    batches_send(&storage).await;
    storage.close().await.unwrap();
    // Two files of one kind are two backends as well.
    let storage = builder(&sqlite.replace("app", "other"), &sqlite.replace("app", "queue")).open().await.unwrap();
    batches_send(&storage).await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn one_backend_needs_none_and_a_bucket_can_have_none() {
    let storage = Storage::builder().no_file().no_env().url("memory:").open().await.unwrap();
    assert!(storage.outbox().await.unwrap().is_none());
    let records = with_orders(&storage).await;
    storage.queues().await.unwrap().create_queue(&mail(), &Default::default()).await.unwrap();
    records.commit(order(1)).await.unwrap();
    assert_eq!(records.backend().tables().await.unwrap().len(), 1, "no table for it");
}

#[tokio::test]
async fn a_message_waits_where_the_queue_can_not_be_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let records = format!("sqlite:///{}", path("app.db"));
    let queue = json!({"url": format!("file://{}", path("not-mounted")), "auto_create": false});
    let plan =
        || Storage::builder().no_file().no_env().set("records", &*records).set("task_queue", queue.clone()).plan().unwrap();
    let storage = plan();
    let store = with_orders(&storage).await;
    store.commit(order(1)).await.unwrap();
    storage.queues().await.expect_err("the folder is not there");
    let outbox = storage.outbox().await.unwrap().unwrap();
    let waiting = outbox.list(OutboxState::Waiting, 10, None).await.unwrap().entries;
    assert_eq!((waiting.len(), waiting[0].queue.as_str(), waiting[0].bytes), (1, "mail", "order 1".len()));
    storage.close().await.unwrap();

    // It is mounted, and another process starts.
    let there =
        Storage::builder().no_file().no_env().set("task_queue", format!("file://{}", path("not-mounted"))).open().await.unwrap();
    there.queues().await.unwrap().create_queue(&mail(), &Default::default()).await.unwrap();
    let storage = plan();
    assert_eq!(storage.outbox().await.unwrap().unwrap().drain().await.unwrap().sent, 1);
    let received = storage.queues().await.unwrap().receive(&mail(), &Receive::default()).await.unwrap();
    assert_eq!(received[0].message.body, "order 1");
    storage.close().await.unwrap();
    there.close().await.unwrap();
}

/// The usual pair: PostgreSQL and RabbitMQ, which has no dedup ids.
#[cfg(all(feature = "postgres", feature = "amqp"))]
#[tokio::test]
async fn postgres_and_rabbitmq_are_joined_by_an_outbox() {
    let server = |variable: &str| {
        std::env::var(variable).map_err(|_| format!("no server: `cargo xtask test` starts it, or set {variable}"))
    };
    let both = server("XTASK_TEST_POSTGRES").and_then(|postgres| Ok((postgres, server("XTASK_TEST_RABBITMQ")?)));
    let (postgres, rabbitmq) = match both {
        Ok(both) => both,
        Err(reason) => return storage_conformance::skip(&reason),
    };
    let own = uuid::Uuid::now_v7().simple().to_string();
    let joint = if postgres.contains('?') { '&' } else { '?' };
    let storage =
        builder(&format!("{postgres}{joint}schema=outbox_{own}"), &format!("{}?prefix={own}.", rabbitmq.trim_end_matches('/')))
            .open()
            .await
            .unwrap();
    batches_send(&storage).await;
    storage.close().await.unwrap();
}
