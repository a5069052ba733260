//! Leases that a consumer renews, or can't.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use storage_core::{
    BackendInfo, Consumer, ConsumerOptions, Delivery, Error, Message, MessageUpdate, NewMessage, Outcome, QueueBackend,
    QueueCapabilities, QueueName, QueueSpec, QueueStats, QueueStore, Receipt, Receive, Result, Sent,
};

use super::fixture::{Fixture, LONG, uncapped};
use crate::opened::Opened;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

/// Of a whole second, where a service counts in seconds.
const LEASE: Duration = Duration::from_secs(1);

/// In real time: a consumer waits by the clock on the wall.
async fn queue(h: &dyn Harness) -> Result<Fixture<'_>> {
    Fixture::within(Opened::in_real_time(h).await?, uncapped()).await
}

fn options(drain: bool) -> ConsumerOptions {
    ConsumerOptions { visibility: LEASE, prefetch: 0, grace: LONG, drain, ..ConsumerOptions::default() }
}

/// A handler may take ten times as long as the lease: it is renewed, and nobody else gets the message.
pub async fn leases_are_renewed_while_a_handler_runs(h: &dyn Harness) -> CaseResult {
    let q = queue(h).await?;
    q.send("slow").await?;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let handler = move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(LEASE * 10).await;
            Outcome::Done
        }
    };
    let other = async {
        // Else this one might be the first to receive it.
        while runs.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(LEASE / 20).await;
        }
        let until = Instant::now() + LEASE * 10 - LEASE / 2;
        while Instant::now() < until {
            q.nothing().await?;
            tokio::time::sleep(LEASE / 5).await;
        }
        Ok(())
    };
    let consumer = Consumer::new(&q.store, &q.name, options(true))?;
    let (report, ()) = futures::try_join!(consumer.run(handler, futures::future::pending()), other)?;
    assert_eq!((report.done, report.lost, runs.load(Ordering::SeqCst)), (1, 0, 1), "{report:?}");
    Ok(())
}

/// A handler whose lease can't be renewed is stopped when it ends, and its message goes to another consumer.
pub async fn a_consumer_that_can_not_renew_stops(h: &dyn Harness) -> CaseResult {
    let q = queue(h).await?;
    q.send("slow").await?;
    let cut_off = QueueStore::new(Arc::new(CutOff(Arc::clone(q.store.backend()))));
    let (begun, mut begins) = tokio::sync::watch::channel(false);
    let (running, mut stopped) = tokio::sync::mpsc::channel::<()>(1);
    let handler = move |_| {
        let (running, begun) = (running.clone(), begun.clone());
        async move {
            begun.send_replace(true);
            futures::future::pending::<()>().await;
            drop(running);
            Outcome::Done
        }
    };
    let mut has_begun = begins.clone();
    // It is not to take the message again itself.
    let no_more = async move { drop(has_begun.wait_for(|begun| *begun).await) };
    let consumer = Consumer::new(&cut_off, &q.name, options(false))?;
    let run = consumer.run(handler, no_more);
    let watch = async {
        begins.wait_for(|begun| *begun).await.expect("the handler is still there");
        let began = Instant::now();
        let delivery = q.take_one(LONG).await?;
        assert!(began.elapsed() >= LEASE / 2, "the lease lasts: {:?}", began.elapsed());
        assert_eq!((delivery.message.body.as_ref(), delivery.message.deliveries), (&b"slow"[..], 2));
        Ok(delivery)
    };
    let (report, delivery) = futures::try_join!(run, watch)?;
    assert_eq!((report.done, report.lost, report.released), (0, 1, 0), "{report:?}");
    assert_eq!(stopped.recv().await, None, "the handler is gone");
    q.store.delete(&q.name, &delivery.receipt).await?;
    q.assert_counts(0, 0, 0, 0).await?;
    Ok(())
}

/// A backend whose leases can't be renewed.
#[derive(Debug)]
struct CutOff(Arc<dyn QueueBackend>);

#[async_trait]
impl QueueBackend for CutOff {
    fn info(&self) -> &BackendInfo {
        self.0.info()
    }

    fn capabilities(&self) -> &QueueCapabilities {
        self.0.capabilities()
    }

    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        self.0.create_queue(queue, spec).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.0.delete_queue(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.0.queues().await
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.0.queue_spec(queue).await
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        self.0.send(queue, messages).await
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        self.0.receive(queue, request).await
    }

    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        self.0.delete(queue, receipts).await
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        match change.visibility {
            Some(visibility) if !visibility.is_zero() => Err(Error::unavailable("renewals don't get through")),
            _ => self.0.update(queue, receipt, change).await,
        }
    }

    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        self.0.peek(queue, max).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.0.stats(queue).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.0.purge(queue).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
