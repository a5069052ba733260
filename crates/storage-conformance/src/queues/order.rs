//! In which order messages come.

use storage_core::{ErrorKind, NewMessage};

use super::fixture::{Fixture, LONG, bodies};
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

/// First in, first out for a single consumer, whether sent one by one or in one call, received one by one or many at a time.
pub async fn first_in_first_out(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send_numbers(20).await?;
    for n in 20..40 {
        q.send(&n.to_string()).await?;
    }
    let mut taken = q.take(5, LONG).await?;
    for _ in 0..5 {
        taken.push(q.take_one(LONG).await?);
    }
    taken.extend(q.take(30, LONG).await?);
    let order: Vec<usize> = bodies(&taken).iter().map(|body| body.parse()).collect::<Result<_, _>>()?;
    if q.capabilities().fifo {
        assert_eq!(order, (0..40).collect::<Vec<_>>());
    } else {
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..40).collect::<Vec<_>>(), "each once");
    }
    Ok(())
}

/// Higher priorities come first, whenever they were sent; within one, the oldest.
pub async fn higher_priorities_come_first(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let message = |body: &str, priority| NewMessage::new(body.to_owned()).priority(priority);
    if !q.capabilities().priority {
        refused(ErrorKind::Unsupported, q.send_message(message("a", 1)).await);
        return Ok(q.nothing().await?);
    }
    for (body, priority) in [("e", 0), ("c", 5), ("a", 9), ("f", 0), ("d", 5), ("b", 9)] {
        q.send_message(message(body, priority)).await?;
    }
    if q.capabilities().peek {
        let seen: Vec<_> = q.store.peek(&q.name, 10).await?.into_iter().map(|m| m.priority).collect();
        assert_eq!(seen, [9, 9, 5, 5, 0, 0]);
    }
    let first = q.take_one(LONG).await?;
    assert_eq!(first.message.priority, 9);
    let mut taken = vec![first];
    taken.extend(q.take(2, LONG).await?);
    // A late one of the highest priority overtakes those that are left.
    q.send_message(message("late", 9)).await?;
    taken.extend(q.take(4, LONG).await?);
    let priorities: Vec<u8> = taken.iter().map(|d| d.message.priority).collect();
    assert_eq!(priorities, [9, 9, 5, 9, 5, 0, 0]);
    if q.capabilities().fifo {
        assert_eq!(bodies(&taken), ["a", "b", "c", "late", "d", "e", "f"]);
    }
    Ok(())
}

/// A peek shows what would be received, in that order, and changes nothing.
pub async fn a_peek_changes_nothing(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    if !q.capabilities().peek {
        refused(ErrorKind::Unsupported, q.store.peek(&q.name, 5).await);
        return Ok(());
    }
    assert!(q.store.peek(&q.name, 5).await?.is_empty());
    q.send_message(NewMessage::new("0").attribute("a", "b").content_type("text/x")).await?;
    for n in 1..5 {
        q.send(&n.to_string()).await?;
    }
    let first = q.store.peek(&q.name, 3).await?;
    assert_eq!(first.len(), 3);
    assert_eq!(q.store.peek(&q.name, 3).await?, first);
    assert_eq!(q.store.peek(&q.name, 100).await?.len(), 5);
    assert!(first.iter().all(|m| m.deliveries == 0));
    q.assert_counts(5, 0, 0, 0).await?;
    let taken = q.take(3, LONG).await?;
    for (seen, taken) in first.iter().zip(&taken) {
        assert_eq!(taken.message.deliveries, 1, "a peek is no delivery");
        let as_seen = storage_core::Message { deliveries: 0, ..taken.message.clone() };
        assert_eq!(&as_seen, seen);
    }
    assert_eq!(q.store.peek(&q.name, 100).await?.len(), 2);
    refused(ErrorKind::InvalidInput, q.store.peek(&q.name, 0).await);
    Ok(())
}
