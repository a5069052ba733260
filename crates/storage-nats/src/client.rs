//! The connection: made once, mended by itself, shared by all that a program does on one NATS.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Event, Message, ServerError};
use bytes::Bytes;
use futures::FutureExt as _;
use serde_json::Value;
use storage_core::{Error, ErrorKind, Result};

use crate::config::Settings;
use crate::error::{self, Refusal};

/// How many publishes may wait for their acknowledgement at once, on one connection.
pub(crate) const IN_FLIGHT: usize = 32_768;
/// The longest pause between two tries to connect again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often to look whether the connection was made anew.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long after that an answer may still come.
const GRACE: Duration = Duration::from_secs(1);

/// When the server last said that we may not do something. It says so beside the answer that never comes.
type Violation = Arc<Mutex<Option<Instant>>>;

/// A connection to NATS with JetStream. Cheap to clone.
#[derive(Clone)]
pub struct NatsClient {
    client: async_nats::Client,
    context: Context,
    /// `$JS.API`, or that of a domain.
    api: String,
    timeout: Duration,
    location: String,
    violation: Violation,
}

impl fmt::Debug for NatsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsClient").field("location", &self.location).finish_non_exhaustive()
    }
}

impl NatsClient {
    pub(crate) async fn connect(settings: &Settings) -> Result<Self> {
        let violation = Violation::default();
        let noted = Arc::clone(&violation);
        let options = settings.credentials().await?;
        // Else rustls panics in a program that has another cryptography compiled in beside this one. Only the first one counts: a program that has
        // chosen one keeps it.
        drop(async_nats::rustls::crypto::ring::default_provider().install_default());
        let options = options
            .name("storage")
            .connection_timeout(settings.timeout.min(Duration::from_secs(30)))
            .request_timeout(Some(settings.timeout))
            .max_reconnects(None)
            .reconnect_delay_callback(pause)
            .event_callback(move |event| {
                note(&event, &noted);
                std::future::ready(())
            });
        let connecting = options.connect(settings.servers.as_slice());
        // Several addresses, each with a timeout of its own, would add up.
        let connected = tokio::time::timeout(settings.timeout, connecting).await;
        let client = connected
            .map_err(|_| Error::timeout(format!("{} does not let us in within {:?}", settings.location, settings.timeout)))?
            .map_err(|error| error::from_connect(&error))?;
        let builder = ContextBuilder::new().timeout(settings.timeout).ack_timeout(settings.timeout);
        let builder = builder.max_ack_inflight(IN_FLIGHT * 2).backpressure_on_inflight(true);
        let (builder, api) = match &settings.domain {
            Some(domain) => (builder.domain(domain).timeout(settings.timeout), format!("$JS.{domain}.API")),
            None => (builder, "$JS.API".to_owned()),
        };
        let context = builder.build(client.clone());
        Ok(Self { client, context, api, timeout: settings.timeout, location: settings.location.clone(), violation })
    }

    /// JetStream on this connection: key-value buckets and object stores are reached from here.
    #[must_use]
    pub fn jetstream(&self) -> &Context {
        &self.context
    }

    /// The connection itself.
    #[must_use]
    pub fn nats(&self) -> &async_nats::Client {
        &self.client
    }

    /// Where the server is, without credentials.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The largest message that the server takes, headers included.
    pub(crate) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// How often the connection was made: a number that stays the same says that nothing written in between was lost with a connection.
    pub(crate) fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::SeqCst)
    }

    /// The subject of a call of JetStream's.
    pub(crate) fn api(&self, call: &str) -> String {
        format!("{}.{call}", self.api)
    }

    /// Calls JetStream. The outer error: no answer; the inner: it refuses.
    pub(crate) async fn call(&self, call: &str, request: &Value) -> Result<Result<Value, Refusal>> {
        let payload = match request {
            Value::Null => Bytes::new(),
            request => serde_json::to_vec(request)?.into(),
        };
        let answer = self.request(self.api(call), payload).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)
            .map_err(|e| Error::corrupt("JetStream's answer is not JSON").with_source(e))?;
        Ok(match answer.get("error") {
            Some(error) => Err(Refusal::read(error)),
            None => Ok(answer),
        })
    }

    /// A request and its answer, within the timeout whatever happens to the connection.
    pub(crate) async fn request(&self, subject: String, payload: Bytes) -> Result<Message> {
        let (started, connects) = (Instant::now(), self.connects());
        let request = self.client.request(subject, payload);
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(self.timeout, request) => answer,
            () = self.reconnected(connects) => return Err(broke()),
        };
        match answer {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(error)) if error.kind() != async_nats::RequestErrorKind::TimedOut => Err(error::from_request(&error)),
            _ => Err(self.no_answer(started)),
        }
    }

    /// Writes without waiting for an answer. Blocks where the connection is down and many have written before.
    pub(crate) async fn publish(&self, subject: async_nats::Subject, payload: Bytes) -> Result<()> {
        let mut publish = std::pin::pin!(self.client.publish(subject, payload));
        // There is room but for the times when the connection is down or slow: no timer before.
        let published = match (&mut publish).now_or_never() {
            Some(published) => Ok(published),
            None => tokio::time::timeout(self.timeout, publish).await,
        };
        match published {
            Ok(published) => published.map_err(|e| Error::unavailable(format!("can't write to the connection: {e}"))),
            Err(_) => Err(Error::unavailable("the connection is down")),
        }
    }

    /// Ready when the connection was made anew since it had been made so often, and a little later: what was asked over the old one is not answered.
    pub(crate) async fn reconnected(&self, connects: u64) {
        while self.connects() == connects {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        // What was written to the new one is answered in this time.
        tokio::time::sleep(GRACE).await;
    }

    /// What a silence since `started` means.
    pub(crate) fn no_answer(&self, started: Instant) -> Error {
        let forbidden = *self.violation.lock().unwrap_or_else(PoisonError::into_inner);
        if forbidden.is_some_and(|at| at >= started) {
            let message = "the server does not permit these subjects to this user: see the log of the server";
            return Error::new(ErrorKind::Unauthorized, message);
        }
        match self.client.connection_state() {
            async_nats::connection::State::Connected => Error::timeout(format!("no answer within {:?}", self.timeout)),
            _ => Error::unavailable("the connection is down; it is made again as soon as the server is back"),
        }
    }
}

/// The connection broke before an answer came.
pub(crate) fn broke() -> Error {
    Error::unavailable("the connection broke before the answer came; it is made again already")
}

/// 10 ms at first, then doubled. At once where the connection was good until now.
fn pause(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    Duration::from_millis(10).saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

fn note(event: &Event, violation: &Violation) {
    match event {
        Event::ServerError(ServerError::Other(text)) if text.to_ascii_lowercase().contains("permissions violation") => {
            *violation.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            tracing::warn!(error = %text, "the NATS server refuses");
        }
        Event::Connected => tracing::debug!("connected to NATS"),
        Event::Disconnected => tracing::warn!("the connection to NATS broke"),
        Event::SlowConsumer(_) => {
            tracing::warn!("messages of NATS were dropped, since nobody took them in time: they come again");
        }
        event => tracing::debug!(%event, "NATS"),
    }
}
