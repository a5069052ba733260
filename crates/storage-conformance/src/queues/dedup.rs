//! Dedup ids.

use std::time::Duration;

use storage_core::{ErrorKind, NewMessage};

use super::fixture::{Fixture, LONG, SHORT, uncapped};
use crate::check::refused;
use crate::{CaseResult, Failure, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

fn message(body: &str, id: &str) -> NewMessage {
    NewMessage::new(body.to_owned()).dedup_id(id)
}

/// A queue with that dedup window. `None` where there are no dedup ids, which is then checked.
async fn deduplicating(h: &dyn Harness, window: Duration) -> Result<Option<Fixture<'_>>, Failure> {
    let q = Fixture::new(h, uncapped().dedup_window(window)).await?;
    if q.capabilities().dedup {
        return Ok(Some(q));
    }
    refused(ErrorKind::Unsupported, q.send_message(message("a", "x")).await);
    q.nothing().await?;
    Ok(None)
}

/// A second message with the same dedup id is not sent, and its sender gets the first one's id; other ids and none at all are sent.
pub async fn a_duplicate_is_not_sent(h: &dyn Harness) -> CaseResult {
    let Some(q) = deduplicating(h, LONG).await? else { return Ok(()) };
    let first = q.send_message(message("first", "x")).await?;
    assert!(!first.duplicate);
    for body in ["first", "another body"] {
        let second = q.send_message(message(body, "x")).await?;
        assert_eq!((second.id, second.duplicate), (first.id.clone(), true));
    }
    for other in ["X", "x ", "y", "%"] {
        assert!(!q.send_message(message("other", other)).await?.duplicate, "{other:?}");
    }
    q.send("none").await?;
    q.send("none").await?;
    q.assert_counts(7, 0, 0, 0).await?;
    assert_eq!(q.take(7, LONG).await?.iter().filter(|d| d.message.body == "first").count(), 1);
    q.nothing().await?;
    Ok(())
}

/// An id is remembered for the window also when its message was received, and after it was deleted.
pub async fn an_id_outlives_its_message(h: &dyn Harness) -> CaseResult {
    let Some(q) = deduplicating(h, LONG).await? else { return Ok(()) };
    let first = q.send_message(message("a", "x")).await?;
    let taken = q.take_one(LONG).await?;
    assert!(q.send_message(message("a", "x")).await?.duplicate);
    q.store.delete(&q.name, &taken.receipt).await?;
    let again = q.send_message(message("a", "x")).await?;
    assert_eq!((again.id, again.duplicate), (first.id, true));
    q.nothing().await?;
    Ok(())
}

/// When the window is over, counted from the first message, the id can be used again; duplicates don't prolong it.
pub async fn the_window_ends(h: &dyn Harness) -> CaseResult {
    let window = SHORT * 2;
    let Some(q) = deduplicating(h, window).await? else { return Ok(()) };
    let started = q.opened.elapsed();
    let first = q.send_message(message("a", "x")).await?;
    let what = "an id becomes free when its window is over";
    let look = async || {
        let sent = q.send_message(message("b", "x")).await?;
        let now = q.opened.elapsed();
        assert!(sent.duplicate || now >= started + window, "free at {now:?}, due at {:?}", started + window);
        Ok((!sent.duplicate).then_some(sent))
    };
    let second = q.opened.until(what, window * 2, look).await?;
    assert_ne!(second.id, first.id);
    assert!(q.send_message(message("c", "x")).await?.duplicate || q.opened.elapsed() > started + window * 2);
    assert_eq!(q.take(2, LONG).await?.len(), 2);
    Ok(())
}

/// Ids are of one queue.
pub async fn ids_are_of_one_queue(h: &dyn Harness) -> CaseResult {
    let Some(q) = deduplicating(h, LONG).await? else { return Ok(()) };
    let other = "other".parse()?;
    q.store.create_queue(&other, &uncapped().dedup_window(LONG)).await?;
    assert!(!q.send_message(message("a", "x")).await?.duplicate);
    assert!(!q.store.send(&other, message("a", "x")).await?.duplicate);
    assert!(q.store.send(&other, message("a", "x")).await?.duplicate);
    Ok(())
}

/// Duplicates within one call: the first is sent.
pub async fn duplicates_within_one_call(h: &dyn Harness) -> CaseResult {
    let Some(q) = deduplicating(h, LONG).await? else { return Ok(()) };
    let messages = vec![message("1", "x"), message("2", "y"), message("3", "x"), NewMessage::new("4"), message("5", "y")];
    let sent = q.store.send_all(&q.name, messages).await?;
    assert_eq!(sent.iter().map(|s| s.duplicate).collect::<Vec<_>>(), [false, false, true, false, true]);
    assert_eq!((&sent[2].id, &sent[4].id), (&sent[0].id, &sent[1].id));
    let mut bodies: Vec<_> = q.take(3, LONG).await?.into_iter().map(|d| d.message.body).collect();
    bodies.sort();
    assert_eq!(bodies, ["1", "2", "4"]);
    Ok(())
}

/// Of many who send with the same id at once, one message results.
pub async fn one_of_many_is_sent(h: &dyn Harness) -> CaseResult {
    let Some(q) = deduplicating(h, LONG).await? else { return Ok(()) };
    let send = |n: usize| {
        let (store, name) = (q.store.clone(), q.name.clone());
        tokio::spawn(async move { store.send(&name, message(&n.to_string(), "x")).await })
    };
    let outcomes = futures::future::try_join_all((0..8).map(send)).await?;
    let sent = outcomes.into_iter().collect::<storage_core::Result<Vec<_>>>()?;
    assert_eq!(sent.iter().filter(|s| !s.duplicate).count(), 1);
    assert_eq!(super::fixture::ids(&sent).len(), 1);
    q.take_one(LONG).await?;
    q.nothing().await?;
    Ok(())
}
