//! The one thread that writes: it takes all jobs that wait, does each within one transaction, and answers all after one commit.
//!
//! So many callers share one sync of the disk. A job that fails is undone by itself; if the commit fails, so have they all.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use storage_core::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::connection::{data_version, patient, run};
use crate::database::Shared;
use crate::error::{OrExplain, busy};
use crate::jobs::{Expected, Taken};
use crate::maintenance::Maintenance;
use crate::session::{Ids, Session};

/// How many jobs share a commit at most.
const GROUP_JOBS: usize = 1_024;
/// How large, in KiB, jobs may be together that share a commit.
const GROUP_KIB: u32 = 8 * 1_024;
/// How long the thread looks out for the callers that it has just answered, at most; never longer than the commit took that they shared. Most come straight
/// back with their next job, and then share a commit again; and whoever is alone is spared the waking of a thread.
const LOOK_OUT: Duration = Duration::from_micros(50);
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

/// How much a job is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Its bytes, in KiB.
    pub(crate) kib: u32,
    /// How many records or messages it is about.
    pub(crate) items: usize,
    /// True where it changes nothing if it fails, or nothing but what stays right: then it needs no savepoint.
    pub(crate) atomic: bool,
}

impl Size {
    /// Something rare, which may take any time.
    pub(crate) const LARGE: Self = Self { kib: 1, items: usize::MAX, atomic: false };

    /// About so many records or messages, of a few bytes each.
    pub(crate) const fn items(items: usize) -> Self {
        Self { kib: 1, items, atomic: false }
    }

    /// True where it takes some microseconds and no more.
    pub(crate) const fn is_brief(self) -> bool {
        self.items <= 4 && self.kib <= 8
    }
}

/// A job made of a closure.
pub(crate) struct Task<T, F> {
    pub(crate) work: Option<F>,
    pub(crate) result: Option<Result<T>>,
    pub(crate) reply: oneshot::Sender<Result<T>>,
    pub(crate) size: Size,
    /// Its share of the room for waiting jobs.
    pub(crate) _room: OwnedSemaphorePermit,
}

impl<T, F> fmt::Debug for Task<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("size", &self.size).finish_non_exhaustive()
    }
}

impl<T: Send, F: FnOnce(&mut Session<'_>) -> Result<T> + Send> Job for Task<T, F> {
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn kib(&self) -> u32 {
        self.size.kib
    }

    fn is_atomic(&self) -> bool {
        self.size.atomic
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

/// The connection that writes, and what is known of others that do.
pub(crate) struct Writer {
    connection: Connection,
    maintenance: Maintenance,
    /// Changes when another connection commits.
    data_version: i64,
    ids: Option<Ids>,
    /// When another process was last seen to write.
    company: Option<Instant>,
    /// Since when the lock has been used without a pause.
    stretch: Instant,
}

/// Works until the queue of jobs is closed and empty: what the writing thread does.
pub(crate) fn work(shared: &Shared) {
    let mut expected = Expected::default();
    loop {
        shared.writes.look_out(expected);
        let (mut count, mut kib) = (0, 0);
        #[expect(clippy::borrowed_box, reason = "it is what the queue holds")]
        let fits = |job: &Box<dyn Job>| {
            count += 1;
            kib += job.kib();
            count <= GROUP_JOBS && kib <= GROUP_KIB
        };
        let taken = shared.writes.take(IDLE, fits);
        let mut place = shared.writer();
        let Some(writer) = place.as_mut() else { return };
        match taken {
            Taken::Jobs(jobs) => {
                let (count, begun) = (jobs.len(), Instant::now());
                writer.group(shared, jobs);
                expected = Expected { jobs: count, patience: begun.elapsed().min(LOOK_OUT) };
                writer.maintenance.after_commit(&writer.connection, shared, kib);
                // The lock on the file is given up by now; this one is not to be held meanwhile.
                let pause = writer.courtesy();
                drop(place);
                std::thread::sleep(pause);
            }
            Taken::Nothing => {
                expected = Expected::default();
                writer.maintenance.idle(&writer.connection, shared);
                writer.stretch = Instant::now();
            }
            Taken::Closed => {
                writer.maintenance.finish(&writer.connection, shared);
                // Closes the connection.
                *place = None;
                return;
            }
        }
    }
}

impl Writer {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            maintenance: Maintenance::default(),
            data_version: 0,
            ids: None,
            company: None,
            stretch: Instant::now(),
        }
    }

    /// Does a group of jobs in one transaction and answers them.
    fn group(&mut self, shared: &Shared, mut jobs: Vec<Box<dyn Job>>) {
        jobs.retain(|job| job.is_wanted());
        if jobs.is_empty() {
            return;
        }
        let begun = patient(shared.settings.timeout, || self.begin());
        let done = begun.and_then(|()| {
            let alone = jobs.len() == 1;
            self.transaction(shared, |session| {
                let mut succeeded = 0;
                for job in jobs.iter_mut().filter(|job| job.is_wanted()) {
                    succeeded += usize::from(run_one(session, job.as_mut(), alone)?);
                }
                Ok(((), succeeded > 0))
            })
        });
        let failure = done.err();
        for job in jobs {
            job.answer(failure.as_ref());
        }
    }

    /// Does one job on the caller's thread, if the lock on the file is free; else the job comes back.
    pub(crate) fn alone<T, F>(&mut self, shared: &Shared, work: F) -> std::result::Result<Result<T>, F>
    where
        F: FnOnce(&mut Session<'_>) -> Result<T>,
    {
        if self.has_company() {
            return Err(work);
        }
        // Without patience: who has to wait does so with the writing thread.
        match self.begin() {
            Ok(()) => {}
            Err(error) if is_busy(&error) => return Err(work),
            Err(error) => return Ok(Err(error)),
        }
        let done = self.transaction(shared, |session| work(session).map(|value| (value, true)));
        if self.maintenance.is_due_after_commit() {
            shared.writes.nudge();
        }
        Ok(done)
    }

    fn begin(&self) -> Result<()> {
        if !self.connection.is_autocommit() {
            // Somebody panicked in the middle.
            run(&self.connection, "ROLLBACK").or_explain()?;
        }
        run(&self.connection, "BEGIN IMMEDIATE").or_explain()
    }

    /// What follows [`begin`](Self::begin), to the end of the transaction, whichever it is. `act` answers with a value, and whether there is anything to keep.
    fn transaction<T>(&mut self, shared: &Shared, act: impl FnOnce(&mut Session<'_>) -> Result<(T, bool)>) -> Result<T> {
        let done = self.look_for_company().and_then(|()| {
            let catalog = shared.catalog.of(&self.connection)?;
            let mut session = Session::new(&self.connection, catalog, &shared.settings.clock, self.ids.take());
            let (value, keep) = act(&mut session)?;
            if !keep {
                return Ok((value, None));
            }
            session.finish()?;
            let Session { catalog, news, ids, .. } = session;
            run(&self.connection, "COMMIT").or_explain()?;
            Ok((value, Some((catalog, news, ids))))
        });
        if !self.connection.is_autocommit() {
            // Whatever happened, no transaction is left open.
            let _ = run(&self.connection, "ROLLBACK");
        }
        let (value, kept) = done?;
        if let Some((catalog, news, ids)) = kept {
            // Of a transaction that came to nothing they are forgotten: its reservation did too.
            self.ids = ids;
            shared.commits.fetch_add(1, Ordering::Relaxed);
            shared.catalog.publish(&catalog);
            shared.news.announce(&news);
        }
        Ok(value)
    }

    /// Notes whether other processes write too.
    fn look_for_company(&mut self) -> Result<()> {
        let version = data_version(&self.connection).or_explain()?;
        if version != self.data_version {
            if self.data_version != 0 {
                self.company = Some(Instant::now());
            }
            self.data_version = version;
            self.ids = None;
        }
        Ok(())
    }

    fn has_company(&self) -> bool {
        self.company.is_some_and(|seen| seen.elapsed() < COMPANY)
    }

    /// How long to let other processes have a turn. A file lock knows no queue: who commits without a pause takes every turn.
    fn courtesy(&mut self) -> Duration {
        if self.has_company() && self.stretch.elapsed() > STRETCH {
            self.stretch = Instant::now() + COURTESY;
            return COURTESY;
        }
        Duration::ZERO
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
