//! Sending: publishes in a row, their acknowledgements awaited together.

use std::time::Instant;

use async_nats::{HeaderMap, Message, Subject, Subscriber};
use bytes::Bytes;
use futures::future::FusedFuture;
use futures::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use storage_core::{Error, ErrorKind, MessageId, NewMessage, Result, Sent};

use crate::client::{self, NatsClient};
use crate::codec;
use crate::error::{self, Refusal};
use crate::open::Open;
use crate::store::Inner;

/// How many acknowledgements of one call are awaited at once. Fewer than a listener holds.
const WINDOW: usize = 4096;

struct Outgoing {
    subject: Subject,
    headers: HeaderMap,
    body: Bytes,
}

/// Sends messages in order. What is wrong with one keeps all back; but a call that is not answered may have sent some.
///
/// # Errors
/// [`Unavailable`](storage_core::ErrorKind::Unavailable) also where there is no such queue.
pub(crate) async fn send(inner: &Inner, open: &Open, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
    let outgoing = prepare(inner, open, messages)?;
    let total = outgoing.len();
    let window = total.min(WINDOW);
    let permits = u32::try_from(window).unwrap_or(u32::MAX);
    // So many publishes of all calls together find room in the client; else calls could wait for each other for ever.
    let permits = tokio::time::timeout(inner.client.timeout(), inner.publishes.acquire_many(permits)).await;
    let permits = permits.map_err(|_| {
        Error::new(ErrorKind::Throttled, "too many messages wait for their acknowledgement: nothing was sent, try again")
    })?;
    let _permits = permits.map_err(|_| Error::internal("a store's semaphore was closed"))?;
    // One for all of them: it sets a timer.
    let mut reconnected = std::pin::pin!(inner.client.reconnected(inner.client.connects()).fuse());
    let mut publishes = Publishes::new(&inner.client, total).await?;
    for (index, message) in outgoing.into_iter().enumerate() {
        if publishes.waiting >= window {
            publishes.next(&mut reconnected).await;
        }
        if publishes.failure.is_some() {
            break;
        }
        publishes.publish(index, message).await;
    }
    while publishes.waiting > 0 {
        publishes.next(&mut reconnected).await;
    }
    publishes.finish()
}

fn prepare(inner: &Inner, open: &Open, messages: Vec<NewMessage>) -> Result<Vec<Outgoing>> {
    let max_payload = inner.client.max_payload();
    let (now, later) = (Subject::from(open.names.new_message()), Subject::from(open.names.later()));
    let outgoing = messages.into_iter().enumerate().map(|(index, message)| {
        let headers = codec::encode(&message, open.dedups());
        codec::check_size(&headers, message.body.len(), max_payload).map_err(|error| error.with_failed_write(index))?;
        let subject = if message.delay.is_zero() { now.clone() } else { later.clone() };
        Ok(Outgoing { subject, headers, body: message.body })
    });
    outgoing.collect()
}

/// What the server says of a message that it was to store.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<serde_json::Value>,
}

/// The publishes of one call. Their acknowledgements come to subjects below one of its own, named by the place of the message in the call: one listener
/// for all of them costs less than the client library's question and timer for each.
struct Publishes<'a> {
    client: &'a NatsClient,
    inbox: String,
    listener: Subscriber,
    started: Instant,
    sent: Vec<Option<Sent>>,
    /// How many acknowledgements are still to come.
    waiting: usize,
    failure: Option<Error>,
}

impl<'a> Publishes<'a> {
    async fn new(client: &'a NatsClient, total: usize) -> Result<Self> {
        let started = Instant::now();
        let inbox = client.nats().new_inbox();
        let subscribing = tokio::time::timeout(client.timeout(), client.nats().subscribe(format!("{inbox}.*"))).await;
        let listener = subscribing.map_err(|_| client.no_answer(started))?;
        let listener = listener.map_err(|_| Error::unavailable("the connection was closed: nothing was sent"))?;
        Ok(Self { client, inbox, listener, started, sent: vec![None; total], waiting: 0, failure: None })
    }

    /// Writes a message to the connection.
    async fn publish(&mut self, index: usize, message: Outgoing) {
        let Outgoing { subject, headers, body } = message;
        let reply = format!("{}.{index}", self.inbox);
        let nats = self.client.nats();
        let publish = async {
            // Empty headers would be sent, stored and delivered too.
            match headers.is_empty() {
                true => nats.publish_with_reply(subject, reply, body).await,
                false => nats.publish_with_reply_and_headers(subject, reply, headers, body).await,
            }
        };
        let mut publish = std::pin::pin!(publish);
        // There is room but for the times when the connection is down or slow: no timer before.
        let published = match (&mut publish).now_or_never() {
            Some(published) => Ok(published),
            None => tokio::time::timeout(self.client.timeout(), publish).await,
        };
        match published {
            Ok(Ok(())) => self.waiting += 1,
            Ok(Err(error)) => self.failure = Some(error::from_write(&error)),
            Err(_) => self.failure = Some(self.client.no_answer(self.started)),
        }
    }

    /// Awaits an acknowledgement. None is waited for any more where one does not come in time, or the connection was made anew.
    async fn next(&mut self, reconnected: &mut (impl FusedFuture<Output = ()> + Unpin)) {
        let next = match self.listener.next().now_or_never() {
            Some(next) => Ok(next),
            None => tokio::select! {
                biased;
                next = tokio::time::timeout(self.client.timeout(), self.listener.next()) => {
                    next.map_err(|_| self.client.no_answer(self.started))
                }
                () = reconnected => Err(client::broke()),
            },
        };
        match next {
            Ok(Some(answer)) => self.note(&answer),
            Ok(None) => self.give_up(Error::unavailable("the connection was closed: messages may be in the queue")),
            Err(error) => self.give_up(error),
        }
    }

    fn give_up(&mut self, error: Error) {
        self.waiting = 0;
        self.failure.get_or_insert(error);
    }

    fn note(&mut self, answer: &Message) {
        let index = answer.subject.as_str().rsplit('.').next().and_then(|index| index.parse::<usize>().ok());
        let Some(sent) = index.and_then(|index| self.sent.get_mut(index)).filter(|sent| sent.is_none()) else { return };
        self.waiting -= 1;
        // Nobody took it: there is no stream. That is more news than what went wrong before.
        if answer.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
            self.failure = Some(error::no_responders());
            return;
        }
        let answer = serde_json::from_slice::<Answer>(&answer.payload);
        let answer = answer.map_err(|error| Error::corrupt("JetStream's acknowledgement is not JSON").with_source(error));
        match answer {
            Ok(Answer { error: None, seq, duplicate }) => *sent = Some(Sent { id: MessageId(seq.to_string()), duplicate }),
            Ok(Answer { error: Some(refusal), .. }) => {
                self.failure.get_or_insert_with(|| Refusal::read(&refusal).into_error());
            }
            Err(error) => {
                self.failure.get_or_insert(error);
            }
        }
    }

    fn finish(self) -> Result<Vec<Sent>> {
        let total = self.sent.len();
        let sent: Vec<_> = self.sent.into_iter().flatten().collect();
        match self.failure {
            None if sent.len() == total => Ok(sent),
            None => Err(Error::internal("an acknowledgement is missing")),
            Some(error) if sent.is_empty() || total == 1 => Err(error),
            Some(error) => {
                let message = format!("{} of {total} messages were sent; then: {}", sent.len(), error.message());
                Err(Error::new(error.kind(), message).with_source(error))
            }
        }
    }
}
