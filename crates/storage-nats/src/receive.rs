//! Receiving.
//!
//! A receive is a task of its own. A caller that goes away stops it; what it has taken until then, or is just being given, goes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subject;
use chrono::Utc;
use storage_core::{Delivery, Error, QueueName, Receive, Result};
use tokio::sync::watch;

use crate::codec::{self, Stored};
use crate::later;
use crate::leases::Lease;
use crate::moves::{self, Doomed};
use crate::names::Lane;
use crate::open::{ACK_WAIT, MAX_BYTES, Open};
use crate::pull::{self, Pulled, Question, Raw};
use crate::settle::{self, Word};
use crate::store::Inner;

/// The longest that the server is asked to wait at a time. A question of somebody who was killed stays no longer.
const SLICE: Duration = Duration::from_secs(2);
/// A lease of the consumer's own length need not be set, where its messages came within this time: it is taken to begin when they were asked for.
const PROMPT: Duration = Duration::from_secs(1);

/// What a message is.
pub(crate) fn read(raw: &Raw) -> Stored {
    codec::decode(raw.headers.as_ref(), raw.body.clone(), raw.sequence, raw.stored)
}

/// Deliveries on their way to the caller. Dropped on it, they go back.
#[derive(Debug)]
struct Taken {
    inner: Arc<Inner>,
    deliveries: Vec<Delivery>,
    /// Where each is acknowledged.
    replies: Vec<Subject>,
}

impl Taken {
    fn accept(mut self) -> Vec<Delivery> {
        self.replies.clear();
        std::mem::take(&mut self.deliveries)
    }

    fn bytes(&self) -> usize {
        self.deliveries.iter().map(|delivery| delivery.message.body.len()).sum()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let replies = std::mem::take(&mut self.replies);
        let receipts: Vec<_> = self.deliveries.drain(..).map(|delivery| delivery.receipt).collect();
        for receipt in &receipts {
            self.inner.leases.forget(receipt);
        }
        // Without a runtime they come back when their leases end.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !replies.is_empty() {
            let inner = Arc::clone(&self.inner);
            runtime.spawn(async move {
                let _active = inner.enter();
                if let Err(error) = settle::say_all(&inner.client, &replies, Word::Again).await {
                    tracing::debug!(%error, "messages that nobody waited for come back when their leases end");
                }
            });
        }
    }
}

/// Leases messages of a part of a queue.
///
/// # Errors
/// [`NotFound`](storage_core::ErrorKind::NotFound) where the consumer is gone; the server's.
pub(crate) async fn receive(
    inner: &Arc<Inner>,
    queue: &QueueName,
    open: &Arc<Open>,
    lane: Lane,
    request: &Receive,
) -> Result<Vec<Delivery>> {
    // Dropped with this future.
    let (_caller, gone) = watch::channel(false);
    let gather = Gather {
        inner: Arc::clone(inner),
        queue: queue.clone(),
        open: Arc::clone(open),
        lane,
        request: *request,
        until: Instant::now() + request.wait,
    };
    let task = tokio::spawn(gather.run(gone));
    let taken = task.await.map_err(|e| Error::internal("a receive ended before its time").with_source(e))?;
    taken.map(Taken::accept)
}

struct Gather {
    inner: Arc<Inner>,
    queue: QueueName,
    open: Arc<Open>,
    lane: Lane,
    request: Receive,
    until: Instant,
}

impl Gather {
    async fn run(self, mut gone: watch::Receiver<bool>) -> Result<Taken> {
        let _active = self.inner.enter();
        let mut closing = self.inner.closing();
        let mut taken = Taken { inner: Arc::clone(&self.inner), deliveries: Vec::new(), replies: Vec::new() };
        let max = self.request.max as usize;
        if self.lane == Lane::Live {
            later::watch(&self.inner, &self.open, self.until);
        }
        let (mut looked, mut waited) = (false, false);
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let wait = (taken.deliveries.is_empty() && !left.is_zero()).then(|| left.min(SLICE));
            let stop = pull::stopped(&mut gone, &mut closing);
            // Once it turned out that there is nothing, one is waited for; the others are fetched when it came.
            let wanted = if waited && wait.is_some() { 1 } else { max - taken.deliveries.len() };
            waited = wait.is_some();
            let pulled = match self.pull(wanted, taken.bytes(), wait, stop).await {
                Ok(pulled) => pulled,
                // What is in hand is worth more than the news.
                Err(_) if !taken.deliveries.is_empty() => return Ok(taken),
                Err(error) => return Err(error),
            };
            let exhausted = pulled.exhausted;
            let buried = self.take(pulled, &mut taken).await?;
            let full = taken.deliveries.len() >= max || taken.bytes() >= MAX_BYTES;
            if full || (exhausted && !taken.deliveries.is_empty()) {
                return Ok(taken);
            }
            if gone.has_changed().is_err() || *closing.borrow() {
                return Ok(taken);
            }
            if !exhausted || buried {
                continue;
            }
            if self.until > Instant::now() {
                continue;
            }
            // Before it says that there is nothing: there may be what is due since a moment.
            if self.lane == Lane::Dead || std::mem::replace(&mut looked, true) {
                return Ok(taken);
            }
            if later::look(&self.inner, &self.open).await? == 0 {
                return Ok(taken);
            }
        }
    }

    async fn pull(&self, wanted: usize, taken: usize, wait: Option<Duration>, stop: impl Future<Output = ()>) -> Result<Pulled> {
        let consumer = self.open.names.consumer(self.lane);
        let batch = self.open.batch(wanted, taken);
        let question = Question { stream: &self.open.names.stream, consumer: &consumer, batch, wait };
        let pulled = pull::pull(&self.inner.client, &question, stop).await?;
        let bytes = pulled.messages.iter().map(|raw| raw.body.len() + 256).sum();
        self.open.weigh(bytes, pulled.messages.len());
        Ok(pulled)
    }

    /// Sets leases and notes them; buries what is not to be delivered any more. True: there was such.
    async fn take(&self, pulled: Pulled, taken: &mut Taken) -> Result<bool> {
        let life = &self.open.names.life;
        let (mut alive, mut doomed) = (Vec::new(), Vec::new());
        for raw in pulled.messages {
            if let Some(ends) = self.inner.leases.held_until(life, raw.sequence) {
                // A server may deliver what is in somebody's hands; if in ours, we know.
                let left = ends.saturating_duration_since(Instant::now());
                settle::mention(&self.inner.client, &raw.reply, Word::In(left)).await;
                continue;
            }
            let stored = read(&raw);
            let before = raw.deliveries.saturating_sub(1);
            match moves::doom(&self.open, self.lane, &stored, before) {
                Some(reason) => doomed.push(Doomed { raw, stored, reason: reason.to_owned(), deliveries: before }),
                None => alive.push((raw, stored)),
            }
        }
        let buried = !doomed.is_empty();
        if buried {
            moves::bury(&self.inner, &self.queue, &self.open, doomed).await;
        }
        if alive.is_empty() {
            return Ok(buried);
        }
        let visibility = self.request.visibility;
        let prompt = visibility == ACK_WAIT && pulled.asked.elapsed() < PROMPT;
        let ends = if prompt {
            pulled.asked + ACK_WAIT
        } else {
            let replies: Vec<_> = alive.iter().map(|(raw, _)| raw.reply.clone()).collect();
            settle::lease(&self.inner.client, &replies, visibility, ACK_WAIT).await?
        };
        let leased_until = Utc::now() + ends.saturating_duration_since(Instant::now());
        for (raw, stored) in alive {
            let lease = Lease {
                life: Arc::clone(life),
                lane: self.lane,
                sequence: raw.sequence,
                id: stored.id.as_str().into(),
                deliveries: raw.deliveries,
                reply: raw.reply.clone(),
                ends,
            };
            let receipt = self.inner.leases.note(lease);
            taken.replies.push(raw.reply);
            taken.deliveries.push(Delivery { message: stored.into_message(raw.deliveries), receipt, leased_until });
        }
        Ok(buried)
    }
}
