//! apalis-sqlite, driven through its own queries: what its worker does, without its polling pauses.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use apalis_core::backend::TaskResult;
use apalis_core::task::Task;
use apalis_core::task::status::Status;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::context::WorkerContext;
use apalis_sqlite::{Config, SqliteStorage, queries};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::drive::{AsyncQueue, Durability, QueueCase};

const QUEUE: &str = "work";

/// A pool with apalis' schema, and a registered apalis worker for every worker of ours.
pub(crate) struct Apalis {
    pool: SqlitePool,
    config: Config,
    workers: Vec<WorkerContext>,
}

/// Creates the database in `dir`. Its `setup` would set `synchronous=OFF`, so only its migrations are run.
pub(crate) async fn open(dir: &Path, case: &QueueCase) -> Result<Arc<Apalis>> {
    let options = SqliteConnectOptions::new()
        .filename(dir.join("apalis.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(60))
        .synchronous(match case.sync {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        });
    // One connection for all workers: with one for each, waiting in SQLite's busy handler makes it three to five times slower.
    let pool =
        SqlitePoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(120)).connect_with(options).await?;
    SqliteStorage::migrations().run(&pool).await.context("running apalis' migrations")?;

    let config = Config::default().queue(QUEUE).batch_size(case.batch);
    let mut workers = Vec::with_capacity(case.workers);
    for worker in 0..case.workers {
        let worker = WorkerContext::new(&format!("worker-{worker}"));
        queries::register_worker(&pool, &config, &worker, "bench").await?;
        workers.push(worker);
    }
    Ok(Arc::new(Apalis { pool, config, workers }))
}

#[async_trait]
impl AsyncQueue for Apalis {
    type Receipt = (TaskId, usize);

    async fn send(&self, _worker: usize, bodies: &[Bytes]) -> Result<()> {
        let tasks: Vec<_> = bodies.iter().map(|body| Task::new(body.to_vec())).collect();
        if bodies.len() == 1 {
            let mut connection = self.pool.acquire().await?;
            queries::push_tasks(&mut *connection, QUEUE, &tasks).await?;
            return Ok(());
        }
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        queries::push_tasks(&mut *transaction, QUEUE, &tasks).await?;
        Ok(transaction.commit().await?)
    }

    async fn receive(&self, worker: usize, _max: usize) -> Result<Vec<(Self::Receipt, Bytes)>> {
        let tasks = queries::fetch_next(&self.pool, &self.config, &self.workers[worker]).await?;
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
        let acked = queries::ack_tasks(&self.pool, &payloads, self.workers[worker].name()).await?;
        anyhow::ensure!(acked == results.len() as u64, "{acked} of {} tasks were still held", results.len());
        Ok(())
    }

    async fn left(&self) -> Result<u64> {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM Jobs WHERE status <> 'Done'").fetch_one(&self.pool).await?;
        Ok(u64::try_from(left)?)
    }

    async fn settings(&self) -> Result<String> {
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&self.pool).await?;
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&self.pool).await?;
        Ok(super::drive::settings(&journal, synchronous))
    }
}
