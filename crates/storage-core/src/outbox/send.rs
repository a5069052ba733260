//! Sending: what becomes of each message.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use uuid::Uuid;

use super::{ID_ATTRIBUTE, Inner, OutboxOptions};
use crate::backoff::Backoff;
use crate::clock::add;
use crate::{Batch, Error, ErrorKind, Expect, NewMessage, QueueName, QueueStore, Result, Version};

/// How many messages are sent in one call.
const CHUNK: usize = 100;
/// How many bytes their bodies have together, unless one alone has more.
const CHUNK_BYTES: usize = 1 << 20;

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The key of its row.
    pub(super) id: String,
    /// The version of its row.
    pub(super) version: Version,
    pub(super) queue: QueueName,
    /// Without delay and time to live, which the moments say.
    pub(super) message: NewMessage,
    pub(super) not_before: Option<DateTime<Utc>>,
    pub(super) good_until: Option<DateTime<Utc>>,
    pub(super) attempts: u32,
    pub(super) refusals: u32,
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Outcome {
    Sent,
    /// The queue does not take it.
    Refused(Error),
    /// The queue could not be reached, or could not say.
    NotNow(Error),
    /// Its time to live was over before it could be sent.
    Late,
}

impl Item {
    pub(super) fn new(queue: QueueName, mut message: NewMessage, now: DateTime<Utc>) -> Result<Self> {
        // Ids of one process grow, so that messages of one batch stay in order.
        let id = Uuid::now_v7().to_string();
        message.attributes.entry(ID_ATTRIBUTE.into()).or_insert_with(|| id.clone());
        message.check()?;
        let (delay, ttl) = (std::mem::take(&mut message.delay), message.ttl.take());
        let not_before = Some(delay).filter(|delay| !delay.is_zero()).map(|delay| add(now, delay));
        let good_until = ttl.map(|ttl| add(now, ttl));
        Ok(Self { id, version: Version::NONE, queue, message, not_before, good_until, attempts: 0, refusals: 0 })
    }

    /// The message as it is sent now. `None`: it is too late.
    fn to_message(&self, now: DateTime<Utc>, has_dedup: bool) -> Option<NewMessage> {
        let mut message = self.message.clone();
        message.delay = self.not_before.and_then(|at| (at - now).to_std().ok()).unwrap_or(Duration::ZERO);
        if let Some(until) = self.good_until {
            message.ttl = Some((until - now).to_std().ok().filter(|left| !left.is_zero())?);
        }
        if has_dedup && message.dedup_id.is_none() {
            message.dedup_id = Some(self.id.clone());
        }
        Some(message)
    }
}

/// True where trying again changes nothing, as long as the queue is as it is.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::NotFound) && !error.is_retryable()
}

/// Sends the messages of several queues, each queue's in order.
pub(super) async fn deliver(queues: &QueueStore, items: Vec<Item>, now: DateTime<Utc>, limit: Duration) -> Vec<(Item, Outcome)> {
    let mut by_queue: Vec<(QueueName, Vec<Item>)> = Vec::new();
    for item in items {
        match by_queue.iter_mut().find(|(queue, _)| *queue == item.queue) {
            Some((_, items)) => items.push(item),
            None => by_queue.push((item.queue.clone(), vec![item])),
        }
    }
    let mut outcomes = Vec::new();
    for (queue, items) in by_queue {
        let sending = Sending { queues, queue: &queue, now, limit };
        sending.all(items, &mut outcomes).await;
    }
    outcomes
}

/// The messages of one queue.
struct Sending<'a> {
    queues: &'a QueueStore,
    queue: &'a QueueName,
    now: DateTime<Utc>,
    limit: Duration,
}

impl Sending<'_> {
    async fn all(&self, items: Vec<Item>, outcomes: &mut Vec<(Item, Outcome)>) {
        let mut waiting = chunks(items);
        // Each round decides about a message at least, or halves a chunk.
        while let Some(mut chunk) = waiting.pop_front() {
            let error = match self.send(&mut chunk, outcomes).await {
                Ok(()) => {
                    outcomes.extend(chunk.into_iter().map(|item| (item, Outcome::Sent)));
                    continue;
                }
                Err(error) => error,
            };
            if !is_refusal(&error) {
                // Nor would the others get through.
                let rest = chunk.into_iter().chain(waiting.into_iter().flatten());
                outcomes.extend(rest.map(|item| (item, Outcome::NotNow(error.duplicate()))));
                return;
            }
            match error.failed_write() {
                Some(index) if index < chunk.len() => {
                    outcomes.push((chunk.remove(index), Outcome::Refused(error)));
                    waiting.push_front(chunk);
                }
                _ if error.kind() == ErrorKind::NotFound || chunk.len() == 1 => {
                    outcomes.extend(chunk.into_iter().map(|item| (item, Outcome::Refused(error.duplicate()))));
                }
                _ => {
                    let second = chunk.split_off(chunk.len() / 2);
                    waiting.push_front(second);
                    waiting.push_front(chunk);
                }
            }
        }
    }

    /// Sends a chunk, without those that are too late.
    async fn send(&self, chunk: &mut Vec<Item>, outcomes: &mut Vec<(Item, Outcome)>) -> Result<()> {
        let has_dedup = self.queues.capabilities().dedup;
        let mut messages = Vec::with_capacity(chunk.len());
        for item in std::mem::take(chunk) {
            match item.to_message(self.now, has_dedup) {
                Some(message) => {
                    messages.push(message);
                    chunk.push(item);
                }
                None => outcomes.push((item, Outcome::Late)),
            }
        }
        match tokio::time::timeout(self.limit, self.queues.send_all(self.queue, messages)).await {
            Ok(sent) => sent.map(drop),
            Err(_) => Err(Error::timeout(format!("the queue did not answer within {:?}", self.limit))),
        }
    }
}

fn chunks(items: Vec<Item>) -> VecDeque<Vec<Item>> {
    let mut chunks: VecDeque<Vec<Item>> = VecDeque::new();
    let mut bytes = 0;
    for item in items {
        let len = item.message.body.len();
        match chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK && bytes + len <= CHUNK_BYTES => {
                bytes += len;
                chunk.push(item);
            }
            _ => {
                bytes = len;
                chunks.push_back(vec![item]);
            }
        }
    }
    chunks
}

impl Inner {
    /// Sends what was just committed; what does not get through is a relay's.
    pub(super) async fn send_now(&self, queue: &QueueStore, items: Vec<Item>) {
        let (now, patience) = (self.options.clock.now(), self.options.patience);
        let send = async {
            let mut sent = Vec::new();
            let mut is_away = false;
            for (item, outcome) in deliver(queue, items, now, patience).await {
                match outcome {
                    Outcome::Sent => sent.push(item.id),
                    Outcome::NotNow(error) => {
                        is_away = true;
                        tracing::debug!(id = item.id, queue = %item.queue, %error, "a message can't be sent now: a relay will");
                    }
                    Outcome::Refused(error) => {
                        tracing::warn!(id = item.id, queue = %item.queue, %error, "the queue refuses a message");
                    }
                    Outcome::Late => {}
                }
            }
            if let Err(error) = self.forget(sent).await {
                tracing::warn!(%error, "messages were sent that could not be removed from the outbox: a relay will send them again");
            }
            is_away
        };
        match tokio::time::timeout(patience, send).await {
            Ok(false) => self.outage.end(),
            Ok(true) | Err(_) => self.outage.note(&self.options),
        }
    }

    /// Removes the rows of messages that were sent.
    pub(super) async fn forget(&self, sent: Vec<String>) -> Result<()> {
        let mut sent = sent.into_iter().peekable();
        while sent.peek().is_some() {
            let some = sent.by_ref().take(self.capabilities.max_batch);
            let batch = some.fold(Batch::new(), |batch, id| batch.delete(&self.options.table, id, Expect::Anything));
            self.backend.commit(batch).await?;
        }
        Ok(())
    }
}

/// While the queue is away, commits don't wait for it each: they leave their messages to the relays.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<Option<(Instant, Backoff)>>);

impl Outage {
    /// True where it is time to try.
    pub(super) fn is_over(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().is_none_or(|(until, _)| *until <= Instant::now())
    }

    pub(super) fn note(&self, options: &OutboxOptions) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // Those who were under way together find out together: that is one failure.
        if state.as_ref().is_some_and(|(until, _)| *until > now) {
            return;
        }
        let fresh = || Backoff::new(options.poll, options.lease.max(options.poll));
        let mut backoff = state.take().map_or_else(fresh, |(_, backoff)| backoff);
        *state = Some((now + backoff.next_delay(), backoff));
    }

    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
