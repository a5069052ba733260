//! An open root folder, and how work gets to its writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use storage_core::{Backends, Clock, Error, Result, ResultExt as _};
use tokio::sync::{Semaphore, oneshot};

use crate::base::{Base, CONTROL, SCRATCH, TRASH};
use crate::blobs::{self, FsBlobs};
use crate::commit::{Alone, Committer, Job};
use crate::config::FsOptions;
use crate::file::{self, at, create_folders};
use crate::group::Group;
use crate::journal::Journal;
use crate::state::{State, boot_id};
use crate::{FsQueue, FsRecords, backup};

/// The format of the files that this version writes.
const FORMAT: u32 = 1;
/// How many jobs wait for the writer at most; further callers wait for a place.
const WAITING_JOBS: usize = 4096;

/// A folder that holds tables, queues and blobs. Clones are the same store.
#[derive(Clone, Debug)]
pub struct FsStore(pub(crate) Arc<Core>);

impl FsStore {
    /// Opens the store in `root`, and creates it where it is not there (see [`FsOptions`]).
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config) where the folder is missing and is not to be created, is a file, or is of a newer format;
    /// [`Unauthorized`](storage_core::ErrorKind::Unauthorized) where it can't be written.
    pub async fn open(root: impl Into<PathBuf>, options: FsOptions, clock: Clock) -> Result<Self> {
        let root = root.into();
        let shown = root.display().to_string();
        let opened = blocking(move || open(&root, &options, clock)).await;
        let store = opened.context("fs.open", || format!("folder `{shown}`"))?;
        backup::rotate(&store.0, &options).await?;
        Ok(store)
    }

    /// A handle on the tables, to be closed by itself.
    #[must_use]
    pub fn records(&self) -> FsRecords {
        FsRecords::new(Arc::clone(&self.0))
    }

    /// A handle on the queues, to be closed by itself.
    #[must_use]
    pub fn queue(&self) -> FsQueue {
        FsQueue::new(Arc::clone(&self.0))
    }

    /// A handle on the blobs, to be closed by itself.
    #[must_use]
    pub fn blobs(&self) -> FsBlobs {
        FsBlobs::new(Arc::clone(&self.0))
    }

    /// Handles on everything.
    #[must_use]
    pub fn backends(&self) -> Backends {
        Backends {
            records: Some(Arc::new(self.records())),
            queue: Some(Arc::new(self.queue())),
            blobs: Some(Arc::new(self.blobs())),
        }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.base.root
    }
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) base: Arc<Base>,
    /// Dropped with the last handle, which ends the writer.
    jobs: Option<Sender<Job>>,
    writer: Option<std::thread::JoinHandle<()>>,
    places: Arc<Semaphore>,
    /// How long one operation may wait.
    timeout: Option<Duration>,
}

impl Drop for Core {
    /// Once the last handle is gone, so are the open files: whoever unmounts or removes the folder next is not in the writer's way.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take().filter(|writer| writer.thread().id() != std::thread::current().id()) {
            // A writer that panicked has let go as well.
            let _ = writer.join();
        }
    }
}

/// Runs what may block on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(act).await.map_err(|e| Error::internal("a thread that worked on files ended").with_source(e))?
}

fn ended() -> Error {
    Error::internal("the store's writer has ended")
}

impl Core {
    async fn submit(&self, job: impl FnOnce(tokio::sync::OwnedSemaphorePermit) -> Job) -> Result<()> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| ended())?;
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(job(place)).map_err(|_| ended())
    }

    /// Has the writer do something in a group. A future that is dropped before its job's turn leaves no trace.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Group<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (send, answer) = oneshot::channel::<Result<T>>();
        let submitted = self.submit(move |place| {
            Job::Write(Box::new(move |group| {
                let _place = place;
                if send.is_closed() {
                    return None;
                }
                match group.map_err(Error::duplicate).and_then(act) {
                    Ok(done) => Some(Box::new(move |failure| {
                        let _ = send.send(failure.map_or(Ok(done), |error| Err(error.duplicate())));
                    })),
                    // Told with the others: it may have failed over what another job of the group is only about to do.
                    Err(error) => Some(Box::new(move |failure| {
                        let _ = send.send(Err(failure.map_or(error, Error::duplicate)));
                    })),
                }
            }))
        });
        self.in_time(async {
            submitted.await?;
            answer.await.map_err(|_| ended())?
        })
        .await
    }

    async fn in_time<T>(&self, act: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(timeout) = self.timeout else { return act.await };
        tokio::time::timeout(timeout, act).await.unwrap_or_else(|_| {
            Err(Error::timeout(format!(
                "no answer within {timeout:?}: the disk is slow, or another process holds the lock of the store for long"
            )))
        })
    }

    /// Has the writer do something while nobody else does anything and everything is in its file.
    pub(crate) async fn alone<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Alone<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (send, answer) = oneshot::channel();
        let submitted = self.submit(move |place| {
            Job::Alone(Box::new(move |alone| {
                let _place = place;
                if !send.is_closed() {
                    let ready = alone.ready.as_ref().map(drop).map_err(Error::duplicate);
                    let _ = send.send(ready.and_then(|()| act(alone)));
                }
            }))
        });
        self.in_time(async {
            submitted.await?;
            answer.await.map_err(|_| ended())?
        })
        .await
    }

    /// Reads on a thread that may block while nobody writes.
    pub(crate) async fn while_still<T: Send + 'static>(
        &self,
        read: impl Fn(&Base, &State) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        loop {
            let (base, read) = (Arc::clone(&self.base), read.clone());
            let found = blocking(move || match base.still()? {
                Some((_held, state)) => read(&base, &state).map(Some),
                None => Ok(None),
            });
            if let Some(found) = self.in_time(found).await? {
                return Ok(found);
            }
            // A process died in the middle of a batch: the writer finishes that first.
            self.write(|_| Ok(())).await?;
        }
    }

    /// Waits until everything that was asked for is in its file, and on the disk.
    pub(crate) async fn settle(&self) -> Result<()> {
        self.alone(|_| Ok(())).await
    }

    pub(crate) async fn ping(&self) -> Result<()> {
        let base = Arc::clone(&self.base);
        blocking(move || {
            std::fs::metadata(&base.root).map_err(at(&base.root))?;
            base.state.read().map(drop)
        })
        .await
    }

    /// Removes what was dropped. What can't be removed now is tried again when the store is opened.
    pub(crate) async fn empty_trash(&self) {
        let trash = self.base.path(TRASH);
        let emptied = blocking(move || file::names(&trash)?.iter().try_for_each(|name| file::remove_tree(&trash.join(name))));
        emptied.await.unwrap_or_else(|error| tracing::debug!(%error, "what was dropped was not wholly removed"));
    }
}

/// What `_storage/format.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: u32,
    /// For a person who wonders what this folder is.
    #[serde(default)]
    about: String,
}

fn open(root: &Path, options: &FsOptions, clock: Clock) -> Result<FsStore> {
    prepare(root, options)?;
    let root = root.canonicalize().map_err(at(root))?;
    let control = root.join(CONTROL);
    create_folders(&root.join(SCRATCH), options.fsync)?;
    check_format(&control, options.fsync)?;
    let base = Arc::new(Base::open(root, clock, options.fsync)?);
    let journal = Journal::open(&control.join("journal"))?;
    let mut writer = Committer::new(Arc::clone(&base), base.lock.open()?, journal);
    {
        let _held = base.lock.exclusive()?;
        bring_up(&base, &mut writer)?;
        // Only who holds the lock has anything in there.
        for name in file::names(&base.path(SCRATCH))? {
            let path = base.path(SCRATCH).join(name);
            if path.is_dir() { file::remove_tree(&path)? } else { file::remove(&path).map(drop)? }
        }
    }
    blobs::clean_up(&base)?;
    file::remove_tree(&base.path(TRASH)).unwrap_or_else(|error| tracing::debug!(%error, "the trash was not emptied"));
    backup::clean_up(&base)?;
    let (jobs, queue) = channel();
    let writer = std::thread::Builder::new()
        .name("storage-fs".into())
        .spawn(move || writer.run(&queue))
        .map_err(|e| Error::from(e).with_subject("the writer's thread"))?;
    let core = Core {
        base,
        jobs: Some(jobs),
        writer: Some(writer),
        places: Arc::new(Semaphore::new(WAITING_JOBS)),
        timeout: options.timeout,
    };
    Ok(FsStore(Arc::new(core)))
}

fn prepare(root: &Path, options: &FsOptions) -> Result<()> {
    match std::fs::metadata(root) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Error::config("there is a file where the store's folder should be: give the path of a folder")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !options.auto_create => {
            Err(Error::config("the folder is not there: create it, or open the store with auto_create"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create_folders(root, options.fsync),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(Error::config("a part of the path is a file, not a folder").with_source(error))
        }
        Err(error) => Err(at(root)(error)),
    }
}

fn check_format(control: &Path, durable: bool) -> Result<()> {
    let path = control.join("format.json");
    let Some(text) = file::read(&path)? else {
        let about = "records, queues and blobs of the storage toolkit: see the crate storage-fs".to_owned();
        let text = serde_json::to_vec_pretty(&Format { format: FORMAT, about })?;
        // Several processes may come here at once: each has its own name for the file until it is whole.
        let scratch = control.join(format!("format-{}", uuid::Uuid::new_v4()));
        return file::replace(&scratch, &path, &text, durable);
    };
    let damaged = |e| Error::corrupt(format!("the format can't be read: {e}")).with_subject(format_args!("`{}`", path.display()));
    let found: Format = serde_json::from_slice(&text).map_err(damaged)?;
    if found.format > FORMAT {
        return Err(Error::config(format!(
            "the folder is of format {}, and this version knows up to {FORMAT}: use a newer version of the program",
            found.format
        )));
    }
    Ok(())
}

/// Brings the files and the journal together, whatever ended the last process.
fn bring_up(base: &Base, writer: &mut Committer) -> Result<()> {
    let boot = boot_id();
    match base.state.try_read()? {
        Some(mut state) if boot != 0 && state.boot == boot => {
            if state.is_settled() {
                writer.drop_unanswered(&state)
            } else {
                writer.recover(&mut state)
            }
        }
        found => {
            // New, copied, or from before the machine was started: the journal alone can be trusted.
            let mut state = State { boot, ..found.unwrap_or_default() };
            state.begun = state.begun.max(state.done) + 1;
            base.state.write(&state)?;
            writer.replay(&mut state)?;
            state.structure += 1;
            state.done = state.begun;
            base.state.write(&state)
        }
    }
}
