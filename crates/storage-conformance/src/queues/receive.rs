//! Receiving, and waiting for messages.

use std::time::{Duration, Instant};

use storage_core::{ErrorKind, NewMessage, Receive};

use super::fixture::{Fixture, LONG, SHORT, ids, patient_receive, uncapped};
use crate::check::refused;
use crate::opened::{Opened, PATIENCE};
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

/// A receive takes as many as are ready, at most as many as it asks for, and does not wait for more.
pub async fn a_receive_takes_at_most_max(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    q.send_numbers(5).await?;
    assert!(q.receive(2, LONG).await?.len() <= 2);
    // One at least of those that are left; it does not wait until there are 100.
    let request = Receive::up_to(100).visibility(LONG).wait(PATIENCE);
    assert!((1..=5).contains(&q.store.receive(&q.name, &request).await?.len()));
    for bad in [
        Receive::up_to(0),
        Receive::up_to(10_001),
        Receive::default().visibility(Duration::ZERO),
        Receive::default().wait(Duration::from_secs(3_601)),
    ] {
        refused(ErrorKind::InvalidInput, q.store.receive(&q.name, &bad).await);
    }
    Ok(())
}

/// A receive that finds nothing waits as long as it was asked to, and then answers with nothing.
pub async fn an_empty_receive_waits(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let started = Instant::now();
    let request = Receive::default().wait(SHORT);
    assert!(q.store.receive(&q.name, &request).await?.is_empty());
    let waited = started.elapsed();
    assert!(waited >= SHORT - Duration::from_millis(20), "gave up after {waited:?}");
    Ok(())
}

/// A waiting receive gets what is sent meanwhile, through the same handle and through another.
pub async fn a_waiting_receive_gets_what_is_sent(h: &dyn Harness) -> CaseResult {
    let q = Fixture::within(Opened::in_real_time(h).await?, uncapped()).await?;
    let other = crate::opened::queues(&q.opened.again().await?);
    for (n, sender) in [&q.store, &other].into_iter().enumerate() {
        let (store, name) = (q.store.clone(), q.name.clone());
        let waiting = tokio::spawn(async move { patient_receive(&store, &name, &Receive::default()).await });
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(!waiting.is_finished(), "there was nothing yet");
        let sent = sender.send(&q.name, NewMessage::new(n.to_string())).await?;
        let received = waiting.await??;
        assert_eq!(received.iter().map(|d| &d.message.id).collect::<Vec<_>>(), [&sent.id]);
        q.store.delete(&q.name, &received[0].receipt).await?;
    }
    Ok(())
}

/// A waiting receive gets a message when its lease or its delay ends, and no sooner.
pub async fn a_waiting_receive_gets_what_becomes_due(h: &dyn Harness) -> CaseResult {
    let q = Fixture::within(Opened::in_real_time(h).await?, uncapped()).await?;
    q.send("leased").await?;
    let started = Instant::now();
    q.take_one(SHORT).await?;
    let again = q.take_one(LONG).await?;
    assert!(started.elapsed() >= SHORT, "its lease had not ended after {:?}", started.elapsed());
    assert_eq!(again.message.deliveries, 2);
    if q.capabilities().delay {
        let started = Instant::now();
        q.send_message(NewMessage::new("delayed").delay(SHORT)).await?;
        assert_eq!(q.take_one(LONG).await?.message.body, "delayed");
        assert!(started.elapsed() >= SHORT, "its delay was not over after {:?}", started.elapsed());
    }
    Ok(())
}

/// Several waiting receives share what is sent: each message goes to one of them, and none is left waiting while there is one.
pub async fn waiting_receives_share(h: &dyn Harness) -> CaseResult {
    let q = Fixture::within(Opened::in_real_time(h).await?, uncapped()).await?;
    let receive = || {
        let (store, name) = (q.store.clone(), q.name.clone());
        tokio::spawn(async move { patient_receive(&store, &name, &Receive::default().visibility(LONG)).await })
    };
    let waiting: Vec<_> = (0..6).map(|_| receive()).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    // All at once, then one by one.
    let mut sent = q.send_numbers(3).await?;
    for n in 3..6 {
        sent.push(q.send(&n.to_string()).await?);
    }
    let mut received = Vec::new();
    for outcome in futures::future::try_join_all(waiting).await? {
        received.extend(outcome?.into_iter().map(|d| d.message.id.to_string()));
    }
    received.sort_unstable();
    assert_eq!(received, ids(&sent).into_iter().collect::<Vec<_>>());
    Ok(())
}

/// A receive that is given up leaves at most a lease that runs out: no message is lost, and waiting goes on as before.
pub async fn a_cancelled_receive_loses_nothing(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    for round in 0..20_u64 {
        let request = Receive::up_to(3).visibility(SHORT).wait(LONG);
        let receive = q.store.receive(&q.name, &request);
        drop(tokio::time::timeout(Duration::from_micros(round * 150), receive).await);
        if round % 4 == 0 {
            q.send(&round.to_string()).await?;
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    let look = async || {
        for delivery in q.receive(10, LONG).await? {
            seen.insert(delivery.message.body);
        }
        Ok((seen.len() == 5).then_some(()))
    };
    q.opened.until("all five messages come back", SHORT * 3, look).await?;
    Ok(())
}

/// Many receivers at once never get the same message while it is leased.
pub async fn no_message_goes_to_two(h: &dyn Harness) -> CaseResult {
    let q = Fixture::open(h).await?;
    let sent = q.send_numbers(200).await?;
    let receive = |n: u32| {
        let (store, name) = (q.store.clone(), q.name.clone());
        tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let batch = store.receive(&name, &Receive::up_to(n % 7 + 1).visibility(LONG)).await?;
                if batch.is_empty() {
                    return Ok::<_, storage_core::Error>(taken);
                }
                taken.extend(batch.into_iter().map(|d| d.message.id.to_string()));
            }
        })
    };
    let mut taken = Vec::new();
    for outcome in futures::future::try_join_all((0..8).map(receive)).await? {
        taken.extend(outcome?);
    }
    let count = taken.len();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), count, "a message was received twice");
    let rest = q.take(200 - count, LONG).await?;
    taken.extend(rest.into_iter().map(|d| d.message.id.to_string()));
    taken.sort_unstable();
    assert_eq!(taken, ids(&sent).into_iter().collect::<Vec<_>>());
    Ok(())
}
