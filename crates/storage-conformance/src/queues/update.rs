//! Changes of a leased message.

use std::time::Duration;

use bytes::Bytes;
use storage_core::{ErrorKind, MessageUpdate, NewMessage};

use super::fixture::{Fixture, LONG, SHORT};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A renewed lease lasts from the renewal: the message does not come back when the first lease would have ended.
pub async fn a_renewed_lease_lasts_longer(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    let first = q.take_one(SHORT * 2).await?;
    let receipt = q.store.update(&q.name, &first.receipt, &MessageUpdate::visibility(LONG)).await?;
    q.opened.pass(SHORT * 2).await;
    q.nothing().await?;
    q.store.delete(&q.name, &receipt).await?;
    q.assert_counts(0, 0, 0, 0).await?;
    Ok(())
}

/// A lease can also be made shorter.
pub async fn a_lease_can_be_made_shorter(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    let first = q.take_one(LONG).await?;
    let started = q.opened.elapsed();
    q.store.update(&q.name, &first.receipt, &MessageUpdate::visibility(SHORT)).await?;
    assert_eq!(q.comes_not_before(started + SHORT).await?.message.id, first.message.id);
    Ok(())
}

/// A visibility of zero gives the message back at once; the next delivery counts.
pub async fn zero_visibility_gives_back_at_once(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    for delivery in 1..=3 {
        let taken = q.take_one(LONG).await?;
        assert_eq!(taken.message.deliveries, delivery);
        q.nothing().await?;
        q.store.update(&q.name, &taken.receipt, &MessageUpdate::visibility(Duration::ZERO)).await?;
        q.assert_counts(1, 0, 0, 0).await?;
    }
    Ok(())
}

/// A message given back with a delay counts as leased until it is due, and comes back then, no sooner.
pub async fn a_message_given_back_with_a_delay(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    let taken = q.take_one(LONG).await?;
    let started = q.opened.elapsed();
    q.store.update(&q.name, &taken.receipt, &MessageUpdate::visibility(SHORT * 2)).await?;
    if q.stats().await?.leased.value() != Some(1) {
        let due = q.opened.elapsed() >= started + SHORT * 2;
        assert!(due || q.stats().await?.leased.value().is_none(), "it counts as leased: {:?}", q.stats().await?);
    }
    let again = q.comes_not_before(started + SHORT * 2).await?;
    assert_eq!((again.message.id, again.message.deliveries), (taken.message.id, 2));
    Ok(())
}

/// Every update makes a new receipt, and the one before it is stale.
pub async fn every_update_makes_a_new_receipt(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    let mut receipts = vec![q.take_one(LONG).await?.receipt];
    for _ in 0..3 {
        let renewed = q.store.update(&q.name, &receipts[receipts.len() - 1], &MessageUpdate::visibility(LONG)).await?;
        assert!(!receipts.contains(&renewed), "a receipt was used twice");
        receipts.push(renewed);
    }
    let newest = receipts.pop().expect("four receipts");
    for stale in &receipts {
        refused(ErrorKind::LeaseLost, q.store.update(&q.name, stale, &MessageUpdate::visibility(LONG)).await);
        refused(ErrorKind::LeaseLost, q.store.delete(&q.name, stale).await);
    }
    q.store.delete(&q.name, &newest).await?;
    q.assert_counts(0, 0, 0, 0).await?;
    Ok(())
}

/// Body and attributes can be changed, each by itself; what is not named stays, and so does everything else of the message.
pub async fn body_and_attributes_can_be_changed(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let with_attributes =
        |name: &str| MessageUpdate { attributes: Some([(name.into(), "v".into())].into()), ..MessageUpdate::default() };
    let sent = q.send_message(NewMessage::new("a").attribute("old", "1").content_type("text/x")).await?;
    let first = q.take_one(LONG).await?;
    if !q.capabilities().update_body {
        for change in [MessageUpdate::default().body("b"), with_attributes("new")] {
            refused(ErrorKind::Unsupported, q.store.update(&q.name, &first.receipt, &change).await);
        }
        return Ok(q.store.delete(&q.name, &first.receipt).await?);
    }
    // Without a visibility the lease goes on as it was.
    let body = MessageUpdate::default().body(Bytes::from_static(b"\xff\x00b"));
    let receipt = q.store.update(&q.name, &first.receipt, &body).await?;
    q.nothing().await?;
    q.store.update(&q.name, &receipt, &MessageUpdate::visibility(Duration::ZERO)).await?;
    let second = q.take_one(LONG).await?;
    assert_eq!(second.message.body, Bytes::from_static(b"\xff\x00b"));
    assert_eq!(second.message.attributes, [("old".to_owned(), "1".to_owned())].into());
    let both = MessageUpdate { visibility: Some(Duration::ZERO), ..with_attributes("new") };
    q.store.update(&q.name, &second.receipt, &both).await?;
    let third = q.take_one(LONG).await?.message;
    assert_eq!((&third.id, third.deliveries, third.enqueued_at), (&sent.id, 3, first.message.enqueued_at));
    assert_eq!(third.attributes, [("new".to_owned(), "v".to_owned())].into());
    assert_eq!((third.body, third.content_type.as_deref()), (Bytes::from_static(b"\xff\x00b"), Some("text/x")));
    Ok(())
}

/// Reserved attributes, endless leases and bodies that are too large are refused, and the lease stays as it was.
pub async fn bad_updates_are_refused(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send("a").await?;
    let taken = q.take_one(LONG).await?;
    let mut bad = vec![
        MessageUpdate::visibility(storage_core::message::MAX_DURATION + Duration::from_secs(1)),
        MessageUpdate { attributes: Some([("storage-dead-reason".into(), "x".into())].into()), ..MessageUpdate::default() },
    ];
    // Where the limit is one that a test can pass.
    let too_large = q.capabilities().max_body_bytes.saturating_add(1);
    if too_large <= 128 << 20 {
        bad.push(MessageUpdate::default().body(vec![b'x'; too_large]));
    }
    for change in bad {
        refused(ErrorKind::InvalidInput, q.store.update(&q.name, &taken.receipt, &change).await);
    }
    q.store.delete(&q.name, &taken.receipt).await?;
    q.assert_counts(0, 0, 0, 0).await?;
    Ok(())
}
