//! Redis: the toolkit's own scripts called by the bare client, apalis-redis, and BullMQ.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Script, Value};
use storage_core::{QueueName, QueueSpec, QueueStore};
use storage_redis::RedisDriver;

use super::apalis::Apalis;
use super::bullmq::BullMq;
use super::{Ours, Place, Subject, at_least, fresh_name};
use crate::queue::drive::{AsyncQueue, QueueCase, QueueRound, drive_async};
use crate::report::Target;
use crate::subject::{Named, Role};

pub(super) fn subjects(place: &Place<'_>) -> Vec<Box<dyn Subject>> {
    let address = || place.address.to_owned();
    let mut subjects: Vec<Box<dyn Subject>> = vec![
        Box::new(Ours::new("storage-redis", &RedisDriver, &address())),
        Box::new(Raw { address: address() }),
        Box::new(Apalis { address: address() }),
    ];
    if let Some(program) = place.peers.bullmq.clone() {
        subjects.push(Box::new(BullMq { address: address(), program }));
    }
    subjects
}

pub(super) fn targets() -> Vec<Target> {
    (0..2)
        .flat_map(|metric| {
            [
                at_least(metric, Role::Baseline, 0.8, "Redis: the same scripts by the bare client"),
                at_least(metric, Role::Peer, 1.0, "Redis: the better of apalis-redis and BullMQ"),
            ]
        })
        .collect()
}

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(
            include_str!("../../../crates/storage-redis/src/lua/queue.lua"),
            "\n",
            include_str!(concat!("../../../crates/storage-redis/src/lua/", $file))
        ))
    };
}

/// The keys in the order in which the scripts take them.
const PARTS: &str = "meta body attributes state age ready leased delayed expiring dedup dedup:until dead:body dead:attributes dead:state \
                     dead:age dead:ready dead:leased dead:info";

/// The toolkit's scripts, each called once for a batch over one connection that all workers share.
struct Raw {
    address: String,
}

impl Named for Raw {
    fn name(&self) -> String {
        "the same scripts by redis-rs".to_owned()
    }

    fn role(&self) -> Role {
        Role::Baseline
    }

    fn note(&self) -> String {
        "nothing checked, no attributes read; one connection shared by all workers".to_owned()
    }
}

#[async_trait]
impl Subject for Raw {
    async fn round(&self, case: &QueueCase) -> Result<QueueRound> {
        let backends = crate::ours::open(&RedisDriver, &self.address, &[]).await?;
        let store = QueueStore::new(backends.queue.context("the driver has no queues")?);
        let name = fresh_name();
        store.create_queue(&QueueName::new(&name)?, &QueueSpec::default()).await?;
        let connection = redis::Client::open(self.address.as_str())?.get_multiplexed_async_connection().await?;
        let queue = RawQueue {
            connection,
            keys: PARTS.split(' ').map(|part| format!("storage:{{{name}}}:{part}")).collect(),
            scripts: [script!("send.lua"), script!("receive.lua"), script!("delete.lua")],
            leases: AtomicU64::new(0),
        };
        let round = drive_async(Arc::new(queue), *case).await;
        store.delete_queue(&QueueName::new(&name)?).await?;
        store.close().await?;
        round
    }
}

struct RawQueue {
    connection: MultiplexedConnection,
    keys: Vec<String>,
    scripts: [Script; 3],
    leases: AtomicU64,
}

impl RawQueue {
    /// The values behind the number that says that it went well.
    async fn call(&self, script: usize, arguments: &[&[u8]]) -> Result<Vec<Value>> {
        let mut invocation = self.scripts[script].prepare_invoke();
        for key in &self.keys {
            invocation.key(key);
        }
        for argument in arguments {
            invocation.arg(*argument);
        }
        let answer: Vec<Value> = invocation.invoke_async(&mut self.connection.clone()).await?;
        ensure!(answer.first() == Some(&Value::Int(0)), "the script did not end well: {answer:?}");
        Ok(answer)
    }
}

#[async_trait]
impl AsyncQueue for RawQueue {
    type Receipt = (Vec<u8>, Vec<u8>);

    async fn send(&self, _worker: usize, bodies: &[Bytes]) -> Result<()> {
        let rest: [&[u8]; 6] = [b"", b"0", b"0", b"0", b"", b""];
        let arguments: Vec<&[u8]> = bodies.iter().flat_map(|body| std::iter::once(&body[..]).chain(rest)).collect();
        self.call(0, &arguments).await.map(drop)
    }

    async fn receive(&self, _worker: usize, max: usize) -> Result<Vec<(Self::Receipt, Bytes)>> {
        let lease = format!("bench.{}", self.leases.fetch_add(1, Ordering::Relaxed));
        let max = max.to_string();
        let answer = self.call(1, &[b"live", max.as_bytes(), b"30000000", lease.as_bytes(), b"67108864"]).await?;
        let Some(Value::Array(shown)) = answer.into_iter().nth(4) else { anyhow::bail!("a strange answer") };
        // Number, state, body, attributes and why it is dead, for each.
        let mut shown = shown.into_iter();
        let mut messages = Vec::new();
        while let (Some(Value::BulkString(number)), Some(_), Some(Value::BulkString(body)), Some(_), Some(_)) =
            (shown.next(), shown.next(), shown.next(), shown.next(), shown.next())
        {
            messages.push(((number, lease.clone().into_bytes()), Bytes::from(body)));
        }
        Ok(messages)
    }

    async fn delete(&self, _worker: usize, receipts: Vec<Self::Receipt>) -> Result<()> {
        let mut arguments: Vec<&[u8]> = vec![b"live"];
        arguments.extend(receipts.iter().flat_map(|(number, lease)| [&number[..], &lease[..]]));
        self.call(2, &arguments).await.map(drop)
    }

    async fn left(&self) -> Result<u64> {
        Ok(redis::cmd("HLEN").arg(&self.keys[3]).query_async(&mut self.connection.clone()).await?)
    }

    async fn settings(&self) -> Result<String> {
        Ok(String::new())
    }
}
