//! [`Schedule`], and what one is made of.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage_core::{Entity, Version};

use super::spec::ScheduleSpec;
use crate::SubmitOptions;

/// How many ticks of one schedule are claimed at a time.
pub const MAX_TICKS: usize = 1000;

/// What becomes of ticks that nobody was there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Misfire {
    /// They are left out.
    Skip,
    /// The newest one fires, for all of them.
    #[default]
    Once,
    /// They all fire, the newest so many (1,000 at most).
    All(u32),
}

/// A schedule as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Entity)]
#[entity(table = "schedules")]
pub struct Schedule {
    /// Its name.
    #[entity(key)]
    pub name: String,
    /// When it fires.
    pub spec: ScheduleSpec,
    /// The kind of task that it submits.
    pub kind: String,
    /// The task's input.
    pub input: Value,
    /// How the task is submitted. Its id is the tick's: `<schedule>@<tick>`.
    #[entity(json)]
    pub options: SubmitOptions,
    /// What becomes of missed ticks.
    #[entity(json)]
    pub misfire: Misfire,
    /// True while it does not fire. The ticks of that time are missed for good.
    pub paused: bool,
    /// When it was added: what intervals are counted from.
    pub created_at: DateTime<Utc>,
    /// The tick that comes next. `None`: there is none any more.
    pub next_at: Option<DateTime<Utc>>,
    /// The tick that was claimed last.
    pub last_at: Option<DateTime<Utc>>,
    /// Ticks that are claimed and not yet done.
    pub claimed: Vec<DateTime<Utc>>,
    /// Until when they are the claimer's.
    pub leased_until: Option<DateTime<Utc>>,
    /// When there is something to do: the next tick, or the end of a lease.
    #[entity(index)]
    pub wake_at: Option<DateTime<Utc>>,
    /// The version of its record: the claimer's proof.
    #[entity(version)]
    pub version: Version,
}

impl Schedule {
    /// The id of the task that a tick submits: always the same one, so that it is submitted once.
    #[must_use]
    pub fn tick_id(&self, tick: DateTime<Utc>) -> String {
        format!("{}@{}", self.name, tick.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
    }

    pub(crate) fn set_wake(&mut self) {
        self.wake_at = if self.paused && self.claimed.is_empty() { None } else { self.leased_until.or(self.next_at) };
    }
}

/// A schedule to be added.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSchedule {
    /// Its name: 1 to 255 bytes.
    pub name: String,
    /// When it fires.
    pub spec: ScheduleSpec,
    /// The kind of task that it submits.
    pub kind: String,
    /// The task's input.
    pub input: Value,
    /// How the task is submitted; a task id given here is not used.
    pub options: SubmitOptions,
    /// What becomes of missed ticks.
    pub misfire: Misfire,
}

impl NewSchedule {
    /// A schedule with default options.
    pub fn new(name: impl Into<String>, spec: ScheduleSpec, kind: impl Into<String>, input: impl Into<Value>) -> Self {
        Self {
            name: name.into(),
            spec,
            kind: kind.into(),
            input: input.into(),
            options: SubmitOptions::default(),
            misfire: Misfire::default(),
        }
    }

    /// Sets the options.
    #[must_use]
    pub fn options(mut self, options: SubmitOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets what becomes of missed ticks.
    #[must_use]
    pub fn misfire(mut self, misfire: Misfire) -> Self {
        self.misfire = misfire;
        self
    }
}
