//! A store: one connection, which queues, tables and blobs share; the queues on it that were used, and the leases that were received through it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;
use serde_json::Value;
use storage_core::{BackendInfo, Backends, DriverConfig, OpenFlag, QueueName, Result};
use tokio::sync::{Semaphore, watch};

use crate::client::{self, IN_FLIGHT, NatsClient};
use crate::config::Settings;
use crate::error::Refusal;
use crate::leases::Leases;
use crate::open::Open;
use crate::{NatsBlobs, NatsQueue, NatsRecords, error};

/// How many queues are remembered. They are found again by one question.
const REMEMBERED: usize = 4096;

/// Queues, tables and blobs on one NATS, by one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NatsStore {
    inner: Arc<Inner>,
}

impl NatsStore {
    /// Connects.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config) for bad options; [`Unauthorized`](storage_core::ErrorKind::Unauthorized);
    /// [`Unavailable`](storage_core::ErrorKind::Unavailable) or [`Timeout`](storage_core::ErrorKind::Timeout) where the server can't be reached.
    pub async fn open(config: &DriverConfig) -> Result<Self> {
        let settings = Settings::new(config).map_err(|error| error.with_operation("nats.open"))?;
        let info = BackendInfo::new("nats", settings.location.as_str());
        let client = NatsClient::connect(&settings).await;
        let client = client.map_err(|error| error.with_operation("nats.open").with_backend(&info))?;
        let inner = Inner {
            client,
            settings,
            info,
            leases: Leases::new(),
            queues: Mutex::default(),
            publishes: Semaphore::new(IN_FLIGHT),
            parts: Default::default(),
            closing: watch::Sender::new(false),
            active: watch::Sender::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its queues.
    #[must_use]
    pub fn queue(&self) -> NatsQueue {
        self.inner.hand_out(Part::Queue);
        NatsQueue::new(Arc::clone(&self.inner))
    }

    /// Its tables.
    #[must_use]
    pub fn records(&self) -> NatsRecords {
        self.inner.hand_out(Part::Records);
        NatsRecords::new(Arc::clone(&self.inner))
    }

    /// Its blobs.
    #[must_use]
    pub fn blobs(&self) -> NatsBlobs {
        self.inner.hand_out(Part::Blobs);
        NatsBlobs::new(Arc::clone(&self.inner))
    }

    /// The connection, by which key-value buckets and object stores are reached too.
    #[must_use]
    pub fn client(&self) -> &NatsClient {
        &self.inner.client
    }

    /// What a driver opens.
    #[must_use]
    pub fn backends(&self) -> Backends {
        Backends {
            records: Some(Arc::new(self.records())),
            queue: Some(Arc::new(self.queue())),
            blobs: Some(Arc::new(self.blobs())),
        }
    }
}

/// What a store is used for. Each is closed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Queue,
    Records,
    Blobs,
}

/// Whether a part is in somebody's hands.
#[derive(Debug, Default)]
struct Handed {
    out: AtomicBool,
    open: OpenFlag,
}

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) client: NatsClient,
    pub(crate) settings: Settings,
    pub(crate) info: BackendInfo,
    pub(crate) leases: Leases,
    queues: Mutex<HashMap<QueueName, Arc<Open>>>,
    /// One for each publish that waits for its acknowledgement.
    pub(crate) publishes: Semaphore,
    /// One for each [`Part`].
    parts: [Handed; 1 + Part::Blobs as usize],
    /// Told when it closes, so that what waits ends.
    closing: watch::Sender<bool>,
    /// How many receives and moves are under way.
    active: watch::Sender<usize>,
}

/// What the server says to a message.
#[derive(Debug)]
pub(crate) enum Published {
    Stored(PublishAck),
    /// The precondition does not hold.
    Overtaken,
    /// No stream takes the subject, or none yet after a restart.
    NoStream,
}

/// Counts as under way while it lives.
#[derive(Debug)]
pub(crate) struct Active(Arc<Inner>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.send_modify(|active| *active -= 1);
    }
}

impl Inner {
    /// # Errors
    /// Once the part is closed: see [`OpenFlag::check`].
    pub(crate) fn check_open(&self, part: Part) -> Result<()> {
        self.part(part).open.check()
    }

    /// # Errors
    /// Where the server does not answer for JetStream.
    pub(crate) async fn ping(&self, part: Part) -> Result<()> {
        self.check_open(part)?;
        self.client.call("INFO", &Value::Null).await?.map(drop).map_err(Refusal::into_error)
    }

    fn part(&self, part: Part) -> &Handed {
        &self.parts[part as usize]
    }

    fn hand_out(&self, part: Part) {
        self.part(part).out.store(true, Ordering::Release);
    }

    /// Turns true when the queues close.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Active {
        self.active.send_modify(|active| *active += 1);
        Active(Arc::clone(self))
    }

    pub(crate) fn remembered(&self, queue: &QueueName) -> Option<Arc<Open>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).get(queue).cloned()
    }

    pub(crate) fn remember(&self, queue: &QueueName, open: Open) -> Arc<Open> {
        let open = Arc::new(open);
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.len() >= REMEMBERED {
            queues.clear();
        }
        queues.insert(queue.clone(), Arc::clone(&open));
        open
    }

    pub(crate) fn forget(&self, queue: &QueueName) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }

    /// Stores a message where there must be none yet. False: there is one.
    ///
    /// # Errors
    /// It may have been stored.
    pub(crate) async fn publish_once(&self, subject: String, headers: HeaderMap, body: Bytes) -> Result<bool> {
        match self.publish(subject, PublishMessage::build().payload(body).headers(headers)).await? {
            Published::Stored(ack) => Ok(!ack.duplicate),
            Published::Overtaken => Ok(false),
            Published::NoStream => Err(error::no_responders()),
        }
    }

    /// Stores a message, and waits for the server's word.
    ///
    /// # Errors
    /// It may have been stored.
    pub(crate) async fn publish(&self, subject: String, message: PublishMessage) -> Result<Published> {
        let connects = self.client.connects();
        let ack = self.send(subject, message).await?;
        self.acknowledged(ack, connects).await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// It may have been stored.
    pub(crate) async fn send(&self, subject: String, message: PublishMessage) -> Result<PublishAckFuture> {
        let started = std::time::Instant::now();
        let sent = tokio::time::timeout(self.client.timeout(), self.client.jetstream().send_publish(subject, message)).await;
        sent.map_err(|_| self.client.no_answer(started))?.map_err(|error| error::from_publish(&error))
    }

    /// The server's word on a message that was sent when there had been so many connections.
    ///
    /// # Errors
    /// It may have been stored.
    pub(crate) async fn acknowledged(&self, ack: PublishAckFuture, connects: u64) -> Result<Published> {
        let started = std::time::Instant::now();
        let ack = ack.into_future();
        let ack = tokio::select! {
            biased;
            ack = ack => ack,
            () = self.client.reconnected(connects) => return Err(client::broke()),
        };
        match ack {
            Ok(ack) => Ok(Published::Stored(ack)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(Published::Overtaken),
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => Ok(Published::NoStream),
            Err(error) if error.kind() == PublishErrorKind::TimedOut => Err(self.client.no_answer(started)),
            Err(error) => Err(error::from_publish(&error)),
        }
    }

    /// Ends what waits, and lets go of the connection when nobody has another part any more.
    pub(crate) async fn close(&self, part: Part) {
        let closed = self.part(part);
        if !closed.open.close() {
            return;
        }
        closed.out.store(false, Ordering::Release);
        if part == Part::Queue {
            self.closing.send_replace(true);
        }
        let mut active = self.active.subscribe();
        let patience = self.client.timeout().min(Duration::from_secs(5));
        let all_ended = active.wait_for(|active| part != Part::Queue || *active == 0);
        let quiet = tokio::time::timeout(patience, all_ended).await.is_ok();
        let flushed = tokio::time::timeout(patience, self.client.nats().flush()).await.is_ok();
        if !(quiet && flushed) {
            tracing::debug!("closed while the server did not answer");
        }
        if self.parts.iter().any(|part| part.out.load(Ordering::Acquire)) {
            return;
        }
        // Answers nothing where the connection is gone already.
        drop(tokio::time::timeout(patience, self.client.nats().drain()).await);
    }
}
