//! Delayed messages.

use storage_core::{ErrorKind, NewMessage};

use super::fixture::{Fixture, LONG, SHORT};
use crate::check::refused;
use crate::{CaseResult, Failure, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// A queue. `None` where messages can't be delayed, which is then checked.
async fn delaying(h: &dyn Harness) -> Result<Option<Fixture<'_>>, Failure> {
    let q = Fixture::open(h).await?;
    if q.capabilities().delay {
        return Ok(Some(q));
    }
    refused(ErrorKind::Unsupported, q.send_message(NewMessage::new("a").delay(SHORT)).await);
    q.nothing().await?;
    Ok(None)
}

/// A delayed message is received when its delay is over, and no sooner; that is its first delivery.
pub async fn a_delayed_message_comes_later(h: &dyn Harness) -> CaseResult {
    let Some(q) = delaying(h).await? else { return Ok(()) };
    let started = q.opened.elapsed();
    let sent = q.send_message(NewMessage::new("a").delay(SHORT)).await?;
    let delivery = q.comes_not_before(started + SHORT).await?;
    assert_eq!((delivery.message.id, delivery.message.deliveries), (sent.id, 1));
    Ok(())
}

/// A delayed message is counted as such, is not seen by a peek, and keeps nobody behind it waiting.
pub async fn a_delayed_message_is_in_nobodys_way(h: &dyn Harness) -> CaseResult {
    let Some(q) = delaying(h).await? else { return Ok(()) };
    q.send_message(NewMessage::new("later").delay(LONG)).await?;
    q.send("now").await?;
    q.assert_counts(1, 1, 0, 0).await?;
    if q.capabilities().peek {
        assert_eq!(q.store.peek(&q.name, 10).await?.len(), 1);
    }
    assert_eq!(q.take_one(LONG).await?.message.body, "now");
    q.nothing().await?;
    q.assert_counts(0, 1, 1, 0).await?;
    Ok(())
}

/// Of several delays each counts for itself: messages come in the order in which they become due.
pub async fn messages_come_as_they_become_due(h: &dyn Harness) -> CaseResult {
    let Some(q) = delaying(h).await? else { return Ok(()) };
    let started = q.opened.elapsed();
    // Far enough apart for services that count in seconds, on a clock that is moved by hand; closer in real time.
    let unit = if q.opened.clock.is_manual() { SHORT * 4 } else { SHORT };
    for n in [3_u32, 1, 2] {
        q.send_message(NewMessage::new(n.to_string()).delay(unit * n)).await?;
    }
    let mut seen = Vec::new();
    for n in 1..=3 {
        let delivery = q.comes_not_before(started + unit * n).await?;
        seen.push(String::from_utf8_lossy(&delivery.message.body).into_owned());
    }
    seen.sort_unstable();
    assert_eq!(seen, ["1", "2", "3"]);
    Ok(())
}
