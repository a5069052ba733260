//! The one thread of a store that writes records and queues.
//!
//! Callers hand it jobs and wait. It takes the store's lock, does every job that has come in as one group, and answers all of them after
//! one sync: many callers share the price of a disk's flush. A caller that goes away leaves nothing behind but a job that happens or
//! does not.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use storage_core::{Error, ErrorKind, Result};

use crate::base::{Base, SCRATCH, parent};
use crate::crash::step;
use crate::file::{self, at, create_folders, write_new};
use crate::flush::Flush;
use crate::group::{Group, Lanes};
use crate::journal::{CHECKPOINT_BYTES, EMPTY, Journal, Op, URGENT_BYTES};
use crate::lock::Opened;
use crate::state::State;
use crate::sweep;

/// A group is closed when it has so many jobs or bytes.
const GROUP_JOBS: usize = 1024;
const GROUP_BYTES: usize = 8 << 20;
/// How long nobody writes before the journal is emptied.
const IDLE: Duration = Duration::from_secs(1);
/// How often expired things are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Tells a job's caller how it went, once the group is on the disk (`None`) or has failed.
pub(crate) type Answer = Box<dyn FnOnce(Option<&Error>) + Send>;

/// What to do in a group, or the reason why there is none.
pub(crate) type WriteJob = Box<dyn FnOnce(Result<&mut Group<'_>, &Error>) -> Option<Answer> + Send>;

pub(crate) enum Job {
    /// Shares a group with others.
    Write(WriteJob),
    /// Has the store to itself, with an empty journal.
    Alone(Box<dyn FnOnce(&mut Alone<'_>) + Send>),
}

/// What a job that is alone works with.
pub(crate) struct Alone<'a> {
    pub(crate) base: &'a Base,
    /// `Err`: the lock or the journal failed.
    pub(crate) ready: Result<()>,
    pub(crate) lanes: &'a mut Lanes,
}

pub(crate) struct Committer {
    base: Arc<Base>,
    lock: Opened,
    journal: Journal,
    lanes: Lanes,
    flush: Flush,
    swept: Instant,
}

impl Committer {
    pub(crate) fn new(base: Arc<Base>, lock: Opened, journal: Journal) -> Self {
        Self { base, lock, journal, lanes: Lanes::default(), flush: Flush::default(), swept: Instant::now() }
    }

    /// Works until the last handle on the store is gone.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        let mut next = None;
        let mut wrote = false;
        loop {
            let job = match next.take() {
                Some(job) => Ok(job),
                None => jobs.recv_timeout(if wrote { IDLE } else { SWEEP_EVERY }),
            };
            match job {
                Ok(Job::Write(first)) => {
                    next = self.group(first, jobs);
                    wrote = true;
                }
                Ok(Job::Alone(job)) => self.alone(job),
                Err(RecvTimeoutError::Timeout) => wrote = wrote && !self.idle(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.rest();
                    return;
                }
            }
            if self.swept.elapsed() > SWEEP_EVERY {
                self.swept = Instant::now();
                wrote |= self.sweep();
            }
        }
    }

    /// Does `first` and what else has come in. Answers with a job that can't share the group.
    fn group(&mut self, first: WriteJob, jobs: &Receiver<Job>) -> Option<Job> {
        let mut answers = Vec::new();
        let (mut first, mut left, mut news) = (Some(first), None, false);
        let outcome = self.locked(|this, state| {
            let mut group = Group::new(&this.base, state, &mut this.lanes);
            answers.extend(first.take().and_then(|job| job(Ok(&mut group))));
            while answers.len() < GROUP_JOBS && group.size() < GROUP_BYTES {
                match jobs.try_recv() {
                    Ok(Job::Write(job)) => answers.extend(job(Ok(&mut group))),
                    Ok(alone) => {
                        left = Some(alone);
                        break;
                    }
                    Err(_) => break,
                }
            }
            let (ops, sync, tell) = group.finish();
            news = tell;
            this.carry_out(state, &ops, sync)?;
            if state.end > CHECKPOINT_BYTES && this.flush.is_done(&this.base, state) || state.end > URGENT_BYTES {
                // The group has happened; a checkpoint that fails is tried again with the next.
                this.checkpoint(state).unwrap_or_else(|error| tracing::warn!(%error, "checkpoint failed"));
            }
            Ok(())
        });
        if let (Some(job), Err(error)) = (first, &outcome) {
            job(Err(error));
        }
        if news {
            self.base.news.notify_waiters();
        }
        for answer in answers {
            answer(outcome.as_ref().err());
        }
        left
    }

    fn alone(&mut self, job: Box<dyn FnOnce(&mut Alone<'_>) + Send>) {
        let mut job = Some(job);
        let outcome = self.locked(|this, state| {
            this.checkpoint(state)?;
            state.begun += 1;
            this.base.state.write(state)?;
            if let Some(job) = job.take() {
                job(&mut Alone { base: &this.base, ready: Ok(()), lanes: &mut this.lanes });
            }
            state.structure += 1;
            state.done = state.begun;
            this.base.state.write(state)
        });
        self.base.news.notify_waiters();
        match (job, outcome) {
            (Some(job), Err(error)) => job(&mut Alone { base: &self.base, ready: Err(error), lanes: &mut self.lanes }),
            (None, Err(error)) => tracing::warn!(%error, "the state file could not be written"),
            _ => {}
        }
    }

    /// Empties the journal while nobody writes. `false`: the disk is still busy with what was written.
    fn idle(&mut self) -> bool {
        let outcome = self.locked(|this, state| {
            let done = state.end <= EMPTY || this.flush.is_done(&this.base, state);
            if done { this.checkpoint(state).map(|()| true) } else { Ok(false) }
        });
        outcome.unwrap_or_else(|error| {
            tracing::warn!(%error, "checkpoint failed");
            true
        })
    }

    /// Empties the journal, where there is something in it.
    fn rest(&mut self) {
        let outcome = self.locked(Self::checkpoint);
        outcome.unwrap_or_else(|error| tracing::warn!(%error, "checkpoint failed"));
    }

    fn sweep(&mut self) -> bool {
        let outcome = self.locked(|this, state| {
            let mut group = Group::new(&this.base, state, &mut this.lanes);
            let found = sweep::expired(&mut group)?;
            let (ops, ..) = group.finish();
            this.carry_out(state, &ops, false).map(|()| found)
        });
        outcome.unwrap_or_else(|error| {
            tracing::warn!(%error, "expired records were not removed");
            false
        })
    }

    /// Does something under the store's lock, with whatever a dead process left half done brought to an end.
    fn locked<T>(&mut self, act: impl FnOnce(&mut Self, &mut State) -> Result<T>) -> Result<T> {
        self.lock.lock()?;
        let outcome = self.under_lock(act);
        self.lock.unlock();
        outcome
    }

    fn under_lock<T>(&mut self, act: impl FnOnce(&mut Self, &mut State) -> Result<T>) -> Result<T> {
        let mut state = self.base.state.read()?;
        if !state.is_settled() {
            self.recover(&mut state)?;
        }
        self.lanes.catch_up(&self.journal, &state)?;
        let outcome = act(self, &mut state);
        match &outcome {
            Ok(_) => self.lanes.seen(&state),
            Err(_) => self.lanes.forget(),
        }
        outcome
    }

    /// Finishes, or forgets, the group that a process died over.
    pub(crate) fn recover(&mut self, state: &mut State) -> Result<()> {
        if !self.journal.is_of(state.era)? {
            // It died while it started the journal over, with everything in its files.
            state.era += 1;
            state.end = self.journal.restart(state.era, self.base.durable)?;
            state.durable = 0;
        } else if let Some((ops, end)) = self.journal.read(state.era, state.end)? {
            if self.base.durable {
                self.journal.sync()?;
                state.durable = 1;
            }
            self.redo(&ops)?;
            state.end = end;
        }
        // It may also have died over a table or queue itself.
        state.structure += 1;
        state.done = state.begun;
        self.lanes.forget();
        self.base.state.write(state)
    }

    /// Makes sure that an entry whose writer died before the group was marked as happened does not happen after a power cut either.
    pub(crate) fn drop_unanswered(&self, state: &State) -> Result<()> {
        match self.journal.read(state.era, state.end)? {
            Some(_) => self.journal.revoke(state.end, self.base.durable),
            None => Ok(()),
        }
    }

    fn redo(&self, ops: &[Op]) -> Result<()> {
        let scratch = self.scratch(0);
        for op in ops {
            if let Op::Write { bytes, .. } = op {
                write_new(&scratch, bytes, false)?;
            }
            self.apply(op, &scratch)?;
        }
        Ok(())
    }

    fn scratch(&self, n: usize) -> PathBuf {
        self.base.path(SCRATCH).join(n.to_string())
    }

    /// Makes the changes: wholly, or (with an error that does not say [`Timeout`](storage_core::ErrorKind::Timeout)) not at all.
    fn carry_out(&mut self, state: &mut State, ops: &[Op], sync: bool) -> Result<()> {
        if ops.is_empty() {
            return Ok(());
        }
        // The space for the files is taken first: a full disk is found out while nothing has happened.
        self.prepare(ops).inspect_err(|_| self.clear_scratch(ops.len()))?;
        step();
        let sync = sync && self.base.durable;
        let end = self.append(state, ops, sync).inspect_err(|_| self.clear_scratch(ops.len()))?;
        step();
        // The group has happened. Not marked any sooner: while it is, readers wait, and they need not wait for the disk. Should the process
        // die just here, the next entry takes this one's place, and its callers have not been answered.
        state.begun += 1;
        self.base.state.write(state).map_err(unfinished)?;
        step();
        for (n, op) in ops.iter().enumerate() {
            self.apply(op, &self.scratch(n)).map_err(unfinished)?;
            step();
        }
        state.end = end;
        state.done = state.begun;
        state.durable |= u64::from(sync);
        self.base.state.write(state).map_err(unfinished)?;
        step();
        Ok(())
    }

    fn append(&mut self, state: &mut State, ops: &[Op], sync: bool) -> Result<u64> {
        match self.journal.append(state.era, state.end, ops, sync) {
            // On a full disk what the journal has had before is still its own: starting over there, it can take what frees some space.
            Err(error) if state.end > EMPTY && error.kind() == ErrorKind::Unavailable => {
                self.checkpoint(state)?;
                self.journal.append(state.era, state.end, ops, sync)
            }
            outcome => outcome,
        }
    }

    fn prepare(&self, ops: &[Op]) -> Result<()> {
        for (n, op) in ops.iter().enumerate() {
            if let Op::Write { bytes, .. } = op {
                write_new(&self.scratch(n), bytes, false)?;
                step();
            }
        }
        Ok(())
    }

    fn clear_scratch(&self, count: usize) {
        (0..count).for_each(|n| drop(std::fs::remove_file(self.scratch(n))));
    }

    fn apply(&self, op: &Op, scratch: &std::path::Path) -> Result<()> {
        match op {
            Op::Write { path, .. } => {
                let path = self.base.path(path);
                match std::fs::rename(scratch, &path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        create_folders(parent(&path), false)?;
                        std::fs::rename(scratch, &path).map_err(at(&path))
                    }
                    outcome => outcome.map_err(at(&path)),
                }
            }
            Op::Remove { path } => file::remove(&self.base.path(path)).map(drop),
            Op::Rename { from, to } => {
                let (from, to) = (self.base.path(from), self.base.path(to));
                file::if_there(std::fs::rename(&from, &to)).map(drop).map_err(at(&to))
            }
        }
    }

    /// Brings everything to the disk and starts the journal over.
    pub(crate) fn checkpoint(&mut self, state: &mut State) -> Result<()> {
        if state.end <= EMPTY {
            return Ok(());
        }
        let durable = state.durable == 1;
        if durable {
            self.base.sync_all(&self.journal)?;
        }
        step();
        state.begun += 1;
        self.base.state.write(state)?;
        step();
        state.end = self.journal.restart(state.era + 1, durable)?;
        step();
        state.era += 1;
        state.durable = 0;
        state.done = state.begun;
        self.base.state.write(state)
    }

    /// Brings files up to the journal after a power cut, or where it can't be told whether there was one.
    pub(crate) fn replay(&mut self, state: &mut State) -> Result<()> {
        let Some((era, ops, end)) = self.journal.read_all()? else {
            state.end = self.journal.restart(state.era, true)?;
            return Ok(());
        };
        let outcome = crate::journal::outcome(ops);
        for (to, names) in &outcome.moved {
            if !self.base.path(to).exists() {
                for from in names.iter().rev() {
                    self.apply(&Op::Rename { from: from.clone(), to: to.clone() }, &self.scratch(0))?;
                }
            }
        }
        let scratch = self.scratch(0);
        for (path, content) in outcome.files {
            match content {
                Some(bytes) if self.base.read(&path)?.as_ref() != Some(&bytes) => {
                    write_new(&scratch, &bytes, false)?;
                    self.apply(&Op::Write { path, bytes }, &scratch)?;
                }
                Some(_) => {}
                None => drop(file::remove(&self.base.path(&path))?),
            }
        }
        (state.era, state.end, state.durable) = (era, end, 1);
        self.checkpoint(state)
    }
}

fn unfinished(error: Error) -> Error {
    let reason = error.message().to_owned();
    Error::timeout(format!("the batch is in the journal and will be finished by whoever writes next; for now: {reason}"))
        .with_retryable(false)
        .with_source(error)
}
