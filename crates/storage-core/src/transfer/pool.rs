//! Several files at once, and the report of what became of them.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};

use super::meter::Meter;
use super::options::{FileAction, FileDone, MAX_FAILURES, TransferOptions, TransferReport};
use crate::{BlobStore, Error, Result};

/// What all files of one transfer share.
pub(super) struct Run {
    pub(super) store: BlobStore,
    pub(super) options: TransferOptions,
    pub(super) meter: Meter,
    /// Bounds the requests that are under way, and the memory that their answers take: a large file's parts share it with other files.
    pub(super) requests: Arc<Semaphore>,
}

impl Run {
    pub(super) fn new(store: &BlobStore, options: &TransferOptions) -> Arc<Self> {
        let parallel = options.parallel.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            store: store.clone(),
            options: TransferOptions { parallel, ..options.clone() },
            meter: Meter::new(options.progress.clone(), options.bytes_per_second),
            requests: Arc::new(Semaphore::new(parallel)),
        })
    }

    /// Waits until another request may be under way.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.requests).acquire_owned().await;
        permit.map_err(|e| Error::internal("the transfer is over").with_source(e))
    }
}

/// Files that are under way, no more than so many at once. Dropped, it breaks them off.
pub(super) struct Pool {
    tasks: JoinSet<Result<FileDone>>,
    run: Arc<Run>,
    report: TransferReport,
    started: Instant,
}

impl Pool {
    pub(super) fn new(run: &Arc<Run>) -> Self {
        Self { tasks: JoinSet::new(), run: Arc::clone(run), report: TransferReport::default(), started: Instant::now() }
    }

    /// Starts work on a file when there is room for it. The error is of another file, where errors end the transfer.
    pub(super) async fn start(&mut self, work: impl Future<Output = Result<FileDone>> + Send + 'static) -> Result<()> {
        while self.tasks.len() >= self.run.options.parallel {
            self.settle_next().await?;
        }
        self.tasks.spawn(work);
        Ok(())
    }

    /// Waits for all that are under way.
    pub(super) async fn settle_all(&mut self) -> Result<()> {
        while !self.tasks.is_empty() {
            self.settle_next().await?;
        }
        Ok(())
    }

    async fn settle_next(&mut self) -> Result<()> {
        match self.tasks.join_next().await {
            Some(done) => self.settle(done.unwrap_or_else(died)),
            None => Ok(()),
        }
    }

    /// Counts a file that is done.
    pub(super) fn settle(&mut self, done: Result<FileDone>) -> Result<()> {
        let done = match done {
            Ok(done) => done,
            Err(error) if !self.run.options.keep_going => return Err(error),
            Err(error) => {
                self.report.failed += 1;
                if self.report.failures.len() < MAX_FAILURES {
                    self.report.failures.push(error);
                }
                return Ok(());
            }
        };
        match done.action {
            FileAction::Written => {
                self.report.files += 1;
                self.report.bytes += done.bytes;
            }
            FileAction::Skipped => self.report.skipped += 1,
            FileAction::Removed => self.report.removed += 1,
        }
        if let Some(each) = &self.run.options.each {
            each(&done);
        }
        Ok(())
    }

    pub(super) fn report(&self) -> &TransferReport {
        &self.report
    }

    pub(super) fn end(self) -> TransferReport {
        TransferReport { elapsed: self.started.elapsed(), ..self.report }
    }
}

/// What became of a task that panicked, or was broken off.
pub(super) fn died<T>(error: JoinError) -> Result<T> {
    Err(Error::internal("the task that moved a file ended").with_source(error))
}
