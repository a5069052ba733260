//! Schedules: when tasks are submitted by themselves.

mod record;
mod scheduler;
mod spec;
mod store;

pub use self::record::{MAX_TICKS, Misfire, NewSchedule, Schedule};
pub use self::scheduler::{Scheduler, SchedulerOptions, SchedulerReport};
pub use self::spec::ScheduleSpec;
pub use self::store::{DueTicks, ScheduleOptions, SchedulePage, ScheduleStore};
