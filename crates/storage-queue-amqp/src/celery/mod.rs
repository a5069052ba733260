//! Celery: tasks for Python workers, and the tasks of Python apps.
//!
//! Messages of protocol 2, JSON, results by `rpc://`. A Celery app needs no change: its workers run what is sent from here, and what it sends is run
//! here by a [`Worker`], whose results its `r.get()` returns.
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
//! A task may run twice, as with Celery's `acks_late`. Results that come while nobody has a handle open are lost with it; 10,000 are kept.

mod inbox;
mod outcome;
mod task;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use storage_core::{DriverConfig, ErrorKind, QueueName, QueueStore, Result};

use self::inbox::Inbox;
pub use self::outcome::{Failure, Outcome};
pub use self::task::Task;
pub use self::worker::{Request, Worker};
use crate::AmqpQueue;
use crate::config::Settings;
use crate::declare::ready;
use crate::link::Link;
use crate::publish::{Letter, Publisher};

/// A Celery app's broker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Celery {
    queues: Arc<AmqpQueue>,
    inbox: Arc<Inbox>,
}

impl Celery {
    /// The broker at `celery+amqp://…`, or `amqp://…`, with the options of [`AmqpDriver`](crate::AmqpDriver). Connects when it is first used.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for a bad address or option.
    pub fn open(config: &DriverConfig) -> Result<Self> {
        let mut config = config.clone();
        if let Some(url) = config.url.as_mut()
            && let Some(rest) = url.strip_prefix("celery+")
        {
            *url = rest.to_owned();
        }
        storage_core::Driver::check_options(&crate::AmqpDriver, &config)?;
        let queues = Arc::new(AmqpQueue::new(Settings::new(&config)?));
        let inbox = Arc::new(Inbox::new(Arc::clone(queues.link())));
        Ok(Self { queues, inbox })
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
    /// See [`send`](Self::send). After an error some may have been sent.
    pub async fn send_all(&self, queue: &str, tasks: &[Task]) -> Result<Vec<String>> {
        let reply_to = self.inbox.address().await?;
        let (mut ids, mut letters) = (Vec::new(), Vec::new());
        for task in tasks {
            let letter = task::encode(task, reply_to)?;
            ids.push(letter.last_id);
            letters.push(Letter { to: queue.to_owned(), parcel: letter.parcel });
        }
        match self.publisher().publish(letters.clone()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(self.queues.link(), queue).await?;
                self.publisher().publish(letters).await?;
            }
            outcome => outcome?,
        }
        Ok(ids)
    }

    /// What became of a task that this handle sent; `None` where it has not ended after `wait`.
    ///
    /// # Errors
    /// Where results can't be received at all.
    pub async fn result(&self, id: &str, wait: Duration) -> Result<Option<Outcome>> {
        self.inbox.address().await?;
        Ok(self.inbox.result(id, wait).await)
    }

    /// A worker for the tasks of a queue, which is made where it is missing. With the option `prefix` it has that in front of its name.
    ///
    /// # Errors
    /// Where the broker can't be reached.
    pub async fn worker(&self, queue: &QueueName) -> Result<Worker> {
        let at_broker = format!("{}{queue}", self.queues.link().settings().prefix);
        if ready(self.queues.link(), &at_broker).await?.is_none() {
            make(self.queues.link(), &at_broker).await?;
        }
        let store = QueueStore::new(Arc::clone(&self.queues) as _);
        Ok(Worker::new(store, queue.clone(), at_broker, Arc::clone(self.publisher())))
    }

    fn publisher(&self) -> &Arc<Publisher> {
        self.queues.publisher()
    }
}

/// A queue as Celery makes it.
async fn make(link: &Link, queue: &str) -> Result<()> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    link.briefly(async |channel| channel.queue_declare(queue.into(), options, FieldTable::default()).await).await.map(drop)
}
