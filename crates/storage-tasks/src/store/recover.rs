//! What is done now and then: completing what crashes left, and removing what is no longer kept.

use storage_core::{ErrorKind, Filter, Result, ResultExt as _, value};

use super::TaskStore;
use super::apply::Place;
use super::change::EXPIRED;
use crate::{TaskEnd, TaskStatus};

/// What a [recovery](TaskStore::recover) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Finished tasks whose move to the finished table was completed.
    pub moved: u64,
    /// Waiting tasks that failed since their time to live is over.
    pub expired: u64,
}

/// What a [sweep](TaskStore::sweep) removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Finished tasks.
    pub tasks: u64,
    /// Results.
    pub results: u64,
    /// Events.
    pub events: u64,
}

impl TaskStore {
    /// Completes what processes that ended in between have left, and fails the tasks that nobody started in time. Safe to run at any time and at several
    /// places; messages that are owed are the [`OutboxRelay`](crate::OutboxRelay)'s.
    ///
    /// # Errors
    /// The backend's.
    pub async fn recover(&self) -> Result<Recovered> {
        let recover = async {
            let mut recovered = Recovered::default();
            let ended = TaskStatus::ALL.into_iter().filter(|status| status.is_finished());
            if !self.inner.reach.tables {
                let filter = Filter::is_in("status", ended.map(TaskStatus::as_str))?;
                let mut next = Some(self.inner.active.query().filter(filter));
                while let Some(query) = next {
                    let (tasks, token) = self.inner.active.page(&query).await?;
                    for task in tasks {
                        self.complete(&task, Place::Active(task.version)).await?;
                        recovered.moved += 1;
                    }
                    next = token.map(|token| query.after(Some(token)));
                }
            }
            // Another system's workers look at the time themselves, and say so.
            if !self.is_foreign() {
                recovered.expired = self.expire().await?;
            }
            Ok::<_, storage_core::Error>(recovered)
        };
        recover.await.context("tasks.recover", || "all tasks".into())
    }

    async fn expire(&self) -> Result<u64> {
        let now = self.inner.options.clock.now();
        let overdue = Filter::eq("status", TaskStatus::Pending.as_str())?
            & Filter::eq("attempts", 0)?
            & Filter::le("start_by", value::timestamp(now))?;
        let mut expired = 0;
        let mut next = Some(self.inner.active.query().filter(overdue));
        while let Some(query) = next {
            let (tasks, token) = self.inner.active.page(&query).await?;
            for task in tasks {
                match self.expire_one(&task).await {
                    Ok(()) => expired += 1,
                    // Started, cancelled or removed just now.
                    Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            next = token.map(|token| query.after(Some(token)));
        }
        Ok(expired)
    }

    async fn expire_one(&self, task: &crate::Task) -> Result<()> {
        let mut ended = task.clone();
        ended.end(TaskEnd::Failed(EXPIRED.into()), self.inner.options.clock.now());
        let from = Place::Active(task.version);
        let change = super::apply::Change { task: ended, from, event: crate::event::kind::FAILED, sends: false };
        self.apply(change).await.map(drop)
    }

    /// Removes finished tasks, results and events that are no longer kept, where the backend does not do so by itself.
    ///
    /// # Errors
    /// The backends'.
    pub async fn sweep(&self) -> Result<Swept> {
        let finished = &self.inner.finished;
        let tasks = match self.inner.options.keep_finished {
            Some(keep) => {
                let horizon = value::timestamp(self.inner.options.clock.now() - keep);
                let old = Filter::le("finished_at", horizon)?;
                finished.sweep(finished.query().filter(old)).await?
            }
            None => 0,
        };
        Ok(Swept { tasks, results: self.results().sweep().await?, events: self.events().sweep().await? })
    }
}
