//! [`ScheduleStore`]: schedules as records, and the claims on their ticks.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use storage_core::clock::add;
use storage_core::{
    Clock, Error, ErrorKind, Expect, Filter, Key, PageToken, RecordStore, Result, ResultExt as _, Version, value,
};

use super::record::{MAX_TICKS, Misfire, NewSchedule, Schedule};
use super::spec::Ticks;
use crate::SubmitOptions;
use crate::table::Table;

/// How a [`ScheduleStore`] is opened.
#[derive(Clone, Debug)]
pub struct ScheduleOptions {
    /// What the table's name begins with: `<prefix>schedules`.
    pub prefix: String,
    /// Where the time comes from. Several schedulers need clocks that agree: one that is ahead fires early.
    pub clock: Clock,
    /// How long a claim is good for: how soon another scheduler takes over from one that ended.
    pub lease: Duration,
    /// A tick claimed later than that counts as missed.
    pub grace: Duration,
}

impl Default for ScheduleOptions {
    /// No prefix, the system's clock, leases of 30 s, a minute of grace.
    fn default() -> Self {
        Self { prefix: String::new(), clock: Clock::system(), lease: Duration::from_secs(30), grace: Duration::from_secs(60) }
    }
}

/// Ticks of a schedule that this caller has claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct DueTicks {
    /// The schedule.
    pub schedule: Schedule,
    /// The ticks, oldest first.
    pub ticks: Vec<DateTime<Utc>>,
}

/// A page of schedules, by name.
#[derive(Clone, Debug)]
pub struct SchedulePage {
    /// The schedules.
    pub schedules: Vec<Schedule>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<PageToken>,
}

#[derive(Debug)]
struct Inner {
    table: Table<Schedule>,
    options: ScheduleOptions,
}

/// Schedules. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ScheduleStore {
    inner: Arc<Inner>,
}

impl ScheduleStore {
    /// Opens the table; creates it where it is not there.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a bad prefix; the backend's.
    pub async fn open(records: &RecordStore, options: ScheduleOptions) -> Result<Self> {
        let table = Table::open(records, &options.prefix, "schedules").await?;
        Ok(Self { inner: Arc::new(Inner { table, options }) })
    }

    /// How it was opened.
    #[must_use]
    pub fn options(&self) -> &ScheduleOptions {
        &self.inner.options
    }

    fn now(&self) -> DateTime<Utc> {
        self.inner.options.clock.now()
    }

    /// Adds a schedule. Its first tick is the first after now; one for a moment that is past is missed, as [`Misfire`] says.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists); [`InvalidInput`](ErrorKind::InvalidInput) for a bad name or spec, and for one that never fires.
    pub async fn add(&self, new: NewSchedule) -> Result<Schedule> {
        let name = new.name.clone();
        let add = async {
            let mut schedule = self.prepare(new)?;
            let table = &self.inner.table;
            schedule.version = table.write(table.put(&schedule, Expect::Absent, None)?).await?;
            Ok::<_, Error>(schedule)
        };
        add.await.context("schedules.add", || subject(&name))
    }

    fn prepare(&self, new: NewSchedule) -> Result<Schedule> {
        let now = self.now();
        // The tick's id is the name and some 30 bytes more.
        if new.name.is_empty() || new.name.len() > 255 || new.name.chars().any(char::is_control) {
            return Err(Error::invalid("the name of a schedule needs 1 to 255 bytes without control characters"));
        }
        if matches!(new.misfire, Misfire::All(max) if max == 0 || max as usize > MAX_TICKS) {
            return Err(Error::invalid(format!("missed ticks that all fire: 1 to {MAX_TICKS} of them, or use `skip`")));
        }
        let ticks = new.spec.ticks(now)?;
        let next_at = match ticks {
            Ticks::At(at) => Some(at),
            ticks => ticks.next_after(now),
        };
        if next_at.is_none() {
            return Err(Error::invalid("it would never fire: there is no such moment"));
        }
        let mut schedule = Schedule {
            name: new.name,
            spec: new.spec,
            kind: new.kind,
            input: new.input,
            options: SubmitOptions { task_id: None, ..new.options },
            misfire: new.misfire,
            paused: false,
            created_at: now,
            next_at,
            last_at: None,
            claimed: Vec::new(),
            leased_until: None,
            wake_at: None,
            version: Version::NONE,
        };
        schedule.set_wake();
        Ok(schedule)
    }

    /// The schedule of that name.
    ///
    /// # Errors
    /// The backend's.
    pub async fn get(&self, name: &str) -> Result<Option<Schedule>> {
        self.inner.table.get(Key::new(name)).await
    }

    /// One page of schedules, by name.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a bad limit or token; the backend's.
    pub async fn list(&self, limit: u32, after: Option<PageToken>) -> Result<SchedulePage> {
        let (schedules, next) = self.inner.table.page(&self.inner.table.query().limit(limit).after(after)).await?;
        Ok(SchedulePage { schedules, next })
    }

    /// Removes a schedule; tasks that it submitted stay. `false`: there was none.
    ///
    /// # Errors
    /// The backend's.
    pub async fn remove(&self, name: &str) -> Result<bool> {
        let table = &self.inner.table;
        Ok(table.write(table.delete(Key::new(name), Expect::Anything)).await? != Version::NONE)
    }

    /// Stops a schedule from firing; ticks that are claimed already fire all the same.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); the backend's.
    pub async fn pause(&self, name: &str) -> Result<Schedule> {
        self.change(name, |schedule, _| schedule.paused = true).await
    }

    /// Lets a paused schedule fire again, from its first tick after now on.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); the backend's.
    pub async fn resume(&self, name: &str) -> Result<Schedule> {
        let now = self.now();
        let resume = |schedule: &mut Schedule, ticks: &Ticks| {
            if std::mem::take(&mut schedule.paused) {
                schedule.next_at = ticks.next_after(now);
            }
        };
        self.change(name, resume).await
    }

    async fn change(&self, name: &str, act: impl Fn(&mut Schedule, &Ticks)) -> Result<Schedule> {
        const TRIES: usize = 100;
        let table = &self.inner.table;
        let change = async {
            for _ in 0..TRIES {
                let found = self.get(name).await?;
                let mut schedule = found.ok_or_else(|| Error::not_found(format!("there is no schedule `{name}`")))?;
                let ticks = schedule.spec.ticks(schedule.created_at)?;
                act(&mut schedule, &ticks);
                schedule.set_wake();
                match table.write(table.put(&schedule, Expect::Version(schedule.version), None)?).await {
                    Ok(version) => return Ok(Schedule { version, ..schedule }),
                    Err(error) if error.kind() == ErrorKind::Conflict => {}
                    Err(error) => return Err(error),
                }
            }
            Err(Error::conflict("others change the schedule all the time"))
        };
        change.await.context("schedules.change", || subject(name))
    }

    /// Claims what is due: up to `max` schedules with their ticks. Each tick is handed out under a lease to one caller; when that is over and the ticks are not
    /// [`done`](Self::done), they are handed out again.
    ///
    /// Which ticks fire (see [`Misfire`]) is decided with the claim and written in the schedule's record, by one conditional write: two schedulers never get one
    /// tick at the same time, and a scheduler that ends loses none.
    ///
    /// # Errors
    /// The backend's.
    pub async fn due(&self, max: u32) -> Result<Vec<DueTicks>> {
        let now = self.now();
        let table = &self.inner.table;
        let due = async {
            let query = table.query().filter(Filter::le("wake_at", value::timestamp(now))?);
            let (schedules, _) = table.page(&query.ascending("wake_at")?.limit(max)).await?;
            let mut claims = Vec::new();
            for schedule in schedules {
                let name = schedule.name.clone();
                match self.claim(schedule, now).await {
                    Ok(claim) => claims.extend(claim),
                    // A zone that this build does not know must not keep the other schedules from firing.
                    Err(error) if error.kind() == ErrorKind::InvalidInput => {
                        tracing::error!(schedule = name, %error, "a schedule can't be understood: left alone");
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok::<_, Error>(claims)
        };
        due.await.context("schedules.due", || "the schedules".into())
    }

    async fn claim(&self, mut schedule: Schedule, now: DateTime<Utc>) -> Result<Option<DueTicks>> {
        if schedule.claimed.is_empty() {
            let ticks = schedule.spec.ticks(schedule.created_at)?;
            schedule.claimed = self.decide(&schedule, &ticks, now);
            schedule.last_at = schedule.claimed.last().copied().or(schedule.last_at);
            schedule.next_at = ticks.next_after(now);
        }
        let some = !schedule.claimed.is_empty();
        schedule.leased_until = some.then(|| add(now, self.inner.options.lease));
        schedule.set_wake();
        let table = &self.inner.table;
        match table.write(table.put(&schedule, Expect::Version(schedule.version), None)?).await {
            Ok(version) if some => {
                schedule.version = version;
                Ok(Some(DueTicks { ticks: schedule.claimed.clone(), schedule }))
            }
            // All of them were missed, and are left out.
            Ok(_) => Ok(None),
            // Another scheduler's, or changed just now.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The ticks that fire: those within the grace, and of the missed ones before what the schedule says. 1,000 at most; beyond, the oldest are left out.
    fn decide(&self, schedule: &Schedule, ticks: &Ticks, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let Some(first) = schedule.next_at.filter(|first| *first <= now) else { return Vec::new() };
        let grace = chrono::TimeDelta::from_std(self.inner.options.grace).unwrap_or(chrono::TimeDelta::MAX);
        let punctual_from = now.checked_sub_signed(grace).unwrap_or(first).max(first);
        let punctual = ticks.newest_within(punctual_from, now, MAX_TICKS);
        let keep = match schedule.misfire {
            Misfire::Skip => 0,
            Misfire::Once => 1,
            Misfire::All(max) => max as usize,
        };
        let missed_until = punctual_from - chrono::TimeDelta::microseconds(1);
        let mut fire = ticks.newest_within(first, missed_until, keep.min(MAX_TICKS - punctual.len()));
        fire.extend(punctual);
        fire
    }

    /// Says that the ticks of a claim have been seen to.
    ///
    /// # Errors
    /// [`LeaseLost`](ErrorKind::LeaseLost): the claim is over and may be another's, or the schedule was changed or removed; the ticks may be handed out
    /// again.
    pub async fn done(&self, claim: &DueTicks) -> Result<Schedule> {
        let table = &self.inner.table;
        let mut schedule = claim.schedule.clone();
        schedule.claimed = Vec::new();
        schedule.leased_until = None;
        schedule.set_wake();
        match table.write(table.put(&schedule, Expect::Version(schedule.version), None)?).await {
            Ok(version) => Ok(Schedule { version, ..schedule }),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                Err(Error::lease_lost(error.message()).with_operation("schedules.done").with_subject(subject(&schedule.name)))
            }
            Err(error) => Err(error),
        }
    }

    /// When there is something to do next: a tick, or the end of a lease. `None`: never, as things stand.
    ///
    /// # Errors
    /// The backend's.
    pub async fn next_wake(&self) -> Result<Option<DateTime<Utc>>> {
        let table = &self.inner.table;
        let waiting = !Filter::is_null("wake_at")?;
        let (schedules, _) = table.page(&table.query().filter(waiting).ascending("wake_at")?.limit(1)).await?;
        Ok(schedules.first().and_then(|schedule| schedule.wake_at))
    }
}

fn subject(name: &str) -> String {
    format!("schedule `{name}`")
}
