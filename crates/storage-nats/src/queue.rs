//! The queue backend.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;
use serde_json::json;
use storage_core::{
    BackendInfo, Delivery, Error, ErrorKind, MessageUpdate, NewMessage, QueueBackend, QueueCapabilities, QueueName, QueueSpec,
    QueueStats, Receipt, Receive, Result, Sent,
};

use crate::codec::RESERVE;
use crate::leases::{Claim, Lease};
use crate::names::Lane;
use crate::open::{ACK_WAIT, Open};
use crate::settle::{self, Word};
use crate::store::{Inner, Part};
use crate::{admin, moves, receive, send};

/// How many messages are looked up at once.
const LOOKUPS: usize = 64;

/// Queues on NATS JetStream.
#[derive(Clone, Debug)]
pub struct NatsQueue {
    inner: Arc<Inner>,
    capabilities: QueueCapabilities,
}

/// A queue, the part of it that was named, and what the server knows of it.
#[derive(Clone)]
struct Found {
    queue: QueueName,
    lane: Lane,
    open: Arc<Open>,
}

impl NatsQueue {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let capabilities = QueueCapabilities {
            delay: true,
            ttl: true,
            priority: false,
            dedup: true,
            fifo: true,
            peek: false,
            update_body: false,
            dead_letter: true,
            atomic_send: false,
            receipts_across_processes: false,
            wakes: true,
            max_body_bytes: inner.client.max_payload().saturating_sub(RESERVE),
            // The server syncs files every two minutes.
            durable: false,
        };
        Self { inner, capabilities }
    }

    async fn open(&self, name: &QueueName) -> Result<Found> {
        let (queue, lane) = match name.dead_letter_of() {
            Some(queue) => (queue, Lane::Dead),
            None => (name.clone(), Lane::Live),
        };
        let open = admin::open(&self.inner, &queue).await.map_err(|error| missing(error, name))?;
        Ok(Found { queue, lane, open })
    }

    /// The queue anew, after what was known of it turned out to be no longer so. `error` is what to say where it is as it was.
    async fn again(&self, found: &Found, name: &QueueName, error: Error) -> Result<Found> {
        let lacks = error.kind() == ErrorKind::NotFound;
        if !lacks && error.kind() != ErrorKind::Unavailable {
            return Err(error);
        }
        let open = match admin::find(&self.inner, &found.queue).await {
            Ok(open) => open,
            Err(gone) if gone.kind() == ErrorKind::NotFound => return Err(missing(gone, name)),
            // Nothing is known to be gone: in a cluster that chooses a leader nobody answers for a while.
            Err(silent) if lacks => return Err(silent),
            Err(_) => return Err(error),
        };
        if open.names.life == found.open.names.life {
            if !lacks {
                return Err(error);
            }
            // The queue is there, a consumer of it is not: somebody removed it.
            admin::create_consumers(&self.inner.client, &open.names).await?;
        }
        Ok(Found { open, ..found.clone() })
    }

    /// Does it, and once more where the queue is another than was known, or lacks a consumer.
    async fn with<T, F>(&self, name: &QueueName, work: impl Fn(Found) -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let found = self.open(name).await?;
        let error = match work(found.clone()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => error,
            outcome => return outcome,
        };
        let found = self.again(&found, name, error).await?;
        // It is there now, as `again` says: what is not there yet is somebody who answers for it.
        work(found).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::unavailable("no server answers for the queue's consumers now").with_source(error),
            _ => error,
        })
    }

    /// The lease of a receipt.
    fn lease(&self, found: &Found, receipt: &Receipt) -> Result<Lease> {
        self.inner.leases.find(receipt, &found.open.names.life, found.lane).ok_or_else(lost)
    }

    /// What a delete by a receipt that proves nothing comes to.
    async fn late_delete(&self, found: &Found, receipt: &Receipt) -> Result<()> {
        let names = &found.open.names;
        let claim = Claim::read(receipt).filter(|claim| claim.life == *names.life && claim.lane == found.lane);
        let Some(claim) = claim else { return Err(lost()) };
        // Where it was; where it went when it died; where it went from there.
        let places = [
            json!({"seq": claim.sequence}),
            json!({"last_by_subj": names.dead(&claim.id)}),
            json!({"last_by_subj": names.live(&claim.id)}),
        ];
        for place in places.iter().take(if found.lane == Lane::Live { 3 } else { 1 }) {
            if admin::get(&self.inner, names, place).await?.is_some() {
                return Err(lost());
            }
        }
        Ok(())
    }

    /// Gives a message back; one that must not be delivered any more dies at once.
    async fn give_back(&self, found: &Found, lease: &Lease) -> Result<()> {
        let stored = moves::fetch(&self.inner, &found.open, lease.sequence).await?;
        match moves::doom(&found.open, found.lane, &stored, lease.deliveries) {
            Some(reason) => {
                let (inner, sequence) = (&self.inner, lease.sequence);
                moves::entomb(inner, &found.queue, &found.open, &stored, sequence, reason, lease.deliveries).await?;
                settle::say(&self.inner.client, &lease.reply, Word::Done).await
            }
            None => settle::say(&self.inner.client, &lease.reply, Word::Again).await,
        }
    }

    async fn renew(&self, found: &Found, receipt: &Receipt, lease: &Lease, change: &MessageUpdate) -> Result<Receipt> {
        let lost = || Error::lease_lost("another call used the receipt meanwhile");
        // The server hears this of a message that is gone, too.
        moves::fetch(&self.inner, &found.open, lease.sequence).await?;
        let Some(visibility) = change.visibility else {
            return self.inner.leases.renew(receipt, lease.ends).ok_or_else(lost);
        };
        let started = Instant::now();
        self.inner.leases.shorten(receipt, started + visibility);
        settle::say(&self.inner.client, &lease.reply, Word::lease(visibility, ACK_WAIT)).await?;
        self.inner.leases.renew(receipt, started + visibility).ok_or_else(lost)
    }
}

fn lost() -> Error {
    Error::lease_lost("the lease has ended, or the receipt is not the newest, or not of this process")
}

fn missing(error: Error, name: &QueueName) -> Error {
    if error.kind() == ErrorKind::NotFound { Error::not_found(format!("there is no queue `{name}`")) } else { error }
}

#[async_trait]
impl QueueBackend for NatsQueue {
    fn info(&self) -> &BackendInfo {
        &self.inner.info
    }

    fn capabilities(&self) -> &QueueCapabilities {
        &self.capabilities
    }

    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        self.inner.check_open(Part::Queue)?;
        admin::create(&self.inner, queue, spec).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.inner.check_open(Part::Queue)?;
        admin::delete(&self.inner, queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.inner.check_open(Part::Queue)?;
        admin::list(&self.inner).await
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.inner.check_open(Part::Queue)?;
        match queue.dead_letter_of() {
            Some(source) => {
                let spec = admin::find(&self.inner, &source).await.map_err(|error| missing(error, queue))?.spec;
                Ok(spec.max_deliveries(None))
            }
            None => Ok(admin::find(&self.inner, queue).await?.spec),
        }
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        let found = self.open(queue).await?;
        match send::send(&self.inner, &found.open, messages).await {
            // Nobody took it: there is no such stream, or no JetStream.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                Err(match self.again(&found, queue, error.duplicate()).await {
                    Err(better) => better,
                    Ok(_) => error,
                })
            }
            outcome => outcome,
        }
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        self.with(queue, |f| async move { receive::receive(&self.inner, &f.queue, &f.open, f.lane, request).await }).await
    }

    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        let found = self.open(queue).await?;
        let leases: Vec<_> = receipts.iter().map(|receipt| self.lease(&found, receipt).ok()).collect();
        let replies: Vec<_> = leases.iter().flatten().map(|lease| lease.reply.clone()).collect();
        let said = settle::say_all(&self.inner.client, &replies, Word::Done).await;
        let said = match said {
            Ok(()) => Ok(()),
            // Gone with its queue? Then that is the news; gone with one of another life, and there is one again: nobody holds it any more.
            Err(error) => match self.again(&found, queue, error).await {
                Ok(_) => Err(lost()),
                Err(error) if error.kind() == ErrorKind::NotFound => return Err(error),
                Err(error) => Err(error),
            },
        };
        let (mut outcomes, mut late) = (Vec::with_capacity(receipts.len()), Vec::new());
        for (index, (receipt, lease)) in receipts.iter().zip(&leases).enumerate() {
            outcomes.push(match (lease, &said) {
                (Some(_), Ok(())) => {
                    self.inner.leases.forget(receipt);
                    Ok(())
                }
                (Some(_), Err(error)) => Err(error.duplicate()),
                (None, _) => {
                    late.push((index, receipt));
                    Err(lost())
                }
            });
        }
        let found = &found;
        let late: Vec<_> =
            late.into_iter().map(|(index, receipt)| async move { (index, self.late_delete(found, receipt).await) }).collect();
        let mut late = futures::stream::iter(late).buffer_unordered(LOOKUPS);
        while let Some((index, outcome)) = late.next().await {
            outcomes[index] = outcome;
        }
        Ok(outcomes)
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        let found = self.open(queue).await?;
        let Ok(lease) = self.lease(&found, receipt) else {
            // Of a queue that is gone, that is to be said.
            self.still_there(&found, queue).await?;
            return self.lease(&found, receipt).map(|_| receipt.clone());
        };
        if change.visibility.is_some_and(|visibility| visibility.is_zero()) {
            let (this, receipt) = (self.clone(), receipt.clone());
            return uninterrupted(async move {
                this.give_back(&found, &lease).await?;
                this.inner.leases.forget(&receipt);
                Ok(this.inner.leases.spent(&lease))
            })
            .await;
        }
        let renewed = self.renew(&found, receipt, &lease, change).await;
        if renewed.as_ref().is_err_and(|error| error.kind() == ErrorKind::LeaseLost) {
            self.inner.leases.forget(receipt);
        }
        renewed
    }

    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        let found = self.open(queue).await?;
        let Ok(lease) = self.lease(&found, receipt) else {
            self.still_there(&found, queue).await?;
            return self.lease(&found, receipt).map(drop);
        };
        let (this, receipt, reason) = (self.clone(), receipt.clone(), reason.to_owned());
        uninterrupted(async move {
            let stored = moves::fetch(&this.inner, &found.open, lease.sequence).await?;
            let Lease { sequence, deliveries, .. } = lease;
            moves::entomb(&this.inner, &found.queue, &found.open, &stored, sequence, &reason, deliveries).await?;
            settle::say(&this.inner.client, &lease.reply, Word::Done).await?;
            this.inner.leases.forget(&receipt);
            Ok(())
        })
        .await
    }

    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        self.with(queue, |found| {
            let inner = Arc::clone(&self.inner);
            uninterrupted(async move { moves::redrive(&inner, &found.open, max).await })
        })
        .await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.with(queue, |found| async move { admin::stats(&self.inner, &found.open, found.lane).await }).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.with(queue, |found| async move { admin::purge(&self.inner, &found.open, found.lane).await }).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping(Part::Queue).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close(Part::Queue).await;
        Ok(())
    }
}

impl NatsQueue {
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) where the queue is gone, or its name is another queue's now.
    async fn still_there(&self, found: &Found, name: &QueueName) -> Result<()> {
        admin::find(&self.inner, &found.queue).await.map(drop).map_err(|error| missing(error, name))
    }
}

/// Does all of it, also where the caller goes away.
async fn uninterrupted<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.map_err(|e| Error::internal("a task ended before its time").with_source(e))?
}
