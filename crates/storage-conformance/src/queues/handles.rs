//! Second handles, closed handles, broken handles.

use std::time::Duration;

use storage_core::{NewMessage, QueueSpec, Receive};

use super::fixture::{Fixture, LONG, patient_receive, uncapped};
use crate::check::{done_or_unavailable, refused_as_broken};
use crate::opened::{Opened, PATIENCE};
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

/// A second handle receives what the first sends, and leases hold across both; its receipts work in the first where that is declared.
pub async fn a_second_handle_shares_the_queue(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let other = crate::opened::queues(&q.opened.again().await?);
    assert_eq!(other.queues().await?, std::slice::from_ref(&q.name));
    assert_eq!(other.queue_spec(&q.name).await?, q.store.queue_spec(&q.name).await?);
    q.send("a").await?;
    let request = Receive::default().visibility(LONG).wait(PATIENCE);
    let taken = other.receive(&q.name, &request).await?;
    assert_eq!(taken.len(), 1);
    q.nothing().await?;
    let deleter = if q.capabilities().receipts_across_processes { &q.store } else { &other };
    deleter.delete(&q.name, &taken[0].receipt).await?;
    other.send(&q.name, NewMessage::new("b")).await?;
    assert_eq!(q.take_one(LONG).await?.message.body, "b");
    q.assert_counts(0, 0, 1, 0).await?;
    Ok(())
}

/// Messages are there when the store is opened again, leased ones too, under their leases.
pub async fn messages_survive_close(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send_numbers(5).await?;
    let leased = q.take(2, LONG).await?;
    let again = q.opened.again().await?;
    q.store.close().await?;
    let store = if h.survives_close() {
        drop(again);
        crate::opened::queues(&q.opened.again().await?)
    } else {
        crate::opened::queues(&again)
    };
    let mut bodies: Vec<_> = leased.iter().map(|d| d.message.body.clone()).collect();
    while bodies.len() < 5 {
        let batch = store.receive(&q.name, &Receive::up_to(10).visibility(LONG).wait(PATIENCE)).await?;
        assert!(!batch.is_empty(), "messages are missing");
        bodies.extend(batch.into_iter().map(|d| d.message.body));
    }
    bodies.sort();
    assert_eq!(bodies, ["0", "1", "2", "3", "4"]);
    Ok(())
}

/// Closing ends waiting receives, empty; later calls answer or say that the handle is `Unavailable`. Other handles go on.
pub async fn closing_ends_waiting_receives(h: &dyn Harness) -> CaseResult {
    let q = Fixture::within(Opened::in_real_time(h).await?, uncapped()).await?;
    let other = crate::opened::queues(&q.opened.again().await?);
    let (store, name) = (q.store.clone(), q.name.clone());
    let waiting = tokio::spawn(async move { patient_receive(&store, &name, &Receive::default()).await });
    tokio::time::sleep(Duration::from_millis(60)).await;
    q.store.close().await?;
    assert!(waiting.await??.is_empty());
    q.store.close().await?;
    done_or_unavailable(q.send("a").await);
    done_or_unavailable(q.store.receive(&q.name, &Receive::default().wait(Duration::from_millis(50))).await);
    done_or_unavailable(q.store.stats(&q.name).await);
    done_or_unavailable(q.store.ping().await);
    other.ping().await?;
    other.send(&q.name, NewMessage::new("b")).await?;
    assert!(!other.receive(&q.name, &Receive::default().wait(PATIENCE)).await?.is_empty());
    Ok(())
}

/// A place that can't be reached or used gives errors that say so, on opening or on use; nothing panics, nothing hangs.
pub async fn a_broken_place_gives_errors(h: &dyn Harness) -> CaseResult {
    let Some((_place, backends)) = crate::opened::broken(h).await? else { return Ok(()) };
    let (store, q) = (crate::opened::queues(&backends), "q".parse()?);
    refused_as_broken(store.ping().await);
    refused_as_broken(store.queues().await);
    refused_as_broken(store.create_queue(&q, &QueueSpec::default()).await);
    refused_as_broken(store.send(&q, NewMessage::new("a")).await);
    refused_as_broken(store.receive(&q, &Receive::default().wait(Duration::from_millis(100))).await);
    refused_as_broken(store.stats(&q).await);
    Ok(())
}
