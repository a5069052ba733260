//! Messages with a time to live.

use std::time::Duration;

use storage_core::message::dead;
use storage_core::{ErrorKind, MessageUpdate, NewMessage};

use super::fixture::{Fixture, LONG, SHORT, reason};
use crate::check::refused;
use crate::{CaseResult, Failure, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A queue. `None` where messages have no time to live, which is then checked.
async fn expiring(h: &dyn Harness) -> Result<Option<Fixture<'_>>, Failure> {
    let q = Fixture::open(h).await?;
    if q.capabilities().ttl {
        return Ok(Some(q));
    }
    refused(ErrorKind::Unsupported, q.send_message(NewMessage::new("a").ttl(LONG)).await);
    q.nothing().await?;
    Ok(None)
}

/// A message whose time to live is over is not delivered: it is a dead letter, and says why. Others are delivered as ever.
pub async fn an_expired_message_is_a_dead_letter(h: &dyn Harness) -> CaseResult {
    let Some(q) = expiring(h).await? else { return Ok(()) };
    let sent = q.send_message(NewMessage::new("a").ttl(SHORT).attribute("tenant", "acme")).await?;
    q.opened.pass(SHORT).await;
    if q.capabilities().dead_letter {
        let letters = q.until_dead(1).await?;
        let letter = &letters[0];
        assert_eq!((&letter.id, reason(letter), &letter.body[..]), (&sent.id, dead::EXPIRED, &b"a"[..]));
        assert_eq!(letter.attributes.get("tenant").map(String::as_str), Some("acme"));
        assert_eq!(letter.attributes.get(dead::DELIVERIES).map(String::as_str), Some("0"));
        q.assert_counts(0, 0, 0, 1).await?;
        // It does not die again.
        assert_eq!(q.store.redrive(&q.name, 10).await?, 1);
        q.opened.pass(SHORT).await;
        assert_eq!(q.take_one(LONG).await?.message.expires_at, None);
    } else {
        q.nothing().await?;
    }
    q.send_message(NewMessage::new("b").ttl(LONG)).await?;
    assert_eq!(q.take_one(LONG).await?.message.body, "b");
    Ok(())
}

/// Until then it is a message as any other, and says when it will expire.
pub async fn a_message_is_there_until_it_expires(h: &dyn Harness) -> CaseResult {
    let Some(q) = expiring(h).await? else { return Ok(()) };
    q.send_message(NewMessage::new("a").ttl(LONG)).await?;
    let message = q.take_one(SHORT).await?.message;
    let lives = message.expires_at.expect("it expires") - message.enqueued_at;
    assert!((lives - chrono::TimeDelta::from_std(LONG)?).num_seconds().abs() <= 1, "it lives for {lives}");
    Ok(())
}

/// A message whose time runs out while a consumer has it stays with the consumer until the lease ends: it can be deleted, or given back and is dead
/// then.
pub async fn a_lease_outlives_the_time_to_live(h: &dyn Harness) -> CaseResult {
    let Some(q) = expiring(h).await? else { return Ok(()) };
    // Long enough to be received on a slow machine.
    let ttl = if q.opened.clock.is_manual() { SHORT } else { Duration::from_secs(1) };
    for body in ["deleted", "given back"] {
        q.send_message(NewMessage::new(body).ttl(ttl)).await?;
        let taken = q.take_one(LONG).await?;
        q.opened.pass(ttl).await;
        q.nothing().await?;
        q.assert_counts(0, 0, 1, 0).await?;
        let renewed = q.store.update(&q.name, &taken.receipt, &MessageUpdate::visibility(LONG)).await?;
        if body == "deleted" {
            q.store.delete(&q.name, &renewed).await?;
        } else {
            q.store.update(&q.name, &renewed, &MessageUpdate::visibility(Duration::ZERO)).await?;
        }
    }
    if q.capabilities().dead_letter {
        let letters = q.until_dead(1).await?;
        assert_eq!((reason(&letters[0]), &letters[0].body[..]), (dead::EXPIRED, &b"given back"[..]));
    }
    q.nothing().await?;
    Ok(())
}

/// A delay counts within the time to live.
pub async fn a_delay_counts_within_the_time_to_live(h: &dyn Harness) -> CaseResult {
    let Some(q) = expiring(h).await? else { return Ok(()) };
    if !q.capabilities().delay {
        refused(ErrorKind::Unsupported, q.send_message(NewMessage::new("a").delay(SHORT).ttl(LONG)).await);
        return Ok(());
    }
    refused(ErrorKind::InvalidInput, q.send_message(NewMessage::new("a").delay(LONG).ttl(LONG)).await);
    q.send_message(NewMessage::new("a").delay(SHORT / 4).ttl(SHORT)).await?;
    q.opened.pass(SHORT).await;
    if q.capabilities().dead_letter {
        assert_eq!(reason(&q.until_dead(1).await?[0]), dead::EXPIRED);
    }
    q.nothing().await?;
    Ok(())
}
