//! [`Consumer`]: handlers run on messages, with leases renewed, failures backed off, poison set aside, and a shutdown that loses nothing.

mod lease;
mod settle;

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::lease::{Keeper, Lease};
use self::settle::Settler;
use crate::backoff::Backoff;
use crate::{Count, Delivery, Error, ErrorKind, Message, QueueName, QueueStore, Receive, Result};

/// What a handler says of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done: remove it.
    Done,
    /// Not now: deliver it again later. At the queue's delivery cap it becomes a dead letter instead, with this reason.
    Retry {
        /// Why.
        reason: String,
        /// After how long. `None`: the consumer's backoff.
        after: Option<Duration>,
    },
    /// Never: make it a dead letter.
    Reject {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// [`Outcome::Retry`] with the consumer's backoff.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::Retry { reason: reason.to_string(), after: None }
    }

    /// [`Outcome::Reject`].
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self::Reject { reason: reason.to_string() }
    }
}

impl<E: fmt::Display> From<std::result::Result<(), E>> for Outcome {
    /// `Ok`: done; `Err`: retry.
    fn from(result: std::result::Result<(), E>) -> Self {
        result.map_or_else(Self::retry, |()| Self::Done)
    }
}

/// How a [`Consumer`] works.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// How many handlers run at once.
    pub concurrency: usize,
    /// How many further messages are leased ahead, so that a free handler need not wait for the backend.
    pub prefetch: usize,
    /// How long a lease is. It is renewed after a third of it, for as long as the handler runs: it bounds how long a message of a *killed*
    /// consumer stays away, not how long a handler may take.
    pub visibility: Duration,
    /// The first delay before a failed message is delivered again; it doubles with every delivery.
    pub retry_first: Duration,
    /// The longest such delay.
    pub retry_longest: Duration,
    /// How long running handlers may go on after a shutdown began. Then they are dropped and their messages given back.
    pub grace: Duration,
    /// True: end when the queue holds nothing more, neither ready nor delayed nor leased.
    pub drain: bool,
}

impl Default for ConsumerOptions {
    /// 1 handler, 1 message ahead, leases of 30 s, retries after 1 s up to 5 min, 30 s of grace, no end.
    fn default() -> Self {
        Self {
            concurrency: 1,
            prefetch: 1,
            visibility: Duration::from_secs(30),
            retry_first: Duration::from_secs(1),
            retry_longest: Duration::from_secs(300),
            grace: Duration::from_secs(30),
            drain: false,
        }
    }
}

/// What a [`Consumer`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerReport {
    /// Handled and removed.
    pub done: u64,
    /// Given back to be delivered again later.
    pub retried: u64,
    /// Made dead letters.
    pub rejected: u64,
    /// Lost to another consumer, since the lease could not be renewed in time.
    pub lost: u64,
    /// Given back at once, because of the shutdown.
    pub released: u64,
}

/// Runs a handler on the messages of a queue. Written once for every backend.
///
/// - A lease is renewed while its handler runs or waits for its turn. Where that fails until it ends, the handler is dropped: the message is
///   another's now.
/// - A backend that does not answer is asked again, a little later each time, for ever: a consumer outlives its broker's restart.
/// - A handler that panics is a [`Outcome::Retry`].
/// - On shutdown nothing more is received; running handlers get their grace; what can't be finished is given back at once.
#[derive(Clone, Debug)]
pub struct Consumer {
    store: QueueStore,
    queue: QueueName,
    options: ConsumerOptions,
}

/// Shared by the tasks of one run.
struct Run {
    store: QueueStore,
    queue: QueueName,
    options: ConsumerOptions,
    max_deliveries: Option<u32>,
    keeper: Keeper,
    settler: Settler,
    tally: Tally,
    /// Turns true when nothing more is to be started.
    closing: watch::Sender<bool>,
    /// Turns true when running handlers are to be dropped.
    aborting: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Tally {
    done: AtomicU64,
    retried: AtomicU64,
    rejected: AtomicU64,
    lost: AtomicU64,
    released: AtomicU64,
}

impl Tally {
    fn report(&self) -> ConsumerReport {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        ConsumerReport {
            done: get(&self.done),
            retried: get(&self.retried),
            rejected: get(&self.rejected),
            lost: get(&self.lost),
            released: get(&self.released),
        }
    }
}

impl Consumer {
    /// A consumer of `queue`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a concurrency of zero, or one that with the prefetch exceeds what one receive may take; for a visibility under
    /// 30 ms, which can't be renewed in time.
    pub fn new(store: &QueueStore, queue: &QueueName, options: ConsumerOptions) -> Result<Self> {
        let ahead = options.concurrency.saturating_add(options.prefetch);
        if options.concurrency == 0 || ahead > crate::message::MAX_MESSAGES as usize {
            return Err(Error::invalid(format!(
                "a consumer runs 1 handler or more, with 10,000 messages at most in hand: not {} and {} ahead",
                options.concurrency, options.prefetch
            )));
        }
        if options.visibility < Duration::from_millis(30) {
            return Err(Error::invalid(format!("leases of {:?} can't be renewed in time: 30 ms at least", options.visibility)));
        }
        Receive::default().visibility(options.visibility).check()?;
        Ok(Self { store: store.clone(), queue: queue.clone(), options })
    }

    /// Runs until `shutdown` is ready, or, with [`drain`](ConsumerOptions::drain), until the queue holds nothing more.
    ///
    /// Cancelled instead (the future dropped), running handlers are dropped too and their messages come back when their leases end.
    ///
    /// # Errors
    /// What waiting can't mend: [`NotFound`](ErrorKind::NotFound) (no such queue), [`Unauthorized`](ErrorKind::Unauthorized), [`InvalidInput`](ErrorKind::InvalidInput),
    /// [`Unsupported`](ErrorKind::Unsupported). Messages in hand are finished or given back first.
    pub async fn run<H, F, S>(&self, handler: H, shutdown: S) -> Result<ConsumerReport>
    where
        H: Fn(Message) -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
        S: Future<Output = ()> + Send,
    {
        let spec = self.store.queue_spec(&self.queue).await?;
        let run = Arc::new(Run {
            keeper: Keeper::new(self.store.clone(), self.queue.clone(), self.options.visibility),
            settler: Settler::new(self.store.clone(), self.queue.clone()),
            store: self.store.clone(),
            queue: self.queue.clone(),
            options: self.options.clone(),
            max_deliveries: spec.max_deliveries,
            tally: Tally::default(),
            closing: watch::Sender::new(false),
            aborting: watch::Sender::new(false),
        });
        let mut handlers = JoinSet::new();
        let received = run.receive_all(&Arc::new(handler), shutdown, &mut handlers).await;
        run.finish(&mut handlers).await;
        received.map(|()| run.tally.report())
    }
}

impl Run {
    async fn receive_all<H, F, S>(self: &Arc<Self>, handler: &Arc<H>, shutdown: S, handlers: &mut JoinSet<()>) -> Result<()>
    where
        H: Fn(Message) -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
        S: Future<Output = ()> + Send,
    {
        // A wait is never cut short by a shutdown (what it was about to lease would stay away for the length of the lease), so it is short itself;
        // shorter where an empty queue is what is waited for.
        let wait = Duration::from_millis(if self.options.drain { 50 } else { 500 });
        let slots = Arc::new(Semaphore::new(self.options.concurrency));
        let in_hand = Arc::new(Semaphore::new(self.options.concurrency + self.options.prefetch));
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let first = tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                permit = Arc::clone(&in_hand).acquire_owned() => permit,
            };
            let Ok(first) = first else { return Err(Error::internal("a consumer's semaphore was closed")) };
            let mut permits = vec![first];
            while let Ok(permit) = Arc::clone(&in_hand).try_acquire_owned() {
                permits.push(permit);
            }
            let max = u32::try_from(permits.len()).unwrap_or(u32::MAX);
            let request = Receive { max, visibility: self.options.visibility, wait };
            let deliveries = match self.store.receive(&self.queue, &request).await {
                Ok(deliveries) => {
                    backoff.reset();
                    deliveries
                }
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    let delay = error.retry_after().unwrap_or_else(|| backoff.next_delay());
                    tracing::warn!(queue = %self.queue, %error, ?delay, "can't receive, trying again");
                    drop(permits);
                    tokio::select! {
                        () = &mut shutdown => return Ok(()),
                        () = tokio::time::sleep(delay) => continue,
                    }
                }
            };
            if deliveries.is_empty() && self.options.drain && self.is_drained(handlers).await {
                return Ok(());
            }
            for delivery in deliveries {
                let permit = permits.pop();
                let (run, handler, slots) = (Arc::clone(self), Arc::clone(handler), Arc::clone(&slots));
                handlers.spawn(async move {
                    run.handle(delivery, &*handler, &slots).await;
                    drop(permit);
                });
            }
            while handlers.try_join_next().is_some() {}
        }
    }

    /// True where nothing is in hand and the queue holds nothing, as far as the backend can tell.
    async fn is_drained(&self, handlers: &mut JoinSet<()>) -> bool {
        while handlers.try_join_next().is_some() {}
        if !handlers.is_empty() {
            return false;
        }
        match self.store.stats(&self.queue).await {
            Ok(stats) => [stats.ready, stats.delayed, stats.leased]
                .into_iter()
                .all(|n| matches!(n, Count::Exact(0) | Count::Estimate(0) | Count::Unknown)),
            Err(error) => {
                tracing::warn!(queue = %self.queue, %error, "can't tell whether the queue is empty, going on");
                false
            }
        }
    }

    async fn handle<H, F>(&self, delivery: Delivery, handler: &H, slots: &Semaphore)
    where
        H: Fn(Message) -> F,
        F: Future<Output = Outcome>,
    {
        let Delivery { message, receipt, .. } = delivery;
        let deliveries = message.deliveries;
        let lease = self.keeper.keep(message.id.clone(), receipt);
        let (mut closing, mut aborting) = (self.closing.subscribe(), self.aborting.subscribe());
        let slot = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => None,
            () = lease.lost() => {
                self.tally.lost.fetch_add(1, Ordering::Relaxed);
                return self.keeper.forget(&lease);
            }
            slot = slots.acquire() => slot.ok(),
        };
        let Some(slot) = slot else { return self.release(&lease).await };
        let work = AssertUnwindSafe(async { handler(message).await }).catch_unwind();
        let outcome = tokio::select! {
            biased;
            outcome = work => Some(outcome.unwrap_or_else(|panic| Outcome::retry(format!("the handler panicked: {}", panic_text(&*panic))))),
            () = lease.lost() => {
                tracing::warn!(queue = %self.queue, message = %lease.id(), "the lease is lost: dropped the handler");
                self.tally.lost.fetch_add(1, Ordering::Relaxed);
                return self.keeper.forget(&lease);
            }
            _ = aborting.wait_for(|aborting| *aborting) => None,
        };
        // The next handler need not wait until the backend has confirmed this one's end.
        drop(slot);
        match outcome {
            Some(outcome) => self.settle(&lease, outcome, deliveries).await,
            None => self.release(&lease).await,
        }
    }

    async fn settle(&self, lease: &Arc<Lease>, outcome: Outcome, deliveries: u32) {
        let capped = self.max_deliveries.is_some_and(|max| deliveries >= max);
        let can_bury = self.store.capabilities().dead_letter && !self.queue.is_dead_letter();
        let receipt = self.keeper.end(lease).await;
        let (settled, counter) = match outcome {
            Outcome::Done => (self.settler.delete(receipt).await, &self.tally.done),
            Outcome::Reject { reason } if can_bury => (self.settler.dead_letter(&receipt, &reason).await, &self.tally.rejected),
            Outcome::Retry { reason, .. } if can_bury && capped => {
                let reason = format!("{}: {reason}", crate::message::dead::MAX_DELIVERIES);
                (self.settler.dead_letter(&receipt, &reason).await, &self.tally.rejected)
            }
            // Without dead letters a rejected message waits as long as may be, rather than being dropped or looping.
            Outcome::Reject { .. } => (self.settler.give_back(&receipt, self.options.retry_longest).await, &self.tally.rejected),
            Outcome::Retry { after, .. } => {
                let backoff = Backoff::new(self.options.retry_first, self.options.retry_longest);
                let delay = after.unwrap_or_else(|| backoff.delay_after(deliveries.saturating_sub(1)));
                (self.settler.give_back(&receipt, delay).await, &self.tally.retried)
            }
        };
        self.count(settled, counter, lease);
    }

    async fn release(&self, lease: &Arc<Lease>) {
        let receipt = self.keeper.end(lease).await;
        let released = self.settler.give_back(&receipt, Duration::ZERO).await;
        self.count(released, &self.tally.released, lease);
    }

    fn count(&self, settled: Result<()>, counter: &AtomicU64, lease: &Lease) {
        match settled {
            Ok(()) => counter.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(queue = %self.queue, message = %lease.id(), %error, "can't settle a message: it will be delivered again");
                self.tally.lost.fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    async fn finish(&self, handlers: &mut JoinSet<()>) {
        self.closing.send_replace(true);
        let all_ended = async { while handlers.join_next().await.is_some() {} };
        if tokio::time::timeout(self.options.grace, all_ended).await.is_err() {
            tracing::warn!(queue = %self.queue, running = handlers.len(), "the grace is over: dropping handlers");
            self.aborting.send_replace(true);
            while handlers.join_next().await.is_some() {}
        }
    }
}

fn is_final(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::Unauthorized | ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::Config
    )
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}
