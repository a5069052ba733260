//! The one thread that writes: it takes all jobs that wait, does each within one transaction, and answers all after one commit.
//!
//! So many callers share one sync of the disk. A job that fails is undone by itself; if the commit fails, so have they all.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use storage_core::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::connection::{data_version, patient, run};
use crate::database::Shared;
use crate::error::{OrExplain, busy};
use crate::jobs::Taken;
use crate::maintenance::Maintenance;
use crate::session::Session;

/// How many jobs share a commit at most.
const GROUP_JOBS: usize = 1_024;
/// How large, in KiB, jobs may be together that share a commit.
const GROUP_KIB: u32 = 8 * 1_024;
/// How long the thread sleeps without jobs before it looks after the file.
const IDLE: Duration = Duration::from_millis(500);
/// For how long another process is taken to be still there after its last commit.
const COMPANY: Duration = Duration::from_secs(1);
/// How long the lock is left alone between two commits while there is company: enough for another process to wake and take it.
const COURTESY: Duration = Duration::from_micros(1_500);
/// For how long the lock is used at a stretch while there is company.
const STRETCH: Duration = Duration::from_millis(10);

/// Something to do within a write transaction.
pub(crate) trait Job: Send + fmt::Debug {
    /// False where nobody waits for the answer any more.
    fn is_wanted(&self) -> bool;
    /// How large it is, in KiB.
    fn kib(&self) -> u32;
    /// True where it changes nothing if it fails, so that it needs no savepoint.
    fn is_atomic(&self) -> bool;
    /// Does it; true where it succeeded.
    fn run(&mut self, session: &mut Session<'_>) -> bool;
    /// Answers. `failure`: the transaction came to nothing.
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

/// A job made of a closure.
pub(crate) struct Task<T, F> {
    pub(crate) work: Option<F>,
    pub(crate) result: Option<Result<T>>,
    pub(crate) reply: oneshot::Sender<Result<T>>,
    pub(crate) kib: u32,
    pub(crate) atomic: bool,
    /// Its share of the room for waiting jobs.
    pub(crate) _room: OwnedSemaphorePermit,
}

impl<T, F> fmt::Debug for Task<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("kib", &self.kib).finish_non_exhaustive()
    }
}

impl<T: Send, F: FnOnce(&mut Session<'_>) -> Result<T> + Send> Job for Task<T, F> {
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn kib(&self) -> u32 {
        self.kib
    }

    fn is_atomic(&self) -> bool {
        self.atomic
    }

    fn run(&mut self, session: &mut Session<'_>) -> bool {
        let result = self.work.take().map(|work| work(session));
        let succeeded = matches!(result, Some(Ok(_)));
        self.result = result;
        succeeded
    }

    fn answer(self: Box<Self>, failure: Option<&Error>) {
        let result = match (self.result, failure) {
            (Some(Err(error)), _) => Err(error),
            (_, Some(failure)) => Err(failure.duplicate()),
            (Some(result), None) => result,
            (None, None) => Err(Error::internal("a job was answered before it was done")),
        };
        // Nobody may be waiting any more.
        let _ = self.reply.send(result);
    }
}

/// The writing thread's state.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    connection: Connection,
    maintenance: Maintenance,
    /// Changes when another connection commits.
    data_version: i64,
    /// When another process was last seen to write.
    company: Option<Instant>,
    /// Since when the lock has been used without a pause.
    stretch: Instant,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, connection: Connection) -> Self {
        Self { shared, connection, maintenance: Maintenance::default(), data_version: 0, company: None, stretch: Instant::now() }
    }

    /// Works until the queue of jobs is closed and empty.
    pub(crate) fn work(mut self) {
        loop {
            let (mut count, mut kib) = (0, 0);
            let taken = self.shared.writes.take(IDLE, |job| {
                count += 1;
                kib += job.kib();
                count <= GROUP_JOBS && kib <= GROUP_KIB
            });
            match taken {
                Taken::Jobs(jobs) => {
                    self.group(jobs);
                    self.maintenance.after_commit(&self.connection, &self.shared);
                    self.be_courteous();
                }
                Taken::Nothing => {
                    self.maintenance.idle(&self.connection, &self.shared);
                    self.stretch = Instant::now();
                }
                Taken::Closed => break,
            }
        }
        self.maintenance.finish(&self.connection, &self.shared);
    }

    /// Does a group of jobs in one transaction and answers them.
    fn group(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        jobs.retain(|job| job.is_wanted());
        if jobs.is_empty() {
            return;
        }
        let done = patient(self.shared.settings.timeout, || self.transaction(&mut jobs));
        if !self.connection.is_autocommit() {
            // Whatever happened, no transaction is left open.
            let _ = run(&self.connection, "ROLLBACK");
        }
        let failure = done.err();
        for job in jobs {
            job.answer(failure.as_ref());
        }
    }

    fn transaction(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<()> {
        run(&self.connection, "BEGIN IMMEDIATE").or_explain()?;
        self.look_for_company()?;
        let catalog = self.shared.catalog.of(&self.connection)?;
        let mut session = Session::new(&self.connection, catalog, &self.shared.settings.clock);
        let alone = jobs.len() == 1;
        let mut succeeded = 0;
        for job in jobs.iter_mut().filter(|job| job.is_wanted()) {
            succeeded += usize::from(run_one(&mut session, job.as_mut(), alone)?);
        }
        if succeeded == 0 {
            return run(&self.connection, "ROLLBACK").or_explain();
        }
        session.finish()?;
        let Session { catalog, news, .. } = session;
        run(&self.connection, "COMMIT").or_explain()?;
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.catalog.publish(&catalog);
        self.shared.news.announce(&news);
        Ok(())
    }

    /// Notes whether other processes write too.
    fn look_for_company(&mut self) -> Result<()> {
        let version = data_version(&self.connection).or_explain()?;
        if version != self.data_version {
            if self.data_version != 0 {
                self.company = Some(Instant::now());
            }
            self.data_version = version;
        }
        Ok(())
    }

    /// Lets other processes have a turn. A file lock knows no queue: who commits without a pause takes every turn.
    fn be_courteous(&mut self) {
        let now = Instant::now();
        if self.company.is_some_and(|seen| now - seen < COMPANY) && now - self.stretch > STRETCH {
            std::thread::sleep(COURTESY);
            self.stretch = Instant::now();
        }
    }
}

/// Does one job of a group; true where it succeeded. An error is the whole group's.
fn run_one(session: &mut Session<'_>, job: &mut dyn Job, alone: bool) -> Result<bool> {
    let mark = session.mark();
    let savepoint = !alone && !job.is_atomic();
    if savepoint {
        run(session.connection, "SAVEPOINT job").or_explain()?;
    }
    let succeeded = job.run(session);
    if session.connection.is_autocommit() {
        // Some failures (a full disk, for one) end the transaction by themselves.
        return Err(Error::unavailable(
            "the transaction was given up by the database, most likely for want of disk space or memory; nothing was changed",
        )
        .with_retryable(false));
    }
    match (succeeded, savepoint) {
        (true, true) => run(session.connection, "RELEASE job").or_explain()?,
        (false, true) => session.roll_back_to_savepoint()?,
        (false, false) if !alone && !session.is_clean_since(&mark) => {
            return Err(Error::internal("a write that shared its transaction failed half-way; nothing was changed"));
        }
        _ => {}
    }
    if !succeeded {
        session.reset(mark);
    }
    Ok(succeeded)
}

/// What the writer says when it can't be started.
pub(crate) fn no_thread(error: std::io::Error) -> Error {
    Error::unavailable(format!("no thread could be started for the database: {error}")).with_source(error)
}

/// True where waiting for a lock is what failed.
pub(crate) fn is_busy(error: &Error) -> bool {
    error.kind() == busy().kind() && error.message() == busy().message()
}
