//! Sending: publishes in a row, their acknowledgements awaited together.

use std::collections::VecDeque;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::FusedFuture;
use storage_core::{Error, ErrorKind, MessageId, NewMessage, Result, Sent};

use crate::client;
use crate::open::Open;
use crate::store::Inner;
use crate::{codec, error};

/// How many acknowledgements of one call are awaited at once.
const WINDOW: usize = 4096;

struct Outgoing {
    subject: String,
    headers: HeaderMap,
    body: Bytes,
}

/// Sends messages in order. What is wrong with one keeps all back; but a call that is not answered may have sent some.
///
/// # Errors
/// [`Unavailable`](storage_core::ErrorKind::Unavailable) also where there is no such queue.
pub(crate) async fn send(inner: &Inner, open: &Open, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
    let max_payload = inner.client.max_payload();
    let mut outgoing = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let headers = codec::encode(&message, open.dedups());
        codec::check_size(&headers, message.body.len(), max_payload).map_err(|error| error.with_failed_write(index))?;
        let subject = if message.delay.is_zero() { open.names.new_message() } else { open.names.later() };
        outgoing.push(Outgoing { subject, headers, body: message.body });
    }
    let window = outgoing.len().min(WINDOW);
    let permits = u32::try_from(window).unwrap_or(u32::MAX);
    // So many publishes of all calls together find room in the client; else calls could wait for each other for ever.
    let permits = tokio::time::timeout(inner.client.timeout(), inner.publishes.acquire_many(permits)).await;
    let permits = permits.map_err(|_| {
        Error::new(ErrorKind::Throttled, "too many messages wait for their acknowledgement: nothing was sent, try again")
    })?;
    let _permits = permits.map_err(|_| Error::internal("a store's semaphore was closed"))?;
    let connects = inner.client.connects();
    let mut sending = Sending { sent: Vec::with_capacity(outgoing.len()), ..Sending::default() };
    let total = outgoing.len();
    // One for all of them: it sets a timer.
    let mut reconnected = std::pin::pin!(inner.client.reconnected(connects).fuse());
    for Outgoing { subject, headers, body } in outgoing {
        if sending.waiting.len() >= window {
            sending.next(&mut reconnected).await;
        }
        if sending.failure.is_some() {
            break;
        }
        match inner.publish(subject, headers, body).await {
            Ok(ack) => sending.waiting.push_back(ack),
            Err(error) => sending.failure = Some(error),
        }
    }
    while !sending.waiting.is_empty() {
        sending.next(&mut reconnected).await;
    }
    match sending.failure {
        None => Ok(sending.sent),
        Some(error) if sending.sent.is_empty() || total == 1 => Err(error),
        Some(error) => {
            let message = format!("{} of {total} messages were sent; then: {}", sending.sent.len(), error.message());
            Err(Error::new(error.kind(), message).with_source(error))
        }
    }
}

#[derive(Default)]
struct Sending {
    waiting: VecDeque<PublishAckFuture>,
    sent: Vec<Sent>,
    failure: Option<Error>,
    /// True once an acknowledgement did not come: those behind it are not waited for.
    given_up: bool,
}

impl Sending {
    /// Awaits the oldest acknowledgement, or until the connection was made anew.
    async fn next(&mut self, reconnected: &mut (impl FusedFuture<Output = ()> + Unpin)) {
        let Some(ack) = self.waiting.pop_front() else { return };
        let ack = ack.into_future();
        let ack = if self.given_up {
            match ack.now_or_never() {
                Some(ack) => ack,
                None => return,
            }
        } else {
            tokio::select! {
                biased;
                ack = ack => ack,
                () = reconnected => {
                    self.given_up = true;
                    self.failure.get_or_insert_with(client::broke);
                    return;
                }
            }
        };
        if ack.as_ref().is_err_and(|error| error.kind() == PublishErrorKind::TimedOut) {
            self.given_up = true;
        }
        match ack {
            Ok(ack) => self.sent.push(Sent { id: MessageId(ack.sequence.to_string()), duplicate: ack.duplicate }),
            // The first one counts; later ones are of the same kind, or no news.
            Err(error) if self.failure.is_none() || error.kind() == PublishErrorKind::StreamNotFound => {
                self.failure = Some(error::from_publish(&error));
            }
            Err(_) => {}
        }
    }
}
