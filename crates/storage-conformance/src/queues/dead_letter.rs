//! Dead letters: the delivery cap, rejected messages, the companion queue, redrive.

use std::time::Duration;

use storage_core::message::dead;
use storage_core::{ErrorKind, MessageUpdate, NewMessage, QueueSpec, Receive};

use super::fixture::{Fixture, LONG, SHORT, bodies, reason, uncapped};
use crate::check::refused;
use crate::opened::Opened;
use crate::{CaseResult, Failure, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A queue with that delivery cap. `None` where the backend has no dead letters, which is then checked.
async fn capped(h: &dyn Harness, max: u32) -> Result<Option<Fixture<'_>>, Failure> {
    let opened = Opened::fresh(h).await?;
    if opened.queues().capabilities().dead_letter {
        return Fixture::within(opened, QueueSpec::default().max_deliveries(max)).await.map(Some).map_err(Into::into);
    }
    let q = Fixture::within(opened, uncapped()).await?;
    q.send("a").await?;
    let taken = q.take_one(LONG).await?;
    refused(ErrorKind::Unsupported, q.store.dead_letter(&q.name, &taken.receipt, "reason").await);
    refused(ErrorKind::Unsupported, q.store.redrive(&q.name, 10).await);
    // Still leased by the same receipt.
    q.store.delete(&q.name, &taken.receipt).await?;
    Ok(None)
}

/// Gives a message of the queue back as often as it takes to use up `deliveries`.
async fn use_up(q: &Fixture<'_>, deliveries: u32) -> Result<(), Failure> {
    for _ in 0..deliveries {
        let taken = q.take_one(LONG).await?;
        q.store.update(&q.name, &taken.receipt, &MessageUpdate::visibility(Duration::ZERO)).await?;
    }
    Ok(())
}

/// A message that was delivered as often as its queue allows, and whose last lease ended, is a dead letter: never delivered once more,
/// nothing of it lost, with reason, source, count and time.
pub async fn the_delivery_cap_makes_dead_letters(h: &dyn Harness) -> CaseResult {
    let Some(q) = capped(h, 3).await? else { return Ok(()) };
    let message = NewMessage::new("body").attribute("tenant", "acme").content_type("text/x");
    let sent = q.send_message(message).await?;
    for delivery in 1..=3 {
        let started = q.opened.elapsed();
        let visibility = SHORT / 2;
        assert_eq!(q.take_one(visibility).await?.message.deliveries, delivery);
        while q.opened.elapsed() < started + visibility {
            q.opened.pass(visibility / 4).await;
        }
    }
    let letters = q.until_dead(1).await?;
    let letter = &letters[0];
    assert_eq!((&letter.id, &letter.body[..]), (&sent.id, &b"body"[..]));
    assert_eq!(letter.content_type.as_deref(), Some("text/x"));
    let attribute = |name: &str| letter.attributes.get(name).map(String::as_str);
    assert_eq!(attribute("tenant"), Some("acme"));
    assert_eq!(attribute(dead::REASON), Some(dead::MAX_DELIVERIES));
    assert_eq!(attribute(dead::SOURCE), Some("q"));
    assert_eq!(attribute(dead::DELIVERIES), Some("3"));
    let at = storage_core::value::parse_timestamp(attribute(dead::AT).unwrap_or_default())?;
    assert!(at >= letter.enqueued_at, "dead at {at}, sent at {}", letter.enqueued_at);
    q.assert_counts(0, 0, 0, 1).await?;
    Ok(())
}

/// A delivery cap without dead letters would lose messages: it is refused, and no queue is created.
pub async fn a_cap_needs_dead_letters(h: &dyn Harness) -> CaseResult {
    let opened = Opened::fresh(h).await?;
    let store = opened.queues();
    let (name, spec) = ("q".parse()?, QueueSpec::default().max_deliveries(3));
    if store.capabilities().dead_letter {
        assert!(store.create_queue(&name, &spec).await?);
        assert_eq!(store.queue_spec(&name).await?.max_deliveries, Some(3));
    } else {
        refused(ErrorKind::Unsupported, store.create_queue(&name, &spec).await);
        assert!(store.queues().await?.is_empty());
        assert!(store.create_queue(&name, &store.default_spec()).await?);
        assert_eq!(store.queue_spec(&name).await?.max_deliveries, None);
    }
    Ok(())
}

/// A message given back for the last time is a dead letter at once.
pub async fn giving_back_uses_up_deliveries(h: &dyn Harness) -> CaseResult {
    let Some(q) = capped(h, 2).await? else { return Ok(()) };
    q.send("a").await?;
    use_up(&q, 2).await?;
    let letters = q.until_dead(1).await?;
    assert_eq!(reason(&letters[0]), dead::MAX_DELIVERIES);
    Ok(())
}

/// The last delivery that the cap allows is a delivery as any other: its receipt deletes the message.
pub async fn the_last_delivery_can_succeed(h: &dyn Harness) -> CaseResult {
    let Some(q) = capped(h, 2).await? else { return Ok(()) };
    q.send("a").await?;
    use_up(&q, 1).await?;
    let last = q.take_one(LONG).await?;
    assert_eq!(last.message.deliveries, 2);
    let renewed = q.store.update(&q.name, &last.receipt, &MessageUpdate::visibility(LONG)).await?;
    q.store.delete(&q.name, &renewed).await?;
    q.assert_counts(0, 0, 0, 0).await?;
    Ok(())
}

/// Without a cap a message is delivered for ever.
pub async fn without_a_cap_nothing_dies(h: &dyn Harness) -> CaseResult {
    let q = Fixture::new(h, uncapped()).await?;
    q.send("a").await?;
    use_up(&q, 15).await?;
    assert_eq!(q.take_one(LONG).await?.message.deliveries, 16);
    q.assert_counts(0, 0, 1, 0).await?;
    Ok(())
}

/// A consumer can make a leased message a dead letter, with a reason of its own; the receipt is good for nothing more.
pub async fn a_message_can_be_rejected(h: &dyn Harness) -> CaseResult {
    let Some(q) = capped(h, 5).await? else { return Ok(()) };
    let sent = q.send("a").await?;
    let taken = q.take_one(LONG).await?;
    q.store.dead_letter(&q.name, &taken.receipt, "no such customer: 'ü' \"%\"").await?;
    let letters = q.until_dead(1).await?;
    assert_eq!((&letters[0].id, reason(&letters[0])), (&sent.id, "no such customer: 'ü' \"%\""));
    assert_eq!(letters[0].attributes.get(dead::DELIVERIES).map(String::as_str), Some("1"));
    refused(ErrorKind::LeaseLost, q.store.delete(&q.name, &taken.receipt).await);
    refused(ErrorKind::LeaseLost, q.store.update(&q.name, &taken.receipt, &MessageUpdate::visibility(LONG)).await);
    refused(ErrorKind::LeaseLost, q.store.dead_letter(&q.name, &taken.receipt, "again").await);
    q.assert_counts(0, 0, 0, 1).await?;
    Ok(())
}

/// The receipt of a message that became a dead letter by the cap no longer deletes it.
pub async fn the_receipt_of_a_dead_letter_is_stale(h: &dyn Harness) -> CaseResult {
    let Some(q) = capped(h, 1).await? else { return Ok(()) };
    q.send("a").await?;
    let taken = q.take_one(SHORT / 2).await?;
    q.opened.pass(SHORT).await;
    q.until_dead(1).await?;
    refused(ErrorKind::LeaseLost, q.store.delete(&q.name, &taken.receipt).await);
    q.assert_counts(0, 0, 0, 1).await?;
    Ok(())
}

/// Redrive sends dead letters home: the same ids and bodies, their own attributes and no others, deliveries counted anew.
pub async fn redrive_sends_home(h: &dyn Harness) -> CaseResult {
    let Some(q) = capped(h, 2).await? else { return Ok(()) };
    let sent = q.send_message(NewMessage::new("a").attribute("tenant", "acme")).await?;
    use_up(&q, 2).await?;
    q.until_dead(1).await?;
    assert_eq!(q.store.redrive(&q.name, 10).await?, 1);
    q.assert_counts(1, 0, 0, 0).await?;
    let taken = q.take_one(LONG).await?;
    assert_eq!((&taken.message.id, &taken.message.body[..], taken.message.deliveries), (&sent.id, &b"a"[..], 1));
    assert_eq!(taken.message.attributes, [("tenant".to_owned(), "acme".to_owned())].into());
    q.store.update(&q.name, &taken.receipt, &MessageUpdate::visibility(Duration::ZERO)).await?;
    // The cap holds again.
    use_up(&q, 1).await?;
    q.until_dead(1).await?;
    assert_eq!(q.store.redrive(&q.name, 10).await?, 1);
    assert_eq!(q.store.redrive(&q.name, 10).await?, 0);
    Ok(())
}

/// Redrive takes as many as it is told, the oldest first.
pub async fn redrive_takes_the_oldest_first(h: &dyn Harness) -> CaseResult {
    let Some(q) = capped(h, 5).await? else { return Ok(()) };
    q.send_numbers(5).await?;
    for _ in 0..5 {
        let taken = q.take_one(LONG).await?;
        q.store.dead_letter(&q.name, &taken.receipt, "test").await?;
        q.opened.pass(Duration::from_millis(2)).await;
    }
    assert_eq!(q.store.redrive(&q.name, 3).await?, 3);
    q.assert_counts(3, 0, 0, 2).await?;
    let taken = q.take(3, LONG).await?;
    let mut home = bodies(&taken);
    home.sort_unstable();
    if q.capabilities().fifo {
        assert_eq!(home, ["0", "1", "2"]);
    }
    assert_eq!(q.store.redrive(&q.name, 100).await?, 2);
    assert_eq!(q.take(2, LONG).await?.len(), 2);
    Ok(())
}

/// Dead letters can be received, renewed and deleted as any message, without a cap and for as long as one likes.
pub async fn dead_letters_can_be_received(h: &dyn Harness) -> CaseResult {
    let Some(q) = capped(h, 1).await? else { return Ok(()) };
    let sent = q.send("a").await?;
    use_up(&q, 1).await?;
    q.until_dead(1).await?;
    let dead_queue = q.dead();
    assert_eq!(q.store.queue_spec(&dead_queue).await?.max_deliveries, None);
    let mut receipt = None;
    for _ in 0..4 {
        let taken = q.take_from(&dead_queue, 1, LONG).await?.remove(0);
        assert_eq!(taken.message.id, sent.id);
        assert!(q.store.receive(&dead_queue, &Receive::default()).await?.is_empty(), "it is leased");
        receipt = Some(q.store.update(&dead_queue, &taken.receipt, &MessageUpdate::visibility(Duration::ZERO)).await?);
    }
    refused(ErrorKind::LeaseLost, q.store.delete(&q.name, &receipt.expect("four receipts")).await);
    let taken = q.take_from(&dead_queue, 1, LONG).await?.remove(0);
    q.store.delete(&dead_queue, &taken.receipt).await?;
    q.assert_counts(0, 0, 0, 0).await?;
    assert_eq!(q.store.redrive(&q.name, 10).await?, 0);
    Ok(())
}

/// The companion comes and goes with its queue, shows in no list, and can't be created, removed, sent to or dead-lettered by itself.
pub async fn the_companion_comes_and_goes_with_its_queue(h: &dyn Harness) -> CaseResult {
    let Some(q) = capped(h, 1).await? else { return Ok(()) };
    let dead_queue = q.dead();
    assert_eq!(q.store.queues().await?, std::slice::from_ref(&q.name));
    assert!(q.store.receive(&dead_queue, &Receive::default()).await?.is_empty());
    refused(ErrorKind::InvalidInput, q.store.create_queue(&dead_queue, &QueueSpec::default()).await);
    refused(ErrorKind::InvalidInput, q.store.delete_queue(&dead_queue).await);
    refused(ErrorKind::InvalidInput, q.store.send(&dead_queue, NewMessage::new("a")).await);
    refused(ErrorKind::InvalidInput, q.store.redrive(&dead_queue, 1).await);
    q.send("a").await?;
    use_up(&q, 1).await?;
    q.until_dead(1).await?;
    assert!(q.store.delete_queue(&q.name).await?);
    refused(ErrorKind::NotFound, q.store.stats(&dead_queue).await);
    refused(ErrorKind::NotFound, q.store.receive(&dead_queue, &Receive::default()).await);
    // Nothing of the old one is left in a new one of the same name.
    q.store.create_queue(&q.name, &q.store.default_spec()).await?;
    q.assert_counts(0, 0, 0, 0).await?;
    assert_eq!(q.store.redrive(&q.name, 10).await?, 0);
    Ok(())
}

/// Purging a queue leaves its dead letters; purging the companion removes them.
pub async fn purge_leaves_dead_letters(h: &dyn Harness) -> CaseResult {
    let Some(q) = capped(h, 1).await? else { return Ok(()) };
    q.send("dead").await?;
    use_up(&q, 1).await?;
    q.until_dead(1).await?;
    q.send_numbers(3).await?;
    assert_eq!(q.store.purge(&q.name).await?, 3);
    q.assert_counts(0, 0, 0, 1).await?;
    assert_eq!(q.store.purge(&q.dead()).await?, 1);
    q.assert_counts(0, 0, 0, 0).await?;
    assert_eq!(q.store.redrive(&q.name, 10).await?, 0);
    Ok(())
}
