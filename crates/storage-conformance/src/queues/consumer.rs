//! Consumers on top of a queue.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use storage_core::message::dead;
use storage_core::{Consumer, ConsumerOptions, Message, NewMessage, Outcome, QueueName, QueueStore};

use super::fixture::{Fixture, LONG, reason, uncapped};
use crate::opened::{Opened, PATIENCE};
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

/// How often each body was handled.
type Executions = Arc<Mutex<BTreeMap<String, usize>>>;

fn count(executions: &Executions, message: &Message) {
    let body = String::from_utf8_lossy(&message.body).into_owned();
    *executions.lock().expect("not poisoned").entry(body).or_default() += 1;
}

/// Quick retries, and an end when the queue holds nothing more.
fn draining() -> ConsumerOptions {
    ConsumerOptions {
        concurrency: 4,
        prefetch: 16,
        visibility: Duration::from_secs(20),
        retry_first: Duration::from_millis(10),
        retry_longest: Duration::from_millis(40),
        drain: true,
        ..ConsumerOptions::default()
    }
}

/// In real time: a consumer waits by the clock on the wall.
async fn queue(h: &dyn Harness) -> storage_core::Result<Fixture<'_>> {
    Fixture::within(Opened::in_real_time(h).await?, uncapped()).await
}

/// A queue with that delivery cap, where the backend keeps dead letters.
async fn capped(h: &dyn Harness, max: u32) -> storage_core::Result<Fixture<'_>> {
    let opened = Opened::in_real_time(h).await?;
    let spec = opened.queues().default_spec();
    let spec = spec.max_deliveries(spec.max_deliveries.map(|_| max));
    Fixture::within(opened, spec).await
}

fn never() -> impl Future<Output = ()> + Send {
    futures::future::pending()
}

/// Two consumers on two handles share 1,000 messages: 1,000 executions, each message handled exactly once, and nothing is left.
pub async fn two_consumers_share_a_thousand_messages(h: &dyn Harness) -> CaseResult {
    let q = queue(h).await?;
    q.send_numbers(1_000).await?;
    let other = crate::opened::queues(&q.opened.again().await?);
    let executions = Executions::default();
    let consume = |store: &QueueStore| {
        let (store, name, executions) = (store.clone(), q.name.clone(), Arc::clone(&executions));
        async move {
            let consumer = Consumer::new(&store, &name, draining())?;
            let handler = move |message: Message| {
                count(&executions, &message);
                async { Outcome::Done }
            };
            consumer.run(handler, never()).await
        }
    };
    let (one, two) = futures::try_join!(consume(&q.store), consume(&other))?;
    assert_eq!((one.done + two.done, one.lost + two.lost), (1_000, 0), "{one:?} {two:?}");
    let executions = executions.lock().expect("not poisoned").clone();
    let not_once: Vec<_> = executions.iter().filter(|(_, times)| **times != 1).collect();
    assert!(executions.len() == 1_000 && not_once.is_empty(), "{} messages, not once: {not_once:?}", executions.len());
    q.assert_counts(0, 0, 0, 0).await?;
    Ok(())
}

/// A handler that fails is run again, each time a delivery later, until it succeeds.
pub async fn failures_are_tried_again(h: &dyn Harness) -> CaseResult {
    let q = queue(h).await?;
    q.send_numbers(10).await?;
    let handler = |message: Message| async move {
        match message.deliveries {
            1 => Outcome::retry("not yet"),
            2 => panic!("a handler that panics is tried again as well"),
            _ => Outcome::Done,
        }
    };
    let report = Consumer::new(&q.store, &q.name, draining())?.run(handler, never()).await?;
    assert_eq!((report.done, report.retried, report.rejected), (10, 20, 0), "{report:?}");
    q.assert_counts(0, 0, 0, 0).await?;
    Ok(())
}

/// A message that fails as often as its queue allows is a dead letter, with the last failure in its reason; a rejected one at once.
pub async fn hopeless_messages_become_dead_letters(h: &dyn Harness) -> CaseResult {
    let q = capped(h, 3).await?;
    let executions = Executions::default();
    for body in ["good", "fails", "rejected"] {
        q.send(body).await?;
    }
    let counted = Arc::clone(&executions);
    let handler = move |message: Message| {
        count(&counted, &message);
        async move {
            match &message.body[..] {
                b"good" => Outcome::Done,
                b"fails" => Outcome::retry("out of order"),
                _ => Outcome::reject("no such thing"),
            }
        }
    };
    if !q.capabilities().dead_letter {
        let stop = async { tokio::time::sleep(Duration::from_millis(300)).await };
        let options = ConsumerOptions { drain: false, ..draining() };
        let report = Consumer::new(&q.store, &q.name, options)?.run(handler, stop).await?;
        assert_eq!(report.done, 1, "the others wait, and are not lost: {report:?}");
        return Ok(());
    }
    let report = Consumer::new(&q.store, &q.name, draining())?.run(handler, never()).await?;
    assert_eq!((report.done, report.retried, report.rejected), (1, 2, 2), "{report:?}");
    assert_eq!(
        executions.lock().expect("not poisoned").clone(),
        [("fails", 3), ("good", 1), ("rejected", 1)].map(|(b, n)| (b.to_owned(), n)).into()
    );
    let letters = q.dead_letters().await?;
    let about = |body: &[u8]| letters.iter().find(|m| m.body[..] == *body).map(reason);
    assert_eq!(about(b"rejected"), Some("no such thing"));
    let failed = about(b"fails").expect("a dead letter");
    assert!(failed.starts_with(dead::MAX_DELIVERIES) && failed.contains("out of order"), "{failed}");
    q.assert_counts(0, 0, 0, 2).await?;
    Ok(())
}

/// On shutdown running handlers finish, nothing new is started, and what was leased ahead is given back at once.
pub async fn a_shutdown_gives_back_what_it_has_not_begun(h: &dyn Harness) -> CaseResult {
    let q = queue(h).await?;
    q.send_numbers(20).await?;
    let (begun, begins) = tokio::sync::watch::channel(0);
    let executions = Executions::default();
    let counted = Arc::clone(&executions);
    let handler = move |message: Message| {
        count(&counted, &message);
        begun.send_modify(|n| *n += 1);
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Outcome::Done
        }
    };
    let mut begins_too = begins.clone();
    let shutdown = async move {
        begins_too.wait_for(|n| *n >= 2).await.expect("the handlers are still there");
    };
    let options = ConsumerOptions { concurrency: 2, prefetch: 10, drain: false, ..draining() };
    let report = Consumer::new(&q.store, &q.name, options)?.run(handler, shutdown).await?;
    let handled: usize = executions.lock().expect("not poisoned").values().sum();
    assert_eq!(usize::try_from(report.done)?, handled, "what was begun was finished: {report:?}");
    assert!(report.released > 0 && handled < 20, "{report:?}");
    // All the others are there at once, not when some lease ends.
    assert_eq!(q.take(20 - handled, LONG).await?.len(), 20 - handled);
    q.nothing().await?;
    Ok(())
}

/// A consumer waits for messages that come later, and outlives its queue's being empty.
pub async fn a_consumer_waits_for_messages(h: &dyn Harness) -> CaseResult {
    let q = queue(h).await?;
    let (seen, mut sees) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |message: Message| {
        seen.send(message.body).expect("somebody looks");
        async { Outcome::Done }
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let consumer = Consumer::new(&q.store, &q.name, ConsumerOptions { drain: false, ..draining() })?;
    let run = consumer.run(handler, async move { drop(stopped.await) });
    let send = async {
        for n in 0..5 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            q.send(&n.to_string()).await?;
            let body = tokio::time::timeout(PATIENCE, sees.recv()).await.expect("it comes in time");
            assert_eq!(body.as_deref(), Some(n.to_string().as_bytes()));
        }
        drop(stop);
        Ok(())
    };
    let (report, ()) = futures::try_join!(run, send)?;
    assert_eq!(report.done, 5);
    Ok(())
}

/// A consumer of a queue that is not there ends with `NotFound`, and one that can't work is refused.
pub async fn bad_consumers_are_refused(h: &dyn Harness) -> CaseResult {
    use storage_core::ErrorKind::{InvalidInput, NotFound};
    let q = queue(h).await?;
    let nowhere: QueueName = "nowhere".parse()?;
    let consumer = Consumer::new(&q.store, &nowhere, draining())?;
    crate::check::refused(NotFound, consumer.run(|_| async { Outcome::Done }, never()).await);
    for options in
        [ConsumerOptions { concurrency: 0, ..draining() }, ConsumerOptions { visibility: Duration::ZERO, ..draining() }]
    {
        crate::check::refused(InvalidInput, Consumer::new(&q.store, &q.name, options).map(drop));
    }
    Ok(())
}

/// A consumer can also work on dead letters.
pub async fn dead_letters_can_be_consumed(h: &dyn Harness) -> CaseResult {
    let q = capped(h, 10).await?;
    if !q.capabilities().dead_letter {
        crate::check::refused(storage_core::ErrorKind::Unsupported, q.store.redrive(&q.name, 1).await);
        return Ok(());
    }
    q.send_message(NewMessage::new("a")).await?;
    let taken = q.take_one(LONG).await?;
    q.store.dead_letter(&q.name, &taken.receipt, "test").await?;
    let report = Consumer::new(&q.store, &q.dead(), draining())?.run(|_| async { Outcome::Done }, never()).await?;
    assert_eq!(report.done, 1);
    q.assert_counts(0, 0, 0, 0).await?;
    Ok(())
}
