//! One pull: asking a consumer for messages, and leaving no question behind.
//!
//! A question that nobody listens for any more is harmful: servers before 2.10.20 that meet one when a message is due again take it off their list and
//! go one message back. The message then comes with a wrong count, or after another ack wait, or goes to two at once. So a pull that ends before the
//! server has ended it takes its question back, see [`withdraw`]; what the server sent until then is part of the answer.

use std::time::{Duration, Instant};

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use storage_core::{Error, ErrorKind, Result};
use tokio::sync::watch;

use crate::client::NatsClient;
use crate::stream::Marks;

/// How long a server may be silent in the middle of an answer, or before one that should come at once.
const SILENCE: Duration = Duration::from_millis(500);
/// How much longer the server keeps a question than we wait: we end it, it does so only where we are gone.
const LONGER: Duration = Duration::from_secs(1);

/// A message as it was delivered.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) body: Bytes,
    /// Where to acknowledge.
    pub(crate) reply: Subject,
    pub(crate) sequence: u64,
    pub(crate) deliveries: u32,
    pub(crate) stored: DateTime<Utc>,
}

impl Raw {
    fn read(message: Message) -> Option<Self> {
        let reply = message.reply?;
        let marks = Marks::read(&reply)?;
        Some(Self {
            headers: message.headers,
            body: message.payload,
            sequence: marks.sequence,
            deliveries: u32::try_from(marks.deliveries).unwrap_or(u32::MAX),
            stored: marks.stored,
            reply,
        })
    }
}

/// What a pull brought.
#[derive(Debug)]
pub(crate) struct Pulled {
    pub(crate) messages: Vec<Raw>,
    /// When it was asked for: before any of them was delivered.
    pub(crate) asked: Instant,
    /// True where the server had given all that it had.
    pub(crate) exhausted: bool,
}

/// What to pull.
#[derive(Clone, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) stream: &'a str,
    pub(crate) consumer: &'a str,
    pub(crate) batch: usize,
    /// How long to wait for the first message; `None`: not at all. Better not with a large batch: a question is taken back by as many messages.
    pub(crate) wait: Option<Duration>,
}

/// Why a pull ends before it has all.
enum End {
    /// The server says so: there is no more.
    Exhausted,
    /// As many as were asked for.
    Complete,
    /// We don't wait any longer.
    Cut,
}

/// Ready when one of them turns true, or its sender is gone.
pub(crate) async fn stopped(call: &mut watch::Receiver<bool>, store: &mut watch::Receiver<bool>) {
    tokio::select! {
        _ = call.wait_for(|stop| *stop) => {}
        _ = store.wait_for(|stop| *stop) => {}
    }
}

/// Pulls. To be run to its end: dropped halfway, it leaves a question behind. `stop` ends it soon.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) where there is no such consumer; where the server does not answer at all.
pub(crate) async fn pull(client: &NatsClient, question: &Question<'_>, stop: impl Future<Output = ()>) -> Result<Pulled> {
    let call = client.api(&format!("CONSUMER.MSG.NEXT.{}.{}", question.stream, question.consumer));
    let mut request = json!({"batch": question.batch, "no_wait": true});
    if let Some(wait) = question.wait {
        request["expires"] = json!(u64::try_from((wait + LONGER).as_nanos()).unwrap_or(u64::MAX));
    }
    let request = serde_json::to_vec(&request)?;
    let inbox = Subject::from(client.nats().new_inbox());
    let started = Instant::now();
    let ask = async {
        let listener =
            client.nats().subscribe(inbox.clone()).await.map_err(|_| Error::unavailable("the connection was closed"))?;
        let asked = Instant::now();
        let sent = client.nats().publish_with_reply(call, inbox.clone(), request.into()).await;
        sent.map_err(|_| Error::unavailable("the connection was closed"))?;
        Ok::<_, Error>((listener, asked))
    };
    let asking = tokio::time::timeout(client.timeout(), ask).await;
    let (mut listener, asked) = asking.map_err(|_| client.no_answer(started))??;
    let (mut messages, mut heard) = (Vec::new(), 0);
    let mut stop = std::pin::pin!(stop);
    let mut last = asked;
    let end = loop {
        // The first may take as long as we wait; the others are there already.
        let until = match question.wait {
            Some(wait) if messages.is_empty() => asked + wait,
            _ => last + SILENCE,
        };
        // Most are there already, and cost no look at the clock.
        let message = match listener.next().now_or_never() {
            Some(message) => message,
            None => {
                let message = tokio::select! {
                    biased;
                    message = listener.next() => message,
                    () = &mut stop => break End::Cut,
                    () = tokio::time::sleep_until(until.into()) => break End::Cut,
                };
                last = Instant::now();
                message
            }
        };
        let Some(message) = message else { return Err(Error::unavailable("the connection was closed")) };
        heard += 1;
        match message.status.map(|status| status.as_u16()) {
            None => messages.extend(Raw::read(message)),
            // A sign of life.
            Some(100) => {}
            Some(404 | 408) => break End::Exhausted,
            Some(503) => return Err(missing(question)),
            Some(409) => {
                let text = message.description.unwrap_or_default();
                if text.contains("MaxWaiting") && messages.is_empty() {
                    return Err(Error::new(ErrorKind::Throttled, "too many receivers wait for this queue"));
                }
                if text.contains("Deleted") && messages.is_empty() {
                    return Err(missing(question));
                }
                break End::Exhausted;
            }
            Some(status) => {
                let text = message.description.unwrap_or_default();
                return Err(Error::internal(format!("the server answers a pull with {status} {text}")));
            }
        }
        if messages.len() >= question.batch {
            break End::Complete;
        }
    };
    match end {
        End::Exhausted => Ok(Pulled { messages, asked, exhausted: true }),
        End::Complete => Ok(Pulled { messages, asked, exhausted: false }),
        End::Cut => {
            let open = Open { question, inbox, heard };
            let looked = withdraw(client, open, &mut listener, &mut messages).await;
            // What is in hand is worth more than the news that the server went silent.
            if messages.is_empty() {
                looked?;
            }
            Ok(Pulled { messages, asked, exhausted: true })
        }
    }
}

fn missing(question: &Question<'_>) -> Error {
    Error::not_found(format!("there is no consumer `{}` of stream `{}`", question.consumer, question.stream))
}

/// A question that the server has, as far as we know.
struct Open<'a> {
    question: &'a Question<'a>,
    /// Where the answer comes.
    inbox: Subject,
    /// How many messages came, the server's remarks included.
    heard: u64,
}

/// Takes a question back. What the server sends before it learns of that is taken in.
///
/// A client library that ends a listener may lose what is on its way to it. So the listener is ended by a count: one more than all that this question
/// can bring. We send as many empty messages to ourselves as are missing; both ends count alike, so the server sends nothing after the last that we
/// take in. Then the server is asked to look after the consumer, which removes the question.
async fn withdraw(
    client: &NatsClient,
    open: Open<'_>,
    listener: &mut async_nats::Subscriber,
    messages: &mut Vec<Raw>,
) -> Result<()> {
    let Open { question, inbox, heard } = open;
    // The messages, why there are no more, and one of ours.
    let all = question.batch as u64 + 2;
    let count = async {
        listener.unsubscribe_after(all).await.map_err(|_| Error::unavailable("the connection is down"))?;
        for _ in heard..all {
            client.publish(inbox.clone(), Bytes::new()).await?;
        }
        Ok::<_, Error>(())
    };
    let started = Instant::now();
    let counted = tokio::time::timeout(client.timeout(), count).await;
    counted.map_err(|_| client.no_answer(started))??;
    let looked = info(client, question.stream, question.consumer).await;
    // All of it was sent before the answer to `info`; the stream ends by itself.
    while let Ok(message) = tokio::time::timeout(SILENCE, listener.next()).await {
        let Some(message) = message else { return looked.map(drop) };
        if message.status.is_none() {
            messages.extend(Raw::read(message));
        }
    }
    // We may not be allowed to send to ourselves.
    let drained = tokio::time::timeout(client.timeout(), listener.drain()).await;
    if !matches!(drained, Ok(Ok(()))) {
        return Err(Error::unavailable("the connection is down"));
    }
    looked?;
    info(client, question.stream, question.consumer).await.map(drop)
}

/// What the server says of a consumer. It counts anew and removes questions that nobody listens for, before it answers.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound).
pub(crate) async fn info(client: &NatsClient, stream: &str, consumer: &str) -> Result<Value> {
    let answer = client.call(&format!("CONSUMER.INFO.{stream}.{consumer}"), &Value::Null).await?;
    answer.map_err(crate::error::Refusal::into_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reply: &str) -> Option<Raw> {
        let reply = Some(Subject::from(reply.to_owned()));
        Raw::read(Message {
            subject: "x".into(),
            reply,
            payload: Bytes::from_static(b"x"),
            headers: None,
            status: None,
            description: None,
            length: 1,
        })
    }

    #[test]
    fn both_forms_of_a_reply_are_read() {
        for reply in [
            "$JS.ACK.storage-q.p0-x.3.17.20.1700000000123456789.0",
            "$JS.ACK.hub.HASH.storage-q.p0-x.3.17.20.1700000000123456789.0",
            "$JS.ACK._.HASH.storage-q.p0-x.3.17.20.1700000000123456789.0.random",
        ] {
            let raw = read(reply).unwrap();
            assert_eq!((raw.deliveries, raw.sequence), (3, 17), "{reply}");
            assert_eq!(raw.stored.timestamp_micros(), 1_700_000_000_123_456);
        }
        assert!(read("$JS.ACK.x").is_none() && read("a.b.c.d.e.f.g.h.i").is_none());
    }
}
