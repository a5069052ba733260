//! [`TaskStatus`] and what may follow what.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use storage_core::{ColumnType, ColumnValue, Error, Result};

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// It waits: for its first run, or for its next after a failure.
    Pending,
    /// A worker has it.
    Running,
    /// It is done.
    Succeeded,
    /// It failed for good.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl TaskStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// True where nothing more happens by itself: the task is in the finished table.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// True where a task may go from this status to `next`. All changes but [`upsert_task`](crate::TaskStore::upsert_task) keep to it.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            // To itself: sent again by hand.
            Self::Pending => matches!(next, Self::Pending | Self::Running | Self::Failed | Self::Cancelled),
            // To itself: taken over from a worker that is gone.
            Self::Running => true,
            Self::Failed | Self::Cancelled => matches!(next, Self::Pending),
            Self::Succeeded => false,
        }
    }

    /// Its name: `pending`, `running`, ….
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl ColumnValue for TaskStatus {
    const KIND: ColumnType = ColumnType::Text;
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TaskStatus {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str);
            Error::invalid(match storage_core::nearest(name, names) {
                Some(near) => format!("there is no task status {name:?}; did you mean `{near}`?"),
                None => format!("there is no task status {name:?}; there is: {}", names.join(", ")),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_finished_comes_back_by_retry_alone() {
        for from in TaskStatus::ALL {
            assert_eq!(from.as_str().parse::<TaskStatus>().unwrap(), from);
            for to in TaskStatus::ALL {
                if from.is_finished() && from.may_become(to) {
                    assert_eq!(to, TaskStatus::Pending);
                }
            }
        }
        assert!(!TaskStatus::Succeeded.may_become(TaskStatus::Pending));
        assert!(!TaskStatus::Pending.may_become(TaskStatus::Succeeded));
        assert!("runing".parse::<TaskStatus>().unwrap_err().message().contains("did you mean `running`"));
    }
}
