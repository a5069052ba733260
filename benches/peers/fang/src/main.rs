//! Runs the queue workload on fang's async SQLite queue and prints the result as one JSON object.
#![forbid(unsafe_code)]

#[path = "../../../src/queue/drive.rs"]
#[allow(dead_code)] // the threads are for the baselines
mod drive;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use async_trait::async_trait;
use bytes::Bytes;
use clap::Parser;
use diesel::{Connection, RunQueryDsl, SqliteConnection};
use drive::{AsyncQueue, QueueCase};
use fang::asynk::async_queue::{AsyncQueue as FangQueue, AsyncQueueable};
use fang::{AsyncRunnable, FangError, typetag};
use serde::{Deserialize, Serialize};

const KIND: &str = "work";

#[derive(Parser)]
struct Args {
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    case: QueueCase,
}

#[derive(Serialize, Deserialize)]
struct Work {
    body: String,
}

#[typetag::serde]
#[async_trait]
impl AsyncRunnable for Work {
    async fn run(&self, _queue: &dyn AsyncQueueable) -> Result<(), FangError> {
        Ok(())
    }

    fn task_type(&self) -> String {
        KIND.to_owned()
    }
}

struct Fang {
    queue: FangQueue,
    inspector: sqlx::SqlitePool,
}

impl Fang {
    /// fang opens its own pool from a URL, which cannot name a journal mode; WAL stays with the file, so it is set before. The
    /// pool then has SQLite's own default, `synchronous=FULL`; there is no way to ask for NORMAL.
    async fn open(dir: &Path, case: &QueueCase) -> Result<Self> {
        let path = dir.join("fang.db");
        let file = path.to_str().context("the folder's path is not UTF-8")?;
        let mut connection = SqliteConnection::establish(file)?;
        diesel::sql_query("PRAGMA journal_mode=WAL").execute(&mut connection)?;
        fang::run_migrations_sqlite(&mut connection)
            .map_err(|error| anyhow!("running fang's migrations: {error}"))?;
        drop(connection);

        let url = format!("sqlite://{file}");
        let mut queue = FangQueue::builder()
            .uri(url.clone())
            .max_pool_size(u32::try_from(case.workers)?)
            .build();
        queue.connect().await.context("connecting fang's pool")?;
        Ok(Self {
            queue,
            inspector: sqlx::SqlitePool::connect(&url).await?,
        })
    }
}

#[async_trait]
impl AsyncQueue for Fang {
    type Receipt = fang::Task;

    async fn send(&self, _worker: usize, bodies: &[Bytes]) -> Result<()> {
        for body in bodies {
            let work = Work {
                body: String::from_utf8(body.to_vec())?,
            };
            self.queue.insert_task(&work).await?;
        }
        Ok(())
    }

    async fn receive(&self, _worker: usize, max: usize) -> Result<Vec<(fang::Task, Bytes)>> {
        let mut tasks = Vec::with_capacity(max);
        while tasks.len() < max {
            let task = match self.queue.fetch_and_touch_task(Some(KIND.to_owned())).await {
                Ok(Some(task)) => task,
                // Another worker removed the task between this one's SELECT and UPDATE.
                Ok(None) | Err(fang::AsyncQueueError::SqlXError(sqlx::Error::RowNotFound)) => break,
                Err(error) => return Err(error.into()),
            };
            let work: Work = serde_json::from_value(task.metadata.clone())?;
            tasks.push((task, Bytes::from(work.body)));
        }
        Ok(tasks)
    }

    /// A task that two workers fetched is gone for the second, which fang reports as an error: that is counted as a
    /// duplicate delivery already.
    async fn delete(&self, _worker: usize, tasks: Vec<fang::Task>) -> Result<()> {
        for task in tasks {
            match self.queue.remove_task(&task.id).await {
                Ok(_) | Err(fang::AsyncQueueError::ResultError { found: 0, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn left(&self) -> Result<u64> {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM fang_tasks")
            .fetch_one(&self.inspector)
            .await?;
        Ok(u64::try_from(left)?)
    }

    /// Read on a connection with the same options as fang's own.
    async fn settings(&self) -> Result<String> {
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(&self.inspector)
            .await?;
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
            .fetch_one(&self.inspector)
            .await?;
        Ok(drive::settings(&journal, synchronous))
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let args = Args::parse();
    let queue = Arc::new(Fang::open(&args.dir, &args.case).await?);
    let round = drive::drive_async(queue, args.case).await?;
    #[allow(clippy::print_stdout)] // the result is this program's output
    {
        println!("{}", serde_json::to_string(&round)?);
    }
    Ok(())
}
