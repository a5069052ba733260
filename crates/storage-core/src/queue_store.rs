//! [`QueueStore`] and [`Queue`]: what an application holds of a queue backend.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::capability::require;
use crate::message::MAX_MESSAGES;
use crate::{
    BackendInfo, Delivery, Error, ErrorKind, ForeignTasks, Message, MessageUpdate, NewMessage, QueueBackend, QueueCapabilities,
    QueueName, QueueSpec, QueueStats, Receipt, Receive, Result, ResultExt, Sent,
};

/// Queues of messages, on any backend. Cheap to clone.
///
/// Everything that goes in is checked; what the backend does not offer is refused.
#[derive(Clone, Debug)]
pub struct QueueStore {
    backend: Arc<dyn QueueBackend>,
}

/// Dead letters arrive by themselves, and are not sent.
pub(crate) fn check_sendable(queue: &QueueName) -> Result<()> {
    match queue.dead_letter_of() {
        Some(source) => Err(Error::invalid(format!(
            "`{queue}` takes the dead letters of `{source}`: it can't be created, removed or sent to by itself"
        ))),
        None => Ok(()),
    }
}

impl QueueStore {
    /// A store over `backend`.
    pub fn new(backend: Arc<dyn QueueBackend>) -> Self {
        Self { backend }
    }

    /// The backend itself.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn QueueBackend> {
        &self.backend
    }

    /// Which backend this is.
    #[must_use]
    pub fn info(&self) -> &BackendInfo {
        self.backend.info()
    }

    /// What the backend can do.
    #[must_use]
    pub fn capabilities(&self) -> &QueueCapabilities {
        self.backend.capabilities()
    }

    /// A queue of `T` as JSON.
    #[must_use]
    pub fn queue<T>(&self, name: &QueueName) -> Queue<T> {
        Queue { store: self.clone(), name: name.clone(), kind: PhantomData }
    }

    /// How a queue behaves where nobody says otherwise: [`QueueSpec::default`], without a delivery cap where the backend keeps no dead letters.
    #[must_use]
    pub fn default_spec(&self) -> QueueSpec {
        match self.capabilities().dead_letter {
            true => QueueSpec::default(),
            false => QueueSpec::default().max_deliveries(None),
        }
    }

    /// Creates a queue. `false`: it was there with the same spec.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists): it is there with another spec. [`InvalidInput`](crate::ErrorKind::InvalidInput): a bad spec or name.
    /// [`Unsupported`](crate::ErrorKind::Unsupported): a delivery cap, where the backend keeps no dead letters.
    pub async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        let create = async {
            check_sendable(queue)?;
            queue.dead_letter()?;
            spec.check()?;
            let no_cap = spec.max_deliveries.is_none();
            require(self.capabilities().dead_letter || no_cap, self.info(), "dead letters, and so no `max_deliveries`")?;
            self.backend.create_queue(queue, spec).await
        };
        create.await.explain(self.info(), "queues.create", || subject(queue))
    }

    /// Creates the queue unless it is there, with whatever spec.
    ///
    /// # Errors
    /// See [`create_queue`](Self::create_queue).
    pub async fn ensure_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<()> {
        match self.create_queue(queue, spec).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Removes a queue with its messages and dead letters. `false`: there was none.
    ///
    /// # Errors
    /// The backend's.
    pub async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        let delete = async {
            check_sendable(queue)?;
            self.backend.delete_queue(queue).await
        };
        delete.await.explain(self.info(), "queues.delete_queue", || subject(queue))
    }

    /// All queues, by name, without their dead-letter companions.
    ///
    /// # Errors
    /// The backend's.
    pub async fn queues(&self) -> Result<Vec<QueueName>> {
        self.backend.queues().await.explain(self.info(), "queues.list", || "all queues".into())
    }

    /// How the queue was created.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.backend.queue_spec(queue).await.explain(self.info(), "queues.spec", || subject(queue))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// See [`send_all`](Self::send_all).
    pub async fn send(&self, queue: &QueueName, message: NewMessage) -> Result<Sent> {
        let mut sent = self.send_all(queue, vec![message]).await?;
        sent.pop().ok_or_else(|| Error::internal("the backend answered a message with nothing"))
    }

    /// Sends all messages, in order, or none. Where the backend does not declare [`atomic_send`](QueueCapabilities::atomic_send), a call that failed because
    /// the service did not answer may have sent some of them.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) with the index of the bad message; [`Unsupported`](crate::ErrorKind::Unsupported) for what the backend
    /// does not offer; [`NotFound`](crate::ErrorKind::NotFound): no such queue.
    pub async fn send_all(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let send = async {
            check_sendable(queue)?;
            if messages.len() > MAX_MESSAGES as usize {
                return Err(Error::invalid(format!("{} messages in one call: {MAX_MESSAGES} at most", messages.len())));
            }
            for (index, message) in messages.iter().enumerate() {
                self.check_message(message).map_err(|e| e.with_failed_write(index))?;
            }
            self.backend.send(queue, messages).await
        };
        send.await.explain(self.info(), "queues.send", || subject(queue))
    }

    /// Checks a message against what the backend takes.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) or [`Unsupported`](crate::ErrorKind::Unsupported).
    pub fn check_message(&self, message: &NewMessage) -> Result<()> {
        message.check()?;
        let (capabilities, info) = (self.capabilities(), self.info());
        self.check_body(message.body.len())?;
        require(capabilities.delay || message.delay.is_zero(), info, "delayed messages")?;
        require(capabilities.ttl || message.ttl.is_none(), info, "a time to live for messages")?;
        require(capabilities.priority || message.priority == 0, info, "priorities")?;
        require(capabilities.dedup || message.dedup_id.is_none(), info, "dedup ids")
    }

    fn check_body(&self, len: usize) -> Result<()> {
        let max = self.capabilities().max_body_bytes;
        if len > max {
            return Err(Error::invalid(format!(
                "the body has {len} bytes, {max} at most on this backend: put large data into a blob and send its path"
            )));
        }
        Ok(())
    }

    /// Leases messages. An empty answer: there was none within the wait. There may be more than were answered, also where these are fewer than asked
    /// for.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bad request.
    pub async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let receive = async {
            request.check()?;
            self.backend.receive(queue, request).await
        };
        receive.await.explain(self.info(), "queues.receive", || subject(queue))
    }

    /// Removes a received message for good.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost): the receipt is stale, and somebody else may have the message.
    pub async fn delete(&self, queue: &QueueName, receipt: &Receipt) -> Result<()> {
        let mut outcomes = self.delete_all(queue, std::slice::from_ref(receipt)).await?;
        outcomes.pop().unwrap_or_else(|| Err(Error::internal("the backend answered a delete with nothing")))
    }

    /// Removes received messages for good, each on its own.
    ///
    /// # Errors
    /// Where nothing could be tried at all; inside, see [`delete`](Self::delete).
    pub async fn delete_all(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        let outcomes = self.backend.delete(queue, receipts).await.explain(self.info(), "queues.delete", || subject(queue))?;
        Ok(outcomes.into_iter().map(|outcome| outcome.explain(self.info(), "queues.delete", || subject(queue))).collect())
    }

    /// Changes a received message: its lease, its body, its attributes. Answers the new receipt.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost): the receipt is stale. [`Unsupported`](crate::ErrorKind::Unsupported): the backend can't change bodies.
    pub async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        let update = async {
            change.check()?;
            self.check_body(change.body.as_ref().map_or(0, bytes::Bytes::len))?;
            let more_than_lease = change.body.is_some() || change.attributes.is_some();
            require(
                self.capabilities().update_body || !more_than_lease,
                self.info(),
                "changes of a message's body or attributes",
            )?;
            self.backend.update(queue, receipt, change).await
        };
        update.await.explain(self.info(), "queues.update", || subject(queue))
    }

    /// Makes a received message a dead letter.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost); [`Unsupported`](crate::ErrorKind::Unsupported).
    pub async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        let dead_letter = async {
            require(self.capabilities().dead_letter, self.info(), "dead letters")?;
            check_sendable(queue)?;
            self.backend.dead_letter(queue, receipt, &bounded_reason(reason)).await
        };
        dead_letter.await.explain(self.info(), "queues.dead_letter", || subject(queue))
    }

    /// Sends up to `max` dead letters of `queue` home. Answers how many: fewer than `max` does not say that there are no more, 0 does (but for those
    /// that somebody has leased).
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported); [`NotFound`](crate::ErrorKind::NotFound).
    pub async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        let redrive = async {
            require(self.capabilities().dead_letter, self.info(), "dead letters")?;
            check_sendable(queue)?;
            self.backend.redrive(queue, max).await
        };
        redrive.await.explain(self.info(), "queues.redrive", || subject(queue))
    }

    /// Looks at ready messages without taking them.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported); [`NotFound`](crate::ErrorKind::NotFound).
    pub async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        let peek = async {
            require(self.capabilities().peek, self.info(), "a look at messages without taking them")?;
            Receive::up_to(max).check()?;
            self.backend.peek(queue, max).await
        };
        peek.await.explain(self.info(), "queues.peek", || subject(queue))
    }

    /// Up to `max` dead letters of `queue`, which stay. Where the backend does not declare [`peek`](QueueCapabilities::peek) they are taken for a moment and
    /// given back: others don't see them meanwhile, and each look counts as a delivery of theirs.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported); [`NotFound`](crate::ErrorKind::NotFound).
    pub async fn dead_letters(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        require(self.capabilities().dead_letter, self.info(), "dead letters").explain(
            self.info(),
            "queues.dead_letters",
            || subject(queue),
        )?;
        let dead = queue.dead_letter()?;
        if self.capabilities().peek {
            return self.peek(&dead, max).await;
        }
        let mut taken = Vec::new();
        let outcome = self.take_up_to(&dead, max, &mut taken).await;
        let mut given_back = Ok(());
        for delivery in &taken {
            let back = MessageUpdate::visibility(Duration::ZERO);
            match self.update(&dead, &delivery.receipt, &back).await {
                // It is back already.
                Err(error) if error.kind() != ErrorKind::LeaseLost => given_back = Err(error),
                _ => {}
            }
        }
        outcome.and(given_back)?;
        Ok(taken.into_iter().map(|delivery| delivery.message).collect())
    }

    async fn take_up_to(&self, queue: &QueueName, max: u32, taken: &mut Vec<Delivery>) -> Result<()> {
        loop {
            let left = max.saturating_sub(u32::try_from(taken.len()).unwrap_or(u32::MAX));
            if left == 0 {
                return Ok(());
            }
            let batch = self.receive(queue, &Receive::up_to(left.min(MAX_MESSAGES))).await?;
            if batch.is_empty() {
                return Ok(());
            }
            taken.extend(batch);
        }
    }

    /// How full the queue is.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.backend.stats(queue).await.explain(self.info(), "queues.stats", || subject(queue))
    }

    /// Removes all messages, not the dead letters. Answers how many.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.backend.purge(queue).await.explain(self.info(), "queues.purge", || subject(queue))
    }

    /// The tasks of another system, where that is what the messages of these queues are.
    #[must_use]
    pub fn foreign_tasks(&self) -> Option<Arc<dyn ForeignTasks>> {
        self.backend.foreign_tasks()
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// The backend's.
    pub async fn ping(&self) -> Result<()> {
        self.backend.ping().await.explain(self.info(), "queues.ping", || "the store".into())
    }

    /// Finishes what is under way and lets go of everything.
    ///
    /// # Errors
    /// The backend's.
    pub async fn close(&self) -> Result<()> {
        self.backend.close().await.explain(self.info(), "queues.close", || "the store".into())
    }
}

/// A reason goes into an attribute: without U+0000, and 4,096 bytes of it at most, its end, where errors say the most.
fn bounded_reason(reason: &str) -> String {
    const MAX: usize = 4096;
    let clean = reason.replace('\0', "\u{fffd}");
    let mut start = clean.len().saturating_sub(MAX);
    while !clean.is_char_boundary(start) {
        start += 1;
    }
    clean[start..].to_owned()
}

fn subject(queue: &QueueName) -> String {
    format!("queue `{queue}`")
}

/// A queue whose bodies are `T` as JSON. Cheap to clone.
pub struct Queue<T> {
    store: QueueStore,
    name: QueueName,
    kind: PhantomData<fn(T) -> T>,
}

/// A received message of a [`Queue`], decoded.
#[derive(Clone, Debug)]
pub struct Received<T> {
    /// The body.
    pub value: T,
    /// The message and the proof of its lease.
    pub delivery: Delivery,
}

impl<T> Queue<T> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    /// The store it is in.
    #[must_use]
    pub fn store(&self) -> &QueueStore {
        &self.store
    }

    /// Removes a received message for good.
    ///
    /// # Errors
    /// See [`QueueStore::delete`].
    pub async fn delete(&self, received: &Received<T>) -> Result<()> {
        self.store.delete(&self.name, &received.delivery.receipt).await
    }
}

impl<T: Serialize> Queue<T> {
    /// Sends `value`.
    ///
    /// # Errors
    /// See [`QueueStore::send_all`].
    pub async fn send(&self, value: &T) -> Result<Sent> {
        self.send_with(value, |message| message).await
    }

    /// Sends `value` in a message that `options` completes: delay, priority, attributes, ….
    ///
    /// # Errors
    /// See [`QueueStore::send_all`].
    pub async fn send_with(&self, value: &T, options: impl FnOnce(NewMessage) -> NewMessage) -> Result<Sent> {
        self.store.send(&self.name, options(NewMessage::json(value)?)).await
    }

    /// Sends all values or none.
    ///
    /// # Errors
    /// See [`QueueStore::send_all`].
    pub async fn send_all<'a>(&self, values: impl IntoIterator<Item = &'a T>) -> Result<Vec<Sent>>
    where
        T: 'a,
    {
        let messages = values.into_iter().map(NewMessage::json).collect::<Result<Vec<_>>>()?;
        self.store.send_all(&self.name, messages).await
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Leases messages and decodes them. One whose body is not a `T` becomes a dead letter at once (where the backend has them, else it is left
    /// to its delivery cap), and does not keep the others back.
    ///
    /// # Errors
    /// See [`QueueStore::receive`].
    pub async fn receive(&self, request: &Receive) -> Result<Vec<Received<T>>> {
        let mut received = Vec::new();
        for delivery in self.store.receive(&self.name, request).await? {
            match delivery.message.json() {
                Ok(value) => received.push(Received { value, delivery }),
                Err(error) if self.store.capabilities().dead_letter => {
                    self.store.dead_letter(&self.name, &delivery.receipt, error.message()).await?;
                }
                Err(error) => {
                    tracing::warn!(queue = %self.name, %error, "left a message that can't be decoded to its delivery cap");
                }
            }
        }
        Ok(received)
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), name: self.name.clone(), kind: PhantomData }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("name", &self.name).field("backend", self.store.backend.info()).finish()
    }
}
