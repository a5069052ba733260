//! What becomes of handled messages, told to the backend in groups.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::backoff::Backoff;
use crate::{Error, ErrorKind, MessageUpdate, QueueName, QueueStore, Receipt, Result};

/// How many deletes go to the backend in one call.
const GROUP: usize = 1000;
/// How many times a settlement is tried where the backend does not answer.
const TRIES: u32 = 6;

type Request = (Receipt, oneshot::Sender<Result<()>>);

/// Tells the backend what became of messages. Deletes that come together go in one call.
pub(super) struct Settler {
    store: QueueStore,
    queue: QueueName,
    deletes: mpsc::Sender<Request>,
}

impl Settler {
    pub(super) fn new(store: QueueStore, queue: QueueName) -> Self {
        let (deletes, requests) = mpsc::channel(GROUP);
        // Ends by itself when the last sender is gone and the last request is answered.
        tokio::spawn(delete_in_groups(store.clone(), queue.clone(), requests));
        Self { store, queue, deletes }
    }

    pub(super) async fn delete(&self, receipt: Receipt) -> Result<()> {
        let ended = || Error::internal("the task that removes messages ended");
        let (answer, outcome) = oneshot::channel();
        self.deletes.send((receipt, answer)).await.map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())?
    }

    pub(super) async fn give_back(&self, receipt: &Receipt, delay: Duration) -> Result<()> {
        let change = MessageUpdate::visibility(delay);
        persist(|| self.store.update(&self.queue, receipt, &change)).await.map(drop)
    }

    pub(super) async fn dead_letter(&self, receipt: &Receipt, reason: &str) -> Result<()> {
        persist(|| self.store.dead_letter(&self.queue, receipt, reason)).await
    }
}

async fn delete_in_groups(store: QueueStore, queue: QueueName, mut requests: mpsc::Receiver<Request>) {
    let mut group = Vec::new();
    while requests.recv_many(&mut group, GROUP).await > 0 {
        let (receipts, answers): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        match persist(|| store.delete_all(&queue, &receipts)).await {
            // Whoever asked may be gone; the message is settled all the same.
            Ok(outcomes) => answers.into_iter().zip(outcomes).for_each(|(answer, outcome)| drop(answer.send(outcome))),
            Err(error) => answers.into_iter().for_each(|answer| drop(answer.send(Err(error.duplicate())))),
        }
    }
}

/// Tries again where the backend did not answer. Safe to repeat: a delete of what is gone is fine, and an update that did take effect makes the
/// second one `LeaseLost`, with the message given back as was meant.
async fn persist<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) -> Result<T> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut tries = 1;
    loop {
        match call().await {
            Err(error) if (error.is_retryable() || error.kind() == ErrorKind::Internal) && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(error.retry_after().unwrap_or_else(|| backoff.next_delay())).await;
            }
            outcome => return outcome,
        }
    }
}
