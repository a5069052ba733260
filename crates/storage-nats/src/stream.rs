//! Streams that hold one message for each subject, as key-value buckets and object stores do: reading, writing on condition, looking through.

use std::time::{Duration, Instant};

use async_nats::jetstream::message::PublishMessage;
use async_nats::{HeaderMap, Message, Subject, Subscriber};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use storage_core::{Error, Result};

use crate::client::NatsClient;
use crate::codec;
use crate::config::Kept;
use crate::error::{Fault, Refusal, code};
use crate::store::{Inner, Published};

/// How many messages one question of a [`Walk`] asks for, and how many bytes.
const BATCH: usize = 1_000;
const BATCH_BYTES: usize = 8 << 20;
/// How long the server keeps the consumer of a walk that was given up.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// How long a server of a cluster may take to store a message, elections included.
const ON_THE_WAY: Duration = Duration::from_secs(60);
/// The shortest time for which a server remembers message ids.
pub(crate) const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// How many messages a walk looks at beyond four times what was there when it began.
const MOST_LATE: u64 = 1_000_000;
/// Says of a message that it stands for nothing: as other clients of key-value buckets write it.
const OPERATION: &str = "KV-Operation";

/// A message as a stream holds it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) subject: Subject,
    /// Its place in the stream: no other message ever has it.
    pub(crate) sequence: u64,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) stored: DateTime<Utc>,
}

impl Held {
    /// Reads an answer of `STREAM.MSG.GET`.
    ///
    /// # Errors
    /// [`Corrupt`](storage_core::ErrorKind::Corrupt).
    pub(crate) fn read(answer: &Value) -> Result<Self> {
        let message = &answer["message"];
        let text = |name: &str| message[name].as_str().unwrap_or_default();
        let bytes = |name: &str| STANDARD.decode(text(name)).map_err(|_| Error::corrupt("the server's answer is not base64"));
        let (headers, body) = (bytes("hdrs")?, bytes("data")?);
        let stored = DateTime::parse_from_rfc3339(text("time")).ok();
        let (Some(sequence), Some(stored)) = (message["seq"].as_u64(), stored) else {
            return Err(Error::corrupt("the server's answer has no place and time"));
        };
        Ok(Self {
            subject: text("subject").to_owned().into(),
            sequence,
            headers: codec::read_headers(&headers),
            body: body.into(),
            stored: DateTime::from_timestamp_micros(stored.timestamp_micros()).unwrap_or_default(),
        })
    }

    /// True for what says that there is nothing any more.
    pub(crate) fn is_marker(&self) -> bool {
        self.headers.get(OPERATION).is_some_and(|operation| matches!(operation.as_str(), "DEL" | "PURGE"))
    }
}

/// A message that says that there is nothing any more.
pub(crate) fn marker() -> PublishMessage {
    PublishMessage::build().header(OPERATION, "DEL")
}

/// What of a new stream the configuration says.
pub(crate) fn config(inner: &Inner, name: &str, description: &str, subjects: &[String]) -> Value {
    let window = if inner.settings.replicas > 1 { ON_THE_WAY } else { SHORTEST_WINDOW };
    json!({
        "name": name,
        "description": description,
        "subjects": subjects,
        "retention": "limits",
        "storage": match inner.settings.kept { Kept::File => "file", Kept::Memory => "memory" },
        "num_replicas": inner.settings.replicas,
        "discard": "new",
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_consumers": -1,
        // See `put`: one server has no need of it, several for as long as a message may be on its way.
        "duplicate_window": u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
        "allow_rollup_hdrs": true,
        // Of several servers, one that lags behind could answer.
        "allow_direct": inner.settings.replicas == 1,
    })
}

/// Creates a stream. It may be there with the same configuration.
///
/// # Errors
/// [`AlreadyExists`](storage_core::ErrorKind::AlreadyExists) where it is there with another.
pub(crate) async fn create(inner: &Inner, config: &Value) -> Result<()> {
    let name = config["name"].as_str().unwrap_or_default();
    match inner.client.call(&format!("STREAM.CREATE.{name}"), config).await? {
        Ok(_) => Ok(()),
        // Of one that somebody has made with other options, replicas for example, the subjects are what counts.
        Err(refusal) if refusal.code == code::STREAM_EXISTS => {
            let found = inner.client.call(&format!("STREAM.INFO.{name}"), &Value::Null).await?.map_err(Refusal::into_error)?;
            if found["config"]["subjects"] == config["subjects"] { Ok(()) } else { Err(refusal.into_error()) }
        }
        Err(refusal) => Err(refusal.into_error()),
    }
}

/// Removes a stream. False: there was none.
///
/// # Errors
/// The server's.
pub(crate) async fn delete(client: &NatsClient, stream: &str) -> Result<bool> {
    match client.call(&format!("STREAM.DELETE.{stream}"), &Value::Null).await? {
        Ok(_) => Ok(true),
        Err(refusal) if refusal.is_missing_stream() => Ok(false),
        Err(refusal) => Err(refusal.into_error()),
    }
}

/// The last message of a subject.
pub(crate) async fn last(client: &NatsClient, stream: &str, subject: &str) -> Result<Option<Held>, Fault> {
    let which = json!({"last_by_subj": subject});
    match client.call(&format!("STREAM.MSG.GET.{stream}"), &which).await? {
        Ok(answer) => Ok(Some(Held::read(&answer)?)),
        Err(refusal) if refusal.code == code::NO_MESSAGE => Ok(None),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Stores a message over the one at the place `over` (0: there is none). `None`: another has come first.
///
/// In a cluster the leader holds the condition against what is stored when a message comes, not when it is stored: before 2.9.21 two that come at once both find
/// it true, and later ones may where the leader changes in between. That there is none is decided as it is stored, and so is whether a message id is known. A
/// place has one message in all the life of a stream, so its number makes the id of the one message that may come after it.
pub(crate) async fn put(inner: &Inner, subject: String, message: PublishMessage, over: u64) -> Result<Option<u64>, Fault> {
    let mut message = message.expected_last_subject_sequence(over);
    if over > 0 {
        message = message.message_id(format!("after:{over}"));
    }
    match inner.publish(subject, message).await.map_err(Error::of_unanswered_write)? {
        Published::Stored(ack) if ack.duplicate => Ok(None),
        Published::Stored(ack) => Ok(Some(ack.sequence)),
        Published::Overtaken => Ok(None),
        Published::NoStream => Err(Fault::NoStream),
    }
}

/// Removes the message at a place. False: it is gone already, or another has taken its place.
pub(crate) async fn remove(client: &NatsClient, stream: &str, sequence: u64) -> Result<bool, Fault> {
    let which = json!({"seq": sequence, "no_erase": true});
    match client.call(&format!("STREAM.MSG.DELETE.{stream}"), &which).await? {
        Ok(_) => Ok(true),
        Err(refusal) if refusal.is_missing_stream() => Err(Fault::NoStream),
        // The server has several numbers for it.
        Err(refusal) if refusal.is_missing_message() => Ok(false),
        Err(refusal) => Err(refusal.into()),
    }
}

/// A look through the messages of a stream, in the order in which they were stored. What is stored meanwhile comes too, so that nothing is missed that
/// changes its place; a subject may come again then.
#[derive(Debug)]
pub(crate) struct Walk {
    client: NatsClient,
    stream: String,
    consumer: String,
    inbox: Subject,
    listener: Subscriber,
    /// How many connections there had been: what is asked over an old one is not answered.
    connects: u64,
    /// How many messages are still to come of the question that was asked last.
    asked: usize,
    /// How many came: the consumer counts them, so that one that is lost is missed.
    came: u64,
    most: u64,
    /// How many messages there were when it began.
    there: u64,
    ended: bool,
}

/// What a [`Walk`] is to see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look<'a> {
    /// Which subjects.
    pub(crate) filter: &'a str,
    /// False: the headers alone.
    pub(crate) bodies: bool,
    /// The place to begin at, where it is not the first.
    pub(crate) from: Option<u64>,
}

impl Walk {
    /// Begins one.
    pub(crate) async fn start(client: &NatsClient, stream: &str, look: &Look<'_>) -> Result<Self, Fault> {
        let connects = client.connects();
        let mut request = json!({
            "stream_name": stream,
            "config": {
                "deliver_policy": "all",
                "ack_policy": "none",
                "replay_policy": "instant",
                "filter_subject": look.filter,
                "headers_only": !look.bodies,
                "inactive_threshold": u64::try_from(FORGOTTEN.as_nanos()).unwrap_or(u64::MAX),
                "max_waiting": 1,
                "mem_storage": true,
                "num_replicas": 1,
            },
        });
        if let Some(from) = look.from {
            request["config"]["deliver_policy"] = "by_start_sequence".into();
            request["config"]["opt_start_seq"] = from.into();
        }
        let created = client.call(&format!("CONSUMER.CREATE.{stream}"), &request).await??;
        let Some(consumer) = created["name"].as_str() else {
            return Err(Error::corrupt("the server made a consumer without a name").into());
        };
        let there = created["num_pending"].as_u64().unwrap_or_default();
        let inbox: Subject = client.nats().new_inbox().into();
        let closed = |_| Error::unavailable("the connection was closed");
        let listener = client.nats().subscribe(inbox.clone()).await.map_err(closed)?;
        let most = there.saturating_mul(4).saturating_add(MOST_LATE);
        let (asked, came, ended) = (0, 0, there == 0);
        let (client, stream) = (client.clone(), stream.to_owned());
        Ok(Self { client, stream, consumer: consumer.to_owned(), inbox, listener, connects, asked, came, most, there, ended })
    }

    /// How many messages there were to see when it began.
    pub(crate) fn there(&self) -> u64 {
        self.there
    }

    async fn ask(&mut self) -> Result<()> {
        let call = self.client.api(&format!("CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer));
        let bytes = BATCH_BYTES.max(2 * self.client.max_payload());
        let request = serde_json::to_vec(&json!({"batch": BATCH, "max_bytes": bytes, "no_wait": true}))?;
        let sent = self.client.nats().publish_with_reply(call, self.inbox.clone(), request.into());
        let sent = tokio::time::timeout(self.client.timeout(), sent).await;
        self.asked = BATCH;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::unavailable("the connection was closed")),
            Err(_) => Err(Error::unavailable("the connection is down")),
        }
    }

    /// The next message. `None`: there is none behind it.
    pub(crate) async fn next(&mut self) -> Result<Option<Held>, Fault> {
        while !self.ended {
            if self.asked == 0 {
                self.ask().await?;
            }
            let message = self.listen().await?;
            match message.status.map(|status| status.as_u16()) {
                None => return self.take(message).map(Some),
                Some(100) => {}
                // All that there is has been sent.
                Some(404 | 408) => self.ended = true,
                Some(409) => {
                    let text = message.description.unwrap_or_default();
                    if text.contains("Deleted") {
                        return Err(Fault::NoStream);
                    }
                    if self.asked == BATCH {
                        return Err(Error::unavailable(format!("the server answers a pull with nothing but `{text}`")).into());
                    }
                    // As many bytes as were asked for.
                    self.asked = 0;
                }
                Some(503) => return Err(Fault::NoStream),
                Some(status) => {
                    let text = message.description.unwrap_or_default();
                    return Err(Error::internal(format!("the server answers a pull with {status} {text}")).into());
                }
            }
        }
        self.forget().await;
        Ok(None)
    }

    async fn listen(&mut self) -> Result<Message> {
        // Most are there already, and cost no look at the clock.
        if let Some(Some(message)) = self.listener.next().now_or_never() {
            return Ok(message);
        }
        let started = Instant::now();
        let client = &self.client;
        let message = tokio::select! {
            biased;
            message = self.listener.next() => message,
            () = client.reconnected(self.connects) => return Err(crate::client::broke()),
            () = tokio::time::sleep(client.timeout()) => return Err(client.no_answer(started)),
        };
        message.ok_or_else(|| Error::unavailable("the connection was closed"))
    }

    fn take(&mut self, message: Message) -> Result<Held, Fault> {
        let marks = message.reply.as_ref().and_then(|reply| Marks::read(reply));
        let Some(marks) = marks else { return Err(Error::corrupt("the server's message has no place and time").into()) };
        self.came += 1;
        if marks.consumer_sequence != self.came {
            return Err(Error::unavailable("messages were lost on their way from the server: ask again").into());
        }
        if self.came > self.most {
            return Err(Error::unavailable("others write faster than this can be read: try again later").into());
        }
        self.asked = self.asked.saturating_sub(1);
        self.ended = marks.pending == 0;
        Ok(Held {
            subject: message.subject,
            sequence: marks.sequence,
            headers: message.headers.unwrap_or_default(),
            body: message.payload,
            stored: marks.stored,
        })
    }

    /// Lets go of the consumer; of one whose walk is given up the server lets go by itself.
    pub(crate) async fn forget(&mut self) {
        let call = self.client.api(&format!("CONSUMER.DELETE.{}.{}", self.stream, self.consumer));
        if self.client.publish(call.into(), Bytes::new()).await.is_err() {
            tracing::debug!("a consumer is left to the server");
        }
    }
}

/// What the reply of a delivered message says of it.
#[derive(Debug)]
pub(crate) struct Marks {
    pub(crate) deliveries: u64,
    pub(crate) sequence: u64,
    pub(crate) consumer_sequence: u64,
    pub(crate) stored: DateTime<Utc>,
    pub(crate) pending: u64,
}

impl Marks {
    pub(crate) fn read(reply: &str) -> Option<Self> {
        // The older form has no domain and no account: $JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.CONSUMER_SEQUENCE.TIME.PENDING
        let dots = reply.bytes().filter(|byte| *byte == b'.').count();
        let mut tokens = reply.split('.').skip(if dots >= 10 { 6 } else { 4 });
        let mut number = || tokens.next().and_then(|token| token.parse::<u64>().ok());
        let (deliveries, sequence, consumer_sequence, nanos, pending) = (number()?, number()?, number()?, number()?, number()?);
        let stored = DateTime::from_timestamp_micros(i64::try_from(nanos / 1000).ok()?)?;
        Some(Self { deliveries, sequence, consumer_sequence, stored, pending })
    }
}
