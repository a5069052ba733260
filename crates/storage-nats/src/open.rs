//! A queue as this store knows it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use storage_core::{QueueName, QueueSpec};

use crate::later::Watch;
use crate::names::{Lane, Names};

/// How long a message stays away that was delivered, where nothing else is said: where the lease is as long, nothing needs to be said.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(30);
/// The same for delayed messages, of which something is said at once.
pub(crate) const LATER_ACK_WAIT: Duration = Duration::from_secs(10);
/// How many bytes one receive takes at about most.
pub(crate) const MAX_BYTES: usize = 64 << 20;
/// What a message is taken to weigh before one was seen.
const FIRST_GUESS: usize = 256 << 10;

/// What the description of a stream holds, as JSON: the queue's spec, and the mark of this life of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// The version of this layout.
    pub(crate) storage_queue: u32,
    pub(crate) life: String,
    max_deliveries: Option<u32>,
    /// In microseconds.
    dedup_window: u64,
}

impl Description {
    pub(crate) const VERSION: u32 = 1;

    pub(crate) fn new(spec: &QueueSpec) -> Self {
        let life = uuid::Uuid::new_v4().simple().to_string();
        Self {
            storage_queue: Self::VERSION,
            life: life[..12].to_owned(),
            max_deliveries: spec.max_deliveries,
            dedup_window: micros(spec.dedup_window),
        }
    }

    pub(crate) fn spec(&self) -> QueueSpec {
        QueueSpec { max_deliveries: self.max_deliveries, dedup_window: Duration::from_micros(self.dedup_window) }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A queue whose stream was found.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) names: Names,
    pub(crate) spec: QueueSpec,
    pub(crate) later: Watch,
    /// What a message weighs, lately.
    weight: AtomicUsize,
}

impl Open {
    pub(crate) fn new(prefix: &str, queue: &QueueName, description: &Description) -> Self {
        Self {
            names: Names::new(prefix, queue, &description.life),
            spec: description.spec(),
            later: Watch::default(),
            weight: AtomicUsize::new(FIRST_GUESS),
        }
    }

    /// The delivery cap of a part.
    pub(crate) fn cap(&self, lane: Lane) -> Option<u32> {
        self.spec.max_deliveries.filter(|_| lane == Lane::Live)
    }

    /// True where dedup ids are remembered at all.
    pub(crate) fn dedups(&self) -> bool {
        !self.spec.dedup_window.is_zero()
    }

    /// How many messages to ask for, so that they need not take more than is left of [`MAX_BYTES`].
    pub(crate) fn batch(&self, wanted: usize, taken_bytes: usize) -> usize {
        let room = MAX_BYTES.saturating_sub(taken_bytes) / self.weight.load(Ordering::Relaxed).max(64);
        wanted.min(room).max(1)
    }

    /// Notes what messages weigh.
    pub(crate) fn weigh(&self, bytes: usize, messages: usize) {
        if let Some(weight) = bytes.checked_div(messages) {
            self.weight.store(weight, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_by_what_messages_weigh() {
        let queue = "q".parse().unwrap();
        let open = Open::new("storage", &queue, &Description::new(&QueueSpec::default()));
        assert_eq!(open.batch(10_000, 0), 256);
        open.weigh(1000, 10);
        assert_eq!((open.batch(10_000, 0), open.batch(10_000, MAX_BYTES)), (10_000, 1));
    }

    #[test]
    fn a_spec_comes_back() {
        for spec in [QueueSpec::default(), QueueSpec::default().max_deliveries(None).dedup_window(Duration::ZERO)] {
            let text = serde_json::to_string(&Description::new(&spec)).unwrap();
            assert_eq!(serde_json::from_str::<Description>(&text).unwrap().spec(), spec);
        }
    }
}
