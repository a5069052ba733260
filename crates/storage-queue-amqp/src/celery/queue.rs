//! [`CeleryQueue`]: the queues of a Celery app, with the toolkit's messages.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use storage_core::{
    BackendInfo, Delivery, Error, ForeignTasks, Message, MessageId, MessageUpdate, NewMessage, OpenFlag, QueueBackend,
    QueueCapabilities, QueueName, QueueSpec, QueueStats, Receipt, Receive, Result, Sent, clock, require,
};
use tokio::time::Instant;

use super::config::Parts;
use super::foreign::Exchange;
use super::letter;
use super::task::Task;
use crate::AmqpQueue;

/// The longest that a task whose time has not come is held at once.
const LONGEST_HOLD: Duration = Duration::from_secs(12 * 3600);

/// The queues of a Celery app. A message's body is a [`Task`] as JSON.
///
/// - **Sent**, it is a task message that the app's workers run. Its id is the task's; a delay is its `eta`; attributes are headers of their own names.
/// - **Received**, it is a task that the app sent, or another program from here. One whose `eta` has not come is held until then. One that can't be read
///   (another serializer, no task at all) is set aside in the queue `<queue>-dead`, which `amqp://` shows.
/// - **Deleted**, it is done, and nobody is told: answers are for [`foreign_tasks`](QueueBackend::foreign_tasks), or [`Worker`](super::Worker).
///
/// Queues are declared as Celery declares them, and not at all where they are there. They have neither cap nor dead letters of their own, time to live
/// (but for a task's `expires`), nor deduplication; a priority stands in the task.
#[derive(Debug)]
pub struct CeleryQueue {
    exchange: Arc<Exchange>,
    queues: Arc<AmqpQueue>,
    open: OpenFlag,
    capabilities: QueueCapabilities,
}

impl CeleryQueue {
    pub(super) fn new(parts: Parts) -> Self {
        Self::of(Arc::new(Exchange::new(parts)))
    }

    pub(super) fn of(exchange: Arc<Exchange>) -> Self {
        let queues = Arc::clone(exchange.queues());
        let capabilities = QueueCapabilities {
            ttl: false,
            priority: false,
            // What is held for its time is overtaken.
            fifo: false,
            dead_letter: false,
            ..queues.capabilities().clone()
        };
        Self { exchange, queues, open: OpenFlag::default(), capabilities }
    }

    /// What of these deliveries is to be handled now. The rest is held for its time, or set aside.
    async fn sort(&self, queue: &QueueName, deliveries: Vec<Delivery>) -> Result<Vec<Delivery>> {
        let mut due = Vec::new();
        for delivery in deliveries {
            match letter::decode(&delivery.message) {
                Ok((task, attributes)) => match early(&task) {
                    None => due.push(Delivery { message: message(delivery.message, &task, attributes)?, ..delivery }),
                    Some(wait) => self.hold(queue, &delivery, wait).await,
                },
                Err(reason) => self.set_aside(queue, &delivery, &reason).await,
            }
        }
        Ok(due)
    }

    async fn hold(&self, queue: &QueueName, delivery: &Delivery, wait: Duration) {
        let change = MessageUpdate::visibility(wait.min(LONGEST_HOLD));
        if let Err(error) = self.queues.update(queue, &delivery.receipt, &change).await {
            tracing::debug!(%queue, %error, "a task whose time has not come comes again");
        }
    }

    async fn set_aside(&self, queue: &QueueName, delivery: &Delivery, reason: &str) {
        tracing::warn!(%queue, reason, "set a message aside that is no task for this program");
        if let Err(error) = self.queues.dead_letter(queue, &delivery.receipt, reason).await {
            tracing::warn!(%queue, %error, "can't set a message aside: it comes again");
        }
    }
}

/// How long it is until a task may run.
fn early(task: &Task) -> Option<Duration> {
    (task.eta? - Utc::now()).to_std().ok().filter(|wait| !wait.is_zero())
}

fn message(message: Message, task: &Task, attributes: storage_core::Attributes) -> Result<Message> {
    Ok(Message {
        id: MessageId(task.id.clone().unwrap_or_default()),
        body: Bytes::from(serde_json::to_vec(task)?),
        attributes,
        content_type: Some("application/json".into()),
        expires_at: None,
        ..message
    })
}

fn read(message: &NewMessage) -> Result<Task> {
    if let Some(kind) = message.content_type.as_deref().filter(|kind| *kind != "application/json") {
        return Err(Error::invalid(format!("the content type `{kind}`: tasks are JSON")));
    }
    let task: Result<Task, _> = serde_json::from_slice(&message.body);
    let mut task = task.map_err(|error| {
        Error::invalid(format!(r#"no task: {error}; write {{"task": "shop.add", "args": [2, 3], "kwargs": {{}}}}"#))
    })?;
    if !message.delay.is_zero() {
        if task.eta.is_some() {
            return Err(Error::invalid("both a delay and an `eta`: one of them says when it is to be run"));
        }
        task.eta = Some(clock::add(Utc::now(), message.delay));
    }
    task.check()?;
    Ok(task)
}

#[async_trait]
impl QueueBackend for CeleryQueue {
    fn info(&self) -> &BackendInfo {
        self.queues.info()
    }

    fn capabilities(&self) -> &QueueCapabilities {
        &self.capabilities
    }

    async fn create_queue(&self, queue: &QueueName, _spec: &QueueSpec) -> Result<bool> {
        self.open.check()?;
        self.exchange.sender().make(&self.queues.at_broker(queue), None).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.queues.delete_queue(queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        require(false, self.info(), "a list of a Celery app's queues").map(|()| Vec::new())
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.queues.queue_spec(queue).await
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        self.open.check()?;
        let mut tasks = Vec::with_capacity(messages.len());
        for (index, message) in messages.into_iter().enumerate() {
            let task = read(&message).map_err(|error| error.with_failed_write(index))?;
            tasks.push((task, message.attributes));
        }
        let reply_to = self.exchange.reply_to().await?;
        self.exchange.results().forget(tasks.iter().filter_map(|(task, _)| task.id.as_ref())).await?;
        let encode = || {
            let encoded = tasks.iter().enumerate().map(|(index, (task, attributes))| {
                letter::encode(task, attributes, reply_to).map_err(|error| error.with_failed_write(index))
            });
            encoded.collect()
        };
        let ids = self.exchange.sender().send_part(&self.queues.at_broker(queue), encode, false).await?;
        Ok(ids.into_iter().map(|(id, _)| Sent { id: MessageId(id), duplicate: false }).collect())
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let until = Instant::now() + request.wait;
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            let deliveries = self.queues.receive(queue, &Receive { wait, ..*request }).await?;
            let none = deliveries.is_empty();
            let due = self.sort(queue, deliveries).await?;
            if none || !due.is_empty() {
                return Ok(due);
            }
        }
    }

    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        self.queues.delete(queue, receipts).await
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        self.queues.update(queue, receipt, change).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.queues.stats(queue).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.queues.purge(queue).await
    }

    fn foreign_tasks(&self) -> Option<Arc<dyn ForeignTasks>> {
        Some(Arc::clone(&self.exchange) as _)
    }

    async fn ping(&self) -> Result<()> {
        self.queues.ping().await
    }

    async fn close(&self) -> Result<()> {
        if !self.open.close() {
            return Ok(());
        }
        self.exchange.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_tasks() {
        let body = |text: &str| read(&NewMessage::new(text.to_owned()));
        assert_eq!(body(r#"{"task": "a.b", "args": [1]}"#).unwrap(), Task::new("a.b").arg(1));
        assert!(body("hello").unwrap_err().message().contains(r#"{"task": "shop.add""#));
        assert!(body(r#"{"task": ""}"#).is_err());
        let delayed = NewMessage::new(r#"{"task": "a"}"#).delay(Duration::from_secs(60));
        assert!(early(&read(&delayed).unwrap()).unwrap() > Duration::from_secs(50));
        let twice = NewMessage::new(r#"{"task": "a", "eta": "2026-01-01T00:00:00Z"}"#).delay(Duration::from_secs(60));
        assert!(read(&twice).unwrap_err().message().contains("both"));
        assert!(read(&NewMessage::new(r#"{"task": "a"}"#).content_type("text/plain")).is_err());
    }
}
