//! [`ResultStore`]: how tasks ended, to be waited for.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage_core::backoff::Backoff;
use storage_core::clock::add;
use storage_core::{
    BlobPath, BlobStore, CallEnd, CallNews, Clock, Entity, ErrorKind, Expect, Filter, ForeignTasks, History, RecordStore, Result,
    ResultExt as _, Write,
};
use tokio::time::Instant;

use crate::bell::Bell;
use crate::ids::TaskId;
use crate::table::Table;
use crate::{Task, TaskStatus};

/// How soon a waiting reader looks again; doubles up to [`ResultOptions::poll`].
const FIRST_POLL: Duration = Duration::from_millis(10);

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Entity)]
#[entity(table = "results")]
pub struct TaskResult {
    /// What the task was about.
    #[entity(partition)]
    pub resource_id: String,
    /// The task.
    #[entity(key)]
    pub task_id: String,
    /// What it ended with.
    pub status: TaskStatus,
    /// What its handler answered.
    pub output: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
    /// The path of a blob with more of the output.
    pub blob: Option<String>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// From when on the result counts as absent.
    #[entity(index)]
    pub expires_at: Option<DateTime<Utc>>,
}

impl TaskResult {
    pub(crate) fn of(task: &Task, options: &ResultOptions) -> Self {
        let finished_at = task.finished_at.unwrap_or(task.updated_at);
        Self {
            resource_id: task.resource_id.clone(),
            task_id: task.task_id.clone(),
            status: task.status,
            output: task.output.clone(),
            error: task.error.clone(),
            blob: task.blob.clone(),
            finished_at,
            expires_at: options.keep.map(|keep| add(finished_at, keep)),
        }
    }

    /// What another system says of a task's end.
    pub(crate) fn of_call(task: &TaskId, end: &CallEnd, options: &ResultOptions) -> Self {
        let finished_at = options.clock.now();
        let (status, output, error) = match end {
            CallEnd::Succeeded(output) => (TaskStatus::Succeeded, Some(output.clone()).filter(|output| !output.is_null()), None),
            CallEnd::Failed(text) => (TaskStatus::Failed, None, Some(text.clone())),
            CallEnd::Cancelled(why) => (TaskStatus::Cancelled, None, Some(why.clone())),
        };
        let TaskId { resource_id, task_id } = task.clone();
        let expires_at = options.keep.map(|keep| add(finished_at, keep));
        Self { resource_id, task_id, status, output, error, blob: None, finished_at, expires_at }
    }

    /// The task.
    #[must_use]
    pub fn task(&self) -> TaskId {
        TaskId::new(&self.resource_id, &self.task_id)
    }

    fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// How a [`ResultStore`] is opened.
#[derive(Clone, Debug)]
pub struct ResultOptions {
    /// What the table's name begins with: `<prefix>results`. On blobs, the name of the folder.
    pub prefix: String,
    /// Where the time comes from.
    pub clock: Clock,
    /// How long results are kept. `None`: for ever.
    pub keep: Option<Duration>,
    /// The longest that a waiting reader waits before it looks again.
    pub poll: Duration,
    /// How many versions of each result's record are kept; blobs keep one.
    pub history: History,
    /// Another system, whose results are looked for where there is none here.
    pub foreign: Option<Arc<dyn ForeignTasks>>,
}

impl Default for ResultOptions {
    /// No prefix, the system's clock, kept for ever, a look per second at least.
    fn default() -> Self {
        Self {
            prefix: String::new(),
            clock: Clock::system(),
            keep: None,
            poll: Duration::from_secs(1),
            history: History::None,
            foreign: None,
        }
    }
}

#[derive(Debug)]
enum Place {
    Records(Table<TaskResult>),
    Blobs(BlobStore, BlobPath),
}

#[derive(Debug)]
struct Inner {
    place: Place,
    options: ResultOptions,
    bell: Bell<TaskId>,
}

/// How tasks ended, in records or in blobs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ResultStore {
    inner: Arc<Inner>,
}

impl ResultStore {
    /// Results as records. Opens the table; creates it where it is not there.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a bad prefix; the backend's.
    pub async fn on_records(records: &RecordStore, options: ResultOptions) -> Result<Self> {
        let table = Table::open(records, &options.prefix, "results", options.history).await?;
        Ok(Self::new(Place::Records(table), options))
    }

    /// Results as blobs: one JSON object each, at `<prefix>results/<resource>/<task>.json` (what a path can't hold is percent-encoded). The expiry stands inside.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a bad prefix.
    pub fn on_blobs(blobs: &BlobStore, options: ResultOptions) -> Result<Self> {
        let folder = BlobPath::new(format!("{}results", options.prefix))?;
        Ok(Self::new(Place::Blobs(blobs.clone(), folder), options))
    }

    fn new(place: Place, options: ResultOptions) -> Self {
        Self { inner: Arc::new(Inner { place, options, bell: Bell::default() }) }
    }

    pub(crate) fn options(&self) -> &ResultOptions {
        &self.inner.options
    }

    /// The record store that it is in, where it is in one.
    pub(crate) fn records(&self) -> Option<&RecordStore> {
        match &self.inner.place {
            Place::Records(table) => Some(&table.records),
            Place::Blobs(..) => None,
        }
    }

    pub(crate) fn to_write(&self, result: &TaskResult) -> Result<Option<Write>> {
        match &self.inner.place {
            Place::Records(table) => table.put(result, Expect::Anything, result.expires_at).map(Some),
            Place::Blobs(..) => Ok(None),
        }
    }

    /// Wakes those in this process who wait for that task's result.
    pub(crate) fn wake(&self, task: &TaskId) {
        self.inner.bell.ring(task);
    }

    /// Writes a result, replacing one that is there, and wakes those who wait for it.
    ///
    /// # Errors
    /// The backend's.
    pub async fn put(&self, result: &TaskResult) -> Result<()> {
        let task = result.task();
        let put = async {
            match &self.inner.place {
                Place::Records(table) => {
                    table.write(table.put(result, Expect::Anything, result.expires_at)?).await?;
                }
                Place::Blobs(blobs, folder) => {
                    blobs.put_json(&path_of(folder, &task)?, result).await?;
                }
            }
            Ok::<_, storage_core::Error>(())
        };
        put.await.context("results.put", || format!("the result of task `{task}`"))?;
        self.wake(&task);
        Ok(())
    }

    /// How a task ended. `None`: it has not, or the result is no longer kept.
    ///
    /// # Errors
    /// The backend's.
    pub async fn get(&self, task: impl Into<TaskId>) -> Result<Option<TaskResult>> {
        let task = task.into();
        let found = match &self.inner.place {
            Place::Records(table) => table.get(task.key()).await?,
            Place::Blobs(blobs, folder) => match blobs.get_json::<TaskResult>(&path_of(folder, &task)?).await {
                Ok(result) => Some(result),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        let is_over = found.as_ref().is_some_and(|result| result.is_expired(self.inner.options.clock.now()));
        match found.filter(|_| !is_over) {
            Some(found) => Ok(Some(found)),
            None if is_over => Ok(None),
            None => self.look_elsewhere(&task).await,
        }
    }

    /// What another system has of a task's result: from then on it is here.
    async fn look_elsewhere(&self, task: &TaskId) -> Result<Option<TaskResult>> {
        let Some(foreign) = self.inner.options.foreign.as_ref().filter(|foreign| foreign.keeps_results()) else {
            return Ok(None);
        };
        let Some(Some(CallNews::Ended(end))) = foreign.news_of(&[task.to_call()]).await?.pop() else { return Ok(None) };
        let result = TaskResult::of_call(task, &end, &self.inner.options);
        self.put(&result).await?;
        Ok(Some(result))
    }

    /// Waits up to `timeout` for a task to end. `None`: it has not.
    ///
    /// Woken by what this process writes (through this store or a clone of it); what others write is found by looking again, a little less often each time.
    ///
    /// # Errors
    /// The backend's.
    pub async fn wait(&self, task: impl Into<TaskId>, timeout: Duration) -> Result<Option<TaskResult>> {
        let task = task.into();
        let deadline = Instant::now() + timeout;
        let waiter = self.inner.bell.register(&task);
        let mut backoff = Backoff::new(FIRST_POLL, self.inner.options.poll.max(FIRST_POLL));
        loop {
            let mut rung = std::pin::pin!(waiter.rung());
            // Enabled before looking: a result in between is not lost.
            rung.as_mut().enable();
            if let Some(result) = self.get(task.clone()).await? {
                return Ok(Some(result));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            tokio::select! {
                () = rung => backoff.reset(),
                () = tokio::time::sleep(backoff.next_delay().min(left)) => {}
            }
        }
    }

    /// Removes a result. `false`: there was none.
    ///
    /// # Errors
    /// The backend's.
    pub async fn delete(&self, task: impl Into<TaskId>) -> Result<bool> {
        let task = task.into();
        match &self.inner.place {
            Place::Records(table) => {
                Ok(table.write(table.delete(task.key(), Expect::Anything)).await? != storage_core::Version::NONE)
            }
            Place::Blobs(blobs, folder) => blobs.delete(&path_of(folder, &task)?).await,
        }
    }

    /// Removes results that are no longer kept. Answers how many the backend had not removed by itself.
    ///
    /// # Errors
    /// The backend's.
    pub async fn sweep(&self) -> Result<u64> {
        let now = self.inner.options.clock.now();
        match &self.inner.place {
            Place::Records(table) => {
                let expired = Filter::le("expires_at", storage_core::value::timestamp(now))?;
                table.sweep(table.query().filter(expired)).await
            }
            Place::Blobs(blobs, folder) => sweep_blobs(blobs, folder, now).await,
        }
    }
}

async fn sweep_blobs(blobs: &BlobStore, folder: &BlobPath, now: DateTime<Utc>) -> Result<u64> {
    let mut listed = blobs.list_all(Some(folder.clone()));
    let mut deleted = 0;
    while let Some(meta) = listed.try_next().await? {
        let expired = match blobs.get_json::<TaskResult>(&meta.path).await {
            Ok(result) => result.is_expired(now),
            // Gone meanwhile, or no result: not ours to remove.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => false,
            Err(error) => return Err(error),
        };
        if expired && blobs.delete(&meta.path).await? {
            deleted += 1;
        }
    }
    Ok(deleted)
}

fn path_of(folder: &BlobPath, task: &TaskId) -> Result<BlobPath> {
    folder.join(format!("{}/{}.json", encoded(&task.resource_id), encoded(&task.task_id)))
}

/// `text` as one segment of a path: letters, digits and `-_.~@` as they are, the rest percent-encoded; so are leading dots.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut path = String::with_capacity(text.len());
    for (index, byte) in text.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b'@') || (byte == b'.' && index > 0);
        if plain {
            path.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_ids_make_good_paths() {
        let folder = BlobPath::new("results").unwrap();
        let path = |task: &str| path_of(&folder, &TaskId::new("acme", task)).unwrap().to_string();
        assert_eq!(path("nightly@2026-11-21T03:00:00Z"), "results/acme/nightly@2026-11-21T03%3A00%3A00Z.json");
        assert_eq!(path("../x"), "results/acme/%2E.%2Fx.json");
        assert_ne!(path("a%2F"), path("a/"));
    }
}
