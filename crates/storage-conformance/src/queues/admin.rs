//! Queues themselves: create, list, remove, purge, count.

use std::time::Duration;

use storage_core::{ErrorKind, MessageUpdate, NewMessage, QueueName, QueueSpec, Receipt, Receive};

use super::fixture::{Fixture, LONG, uncapped};
use crate::check::refused;
use crate::opened::Opened;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A queue is created once: again with the same spec it is there already, with another it is `AlreadyExists` and stays as it was.
pub async fn create_is_idempotent(h: &dyn Harness) -> CaseResult {
    let opened = Opened::fresh(h).await?;
    let (store, name): (_, QueueName) = (opened.queues(), "q".parse()?);
    let caps = store.capabilities().dead_letter;
    let spec = QueueSpec::default().max_deliveries(caps.then_some(4)).dedup_window(Duration::from_secs(90));
    assert!(store.create_queue(&name, &spec).await?);
    assert!(!store.create_queue(&name, &spec).await?);
    refused(ErrorKind::AlreadyExists, store.create_queue(&name, &spec.dedup_window(Duration::from_secs(91))).await);
    if caps {
        refused(ErrorKind::AlreadyExists, store.create_queue(&name, &spec.max_deliveries(5)).await);
        refused(ErrorKind::AlreadyExists, store.create_queue(&name, &spec.max_deliveries(None)).await);
    }
    assert_eq!(store.queue_spec(&name).await?, spec);
    store.ensure_queue(&name, &store.default_spec()).await?;
    assert_eq!(store.queue_spec(&name).await?, spec);
    Ok(())
}

/// `queues` lists all, by name.
pub async fn queues_are_listed_by_name(h: &dyn Harness) -> CaseResult {
    let opened = Opened::fresh(h).await?;
    let store = opened.queues();
    assert!(store.queues().await?.is_empty());
    let long = "q".repeat(58);
    let mut names = ["b", "a-1", "a_1", "Z", "_x", "dead", "a-deadline", long.as_str()];
    for name in names {
        assert!(store.create_queue(&name.parse()?, &store.default_spec()).await?);
    }
    names.sort_unstable();
    let found: Vec<String> = store.queues().await?.iter().map(ToString::to_string).collect();
    assert_eq!(found, names);
    refused(ErrorKind::InvalidInput, store.create_queue(&"q".repeat(59).parse()?, &store.default_spec()).await);
    refused(ErrorKind::InvalidInput, store.create_queue(&"ok".parse()?, &QueueSpec::default().max_deliveries(0)).await);
    Ok(())
}

/// A deleted queue is gone with its messages; one of the same name starts empty; receipts of the old one are good for nothing.
pub async fn delete_queue_removes_everything(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send_numbers(3).await?;
    let old = q.take_one(LONG).await?;
    assert!(q.store.delete_queue(&q.name).await?);
    assert!(!q.store.delete_queue(&q.name).await?);
    assert!(q.store.queues().await?.is_empty());
    assert!(q.store.create_queue(&q.name, &uncapped()).await?);
    q.assert_counts(0, 0, 0, 0).await?;
    q.nothing().await?;
    q.send("new").await?;
    drop(q.store.delete(&q.name, &old.receipt).await);
    assert_eq!(&q.take_one(LONG).await?.message.body[..], b"new");
    Ok(())
}

/// What is not there is `NotFound`, in every call.
pub async fn missing_queues_are_not_found(h: &dyn Harness) -> CaseResult {
    let opened = Opened::fresh(h).await?;
    let (store, q): (_, QueueName) = (opened.queues(), "nowhere".parse()?);
    let receipt = Receipt("x".into());
    refused(ErrorKind::NotFound, store.send(&q, NewMessage::new("a")).await);
    refused(ErrorKind::NotFound, store.receive(&q, &Receive::default()).await);
    // Without waiting for a queue that does not come.
    refused(ErrorKind::NotFound, store.receive(&q, &Receive::default().wait(LONG)).await);
    refused(ErrorKind::NotFound, store.delete(&q, &receipt).await);
    refused(ErrorKind::NotFound, store.update(&q, &receipt, &MessageUpdate::visibility(LONG)).await);
    refused(ErrorKind::NotFound, store.stats(&q).await);
    refused(ErrorKind::NotFound, store.purge(&q).await);
    refused(ErrorKind::NotFound, store.queue_spec(&q).await);
    if store.capabilities().dead_letter {
        refused(ErrorKind::NotFound, store.dead_letter(&q, &receipt, "x").await);
        refused(ErrorKind::NotFound, store.redrive(&q, 1).await);
    }
    if store.capabilities().peek {
        refused(ErrorKind::NotFound, store.peek(&q, 1).await);
    }
    assert!(!store.delete_queue(&q).await?);
    Ok(())
}

/// Counts tell ready, delayed and leased messages apart, and follow what becomes of them; `oldest` is the oldest of all.
pub async fn stats_follow_the_messages(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.assert_counts(0, 0, 0, 0).await?;
    assert_eq!(q.stats().await?.oldest, None);
    let delayed = q.capabilities().delay;
    q.send_numbers(4).await?;
    if delayed {
        q.send_message(NewMessage::new("later").delay(LONG)).await?;
    }
    let later = u64::from(delayed);
    q.assert_counts(4, later, 0, 0).await?;
    let taken = q.take(3, LONG).await?;
    q.assert_counts(1, later, 3, 0).await?;
    if let Some(oldest) = q.stats().await?.oldest {
        let earliest = taken.iter().map(|d| d.message.enqueued_at).min().expect("three");
        assert!((oldest - earliest).num_seconds().abs() <= 1, "the oldest is from {earliest}, not {oldest}");
    }
    q.store.delete(&q.name, &taken[0].receipt).await?;
    q.store.update(&q.name, &taken[1].receipt, &MessageUpdate::visibility(Duration::ZERO)).await?;
    q.assert_counts(2, later, 1, 0).await?;
    Ok(())
}

/// A purge removes all messages, leased and delayed ones too, and says how many; their receipts are good for nothing.
pub async fn purge_removes_all(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    assert_eq!(q.store.purge(&q.name).await?, 0);
    q.send_numbers(5).await?;
    let mut sent = 5;
    if q.capabilities().delay {
        q.send_message(NewMessage::new("later").delay(LONG)).await?;
        sent += 1;
    }
    let leased = q.take_one(LONG).await?;
    assert_eq!(q.store.purge(&q.name).await?, sent);
    q.assert_counts(0, 0, 0, 0).await?;
    q.nothing().await?;
    q.store.delete(&q.name, &leased.receipt).await?;
    refused(ErrorKind::LeaseLost, q.store.update(&q.name, &leased.receipt, &MessageUpdate::visibility(Duration::ZERO)).await);
    q.send("after").await?;
    assert_eq!(&q.take_one(LONG).await?.message.body[..], b"after");
    Ok(())
}

/// Queues don't see each other's messages.
pub async fn queues_are_apart(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let others: Vec<QueueName> = ["q1", "q-", "Q-2"].iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    for other in &others {
        q.store.create_queue(other, &uncapped()).await?;
        q.store.send(other, NewMessage::new(other.to_string())).await?;
    }
    q.nothing().await?;
    for other in &others {
        assert_eq!(q.take_from(other, 1, LONG).await?[0].message.body, other.to_string());
        assert!(q.store.receive(other, &Receive::default()).await?.is_empty());
    }
    Ok(())
}
