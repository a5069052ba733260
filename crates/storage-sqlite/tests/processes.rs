//! Several processes on one file. A child process is this very test binary, told by the environment what to do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::process::{Child, Command};
use std::time::Duration;

use common::{Home, Opened, config, increment, schema};
use storage_core::{NewMessage, QueueName, QueueSpec, Receipt, Receive};

const CHILD_FILE: &str = "STORAGE_SQLITE_TEST_FILE";
const ROUNDS: i64 = 100;

fn child(test: &str, home: &Home) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD_FILE, home.path())
        .spawn()
        .unwrap()
}

/// The store that this process is the child for; `None` in the parent.
async fn as_child() -> Option<Opened> {
    let path = std::env::var_os(CHILD_FILE)?;
    Some(Opened::new(&config(path.as_ref())).await.unwrap())
}

fn queue() -> QueueName {
    "q".parse().unwrap()
}

#[tokio::test]
async fn processes_take_turns_and_lose_no_write() {
    if let Some(opened) = as_child().await {
        for _ in 0..ROUNDS {
            increment(&opened.records, "counter").await;
        }
        return opened.close().await;
    }
    let home = Home::new();
    let opened = home.open().await;
    opened.records.create_table(&schema()).await.unwrap();
    let mut children: Vec<Child> = (0..2).map(|_| child("processes_take_turns_and_lose_no_write", &home)).collect();
    for _ in 0..ROUNDS {
        increment(&opened.records, "counter").await;
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(opened.value("counter").await, Some(3 * ROUNDS));
    let history = opened.records.history(&common::table(), "counter").await.unwrap();
    assert_eq!(history.iter().map(|r| r.fields["n"].as_i64().unwrap()).collect::<Vec<_>>(), [3 * ROUNDS, 3 * ROUNDS - 1]);
}

#[tokio::test]
async fn messages_of_another_process_arrive_and_receipts_work_across() {
    if let Some(opened) = as_child().await {
        // Receives what the parent sent, and hands it the receipt.
        let request = Receive::default().wait(Duration::from_secs(60));
        let delivery = opened.queue.receive(&queue(), &request).await.unwrap().remove(0);
        opened.queue.send(&"replies".parse().unwrap(), NewMessage::new(delivery.receipt.0)).await.unwrap();
        return opened.close().await;
    }
    let home = Home::new();
    let opened = home.open().await;
    let replies: QueueName = "replies".parse().unwrap();
    for queue in [&queue(), &replies] {
        opened.queue.create_queue(queue, &QueueSpec::default()).await.unwrap();
    }
    let mut child = child("messages_of_another_process_arrive_and_receipts_work_across", &home);
    let request = Receive::default().wait(Duration::from_secs(60));
    let (work, waiting) = (queue(), opened.queue.receive(&replies, &request));
    let (received, sent) = tokio::join!(waiting, opened.queue.send(&work, NewMessage::new("work")));
    sent.unwrap();
    let reply = received.unwrap().remove(0);
    let receipt = Receipt(String::from_utf8(reply.message.body.to_vec()).unwrap());
    opened.queue.delete(&queue(), &receipt).await.unwrap();
    let stats = opened.queue.stats(&queue()).await.unwrap();
    assert_eq!((stats.leased.value(), stats.ready.value()), (Some(0), Some(0)));
    assert!(child.wait().unwrap().success());
}
