//! [`TaskWorker`]: runs handlers on tasks.

mod foreign;

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, select};
use storage_core::backoff::Backoff;
use storage_core::{Consumer, ConsumerOptions, ConsumerReport, ErrorKind, Message, Outcome, QueueName, Result};

use crate::cancel::CancelCheck;
use crate::message::TaskMessage;
use crate::store::{Claim, Start};
use crate::{Task, TaskEnd, TaskFilter, TaskOutput, TaskStatus, TaskStore};

/// How often a worker of some kinds that drains looks whether tasks of these are left.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How many tasks it looks at in one page.
const LOOK_AT: u32 = 100;

/// What a handler is given.
#[derive(Clone, Debug)]
pub struct TaskContext {
    /// The task as it was started.
    pub task: Task,
    /// Tells whether somebody asked it to stop.
    pub cancel: CancelCheck,
    /// The store it is in.
    pub tasks: TaskStore,
}

/// Why a handler did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskFailure {
    /// Not now: it is tried again, as often as the task allows.
    Retry {
        /// Why.
        reason: String,
        /// After how long. `None`: the worker's backoff.
        after: Option<Duration>,
    },
    /// Not its time: it is put back, and the attempt does not count.
    Later {
        /// Why.
        reason: String,
        /// After how long. `None`: the worker's backoff, which grows with every delivery.
        after: Option<Duration>,
    },
    /// Never: the task fails for good.
    Fatal {
        /// Why.
        reason: String,
    },
    /// It stopped because somebody asked it to.
    Cancelled,
}

impl TaskFailure {
    /// [`TaskFailure::Retry`] with the worker's backoff.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::Retry { reason: reason.to_string(), after: None }
    }

    /// [`TaskFailure::Later`] with the worker's backoff.
    pub fn later(reason: impl fmt::Display) -> Self {
        Self::Later { reason: reason.to_string(), after: None }
    }

    /// [`TaskFailure::Fatal`].
    pub fn fatal(reason: impl fmt::Display) -> Self {
        Self::Fatal { reason: reason.to_string() }
    }
}

impl<E: std::error::Error> From<E> for TaskFailure {
    /// An error is tried again.
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

type Handler = Arc<dyn Fn(TaskContext) -> BoxFuture<'static, Result<TaskOutput, TaskFailure>> + Send + Sync>;

/// How a [`TaskWorker`] works.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// The queue. `None`: the task store's.
    pub queue: Option<QueueName>,
    /// Concurrency, leases, backoff, grace, drain.
    pub consumer: ConsumerOptions,
    /// How long a task of a kind without a handler is put back for another worker.
    pub foreign_delay: Option<Duration>,
}

/// Runs handlers on tasks, by kind.
///
/// - **At least once.** A task whose worker ends, or loses its lease, is run again elsewhere while the first handler may still be at it (its future is dropped as soon as
///   the loss is known). So handlers should be safe to repeat. What a handler answers counts only while the attempt is still its own.
/// - A success writes output, result, event and the move to the finished table together, then removes the message. A message of a task that is
///   finished, cancelled, deleted or sent again is removed without running anything.
/// - A failure is tried again with a backoff until the task's [`max_attempts`](Task::max_attempts); then the task fails, with the last reason, and its message becomes a
///   dead letter. The task's record is the truth: sent home, the dead letter finds it finished. [`TaskStore::retry`] runs it again.
/// - Leases are renewed by the [`Consumer`] inside for as long as a handler runs.
/// - On a queue of another system ([`TaskStore::is_foreign`]) it runs the tasks that its programs send: each is written down when it first comes, and its end is
///   told to whoever sent it. A failure of such a task is final at once, as its sender expects, unless the handler says when to try again
///   ([`TaskFailure::Retry`] with `after`) or that it is not its time.
#[derive(Clone)]
pub struct TaskWorker {
    tasks: TaskStore,
    options: WorkerOptions,
    handlers: HashMap<String, Handler>,
    fallback: Option<Handler>,
    /// True once a task of a kind without a handler was given back.
    met_foreign: Arc<AtomicBool>,
}

impl TaskWorker {
    /// A worker without handlers.
    #[must_use]
    pub fn new(tasks: &TaskStore, options: WorkerOptions) -> Self {
        Self { tasks: tasks.clone(), options, handlers: HashMap::new(), fallback: None, met_foreign: Arc::default() }
    }

    /// Adds the handler of a kind.
    #[must_use]
    pub fn on<H, F, O>(mut self, kind: impl Into<String>, handler: H) -> Self
    where
        H: Fn(TaskContext) -> F + Send + Sync + 'static,
        F: Future<Output = Result<O, TaskFailure>> + Send + 'static,
        O: Into<TaskOutput>,
    {
        self.handlers.insert(kind.into(), boxed(handler));
        self
    }

    /// Sets the handler of every other kind.
    #[must_use]
    pub fn on_any<H, F, O>(mut self, handler: H) -> Self
    where
        H: Fn(TaskContext) -> F + Send + Sync + 'static,
        F: Future<Output = Result<O, TaskFailure>> + Send + 'static,
        O: Into<TaskOutput>,
    {
        self.fallback = Some(boxed(handler));
        self
    }

    /// Runs until `shutdown` is ready, or, with [`drain`](ConsumerOptions::drain), until the queue holds nothing more that this worker has a handler for.
    ///
    /// # Errors
    /// See [`Consumer::run`].
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> Result<ConsumerReport> {
        let queue = self.options.queue.clone().unwrap_or_else(|| self.tasks.options().queue.clone());
        self.tasks.ensure_queue(&queue).await?;
        let cap = self.tasks.queues().queue_spec(&queue).await?.max_deliveries;
        let consumer = Consumer::new(self.tasks.queues(), &queue, self.options.consumer.clone())?;
        let worker = Arc::new(self.clone());
        let source = Arc::new((queue.clone(), self.tasks.foreign()));
        let handler = move |message: Message| {
            let (worker, source) = (Arc::clone(&worker), Arc::clone(&source));
            async move {
                match &*source {
                    (queue, Some(foreign)) => worker.handle_call(&**foreign, queue, &message).await,
                    (_, None) => worker.handle(message, cap).await,
                }
            }
        };
        let no_more = async {
            match self.options.consumer.drain && self.fallback.is_none() {
                true => self.until_none_is_left(&queue).await,
                false => std::future::pending().await,
            }
        };
        let (shutdown, no_more) = (pin!(shutdown), pin!(no_more));
        consumer.run(handler, select(shutdown, no_more).map(drop)).await
    }

    /// Waits until no task of this worker's kinds waits or runs. The consumer alone would wait for the others' tasks, too.
    async fn until_none_is_left(&self, queue: &QueueName) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.has_work_left(queue).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::warn!(%queue, %error, "can't tell whether tasks are left, going on"),
            }
        }
    }

    async fn has_work_left(&self, queue: &QueueName) -> Result<bool> {
        // Messages of tasks that have ended are for this worker to remove, where it has not come across others' work yet.
        if !self.met_foreign.load(Ordering::Relaxed) && matches!(self.tasks.queues().stats(queue).await?.ready.value(), Some(1..))
        {
            return Ok(true);
        }
        for kind in self.handlers.keys() {
            let active = TaskStatus::ALL.into_iter().filter(|status| !status.is_finished());
            let filter = TaskFilter { kind: Some(kind.clone()), ..TaskFilter::status(active) };
            let mut after = None;
            loop {
                let page = self.tasks.list(&filter, LOOK_AT, after).await?;
                if page.tasks.iter().any(|task| task.queue == queue.as_str()) {
                    return Ok(true);
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(false)
    }

    async fn handle(&self, message: Message, cap: Option<u32>) -> Outcome {
        let body: TaskMessage = match message.json() {
            Ok(body) => body,
            Err(error) => return Outcome::reject(format!("not the message of a task: {}", error.message())),
        };
        match self.try_handle(&message, &body, cap).await {
            Ok(outcome) => outcome,
            // Another worker has it, or will: this delivery is settled by its stale receipt.
            Err(error) if error.kind() == ErrorKind::LeaseLost => Outcome::Done,
            Err(error) => {
                tracing::warn!(task = %body.id(), %error, "can't handle a task now: its message comes again");
                Outcome::retry(error)
            }
        }
    }

    async fn try_handle(&self, message: &Message, body: &TaskMessage, cap: Option<u32>) -> Result<Outcome> {
        let Some(task) = self.tasks.get_task(body.id()).await? else { return Ok(Outcome::Done) };
        let (Some(handler), false) = (self.handler(&task), task.status.is_finished()) else {
            return self.without_handler(&task).await;
        };
        let task = match self.tasks.start_known(&body.id(), Some(&task), &Claim::of_message(&message.id.0, body)).await? {
            Start::Run(task) => task,
            Start::Finished(task) => return Ok(self.settled(&task, &message.id.0)),
            Start::Superseded | Start::Gone => return Ok(Outcome::Done),
        };
        let answer = self.run_handler(&handler, &task).await;
        let ended = self.settle_task(&task, answer, message.deliveries, cap).await?;
        Ok(ended.map_or_else(|again| again, |task| self.settled(&task, &message.id.0)))
    }

    fn handler(&self, task: &Task) -> Option<Handler> {
        self.handlers.get(&task.kind).or(self.fallback.as_ref()).cloned()
    }

    async fn run_handler(&self, handler: &Handler, task: &Task) -> Result<TaskOutput, TaskFailure> {
        let cancel = CancelCheck::new(&self.tasks, task);
        let context = TaskContext { task: task.clone(), cancel, tasks: self.tasks.clone() };
        let answer = AssertUnwindSafe(async { handler(context).await }).catch_unwind().await;
        answer.unwrap_or_else(|panic| Err(TaskFailure::retry(format!("the handler panicked: {}", panic_text(&*panic)))))
    }

    /// Writes down what a handler answered. The task has ended, or its message is to come again.
    async fn settle_task(
        &self,
        task: &Task,
        answer: Result<TaskOutput, TaskFailure>,
        deliveries: u32,
        cap: Option<u32>,
    ) -> Result<Result<Task, Outcome>> {
        let (waiting, reason, after) = match answer {
            Ok(output) => return self.tasks.succeed(task, output).await.map(Ok),
            Err(TaskFailure::Cancelled) => return self.tasks.end(task, TaskEnd::Cancelled).await.map(Ok),
            Err(TaskFailure::Fatal { reason }) => return self.tasks.fail(task, reason).await.map(Ok),
            // The queue would not deliver it again.
            Err(TaskFailure::Retry { reason, .. } | TaskFailure::Later { reason, .. })
                if cap.is_some_and(|cap| deliveries >= cap) =>
            {
                return self.tasks.fail(task, reason).await.map(Ok);
            }
            Err(TaskFailure::Later { reason, after }) => {
                let after = after.unwrap_or_else(|| self.delay_after(deliveries));
                (self.tasks.put_back(task, &*reason, after).await?, reason, after)
            }
            Err(TaskFailure::Retry { reason, after }) => {
                let after = after.unwrap_or_else(|| self.delay_after(task.attempts));
                (self.tasks.retry_later(task, &*reason, after).await?, reason, after)
            }
        };
        Ok(match waiting.status {
            TaskStatus::Pending => Err(Outcome::Retry { reason, after: Some(after) }),
            _ => Ok(waiting),
        })
    }

    /// The wait after so many tries.
    fn delay_after(&self, tries: u32) -> Duration {
        let options = &self.options.consumer;
        Backoff::new(options.retry_first, options.retry_longest).delay_after(tries.saturating_sub(1))
    }

    /// A task that this worker does not run: finished, or of another's kind.
    async fn without_handler(&self, task: &Task) -> Result<Outcome> {
        if task.status.is_finished() {
            self.tasks.complete_finished(&task.id()).await?;
            return Ok(Outcome::Done);
        }
        self.met_foreign.store(true, Ordering::Relaxed);
        let after = self.options.foreign_delay.unwrap_or(Duration::from_secs(5));
        Ok(Outcome::Retry { reason: format!("no handler for tasks of kind `{}` here", task.kind), after: Some(after) })
    }

    /// What becomes of the message of a task that has ended: a failed one's own message is a dead letter.
    fn settled(&self, task: &Task, message: &str) -> Outcome {
        match (&task.error, task.status) {
            (error, TaskStatus::Failed) if task.message.as_deref() == Some(message) => {
                Outcome::reject(error.as_deref().unwrap_or("failed"))
            }
            _ => Outcome::Done,
        }
    }
}

impl fmt::Debug for TaskWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<_> = self.handlers.keys().collect();
        kinds.sort_unstable();
        f.debug_struct("TaskWorker").field("kinds", &kinds).field("any", &self.fallback.is_some()).finish_non_exhaustive()
    }
}

fn boxed<H, F, O>(handler: H) -> Handler
where
    H: Fn(TaskContext) -> F + Send + Sync + 'static,
    F: Future<Output = Result<O, TaskFailure>> + Send + 'static,
    O: Into<TaskOutput>,
{
    Arc::new(move |context| {
        let answer = handler(context);
        async move { answer.await.map(Into::into) }.boxed()
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}
