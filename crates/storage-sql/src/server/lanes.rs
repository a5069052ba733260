//! Who waits for messages in this process, and how they learn of some at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::{Outcome, sent};

/// How many waiting receivers one piece of news wakes at most; each that finds as much as it takes wakes the next.
const WAKE: usize = 16;

/// What tells of news, by lane.
#[derive(Debug, Default)]
pub struct Lanes(Mutex<HashMap<i64, Arc<Notify>>>);

impl Lanes {
    /// What tells of news in a lane.
    pub fn of(&self, lane: i64) -> Arc<Notify> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(lane).or_default())
    }

    /// Tells who waits for the lane.
    pub fn wake(&self, lane: i64, count: usize) {
        let lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(notify) = lanes.get(&lane) else { return };
        for _ in 0..count.min(WAKE) {
            notify.notify_one();
        }
    }

    /// Wakes everybody.
    pub fn wake_all(&self) {
        for notify in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            notify.notify_waiters();
        }
    }
}

/// In which lanes how many messages were just sent. Also where only a delayed one was: who waits has to know until when.
pub fn news<S>(outcomes: &[Outcome<'_, S>]) -> impl Iterator<Item = (i64, usize)> {
    let mut lanes: HashMap<i64, usize> = HashMap::new();
    for outgoing in sent(outcomes).filter(|m| m.duplicate_of.is_none()) {
        *lanes.entry(outgoing.queue.lane()).or_insert(0) += usize::from(outgoing.message.delay.is_zero());
    }
    lanes.into_iter().map(|(lane, count)| (lane, count.max(1)))
}
