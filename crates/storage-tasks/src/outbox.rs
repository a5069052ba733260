//! [`OutboxRelay`]: sends the messages that tasks owe.

use std::time::Duration;

use futures::StreamExt as _;
use storage_core::backoff::Backoff;
use storage_core::{
    Entity as _, Error, ErrorKind, Filter, PageToken, Query, RecordStore, Result, ResultExt as _, TableName, value,
};

use crate::{Task, TaskOptions, TaskStore};

/// How many messages are on their way at once.
const PARALLEL: usize = 16;

/// How an [`OutboxRelay`] works.
#[derive(Clone, Copy, Debug)]
pub struct RelayOptions {
    /// How long it waits between looks that found nothing.
    pub poll: Duration,
    /// How long a message is owed before the relay steps in: whoever submitted the task sends it at once, too.
    pub patience: Duration,
    /// How many tasks it reads at a time.
    pub page: u32,
}

impl Default for RelayOptions {
    /// A look per second, for messages owed for 5 seconds, 100 at a time.
    fn default() -> Self {
        Self { poll: Duration::from_secs(1), patience: Duration::from_secs(5), page: 100 }
    }
}

/// Sends the messages that tasks owe because the process that submitted them ended, or could not reach the queue. Needed where
/// [`is_one_batch`](TaskStore::is_one_batch) is false; does nothing elsewhere.
///
/// Any number may run, in any number of processes. Tasks are taken oldest first, up to 16 at once, so the order is roughly that of submission. A message may
/// be sent twice (by two relays, or by one that ended before it noted the sending): queues with dedup drop the second one, and on others the worker
/// does, since a task knows the message that runs it. A task whose message the queue refuses for good has failed, for that reason: `retry` sends it again.
///
/// # Why not the outbox of the core
///
/// [`storage_core::outbox`] writes a message as a row of another table, in one batch with the rest. A task is its own row, so the mark on it does the same
/// where a batch reaches over one record alone (buckets), costs no second row elsewhere, and owes the task's event as well where events are in another store.
#[derive(Clone, Debug)]
pub struct OutboxRelay {
    tasks: TaskStore,
    options: RelayOptions,
}

impl OutboxRelay {
    /// A relay for the tasks of a store.
    #[must_use]
    pub fn new(tasks: &TaskStore, options: RelayOptions) -> Self {
        Self { tasks: tasks.clone(), options }
    }

    /// Sends all that is owed now, however short it is owed. Answers how many tasks were seen to.
    ///
    /// # Errors
    /// The first error; the other tasks of that page were tried all the same.
    pub async fn drain(&self) -> Result<u64> {
        self.pass(Duration::ZERO).await
    }

    async fn pass(&self, patience: Duration) -> Result<u64> {
        let (table, clock) = (&self.tasks.inner.active, &self.tasks.inner.options.clock);
        let owed = Filter::le("unsent", value::timestamp(clock.now() - patience))?;
        let query = table.query().filter(owed).ascending("unsent")?.limit(self.options.page);
        let (mut relayed, mut next) = (0, Some(query));
        while let Some(query) = next {
            let (tasks, token) = table.page(&query).await?;
            // Owned, so that the whole future can be spawned: borrows in a stream of futures defeat the compiler's proof that it is `Send`.
            let relays = tasks.into_iter().map(|task: Task| {
                let store = self.tasks.clone();
                async move { store.relay_or_refuse(&task).await }
            });
            let outcomes: Vec<_> = futures::stream::iter(relays).buffered(PARALLEL).collect().await;
            let mut failed = None;
            for outcome in outcomes {
                match outcome {
                    Ok(()) => relayed += 1,
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            next = token.map(|token| query.after(Some(token)));
        }
        Ok(relayed)
    }

    /// Relays until `shutdown` is ready. A backend that does not answer is asked again, a little later each time.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> u64 {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut backoff = Backoff::new(self.options.poll, self.options.poll.saturating_mul(32));
        let mut relayed = 0;
        loop {
            // A pass may be cut off at any point: what was sent and not noted is sent again.
            let passed = tokio::select! {
                biased;
                () = &mut shutdown => return relayed,
                passed = self.pass(self.options.patience) => passed,
            };
            let delay = match passed {
                Ok(count) => {
                    relayed += count;
                    backoff.reset();
                    self.options.poll
                }
                Err(error) => {
                    let delay = backoff.next_delay();
                    tracing::warn!(%error, ?delay, "can't relay messages, trying again");
                    delay
                }
            };
            tokio::select! {
                () = &mut shutdown => return relayed,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }
}

/// Tasks whose message is owed, those owed longest first: one page of them.
#[derive(Clone, Debug, Default)]
pub struct OwedTasks {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<PageToken>,
}

impl OwedTasks {
    /// Reads a page from the tasks' table alone: neither queue nor anything else is needed. None are owed where there is no such table.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a bad limit or token; the backend's.
    pub async fn read(records: &RecordStore, options: &TaskOptions, limit: u32, after: Option<PageToken>) -> Result<Self> {
        let read = async {
            let table = TableName::new(format!("{}tasks", options.prefix))?;
            let query = Query::table(table.as_str())?.filter(!Filter::is_null("unsent")?).ascending("unsent")?;
            match records.scan(&query.limit(limit).after(after)).await {
                Ok(page) => {
                    let tasks = page.records.into_iter().map(Task::from_record).collect::<Result<_>>()?;
                    Ok(Self { tasks, next: page.next })
                }
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
                Err(error) => Err::<Self, Error>(error),
            }
        };
        read.await.context("tasks.owed", || "tasks".into())
    }
}
