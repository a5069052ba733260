//! Schedules: when tasks are submitted by themselves.

mod scheduler;
mod spec;
mod store;

pub use self::scheduler::{Scheduler, SchedulerOptions, SchedulerReport};
pub use self::spec::ScheduleSpec;
pub use self::store::{DueTicks, MAX_TICKS, Misfire, NewSchedule, Schedule, ScheduleOptions, SchedulePage, ScheduleStore};
