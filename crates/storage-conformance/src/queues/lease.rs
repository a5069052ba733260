//! Leases and receipts.

use std::time::Duration;

use storage_core::{ErrorKind, MessageUpdate, Receipt};

use super::fixture::{Fixture, LONG, SHORT, bodies};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A received message is out of everybody's sight while its lease lasts.
pub async fn a_leased_message_is_out_of_sight(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let sent = q.send("a").await?;
    let first = q.take_one(LONG).await?;
    assert_eq!((&first.message.id, first.message.deliveries), (&sent.id, 1));
    q.nothing().await?;
    q.assert_counts(0, 0, 1, 0).await?;
    Ok(())
}

/// When a lease ends, and no sooner, the message comes back: the same, with one delivery more and another receipt.
pub async fn a_message_comes_back_when_its_lease_ends(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    let started = q.opened.elapsed();
    let first = q.take_one(SHORT).await?;
    let second = q.comes_not_before(started + SHORT).await?;
    assert_eq!((second.message.id, second.message.deliveries), (first.message.id, 2));
    assert_eq!((second.message.body, second.message.enqueued_at), (first.message.body, first.message.enqueued_at));
    assert_ne!(second.receipt, first.receipt);
    Ok(())
}

/// A lease lasts for the visibility, by the backend's clock.
pub async fn leased_until_is_the_end_of_the_lease(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    let before = q.opened.clock.now();
    let delivery = q.take_one(LONG).await?;
    // A service's clock may differ from this one's, but not by much.
    let skew = chrono::TimeDelta::seconds(60);
    let (earliest, latest) = (before + LONG - skew, q.opened.clock.now() + LONG + skew);
    assert!(
        delivery.leased_until >= earliest && delivery.leased_until <= latest,
        "{} is not about {LONG:?} away",
        delivery.leased_until
    );
    Ok(())
}

/// A deleted message is gone for good, also after its lease would have ended.
pub async fn a_deleted_message_is_gone(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    let delivery = q.take_one(SHORT).await?;
    q.store.delete(&q.name, &delivery.receipt).await?;
    q.assert_counts(0, 0, 0, 0).await?;
    q.opened.pass(SHORT).await;
    q.nothing().await?;
    Ok(())
}

/// To delete what is gone is fine; to change it is `LeaseLost`.
pub async fn deleting_what_is_gone_is_fine(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    let delivery = q.take_one(LONG).await?;
    q.store.delete(&q.name, &delivery.receipt).await?;
    q.store.delete(&q.name, &delivery.receipt).await?;
    refused(ErrorKind::LeaseLost, q.store.update(&q.name, &delivery.receipt, &MessageUpdate::visibility(LONG)).await);
    Ok(())
}

/// The receipt of a message that was received again is stale: it neither deletes nor changes it, and the newest goes on working.
pub async fn a_stale_receipt_is_refused(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    let started = q.opened.elapsed();
    let stale = q.take_one(SHORT).await?.receipt;
    let fresh = q.comes_not_before(started + SHORT).await?.receipt;
    refused(ErrorKind::LeaseLost, q.store.delete(&q.name, &stale).await);
    refused(ErrorKind::LeaseLost, q.store.update(&q.name, &stale, &MessageUpdate::visibility(Duration::ZERO)).await);
    if q.capabilities().dead_letter {
        refused(ErrorKind::LeaseLost, q.store.dead_letter(&q.name, &stale, "stale").await);
    }
    q.nothing().await?;
    q.assert_counts(0, 0, 1, 0).await?;
    q.store.delete(&q.name, &fresh).await?;
    q.assert_counts(0, 0, 0, 0).await?;
    Ok(())
}

/// Deletes of one call are each on their own: a stale receipt among them does not keep the others from taking effect.
pub async fn deletes_are_each_on_their_own(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send_numbers(4).await?;
    let taken = q.take(4, LONG).await?;
    let renewed = q.store.update(&q.name, &taken[1].receipt, &MessageUpdate::visibility(LONG)).await?;
    q.store.delete(&q.name, &taken[2].receipt).await?;
    let receipts: Vec<Receipt> = taken.iter().map(|d| d.receipt.clone()).collect();
    let outcomes = q.store.delete_all(&q.name, &receipts).await?;
    let kinds: Vec<_> = outcomes.into_iter().map(|outcome| outcome.err().map(|e| e.kind())).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::LeaseLost), None, None]);
    q.assert_counts(0, 0, 1, 0).await?;
    q.store.delete(&q.name, &renewed).await?;
    q.assert_counts(0, 0, 0, 0).await?;
    Ok(())
}

/// The receipt of a lease that has ended is good as long as nobody else received the message, or is lost: either way nothing is lost with it.
pub async fn a_late_delete_deletes_or_is_refused(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    let started = q.opened.elapsed();
    let delivery = q.take_one(SHORT).await?;
    q.opened.pass(SHORT).await;
    match q.store.delete(&q.name, &delivery.receipt).await {
        Ok(()) => {
            q.opened.pass(SHORT).await;
            q.nothing().await?;
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
            assert_eq!(q.comes_not_before(started + SHORT).await?.message.id, delivery.message.id);
        }
    }
    Ok(())
}

/// What is no receipt removes nothing and changes nothing, and a receipt of another queue is good for nothing.
pub async fn foreign_receipts_do_nothing(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let other = "other".parse()?;
    q.store.create_queue(&other, &super::fixture::uncapped()).await?;
    q.send("a").await?;
    q.store.send(&other, storage_core::NewMessage::new("b")).await?;
    let delivery = q.take_one(LONG).await?;
    q.take_from(&other, 1, LONG).await?;
    for text in ["", "x", "1", "-", "1-1", "%", "' or 1=1 --", "\u{1F600}", "../../x", &"9".repeat(500)] {
        let foreign = Receipt(text.to_owned());
        // Deleting what is gone is fine, and some backends can't tell one from the other.
        drop(q.store.delete(&q.name, &foreign).await);
        let changed = q.store.update(&q.name, &foreign, &MessageUpdate::visibility(Duration::ZERO)).await;
        crate::check::refused_as(&[ErrorKind::LeaseLost, ErrorKind::InvalidInput], changed);
    }
    drop(q.store.delete(&other, &delivery.receipt).await);
    q.nothing().await?;
    for queue in [&q.name, &other] {
        assert!(matches!(q.store.stats(queue).await?.leased.value(), Some(1) | None), "the message of `{queue}` is there");
    }
    q.store.delete(&q.name, &delivery.receipt).await?;
    Ok(())
}

/// The messages of a consumer that was killed come back when their leases end, all of them and none sooner.
pub async fn a_killed_consumers_messages_come_back(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let sent = q.send_numbers(20).await?;
    let started = q.opened.elapsed();
    // Another handle, dropped without a word: what is left of a process that was killed.
    let killed = crate::opened::queues(&q.opened.again().await?);
    let request = storage_core::Receive::up_to(20).visibility(SHORT).wait(crate::opened::PATIENCE);
    let taken = killed.receive(&q.name, &request).await?.len();
    assert!(taken > 0);
    drop(killed);
    let mut back = q.receive(20, LONG).await?;
    if q.opened.elapsed() < started + SHORT {
        assert_eq!(back.len(), 20 - taken, "came back too soon: {:?}", bodies(&back));
    }
    while back.len() < 20 {
        back.push(q.comes_not_before(started + SHORT).await?);
    }
    let ids: std::collections::BTreeSet<String> = back.iter().map(|d| d.message.id.to_string()).collect();
    assert_eq!(ids, super::fixture::ids(&sent));
    assert_eq!(back.iter().filter(|d| d.message.deliveries == 2).count(), taken);
    Ok(())
}
