//! Celery: tasks for Python workers, and the tasks of Python apps.
//!
//! Messages of protocol 2, JSON, results by `rpc://` or in Redis. A Celery app needs no change: its workers run what is sent from here, and what it sends
//! is run here, with results that its `r.get()` returns. There are two ways in:
//!
//! - By configuration, [`CeleryDriver`]: `celery+amqp://…` is a queue backend whose messages are [`Task`]s as JSON, and `storage-tasks` on it sends its tasks to
//!   the app's workers and runs the app's ([`CeleryQueue`]).
//! - By hand, [`Celery`]: sends tasks, waits for their results, and makes a [`Worker`] with a handler for each name.
//!
//! ```no_run
//! use std::time::Duration;
//! use serde_json::json;
//! use storage_core::DriverConfig;
//! use storage_queue_amqp::celery::{Celery, Failure, Outcome, Task};
//!
//! # async fn example() -> storage_core::Result<()> {
//! let celery = Celery::open(&DriverConfig::from_url("celery+amqp://guest:guest@localhost:5672/"))?;
//! // A Python worker's task, and its result:
//! let id = celery.send("celery", &Task::new("shop.add").arg(2).arg(3)).await?;
//! assert_eq!(celery.result(&id, Duration::from_secs(10)).await?, Some(Outcome::Success(json!(5))));
//! // A worker for a Python app:
//! let queue = "thumbnails".parse()?;
//! let worker = celery.worker(&queue).await?.task("shop.thumbnail", |request| async move {
//!     let path = request.args.first().and_then(|arg| arg.as_str());
//!     path.map(|path| json!(format!("{path}.png"))).ok_or_else(|| Failure::new("TypeError", "a path is missing"))
//! });
//! worker.run(std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - A task may run twice, as with Celery's `acks_late`: its message is acknowledged when it has ended and its result is told.
//! - Chains and callbacks (`link`, `link_error`) of a Python app go on when a task has ended here: to the queue that they name, else to the one that the task came
//!   from, since the app's routes are not known here. Tasks of a chord are refused with `NotImplementedError`.
//! - Time limits and revocations of tasks under way are Python workers' alone. Queue names are the toolkit's: letters, digits, `_` and `-`.

mod config;
mod foreign;
mod inbox;
mod letter;
mod outcome;
mod queue;
mod results;
mod send;
mod task;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use storage_core::{DriverConfig, QueueName, Result};

pub use self::config::CeleryDriver;
use self::config::Parts;
use self::foreign::Exchange;
use self::inbox::Inbox;
pub use self::outcome::{Failure, Outcome};
pub use self::queue::CeleryQueue;
use self::results::Results;
pub use self::task::{Embed, Task};
pub use self::worker::Worker;

/// A Celery app's broker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Celery {
    exchange: Arc<Exchange>,
    inbox: Arc<Inbox>,
}

impl Celery {
    /// The broker at `celery+amqp://…`, or `amqp://…`, with the options of [`CeleryDriver`]. Connects when it is first used.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config) for a bad address or option.
    pub fn open(config: &DriverConfig) -> Result<Self> {
        Self::open_with(&CeleryDriver::default(), config)
    }

    /// As [`open`](Self::open), for results that are kept where `driver` knows a way to.
    ///
    /// # Errors
    /// See [`open`](Self::open).
    pub fn open_with(driver: &CeleryDriver, config: &DriverConfig) -> Result<Self> {
        let parts: Parts = driver.parts(config)?;
        let exchange = Arc::new(Exchange::new(parts));
        let inbox = Arc::new(Inbox::new(Arc::clone(exchange.queues().link())));
        Ok(Self { exchange, inbox })
    }

    /// Sends a task to a queue, `celery` by Celery's default, and makes the queue where it is missing. Answers the id of the task whose result is that of
    /// the whole: the last of a chain.
    ///
    /// # Errors
    /// As [`send`](storage_core::QueueBackend::send).
    pub async fn send(&self, queue: &str, task: &Task) -> Result<String> {
        let mut ids = self.send_all(queue, std::slice::from_ref(task)).await?;
        ids.pop().ok_or_else(|| storage_core::Error::internal("a task without an id"))
    }

    /// Sends tasks, with their confirms in flight together.
    ///
    /// # Errors
    /// See [`send`](Self::send). After an error some may have been sent; one that can't be sent keeps all of up to 5,000 back.
    pub async fn send_all(&self, queue: &str, tasks: &[Task]) -> Result<Vec<String>> {
        let reply_to = match self.exchange.results() {
            Results::Messages => Some(self.inbox.address().await?),
            Results::Values { .. } | Results::Nowhere => None,
        };
        let sender = self.exchange.sender();
        let ids = sender.send_all(&sender.at_broker(queue), tasks, reply_to, true).await?;
        Ok(ids.into_iter().map(|(_, last)| last).collect())
    }

    /// The queue to which this handle has results sent, with `rpc://`: it is there from now on. For tasks that are sent another way.
    ///
    /// # Errors
    /// Where the broker can't be reached.
    pub async fn address(&self) -> Result<&str> {
        self.inbox.address().await
    }

    /// What became of a task: with `rpc://`, one that this handle sent. `None` where it has not ended after `wait`, or nobody keeps results.
    ///
    /// With `rpc://`, 10,000 results are kept, and those that come while nobody has the handle are lost with it.
    ///
    /// # Errors
    /// Where results can't be had at all.
    pub async fn result(&self, id: &str, wait: Duration) -> Result<Option<Outcome>> {
        match self.exchange.results() {
            Results::Messages => {
                self.inbox.address().await?;
                Ok(self.inbox.result(id, wait).await)
            }
            results @ Results::Values { .. } => results.wait(id, wait).await,
            Results::Nowhere => Ok(None),
        }
    }

    /// A worker for the tasks of a queue, which is made where it is missing.
    ///
    /// # Errors
    /// Where the broker can't be reached.
    pub async fn worker(&self, queue: &QueueName) -> Result<Worker> {
        self.exchange.sender().make(&self.exchange.queues().at_broker(queue), None).await?;
        Ok(Worker::new(Arc::clone(&self.exchange), queue.clone()))
    }
}
