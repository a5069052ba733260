//! Ids: of tasks, and the sortable ones of events.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use storage_core::{Clock, Key};
use uuid::Uuid;

/// The resource of tasks that name none.
pub const DEFAULT_RESOURCE: &str = "default";

/// Which task: what it is about, and its id within that.
///
/// A text alone is an id within [`DEFAULT_RESOURCE`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId {
    /// What the task is about: a tenant, a project, a file.
    pub resource_id: String,
    /// The task's own id, unique within the resource.
    pub task_id: String,
}

impl TaskId {
    /// A task of a resource.
    pub fn new(resource_id: impl Into<String>, task_id: impl Into<String>) -> Self {
        Self { resource_id: resource_id.into(), task_id: task_id.into() }
    }

    /// Its id in another system, which has no resources: `task`, or `resource/task`.
    pub(crate) fn to_call(&self) -> String {
        if self.resource_id == DEFAULT_RESOURCE && !self.task_id.contains('/') {
            return self.task_id.clone();
        }
        format!("{}/{}", self.resource_id.replace('%', "%25").replace('/', "%2F"), self.task_id)
    }

    /// The task that has that id in another system.
    pub(crate) fn of_call(id: &str) -> Self {
        match id.split_once('/') {
            Some((resource, task)) => Self::new(resource.replace("%2F", "/").replace("%25", "%"), task),
            None => id.into(),
        }
    }

    /// The key of its record.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::partitioned(&self.resource_id, &self.task_id)
    }
}

impl From<&str> for TaskId {
    fn from(task_id: &str) -> Self {
        Self::new(DEFAULT_RESOURCE, task_id)
    }
}

impl From<String> for TaskId {
    fn from(task_id: String) -> Self {
        Self::new(DEFAULT_RESOURCE, task_id)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.resource_id, self.task_id)
    }
}

/// A UUIDv7 that sorts by `at` to the microsecond (the fraction of the millisecond stands in `rand_a`, as RFC 9562 allows), then by `tail`, of which
/// 62 bits count.
pub(crate) fn sortable(at: DateTime<Utc>, tail: u64) -> Uuid {
    // Before 1970 there was nothing to store.
    let micros = u64::try_from(at.timestamp_micros()).unwrap_or(0);
    let (millis, fraction) = (micros / 1000, micros % 1000 * 4096 / 1000);
    let high = (millis << 16) | (7 << 12) | fraction;
    let low = (2 << 62) | (tail & (u64::MAX >> 2));
    Uuid::from_u64_pair(high, low)
}

/// A fresh id of a task.
pub(crate) fn fresh(clock: &Clock) -> Uuid {
    sortable(clock.now(), random())
}

pub(crate) fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

/// The times of one writer, each later than the one before, however the clock stands.
#[derive(Debug, Default)]
pub(crate) struct Ticker(AtomicI64);

impl Ticker {
    pub(crate) fn next(&self, clock: &Clock) -> DateTime<Utc> {
        let now = clock.now().timestamp_micros();
        let later = |last: i64| Some(now.max(last.saturating_add(1)));
        let last = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later).unwrap_or(now);
        DateTime::from_timestamp_micros(now.max(last.saturating_add(1))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_sort_by_time_then_tail() {
        let clock = Clock::manual();
        let at = clock.now();
        clock.advance(Duration::from_micros(1));
        let next = clock.now();
        assert!(sortable(at, u64::MAX) < sortable(next, 0));
        assert!(sortable(at, 1) < sortable(at, 2));
        assert_eq!(sortable(at, 1).get_version_num(), 7);
        assert_eq!(sortable(at, 0).get_variant(), uuid::Variant::RFC4122);
    }

    #[test]
    fn ids_in_another_system_come_back() {
        for (resource, task) in [("default", "a"), ("default", "a/b"), ("acme", "a"), ("a/c%2Fme", "x/y"), ("default", "a%2Fb")] {
            let id = TaskId::new(resource, task);
            assert_eq!(TaskId::of_call(&id.to_call()), id);
        }
        assert_eq!(TaskId::from("a").to_call(), "a");
    }

    #[test]
    fn a_ticker_never_stands_still() {
        let (clock, ticker) = (Clock::manual(), Ticker::default());
        let times: Vec<_> = (0..100).map(|_| ticker.next(&clock)).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(times[0], clock.now());
    }
}
