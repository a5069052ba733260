//! Queues as rows.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use storage_core::{Error, QueueName, QueueSpec, Result};

use crate::row::{self, SqlRow};

/// The state of a message that can be received.
pub const READY: i64 = 0;
/// The state of a message that was sent with a delay. 1 is one with a consumer, or given back with a delay.
pub const DELAYED: i64 = 2;

/// How many queues are remembered.
const KNOWN_QUEUES: usize = 1_000;

/// A queue, or its companion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its number.
    pub id: i64,
    /// How it was created.
    pub spec: QueueSpec,
    /// True for the companion that holds the dead letters.
    pub dead: bool,
}

impl Queue {
    /// Where the messages of this one are.
    #[must_use]
    pub fn lane(&self) -> i64 {
        self.home() + i64::from(self.dead)
    }

    /// Where the live messages are.
    #[must_use]
    pub fn home(&self) -> i64 {
        2 * self.id
    }

    /// Where the dead letters are.
    #[must_use]
    pub fn letters(&self) -> i64 {
        self.home() + 1
    }

    /// After so many deliveries a message is dead.
    #[must_use]
    pub fn cap(&self) -> i64 {
        self.spec.max_deliveries.filter(|_| !self.dead).map_or(i64::MAX, i64::from)
    }

    /// The same for the name by which it was asked for, which may be the companion's.
    #[must_use]
    pub fn called(self, name: &QueueName) -> Self {
        Self { dead: name.dead_letter_of().is_some(), ..self }
    }

    /// How it was created, as its user sees it.
    #[must_use]
    pub fn spec(&self) -> QueueSpec {
        if self.dead { self.spec.max_deliveries(None) } else { self.spec }
    }
}

/// The name of the queue itself, also of a companion's.
#[must_use]
pub fn home(name: &QueueName) -> QueueName {
    name.dead_letter_of().unwrap_or_else(|| name.clone())
}

/// The queue in a row of name, number, cap of deliveries and window of dedup ids.
///
/// # Errors
/// [`Corrupt`](storage_core::ErrorKind::Corrupt) for a row of somebody else's.
pub fn read_queue(found: &impl SqlRow) -> Result<(QueueName, Queue)> {
    let strange = || Error::corrupt("a row of `_storage_queues` was not written by this toolkit");
    let name = row::text(found, 0)?.ok_or_else(strange)?;
    let id = row::integer(found, 1)?.ok_or_else(strange)?;
    let cap = row::integer(found, 2)?.map(|cap| u32::try_from(cap).map_err(|_| strange())).transpose()?;
    let window = row::integer(found, 3)?.and_then(|window| u64::try_from(window).ok()).ok_or_else(strange)?;
    let spec = QueueSpec { max_deliveries: cap, dedup_window: Duration::from_micros(window) };
    Ok((QueueName::new(name)?, Queue { id, spec, dead: false }))
}

/// Queues as they were found last.
#[derive(Debug, Default)]
pub struct KnownQueues(Mutex<HashMap<QueueName, Queue>>);

impl KnownQueues {
    /// The queue of that name, or the companion.
    pub fn get(&self, name: &QueueName) -> Option<Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// Takes note of one.
    pub fn remember(&self, name: &QueueName, queue: Queue) -> Queue {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.len() >= KNOWN_QUEUES {
            queues.clear();
        }
        queues.insert(name.clone(), queue);
        queue
    }

    /// It is there no longer.
    pub fn forget(&self, name: &QueueName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}
