//! RabbitMQ: lapin, pipelined and with a confirm at a time.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use storage_queue_amqp::AmqpDriver;
use tokio::sync::Mutex;
use tokio::time::{Duration, timeout};

use super::{Ours, Subject, at_least, fresh_name, stand_for};
use crate::queue::drive::{AsyncQueue, QueueCase, QueueRound, drive_async};
use crate::report::Target;
use crate::subject::{Named, Role};

/// How long a consumer waits for a first message.
const FIRST: Duration = Duration::from_millis(200);
/// How many messages a consumer has in hand at most, as the toolkit's.
const PREFETCH: u16 = 1_000;

pub(super) fn subjects(address: &str) -> Vec<Box<dyn Subject>> {
    let ahead = format!("{address}?prefetch={PREFETCH}");
    let exact = Ours {
        role: Role::Information,
        note: "its default: no message is fetched that nobody has asked for, so none counts for a delivery that nobody saw",
        ..Ours::new("storage-queue-amqp, nothing fetched ahead", &AmqpDriver, address)
    };
    vec![
        Box::new(Ours { note: "`prefetch = 1000`, as lapin here", ..Ours::new("storage-queue-amqp", &AmqpDriver, &ahead) }),
        Box::new(exact),
        Box::new(Raw { address: address.to_owned(), pipelined: true }),
        Box::new(Raw { address: address.to_owned(), pipelined: false }),
    ]
}

pub(super) fn targets() -> Vec<Target> {
    vec![
        at_least(0, Role::Baseline, 0.9, "RabbitMQ: lapin, pipelined"),
        at_least(1, Role::Baseline, 0.9, "RabbitMQ: lapin, pipelined"),
        at_least(0, Role::Peer, 5.0, "RabbitMQ: lapin, a confirm at a time"),
    ]
}

struct Raw {
    address: String,
    /// Confirms are awaited together, batch by batch.
    pipelined: bool,
}

impl Named for Raw {
    fn name(&self) -> String {
        if self.pipelined { "lapin, pipelined" } else { "lapin, a confirm at a time" }.to_owned()
    }

    fn role(&self) -> Role {
        if self.pipelined { Role::Baseline } else { Role::Peer }
    }

    fn note(&self) -> String {
        "a channel for each worker; a batch is acknowledged by one frame, which nobody waits for".to_owned()
    }
}

#[async_trait]
impl Subject for Raw {
    async fn round(&self, case: &QueueCase) -> Result<QueueRound> {
        // One at a time is so slow that a part is enough.
        let messages = if self.pipelined { case.messages } else { case.messages / 10 };
        // An address that ends with a slash would name a virtual host without a name.
        let connection = Connection::connect(self.address.trim_end_matches('/'), ConnectionProperties::default()).await?;
        let name = fresh_name();
        let mut workers = Vec::with_capacity(case.workers);
        for _ in 0..case.workers {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            workers.push((channel, Mutex::new(None)));
        }
        let channel = &workers[0].0;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.as_str().into(), options, arguments).await?;
        let queue = Arc::new(RawQueue { workers, name, pipelined: self.pipelined });
        let round = drive_async(Arc::clone(&queue), QueueCase { messages, ..*case }).await;
        queue.workers[0].0.queue_delete(queue.name.as_str().into(), QueueDeleteOptions::default()).await?;
        connection.close(200, "done".into()).await?;
        round.map(|round| stand_for(round, case.messages / messages))
    }
}

struct RawQueue {
    workers: Vec<(Channel, Mutex<Option<Consumer>>)>,
    name: String,
    pipelined: bool,
}

#[async_trait]
impl AsyncQueue for RawQueue {
    type Receipt = u64;

    async fn send(&self, worker: usize, bodies: &[Bytes]) -> Result<()> {
        let channel = &self.workers[worker].0;
        let mut waiting = Vec::with_capacity(bodies.len());
        for body in bodies {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            let confirm = channel.basic_publish("".into(), self.name.as_str().into(), options, body, properties).await?;
            if self.pipelined {
                waiting.push(confirm);
            } else {
                ensure!(confirm.await?.is_ack(), "a message was refused");
            }
        }
        for confirm in waiting {
            ensure!(confirm.await?.is_ack(), "a message was refused");
        }
        Ok(())
    }

    async fn receive(&self, worker: usize, max: usize) -> Result<Vec<(u64, Bytes)>> {
        let (channel, consumer) = &self.workers[worker];
        let mut consumer = consumer.lock().await;
        let consumer = match &mut *consumer {
            Some(consumer) => consumer,
            none => {
                let options = BasicConsumeOptions::default();
                let tag = format!("worker-{worker}");
                none.insert(
                    channel.basic_consume(self.name.as_str().into(), tag.as_str().into(), options, FieldTable::default()).await?,
                )
            }
        };
        let Ok(first) = timeout(FIRST, consumer.next()).await else { return Ok(Vec::new()) };
        let mut next = Some(first.context("the consumer ended")?);
        let mut messages = Vec::new();
        while let Some(delivery) = next.take() {
            let delivery = delivery?;
            messages.push((delivery.delivery_tag, Bytes::from(delivery.data)));
            if messages.len() < max {
                next = futures::FutureExt::now_or_never(consumer.next()).flatten();
            }
        }
        Ok(messages)
    }

    async fn delete(&self, worker: usize, receipts: Vec<u64>) -> Result<()> {
        if let Some(last) = receipts.last() {
            self.workers[worker].0.basic_ack(*last, BasicAckOptions { multiple: true }).await?;
        }
        Ok(())
    }

    async fn left(&self) -> Result<u64> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.workers[0].0.queue_declare(self.name.as_str().into(), options, FieldTable::default()).await?;
        Ok(queue.message_count().into())
    }

    async fn settings(&self) -> Result<String> {
        Ok(String::new())
    }
}
