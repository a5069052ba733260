//! Leases of the messages in hand, renewed in the background.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{ErrorKind, MessageId, MessageUpdate, QueueName, QueueStore, Receipt};

/// How many renewals are under way at once.
const PARALLEL: usize = 32;

/// One message in hand.
pub(super) struct Lease {
    id: MessageId,
    /// Locked while a renewal is under way, so that whoever settles the message waits for the newest receipt.
    receipt: tokio::sync::Mutex<Receipt>,
    ended: AtomicBool,
    /// When the present lease ends, by this machine's monotonic clock: counted from before the request that renewed it; the first, which may have been
    /// waited for, from its answer.
    ends_at: Mutex<Instant>,
    lost: watch::Sender<bool>,
}

impl Lease {
    pub(super) fn id(&self) -> &MessageId {
        &self.id
    }

    /// Ready when the message is another's.
    pub(super) async fn lost(&self) {
        let mut lost = self.lost.subscribe();
        // The sender lives in `self`, so the wait ends with the value alone.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    fn ends_at(&self) -> Instant {
        *self.ends_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Leases = Arc<Mutex<HashMap<MessageId, Arc<Lease>>>>;

/// Renews the leases of all messages in hand, in a task of its own: a handler that blocks its thread does not lose its lease.
pub(super) struct Keeper {
    leases: Leases,
    visibility: Duration,
    task: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn new(store: QueueStore, queue: QueueName, visibility: Duration) -> Self {
        let leases = Leases::default();
        let renewals = Renewals { leases: Arc::clone(&leases), store, queue, visibility };
        Self { leases, visibility, task: tokio::spawn(renewals.run()) }
    }

    /// Takes a message into care.
    pub(super) fn keep(&self, id: MessageId, receipt: Receipt) -> Arc<Lease> {
        let lease = Arc::new(Lease {
            id: id.clone(),
            receipt: tokio::sync::Mutex::new(receipt),
            ended: AtomicBool::new(false),
            ends_at: Mutex::new(Instant::now() + self.visibility),
            lost: watch::Sender::new(false),
        });
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&lease));
        lease
    }

    /// Stops renewing and answers the newest receipt.
    pub(super) async fn end(&self, lease: &Arc<Lease>) -> Receipt {
        self.forget(lease);
        lease.receipt.lock().await.clone()
    }

    pub(super) fn forget(&self, lease: &Arc<Lease>) {
        lease.ended.store(true, Ordering::SeqCst);
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        // The same message may be back already, under a new lease.
        if leases.get(&lease.id).is_some_and(|held| Arc::ptr_eq(held, lease)) {
            leases.remove(&lease.id);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Renewals {
    leases: Leases,
    store: QueueStore,
    queue: QueueName,
    visibility: Duration,
}

impl Renewals {
    async fn run(self) {
        let mut tick = tokio::time::interval(self.visibility / 6);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // Renewed after a third: two thirds are left for tries that fail.
            let due_before = Instant::now() + self.visibility * 2 / 3;
            let due: Vec<_> = {
                let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
                leases.values().filter(|lease| lease.ends_at() < due_before).cloned().collect()
            };
            futures::stream::iter(due).for_each_concurrent(PARALLEL, |lease| self.renew(lease)).await;
        }
    }

    async fn renew(&self, lease: Arc<Lease>) {
        let mut receipt = lease.receipt.lock().await;
        if lease.ended.load(Ordering::SeqCst) {
            return;
        }
        let started = Instant::now();
        let change = MessageUpdate::visibility(self.visibility);
        let update = self.store.update(&self.queue, &receipt, &change);
        // A backend that hangs must not keep the other leases from being renewed.
        let renewed = tokio::time::timeout(self.visibility / 3, update).await;
        match renewed {
            Ok(Ok(newest)) => {
                *receipt = newest;
                *lease.ends_at.lock().unwrap_or_else(PoisonError::into_inner) = started + self.visibility;
            }
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::LeaseLost | ErrorKind::NotFound) => {
                lease.lost.send_replace(true);
            }
            failed => {
                let error = failed.map_or_else(
                    |_| "no answer in time".to_owned(),
                    |outcome| outcome.map_or_else(|e| e.to_string(), |_| String::new()),
                );
                tracing::warn!(queue = %self.queue, message = %lease.id, error, "can't renew a lease");
                if Instant::now() >= lease.ends_at() {
                    lease.lost.send_replace(true);
                }
            }
        }
    }
}
