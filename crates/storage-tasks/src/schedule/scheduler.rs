//! [`Scheduler`]: submits tasks when schedules say so.

use std::time::Duration;

use chrono::{DateTime, Utc};
use storage_core::backoff::Backoff;
use storage_core::{Error, ErrorKind, Result, ResultExt as _};

use super::record::Schedule;
use super::store::{DueTicks, ScheduleStore};
use crate::{NewTask, SubmitOptions, Submitted, TaskStore};

/// How a [`Scheduler`] works.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerOptions {
    /// The longest it waits before it looks again: schedules that others add are found by that.
    pub poll: Duration,
    /// How many schedules it claims at a time.
    pub batch: u32,
}

impl Default for SchedulerOptions {
    /// A look per second at least, 100 schedules at a time.
    fn default() -> Self {
        Self { poll: Duration::from_secs(1), batch: 100 }
    }
}

/// What a [`Scheduler`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerReport {
    /// Tasks submitted.
    pub fired: u64,
    /// Ticks whose task was there already: another scheduler submitted it, and ended or lost its claim before it could say so.
    pub repeated: u64,
    /// Ticks that could not be submitted this time; they are tried again when the claim's lease is over.
    pub failed: u64,
}

/// Submits a task for every tick. Any number may run, in any number of processes.
///
/// Each tick's task has the id `<schedule>@<tick>`: whatever ends between claim, submission and the note that it is done, the tick is claimed again, and the
/// second submission finds the first one's task. So every tick that fires submits one task (as long as finished tasks are kept for longer than a lease, see
/// [`keep_finished`](crate::TaskOptions::keep_finished)).
#[derive(Clone, Debug)]
pub struct Scheduler {
    schedules: ScheduleStore,
    tasks: TaskStore,
    options: SchedulerOptions,
}

impl Scheduler {
    /// A scheduler.
    #[must_use]
    pub fn new(schedules: &ScheduleStore, tasks: &TaskStore, options: SchedulerOptions) -> Self {
        Self { schedules: schedules.clone(), tasks: tasks.clone(), options }
    }

    /// Submits what is due now, once through: one claim of up to [`batch`](SchedulerOptions::batch) schedules.
    ///
    /// # Errors
    /// Where nothing could be claimed at all. A task that can't be submitted is counted, and logged.
    pub async fn tick(&self) -> Result<SchedulerReport> {
        let mut report = SchedulerReport::default();
        for claim in self.schedules.due(self.options.batch).await? {
            self.fire(&claim, &mut report).await;
        }
        Ok(report)
    }

    async fn fire(&self, claim: &DueTicks, report: &mut SchedulerReport) {
        let DueTicks { schedule, ticks } = claim;
        let new = ticks.iter().map(|tick| new_task(schedule, schedule.tick_id(*tick))).collect();
        let submitted = match self.tasks.submit_all(new).await {
            Ok(submitted) => submitted,
            Err(error) => {
                tracing::warn!(schedule = schedule.name, %error, "can't submit a schedule's tasks: they are tried again");
                report.failed += ticks.len() as u64;
                return;
            }
        };
        let fired = submitted.iter().filter(|task| task.is_new).count();
        report.fired += fired as u64;
        report.repeated += (submitted.len() - fired) as u64;
        match self.schedules.done(claim).await {
            Ok(_) => {}
            // Paused or removed just now, or another's claim: the tasks are there, and a second submission finds them.
            Err(error) if error.kind() == ErrorKind::LeaseLost => {}
            Err(error) => tracing::warn!(schedule = schedule.name, %error, "can't note that a schedule's ticks are done"),
        }
    }

    /// Submits the task of a schedule now, besides its ticks.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); see [`TaskStore::submit`].
    pub async fn trigger(&self, name: &str) -> Result<Submitted> {
        let trigger = async {
            let found = self.schedules.get(name).await?;
            let schedule = found.ok_or_else(|| Error::not_found(format!("there is no schedule `{name}`")))?;
            let now: DateTime<Utc> = self.schedules.options().clock.now();
            // Apart from the tick of this very moment.
            let id = format!("{}@manual-{}", schedule.name, now.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
            self.tasks.submit_task(new_task(&schedule, id)).await
        };
        trigger.await.context("schedules.trigger", || format!("schedule `{name}`"))
    }

    /// Submits until `shutdown` is ready. A backend that does not answer is asked again, a little later each time.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> SchedulerReport {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut backoff = Backoff::new(self.options.poll, self.options.poll.saturating_mul(32));
        let mut total = SchedulerReport::default();
        loop {
            // Not cut off: a claim begun is seen through.
            let delay = match self.pass().await {
                Ok((report, delay)) => {
                    total.fired += report.fired;
                    total.repeated += report.repeated;
                    total.failed += report.failed;
                    backoff.reset();
                    delay
                }
                Err(error) => {
                    let delay = backoff.next_delay();
                    tracing::warn!(%error, ?delay, "can't look after the schedules, trying again");
                    delay
                }
            };
            tokio::select! {
                biased;
                () = &mut shutdown => return total,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn pass(&self) -> Result<(SchedulerReport, Duration)> {
        let report = self.tick().await?;
        let next = self.schedules.next_wake().await?;
        let until = next.map(|at| (at - self.schedules.options().clock.now()).to_std().unwrap_or_default());
        let delay = match until {
            // Due, and yet nothing came of it: it would not the next moment either.
            Some(Duration::ZERO) if report.fired + report.repeated == 0 => self.options.poll,
            Some(until) => until.min(self.options.poll),
            None => self.options.poll,
        };
        Ok((report, delay))
    }
}

fn new_task(schedule: &Schedule, task_id: String) -> NewTask {
    let options = SubmitOptions { task_id: Some(task_id), ..schedule.options.clone() };
    NewTask::new(&*schedule.kind, schedule.input.clone()).with(options)
}
