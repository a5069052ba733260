//! apalis-postgres, driven through its own queries: what its worker does, without its polling pauses.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use apalis_core::backend::TaskResult;
use apalis_core::task::Task;
use apalis_core::task::status::Status;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::context::WorkerContext;
use apalis_postgres::{Config, PostgresStorage, queries};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::brokers::{Subject, fresh_name};
use crate::queue::drive::{AsyncQueue, QueueCase, QueueRound, drive_async};
use crate::subject::{Named, Role};

pub(super) struct Apalis {
    pub(super) address: String,
}

impl Named for Apalis {
    fn name(&self) -> String {
        "apalis-postgres 1.0".to_owned()
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn note(&self) -> String {
        "by the queries of its worker's backend: one fetches a batch, another one acknowledges it; a connection for each worker; done tasks \
         stay in the table"
            .to_owned()
    }
}

#[async_trait]
impl Subject for Apalis {
    async fn round(&self, case: &QueueCase) -> Result<QueueRound> {
        let connections = u32::try_from(case.workers)?;
        let pool = PgPoolOptions::new().min_connections(connections).max_connections(connections).connect(&self.address).await?;
        PostgresStorage::setup(&pool).await.context("running apalis' migrations")?;
        let name = fresh_name();
        let config = Config::default().queue(&name).batch_size(case.batch);
        let mut workers = Vec::with_capacity(case.workers);
        for worker in 0..case.workers {
            let worker = WorkerContext::new(&format!("{name}-{worker}"));
            // Its own call for this wants a type that it does not give away.
            let register = "INSERT INTO apalis.workers (id, worker_type, storage_name, layers, last_seen) VALUES ($1, $2, 'bench', '', now())";
            sqlx::query(register).bind(worker.name()).bind(&name).execute(&pool).await?;
            workers.push(worker);
        }
        let queue = Arc::new(Queue { pool: pool.clone(), config, name: name.clone(), workers });
        let round = drive_async(queue, *case).await;
        // Empty for the next round, as a queue of its own is for the others.
        sqlx::raw_sql("TRUNCATE apalis.jobs, apalis.workers CASCADE").execute(&pool).await?;
        pool.close().await;
        round
    }
}

struct Queue {
    pool: PgPool,
    config: Config,
    name: String,
    workers: Vec<WorkerContext>,
}

#[async_trait]
impl AsyncQueue for Queue {
    type Receipt = (TaskId, usize);

    async fn send(&self, _worker: usize, bodies: &[Bytes]) -> Result<()> {
        let tasks: Vec<_> = bodies.iter().map(|body| Task::new(body.to_vec())).collect();
        let mut connection = self.pool.acquire().await?;
        queries::push_tasks(&mut *connection, &self.name, tasks).await?;
        Ok(())
    }

    async fn receive(&self, worker: usize, _max: usize) -> Result<Vec<(Self::Receipt, Bytes)>> {
        let mut connection = self.pool.acquire().await?;
        let tasks = queries::fetch_next(&mut *connection, &self.config, &self.workers[worker]).await?;
        tasks
            .into_iter()
            .map(|task| {
                let id = task.task_id().cloned().context("apalis answered with a task without an id")?;
                let attempt = task.attempt();
                let (body, _) = task.take();
                Ok(((id, attempt), Bytes::from(body)))
            })
            .collect()
    }

    async fn delete(&self, worker: usize, receipts: Vec<Self::Receipt>) -> Result<()> {
        let results: Vec<_> = receipts
            .into_iter()
            .map(|(task_id, attempt)| TaskResult { task_id, attempt, status: Status::Done, result: Ok(serde_json::Value::Null) })
            .collect();
        let payloads: Vec<_> = results.iter().collect();
        let mut connection = self.pool.acquire().await?;
        let acked = queries::handle_results(&mut *connection, &payloads, self.workers[worker].name()).await?;
        ensure!(acked == results.len() as u64, "{acked} of {} tasks were still held", results.len());
        Ok(())
    }

    async fn left(&self) -> Result<u64> {
        let left = "SELECT count(*) FROM apalis.jobs WHERE job_type = $1 AND status <> 'Done'";
        let left: i64 = sqlx::query_scalar(left).bind(&self.name).fetch_one(&self.pool).await?;
        Ok(u64::try_from(left)?)
    }

    async fn settings(&self) -> Result<String> {
        Ok(String::new())
    }
}
