//! What messages hold.

use std::collections::BTreeSet;

use bytes::Bytes;
use storage_core::{ErrorKind, NewMessage};

use super::fixture::{Fixture, LONG, ids};
use crate::check::{refused, refused_at};
use crate::{CaseResult, Flavor, Harness, names};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// Bodies are bytes: not UTF-8, with zeros and line ends, empty; they come back as they are.
pub async fn bodies_are_bytes(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let all: Bytes = (0..=255).collect();
    let bodies = [
        all,
        Bytes::new(),
        Bytes::from_static(b"\xff\xfe\x00\r\n\x1a\x80"),
        Bytes::from_static("ü\u{1F600}".as_bytes()),
        Bytes::from_static(b"{\"a\": 1}"),
    ];
    for body in bodies {
        q.send_message(NewMessage::new(body.clone())).await?;
        let delivery = q.take_one(LONG).await?;
        assert_eq!(delivery.message.body, body);
        q.store.delete(&q.name, &delivery.receipt).await?;
    }
    Ok(())
}

/// Bodies as large as is declared (1 MiB is tried) come back whole; larger ones are refused.
pub async fn large_bodies(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let max = q.capabilities().max_body_bytes;
    let body = crate::blobs::fixture::noise(max.min(1 << 20));
    q.send_message(NewMessage::new(body.clone())).await?;
    assert!(q.take_one(LONG).await?.message.body == body, "another body came back");
    if max <= 128 << 20 {
        refused(ErrorKind::InvalidInput, q.send_message(NewMessage::new(vec![0; max + 1])).await);
        q.assert_counts(0, 0, 1, 0).await?;
    }
    Ok(())
}

/// Attributes and content type come back as they are, whatever characters they have.
pub async fn attributes_come_back(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let mut message = NewMessage::new("a").content_type("application/x; charset=\"ü\"");
    for (n, name) in names::odd().into_iter().enumerate() {
        message = message.attribute(name.clone(), format!("{n} {name}\n\t\u{1}"));
    }
    message = message.attribute("empty", "").attribute("long", "v".repeat(5_000));
    q.send_message(message.clone()).await?;
    q.send("plain").await?;
    let deliveries = q.take(2, LONG).await?;
    for delivery in deliveries {
        if delivery.message.body == "a" {
            assert_eq!(delivery.message.attributes, message.attributes);
            assert_eq!(delivery.message.content_type, message.content_type);
        } else {
            assert!(delivery.message.attributes.is_empty() && delivery.message.content_type.is_none());
        }
    }
    Ok(())
}

/// A message says when it was sent and that it does not expire; ids are of one message each.
pub async fn messages_say_what_they_are(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let before = q.opened.clock.now();
    let mut sent = q.send_numbers(30).await?;
    sent.push(q.send("same").await?);
    sent.push(q.send("same").await?);
    assert_eq!(ids(&sent).len(), 32);
    assert!(sent.iter().all(|s| !s.duplicate && !s.id.0.is_empty()));
    let taken = q.take(32, LONG).await?;
    let received: BTreeSet<String> = taken.iter().map(|d| d.message.id.to_string()).collect();
    assert_eq!(received, ids(&sent));
    for message in taken.iter().map(|d| &d.message) {
        let off = (message.enqueued_at - before).num_seconds().abs();
        assert!(off < 300, "sent at {}, which is {off} s from {before}", message.enqueued_at);
        assert_eq!((message.priority, message.deliveries, message.expires_at), (0, 1, None));
        // In the order of sending, each id belongs to its body.
        let at = sent.iter().position(|s| s.id == message.id).expect("one of them");
        assert!(message.body == at.to_string() || at >= 30, "{at}: {:?}", message.body);
    }
    Ok(())
}

/// A call sends all its messages or none: one that is bad keeps the others back, and is named; also where `atomic_send` is not declared, which is about calls
/// that the service does not answer.
pub async fn a_call_sends_all_or_none(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let bad = [
        NewMessage::new("x").priority(10),
        NewMessage::new("x").dedup_id(""),
        NewMessage::new("x").attribute("storage-dead-reason", "faked"),
        NewMessage::new("x").ttl(std::time::Duration::ZERO),
    ];
    for bad in bad {
        let messages = vec![NewMessage::new("a"), NewMessage::new("b"), bad, NewMessage::new("c")];
        refused_at(2, ErrorKind::InvalidInput, q.store.send_all(&q.name, messages).await);
    }
    q.nothing().await?;
    q.assert_counts(0, 0, 0, 0).await?;
    assert!(q.store.send_all(&q.name, Vec::new()).await?.is_empty());
    Ok(())
}

/// A thousand messages in one call, and received in calls of a hundred.
pub async fn many_messages_in_one_call(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let sent = q.send_numbers(1_000).await?;
    assert_eq!(ids(&sent).len(), 1_000);
    let mut bodies = BTreeSet::new();
    while bodies.len() < 1_000 {
        let batch = q.take(100, LONG).await?;
        let receipts: Vec<_> = batch.iter().map(|d| d.receipt.clone()).collect();
        assert!(q.store.delete_all(&q.name, &receipts).await?.iter().all(Result::is_ok));
        bodies.extend(batch.into_iter().map(|d| d.message.body));
    }
    q.assert_counts(0, 0, 0, 0).await?;
    q.nothing().await?;
    Ok(())
}

/// Typed queues: what is not of the type becomes a dead letter, and does not keep the others back.
pub async fn typed_queues(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let typed = q.store.queue::<Vec<u32>>(&q.name);
    typed.send(&vec![1, 2]).await?;
    q.send("not JSON").await?;
    typed.send_all([&vec![], &vec![3]]).await?;
    let mut values = Vec::new();
    while values.len() < 3 {
        let request = storage_core::Receive::up_to(10).visibility(LONG).wait(crate::opened::PATIENCE);
        let received = typed.receive(&request).await?;
        assert!(!received.is_empty() || values.len() < 3, "messages are missing");
        for received in received {
            typed.delete(&received).await?;
            assert_eq!(received.delivery.message.content_type.as_deref(), Some("application/json"));
            values.push(received.value);
        }
    }
    values.sort();
    assert_eq!(values, [vec![], vec![1, 2], vec![3]]);
    if q.capabilities().dead_letter {
        assert_eq!(q.until_dead(1).await?[0].body, "not JSON");
    }
    Ok(())
}
