//! NATS JetStream: async-nats, publishes and acknowledgements in a row.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_nats::Subject as Address;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use async_nats::jetstream::{self};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use storage_nats::NatsDriver;
use tokio::time::Duration;

use super::{Ours, Subject, at_least, fresh_name};
use crate::queue::drive::{AsyncQueue, QueueCase, QueueRound, drive_async};
use crate::report::Target;
use crate::subject::{Named, Role};

/// How long a fetch waits where there is too little.
const FETCH: Duration = Duration::from_millis(200);

pub(super) fn subjects(address: &str) -> Vec<Box<dyn Subject>> {
    vec![Box::new(Ours::new("storage-nats", &NatsDriver, address)), Box::new(Raw { address: address.to_owned() })]
}

pub(super) fn targets() -> Vec<Target> {
    (0..2).map(|metric| at_least(metric, Role::Baseline, 0.9, "NATS: async-nats, pipelined")).collect()
}

struct Raw {
    address: String,
}

impl Named for Raw {
    fn name(&self) -> String {
        "async-nats, pipelined".to_owned()
    }

    fn role(&self) -> Role {
        Role::Baseline
    }

    fn note(&self) -> String {
        "a batch's last acknowledgement is confirmed by the server, as the toolkit's".to_owned()
    }
}

#[async_trait]
impl Subject for Raw {
    async fn round(&self, case: &QueueCase) -> Result<QueueRound> {
        let client = async_nats::connect(&self.address).await?;
        let context = jetstream::new(client.clone());
        let name = fresh_name();
        let config = Config {
            name: name.clone(),
            subjects: vec![name.clone()],
            retention: RetentionPolicy::WorkQueue,
            ..Config::default()
        };
        let stream = context.create_stream(config).await?;
        let config = pull::Config {
            durable_name: Some("workers".to_owned()),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: -1,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let queue = RawQueue { client, context: context.clone(), consumer, name: name.clone() };
        let round = drive_async(Arc::new(queue), *case).await;
        context.delete_stream(name).await?;
        round
    }
}

struct RawQueue {
    client: async_nats::Client,
    context: jetstream::Context,
    consumer: PullConsumer,
    name: String,
}

#[async_trait]
impl AsyncQueue for RawQueue {
    type Receipt = Address;

    async fn send(&self, _worker: usize, bodies: &[Bytes]) -> Result<()> {
        let mut waiting = Vec::with_capacity(bodies.len());
        for body in bodies {
            waiting.push(self.context.publish(self.name.clone(), body.clone()).await?);
        }
        for ack in waiting {
            ack.await?;
        }
        Ok(())
    }

    async fn receive(&self, _worker: usize, max: usize) -> Result<Vec<(Address, Bytes)>> {
        let mut batch = self.consumer.fetch().max_messages(max).expires(FETCH).messages().await?;
        let mut messages = Vec::new();
        while let Some(message) = batch.next().await {
            let message = message.map_err(|error| anyhow::anyhow!("{error}"))?;
            let reply = message.reply.clone().context("a message without an address for its acknowledgement")?;
            messages.push((reply, message.payload.clone()));
        }
        Ok(messages)
    }

    async fn delete(&self, _worker: usize, receipts: Vec<Address>) -> Result<()> {
        let Some((last, first)) = receipts.split_last() else { return Ok(()) };
        for reply in first {
            self.client.publish(reply.clone(), Bytes::from_static(b"+ACK")).await?;
        }
        self.client.request(last.clone(), Bytes::from_static(b"+ACK")).await?;
        Ok(())
    }

    async fn left(&self) -> Result<u64> {
        let stream = self.context.get_stream(&self.name).await?;
        Ok(stream.get_info().await?.state.messages)
    }

    async fn settings(&self) -> Result<String> {
        Ok(String::new())
    }
}
