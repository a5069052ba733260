//! apalis-redis, driven through the backend that its worker drives: what the worker does, with batches in place of single tasks.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};

use anyhow::{Context as _, Result, ensure};
use apalis_core::backend::persistence::TaskPersistLayer;
use apalis_core::backend::{Backend as _, BackendConfig};
use apalis_core::layers::{Layer as _, Service as _};
use apalis_core::task::Task;
use apalis_core::task::status::Status;
use apalis_core::task::task_fn::task_fn;
use apalis_core::worker::context::WorkerContext;
use apalis_redis::{Config, ConnectionManager, RedisStorage, queries};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::{Duration, timeout};

use super::{Subject, fresh_name, stand_for};
use crate::queue::drive::{AsyncQueue, QueueCase, QueueRound, drive_async};
use crate::subject::{Named, Role};

/// How long a consumer waits for what it has asked for. The answer of a longer one is there when it asks again.
const PATIENCE: Duration = Duration::from_millis(20);

/// The most tasks of a round. Each is sent as one that is scheduled for now; the first fetch moves all that are due by one call, whose
/// arguments the server's scripts have room for some 8,000 of.
const MOST: usize = 4_000;

pub(super) struct Apalis {
    pub(super) address: String,
}

impl Named for Apalis {
    fn name(&self) -> String {
        "apalis-redis 1.0".to_owned()
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn note(&self) -> String {
        "through its worker's backend: a script fetches a batch, another one acknowledges it; no locks beside its workers' sets, no \
         events; done tasks stay in the database; rounds of 4,000 tasks, since its scripts fail where some 8,000 are due"
            .to_owned()
    }
}

#[async_trait]
impl Subject for Apalis {
    async fn round(&self, case: &QueueCase) -> Result<QueueRound> {
        let connection = apalis_redis::connect(self.address.as_str()).await?;
        let queue = Arc::new(Queue::open(connection, &fresh_name(), case).await?);
        let messages = case.messages.min(MOST);
        let round = drive_async(Arc::clone(&queue), QueueCase { messages, ..*case }).await;
        queue.clear().await?;
        round.map(|round| stand_for(round, case.messages / messages))
    }
}

type Storage = RedisStorage<Vec<u8>>;

/// A worker's side of the queue.
struct Consumer {
    storage: Storage,
    context: WorkerContext,
    /// Tells the storage what has become of a task.
    layer: <Storage as BackendConfig>::Layer,
}

impl Consumer {
    /// Does what has to be done before tasks are fetched: tells that the worker is there, and what has become of its tasks.
    async fn ready(&mut self) -> Result<()> {
        let Self { storage, context, .. } = self;
        Ok(poll_fn(|cx| storage.poll_ready(cx, context)).await?)
    }

    /// Waits for a first task, and takes those that came with it.
    async fn next(&mut self, max: usize) -> Result<Vec<Task<Vec<u8>>>> {
        let Self { storage, context, .. } = self;
        let mut tasks = Vec::with_capacity(max);
        poll_fn(|cx| {
            ready!(storage.poll_ready(cx, context))?;
            while tasks.len() < max {
                match storage.poll_next(cx, context) {
                    Poll::Ready(task) => tasks.push(task.context("the storage has ended")??),
                    Poll::Pending if tasks.is_empty() => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(anyhow::Ok(()))
        })
        .await?;
        Ok(tasks)
    }
}

/// One connection for all, as its documentation has it.
struct Queue {
    connection: ConnectionManager,
    config: Config,
    name: String,
    consumers: Vec<Mutex<Consumer>>,
}

impl Queue {
    async fn open(connection: ConnectionManager, name: &str, case: &QueueCase) -> Result<Self> {
        let config = Config::default().queue(name).batch_size(case.batch).lock_tasks(false).emit_events(false);
        let mut consumers = Vec::with_capacity(case.workers);
        for worker in 0..case.workers {
            let mut context = WorkerContext::new(&format!("{name}-{worker}"));
            let mut storage = Storage::new(connection.clone()).with_config(config.clone());
            let layer: TaskPersistLayer<_, _> = storage.middleware(&mut context);
            let mut consumer = Consumer { storage, context, layer };
            consumer.ready().await?;
            consumers.push(Mutex::new(consumer));
        }
        Ok(Self { connection, config, name: name.to_owned(), consumers })
    }

    async fn count(&self, command: &str, key: String) -> Result<u64> {
        Ok(redis::cmd(command).arg(key).query_async(&mut self.connection.clone()).await?)
    }

    /// Removes the queue with its done tasks.
    async fn clear(&self) -> Result<()> {
        let mut connection = self.connection.clone();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{}*", self.name)).arg("COUNT").arg(1_000);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
            if !keys.is_empty() {
                redis::cmd("UNLINK").arg(keys).query_async::<()>(&mut connection).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

#[async_trait]
impl AsyncQueue for Queue {
    /// The task, without its body.
    type Receipt = Task<()>;

    async fn send(&self, _worker: usize, bodies: &[Bytes]) -> Result<()> {
        let tasks: Vec<_> = bodies.iter().map(|body| Task::new(body.to_vec())).collect();
        // It schedules all of them, for now at the earliest.
        let (active, scheduled) = queries::push_tasks(&mut self.connection.clone(), &self.config, &tasks).await?;
        let sent = active + scheduled;
        ensure!(sent as usize == bodies.len(), "{sent} of {} tasks were taken", bodies.len());
        Ok(())
    }

    async fn receive(&self, worker: usize, max: usize) -> Result<Vec<(Self::Receipt, Bytes)>> {
        let mut consumer = self.consumers[worker].lock().await;
        let Ok(tasks) = timeout(PATIENCE, consumer.next(max)).await else { return Ok(Vec::new()) };
        let tasks = tasks?.into_iter().map(|task| {
            let (body, context) = task.take();
            (Task::new_with_ctx((), context), Bytes::from(body))
        });
        Ok(tasks.collect())
    }

    /// Runs the tasks, which do nothing, so that the storage is told of their ends; then has it write them down.
    async fn delete(&self, worker: usize, receipts: Vec<Self::Receipt>) -> Result<()> {
        let mut consumer = self.consumers[worker].lock().await;
        let mut service = consumer.layer.layer(task_fn(|(): ()| async { anyhow::Ok(()) }));
        for task in receipts {
            task.raw_status().store(Status::Done);
            service.call(task).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        }
        drop(service);
        consumer.ready().await
    }

    /// What is not done yet: to be had, held by a worker, to be tried again, or given up.
    async fn left(&self) -> Result<u64> {
        let mut left = self.count("LLEN", self.config.active_jobs_list()).await?;
        left += self.count("ZCARD", self.config.scheduled_jobs_set()).await?;
        left += self.count("SCARD", self.config.dead_jobs_set()).await?;
        for consumer in &self.consumers {
            left += self.count("SCARD", self.config.inflight_set_for(&consumer.lock().await.context)).await?;
        }
        Ok(left)
    }

    async fn settings(&self) -> Result<String> {
        Ok(String::new())
    }
}
