//! A store: one connection, the queues on it that were used, and the leases that were received through it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use storage_core::{BackendInfo, Backends, DriverConfig, OpenFlag, QueueName, Result};
use tokio::sync::{Semaphore, watch};

use crate::client::{self, IN_FLIGHT, NatsClient};
use crate::config::Settings;
use crate::leases::Leases;
use crate::open::Open;
use crate::{NatsQueue, error};

/// How many queues are remembered. They are found again by one question.
const REMEMBERED: usize = 4096;

/// Queues on one NATS, by one connection. Cheap to clone.
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
            open: OpenFlag::default(),
            closing: watch::Sender::new(false),
            active: watch::Sender::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its queues.
    #[must_use]
    pub fn queue(&self) -> NatsQueue {
        NatsQueue::new(Arc::clone(&self.inner))
    }

    /// The connection, by which key-value buckets and object stores are reached too.
    #[must_use]
    pub fn client(&self) -> &NatsClient {
        &self.inner.client
    }

    /// What a driver opens.
    #[must_use]
    pub fn backends(&self) -> Backends {
        Backends { queue: Some(Arc::new(self.queue())), ..Backends::default() }
    }
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
    open: OpenFlag,
    /// Told when it closes, so that what waits ends.
    closing: watch::Sender<bool>,
    /// How many receives and moves are under way.
    active: watch::Sender<usize>,
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
    /// Once the store is closed: see [`OpenFlag::check`].
    pub(crate) fn check_open(&self) -> Result<()> {
        self.open.check()
    }

    /// Turns true when the store closes.
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
        let (started, connects) = (std::time::Instant::now(), self.client.connects());
        let message = PublishMessage::build().payload(body).headers(headers);
        let sent = tokio::time::timeout(self.client.timeout(), self.client.jetstream().send_publish(subject, message)).await;
        let ack = sent.map_err(|_| self.client.no_answer(started))?.map_err(|error| error::from_publish(&error))?.into_future();
        let ack = tokio::select! {
            biased;
            ack = ack => ack,
            () = self.client.reconnected(connects) => return Err(client::broke()),
        };
        match ack {
            Ok(ack) => Ok(!ack.duplicate),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Err(error) => Err(error::from_publish(&error)),
        }
    }

    /// Ends what waits, and lets go of the connection.
    pub(crate) async fn close(&self) {
        if !self.open.close() {
            return;
        }
        self.closing.send_replace(true);
        let mut active = self.active.subscribe();
        let patience = self.client.timeout().min(Duration::from_secs(5));
        let quiet = tokio::time::timeout(patience, active.wait_for(|active| *active == 0)).await.is_ok();
        let flushed = tokio::time::timeout(patience, self.client.nats().flush()).await.is_ok();
        if !(quiet && flushed) {
            tracing::debug!("closed while the server did not answer");
        }
        // Answers nothing where the connection is gone already.
        drop(tokio::time::timeout(patience, self.client.nats().drain()).await);
    }
}
