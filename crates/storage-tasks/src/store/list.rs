//! Listing tasks.

use std::fmt;
use std::str::FromStr;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use storage_core::{Error, Filter, PageToken, Result, ResultExt as _};

use super::TaskStore;
use crate::table::Table;
use crate::{Task, TaskId, TaskStatus};

/// Which tasks. What is empty or `None` does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Those with one of these.
    pub status: Vec<TaskStatus>,
    /// Those of a kind.
    pub kind: Option<String>,
    /// Those of a resource.
    pub resource_id: Option<String>,
    /// Those with this id, of whatever resource.
    pub task_id: Option<String>,
    /// Those of a batch.
    pub batch: Option<String>,
}

impl TaskFilter {
    /// The tasks with one of these.
    pub fn status(status: impl IntoIterator<Item = TaskStatus>) -> Self {
        Self { status: status.into_iter().collect(), ..Self::default() }
    }

    fn to_filter(&self) -> Result<Filter> {
        let mut filter = Filter::All;
        if !self.status.is_empty() {
            filter = filter & Filter::is_in("status", self.status.iter().map(|status| status.as_str()))?;
        }
        let columns =
            [("kind", &self.kind), ("resource_id", &self.resource_id), ("task_id", &self.task_id), ("batch", &self.batch)];
        for (column, value) in columns {
            if let Some(value) = value {
                filter = filter & Filter::eq(column, value.as_str())?;
            }
        }
        Ok(filter)
    }

    fn wants(&self, finished: bool) -> bool {
        self.status.is_empty() || self.status.iter().any(|status| status.is_finished() == finished)
    }
}

/// Where a page of tasks begins. Text that can be kept and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskToken {
    finished: bool,
    after: Option<PageToken>,
}

impl fmt::Display for TaskToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.finished { "f." } else { "a." })?;
        self.after.as_ref().map_or(Ok(()), |token| token.fmt(f))
    }
}

impl FromStr for TaskToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (finished, rest) = match text.split_once('.') {
            Some(("a", rest)) => (false, rest),
            Some(("f", rest)) => (true, rest),
            _ => return Err(Error::invalid("the page token is damaged: use it as it was returned")),
        };
        let after = if rest.is_empty() { None } else { Some(rest.parse()?) };
        Ok(Self { finished, after })
    }
}

/// A page of tasks: those that are not finished first, then the finished ones, each by resource and id (UUIDv7: the oldest first).
#[derive(Clone, Debug)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Where the next page begins; `None` at the end. A page may be short and still have a next one.
    pub next: Option<TaskToken>,
}

impl TaskStore {
    /// One page of tasks.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for a bad limit or token; the backend's.
    pub async fn list(&self, filter: &TaskFilter, limit: u32, after: Option<TaskToken>) -> Result<TaskPage> {
        let list = async {
            let token = after.unwrap_or(TaskToken { finished: !filter.wants(false) && !self.may_hold_ended(), after: None });
            let (tasks, next) = self.page(filter, limit, &token).await?;
            let next = match next {
                Some(after) => Some(TaskToken { finished: token.finished, after: Some(after) }),
                None if !token.finished && filter.wants(true) => Some(TaskToken { finished: true, after: None }),
                None => None,
            };
            Ok::<_, Error>(TaskPage { tasks, next })
        };
        list.await.context("tasks.list", || "tasks".into())
    }

    /// True where the active table may hold, for a moment or after a crash, tasks that have ended.
    fn may_hold_ended(&self) -> bool {
        !self.inner.reach.tables
    }

    async fn page(&self, filter: &TaskFilter, limit: u32, token: &TaskToken) -> Result<(Vec<Task>, Option<PageToken>)> {
        let table: &Table<Task> = if token.finished { &self.inner.finished } else { &self.inner.active };
        let query = table.query().filter(filter.to_filter()?).limit(limit).after(token.after.clone());
        let (mut tasks, next) = table.page(&query).await?;
        if !token.finished && self.may_hold_ended() {
            let mut kept = Vec::with_capacity(tasks.len());
            for task in tasks {
                // On its way: the finished table has it already, and shows it in its turn.
                let shown_later = task.status.is_finished() && self.inner.finished.get(task.id().key()).await?.is_some();
                if !shown_later {
                    kept.push(task);
                }
            }
            tasks = kept;
        }
        Ok((tasks, next))
    }

    /// All tasks, fetched page by page.
    #[must_use]
    pub fn stream(&self, filter: TaskFilter) -> BoxStream<'static, Result<Task>> {
        let store = self.clone();
        let pages = futures::stream::try_unfold(Some(None), move |token: Option<Option<TaskToken>>| {
            let (store, filter) = (store.clone(), filter.clone());
            async move {
                let Some(after) = token else { return Ok::<_, Error>(None) };
                let page = store.list(&filter, 1000, after).await?;
                let next = page.next.map(Some);
                Ok(Some((futures::stream::iter(page.tasks.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    /// How many tasks there are.
    ///
    /// # Errors
    /// The backend's.
    pub async fn count(&self, filter: &TaskFilter) -> Result<u64> {
        let mut total = 0;
        for table in [&self.inner.active, &self.inner.finished] {
            total += table.records.count(&table.query().filter(filter.to_filter()?)).await?;
        }
        Ok(total)
    }

    /// The task with that id, where its resource is not known.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput): several resources have one; the backend's.
    pub async fn find_task(&self, task_id: &str) -> Result<Option<Task>> {
        if let Some(task) = self.get_task(TaskId::from(task_id)).await? {
            return Ok(Some(task));
        }
        let filter = TaskFilter { task_id: Some(task_id.to_owned()), ..TaskFilter::default() };
        let found: Vec<_> = self.stream(filter).take(2).try_collect().await?;
        match found.as_slice() {
            [] => Ok(None),
            [task] => Ok(Some(task.clone())),
            [a, b, ..] => Err(Error::invalid(format!(
                "several resources have a task `{task_id}`, `{}` and `{}` among them: name the resource",
                a.resource_id, b.resource_id
            ))),
        }
    }
}
