//! [`TaskFollower`]: learns what became of tasks that another system's workers run.

use std::sync::Arc;
use std::time::Duration;

use storage_core::backoff::Backoff;
use storage_core::{ForeignTasks, Receipt, Result};

use crate::{Task, TaskId, TaskStore};

/// How many news are taken at once.
const AT_ONCE: u32 = 100;

/// How a [`TaskFollower`] works.
#[derive(Clone, Copy, Debug)]
pub struct FollowOptions {
    /// How often it looks where results are kept; those that come as messages it has at once.
    pub poll: Duration,
    /// How many tasks it reads at a time.
    pub page: u32,
}

impl Default for FollowOptions {
    /// A look per second, at 200 tasks at a time.
    fn default() -> Self {
        Self { poll: Duration::from_secs(1), page: 200 }
    }
}

/// Writes down what another system (Celery) says of the tasks that were sent to it: that they run, how they ended. Needed where
/// [`is_foreign`](TaskStore::is_foreign) is true; does nothing elsewhere.
///
/// Any number may run, in any number of processes. News that were taken and not written down come again.
#[derive(Clone, Debug)]
pub struct TaskFollower {
    tasks: TaskStore,
    options: FollowOptions,
}

impl TaskFollower {
    /// A follower of the tasks of a store.
    #[must_use]
    pub fn new(tasks: &TaskStore, options: FollowOptions) -> Self {
        Self { tasks: tasks.clone(), options }
    }

    /// Writes down all news that there are now. Answers how many.
    ///
    /// # Errors
    /// The backends'.
    pub async fn catch_up(&self) -> Result<u64> {
        let Some(foreign) = self.tasks.foreign() else { return Ok(0) };
        if foreign.keeps_results() {
            return self.look(&*foreign).await;
        }
        let mut noted = 0;
        loop {
            match self.take(&*foreign, Duration::ZERO).await? {
                0 => return Ok(noted),
                more => noted += more,
            }
        }
    }

    /// Follows until `shutdown` is ready. A backend that does not answer is asked again, a little later each time.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> u64 {
        let mut shutdown = std::pin::pin!(shutdown);
        let Some(foreign) = self.tasks.foreign() else {
            shutdown.await;
            return 0;
        };
        let mut backoff = Backoff::new(self.options.poll, self.options.poll.saturating_mul(32));
        let mut noted = 0;
        loop {
            // It may be cut off at any point: what was not written down is there again.
            let followed = tokio::select! {
                biased;
                () = &mut shutdown => return noted,
                followed = self.follow(&foreign) => followed,
            };
            let pause = match followed {
                Ok(more) => {
                    noted += more;
                    backoff.reset();
                    if foreign.keeps_results() { self.options.poll } else { Duration::ZERO }
                }
                Err(error) => {
                    let pause = backoff.next_delay();
                    tracing::warn!(%error, ?pause, "can't learn what became of tasks, trying again");
                    pause
                }
            };
            tokio::select! {
                () = &mut shutdown => return noted,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn follow(&self, foreign: &Arc<dyn ForeignTasks>) -> Result<u64> {
        match foreign.keeps_results() {
            true => self.look(&**foreign).await,
            false => self.take(&**foreign, self.options.poll).await,
        }
    }

    /// Takes news that came by themselves.
    async fn take(&self, foreign: &dyn ForeignTasks, wait: Duration) -> Result<u64> {
        let arrivals = foreign.arrivals(AT_ONCE, wait).await?;
        for arrival in &arrivals {
            self.tasks.note(TaskId::of_call(&arrival.id), &arrival.news).await?;
        }
        let receipts: Vec<Receipt> = arrivals.into_iter().map(|arrival| arrival.receipt).collect();
        foreign.settle(&receipts).await?;
        Ok(receipts.len() as u64)
    }

    /// Looks for news of each task that has not ended.
    async fn look(&self, foreign: &dyn ForeignTasks) -> Result<u64> {
        let table = &self.tasks.inner.active;
        let (mut noted, mut next) = (0, Some(table.query().limit(self.options.page)));
        while let Some(query) = next {
            let (tasks, token) = table.page(&query).await?;
            let ids: Vec<String> = tasks.iter().map(|task: &Task| task.id().to_call()).collect();
            for (task, news) in tasks.iter().zip(foreign.news_of(&ids).await?) {
                if let Some(news) = news {
                    self.tasks.note(task.id(), &news).await?;
                    noted += 1;
                }
            }
            next = token.map(|token| query.after(Some(token)));
        }
        Ok(noted)
    }
}
