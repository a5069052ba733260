//! Running the tasks that a Celery app sends.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use chrono::Utc;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;
use storage_core::{Consumer, ConsumerOptions, ConsumerReport, Message, Outcome as Settle, QueueName, QueueStore, Result};

use super::foreign::Exchange;
use super::outcome::{Failure, Outcome};
use super::queue::CeleryQueue;
use super::results::refusal;
use super::task::Task;

type Handler = Box<dyn Fn(Task) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync>;

/// Runs tasks by name. Made by [`Celery::worker`](super::Celery::worker).
///
/// A task whose time has not come is held until then; an expired one is not run, and revoked; one without a handler fails with `NotRegistered`. Results and
/// failures are told to whoever asked, and what follows a task is sent on. A handler that panics has failed.
pub struct Worker {
    exchange: Arc<Exchange>,
    queue: QueueName,
    handlers: HashMap<String, Handler>,
    options: ConsumerOptions,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: Vec<_> = self.handlers.keys().collect();
        f.debug_struct("Worker").field("queue", &self.queue).field("tasks", &tasks).finish_non_exhaustive()
    }
}

impl Worker {
    pub(super) fn new(exchange: Arc<Exchange>, queue: QueueName) -> Self {
        Self { exchange, queue, handlers: HashMap::new(), options: ConsumerOptions::default() }
    }

    /// Runs the tasks of that name with `handler`.
    #[must_use]
    pub fn task<F>(mut self, name: impl Into<String>, handler: impl Fn(Task) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Value, Failure>> + Send + 'static,
    {
        self.handlers.insert(name.into(), Box::new(move |task| handler(task).boxed()));
        self
    }

    /// How many tasks run at once, and the like.
    #[must_use]
    pub fn options(mut self, options: ConsumerOptions) -> Self {
        self.options = options;
        self
    }

    /// Runs until `shutdown` is ready, then finishes what it has begun.
    ///
    /// # Errors
    /// See [`Consumer::run`].
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<ConsumerReport> {
        let store = QueueStore::new(Arc::new(CeleryQueue::of(Arc::clone(&self.exchange))));
        let consumer = Consumer::new(&store, &self.queue, self.options.clone())?;
        let worker = Arc::new(self);
        let handle = move |message: Message| {
            let worker = Arc::clone(&worker);
            async move { worker.handle(&message).await }
        };
        consumer.run(handle, shutdown).await
    }

    async fn handle(&self, message: &Message) -> Settle {
        let task: Task = match message.json() {
            Ok(task) => task,
            Err(error) => return Settle::retry(error),
        };
        let outcome = self.outcome(&task).await;
        match self.exchange.tell(&self.queue, &task, &outcome).await {
            Ok(()) => Settle::Done,
            // The task runs again: it may have to bear that anyway.
            Err(error) => Settle::retry(error),
        }
    }

    async fn outcome(&self, task: &Task) -> Outcome {
        if task.expires.is_some_and(|at| at <= Utc::now()) {
            return Outcome::Revoked("expired".into());
        }
        if let Some(failure) = refusal(task) {
            return Outcome::Failure(failure);
        }
        let Some(handler) = self.handlers.get(&task.task) else {
            return Outcome::Failure(Failure::new("NotRegistered", task.task.clone()));
        };
        let run = AssertUnwindSafe(async { handler(task.clone()).await }).catch_unwind();
        let answer = run.await.unwrap_or_else(|_| Err(Failure::new("RuntimeError", "the handler panicked")));
        answer.map_or_else(Outcome::Failure, Outcome::Success)
    }
}
